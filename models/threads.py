"""Shares a compiled task out to the threads that torch itself uses.

A second pool beside torch's would fight it for the cores: each one's idle workers spin for a while, and a forward pass
of the user's model then takes several times as long. So the task runs in torch's own pool, through the entry point of
the OpenMP runtime that torch was linked with; where there is none, in Python threads, which sleep when idle.
"""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

_first_process: list[int] = []  # where threads were first used; a forked child's copy of them does not work


def count(rows: int) -> int:
    """Return how many threads may share `rows`: as many as torch uses, and one in a process forked from another."""
    if not _first_process:
        _first_process.append(os.getpid())
    return min(torch.get_num_threads(), rows) if _first_process[0] == os.getpid() else 1


def share(task: Any, job: NDArray[np.int64], threads: int) -> None:
    """Run a task (a numba `cfunc` of a job's address) in each of `threads` threads; it takes shares of the job itself.

    Args:
        task: Takes the address of `job`; works until no share is left.
        job: int64, contiguous; its first number is the ticket counter, set to 0 here.
        threads: At least 1.
    """
    job[0] = 0
    address = job.ctypes.data
    if threads == 1:
        task.ctypes(address)
    elif (parallel := _openmp()) is not None:
        parallel(task.address, address, threads, 0)
    else:
        done = [_pool(threads).submit(task.ctypes, address) for _ in range(threads)]
        for one in done:
            one.result()


@cache
def _openmp() -> Any:
    """Return GOMP_parallel of the runtime torch is linked with (LLVM's has it, too), or None."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:  # a symbol is looked for in the library and in what it is linked with, so this is torch's own
        parallel = ctypes.CDLL(str(library)).GOMP_parallel
    except (OSError, AttributeError):
        return None
    parallel.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_uint, ctypes.c_uint]
    parallel.restype = None
    return parallel


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="gatelens")
