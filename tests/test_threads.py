"""A task is shared out so that every share is worked on once, by the threads torch uses, or by Python's."""

from __future__ import annotations

import multiprocessing
import threading

import numpy as np
import pytest
import torch

from gatelens.models import compiled, kernels, threads
from gatelens.models.activations import ACTIVATIONS
from gatelens.models.kernels import Cell

STANDARD = Cell(ACTIVATIONS["sigmoid"], ACTIVATIONS["tanh"], standard=True, reverse=False)


def scanned(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return gates and cells of a scan of 37 rows that `count` threads share in 37 shares."""
    generator = torch.Generator().manual_seed(0)
    gates, cell = torch.randn(5, 37, 4, 3, generator=generator), torch.full((5, 37, 3), torch.nan)
    state, lengths = torch.zeros(37, 3), torch.full((37,), 5)
    job = kernels._job(gates, cell, state, lengths, STANDARD)
    job[compiled.CARRY] = state.data_ptr()
    job[compiled.TICKET] = 99  # what an earlier run left
    job[compiled.SHARES] = 37
    threads.share(compiled.scan_task, job, count)
    assert job[compiled.TICKET] == 37 + count  # each thread's last ticket is one too many
    return gates, cell


@pytest.mark.parametrize("openmp", [True, False])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_share_is_worked_on_once(monkeypatch, openmp, count):
    """Whoever shares, each row is made once: activated twice, or left out, it would be another number."""
    expected = scanned(1)
    if not openmp:
        monkeypatch.setattr(threads, "_openmp", lambda: None)
    for _ in range(20):
        for one, other in zip(scanned(count), expected, strict=True):
            assert torch.equal(one, other)


def test_torchs_own_pool_is_found():
    """On Linux, torch's OpenMP runtime is at hand, so that no second pool fights it."""
    assert torch.backends.openmp.is_available() == (threads._openmp() is not None)


def test_callers_on_several_threads():
    """Python threads that share out at the same time do not take each other's shares."""
    expected = scanned(1)
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    callers = [threading.Thread(target=lambda: found.extend(scanned(2) for _ in range(20))) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == 60
    assert all(torch.equal(one, other) for pair in found for one, other in zip(pair, expected, strict=True))


def _in_child(queue: multiprocessing.Queue) -> None:
    torch.set_num_threads(2)
    queue.put((threads.count(8), float(scanned(threads.count(8))[1].double().sum())))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_uses_one_thread():
    """Threads do not survive a fork, so a process forked from the one that used them first keeps to one."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert threads.count(8) == 2
        assert threads.count(1) == 1
        expected = float(scanned(2)[1].double().sum())
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        child = context.Process(target=_in_child, args=(queue,))
        child.start()
        found = queue.get(timeout=60)
        child.join()
    finally:
        torch.set_num_threads(before)
    assert found == (1, pytest.approx(expected, rel=1e-12))


def test_jobs_hold_what_the_kernels_read():
    """A job's numbers stand where the compiled tasks look for them."""
    gates, cell, state = torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 5), torch.zeros(3, 5)
    lengths = torch.tensor([2, 1, 2])
    job = kernels._job(gates, cell, state, lengths, STANDARD)
    assert job.dtype == np.int64
    assert job[[compiled.STEPS, compiled.BATCH, compiled.UNITS, compiled.REVERSE]].tolist() == [2, 3, 5, 0]
    assert job[compiled.GATES : compiled.LENGTHS + 1].tolist() == [
        gates.data_ptr(), cell.data_ptr(), state.data_ptr(), 0, lengths.data_ptr(),
    ]  # fmt: skip
    with pytest.raises(AssertionError, match="contiguous"):
        kernels._job(gates.transpose(0, 1), cell, state, lengths, STANDARD)
