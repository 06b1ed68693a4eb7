"""A disk that is full, told with what to do."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...models import GatelensError


class DiskFullError(GatelensError, OSError):
    """There is no room for the next chunk; what was written stays, and the same call goes on from there."""


@contextmanager
def full_disk_told(path: Path) -> Iterator[None]:
    """Say of a full disk what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        free = shutil.disk_usage(path.parent).free / 2**20
        raise DiskFullError(
            f"the disk that holds {path} is full ({free:.0f} MiB free); make room and repeat the call: what was "
            "written is kept, and it goes on from there."
        ) from None
