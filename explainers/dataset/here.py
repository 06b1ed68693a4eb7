"""Chunks in this process: one after the other, or on threads that hold a copy of the job each."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from itertools import islice
from queue import SimpleQueue

import torch

from ...models import ModelError, Predictor
from ...models.state import seeded
from .cluster import one_thread, packed, unpacked
from .work import Done, Found, Job, Worker

OWN = ("torch.nn.", "gatelens.")  # modules that read and write nothing but themselves
SPARE = 1  # chunks handed out beyond those at work


def never() -> bool:
    """Return False: there is never enough."""
    return False


def one_by_one(job: Job, chunks: Sequence[int], enough: Callable[[], bool] = never) -> Iterator[Done]:
    """Do the chunks one after the other, until it is enough; the next is read and the last written beside the work."""
    with (
        Worker(job).ready() as worker,
        ThreadPoolExecutor(1, "read") as reader,
        ThreadPoolExecutor(1, "write") as writer,
    ):
        written: Future[Done] | None = None
        upcoming = reader.submit(worker.read, chunks[0])
        for place, index in enumerate(chunks):
            block = upcoming.result()
            if place + 1 < len(chunks):
                upcoming = reader.submit(worker.read, chunks[place + 1])
            found: Found = worker.explain(block, index)
            if written is not None:
                yield written.result()
            written = writer.submit(worker.write, index, found)
            if enough():
                break
        if written is not None:
            yield written.result()


def copies(job: Job, count: int) -> list[Job]:
    """Return copies of a job that may be done at once in threads of one process; none where that is not sure.

    It is sure of methods that say so, of models on the CPU that are built of torch's and gatelens's own modules: what
    a stranger's forward or hook reads and writes beside its module is not known.
    """
    explainer = job.explainer
    predictor: Predictor = explainer.predictor
    if count < 2 or not explainer.concurrent or predictor.module is None or predictor.device.type != "cpu":
        return []
    for part in predictor.module.modules():
        hooks = (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks)  # noqa: SLF001
        if any(hooks) or not f"{type(part).__module__}.".startswith(OWN) or "forward" in vars(part):
            return []
    try:
        payload = packed(job)
    except ModelError:
        return []
    return [unpacked(payload) for _ in range(count)]


def at_once(jobs: Sequence[Job], chunks: Sequence[int], enough: Callable[[], bool] = never) -> Iterator[Done]:
    """Do the chunks on as many threads as there are copies of the job, until it is enough.

    Each thread computes with one of torch's threads, as a worker process does.
    """
    idle: SimpleQueue[Worker] = SimpleQueue()

    def do(index: int) -> Done:
        torch.set_num_threads(1)  # of this thread
        worker = idle.get()
        try:
            return worker.do(index)
        finally:
            idle.put(worker)

    with (
        process_kept(),
        one_thread(),
        ExitStack() as workers,
        ThreadPoolExecutor(len(jobs), "explain") as pool,
    ):
        for job in jobs:
            idle.put(workers.enter_context(Worker(job).ready()))
        left = iter(chunks)
        at_work = {pool.submit(do, index) for index in islice(left, len(jobs) + SPARE)}
        try:
            while at_work:
                ended, at_work = wait(at_work, return_when=FIRST_COMPLETED)
                for future in ended:
                    yield future.result()
                    index = None if enough() else next(left, None)
                    if index is not None:
                        at_work.add(pool.submit(do, index))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def process_kept() -> Iterator[None]:
    """Put back what the process has once, and each thread borrows: generators, warning filters, cuDNN's switch."""
    with seeded(0), warnings.catch_warnings(), torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled):
        yield
