"""The Zarr store that holds a dataset's attributions: laid out like `Attribution`, chunked by sample.

`docs/formats.md` describes the layout. A store is made whole, inputs included, or not at all; then each chunk of
samples is written, its `status` last, so that a chunk with a status is complete.
"""

from __future__ import annotations

import json
import math
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...models import InvalidInputError
from ...models.files import replacing_folder
from ..attribution import ATTRS, FORMAT, Attribution
from .blocks import Block, Source
from .layout import create, create_like, write_coordinate, write_together
from .staging import Hashes, gathered

if TYPE_CHECKING:
    import zarr

STORE_VERSION = 1
WAITING, EXPLAINED, FAILED = 0, 1, 2  # of `status`
COSTS = ("seconds", "forward_evaluations", "backward_evaluations")
WRITERS = 2  # of inputs at once
STAGED = ("input", "length", "timestamp", "sample")  # written when the store is made, from the source
ALWAYS = ("attribution", "prediction")  # numbers that every sample has that was explained


@dataclass(frozen=True)
class Cost:
    """What explaining a chunk took."""

    seconds: float
    forward_evaluations: int
    backward_evaluations: int


class AttributionStore:
    """A store on disk.

    Args:
        path: Its folder.

    Attributes:
        samples: N.
        chunk: Samples a chunk.
        identity: What it is of: model, method, options, inputs.
    """

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        import zarr

        self.path = path
        try:
            self.group = zarr.open_group(path, mode="r+" if writable else "r")
            attrs: dict[str, Any] = self.group.attrs.asdict()
            self.arrays = dict(self.group.arrays())
            refuse_pickles(path, self.arrays)
        except InvalidInputError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever zarr makes of a stranger's folder
            raise InvalidInputError(f"{path} is not a readable Zarr store: {_first_line(error)}.") from None
        if attrs.get("format") != FORMAT or "store_version" not in attrs:
            raise InvalidInputError(f"{path} is a Zarr store, but not one of gatelens's attributions.")
        version = attrs["store_version"]
        if not isinstance(version, int) or not 1 <= version <= STORE_VERSION:
            raise InvalidInputError(f"{path} has store_version {version!r}; this gatelens reads up to {STORE_VERSION}.")
        try:
            self.identity: dict[str, Any] = dict(json.loads(attrs["identity"]))
            self.chunk = int(attrs["chunk"])
            self.memory_bytes = int(attrs["memory_bytes"])
            self.samples = int(self.array("status").shape[0])
        except (KeyError, ValueError, TypeError) as error:
            raise InvalidInputError(f"{path} is damaged: {_first_line(error)}.") from None
        if self.chunk < 1 or [name for name in ATTRS if name not in attrs]:
            raise InvalidInputError(f"{path} is damaged: its attributes are not complete.")
        self.attrs = attrs

    @property
    def chunks(self) -> int:
        """How many chunks there are."""
        return math.ceil(self.samples / self.chunk)

    def array(self, name: str) -> zarr.Array[Any]:
        """Return one array.

        Raises:
            InvalidInputError: There is none; the store is damaged.
        """
        if name not in self.arrays:
            raise InvalidInputError(f"{self.path} has no array {name!r}; the store is damaged.")
        return self.arrays[name]

    # -- making ------------------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls, path: Path, template: Attribution, source: Source, identity: Mapping[str, Any], *,
        chunk: int, memory_bytes: int,
    ) -> AttributionStore:  # fmt: skip
        """Make a store with all inputs and no attribution yet; an older one at `path` stays until it is complete.

        Args:
            path: Its folder.
            template: The explanation of one sample, with all T timesteps, that tells variables, names and attributes.
            source: The sequences.
            identity: What it is of; the inputs' hash is added.
            chunk: Samples a chunk.
            memory_bytes: Budget of the model's batches, so that a resumed run computes in the same ones.
        """
        import zarr

        dataset = template.dataset
        count = source.count
        with replacing_folder(path) as beside:
            group = zarr.open_group(beside, mode="w", zarr_format=3)
            coordinates = [str(name) for name in dataset.coords if name not in dataset.dims]
            for name in dataset.coords:
                if str(name) != "sample":
                    write_coordinate(group, str(name), dataset[name])
            create(group, "sample", ("sample",), (count,), chunk, np.dtype(object))
            for name, variable in dataset.data_vars.items():
                create_like(group, str(name), variable, count, chunk, source.dtype)
            if source.timed and "timestamp" not in group:
                timestamps = np.dtype("datetime64[ns]")
                create(group, "timestamp", ("sample", "time"), (count, source.steps), chunk, timestamps)
            create(group, "status", ("sample",), (count,), chunk, np.dtype(np.int8))
            create(group, "failure", ("sample",), (count,), chunk, np.dtype(object))
            costs = create(
                group, "chunk_cost", ("chunk", "cost"), (math.ceil(count / chunk), len(COSTS)), 1, np.dtype(float)
            )
            costs.attrs["cost"] = list(COSTS)
            digest = _write_inputs(group, source, chunk)
            kept = {name: _plain(value) for name, value in template.attrs.items() if name not in COSTS}
            group.attrs.update(
                kept
                | {
                    "store_version": STORE_VERSION,
                    "identity": json.dumps({**identity, "inputs": digest}),
                    "chunk": chunk,
                    "memory_bytes": memory_bytes,
                    **({"coordinates": " ".join(coordinates)} if coordinates else {}),
                }
            )
        return cls(path, writable=True)

    # -- chunks ------------------------------------------------------------------------------------------------------

    def rows(self, index: int) -> slice:
        """Return the samples of a chunk."""
        return slice(index * self.chunk, min((index + 1) * self.chunk, self.samples))

    def status(self) -> NDArray[np.int8]:
        """Return (N,): 0 not yet explained, 1 explained, 2 failed."""
        return self._read("status", slice(None))

    def waiting(self) -> list[int]:
        """Return the chunks that are not written."""
        first = self.status()[:: self.chunk]
        return [int(index) for index in np.flatnonzero(first == WAITING)]

    def lost(self) -> list[int]:
        """Return the chunks that have a status but whose numbers cannot be read, or are not there.

        A system that loses its power may have kept the last file of a chunk and not the others; a disk may err.
        """
        status = self.status()
        done = sorted(set(range(self.chunks)) - set(self.waiting()))
        return [index for index in done if self._is_lost(index, status[self.rows(index)])]

    def _is_lost(self, index: int, status: NDArray[np.int8]) -> bool:
        rows = self.rows(index)
        try:
            for name, array in self.arrays.items():
                if name not in STAGED and array.ndim and array.metadata.dimension_names[0] == "sample":  # type: ignore[union-attr, index]
                    values = np.asarray(array[rows])
                    if name in ALWAYS and not np.isfinite(values[status == EXPLAINED]).all():
                        return True
        except (ValueError, RuntimeError, OSError):  # as codecs tell of damaged bytes
            return True
        return bool((status == WAITING).any())

    def forget(self, chunks: Sequence[int]) -> None:
        """Let chunks wait again."""
        for index in chunks:
            self.array("status")[self.rows(index)] = WAITING

    def inputs(self, index: int) -> Block:
        """Return the sequences of a chunk."""
        rows = self.rows(index)
        times = self._read("timestamp", rows).view("datetime64[ns]") if "timestamp" in self.arrays else None
        inputs = self._read("input", rows)
        if self.attrs["inputs"] == "tokens":
            inputs = inputs[..., 0].astype(np.int64)
        names = tuple(str(name) for name in self._read("sample", rows))
        return Block(inputs, self._read("length", rows), names, times)

    def _read(self, name: str, rows: slice) -> NDArray[Any]:
        array = self.array(name)
        try:
            return np.asarray(array[rows])
        except (ValueError, RuntimeError) as error:  # as codecs tell of damaged bytes
            raise InvalidInputError(
                f"{self.path} is damaged: {name!r} cannot be read ({_first_line(error)}). Explain anew with "
                "overwrite=True (--overwrite)."
            ) from None

    def write(
        self, index: int, parts: Sequence[tuple[NDArray[np.int64], Attribution]], failures: Mapping[int, str],
        cost: Cost,
    ) -> None:  # fmt: skip
        """Write a chunk, its status last.

        Args:
            index: Which one.
            parts: Explanations, with the places of their samples in the chunk.
            failures: Place in the chunk -> why the sample could not be explained.
            cost: What it took.
        """
        rows = self.rows(index)
        size = rows.stop - rows.start
        new: dict[str, Any] = {}
        names = {str(name) for _, part in parts for name in part.dataset.data_vars} - set(STAGED)
        for name in sorted(names):
            variables = [(places, part.dataset[name]) for places, part in parts if name in part.dataset]
            if name not in self.arrays:  # a number that not every sample's explanation has
                precision = self.array("input").dtype
                self.arrays[name] = create_like(self.group, name, variables[0][1], self.samples, self.chunk, precision)
            array = self.array(name)
            if len(variables) == 1 and len(variables[0][0]) == size:
                values = variables[0][1].to_numpy()
            else:
                values = np.full((size, *array.shape[1:]), array.fill_value, dtype=variables[0][1].dtype)
                for places, variable in variables:
                    values[places] = variable.to_numpy()
            new[name] = values
        status = np.full(size, EXPLAINED, dtype=np.int8)
        if failures:
            status[list(failures)] = FAILED
            reasons = np.full(size, "", dtype=object)
            reasons[list(failures)] = list(failures.values())
            new["failure"] = reasons
        write_together({name: self.array(name) for name in new}, rows, new)
        self.array("chunk_cost")[index] = np.array([cost.seconds, cost.forward_evaluations, cost.backward_evaluations])
        self.array("status")[rows] = status

    # -- whether it is the same --------------------------------------------------------------------------------------

    def refuse_other(self, identity: Mapping[str, Any]) -> None:
        """Refuse a store of another model, method, options or inputs.

        Raises:
            InvalidInputError: It names what differs.
        """
        different = [
            f"{name}: {_shown(self.identity.get(name))} in the store, {_shown(value)} now"
            for name, value in identity.items()
            if self.identity.get(name) != value
        ]
        if self.identity.get("method") != identity["method"]:
            different = [text for text in different if not text.startswith("options: ")]  # of another method
        if different:
            raise InvalidInputError(
                f"{self.path} holds attributions of something else ({'; '.join(different)}). Choose another --out, or "
                "replace the store with overwrite=True (--overwrite)."
            )


def refuse_pickles(path: Path, arrays: Mapping[str, Any]) -> None:
    """Refuse a store whose arrays are decoded by running what is in them."""
    for name, array in arrays.items():
        told = {
            key: value
            for key, value in array.metadata.to_dict().items()
            if key not in ("attributes", "dimension_names")
        }
        if "pickle" in json.dumps(told, default=repr).lower():
            raise InvalidInputError(
                f"{path} stores {name!r} as pickled Python objects, which are not read because loading them can run "
                "code; write numbers, or text as fixed or variable-length strings."
            )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a store for one run at a time; the lock goes with the process, however it ends.

    Raises:
        InvalidInputError: Another run holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    beside = path.with_name(f".{path.name}.lock")
    try:
        beside.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(beside, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise InvalidInputError(
            f"{path.parent} cannot be written to: {error.strerror}. Choose another place."
        ) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidInputError(f"another run is writing {path}; wait for it, or choose another --out.") from None
        except OSError:  # a file system that knows no locks
            pass
        try:
            yield
        finally:
            beside.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _write_inputs(group: zarr.Group, source: Source, chunk: int) -> str:
    """Write the sequences, whole chunks at once, and return their hash; a few are written beside the reading."""
    hashes = Hashes()
    arrays = dict(group.arrays())

    def write(rows: slice, block: Block) -> None:
        values: dict[str, Any] = {
            "input": block.inputs if block.inputs.ndim == 3 else block.inputs[..., None],
            "length": block.lengths,
            "sample": np.array([_storable(name) for name in block.names], dtype=object),
        }
        if block.times is not None:
            values["timestamp"] = block.times.astype("datetime64[ns]").view(np.int64)
        write_together(arrays, rows, values)

    done = 0
    with ThreadPoolExecutor(WRITERS, "write") as pool:
        writing: deque[Future[None]] = deque()
        for block in gathered(source, chunk):
            if len(writing) == WRITERS:
                writing.popleft().result()
            writing.append(pool.submit(write, slice(done, done + len(block.lengths)), block))
            hashes.add(block)
            done += len(block.lengths)
        for last in writing:
            last.result()
    if done != source.count:
        raise InvalidInputError(f"{source.description} gave {done} sequences after it said {source.count}.")
    return hashes.digest()


def _plain(value: Any) -> Any:
    """Return a number or a text as JSON takes it."""
    return value.item() if isinstance(value, np.generic) else value


def _storable(name: str) -> str:
    """Return a name as an attribution has it."""
    return name.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")


def _shown(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")[:200]
