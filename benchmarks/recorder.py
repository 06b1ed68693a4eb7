"""What every gate, and every gate's gradient, cost beside one plain pass of `nn.LSTM`, in one run.

`python benchmarks/recorder.py` prints, for five shapes, the median time of a plain forward pass, of the trace (that
pass included), and of an `LSTMCell` loop that stores its gates; then of a fused forward and backward pass, of
`trace_gradients`, and of autograd through a loop; and the peak of memory beside the size of what is returned. The
ways are taken in turn, so that noise of the machine meets all of them; ratios are to the plain pass of the same turn.
"""

from __future__ import annotations

import ctypes
import gc
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from gatelens.models import LSTMConfig, LSTMModel, record, trace_gradients

SHAPES = ((1, 100, 16, 64), (32, 100, 16, 64), (64, 200, 32, 128), (256, 50, 8, 32), (1, 1000, 16, 128))
SECONDS = 2.0  # for each way of each shape
MEGABYTE = 2**20


def main() -> None:
    """Print the tables."""
    console = Console(width=132)
    times = Table("B, T, D, H", "plain forward", "trace", "x", "LSTMCell loop", "x", box=None, pad_edge=False)
    gradients = Table(
        "B, T, D, H", "forward + backward", "trace_gradients", "x", "autograd, loop", "x", box=None, pad_edge=False
    )
    memory = Table("B, T, D, H", "trace", "peak", "x", "values + gradients", "peak", "x", box=None, pad_edge=False)
    for shape in SHAPES:
        batch, steps, features, units = shape
        torch.manual_seed(0)
        model = LSTMModel(LSTMConfig(input_size=features, hidden_sizes=(units,))).eval()
        layer, inputs = model.lstm[0], torch.randn(batch, steps, features)
        assert isinstance(layer, nn.LSTM)
        name = ", ".join(map(str, shape))

        def plain(layer: nn.LSTM = layer, inputs: Tensor = inputs) -> None:
            with torch.no_grad():
                layer(inputs)

        def trace(layer: nn.LSTM = layer, inputs: Tensor = inputs) -> object:
            with torch.no_grad(), record(layer) as recording:
                layer(inputs)
            return recording.trace

        def loop(layer: nn.LSTM = layer, inputs: Tensor = inputs) -> None:
            with torch.no_grad():
                gates_by_loop(layer, inputs)

        def both(model: LSTMModel = model, inputs: Tensor = inputs) -> None:
            leaf = inputs.clone().requires_grad_()
            torch.autograd.grad(model(leaf).sum(), leaf)

        def all_gradients(model: LSTMModel = model, inputs: Tensor = inputs) -> object:
            return trace_gradients(model, inputs, target=0)

        def loop_gradients(model: LSTMModel = model, layer: nn.LSTM = layer, inputs: Tensor = inputs) -> None:
            leaf = inputs.clone().requires_grad_()
            kept = gates_by_loop(layer, leaf)
            torch.autograd.grad(model.head(kept[-1]).sum(), [leaf, *kept])

        times.add_row(name, *cells(in_turn(plain, trace, loop)))
        gradients.add_row(name, *cells(in_turn(both, all_gradients, loop_gradients)))
        size = 6 * batch * steps * units * 4
        memory.add_row(name, *peak_cells(trace, size), *peak_cells(all_gradients, 2 * size))
    console.print("Every gate, ms", times, "", "Every gradient, ms", gradients, "", "Memory, MB", memory, sep="\n")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}; float32, medians")


def in_turn(*ways: Callable[[], object]) -> list[tuple[float, float]]:
    """Return for each way its median seconds and the median of its ratio to the first way of the same turn."""
    for way in ways:
        way()
        way()
    found: list[list[float]] = [[] for _ in ways]
    begin = time.perf_counter()
    while len(found[0]) < 7 or (time.perf_counter() - begin < SECONDS * len(ways) and len(found[0]) < 300):
        for way, seconds in zip(ways, found, strict=True):
            start = time.perf_counter()
            way()
            seconds.append(time.perf_counter() - start)
    return [
        (statistics.median(seconds), statistics.median(one / base for one, base in zip(seconds, found[0], strict=True)))
        for seconds in found
    ]


def cells(found: list[tuple[float, float]]) -> list[str]:
    """Return the table cells of `in_turn`: milliseconds of the first way, then milliseconds and ratio of the others."""
    (base, _), *others = found
    return [f"{base * 1e3:.2f}", *(text for s, ratio in others for text in (f"{s * 1e3:.2f}", f"{ratio:.2f}"))]


def gates_by_loop(layer: nn.LSTM, inputs: Tensor) -> list[Tensor]:
    """Return i, f, g, o, c, h of every timestep by a loop over an LSTM cell, as one writes it by hand."""
    bias = layer.bias_ih_l0 + layer.bias_hh_l0
    h = c = inputs.new_zeros(len(inputs), layer.hidden_size)
    kept: list[Tensor] = []
    for t in range(inputs.shape[1]):
        drive = inputs[:, t] @ layer.weight_ih_l0.T + h @ layer.weight_hh_l0.T + bias
        i, f, g, o = drive.chunk(4, dim=1)
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        c = f * c + i * g
        h = o * c.tanh()
        kept += [i, f, g, o, c, h]
    return kept


def peak_cells(way: Callable[[], object], size: int) -> list[str]:
    """Return the megabytes of what is returned, of the peak of resident memory meanwhile, and their ratio."""
    if not sys.platform.startswith("linux"):
        return [f"{size / MEGABYTE:.1f}", "-", "-"]
    way()
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status("VmRSS")
    kept = way()
    peak = _status("VmHWM") - before
    del kept
    return [f"{size / MEGABYTE:.1f}", f"{peak / MEGABYTE:.1f}", f"{peak / size:.2f}"]


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


if __name__ == "__main__":
    main()
