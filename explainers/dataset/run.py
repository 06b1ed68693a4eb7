"""`explain_dataset`: explains all sequences of a source, chunk by chunk, into a Zarr store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ...models import InvalidInputError, InvalidTypeError
from ...models.config import Task
from ...models.errors import nearest_name
from ...models.predictor import Output
from ...models.sequence_data import Windows
from ..attribution import Attribution
from ..base import as_predictor, check_positive
from ..registry import make_explainer
from .budget import budget_of, shared_out
from .cluster import check_workers, client_at, local_client, on_workers, one_thread
from .disk import full_disk_told
from .here import at_once, copies, one_by_one
from .identity import identity_of
from .progress import Meter, Progress, listener
from .reading import open_store
from .source import Source, open_source
from .staging import digest_of
from .store import EXPLAINED, FAILED, AttributionStore, locked
from .work import (
    Done,
    GateDetail,
    Job,
    check_baseline,
    check_device,
    checked_target,
    explain_block,
    kept,
)

SHORT_SECONDS = 2.0  # after which it is known how fast chunks go
LONG_SECONDS = 20.0  # for which starting processes is worth the while
PROBED = 8  # samples that are tried, until one can be explained, before a store is made


@dataclass(frozen=True)
class DatasetRun:
    """What a run has done.

    Attributes:
        path: The store's folder.
        samples: In the store.
        explained: Of these.
        failed: Of these; `gatelens.explainers.dataset.failures(path)` tells why.
        before: Samples that earlier runs had done.
        seconds: What this run took, reading and writing included.
        notes: What cleaning and reading did, in words.
    """

    path: Path
    samples: int
    explained: int
    failed: int
    before: int
    seconds: float
    notes: tuple[str, ...] = ()

    def open(self) -> Attribution:
        """Return the attributions, read when they are asked for."""
        return open_store(self.path)


def explain_dataset(
    model: Any,
    source: Any,
    *,
    method: str = "integrated_gradients",
    out: str | Path,
    target: Any = None,
    memory: int | str = "2GiB",
    scheduler: str | None = None,
    workers: int | None = None,
    device: str | None = None,
    options: Mapping[str, Any] | None = None,
    baseline: Any = "zero",
    output: Output = "logit",
    task: Task | None = None,
    seed: int = 0,
    gates: GateDetail = "sum",
    lengths: Any = None,
    windows: Windows = "all",
    stride: int = 1,
    id_column: str | None = None,
    text_column: str | None = None,
    overwrite: bool = False,
    progress: bool | Callable[[Progress], None] = False,
) -> DatasetRun:
    """Explain every sequence of a dataset that may be larger than memory.

    Each chunk of samples is written whole or not at all. After a crash the same call goes on where it stood, and the
    store holds the same bits as if nothing had happened (but for `chunk_cost`, which holds seconds).

    Args:
        model: Anything an `Explainer` takes. It travels to each worker once.
        source: A file (.zarr, .nc, .npz, .npy, .csv, .parquet) or a folder of them; an array (numpy, torch, xarray,
            dask), float (N, T, D) or ids (N, T); a `SequenceData`. Tables hold raw values, all others the model's
            numbers.
        method: Name of an explainer.
        out: The store's folder, "NAME.zarr".
        target: See `Explainer.explain`; None: each sample's own predicted class; (N,) ints: one a sample.
        memory: Budget for what is held of the data, beyond the libraries, "2GiB" or bytes: of all workers on this
            machine together, or with a scheduler of each worker.
        scheduler: Address of a dask scheduler whose workers see `out`; None: worker processes on this machine.
        workers: Processes on this machine, of one thread each. None: this one begins, and if it would take long, one
            for each core goes on, as far as the memory goes. 1, or no more than one chunk: this one, with the threads
            that torch is set to.
        device: Where the model is taken to, e.g. "cuda" (then `workers` is 1); None: it stays.
        options: Of the method.
        baseline: See `Explainer`; all samples share it, so not (B, T, D).
        output: "logit" or "probability".
        task: What a foreign model's scores are.
        seed: For everything random; each sample draws as if it were alone.
        gates: Of attributions of gates "sum" keeps the sum over a layer's units, "units" each unit (100 KB a sample
            for 100 timesteps and 64 units).
        lengths: (N,) valid timesteps, of a source that is an array.
        windows: Of a table "all" windows, or the "last".
        stride: Rows from one window to the next.
        id_column: Column of a table that tells series apart.
        text_column: Column of a table that holds one text a row.
        overwrite: Replace a store that is there, whatever it is of, once its first chunk can be written.
        progress: True: a bar on standard error; or a function that is given a `Progress` after each chunk.

    Returns:
        What was done; `.open()` gives the attributions.

    Raises:
        InvalidInputError: The source, an option, or the store that is there does not fit.
        ModelError: The model cannot be explained by this method.
        ClusterError: The scheduler or the workers are lost; the same call goes on.
        OSError: The disk is full; the same call goes on.
    """
    started = time.perf_counter()
    path = _checked_path(out)
    check_workers(workers)
    for called, chosen, known in (("gates", gates, get_args(GateDetail)), ("windows", windows, get_args(Windows))):
        if chosen not in known:
            raise InvalidInputError(f"{called} is {chosen!r}; {nearest_name(str(chosen), known)}")
    check_positive("stride", stride)
    if not isinstance(options, (Mapping, type(None))):
        raise InvalidTypeError(f"options is a {type(options).__name__}; expected a dict, e.g. {{'steps': 50}}.")
    predictor = as_predictor(model, output=output, task=task)
    given = {"baseline": baseline, "seed": seed, **(options or {})}
    explainer = make_explainer(method, predictor, given)
    check_device(device, explainer)
    if device is not None and device != "cpu" and workers is None and scheduler is None:
        workers = 1
    config = predictor.config
    reading: dict[str, Any] = {"windows": windows, "stride": stride, "id_column": id_column, "text_column": text_column}
    sequences = open_source(
        source, predictor.data, tokens=predictor.reads_tokens, features=config.input_size if config else None,
        lengths=lengths, **reading,
    )  # fmt: skip
    _refuse_inside(path, source)
    check_baseline(explainer.baseline, sequences.steps, sequences.features)
    job = Job(explainer, path, checked_target(target, sequences.count), gates, device)
    identity = identity_of(job, sequences, {**reading, "lengths": lengths})
    count, bytes_each = shared_out(memory, workers, elsewhere=scheduler is not None)
    with locked(path):
        store, notes = _store_of(job, sequences, identity, bytes_each, overwrite=overwrite)
        before = store.status()
        chunks = store.waiting()
        with listener(progress) as tell:
            meter = Meter(store.samples, int((before != 0).sum()), int((before == FAILED).sum()), tell)
            with full_disk_told(path):
                for done in _carried_out(job, chunks, scheduler, workers, min(count, store.chunks)):
                    meter.add(done.explained, done.failed)
        status = store.status()
    return DatasetRun(
        path=path,
        samples=store.samples,
        explained=int((status == EXPLAINED).sum()),
        failed=int((status == FAILED).sum()),
        before=int((before != 0).sum()),
        seconds=time.perf_counter() - started,
        notes=(*sequences.notes, *notes),
    )


def _carried_out(
    job: Job, chunks: Sequence[int], scheduler: str | None, workers: int | None, processes: int
) -> Iterator[Done]:
    """Do the chunks, where it was asked for."""
    if not chunks:
        return
    if scheduler is not None:
        with client_at(scheduler) as client:
            yield from on_workers(job, chunks, client)
    elif processes == 1:
        yield from one_by_one(job, chunks)
    elif workers is None:
        yield from _here_then_on_workers(job, chunks, processes)
    else:
        with local_client(processes) as client:
            yield from on_workers(job, chunks, client)


def _here_then_on_workers(job: Job, chunks: Sequence[int], processes: int) -> Iterator[Done]:
    """Do chunks in this process, as workers do them, and where they would take long the rest on worker processes."""
    started = time.perf_counter()
    count = 0

    def long_still() -> bool:
        spent = time.perf_counter() - started
        return spent > SHORT_SECONDS and spent / max(count, 1) * (len(chunks) - count) > LONG_SECONDS

    jobs = copies(job, min(processes, len(chunks)))
    with one_thread():
        for done in at_once(jobs, chunks, long_still) if jobs else one_by_one(job, chunks, long_still):
            count += 1
            yield done
    if count < len(chunks):
        with local_client(processes) as client:
            yield from on_workers(job, chunks[count:], client)


def _store_of(
    job: Job, sequences: Source, identity: dict[str, Any], bytes_each: int, *, overwrite: bool
) -> tuple[AttributionStore, tuple[str, ...]]:
    """Return the store to go on with, or a new one; and what is to be told of it."""
    if job.path.exists() and not overwrite:
        store = AttributionStore(job.path, writable=True)
        for partial in job.path.rglob("*.partial"):  # of a write that was killed
            partial.unlink(missing_ok=True)
        same_file = sequences.stamp is not None and store.identity.get("stamp") == identity["stamp"]
        content = store.identity.get("inputs") if same_file else digest_of(sequences)
        told = {name: value for name, value in identity.items() if name not in ("stamp", "versions")}
        store.refuse_other({**told, "inputs": content})
        notes = []
        lost = store.lost()
        if lost:
            store.forget(lost)
            notes.append(f"{len(lost)} of {store.chunks} chunks in {job.path} could not be read and are explained anew")
        versions = store.identity.get("versions")
        if versions != identity["versions"]:
            notes.append(f"{job.path} was begun with other versions ({versions}, now {identity['versions']})")
        return store, tuple(notes)
    if job.path.exists():
        AttributionStore(job.path)  # nothing else is ever replaced
    template, whole = _probe(job, sequences)
    budget = budget_of(job.explainer, whole, bytes_each)
    with full_disk_told(job.path):
        store = AttributionStore.create(
            job.path, template, sequences, identity, chunk=budget.chunk, memory_bytes=budget.memory_bytes
        )
    return store, ()


def _probe(job: Job, sequences: Source) -> tuple[Attribution, Attribution]:
    """Return the explanation of the first sample that has one, as it is stored and as it was made.

    Raises:
        GatelensError: None of the first samples can be explained; it says why the first cannot.
    """
    reason: str | None = None
    tried = 0
    for block in sequences.blocks(PROBED):
        inputs = block.inputs
        missing = sequences.steps - inputs.shape[1]
        if missing:
            inputs = np.pad(inputs, [(0, 0), (0, missing), *[(0, 0)] * (inputs.ndim - 2)])
        for place in range(len(block.lengths)):
            one = slice(place, place + 1)
            single = replace(
                block, inputs=inputs[one], lengths=block.lengths[one], names=block.names[one], times=None
            )  # fmt: skip
            found = explain_block(replace(job, device=None), single, tried, whole=True)
            if found.parts:
                whole = found.parts[0][1]
                return kept(whole, job.gates), whole
            reason = reason or found.failures[0]
            tried += 1
        if tried >= PROBED:
            break
    raise InvalidInputError(
        f"none of the first {tried} samples of {sequences.description} can be explained. {reason or 'It is empty.'}"
    )


def _checked_path(out: str | Path) -> Path:
    try:
        path = Path(out)
    except TypeError:
        raise InvalidTypeError(f"out is a {type(out).__name__}; expected a folder's name, e.g. a.zarr.") from None
    if path.suffix != ".zarr" or "\0" in str(path):
        raise InvalidInputError(f"out is {path}; expected a name that ends in .zarr, e.g. attributions.zarr.")
    try:
        if path.exists() and not path.is_dir():
            raise InvalidInputError(f"{path} is a file; a store is a folder. Choose another name.")
        around = next((parent for parent in path.absolute().parents if _is_zarr(parent)), None)
    except OSError as error:  # too long a name, or a folder that may not be looked into
        raise InvalidInputError(f"out cannot be {path}: {error.strerror}. Choose another name.") from None
    if around is not None:
        raise InvalidInputError(f"out is {path}, inside the Zarr store {around}; choose a place outside of it.")
    return path.absolute()


def _is_zarr(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("zarr.json", ".zgroup", ".zarray"))


def _refuse_inside(path: Path, source: Any) -> None:
    """Refuse a store in the folder that is read: the next call would take it for more of the sequences."""
    if isinstance(source, (str, Path)) and Path(source).resolve() in path.resolve().parents:
        raise InvalidInputError(
            f"out is {path}, in the folder {source} that is read; a later call would read it, too. Choose a place "
            "outside of it."
        )
