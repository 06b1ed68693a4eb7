"""The command line's frame: one typer app, and the one place where errors become a sentence and an exit code.

Commands import what they need when they run, so that `gatelens --help` stays quick (no torch).
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from .compare import compare
from .demo import demo
from .evaluate import evaluate
from .explain import explain
from .inspect import inspect
from .methods import methods
from .report import report
from .summarize import summarize
from .train import train

app = typer.Typer(
    name="gatelens",
    help="Explains LSTM predictions: which timesteps mattered, what the gates did, and how far to rely on it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (demo, train, inspect, explain, report, summarize, compare, evaluate, methods):
    app.command()(command)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"gatelens {version('gatelens')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Explain LSTM predictions."""


def main() -> None:
    """Run the command; bad input ends with one sentence on standard error and exit code 2, never with a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a letter shows a question mark
    try:
        app()
    except KeyboardInterrupt:
        sys.stderr.write("gatelens: interrupted\n")
        sys.exit(130)
    except Exception as error:  # the last line of defence
        if os.environ.get("GATELENS_DEBUG"):
            raise
        from ..models.errors import GatelensError

        if isinstance(error, GatelensError):
            sys.stderr.write(f"gatelens: {error}\n")
            sys.exit(2)
        sys.stderr.write(
            f"gatelens: an unexpected {type(error).__name__}: {error}\n"
            "This is a fault of gatelens; set GATELENS_DEBUG=1 to see where, and please report it.\n"
        )
        sys.exit(1)
