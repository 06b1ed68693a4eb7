"""Writing whole or not at all: write beside the goal, then rename."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InvalidInputError


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it becomes `path` only if the block ends well."""
    _check_parent(path)
    if path.is_dir():
        raise InvalidInputError(f"{path} is a folder; expected a file's name.")
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        beside.chmod(0o666 & ~_umask())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a folder beside `path` to fill; it becomes `path` only if the block ends well.

    An older folder at `path` stays until the new one is complete.
    """
    if path.is_symlink():
        path = path.resolve()  # the link stays and what it points to is replaced
    _check_parent(path)
    if path.exists() and not path.is_dir():
        raise InvalidInputError(f"{path} is a file; expected a folder's name.")
    beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    old = beside.with_name(beside.name + ".old")
    try:
        yield beside
        beside.chmod(0o777 & ~_umask())
        for file in filter(Path.is_file, beside.iterdir()):
            file.chmod(0o666 & ~_umask())
        if path.exists():
            path.rename(old)
        try:
            beside.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
    finally:
        for leftover in (beside, old):
            shutil.rmtree(leftover, ignore_errors=True)


def _check_parent(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInputError(f"the folder {path.parent} cannot be made: {error.strerror}.") from None
    if not os.access(path.parent, os.W_OK):
        raise InvalidInputError(f"the folder {path.parent} cannot be written to; choose another place.")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
