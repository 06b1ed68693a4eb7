"""`Attribution`: values, labels, tables, files and what is refused."""

import dataclasses
import json
from xml.etree import ElementTree as ET

import h5py
import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from gatelens.explainers import Attribution, GateSaliency, GradientSHAP, IntegratedGradients, KernelSHAP
from gatelens.models import DataSpec, FeatureSpec, InvalidInputError
from helpers.explained import LENGTHS, lstm, sequences, token_ids

INPUTS = sequences(3, 6, 3)


def explained(model=None, *, inputs=INPUTS, lengths=LENGTHS, baseline=0.25, **arguments) -> Attribution:
    """Return integrated gradients of three padded sequences."""
    return IntegratedGradients(model or lstm(), steps=8, baseline=baseline).explain(
        inputs, lengths=lengths, **arguments
    )


def described(**data):
    """Return a model that names its features."""
    model = lstm()
    features = (
        FeatureSpec(name="glucose", unit="mg/dL", center=120.0, scale=40.0),
        FeatureSpec(name="sin", group="time of day", transform="day_sine"),
        FeatureSpec(name="cos", group="time of day", transform="day_cosine"),
    )
    model.data = DataSpec(features=features, **data)
    return model


# -- reading ---------------------------------------------------------------------------------------------------------


def test_sums_and_gap():
    """Timesteps sum over features, features over time, and the gap is what the sum misses."""
    result = explained()
    np.testing.assert_allclose(result.timesteps, result.values.sum(2))
    np.testing.assert_allclose(result.features, result.values.sum(1))
    missed = result.prediction - result.baseline_prediction - result.values.sum((1, 2), dtype=np.float64)
    np.testing.assert_allclose(result.completeness_gap, missed, rtol=0, atol=1e-12)
    assert len(result) == 3
    assert repr(result) == "Attribution(integrated_gradients: 3 samples x 6 timesteps x 3 features)"


def test_inputs_and_baseline_are_kept():
    """The result holds the model's inputs and baseline, 0 at padding, and the lengths."""
    result = explained()
    valid = np.arange(6) < np.array(LENGTHS)[:, None]
    np.testing.assert_array_equal(result.inputs, np.where(valid[..., None], INPUTS, 0))
    np.testing.assert_array_equal(result.dataset["baseline"], np.where(valid[..., None], [0.25] * 3, 0))
    np.testing.assert_array_equal(result.lengths, LENGTHS)


def test_features_need_a_method_that_tells_them_apart():
    """`features` of a result by timestep or segment is refused, with what to do instead."""
    for explainer, resolution in (
        (KernelSHAP(lstm()), "timestep"),
        (KernelSHAP(lstm(), players="segment", segments=2), "segment"),
    ):
        result = explainer.explain(INPUTS)
        assert (result.resolves_features, result.resolves_time) == (False, True)
        with pytest.raises(InvalidInputError, match=f"explained by {resolution}.*players='cell' or 'feature'"):
            _ = result.features
    by_feature = KernelSHAP(lstm(), players="feature").explain(INPUTS)
    assert (by_feature.resolves_features, by_feature.resolves_time) == (True, False)
    np.testing.assert_allclose(by_feature.features, by_feature.values.sum(1))


def test_indexing_gives_one_sample():
    """result[i] is an Attribution of that sample alone, also from the end and in a loop; no sample beyond."""
    result = explained(sample_names=["a", "b", "c"])
    np.testing.assert_array_equal(result[1].values, result.values[1:2])
    assert result[-1].sample_names == ("c",)
    assert [part.sample_names[0] for part in result] == ["a", "b", "c"]
    assert result[0].attrs == result.attrs
    for index in (3, -4):
        with pytest.raises(IndexError, match="of an attribution of 3 samples"):
            _ = result[index]


def test_it_is_frozen():
    """The dataset cannot be replaced, and what `to_xarray` gives is a copy."""
    result = explained()
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.dataset = None
    before = result.values.copy()
    result.to_xarray()["attribution"][:] = 7.0
    np.testing.assert_array_equal(result.values, before)


def test_what_a_method_does_not_know_is_none():
    """Standard errors, gates and diagnostics are there for the methods that have them, and None for others."""
    result = explained()
    assert result.std_error is None
    assert result.gates is None
    assert result.diagnostic("surrogate_r2") is None
    np.testing.assert_array_equal(result.diagnostic("steps"), [8, 8, 8])
    assert GradientSHAP(lstm(), samples=10).explain(INPUTS).std_error.shape == (3, 6, 3)
    assert GateSaliency(lstm()).explain(INPUTS).gates.shape == (3, 1, 6, 4, 5)


# -- names -----------------------------------------------------------------------------------------------------------


def test_default_names():
    """Without names samples, features and outputs are numbered."""
    result = explained()
    assert result.sample_names == ("sample 0", "sample 1", "sample 2")
    assert result.feature_names == ("feature 0", "feature 1", "feature 2")
    assert result.output_names == ("output 0",)


def test_names_of_the_data():
    """Feature names, units, groups and scaling come from the model's data."""
    result = explained(described())
    assert result.feature_names == ("glucose", "sin", "cos")
    assert list(result.dataset["feature_unit"].to_numpy()) == ["mg/dL", "", ""]
    assert list(result.dataset["feature_group"].to_numpy()) == ["glucose", "time of day", "time of day"]
    assert result.dataset["feature_center"].to_numpy().tolist() == [120, 0, 0]
    assert result.dataset["feature_scale"].to_numpy().tolist() == [40, 1, 1]


def test_class_names():
    """Classes name the outputs; with one score for two classes it is named after the second; a name is a target."""
    many = lstm(output_size=3, task="multiclass")
    many.data = DataSpec(classes=("cat", "dog", "cow"))
    result = explained(many, target="cow")
    assert result.output_names == ("cat", "dog", "cow")
    np.testing.assert_array_equal(result.dataset["target_output"], [2, 2, 2])
    single = lstm(task="binary")
    single.data = DataSpec(classes=("healthy", "ill"))
    assert explained(single).output_names == ("ill",)
    assert json.loads(explained(single).attrs["classes"]) == ["healthy", "ill"]


def test_words_of_tokens():
    """With a vocabulary the result holds the word of each token."""
    model = lstm(vocab_size=9, embedding_dim=4)
    model.data = DataSpec(vocabulary=("<pad>", *"abcdefgh"))
    ids = token_ids(2, 5)
    result = explained(model, inputs=ids, lengths=[5, 2], baseline="pad")
    words = result.dataset["token"].to_numpy()
    assert words[0].tolist() == [" abcdefgh"[index] for index in ids[0]]
    assert words[1, 2:].tolist() == ["<pad>"] * 3


def test_times_are_kept():
    """Datetimes (B, T) stand beside the result as given."""
    times = np.datetime64("2024-02-29T23:55") + np.arange(18).reshape(3, 6) * np.timedelta64(5, "m")
    np.testing.assert_array_equal(explained(times=times).dataset["timestamp"], times)
    with pytest.raises(InvalidInputError, match=r"times has shape \(3, 5\).*expected datetime64 \(3, 6\)"):
        explained(times=times[:, :5])


def test_the_explained_timesteps_are_kept():
    """One timestep, or a window's first and last, and whether they are the inputs' own; else none of it."""
    model = lstm(pooling="none", output_size=2)
    for target, first, last in (((-1, 0), [5, 3, 1], None), ((slice(-2, None), 0), [4, 2, 0], [5, 3, 1])):
        found = explained(model, target=target)
        np.testing.assert_array_equal(found.diagnostic("target_timestep"), first)
        np.testing.assert_array_equal(found.diagnostic("target_last"), last)
        assert found.attrs["target_time"] == "inputs"
        with torch.no_grad():
            scores = model(INPUTS, torch.tensor(LENGTHS)).numpy()
        ends = first if last is None else last
        expected = [scores[row, first[row] : ends[row] + 1].sum(axis=0) for row in range(3)]
        np.testing.assert_allclose(found.dataset["scores"], expected, rtol=0, atol=1e-6)
    found = explained()
    assert found.diagnostic("target_timestep") is found.diagnostic("target_last") is None
    assert "target_time" not in found.attrs


def test_the_baseline_of_a_single_background_sequence_is_counted_once():
    """A background of one sequence (T, D) is told as one, not as T."""
    result = KernelSHAP(lstm(), background=np.zeros((6, 3))).explain(INPUTS)
    assert result.attrs["baseline_name"] == "mean over 1 background sequences"


# -- leaving ---------------------------------------------------------------------------------------------------------


def test_the_table_has_one_row_a_valid_cell():
    """`to_dataframe` has the values of every valid cell in order of sample, time and feature, and none of padding."""
    result = explained(sample_names=["a", "b", "c"])
    frame = result.to_dataframe()
    assert list(frame.columns) == ["sample", "time", "feature", "attribution", "input", "baseline"]
    assert len(frame) == sum(LENGTHS) * 3
    rows = [(s, t, f) for s in range(3) for t in range(LENGTHS[s]) for f in range(3)]
    for (s, t, f), row in zip(rows, frame.itertuples(index=False), strict=True):
        assert (row.sample, row.time, row.feature) == ("abc"[s], t, f"feature {f}")
        assert (row.attribution, row.input, row.baseline) == (result.values[s, t, f], float(INPUTS[s, t, f]), 0.25)
    assert list(frame.index) == list(range(len(frame)))


def test_the_table_holds_standard_errors_and_equal_names():
    """Standard errors are a column where known, and samples of the same name stay apart."""
    result = GradientSHAP(lstm(), samples=10).explain(INPUTS, lengths=LENGTHS, sample_names=["a", "a", "b"])
    frame = result.to_dataframe()
    assert list(frame.columns)[-1] == "std_error"
    valid = np.arange(6) < np.array(LENGTHS)[:, None]
    np.testing.assert_array_equal(frame["std_error"], result.std_error[valid].ravel())
    np.testing.assert_array_equal(frame["attribution"], result.values[valid].ravel())


def test_to_shap_keeps_the_numbers():
    """`to_shap` flattens time and features into columns, and its values add up to the prediction."""
    result = explained(described())
    explanation = result.to_shap()
    np.testing.assert_array_equal(explanation.values, result.values.reshape(3, 18))
    np.testing.assert_array_equal(explanation.data, result.inputs.reshape(3, 18))
    np.testing.assert_array_equal(explanation.base_values, result.baseline_prediction)
    assert explanation.feature_names[:4] == ["glucose @ 0", "sin @ 0", "cos @ 0", "glucose @ 1"]
    np.testing.assert_array_equal(explanation.values[0, 4 * 3 + 1], result.values[0, 4, 1])


@pytest.mark.parametrize("plot", ["waterfall", "beeswarm", "heatmap", "bar"])
@pytest.mark.parametrize("tokens", [False, True])
def test_shap_draws_what_to_shap_gives(plot, tokens):
    """The plots of shap take it, one sample or all, and write its names."""
    import shap
    from matplotlib import pyplot as plt

    if tokens:
        result = explained(lstm(vocab_size=9, embedding_dim=4), inputs=token_ids(3, 6), baseline="pad")
    else:
        result = explained(described())
    explanation = result.to_shap()
    backend = plt.get_backend()
    plt.switch_backend("agg")
    try:
        getattr(shap.plots, plot)(explanation[0] if plot == "waterfall" else explanation, show=False)
        figure = plt.gcf()
        figure.canvas.draw()
        written = [label.get_text() for axes in figure.axes for label in axes.get_yticklabels()]
        largest = explanation.feature_names[int(np.abs(explanation.values).mean(axis=0).argmax())]
        if plot != "waterfall":
            assert any(largest in text for text in written)
        assert any(" @ " in text for text in written)
    finally:
        plt.close("all")
        plt.switch_backend(backend)


@pytest.mark.parametrize(
    "make",
    [
        explained,
        lambda: explained(described(baseline=(0.1, 0.2, 0.3), baseline_description="the mean"), baseline="mean"),
        lambda: GateSaliency(lstm(hidden_sizes=(4, 2))).explain(INPUTS, lengths=LENGTHS),
        lambda: GradientSHAP(lstm(), samples=5, background=INPUTS).explain(INPUTS, lengths=LENGTHS),
        lambda: explained(times=np.full((3, 6), np.datetime64("2024-02-29T23:55:00.123456789"))),
        lambda: explained(sample_names=["ü", "", "<b>\n'"])[1],
        lambda: explained(lstm(pooling="none", output_size=2), target=(1, 0)),
        lambda: explained(lstm(pooling="none", output_size=2), target=(slice(-2, None), 0)),
    ],
    ids=["plain", "data", "gates", "std_error", "times", "names", "timestep", "window"],
)
def test_save_and_load_give_the_same(tmp_path, make):
    """What is loaded is identical to what was saved: values, types, names and attrs."""
    result = make()
    path = result.save(tmp_path / "a.nc")
    loaded = Attribution.load(path)
    xr.testing.assert_identical(loaded.dataset, result.dataset)
    for name in result.dataset.variables:
        if result.dataset[name].dtype != object:  # text is an array of objects before, and of fixed width after
            assert loaded.dataset[name].dtype == result.dataset[name].dtype, name
    assert loaded.options == result.options
    assert loaded.save(tmp_path / "b.nc").is_file()


@settings(max_examples=25)
@given(
    names=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1, max_size=3)
)
def test_any_name_survives_a_file(tmp_path_factory, names):
    """Sample names of any characters come back from a file as they were."""
    result = explained(inputs=sequences(len(names), 3, 3), lengths=None, sample_names=names)
    path = result.save(tmp_path_factory.mktemp("names") / "a.nc")
    assert Attribution.load(path).sample_names == tuple(names)


def test_save_makes_the_folder_and_replaces_the_file(tmp_path):
    """A missing folder is made, an older file replaced, and nothing else left in the folder."""
    path = tmp_path / "new" / "a.nc"
    explained().save(path)
    result = explained(baseline=0.5)
    assert result.save(str(path)) == path
    xr.testing.assert_identical(Attribution.load(path).dataset, result.dataset)
    assert [entry.name for entry in path.parent.iterdir()] == ["a.nc"]


@pytest.mark.parametrize("name", ["a.csv", "a", "a.nc.txt"])
def test_save_refuses_other_suffixes(tmp_path, name):
    """A file that does not end in .nc is refused, and not written."""
    with pytest.raises(InvalidInputError, match=r"does not end in \.nc"):
        explained().save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_the_old_file(tmp_path):
    """If writing fails, the older file is still whole and no part of the new one is left."""
    path = explained().save(tmp_path / "a.nc")
    before = path.read_bytes()
    broken = explained()
    broken.dataset.attrs["nested"] = {"a": 1}
    with pytest.raises(TypeError):
        broken.save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.nc"]


def test_load_refuses_what_is_no_attribution(tmp_path):
    """A missing file, a folder, garbage, a cut file, other netCDF and other HDF5 are refused, each by its path."""
    with pytest.raises(InvalidInputError, match="there is no file"):
        Attribution.load(tmp_path / "missing.nc")
    with pytest.raises(InvalidInputError, match="there is no file"):
        Attribution.load(tmp_path)
    whole = explained().save(tmp_path / "whole.nc").read_bytes()
    for name, content in (("garbage.nc", b"\x89HDF\r\n\x1a\ngarbage"), ("empty.nc", b""), ("cut.nc", whole[:2000])):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidInputError, match=f"{name} is not a readable netCDF file"):
            Attribution.load(tmp_path / name)
    xr.Dataset({"attribution": ("x", [1.0])}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(InvalidInputError, match="not an attribution of gatelens"):
        Attribution.load(tmp_path / "other.nc")
    with h5py.File(tmp_path / "empty_group.nc", "w") as file:
        file.attrs["format"] = "gatelens.Attribution"
    with pytest.raises(InvalidInputError, match="is an attribution without attribution, input"):
        Attribution.load(tmp_path / "empty_group.nc")


@pytest.mark.parametrize(
    ("version", "message"), [(2, "reads up to 1"), (99, "format_version 99"), (0, "0"), ("x", "x")]
)
def test_load_refuses_formats_it_does_not_know(tmp_path, version, message):
    """A file of a later format, or of none, is refused rather than misread."""
    result = explained()
    result.dataset.attrs["format_version"] = version
    path = result.save(tmp_path / "later.nc")
    with pytest.raises(InvalidInputError, match=message):
        Attribution.load(path)


# -- showing ---------------------------------------------------------------------------------------------------------


def shown(result: Attribution) -> str:
    """Return what a notebook shows, after a parser has read it: nothing is left open, and no script is in it."""
    text = result._repr_html_()
    tags = {element.tag for element in ET.fromstring(text).iter()}
    assert tags <= {"div", "table", "caption", "thead", "tbody", "tr", "th", "td", "svg", "rect"}
    assert "://" not in text
    assert len(text) < 12_000
    return text


def test_html_shows_the_numbers():
    """In a notebook predictions, what they are accounted for, and the largest parts of the first sample are shown."""
    result = explained(described())
    text = shown(result)
    assert "integrated_gradients, logit" in text
    for value in (*result.prediction, *result.baseline_prediction):
        assert f">{value:.4g}</td>" in text
    change = result.prediction - result.baseline_prediction
    assert f">{(change[1] - result.completeness_gap[1]) / change[1]:.1%}</td>" in text
    largest = int(np.abs(result.timesteps[0]).argmax())
    assert f">{largest}</td>" in text
    for values in (result.timesteps[0], result.features[0]):
        assert f">{values[np.abs(values).argmax()]:+.4g}</td>" in text
    assert ">glucose</td>" in text
    assert "samples x timesteps x features: 3 x 6 x 3" in text


def test_html_of_many_samples_is_short():
    """Of many samples the first five are shown, and how many there are; long sequences and many features stay short."""
    text = shown(explained(inputs=sequences(7, 3, 3), lengths=None))
    assert "(7 in all)" in text
    assert "sample 5" not in text
    shown(explained(lstm(input_size=80), inputs=sequences(1, 400, 80), lengths=None))


def test_html_of_text_and_of_what_is_not_told_apart():
    """Tokens stand beside their timesteps; methods that promise no sum, or tell less apart, are shown as they are."""
    model = lstm(vocab_size=9, embedding_dim=4)
    model.data = DataSpec(vocabulary=("<pad>", *"abcdefgh"))
    text = shown(explained(model, inputs=token_ids(1, 5), lengths=None, baseline="pad"))
    assert ">token</th>" in text
    assert "largest features" not in text
    saliency = shown(GateSaliency(lstm()).explain(INPUTS))
    assert "not promised" in saliency
    assert ">sensitivity</th>" in saliency
    assert "largest features" not in shown(KernelSHAP(lstm()).explain(INPUTS))
    assert "largest timesteps" not in shown(KernelSHAP(lstm(), players="feature").explain(INPUTS))
    times = np.datetime64("2024-02-29T23:55") + np.arange(18).reshape(3, 6) * np.timedelta64(5, "m")
    assert ">2024-02-29 23:55:00</td>" in shown(explained(times=times))


def test_html_where_nothing_changes():
    """An input that is its own baseline has attributions of 0, and no share of nothing."""
    assert "no change" in shown(explained(inputs=torch.full((2, 3, 3), 0.25), lengths=None))


def test_html_escapes_what_strangers_name():
    """A name with markup is shown, not run, wherever it stands; long names are cut."""
    hostile = "<script>alert('x')</script>&"
    escaped = "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;&amp;"
    model = lstm(output_size=2, task="multiclass")
    model.data = DataSpec(features=tuple(FeatureSpec(name=hostile + end) for end in "abc"), classes=(hostile, "other"))
    result = explained(model, sample_names=[hostile] * 3, target=0)
    result.dataset.attrs["method"] = hostile
    assert shown(result).count(escaped) == 1 + 3 * 2 + 2 + 3  # method, samples and targets, titles, features
    text = lstm(vocab_size=9, embedding_dim=4)
    text.data = DataSpec(vocabulary=tuple(f"{hostile}{token}" for token in range(9)))
    assert escaped in shown(explained(text, inputs=token_ids(1, 5), lengths=None, baseline="pad"))
    long = shown(explained(sample_names=["x" * 200, "b", "c"]))
    assert "x" * 59 + "\N{HORIZONTAL ELLIPSIS}" in long
    assert "x" * 60 not in long


def test_float64_models_keep_their_precision():
    """Of a float64 model inputs, baseline and attributions stay float64."""
    result = explained(lstm(double=True), inputs=sequences(3, 6, 3, double=True))
    for name in ("attribution", "input", "baseline", "prediction"):
        assert result.dataset[name].dtype == np.float64
    assert explained().values.dtype == np.float32


def test_the_inputs_of_the_user_are_not_shared():
    """Changing one's own tensor afterwards does not change the result."""
    inputs = INPUTS.clone()
    result = explained(inputs=inputs, lengths=None)
    before = result.inputs.copy()
    with torch.no_grad():
        inputs.zero_()
    np.testing.assert_array_equal(result.inputs, before)
