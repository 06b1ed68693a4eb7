"""What the page's script reads: the numbers of one sample, packed.

Inputs, baselines and attributions are exact (float32). Gates and cell states of all units are pictures in 8 bits, one
row a unit, strongest unit first; of the strongest few the exact numbers come along, for the table beside the cursor.
Memory flow is computed before anything is rounded: products of rounded forget gates would be off by several percent.

A pack is gzip of: the header's length (uint32, little-endian), the header (JSON, UTF-8), and arrays at the offsets that
the header names. Rows of 8 bits hold differences from one timestep to the next, which compress better.
"""

from __future__ import annotations

import base64
import gzip
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..explainers import Attribution
from ..models import MemoryFlow, Trace
from ..models.trace import GATES, to_numpy
from . import plots
from .html import legible
from .reasons import token_texts
from .wording import in_percent, method_name, step_labels

EXACT_UNITS = 8  # whose numbers are kept as they are
SHOWN_UNITS = 32  # in the picture, until all are asked for
QUANTITIES = (*GATES, "cell_state", "flow")
SIGNED = ("candidate", "cell_state", "flow")
STRIPS = 4  # features whose course is drawn


@dataclass(eq=False)
class Pack:
    """Header and arrays, on their way into the page.

    Attributes:
        header: What is not numbers; `arrays` is added to it.
        arrays: Name -> float32, or uint8 (rows, L).
    """

    header: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)

    def text(self) -> str:
        """Return the pack as text that HTML holds as it is."""
        listed, parts, offset = {}, [], 0
        for name, array in self.arrays.items():
            small = array.dtype == np.uint8
            stored = np.diff(array, axis=-1, prepend=np.uint8(0)) if small else array.astype("<f4")
            raw = np.ascontiguousarray(stored).tobytes()
            raw += bytes(-len(raw) % 4)
            listed[name] = {"type": "u1" if small else "f4", "shape": list(array.shape), "offset": offset}
            parts.append(raw)
            offset += len(raw)
        header = json.dumps({**self.header, "arrays": listed}, separators=(",", ":")).encode()
        header += b" " * (-len(header) % 4)
        whole = struct.pack("<I", len(header)) + header + b"".join(parts)
        return base64.b64encode(gzip.compress(whole, 6, mtime=0)).decode()


def pack_sample(
    attributions: Mapping[str, Attribution],
    sample: int,
    *,
    name: str,
    primary: str,
    trace: Trace | None = None,
    flows: Mapping[str, MemoryFlow] | None = None,
    over_time: Any = None,
    spans: Sequence[tuple[int, int]] = (),
    units: int | None = None,
    redact: bool = False,
) -> Pack:
    """Pack one sample.

    Args:
        attributions: Name -> result, all of the same inputs.
        sample: Which.
        name: What the page calls it.
        primary: The explainer that is shown first.
        trace: The model's trace on the same inputs.
        flows: Its `memory_flow`.
        over_time: What `explain_over_time` found on them, or None.
        spans: First and last timestep of what the reasons name.
        units: The most units of a layer that are kept; None: all.
        redact: Leave inputs and clock times out.
    """
    first = attributions[primary]
    length = int(first.lengths[sample])
    pack = Pack({
        "name": legible(name),
        "length": length,
        "labels": step_labels(first, sample, redact=redact),
        "tokens": None if redact or not first.of_tokens else list(map(legible, token_texts(first, sample))),
        "features": _features(first),
        "percent": in_percent(first),
        "unit": "" if first.attrs["output"] == "probability" else legible(first.attrs["output_unit"]),
        "primary": list(attributions).index(primary),
        "spans": [list(span) for span in spans],
    })  # fmt: skip
    if not redact:
        _add_inputs(pack, first, sample)
    pack.header["explainers"] = [
        _add_explainer(pack, number, found, sample) for number, found in enumerate(attributions.values())
    ]
    if over_time is not None:
        _add_over_time(pack, over_time, sample, length, explained=first.diagnostic("target_timestep"))
    gated = next((found for found in attributions.values() if found.gates is not None), None)
    pack.header["layers"] = []
    if trace is not None and units != 0:
        shown = [layer for layer in trace if trace[layer].shape[1] == first.values.shape[1]]  # not a decoder's own time
        pack.header["layers"] = [
            _add_layer(pack, number, layer, trace, (flows or {}).get(layer), sample, gated, units)
            for number, layer in enumerate(shown)
        ]
    return pack


def _features(attribution: Attribution) -> list[dict[str, str]]:
    coords = attribution.dataset.coords
    units = coords["feature_unit"].to_numpy() if "feature_unit" in coords else [""] * len(attribution.feature_names)
    return [
        {"name": legible(name), "unit": legible(unit)}
        for name, unit in zip(attribution.feature_names, units, strict=True)
    ]


def _add_inputs(pack: Pack, attribution: Attribution, sample: int) -> None:
    if attribution.of_tokens:
        return
    columns = range(len(attribution.feature_names))
    series = [plots.raw_series(attribution, sample, column)[:2] for column in columns]
    pack.arrays["inputs"] = np.stack([values for values, _ in series])  # (D, L)
    pack.arrays["baseline"] = np.stack([baseline for _, baseline in series])
    pack.header["strips"] = plots.strongest_features(attribution, sample, most=STRIPS)


def _add_explainer(pack: Pack, number: int, attribution: Attribution, sample: int) -> dict[str, Any]:
    """Add contributions (D, L), or (1, L) of methods that do not tell features apart; return what is said of them."""
    length = int(attribution.lengths[sample])
    cells = attribution.values[sample, :length].T.astype(np.float64)  # (D, L)
    apart = attribution.resolves_features
    pack.arrays[f"effect.{number}"] = cells if apart else cells.sum(axis=0, keepdims=True)
    if attribution.std_error is not None:
        error = attribution.std_error[sample, :length].astype(np.float64)  # features share their draws: at the most
        pack.arrays[f"error.{number}"] = error.sum(axis=1)[None]  # (1, L)
    return {
        "label": method_name(attribution.method),
        "signed": attribution.measures == "contribution",
        "apart": apart and not attribution.of_tokens,
        "timed": attribution.resolves_time,
    }


def _add_over_time(pack: Pack, found: Any, sample: int, length: int, *, explained: NDArray[Any] | None) -> None:
    values = found["attribution"].to_numpy()[sample, :, :length]  # (S, L, D)
    there = np.isfinite(values).all(axis=(1, 2))
    steps = found["output_time"].to_numpy()[there]
    pack.arrays["over_time"] = values[there].transpose(0, 2, 1)  # (S, D, L)
    same = np.flatnonzero(steps == (-1 if explained is None else int(explained[sample])))
    pack.header["over_time"] = {
        "first": int(same[0]) if len(same) else len(steps) - 1,  # that is shown first
        "label": method_name(str(found.attrs["method"])),
        "steps": [int(step) for step in steps],
        "predictions": [float(value) for value in found["prediction"].to_numpy()[sample][there]],
    }


def _add_layer(
    pack: Pack,
    number: int,
    layer: str,
    trace: Trace,
    flow: MemoryFlow | None,
    sample: int,
    gated: Attribution | None,
    units: int | None,
) -> dict[str, Any]:
    """Add the pictures (H, L) and the strongest units' numbers (unit, quantity, L) of a layer."""
    length = int(trace.lengths[sample])
    order, weight = plots.unit_order(trace, sample, layer=layer, attribution=gated)
    by_gates = gated is not None and gated.gates is not None and layer in gated.gates["layer"]
    kept = order if units is None else order[:units]
    found = {
        name: to_numpy(getattr(trace[layer], name))[sample, :length].T for name in (*GATES, "cell_state")
    }  # (H, L)
    found["flow"] = (
        np.full_like(found["cell_state"], np.nan) if flow is None else to_numpy(flow.flow)[sample, :length].T
    )
    scales = {}
    for name in QUANTITIES if flow is not None else QUANTITIES[:-1]:
        values = found[name][kept].astype(np.float64)
        size = 1.0 if name not in SIGNED else float(np.abs(values).max(initial=0)) or 1.0
        middle, half = (128, 127 / size) if name in SIGNED else (0, 255.0)
        pack.arrays[f"{name}.{number}"] = np.clip(np.rint(middle + half * values), 0, 255).astype(np.uint8)
        scales[name] = size
    exact = np.stack([[found[name][unit] for name in QUANTITIES] for unit in order[:EXACT_UNITS]])
    pack.arrays[f"exact.{number}"] = exact  # (unit, quantity, L)
    if flow is not None:
        pack.arrays[f"flow_sum.{number}"] = found["flow"].sum(axis=0, keepdims=True, dtype=np.float64)  # (1, L)
    if by_gates and gated is not None and gated.gates is not None:
        of_gates = gated.gates.sel(layer=layer).to_numpy()[sample, :length]  # (L, gate, unit)
        pack.arrays[f"gates.{number}"] = np.nansum(of_gates, axis=2).T  # (gate, L)
    total = float(weight.sum())
    return {
        "label": _layer_label(layer, trace),
        "units": len(order),
        "order": [int(unit) for unit in kept],
        "by": "gate saliency" if by_gates else "how far their cell moves",
        "share": float(weight[order[:SHOWN_UNITS]].sum()) / total if total else 1.0,
        "scales": scales,
    }


def _layer_label(layer: str, trace: Trace) -> str:
    """Return a layer's name for people: "2 (top)", "1, backwards", or what a stranger's module calls it."""
    parts = layer.split(".")
    if parts[0] != "lstm" or len(parts) < 2 or not parts[1].isdigit():
        return layer
    layers = [int(name.split(".")[1]) for name in trace if name.split(".")[1:2] and name.split(".")[1].isdigit()]
    words = str(int(parts[1]) + 1)
    if int(parts[1]) == max(layers) and len(set(layers)) > 1:
        words += " (top)"
    return words + (", backwards" if parts[-1] == "reverse" else "")
