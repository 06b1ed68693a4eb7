"""What explaining a whole dataset costs beside a bare loop: throughput, processes, memory, overhead, size on disk.

`python benchmarks/scale.py` writes its part of docs/benchmarks.md; some fifteen minutes on two cores. Every run is a
process of its own. The peer is a loop over captum's integrated gradients in batches, without labels, checks or storage,
with the batch that is best on this machine and all cores; of gate saliency, which captum does not have, it is a loop
over the explainer itself. `--samples 2000` takes a tenth of the time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pages import machine
from parts import PAGE, write_part

from gatelens.explainers import GateSaliency, get
from gatelens.explainers.dataset import explain_dataset
from gatelens.explainers.dataset.store import AttributionStore
from gatelens.models import LSTMConfig, LSTMModel

STEPS, FEATURES, UNITS = 100, 16, 64
POINTS = 32  # of integrated gradients
ROWS = (32, 64, 128, 256, 512)  # that captum evaluates at once; the best is taken
TRIED = 512  # samples, to find it
BRIEF = 30.0  # seconds below which a run is one of several, in turn
SIZES = (1_000, 10_000, 50_000)
METHODS = {"integrated_gradients": {"steps": POINTS}, "gate_saliency": {}}
RUNS = 3


def model() -> LSTMModel:
    torch.manual_seed(0)
    return LSTMModel(LSTMConfig(input_size=FEATURES, hidden_sizes=(UNITS,), output_size=1))


def sequences(count: int) -> np.ndarray:
    """Return (count, STEPS, FEATURES), smooth as measured series are."""
    random = np.random.default_rng(0)
    return np.cumsum(random.standard_normal((count, STEPS, FEATURES), dtype=np.float32), axis=1) / 10


# -- one run, in a process of its own ------------------------------------------------------------------------------


def run_dataset(source: str, out: str, method: str, workers: int | None) -> dict[str, float]:
    """Explain a dataset into a store."""
    if workers in (1, None):  # what is imported and compiled once is not counted; of worker processes it is
        get(method)(model(), **METHODS.get(method, {})).explain(sequences(8))
    started = time.perf_counter()
    run = explain_dataset(model(), source, method=method, options=METHODS.get(method), out=out, workers=workers)
    seconds = time.perf_counter() - started
    store = AttributionStore(Path(out))
    explaining = float(np.nansum(store.array("chunk_cost")[:, 0]))
    size = sum(file.stat().st_size for file in Path(out).rglob("*") if file.is_file())
    raw = sum(
        array.nbytes if array.dtype.kind in "fib" else array.shape[0] * 12  # a name
        for name, array in store.group.arrays()
        if name not in ("failure", "chunk_cost")
    )
    return {
        "seconds": seconds, "explaining": explaining, "chunks": store.chunks, "size": size, "raw": raw,
        "samples": run.samples, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }  # fmt: skip


def run_captum(source: str, rows: int) -> dict[str, float]:
    """Run a bare loop over captum, as its documentation shows it."""
    from captum.attr import IntegratedGradients

    inputs = torch.from_numpy(np.load(source))
    net = model().eval().requires_grad_(requires_grad=False)
    method = IntegratedGradients(lambda x: net(x)[:, 0])
    started = time.perf_counter()
    with torch.backends.cudnn.flags(enabled=False):
        for batch in inputs.split(rows):
            method.attribute(batch, n_steps=POINTS, internal_batch_size=max(rows, len(batch)))
    return {"seconds": time.perf_counter() - started}


def run_saliency(source: str, rows: int) -> dict[str, float]:
    """Run a bare loop over the explainer."""
    inputs = torch.from_numpy(np.load(source))
    method = GateSaliency(model())
    method.explain(inputs[:rows])  # what is compiled once is not counted
    started = time.perf_counter()
    for batch in inputs.split(rows):
        method.explain(batch)
    return {"seconds": time.perf_counter() - started}


RUNNERS = {"dataset": run_dataset, "captum": run_captum, "saliency": run_saliency}


def apart(name: str, *arguments: Any, threads: int | None = None) -> dict[str, float]:
    """Run in a process of its own and return what it found."""
    environment = {**os.environ, **({} if threads is None else {"OMP_NUM_THREADS": str(threads)})}
    command = [sys.executable, __file__, "--run", json.dumps([name, *arguments])]
    done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)  # noqa: S603 - itself
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


# -- the page ------------------------------------------------------------------------------------------------------


def throughput(folder: Path, count: int) -> list[str]:
    """Measure samples a second, beside the bare loop, with one process and with one for each core."""
    source, some = folder / "x.npy", folder / "some.npy"
    every = sequences(count)
    np.save(source, every)
    np.save(some, every[:TRIED])
    cores = len(os.sched_getaffinity(0))
    lines = []
    for method in METHODS:
        bare = "captum" if method == "integrated_gradients" else "saliency"
        tried = {rows: apart(bare, str(some), rows)["seconds"] for rows in ROWS}
        best = min(tried, key=lambda rows: tried[rows])
        print(f"{method}: seconds for {TRIED} samples by rows at once: {tried}")
        runs: dict[str, list[dict[str, float]]] = {}
        for turn in range(RUNS):
            for name, workers, threads in (
                ("bare", None, None),
                ("usual", None, None),
                ("one", 1, 1),
                ("all", cores, None),
                ("threads", 1, None),
            ):
                if turn and runs[name][0]["seconds"] > BRIEF:
                    continue
                if name == "bare":
                    found = apart(bare, str(source), best)
                else:
                    out = str(folder / f"{method}.{name}.{turn}.zarr")
                    found = apart("dataset", str(source), out, method, workers, threads=threads)
                    shutil.rmtree(out)
                runs.setdefault(name, []).append(found)
                print(f"{method}, {name}: {found}", flush=True)
        speed = {name: count / statistics.median(one["seconds"] for one in found) for name, found in runs.items()}
        peer = speed["bare"]
        work = {name: statistics.median(one["explaining"] for one in runs[name]) for name in ("one", "all")}
        chunk = runs["one"][0]
        lines.append(
            f"| {method} | {peer:.0f} ({best}) | {speed['usual']:.0f} | {speed['usual'] / peer:.2f} | "
            f"{speed['threads']:.0f} | {speed['all']:.0f} | {speed['one']:.0f} | {speed['all'] / speed['one']:.2f} | "
            f"{cores * work['one'] / work['all']:.2f} | "
            f"{1000 * (chunk['seconds'] - chunk['explaining']) / chunk['chunks']:.0f} | "
            f"{chunk['size'] / chunk['raw']:.2f} |"
        )
    text = (
        f"{count:,} samples, T = {STEPS}, D = {FEATURES}, H = {UNITS}, float32, on {cores} cores: samples a second "
        "from the call to the finished store; the start of worker processes is included, imports of this one are not. "
        "Without `workers=` this process begins (gate saliency with a thread for each core), and where it takes long, "
        f"processes go on. Medians of {RUNS} runs in turn, of runs of more than {BRIEF:.0f} s one. "
        "The bare loop stores nothing: "
        f"captum's integrated gradients ({POINTS} steps), and for gate saliency the explainer itself, each with the "
        "number of rows at once that is best here and with all cores as threads. While they explain: the same without "
        "starting and waiting. Overhead: seconds of one process that "
        "are not explaining, for each chunk. Size: bytes on disk beside what is held in float32."
    )
    head = (
        "| method | bare loop (rows at once) | `explain_dataset` | of the bare loop | "
        f"in this process, {cores} threads | {cores} processes | one process, 1 thread | "
        f"{cores} processes beside one | while they explain | overhead, ms a chunk | size |"
    )
    return ["## A whole dataset", "", text, "", head, "|---|---|---|---|---|---|---|---|---|---|---|", *lines, ""]


def memory(folder: Path, sizes: tuple[int, ...]) -> list[str]:
    """Measure the peak of resident memory of one process, for datasets of several sizes."""
    import zarr

    lines = []
    for method in ("deeplift", "gate_saliency"):
        peaks = []
        for size in sizes:
            path = folder / f"{size}.zarr"
            if not path.exists():
                group = zarr.open_group(path, mode="w")
                array = group.create_array("inputs", shape=(size, STEPS, FEATURES), chunks=(250, STEPS, FEATURES),
                                           dtype="f4")  # fmt: skip
                for first in range(0, size, 250):
                    array[first : first + 250] = sequences(250)
            out = str(folder / f"{method}.{size}.zarr")
            peaks.append(apart("dataset", str(path), out, method, 1)["peak"] / 2**20)
            print(f"{method}, {size}: {peaks[-1]:.0f} MiB")
        lines.append(
            f"| {method} | " + " | ".join(f"{peak:.0f}" for peak in peaks) + f" | {peaks[-1] / peaks[0]:.2f} |"
        )
    named = " | ".join(f"{size:,}" for size in sizes)
    text = (
        "Peak of resident memory in MiB, of one process with the default budget, libraries included (torch alone takes "
        f"some 250), for datasets of several sizes in a Zarr store, T = {STEPS}, D = {FEATURES}, H = {UNITS}."
    )
    head = [f"| method | {named} | largest beside smallest |", "|---|" + "---|" * (len(sizes) + 1)]
    return ["## Memory of a dataset", "", text, "", *head, *lines, ""]


def chunks(folder: Path) -> list[str]:
    """Measure what reading and writing one chunk takes."""
    from gatelens.explainers.dataset.work import Job, Worker

    count = 384 * (RUNS + 1)
    path = folder / "chunks.zarr"
    explain_dataset(model(), sequences(count), method="deeplift", out=path, workers=1)
    worker = Worker(Job(get("deeplift")(model()), path))
    reads, writes = [], []
    for index in range(worker.store.chunks):
        started = time.perf_counter()
        block = worker.read(index)
        reads.append(time.perf_counter() - started)
        found = worker.explain(block)
        started = time.perf_counter()
        worker.write(index, found)
        writes.append(time.perf_counter() - started)
    read, write = (1000 * statistics.median(times[1:]) for times in (reads, writes))
    text = (
        f"One chunk of {worker.store.chunk} samples is read in {read:.1f} ms and written in {write:.1f} ms "
        "(uncompressed 2.5 MB an array); in one process both happen beside the computation."
    )
    return [text, ""]


def main() -> None:
    """Measure, print, and write the part of the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run is not None:
        name, *arguments = json.loads(given.run)
        print(json.dumps(RUNNERS[name](*arguments)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = [f"Written by `python benchmarks/scale.py`; {machine()}", ""]
        lines += throughput(folder, given.samples)
        lines += chunks(folder)
        lines += memory(folder, tuple(min(size, given.samples * 5 // 2) for size in SIZES))
    print("\n".join(lines))
    write_part(PAGE, "scale.py", lines)


if __name__ == "__main__":
    main()
