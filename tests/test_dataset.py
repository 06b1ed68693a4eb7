"""`explain_dataset` in one process: the store is what `explain` gives, outlives what happens, refuses what differs."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import xarray as xr
import zarr

from gatelens.explainers import Attribution, get
from gatelens.explainers.dataset import (
    DiskFullError,
    Progress,
    explain_dataset,
    failures,
    open_store,
    pieces,
    store,
    to_parquet,
)
from gatelens.models import DataSpec, FeatureSpec, InvalidInputError, LSTMConfig, LSTMModel, ModelError, SequenceData
from helpers.stores import files_of

STEPS, FEATURES = 9, 3


@pytest.fixture
def model() -> LSTMModel:
    """Return a small classifier."""
    torch.manual_seed(0)
    return LSTMModel(LSTMConfig(input_size=FEATURES, hidden_sizes=(5, 4), output_size=3, task="multiclass"))


@pytest.fixture
def small_chunks(monkeypatch):
    """Let a chunk hold 16 samples, so that small datasets have several."""
    monkeypatch.setattr("gatelens.explainers.dataset.budget.MOST_SAMPLES", 16)


def numbers(count: int = 50, seed: int = 0) -> np.ndarray:
    """Return inputs (count, STEPS, FEATURES)."""
    return np.random.default_rng(seed).standard_normal((count, STEPS, FEATURES)).astype(np.float32)


def lengths_of(count: int = 50) -> np.ndarray:
    """Return lengths 1 to STEPS."""
    return np.random.default_rng(1).integers(1, STEPS + 1, count)


METHODS = {
    "integrated_gradients": {"steps": 8},
    "gate_saliency": {},
    "deeplift": {},
    "kernel_shap": {},
    "lime": {"samples": 40},
    "temporal_shapley": {},
    "occlusion": {},
}


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("method", METHODS)
def test_a_store_holds_what_explain_gives(model, tmp_path, method) -> None:
    """Every variable, coordinate and attribute is that of one call on all samples."""
    inputs, lengths = numbers(40), lengths_of(40)
    options = METHODS[method]
    run = explain_dataset(
        model, inputs, method=method, out=tmp_path / "a.zarr", lengths=lengths, options=options, workers=1,
        baseline=0.1, output="probability", seed=3,
    )  # fmt: skip
    expected = get(method)(model, baseline=0.1, output="probability", seed=3, **options).explain(
        inputs, lengths=lengths
    )
    found = run.open()
    assert (run.explained, run.failed, run.samples) == (40, 0, 40)
    assert set(found.dataset.data_vars) == set(expected.dataset.data_vars)
    assert set(found.dataset.coords) == set(expected.dataset.coords)
    for name, variable in expected.dataset.variables.items():
        values, wanted = found.dataset[name].to_numpy(), variable.to_numpy()
        if name == "gate_attribution":
            wanted = np.nansum(wanted, axis=4, keepdims=True)
        assert found.dataset[name].dims == variable.dims
        if wanted.dtype.kind in "fiub":
            scale = max(1.0, float(np.abs(wanted).max()))
            np.testing.assert_allclose(values, wanted, rtol=1e-5, atol=2e-6 * scale, err_msg=str(name))
        else:
            assert list(values.ravel()) == list(wanted.ravel())
    same = set(expected.attrs) - {"seconds", "forward_evaluations", "backward_evaluations"}
    assert {name: found.attrs[name] for name in same} == {name: expected.attrs[name] for name in same}
    assert found.attrs["forward_evaluations"] > 0
    assert found.attrs["seconds"] > 0


@pytest.mark.usefixtures("small_chunks")
def test_samples_are_explained_as_if_alone(model, tmp_path) -> None:
    """What is drawn for a sample does not depend on which others are in the dataset."""
    inputs = numbers(40)
    for name, part in (("a", inputs), ("b", inputs[20:])):
        explain_dataset(model, part, method="lime", out=tmp_path / f"{name}.zarr", options={"samples": 30}, workers=1)
    whole, half = (open_store(tmp_path / f"{name}.zarr").values for name in "ab")
    np.testing.assert_allclose(whole[20:], half, rtol=1e-5, atol=1e-7)


def test_tokens_and_vocabulary(tmp_path) -> None:
    """Token ids, with their words, lie in the store as in an attribution."""
    torch.manual_seed(0)
    model = LSTMModel(
        LSTMConfig(vocab_size=7, embedding_dim=4, hidden_sizes=(5,), output_size=2, task="multiclass"),
        data=DataSpec(vocabulary=("<pad>", "a", "b", "c", "d", "e", "ü")),
    )
    ids = np.random.default_rng(0).integers(1, 7, (20, 6))
    lengths = np.random.default_rng(1).integers(1, 7, 20)
    explain_dataset(model, ids, out=tmp_path / "a.zarr", lengths=lengths, baseline="pad", workers=1)
    expected = get("integrated_gradients")(model, baseline="pad").explain(ids, lengths=lengths)
    found = Attribution.open(tmp_path / "a.zarr")
    np.testing.assert_allclose(found.values, expected.values, atol=1e-6)
    assert found.diagnostic("token").tolist() == expected.dataset["token"].to_numpy().tolist()
    assert found.of_tokens


def test_names_and_times_come_along(model, tmp_path) -> None:
    """Names and timestamps of a `SequenceData` are in the store, NaT at padding."""
    times = np.datetime64("2024-01-01", "ns") + np.arange(4 * STEPS).reshape(4, STEPS) * np.timedelta64(3600, "s")
    times[1, 5:] = np.datetime64("NaT")
    data = SequenceData(numbers(4), np.array([9, 5, 9, 9]), ("x", "ü", "", "x"), times, np.arange(4))
    explain_dataset(model, data, method="deeplift", out=tmp_path / "a.zarr", workers=1)
    found = open_store(tmp_path / "a.zarr")
    assert found.sample_names == ("x", "ü", "", "x")
    np.testing.assert_array_equal(found.dataset["timestamp"].to_numpy().astype("datetime64[ns]"), times)


def test_float64_stays(tmp_path) -> None:
    """A model in double precision is explained and stored in it."""
    torch.manual_seed(0)
    model = LSTMModel(LSTMConfig(input_size=FEATURES, hidden_sizes=(4,))).double()
    inputs = numbers(5).astype(np.float64)
    explain_dataset(model, inputs, method="deeplift", out=tmp_path / "a.zarr", workers=1)
    found, expected = open_store(tmp_path / "a.zarr"), get("deeplift")(model).explain(inputs)
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-13)
    assert found.values.dtype == np.float64


def test_gates_of_each_unit_on_request(model, tmp_path) -> None:
    """gates="units" keeps the whole array; the default its sum over units."""
    inputs = numbers(6)
    for gates in ("units", "sum"):
        explain_dataset(model, inputs, method="gate_saliency", out=tmp_path / f"{gates}.zarr", gates=gates, workers=1)
    units, summed = (open_store(tmp_path / f"{gates}.zarr").gates for gates in ("units", "sum"))
    expected = get("gate_saliency")(model).explain(inputs).gates
    np.testing.assert_allclose(units, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(summed, expected.sum("unit").expand_dims("unit", axis=4), rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("small_chunks")
def test_a_target_for_each_sample_is_cut_by_chunk(model, tmp_path) -> None:
    """One output a sample, or one timestep, gives what a single call gives; another count is refused."""
    inputs, lengths = numbers(40), lengths_of(40)
    each = np.arange(40) % 3
    torch.manual_seed(0)
    steps = LSTMModel(LSTMConfig(input_size=FEATURES, hidden_sizes=(4,), output_size=3, task="multiclass",
                                 pooling="none"))  # fmt: skip
    cases = [
        (model, each), (model, each.tolist()), (model, torch.as_tensor(each)), (steps, (lengths - 1, each)),
        (steps, (slice(None, lengths), each)),
    ]  # fmt: skip
    for place, (explained, target) in enumerate(cases):
        call = {"method": "saliency", "out": tmp_path / f"{place}.zarr", "target": target, "lengths": lengths}
        run = explain_dataset(explained, inputs, workers=1, **call)
        expected = get("saliency")(explained).explain(inputs, target=target, lengths=lengths)
        np.testing.assert_array_equal(run.open().dataset["target_output"], each)
        np.testing.assert_allclose(run.open().values, expected.values, rtol=1e-5, atol=1e-7)
        assert explain_dataset(explained, inputs, workers=1, **call).before == 40
    with pytest.raises(
        InvalidInputError, match=r"shape \(3,\); expected one number, or one for each of the 40 samples"
    ):
        explain_dataset(model, inputs, out=tmp_path / "a.zarr", target=[0, 1, 2], workers=1)


def test_other_targets_of_the_same_samples_are_told_apart(model, tmp_path) -> None:
    """Of two targets of many samples that differ in one, the second is refused, although both print alike."""
    inputs = np.zeros((1500, 1, FEATURES), np.float32)
    target = np.zeros(1500, int)
    call = {"method": "saliency", "out": tmp_path / "a.zarr", "workers": 1}
    explain_dataset(model, inputs, target=target, **call)
    target[700] = 1
    with pytest.raises(InvalidInputError, match="target: "):
        explain_dataset(model, inputs, target=target, **call)


@pytest.mark.usefixtures("small_chunks")
def test_a_baseline_for_each_sample_is_refused(model, tmp_path) -> None:
    """Chunks share a baseline: (D,) and (T, D) do, (B, T, D) does not."""
    inputs = numbers(20)
    for name, baseline in (("d", inputs[0, 0]), ("td", inputs[0])):
        run = explain_dataset(model, inputs, method="deeplift", out=tmp_path / f"{name}.zarr", baseline=baseline,
                              workers=1)  # fmt: skip
        expected = get("deeplift")(model, baseline=baseline).explain(inputs)
        np.testing.assert_allclose(run.open().values, expected.values, rtol=1e-5, atol=1e-7)
    with pytest.raises(InvalidInputError, match=r"\(20, 9, 3\), a row for each sample .* share a baseline"):
        explain_dataset(model, inputs, out=tmp_path / "a.zarr", baseline=inputs, workers=1)


def test_standard_errors_of_exact_samples_are_zero(tmp_path, monkeypatch) -> None:
    """Also of a chunk of short samples, which has none, before and after one of long samples, which has some."""
    monkeypatch.setattr("gatelens.explainers.dataset.budget.MOST_SAMPLES_ONE_BY_ONE", 2)
    torch.manual_seed(0)
    model = LSTMModel(LSTMConfig(input_size=FEATURES, hidden_sizes=(4,)))
    inputs = np.random.default_rng(0).standard_normal((6, 24, FEATURES)).astype(np.float32)
    call = {"lengths": np.array([3, 2, 24, 4, 2, 3])}
    options = {"evaluations": 200}
    run = explain_dataset(model, inputs, method="temporal_shapley", out=tmp_path / "a.zarr", options=options,
                          workers=1, **call)  # fmt: skip
    found = run.open().std_error
    assert store.AttributionStore(run.path).chunk == 2
    assert found[2].max() > 0
    np.testing.assert_array_equal(found[[0, 1, 3, 4, 5]], 0)


def test_a_chunk_that_is_damaged_is_said(model, tmp_path) -> None:
    """A file cut short is told when it is read, and never taken for numbers."""
    for name in ("status", "input", "attribution"):
        path = tmp_path / f"{name}.zarr"
        explain_dataset(model, numbers(20), method="deeplift", out=path, workers=1)
        if name == "input":  # the chunk is to be explained again
            shutil.rmtree(path / "status" / "c")
        file = min(file for file in (path / name / "c").rglob("*") if file.is_file())
        file.write_bytes(file.read_bytes()[:-7])
        read = pieces(path) if name == "attribution" else None
        with pytest.raises(InvalidInputError, match=rf"{name}\.zarr is damaged"):
            next(read) if read else explain_dataset(model, numbers(20), method="deeplift", out=path, workers=1)


def test_a_store_is_not_made_in_the_folder_that_is_read(model, tmp_path) -> None:
    """The next call would read the attributions as inputs."""
    (tmp_path / "source").mkdir()
    np.save(tmp_path / "source" / "x.npy", numbers(5))
    with pytest.raises(InvalidInputError, match="outside of it"):
        explain_dataset(model, tmp_path / "source", out=tmp_path / "source" / "a.zarr", workers=1)
    assert [file.name for file in (tmp_path / "source").iterdir()] == ["x.npy"]


def test_names_are_those_of_an_attribution(model, tmp_path) -> None:
    """NUL, which netCDF cannot hold, and lone surrogates are replaced, as `explain` does."""
    data = SequenceData(numbers(3), np.full(3, STEPS), ("a\0b", "\udc80", "\n"), None, np.arange(3))
    run = explain_dataset(model, data, method="deeplift", out=tmp_path / "a.zarr", workers=1)
    assert run.open().sample_names == get("deeplift")(model).explain(data).sample_names
    run.open().save(tmp_path / "a.nc")


# -- samples that fail -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_chunks")
def test_samples_that_fail_are_told_and_the_rest_goes_on(model, tmp_path) -> None:
    """NaN, infinity and length 0 are recorded with their reason; all others are what they are without them."""
    inputs, lengths = numbers(40), np.full(40, STEPS)
    inputs[3, 2, 1], inputs[17, 0, 0], inputs[18, 8, 2] = np.nan, np.inf, np.nan
    lengths[18], lengths[30] = 8, 0  # NaN at padding is no fault
    run = explain_dataset(model, inputs, method="deeplift", out=tmp_path / "a.zarr", lengths=lengths, workers=1)
    assert (run.explained, run.failed) == (37, 3)
    told = failures(tmp_path / "a.zarr")
    assert told["position"].tolist() == [3, 17, 30]
    assert told["sample"].tolist() == ["sample 3", "sample 17", "sample 30"]
    assert "nan (timestep 2, feature 1)" in told["reason"][0]
    assert "inf (timestep 0, feature 0)" in told["reason"][1]
    assert "no valid timestep" in told["reason"][2]
    found = run.open()
    good = np.setdiff1d(np.arange(40), [3, 17, 30])
    assert found.sample_names == tuple(f"sample {place}" for place in good)
    inputs[18, 8, 2] = 0
    expected = get("deeplift")(model).explain(inputs[good], lengths=lengths[good])
    np.testing.assert_allclose(found.values, expected.values, atol=1e-7)
    assert found.attrs["samples_failed"] == 3


def test_a_sample_at_which_the_method_fails_stands_alone(tmp_path) -> None:
    """Where the model itself raises, those samples are found among the others."""

    class Fragile(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(FEATURES, 4, batch_first=True)

        def forward(self, inputs):
            if (inputs[:, 0, 0] > 100).any():
                raise RuntimeError("too hot")
            return self.lstm(inputs)[0][:, -1, :1]

    inputs = numbers(30)
    inputs[[7, 8, 25], 0, 0] = 1000
    run = explain_dataset(Fragile(), inputs, method="saliency", out=tmp_path / "a.zarr", workers=1)
    assert failures(run.path)["position"].tolist() == [7, 8, 25]
    assert all("too hot" in reason for reason in failures(run.path)["reason"])
    assert len(run.open()) == 27


def test_when_nothing_can_be_explained_there_is_no_store(model, tmp_path) -> None:
    """A target that does not exist, or samples that all fail, end in an error that says why, and leave nothing."""
    with pytest.raises(InvalidInputError, match=r"none of the first .* samples .* can be explained.*target"):
        explain_dataset(model, numbers(20), out=tmp_path / "a.zarr", target=9, workers=1)
    with pytest.raises(InvalidInputError, match="nan"):
        explain_dataset(model, np.full((9, STEPS, FEATURES), np.nan, np.float32), out=tmp_path / "a.zarr", workers=1)
    with pytest.raises(ModelError, match="holds no"):
        explain_dataset(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(27, 1)), numbers(9),
                        method="gate_saliency", out=tmp_path / "a.zarr", workers=1)  # fmt: skip
    assert list(tmp_path.iterdir()) == []


# -- going on ----------------------------------------------------------------------------------------------------------


class StopNowError(Exception):
    """Stands for whatever ends a run."""


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("method", ["integrated_gradients", "lime"])
def test_a_stopped_run_goes_on_and_gives_the_same_bits(model, tmp_path, method) -> None:
    """After a run that ended in the middle the same call does the rest; every file is that of a run that did not."""
    inputs, lengths = numbers(70), lengths_of(70)
    inputs[20, 0, 0] = np.nan
    lengths[20] = STEPS
    call = {"method": method, "lengths": lengths, "workers": 1}
    explain_dataset(model, inputs, out=tmp_path / "whole.zarr", **call)

    def stop(state: Progress) -> None:
        if state.done >= 32:
            raise StopNowError

    with pytest.raises(StopNowError):
        explain_dataset(model, inputs, out=tmp_path / "a.zarr", progress=stop, **call)
    before = open_store(tmp_path / "a.zarr")
    assert 0 < len(before) < 69
    assert before.attrs["samples_waiting"] == 70 - len(before) - 1
    run = explain_dataset(model, inputs, out=tmp_path / "a.zarr", **call)
    assert run.before == len(before) + 1
    assert files_of(tmp_path / "a.zarr") == files_of(tmp_path / "whole.zarr")
    again = explain_dataset(model, inputs, out=tmp_path / "a.zarr", **call)
    assert again.before == again.samples == 70


KILLED = """
import sys, numpy as np, torch
from gatelens.explainers.dataset import budget, explain_dataset
from gatelens.models import LSTMConfig, LSTMModel
budget.MOST_SAMPLES = 4
torch.manual_seed(0)
model = LSTMModel(LSTMConfig(input_size=3, hidden_sizes=(5,)))
inputs = np.random.default_rng(0).standard_normal((120, 9, 3)).astype(np.float32)
budget.cores = lambda: 2
explain_dataset(model, inputs, out=sys.argv[1], workers=int(sys.argv[2]) or None,
                progress=lambda state: print(state.done, flush=True))
"""


@pytest.mark.parametrize(("workers", "afterwards"), [("1", "1"), ("0", "2")], ids=["one by one", "threads, processes"])
def test_killed_runs_go_on_and_give_the_same_bits(tmp_path, workers, afterwards) -> None:
    """SIGKILL at several moments, then the same command, or with others to work: every file is as if left alone."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    script = [sys.executable, "-c", KILLED]
    whole, command = [*script, str(tmp_path / "whole.zarr"), "1"], [*script, str(tmp_path / "a.zarr"), workers]
    subprocess.run(whole, check=True, env=environment, stdout=subprocess.DEVNULL)
    for wanted in (0, 24, 60):
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                if int(line) >= wanted:
                    process.kill()
                    break
    left = open_store(tmp_path / "a.zarr").attrs["samples_waiting"]
    assert 0 < left < 120
    subprocess.run([*command[:-1], afterwards], check=True, env=environment, stdout=subprocess.DEVNULL)
    assert files_of(tmp_path / "a.zarr") == files_of(tmp_path / "whole.zarr")


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("broken", ["cut", "gone", "another array"])
def test_what_a_power_cut_took_is_explained_anew(model, tmp_path, broken) -> None:
    """A chunk whose status is there and whose numbers are not: found when the same call comes again, and mended."""
    call = {"source": numbers(80), "method": "gate_saliency", "workers": 1}
    explain_dataset(model, out=tmp_path / "whole.zarr", **call)
    explain_dataset(model, out=tmp_path / "a.zarr", **call)
    array = "gate_attribution" if broken == "another array" else "attribution"
    chunks = sorted(file for file in (tmp_path / "a.zarr" / array / "c").rglob("*") if file.is_file())
    if broken == "gone":
        chunks[1].unlink()
    else:
        chunks[1].write_bytes(chunks[1].read_bytes()[:20])
    run = explain_dataset(model, out=tmp_path / "a.zarr", **call)
    assert run.before == 64
    assert [note for note in run.notes if "1 of 5 chunks" in note and "explained anew" in note]
    assert files_of(tmp_path / "a.zarr") == files_of(tmp_path / "whole.zarr")
    assert explain_dataset(model, out=tmp_path / "a.zarr", **call).notes == ()


def test_a_store_in_a_store_is_refused(model, tmp_path) -> None:
    """Zarr would take it for one of the outer store's arrays."""
    explain_dataset(model, numbers(3), method="deeplift", out=tmp_path / "a.zarr", workers=1)
    with pytest.raises(InvalidInputError, match="inside the Zarr store"):
        explain_dataset(model, numbers(3), out=tmp_path / "a.zarr" / "deep" / "b.zarr", workers=1)
    assert not (tmp_path / "a.zarr" / "deep").exists()


def test_what_differs_is_named(model, tmp_path) -> None:
    """A store of another model, method, option, target or input is refused, and stays as it is."""
    inputs = numbers(12)
    out = tmp_path / "a.zarr"
    explain_dataset(model, inputs, method="deeplift", out=out, workers=1)
    before = files_of(out)
    other = LSTMModel(model.config)
    changed = inputs.copy()
    changed[11, 8, 2] += 1e-6
    background = {"method": "deep_shap", "options": {"background": inputs[:2]}}
    for difference, call in {
        "model": {"model": other},
        "method": {"method": "saliency"},
        "target": {"target": 1},
        "baseline": {"baseline": 0.5},
        "output": {"output": "probability"},
        "seed": {"seed": 5},
        "gates": {"gates": "units"},
        "samples": {"source": inputs[:5]},
        "inputs": {"source": changed},
        "lengths": {"lengths": np.full(12, 8)},
        "background": background,
    }.items():
        with pytest.raises(InvalidInputError, match=rf"{difference}: .* in the store, .* now"):
            explain_dataset(**{"model": model, "source": inputs, "method": "deeplift", "out": out, "workers": 1} | call)
    assert files_of(out) == before
    run = explain_dataset(other, inputs, method="deeplift", out=out, workers=1, overwrite=True)
    assert run.before == 0
    assert run.explained == 12


def test_options_of_a_method_are_compared(model, tmp_path) -> None:
    """Two runs with other options of a method are two things."""
    explain_dataset(model, numbers(5), out=tmp_path / "a.zarr", options={"steps": 4}, workers=1)
    with pytest.raises(InvalidInputError, match=r"options: .*4.* in the store, .*5.* now"):
        explain_dataset(model, numbers(5), out=tmp_path / "a.zarr", options={"steps": 5}, workers=1)


def test_a_file_that_was_touched_is_read_again(model, tmp_path) -> None:
    """A source file with another time but the same numbers goes on; with other numbers it is refused."""
    file, out = tmp_path / "x.npy", tmp_path / "a.zarr"
    np.save(file, numbers(12))
    explain_dataset(model, file, method="deeplift", out=out, workers=1)
    os.utime(file, (1, 1))
    assert explain_dataset(model, file, method="deeplift", out=out, workers=1).before == 12
    np.save(file, numbers(12, seed=1))
    with pytest.raises(InvalidInputError, match="inputs: "):
        explain_dataset(model, file, method="deeplift", out=out, workers=1)


def test_nothing_but_a_store_is_ever_replaced(model, tmp_path) -> None:
    """overwrite=True refuses a folder that is no store of gatelens."""
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "precious.txt").write_text("x")
    with pytest.raises(InvalidInputError, match="not a readable Zarr store"):
        explain_dataset(model, numbers(3), out=tmp_path / "a.zarr", overwrite=True, workers=1)
    zarr.open_group(tmp_path / "b.zarr", mode="w")
    with pytest.raises(InvalidInputError, match="not one of gatelens"):
        explain_dataset(model, numbers(3), out=tmp_path / "b.zarr", overwrite=True, workers=1)
    assert (tmp_path / "a.zarr" / "precious.txt").read_text() == "x"


def test_one_run_at_a_time(model, tmp_path) -> None:
    """A second run into the same store is refused while the first goes on, and nothing is left of the lock."""
    with store.locked(tmp_path / "a.zarr"), pytest.raises(InvalidInputError, match="another run is writing"):
        explain_dataset(model, numbers(3), out=tmp_path / "a.zarr", workers=1)
    explain_dataset(model, numbers(3), out=tmp_path / "a.zarr", workers=1)
    assert [file.name for file in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.usefixtures("small_chunks")
def test_a_full_disk_is_said_and_the_run_goes_on_later(model, tmp_path, monkeypatch) -> None:
    """The error says what to do; what was written stays, and the result has the same bits."""
    inputs = numbers(60)
    explain_dataset(model, inputs, out=tmp_path / "whole.zarr", workers=1)
    written = store.AttributionStore.write
    left = iter(range(2))

    def full(self, *arguments) -> None:
        if next(left, None) is None:
            self.array("attribution")[self.rows(arguments[0])] = 7  # half a chunk
            raise OSError(errno.ENOSPC, "No space left on device")
        written(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(store.AttributionStore, "write", full)
        with pytest.raises(DiskFullError, match=r"full .* MiB free.*goes on from there"):
            explain_dataset(model, inputs, out=tmp_path / "a.zarr", workers=1)
    assert open_store(tmp_path / "a.zarr").attrs["samples_waiting"] == 28
    explain_dataset(model, inputs, out=tmp_path / "a.zarr", workers=1)
    assert files_of(tmp_path / "a.zarr") == files_of(tmp_path / "whole.zarr")


def test_a_disk_that_is_full_at_once_leaves_nothing(model, tmp_path, monkeypatch) -> None:
    """When not even the inputs have room, there is no store."""
    monkeypatch.setattr(store, "gathered", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(DiskFullError):
        explain_dataset(model, numbers(9), out=tmp_path / "a.zarr", workers=1)
    assert list(tmp_path.iterdir()) == []


def test_memory_that_runs_out_is_no_fault_of_a_sample(model, tmp_path, monkeypatch) -> None:
    """It ends the run with advice instead of marking samples."""
    explain = get("deeplift").explain
    calls = iter(range(100))

    def hungry(self, inputs, **options):
        if next(calls) >= 1:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 EB")
        return explain(self, inputs, **options)

    monkeypatch.setattr(get("deeplift"), "explain", hungry)
    with pytest.raises(MemoryError, match="give less"):
        explain_dataset(model, numbers(9), method="deeplift", out=tmp_path / "a.zarr", workers=1)
    assert open_store(tmp_path / "a.zarr").attrs["samples_failed"] == 0


# -- the model and the user --------------------------------------------------------------------------------------------


def test_the_model_is_left_as_it_was(model, tmp_path) -> None:
    """Mode, gradient flags, device and weights are as before; so are torch's random numbers."""
    model.train()
    model.head.weight.requires_grad_(False)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    explain_dataset(model, numbers(9), out=tmp_path / "a.zarr", workers=1, device="cpu")
    assert torch.equal(torch.rand(3), expected)
    assert model.training
    assert not model.head.weight.requires_grad
    assert model.lstm[0].weight_ih_l0.requires_grad
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_device_that_is_not_there(model, tmp_path) -> None:
    """It is refused before anything is written."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ModelError, match="device is 'cuda'"):
        explain_dataset(model, numbers(3), out=tmp_path / "a.zarr", device="cuda")
    with pytest.raises(ModelError, match="plain function"):
        explain_dataset(lambda x: x.mean((1, 2)), numbers(3), method="lime", out=tmp_path / "a.zarr", device="cpu")
    assert list(tmp_path.iterdir()) == []


def test_plain_functions_are_explained(tmp_path) -> None:
    """A function of arrays works in this process."""
    run = explain_dataset(
        lambda x: x[:, 2, 1], numbers(9), method="occlusion", options={"players": "cell"}, out=tmp_path / "a.zarr",
        workers=1,
    )  # fmt: skip
    values = run.open().values
    np.testing.assert_allclose(values[:, 2, 1], numbers(9)[:, 2, 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"out": "a.nc"}, "ends in .zarr"),
        ({"memory": "lots"}, 'such as "2GiB"'),
        ({"memory": "1MB", "workers": 1}, "32 MiB each"),
        ({"workers": 0}, "workers is 0"),
        ({"workers": True}, "workers is True"),
        ({"gates": "all"}, "known: sum, units"),
        ({"windows": "some"}, "windows is 'some'"),
        ({"stride": 0}, "stride is 0"),
        ({"options": ["steps"]}, "options is a list"),
        ({"memory": float("inf")}, 'such as "2GiB"'),
        ({"out": "a\0.zarr"}, "ends in .zarr"),
        ({"out": "a" * 300 + ".zarr"}, "too long"),
        ({"method": "deeplifts"}, "Did you mean 'deeplift'"),
        ({"options": {"step": 3}}, "options of integrated_gradients do not fit"),
        ({"source": np.zeros((3, STEPS, 7), np.float32)}, "3"),
    ],
)
def test_bad_options_are_refused(model, tmp_path, options, error) -> None:
    """Each with a sentence, and before anything is written."""
    call = {"source": numbers(3), "out": tmp_path / "a.zarr", "workers": 1, **options}
    if call["out"] == "a.nc":
        call["out"] = tmp_path / "a.nc"
    with pytest.raises((InvalidInputError, TypeError), match=error):
        explain_dataset(model, call.pop("source"), **call)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small_chunks")
def test_progress_is_told(model, tmp_path) -> None:
    """After each chunk: how many, how fast, how long still."""
    told: list[Progress] = []
    explain_dataset(model, numbers(40), method="deeplift", out=tmp_path / "a.zarr", workers=1, progress=told.append)
    assert [state.done for state in told] == [0, 16, 32, 40]
    assert told[0].seconds_left is None
    assert told[-1].seconds_left == 0
    assert all(state.samples_per_second > 0 for state in told[1:])


def test_the_budget_decides_how_much_is_held(model, tmp_path) -> None:
    """Less memory gives smaller chunks and smaller batches, the same numbers, and the store remembers both."""
    inputs = np.random.default_rng(0).standard_normal((40, 400, FEATURES)).astype(np.float32)
    explain_dataset(model, inputs, out=tmp_path / "a.zarr", memory="32MiB", workers=1)
    explain_dataset(model, inputs, out=tmp_path / "b.zarr", memory="8GiB", workers=1)
    little, much = (store.AttributionStore(tmp_path / f"{name}.zarr") for name in "ab")
    assert little.memory_bytes == 2**24
    assert little.chunk <= much.chunk
    np.testing.assert_allclose(
        open_store(little.path).values, open_store(much.path).values, rtol=1e-4, atol=1e-6
    )  # fmt: skip
    run = explain_dataset(model, inputs, out=tmp_path / "a.zarr", memory="8GiB", workers=1)
    assert run.before == 40


# -- reading back ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_chunks")
def test_the_layout_is_read_without_gatelens(model, tmp_path) -> None:
    """docs/formats.md: plain zarr and plain xarray read a store, and find what it says."""
    inputs, lengths = numbers(40), lengths_of(40)
    inputs[5, 0, 0] = np.nan
    lengths[5] = 9
    explain_dataset(model, inputs, method="deeplift", out=tmp_path / "a.zarr", lengths=lengths, workers=1)
    expected = get("deeplift")(model)
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    attrs = group.attrs.asdict()
    assert (attrs["format"], attrs["format_version"], attrs["store_version"]) == ("gatelens.Attribution", 1, 1)
    assert json.loads(attrs["identity"])["method"] == "deeplift"
    assert group["attribution"].chunks == (attrs["chunk"], STEPS, FEATURES)
    assert group["attribution"].metadata.dimension_names == ("sample", "time", "feature")
    status = group["status"][:]
    assert status.tolist() == [2 if place == 5 else 1 for place in range(40)]
    good = np.flatnonzero(status == 1)
    wanted = expected.explain(inputs[good], lengths=lengths[good])
    np.testing.assert_allclose(group["attribution"][:][good], wanted.values, atol=1e-7)
    assert np.isnan(group["attribution"][5]).all()
    assert "nan" in str(group["failure"][5])
    np.testing.assert_array_equal(group["length"][:], lengths)
    assert group["chunk_cost"].shape == (3, 3)
    assert group["chunk_cost"].attrs["cost"] == ["seconds", "forward_evaluations", "backward_evaluations"]
    with xr.open_zarr(tmp_path / "a.zarr", consolidated=False) as dataset:
        assert dataset["attribution"].dims == ("sample", "time", "feature")
        assert dataset["feature"].values.tolist() == ["feature 0", "feature 1", "feature 2"]
        assert float(dataset["prediction"].sel(sample="sample 7").values) == pytest.approx(wanted.prediction[6])


def test_coordinates_of_features_come_back(tmp_path) -> None:
    """Units, groups and scaling of features are coordinates, as in an attribution."""
    torch.manual_seed(0)
    spec = DataSpec(features=tuple(FeatureSpec(name=name, unit="m", center=1.0, scale=2.0) for name in "abc"))
    model = LSTMModel(LSTMConfig(input_size=3, hidden_sizes=(4,)), data=spec)
    explain_dataset(model, numbers(5), method="deeplift", out=tmp_path / "a.zarr", workers=1)
    found = open_store(tmp_path / "a.zarr")
    assert found.feature_names == ("a", "b", "c")
    for name in ("feature_unit", "feature_group", "feature_transform", "feature_center", "feature_scale"):
        assert name in found.dataset.coords
    found.save(tmp_path / "a.nc")
    assert Attribution.load(tmp_path / "a.nc").feature_names == ("a", "b", "c")


@pytest.mark.usefixtures("small_chunks")
def test_opening_reads_nothing_that_is_not_asked_for(model, tmp_path, monkeypatch) -> None:
    """Of many samples, one is read without the chunks of the others."""
    explain_dataset(model, numbers(64), method="deeplift", out=tmp_path / "a.zarr", workers=1)
    expected = open_store(tmp_path / "a.zarr").values[37]
    shutil.rmtree(tmp_path / "a.zarr" / "attribution" / "c" / "0")  # the first chunk
    found = open_store(tmp_path / "a.zarr")
    np.testing.assert_array_equal(found[37].values[0], expected)
    assert np.isnan(found[3].values).all()  # it is gone
    assert [len(piece) for piece in pieces(tmp_path / "a.zarr")] == [16] * 4


@pytest.mark.usefixtures("small_chunks")
def test_parquet_in_long_form(model, tmp_path) -> None:
    """One row a valid cell, of all explained samples; sums are those of the store."""
    import pandas as pd

    inputs, lengths = numbers(40), lengths_of(40)
    inputs[5, 0, 0] = np.nan
    lengths[5] = 9
    run = explain_dataset(model, inputs, method="deeplift", out=tmp_path / "a.zarr", lengths=lengths, workers=1)
    frame = pd.read_parquet(to_parquet(run.path, tmp_path / "a.parquet"))
    found = run.open()
    assert len(frame) == found.lengths.sum() * FEATURES
    assert frame.columns.tolist() == [
        "sample", "position", "time", "feature", "attribution", "input", "baseline", "prediction",
        "baseline_prediction", "target_output",
    ]  # fmt: skip
    sums = frame.groupby("position")["attribution"].sum()
    np.testing.assert_allclose(sums, found.values.sum((1, 2)), atol=1e-6)
    last = frame[frame["position"] == 38]
    assert (last["sample"] == "sample 39").all()
    np.testing.assert_allclose(last["prediction"], found.prediction[38])
    with pytest.raises(InvalidInputError, match=r"end in \.parquet"):
        to_parquet(run.path, tmp_path / "a.csv")


def test_samples_with_the_same_name_stay_apart(model, tmp_path) -> None:
    """Names may stand twice, in the store and in Parquet."""
    import pandas as pd

    data = SequenceData(numbers(4), np.full(4, STEPS), ("x", "x", "y", "x"), None, np.arange(4))
    run = explain_dataset(model, data, method="deeplift", out=tmp_path / "a.zarr", workers=1)
    frame = pd.read_parquet(to_parquet(run.path, tmp_path / "a.parquet"))
    assert frame.groupby("position")["sample"].first().tolist() == ["x", "x", "y", "x"]
    np.testing.assert_allclose(
        frame["attribution"].to_numpy().reshape(4, STEPS, FEATURES), run.open().values, rtol=1e-6
    )  # fmt: skip


def test_what_is_no_store_is_said(tmp_path) -> None:
    """A missing, foreign or damaged folder gives a sentence."""
    with pytest.raises(InvalidInputError, match="there is no store"):
        Attribution.open(tmp_path / "a.zarr")
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(InvalidInputError, match="not a readable Zarr store"):
        Attribution.open(tmp_path / "a.zarr")
    group = zarr.open_group(tmp_path / "b.zarr", mode="w")
    with pytest.raises(InvalidInputError, match="not one of gatelens"):
        Attribution.open(tmp_path / "b.zarr")
    group.attrs.update({"format": "gatelens.Attribution", "store_version": 99})
    with pytest.raises(InvalidInputError, match="store_version 99"):
        Attribution.open(tmp_path / "b.zarr")
    group.attrs.update({"store_version": 1, "identity": "{"})
    with pytest.raises(InvalidInputError, match="damaged"):
        Attribution.open(tmp_path / "b.zarr")


def test_a_store_that_would_run_code_is_refused(model, tmp_path) -> None:
    """An array that is decoded by pickle is not read."""
    explain_dataset(model, numbers(3), method="deeplift", out=tmp_path / "a.zarr", workers=1)
    (tmp_path / "a.zarr" / "token").mkdir()
    trap = {"zarr_format": 2, "shape": [3], "chunks": [3], "dtype": "|O", "fill_value": "", "order": "C",
            "compressor": None, "filters": [{"id": "pickle"}]}  # fmt: skip
    (tmp_path / "a.zarr" / "token" / ".zarray").write_text(json.dumps(trap))
    v3 = json.loads((tmp_path / "a.zarr" / "sample" / "zarr.json").read_text())
    v3["codecs"] = [{"name": "numcodecs.pickle", "configuration": {}}]
    (tmp_path / "a.zarr" / "sample" / "zarr.json").write_text(json.dumps(v3))
    with pytest.raises(InvalidInputError, match=r"pickle|not a readable"):
        Attribution.open(tmp_path / "a.zarr")


def test_time_passes_are_counted(model, tmp_path) -> None:
    """The seconds of a store are those of its chunks."""
    started = time.perf_counter()
    run = explain_dataset(model, numbers(20), method="deeplift", out=tmp_path / "a.zarr", workers=1)
    assert 0 < run.open().attrs["seconds"] <= time.perf_counter() - started
