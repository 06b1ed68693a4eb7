"""A task is shared out so that every share is worked on once, by the threads torch uses, or by Python's."""

from __future__ import annotations

import multiprocessing
import threading

import numpy as np
import pytest
import torch

from gatelens.models import ModelError, compiled, kernels, products, threads
from gatelens.models.activations import ACTIVATIONS
from gatelens.models.kernels import Cell

STANDARD = Cell(ACTIVATIONS["sigmoid"], ACTIVATIONS["tanh"], standard=True, reverse=False)


def scanned(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return gates and cells of 37 groups of rows that `count` threads share in 37 shares."""
    generator = torch.Generator().manual_seed(0)
    batch = 37 * products.ROWS
    inputs, states = torch.randn(5, batch, 2, generator=generator), torch.zeros(5, batch, 3)
    panels, added = products.packed(torch.randn(2 + 3, 12, generator=generator))
    gates, cell = torch.full((5, batch, 4, 3), torch.nan), torch.full((5, batch, 3), torch.nan)
    state, lengths = torch.zeros(batch, 3), torch.full((batch,), 5)
    job = kernels.new_job(gates, cell, state, lengths, STANDARD)
    job[compiled.PART], job[compiled.FEATURES], job[compiled.WIDTH] = compiled.BOTH, 2, 3
    parts = (panels, added, inputs, states)
    job[compiled.WEIGHTS : compiled.STATES + 1] = [part.data_ptr() for part in parts]
    job[compiled.CARRY] = state.data_ptr()
    job[compiled.TICKET] = 99  # what an earlier run left
    job[compiled.SHARES] = 37
    threads.share(compiled.run_task, job, count)
    assert job[compiled.TICKET] == 37 + count  # each thread's last ticket is one too many
    assert cell.isfinite().all()
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
    job = kernels.new_job(gates, cell, state, lengths, STANDARD)
    assert job.dtype == np.int64
    assert job[[compiled.STEPS, compiled.BATCH, compiled.UNITS, compiled.REVERSE]].tolist() == [2, 3, 5, 0]
    assert job[[compiled.GATES, compiled.CELL, compiled.INITIAL, compiled.LENGTHS]].tolist() == [
        part.data_ptr() for part in (gates, cell, state, lengths)
    ]
    with pytest.raises(ModelError, match="do not fit cells"):
        kernels.new_job(gates.transpose(0, 1), cell, state, lengths, STANDARD)
