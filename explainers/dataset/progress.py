"""How far a run is: counted, with speed and time left, and shown as a bar."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        done: Samples that are in the store, those of earlier runs and those that failed included.
        total: All samples.
        failed: Those of them that could not be explained.
        seconds: Since this run began to explain.
        samples_per_second: Of this run; 0 before its first chunk.
        seconds_left: At that speed; None before the first chunk.
    """

    done: int
    total: int
    failed: int
    seconds: float
    samples_per_second: float
    seconds_left: float | None


class Meter:
    """Counts what is done, and tells whoever listens."""

    def __init__(self, total: int, done: int, failed: int, tell: Callable[[Progress], None]) -> None:
        self.total, self.done, self.failed, self.tell = total, done, failed, tell
        self.before = done
        self.started = time.perf_counter()
        tell(self.state())

    def add(self, explained: int, failed: int) -> None:
        """Count a chunk."""
        self.done += explained + failed
        self.failed += failed
        self.tell(self.state())

    def state(self) -> Progress:
        """Return how far it is."""
        seconds = time.perf_counter() - self.started
        here = self.done - self.before
        speed = here / seconds if here and seconds else 0.0
        left = (self.total - self.done) / speed if speed else None
        return Progress(self.done, self.total, self.failed, seconds, speed, left)


@contextmanager
def listener(progress: bool | Callable[[Progress], None]) -> Iterator[Callable[[Progress], None]]:
    """Yield what is to be told of progress: the caller's function, a bar on standard error, or nobody."""
    if callable(progress):
        yield progress
    elif progress:
        with _bar() as tell:
            yield tell
    else:
        yield lambda _state: None


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns: tuple[Any, ...] = (
        TextColumn("explaining"), BarColumn(), MofNCompleteColumn(), TextColumn("samples"),
        TextColumn("{task.fields[told]}"),
    )  # fmt: skip
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None, told="")

        def tell(state: Progress) -> None:
            bar.update(task, completed=state.done, total=state.total, told=told(state))

        yield tell


def told(state: Progress) -> str:
    """Return speed, time left and failures in words."""
    words = [] if state.seconds_left is None else [f"{state.samples_per_second:.3g} a second"]
    if state.seconds_left:
        words.append(f"{_clock(state.seconds_left)} left")
    if state.failed:
        words.append(f"{state.failed} failed")
    return ", ".join(words)


def _clock(seconds: float) -> str:
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
