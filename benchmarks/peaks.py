"""By how much an explanation raises the memory of a process."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from collections.abc import Callable
from pathlib import Path

MIB = 2**20


def raised(run: Callable[[], object]) -> float:
    """Return how many MiB more than it held before the process holds while running, at most.

    What is free is given back first, and Linux counts the peak anew. Elsewhere the peak is that of the whole process:
    0 where it was higher before.
    """
    gc.collect()
    if sys.platform.startswith("linux"):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _peak()
    run()
    return max(0.0, (_peak() - before) / MIB)


def _peak() -> int:
    """Return the most bytes that the process has held."""
    if sys.platform.startswith("linux"):  # getrusage's cannot be counted anew, and imports alone reach hundreds of MB
        return int(Path("/proc/self/status").read_text(encoding="ascii").split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on a Mac
