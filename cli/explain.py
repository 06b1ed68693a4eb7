"""`gatelens explain`: attributions of a CSV's sequences, saved as netCDF."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import (
    BASELINE,
    END,
    ID_COLUMN,
    JSON,
    METHOD,
    MODEL,
    OUTPUT,
    POOLING,
    SEED,
    STRIDE,
    TARGET,
    TASK,
    TIMESTEP,
    WINDOW,
    console,
    explain_sequences,
    hanging,
    print_json,
    read_model,
    say,
)
from .dataset import DEVICE, GATES, MEMORY, OVERWRITE, SCHEDULER, WORKERS, explain_into_store
from .sequences import TEXT, TEXT_COLUMN, given_sequences, with_window

if TYPE_CHECKING:
    from ..explainers import Attribution

OUT = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help="netCDF file to write (.nc), or a store (.zarr) for datasets larger than memory; with several methods, "
        "one each.",
    ),
]
INPUT = Annotated[
    Path | None,
    typer.Option(
        "--input",
        "-i",
        help="CSV or Parquet file, one row a timestep, oldest first; else give --text. With --out NAME.zarr also "
        ".zarr, .nc, .npz, .npy, or a folder of such files.",
    ),
]
WINDOWS = Annotated[
    str | None,
    typer.Option(help='"last": the newest window (of each id), or "all" of them (default with --out NAME.zarr).'),
]


def explain(
    model: MODEL,
    input: INPUT = None,  # noqa: A002 - the option is called --input
    text: TEXT = None,
    text_column: TEXT_COLUMN = None,
    method: METHOD = None,
    out: OUT = None,
    target: TARGET = None,
    timestep: TIMESTEP = None,
    baseline: BASELINE = None,
    output: OUTPUT = None,
    end: END = None,
    window: WINDOW = None,
    windows: WINDOWS = None,
    stride: STRIDE = 1,
    id_column: ID_COLUMN = None,
    task: TASK = None,
    pooling: POOLING = None,
    seed: SEED = 0,
    memory: MEMORY = "2GiB",
    workers: WORKERS = None,
    scheduler: SCHEDULER = None,
    device: DEVICE = None,
    gates: GATES = "sum",
    overwrite: OVERWRITE = False,
    json: JSON = False,
) -> None:
    """Explain the predictions for a table or for texts, and save the attributions."""
    from ..models import DataSpec, InvalidInputError

    if out is not None and out.suffix not in (".nc", ".zarr"):
        raise InvalidInputError(
            f"--out is {out}; expected a name that ends in .nc, e.g. attribution.nc, or in .zarr for a whole dataset."
        )
    if out is None or out.suffix != ".zarr":
        given = {
            "--workers": workers is not None, "--scheduler": scheduler is not None, "--device": device is not None,
            "--overwrite": overwrite,
        }  # fmt: skip
        _refuse_without_store([name for name, is_given in given.items() if is_given], input)
    loaded = read_model(model, task=task, pooling=pooling)
    if out is not None and out.suffix == ".zarr":
        if input is None or text or end is not None:
            raise InvalidInputError("--out NAME.zarr explains what --input names; give that, without --text and --end.")
        loaded.data = with_window(loaded.data or DataSpec(), window) if window is not None else loaded.data
        explain_into_store(
            loaded, input, out, method or ["integrated_gradients"], target=target, timestep=timestep,
            baseline=baseline, output=output, seed=seed, json_lines=json, memory=memory, workers=workers,
            scheduler=scheduler, device=device, gates=gates, overwrite=overwrite, windows=windows or "all",
            stride=stride, id_column=id_column, text_column=text_column,
        )  # fmt: skip
        return
    data = given_sequences(
        loaded, input, text, text_column=text_column, window=window, windows=windows or "last", stride=stride, end=end,
        id_column=id_column,
    )  # fmt: skip
    methods = method or ["integrated_gradients"]
    found = explain_sequences(
        loaded, data, methods, target=target, timestep=timestep, baseline=baseline, output=output, seed=seed
    )  # fmt: skip
    files = {}
    for name, attribution in found.items():
        if out is not None:
            path = out if len(found) == 1 else out.with_name(f"{out.stem}.{name}{out.suffix}")
            files[name] = str(attribution.save(path))
    if json:
        print_json({name: _as_json(attribution, files.get(name)) for name, attribution in found.items()})
        return
    for name, attribution in found.items():
        _print(name, attribution)
    for written in files.values():
        say(f"wrote {written}")


def _refuse_without_store(given: list[str], path: Path | None) -> None:
    """Refuse options and sources that only a store is made of."""
    from ..models import InvalidInputError

    if given:
        raise InvalidInputError(f"{', '.join(given)} goes with --out NAME.zarr only; add that, or leave it out.")
    if path is not None and (path.is_dir() or path.suffix.lower() in (".zarr", ".nc", ".npz", ".npy")):
        raise InvalidInputError(f"--input is {path}, which is no table; explain it with --out NAME.zarr, into a store.")


def _as_json(attribution: Attribution, path: str | None) -> dict[str, Any]:
    from ..reports.prediction import explained_name

    samples = []
    for index, sample in enumerate(attribution.sample_names):
        length = int(attribution.lengths[index])
        samples.append(
            {
                "sample": sample,
                "explained": explained_name(attribution, index),
                "target_output": int(attribution.dataset["target_output"][index]),
                "target_timestep": _timestep(attribution, "target_timestep", index),
                "target_last": _timestep(attribution, "target_last", index),
                "prediction": float(attribution.prediction[index]),
                "baseline_prediction": float(attribution.baseline_prediction[index]),
                "completeness_gap": float(attribution.completeness_gap[index]),
                "timesteps": [float(value) for value in attribution.timesteps[index, :length]],
                "features": _features(attribution, index),
            }
        )
    return {
        "method": attribution.method,
        "output": attribution.attrs["output"],
        "resolution": attribution.resolution,
        "seconds": attribution.attrs["seconds"],
        "forward_evaluations": int(attribution.attrs["forward_evaluations"]),
        "backward_evaluations": int(attribution.attrs["backward_evaluations"]),
        "file": path,
        "samples": samples,
    }


def _features(attribution: Attribution, index: int) -> dict[str, float] | None:
    if not attribution.resolves_features:
        return None
    return {
        name: float(value) for name, value in zip(attribution.feature_names, attribution.features[index], strict=True)
    }


def _timestep(attribution: Attribution, name: str, index: int) -> int | None:
    """Return the explained timestep, or a window's last, from 0; None where there is none."""
    timestep = attribution.diagnostic(name)
    return None if timestep is None else int(timestep[index])


def _print(name: str, attribution: Attribution) -> None:
    """Print the reasons of the first samples."""
    from rich.padding import Padding

    from ..reports.prediction import explained_name, where_explained
    from ..reports.reasons import find_reasons
    from ..reports.wording import effect, level, method_name

    out = console()
    shown = min(len(attribution), 5)
    for index in range(shown):
        prediction = level(float(attribution.prediction[index]), attribution)
        where = where_explained(attribution, index)
        what = f"{attribution.sample_names[index]}, {explained_name(attribution, index)}{where}: {prediction}"
        out.print(f"{method_name(name)}: {what}", style="bold", markup=False)
        reasons, rest = find_reasons(attribution, index)
        rows = [(reason.effect_text, f"{reason.name} {reason.text}") for reason in reasons]
        out.print(Padding(hanging(rows, justify="right"), (0, 0, 0, 2)))
        if rest:
            out.print(f"  {rest}", markup=False)
        change = float(attribution.prediction[index] - attribution.baseline_prediction[index])
        left = abs(float(attribution.completeness_gap[index])) > 0.005 * abs(change)
        if left and attribution.attrs["completeness"] != "none":
            gap = effect(float(attribution.completeness_gap[index]), attribution)
            out.print(f"  Left unexplained: {gap}.", markup=False)
    if len(attribution) > shown:
        out.print(f"... and {len(attribution) - shown} more samples", markup=False)
