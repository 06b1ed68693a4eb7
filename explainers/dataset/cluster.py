"""Chunks on several processes or machines, by dask.distributed; the job travels to each worker once."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ...models import GatelensError, InvalidInputError, ModelError
from .work import Done, Job, Worker

if TYPE_CHECKING:
    from distributed import Client

AHEAD = 3  # chunks handed out for each worker, so that none waits
START_SECONDS = 60.0
STOP_SECONDS = 10.0
STDERR = 2  # where a worker prints to: standard output is the caller's, who may write JSON there
QUIET = {"DASK_LOGGING__DISTRIBUTED": "critical"}
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
KEPT_BYTES, MAPPED_BYTES = 2**28, 2**25
DASK_KEEPS = 2**16


class ClusterError(GatelensError, RuntimeError):
    """The workers or their scheduler are gone; what was written stays, and the same call goes on from there."""


@contextmanager
def local_client(workers: int) -> Iterator[Client]:
    """Start worker processes on this machine, and stop them afterwards; they end by themselves if this process does.

    They are started as commands, not as copies of this process, so a script needs no `if __name__ == "__main__"`.
    """
    from distributed import Client, LocalCluster, Scheduler
    from distributed.deploy.spec import SpecCluster

    with ExitStack() as stack:
        if sys.platform == "win32":  # dask starts no commands there
            cluster: Any = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                memory_limit=0,
                dashboard_address="127.0.0.1:0",
                host="127.0.0.1",
            )
        else:
            options = {
                "host": "127.0.0.1", "nthreads": 1, "memory_limit": 0, "dashboard": False,
                "death_timeout": STOP_SECONDS, "silence_logs": logging.CRITICAL,
            }  # fmt: skip
            cluster = SpecCluster(
                scheduler={
                    "cls": Scheduler,
                    "options": {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0", "port": 0},
                },
                workers={name: {"cls": _command(), "options": {"worker_kwargs": options}} for name in range(workers)},
                name="gatelens",
                silence_logs=logging.CRITICAL,
            )
        stack.enter_context(cluster)
        client = stack.enter_context(Client(cluster, timeout=START_SECONDS))
        client.wait_for_workers(workers, timeout=START_SECONDS)
        yield client


def _command() -> Any:
    """Return dask's worker that is started as a command, with a log that tells of errors only."""
    import asyncio

    from distributed.deploy.subprocess import SubprocessWorker

    class QuietWorker(SubprocessWorker):  # type: ignore[misc]
        async def _start(self) -> None:
            spec = json.dumps({"cls": self.worker_class, "opts": self.worker_kwargs})
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "dask", "spec", self.scheduler, "--spec", spec, env={**os.environ, **QUIET},
                stdout=STDERR,
            )  # fmt: skip

    return QuietWorker


@contextmanager
def client_at(address: str) -> Iterator[Client]:
    """Connect to a scheduler that runs already.

    Raises:
        ClusterError: Nothing answers there, or it has no workers.
    """
    from distributed import Client

    try:
        client = Client(address, timeout=START_SECONDS / 4, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise ClusterError(
            f"no dask scheduler answers at {address} ({_said(error)}); start one with `dask scheduler` and workers "
            "with `dask worker ADDRESS`, or leave --scheduler out to work on this machine."
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=START_SECONDS / 4)
        except TimeoutError:
            raise ClusterError(
                f"the scheduler at {address} has no workers; start some with `dask worker {address}`."
            ) from None
        yield client


class JobPlugin:
    """Holds a job on a dask worker; dask brings it to each worker, also to those that come later."""

    idempotent = True

    def __init__(self, name: str, payload: bytes) -> None:
        self.name = name
        self.payload = payload
        self.lock: Any = None
        self.worker: Worker | None = None

    def setup(self, worker: Any) -> None:  # noqa: ARG002 - dask's signature
        """Prepare for chunks; the job itself is unpacked with the first."""
        self.lock = threading.Lock()
        keep_freed_memory(KEPT_BYTES, MAPPED_BYTES)

    def teardown(self, worker: Any) -> None:  # noqa: ARG002 - dask's signature
        """Let go of the job."""
        self.worker = None
        keep_freed_memory(DASK_KEEPS, 2**17)

    def do(self, index: int) -> Done:
        """Explain a chunk; one at a time, because a method sets the model's mode and torch's generators."""
        with self.lock, one_thread():
            if self.worker is None:
                job = unpacked(self.payload)
                if not job.path.exists():
                    raise ClusterError(
                        f"the worker on {socket.gethostname()} does not see {job.path}; choose a folder that all "
                        "workers share."
                    )
                self.worker = Worker(job)
            with self.worker.ready() as worker:
                return worker.do(index)


def keep_freed_memory(kept: int, mapped: int) -> None:
    """Tell glibc, where it is, how much freed memory a process keeps, and from what size on blocks are mapped.

    dask starts its workers with MALLOC_TRIM_THRESHOLD_=65536: what is freed goes back to the system at once, and a
    batch's large tensors are fetched anew, page by page, each time. Explaining then takes three times as long.
    """
    if "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(M_TRIM_THRESHOLD, kept)
    mallopt(M_MMAP_THRESHOLD, mapped)


def do_chunk(name: str, index: int) -> Done:
    """Explain a chunk, on a dask worker."""
    from distributed import get_worker

    plugin: Any = get_worker().plugins[name]
    done: Done = plugin.do(index)
    return done


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: the workers are as many as there are cores, and sums come out the same everywhere."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def on_workers(job: Job, chunks: Sequence[int], client: Client) -> Iterator[Done]:
    """Hand out the chunks, a few for each worker at a time, and yield what is done.

    Raises:
        ClusterError: The scheduler is lost, or a chunk has cost several workers their life.
        GatelensError, OSError, MemoryError: As the worker raised it.
    """
    from distributed import KilledWorker, as_completed
    from distributed.comm.core import CommClosedError

    name = f"gatelens-{uuid4().hex}"
    try:
        client.register_plugin(_dask_plugin(name, packed(job)), name=name)
    except (ImportError, AttributeError) as error:
        raise ClusterError(
            f"the workers cannot unpack the job ({_said(error)}); install the same gatelens there as here."
        ) from None
    left = iter(chunks)
    ahead = AHEAD * max(1, len(client.nthreads()))
    futures: dict[Any, int] = {}

    def hand_out() -> Any:
        index = next(left, None)
        if index is None:
            return None
        future = client.submit(do_chunk, name, index, pure=False, retries=0)
        futures[future] = index
        return future

    try:
        first = [future for _ in range(ahead) if (future := hand_out()) is not None]
        waiting = as_completed(first, loop=client.loop)
        for future in waiting:
            index = futures.pop(future)
            if future.status == "error" and isinstance(future.exception(), KilledWorker):
                raise ClusterError(
                    f"several workers died while they explained chunk {index}; perhaps they ran out of memory. Give "
                    "less with memory= (--memory) and a new store, or use fewer workers."
                ) from None
            if future.status in ("cancelled", "lost"):
                raise _lost("its connection broke")
            yield future.result()
            new = hand_out()
            if new is not None:
                waiting.add(new)
    except (CommClosedError, TimeoutError, ConnectionError) as error:
        raise _lost(_said(error)) from None
    finally:
        if client.status == "running":
            client.cancel(list(futures), force=True)
            client.unregister_worker_plugin(name)


def packed(job: Job) -> bytes:
    """Return the job as bytes.

    Raises:
        ModelError: The model cannot be sent.
    """
    import cloudpickle

    try:
        payload: bytes = cloudpickle.dumps(job)
    except Exception as error:  # noqa: BLE001 - whatever a stranger's model raises
        raise ModelError(
            f"the model or an option cannot be sent to other processes ({_said(error)}); explain in this process with "
            "workers=1."
        ) from None
    return payload


def unpacked(payload: bytes) -> Job:
    """Return the job that `packed` made bytes of, in the caller's own process: nothing of a file is unpickled."""
    import cloudpickle

    job: Job = cloudpickle.loads(payload)
    return job


def _dask_plugin(name: str, payload: bytes) -> Any:
    """Return a `JobPlugin` that dask takes for one of its own."""
    from distributed import WorkerPlugin

    class DaskPlugin(JobPlugin, WorkerPlugin):  # type: ignore[misc]
        pass

    return DaskPlugin(name, payload)


def _lost(why: str) -> ClusterError:
    return ClusterError(
        f"the scheduler is lost ({why}); what was written is kept, and the same call with a living scheduler, or on "
        "this machine, goes on from there."
    )


def _said(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")[:200]


def check_workers(workers: int | None) -> None:
    """Refuse a number of workers that is none."""
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
        raise InvalidInputError(
            f"workers is {workers!r}; expected a whole number, 1 or more, or None: one for each core."
        )
