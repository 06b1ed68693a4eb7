"""Saved models: what was saved comes back, nothing is half-written, and every bad folder has its own clear error."""

import json
import os
import stat
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings

from gatelens.models import (
    DataSpec,
    FeatureSpec,
    GatelensError,
    InvalidInputError,
    LSTMModel,
    SavedModelError,
    WindowSpec,
    load,
    model_hash,
    save,
)
from helpers.draws import cases, make_inputs, make_model

FILES = {"config.json", "weights.safetensors", "data.json"}

DATA = DataSpec(
    features=(
        FeatureSpec(name="glucose", unit="mg/dL", center=120.5, scale=0.1 + 0.2, group="glucose"),
        FeatureSpec(name="Δ glucose", column="glucose", transform="difference"),
    ),
    classes=("low", "high"),
    target="a high glucose",
    baseline=(0.0, -1e-17),
    baseline_description="a flat trace",
    window=WindowSpec(length=24, interval_seconds=300, max_gap_seconds=450.5, time_column="time"),
    provenance={"seed": 3, "metrics": {"auc": 0.91}, "versions": ["1", None, True]},
)


@pytest.fixture
def model() -> LSTMModel:
    return make_model(
        3, data=DATA, dtype=torch.float32, input_size=2, hidden_sizes=(4, 3), task="binary", bidirectional=True
    )


@pytest.fixture
def folder(model, tmp_path):
    return model.save(tmp_path / "model")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def edit_json(path, change):
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


def edit_weights(folder, change):
    weights = safetensors.torch.load_file(folder / "weights.safetensors")
    change(weights)
    safetensors.torch.save_file(weights, folder / "weights.safetensors")


# -- identity --------------------------------------------------------------------------------------------------------


def test_what_was_saved_comes_back(model, folder):
    """Scores and weights are the same bits; config, data and hash are equal; the model comes back in eval mode."""
    loaded = load(str(folder))
    inputs = make_inputs(model, 3, 6)
    assert torch.equal(loaded(inputs, [6, 2, 4]), model(inputs, [6, 2, 4]))
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert (loaded.config, loaded.data, model_hash(loaded)) == (model.config, DATA, model_hash(model))
    assert not any(part.training for part in loaded.modules())
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert set(contents(folder)) == FILES


@given(cases())
@settings(max_examples=15)
def test_every_architecture_comes_back(tmp_path_factory, case):
    """Any architecture, in float64, has the same weights bit by bit and the same scores after save and load."""
    loaded = load(case.model.save(tmp_path_factory.mktemp("saved") / "model"))
    assert loaded.config == case.model.config
    for name, value in case.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    # where a weight lies in memory may change the order of a sum, and so its last bit
    scores, expected = loaded(case.inputs, case.lengths), case.model(case.inputs, case.lengths)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-12)


def test_a_model_without_data_comes_back_with_an_empty_one(tmp_path):
    """data=None is saved as the empty description."""
    assert load(make_model(input_size=1).save(tmp_path / "new" / "model")).data == DataSpec()


def test_a_loaded_model_can_be_trained_and_moved(folder):
    """Loaded weights are ordinary parameters: a backward pass reaches all, and dtype can change."""
    loaded = load(folder).train().double()
    loaded(torch.ones(2, 3, 2)).sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())


def test_hash_tells_models_apart(model, folder):
    """The hash changes with one weight, one config entry or the dtype, and with nothing else."""
    original = model_hash(model)
    other = load(folder)
    assert len(original) == 16
    assert model_hash(other.train()) == original
    with torch.no_grad():
        other.head.bias.add_(1e-3)
    assert model_hash(other) != original
    assert model_hash(load(folder).double()) != original
    mean = make_model(3, dtype=torch.float32, input_size=2, hidden_sizes=(4, 3), bidirectional=True, pooling="mean")
    mean.load_state_dict(model.state_dict())
    assert model_hash(mean) != original
    assert model_hash(torch.nn.LSTM(1, 2).half()) != model_hash(torch.nn.LSTM(1, 2).half())


def test_the_files_are_plain(folder):
    """config.json carries format and version; the files are JSON and safetensors that other tools read."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert (config["format"], config["format_version"]) == ("gatelens.LSTMModel", 1)
    assert config["model"]["hidden_sizes"] == [4, 3]
    assert "Δ glucose" in (folder / "data.json").read_text(encoding="utf-8")
    assert "head.weight" in safetensors.torch.load_file(folder / "weights.safetensors")


# -- writing ---------------------------------------------------------------------------------------------------------


def test_an_older_model_is_replaced(model, folder):
    """Saving over a saved model leaves the new one alone, with no traces of the old."""
    other = make_model(9, input_size=5, dtype=torch.float32)
    save(other, folder)
    assert model_hash(load(folder)) == model_hash(other)
    assert set(contents(folder)) == FILES
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_permissions_follow_the_umask(model, tmp_path):
    """Folder and files have the permissions that mkdir and open would have given them."""
    before = os.umask(0o027)
    try:
        folder = model.save(tmp_path / "model")
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o640}


@pytest.mark.parametrize("exists", [False, True])
def test_nothing_half_written_stays(model, tmp_path, monkeypatch, exists):
    """If writing the weights fails, the old model stays byte for byte, and no temporary files remain."""
    folder = tmp_path / "model"
    if exists:
        make_model(1, input_size=1).save(folder)
    before = contents(folder) if exists else None

    def fail(weights, path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(safetensors.torch, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        model.save(folder)
    assert [path.name for path in tmp_path.iterdir()] == (["model"] if exists else [])
    if exists:
        assert contents(folder) == before


@pytest.mark.parametrize(
    "names", [["notes.txt"], ["config.json", "thesis.docx"], ["config.json"], [*FILES, "more.csv"]]
)
def test_a_folder_with_other_files_is_not_overwritten(model, tmp_path, names):
    """A folder that holds anything but a saved model is refused and stays as it is."""
    folder = tmp_path / "precious"
    folder.mkdir()
    for name in names:
        (folder / name).write_text("mine")
    before = contents(folder)
    with pytest.raises(InvalidInputError, match="not a saved model; choose an empty or a new folder"):
        model.save(folder)
    assert contents(folder) == before


def test_an_empty_folder_is_filled(model, tmp_path):
    """An empty folder is as good as none."""
    (tmp_path / "model").mkdir()
    assert set(contents(model.save(tmp_path / "model"))) == FILES


def test_a_file_is_not_overwritten(model, tmp_path):
    """A file in the way is refused and stays."""
    (tmp_path / "model").write_text("mine")
    with pytest.raises(InvalidInputError, match=r"model is a file; expected a folder's name"):
        model.save(tmp_path / "model")
    assert (tmp_path / "model").read_text() == "mine"


def test_a_link_to_a_saved_model_stays_a_link(model, folder, tmp_path):
    """Saving through a symbolic link replaces the model it points to, and leaves nothing beside."""
    link = tmp_path / "latest"
    link.symlink_to(folder, target_is_directory=True)
    other = make_model(9, input_size=1, dtype=torch.float32)
    other.save(link)
    assert link.is_symlink()
    assert model_hash(load(folder)) == model_hash(other)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "model"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_diverged_model_is_not_saved(model, tmp_path, value):
    """NaN or infinite weights are refused by name, and nothing is written."""
    with torch.no_grad():
        model.head.bias[0] = value
    with pytest.raises(InvalidInputError, match=r"weight head\.bias holds NaN"):
        model.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("provenance", [{"loss": float("nan")}, {"model": object()}])
def test_provenance_that_is_no_json_is_not_saved(tmp_path, provenance):
    """What JSON cannot hold is refused, and nothing is written."""
    model = make_model(input_size=1, data=DataSpec(provenance=provenance))
    with pytest.raises(InvalidInputError, match="cannot be written as JSON"):
        model.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_data_that_would_not_load_is_not_saved(tmp_path):
    """A description that does not fit the model is refused when saving, not only when loading."""
    model = make_model(input_size=3, data=replace(DATA, baseline=None), task="binary")
    with pytest.raises(InvalidInputError, match="names 2 features; the model reads 3"):
        model.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


# -- bad folders -----------------------------------------------------------------------------------------------------


def test_a_missing_folder(tmp_path):
    """A path that is not there is named."""
    with pytest.raises(SavedModelError, match=r"there is no saved model at .*nowhere") as caught:
        load(tmp_path / "nowhere")
    assert isinstance(caught.value, GatelensError)
    assert isinstance(caught.value, ValueError)


def test_a_file_instead_of_a_folder(folder):
    """A file is told apart from a folder."""
    with pytest.raises(SavedModelError, match=r"is a file; expected a saved model's folder"):
        load(folder / "weights.safetensors")


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_missing_file(folder, name):
    """Each missing file is named."""
    (folder / name).unlink()
    with pytest.raises(SavedModelError, match=f"has no {name}; a saved model is"):
        load(folder)


@pytest.mark.parametrize("size", [0, 4, 60, -8])
def test_damaged_weights(folder, size):
    """Weights cut off anywhere (0 bytes, in the header, in the numbers) are called damaged."""
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(SavedModelError, match=r"is not a safetensors file .* damaged or truncated"):
        load(folder)


def test_weights_that_are_a_pickle(folder):
    """A pickle in the place of the weights is not read."""
    torch.save({"head.weight": torch.zeros(1)}, folder / "weights.safetensors")
    with pytest.raises(SavedModelError, match="is not a safetensors file"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: w.update({"head.weight": torch.zeros(1, 7)}),
            r"head\.weight has shape \(1, 7\); config\.json expects \(1, 6\)",
        ),
        (lambda w: w.pop("lstm.1.bias_hh_l0"), r"has no weight lstm\.1\.bias_hh_l0"),
        (lambda w: w.update({"lstm.2.extra": torch.zeros(1)}), r"has the weight lstm\.2\.extra.*knows nothing of"),
        (lambda w: w["head.bias"].fill_(float("nan")), r"head\.bias holds NaN or infinite"),
        (lambda w: w["head.bias"].fill_(float("-inf")), r"head\.bias holds NaN or infinite"),
        (lambda w: w.update({"head.bias": torch.zeros(1).long()}), r"head\.bias is torch\.int64; expected floats"),
        (lambda w: w.update({"head.bias": torch.zeros(1).bool()}), r"head\.bias is torch\.bool; expected floats"),
        (
            lambda w: w.update({"head.bias": torch.zeros(1).to(torch.float8_e4m3fn)}),
            r"head\.bias is torch\.float8_e4m3fn; expected floats",
        ),
        (lambda w: w.update({"head.bias": torch.zeros(1).double()}), r"float32.*float64.*one type"),
    ],
)
def test_weights_that_do_not_fit(folder, change, message):
    """A weight of another shape, missing, unknown, not finite or of another type is named."""
    edit_weights(folder, change)
    with pytest.raises(SavedModelError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format="keras"), r"has format 'keras'; expected 'gatelens\.LSTMModel'"),
        (lambda c: c.pop("format"), "has format None"),
        (lambda c: c.update(format_version=2), "format_version 2; this gatelens reads up to 1. Update gatelens"),
        (lambda c: c.update(format_version="1"), "format_version '1'; expected a whole number"),
        (lambda c: c.update(format_version=True), "format_version True; expected a whole number"),
        (lambda c: c.update(format_version=0), "format_version 0; expected a whole number"),
        (lambda c: c.pop("model"), "no object 'model'"),
        (lambda c: c.update(model=[1]), "no object 'model'"),
        (lambda c: c["model"].update(hiden_sizes=[3]), "unknown entry 'hiden_sizes'.*Did you mean 'hidden_sizes'"),
        (lambda c: c["model"].update(pooling="maen"), "pooling is 'maen'.*Did you mean 'mean'"),
        (lambda c: c["model"].update(pooling=["mean"]), r"pooling is \['mean'\]"),
        (lambda c: c["model"].update(hidden_sizes=[0]), "each of hidden_sizes is 0"),
        (lambda c: c["model"].update(hidden_sizes=None), "hidden_sizes is None"),
        (lambda c: c["model"].update(hidden_sizes=[]), "hidden_sizes has 0 entries"),
        (lambda c: c["model"].update(hidden_sizes=[1] * 300), "hidden_sizes has 300 entries"),
        (lambda c: c["model"].update(input_size="2"), "input_size is '2'"),
        (lambda c: c["model"].update(dropout="high"), "dropout is 'high'"),
        (lambda c: c["model"].update(bidirectional=1), "bidirectional is 1"),
        (lambda c: c["model"].update(padding_index="zero"), "padding_index is 'zero'"),
        (
            lambda c: c["model"].update(hidden_sizes=[10**9]),
            r"too large for any machine \(hidden_sizes=\(1000000000,\)",
        ),
        (lambda c: c["model"].update(hidden_sizes=[10**7]), r"lstm\.0\.weight_ih_l0 has shape .* config\.json expects"),
        (lambda c: c["model"].update(hidden_sizes=[10**30]), "too large for any machine"),
        (
            lambda c: c["model"].update(vocab_size=10**30, embedding_dim=2, input_size=None),
            "too large for any machine",
        ),
    ],
)
def test_configs_that_are_refused(folder, change, message):
    """Another format, a newer version, unknown or invalid values, and absurd sizes are refused, nothing allocated."""
    (folder / "data.json").write_text("{}")
    edit_json(folder / "config.json", change)
    with pytest.raises(SavedModelError, match=message) as caught:
        load(folder)
    assert "config.json" in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "data.json"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[1, 2]", "holds a list; expected a JSON object"),
        (b"null", "holds a NoneType; expected a JSON object"),
        (b'{"format": ', "is not JSON .* damaged or truncated"),
        (b"", "is not JSON .* damaged or truncated"),
        (b"[" * 10_000 + b"]" * 10_000, "nested too deeply"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "nested too deeply"),
        (b'{"format": "\xff\xfe"}', "is not text; expected JSON in UTF-8"),
        (b'{"format_version": ' + b"1" * 5000 + b"}", "is not JSON"),
    ],
)
def test_files_that_are_no_json_object(folder, name, text, message):
    """Text that is no JSON object, malformed, too deep or not UTF-8 is refused with the file's name."""
    (folder / name).write_bytes(text)
    with pytest.raises(SavedModelError, match=message) as caught:
        load(folder)
    assert name in str(caught.value)


def test_a_huge_json_is_not_read(folder):
    """A JSON file over 16 MiB is refused by its size."""
    with (folder / "data.json").open("r+b") as file:
        file.truncate(17 * 2**20)
    with pytest.raises(SavedModelError, match=r"data\.json is larger than 16 MiB"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: (d["features"].pop(), d.update(baseline=None)), "names 1 features; the model reads 2"),
        (lambda d: d.update(classes=["a", "b", "c"]), "names 3 classes; a binary model of this shape has 2"),
        (lambda d: d.update(outputs=["a", "b"]), "names 2 outputs; the model has 1"),
        (lambda d: d["features"][0].update(scale=float("nan")), "scale=nan; expected a finite number"),
        (lambda d: d["features"][0].update(scale=0), "scale=0; expected another number"),
        (lambda d: d["features"][0].update(center=10**400), "center=.*expected a finite number"),
        (lambda d: d["features"][0].update(center=float("inf")), "center=inf; expected a finite number"),
        (lambda d: d["features"][0].update(transform="eval"), "transform 'eval'"),
        (lambda d: d["features"][0].update(code="1"), "a feature has the unknown entry 'code'"),
        (lambda d: d["features"][0].pop("name"), "a feature is incomplete"),
        (lambda d: d.update(feature=[]), "unknown entry 'feature'.*Did you mean 'features'"),
        (lambda d: d.update(features="ab"), "features is 'ab'; expected a list"),
        (lambda d: d.update(features=[1, 2]), "a feature is 1; expected an object"),
        (lambda d: d.update(window=[]), r"window is \[\]; expected an object"),
        (lambda d: d.update(target=5), "target is 5; expected text"),
        (lambda d: d.update(baseline=[1.0]), "baseline has 1 values for 2 features"),
        (lambda d: d.update(features=[], baseline=[1.0]), "baseline has 1 values; the model reads 2 features"),
        (lambda d: d.update(vocabulary=["a", "b"]), "names tokens; the model reads features"),
    ],
)
def test_data_that_does_not_fit(folder, change, message):
    """A description with other features, classes or outputs than the model's, or with bad values, is refused."""
    edit_json(folder / "data.json", change)
    with pytest.raises(SavedModelError, match=message) as caught:
        load(folder)
    assert "data.json" in str(caught.value)


def test_data_of_a_token_model(tmp_path):
    """A token model refuses another number of tokens, and features; its own vocabulary comes back."""
    vocabulary = ("<pad>", "good", "bad")
    model = make_model(vocab_size=3, embedding_dim=2, data=DataSpec(vocabulary=vocabulary))
    folder = model.save(tmp_path / "model")
    assert load(folder).data.vocabulary == vocabulary
    edit_json(folder / "data.json", lambda d: d.update(vocabulary=["<pad>", "good"]))
    with pytest.raises(SavedModelError, match="names 2 tokens; the model reads 3"):
        load(folder)
    edit_json(folder / "data.json", lambda d: d.update(vocabulary=None, features=[{"name": "a"}]))
    with pytest.raises(SavedModelError, match="names features; the model reads token ids"):
        load(folder)


@pytest.mark.parametrize(
    ("task", "size", "fits"), [("multiclass", 3, True), ("multiclass", 4, False), ("regression", 3, False)]
)
def test_classes_fit_the_task(tmp_path, task, size, fits):
    """A multiclass model has K classes, a regression none."""
    folder = make_model(input_size=1, task=task, output_size=size).save(tmp_path / "model")
    edit_json(folder / "data.json", lambda d: d.update(classes=["a", "b", "c"]))
    if fits:
        assert load(folder).data.classes == ("a", "b", "c")
        return
    with pytest.raises(SavedModelError, match="names 3 classes"):
        load(folder)
