"""A report to give away: what redaction takes out, what stays, how to check it, and what a reader can still work out.

One person's two hours of glucose, explained twice: open, and redacted.
`python examples/redacted_report.py [FOLDER]` takes some seconds.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gatelens.examples.glucose import data_path, model_path
from gatelens.explainers import explain
from gatelens.models import LSTMModel, load, read_csv
from gatelens.models.trace import GATES
from gatelens.reports import Report

FOLDER = Path("gatelens-examples") / "redacted_report"
END = "2010-10-05 18:03"


def packs(page: Path) -> list[tuple[dict[str, Any], dict[str, NDArray[Any]]]]:
    """Return the numbers that a page holds for its panels, sample by sample: header and arrays.

    They are compressed, so that a search for text in the file does not see them (reports/payload.py has the layout).
    """
    found = []
    for text in re.findall(r'data-sample="\d+">([^<]+)<', page.read_text(encoding="utf-8")):
        raw = gzip.decompress(base64.b64decode(text))
        start = 4 + struct.unpack("<I", raw[:4])[0]
        header = json.loads(raw[4:start])
        arrays = {
            name: np.frombuffer(raw, "<" + entry["type"], int(np.prod(entry["shape"])), start + entry["offset"])
            .reshape(entry["shape"])
            for name, entry in header["arrays"].items()
        }  # fmt: skip
        found.append((header, arrays))
    return found


def words(page: Path) -> str:
    """Return what a page says: its text without code, and the headers of its numbers."""
    html = page.read_text(encoding="utf-8")
    shown = re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", html, flags=re.DOTALL)
    return " ".join([shown, *(json.dumps(header, ensure_ascii=False) for header, _ in packs(page))])


def recover(page: Path, model: LSTMModel) -> NDArray[np.float64] | None:
    """Work the scaled inputs (T, D) out from a page's gates and the model; None where the page has no gates.

    Gates are sigmoid or tanh of W x_t + U h_(t-1) + b. The page has the gates of eight units to seven digits: 32 linear
    equations for the D numbers of x_t. h_(t-1) is what the model gives on the inputs found before.
    """
    header, arrays = packs(page)[0]
    if "exact.0" not in arrays:
        return None
    exact = arrays["exact.0"].astype(np.float64)  # (8 units, quantity, T)
    units = np.array(header["layers"][0]["order"][: len(exact)])
    weights = {name: value.double().numpy() for name, value in model.state_dict().items()}
    hidden = weights["lstm.0.weight_hh_l0"].shape[1]
    rows = np.concatenate([units + place * hidden for place in range(len(GATES))])  # torch's order: i, f, g, o
    into, back = weights["lstm.0.weight_ih_l0"][rows], weights["lstm.0.weight_hh_l0"][rows]
    bias = (weights["lstm.0.bias_ih_l0"] + weights["lstm.0.bias_hh_l0"])[rows]
    found = np.zeros((exact.shape[2], into.shape[1]))
    state = np.zeros(hidden)
    for step in range(len(found)):
        gates = np.clip(exact[:, : len(GATES), step], -1 + 1e-7, 1 - 1e-7)  # (8, 4)
        open_ = np.maximum(gates, 1e-7)
        before = np.where([name == "candidate" for name in GATES], np.arctanh(gates), np.log(open_ / (1 - open_)))
        certain = (np.abs(before) < 6).T.ravel()  # a gate that is wide open or shut has lost its digits
        wanted = (before.T.ravel() - back @ state - bias)[certain]
        found[step] = np.linalg.lstsq(into[certain], wanted, rcond=None)[0]
        trace = model.trace(torch.tensor(found[None, : step + 1], dtype=torch.float32))
        state = trace["lstm.0"].hidden_state[0, -1].double().numpy()
    return found


def main(folder: Path = FOLDER) -> None:
    """Write both pages, search them, and try to work the readings out."""
    folder.mkdir(parents=True, exist_ok=True)
    model = load(model_path())
    assert isinstance(model, LSTMModel)
    assert model.data is not None
    data = read_csv(data_path(), model.data, end=END)
    found = explain(model, data, ["deeplift", "integrated_gradients"], baseline="mean", output="probability")
    scale, center = np.array(model.data.scale), np.array(model.data.center)
    read = data.inputs[0] * scale + center  # (24, 4), in mg/dL and so on
    pages = {
        "open": Report(found, model=model).save(folder / "open.html"),
        "redacted": Report(found, model=model, redact=True).save(folder / "redacted.html"),
    }
    asked = {
        "the date": "2010-10-05",
        "the clock time": "18:03",
        "the newest change": f"\N{MINUS SIGN}{-read[-1, 1]:.0f} mg/dL per",
        "the inputs as numbers": '"inputs"',
        "the gates": '"exact.0"',
        "the prediction": "90\N{NO-BREAK SPACE}%",
        "the reasons": "Rate of change",
        "where the training data came from": "one person",
    }
    print(" " * 36 + "".join(f"{name:>12}" for name in pages))
    texts = {name: words(page) for name, page in pages.items()}
    for thing, text in asked.items():
        print(f"{thing:36}" + "".join(f"{'there' if text in texts[name] else 'gone':>12}" for name in pages))

    print("\nWhoever has a page with gates and the model can work the readings out:")
    for name, page in pages.items():
        again = recover(page, model)
        if again is None:
            print(f"  {name}: no gates, so not in this way")
            continue
        readings = again * scale + center
        off, minutes = np.abs(readings - read).max(axis=0)[0], _minutes(again[-1], data.inputs[0, -1])
        last = ", ".join(f"{value:.0f}" for value in readings[-6:, 0])
        print(f"  {name}: ..., {last} mg/dL; all 24 within {off:.2g}, the time of day within {minutes:.2g} minutes")
    print(f"Open {pages['redacted'].resolve()}")


def _minutes(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Return how far two times of day are apart, given as sine and cosine in the last two features."""
    angles = [np.arctan2(each[2], each[3]) for each in (one, other)]
    return float(abs(np.angle(np.exp(1j * (angles[0] - angles[1])))) / (2 * np.pi) * 24 * 60)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
