"""The page about a dataset larger than memory: read in passes, it says what it says of the same samples in memory."""

import tracemalloc

import numpy as np
import pytest
import torch
import xarray as xr

from gatelens.explainers import Attribution, DeepLIFT, IntegratedGradients
from gatelens.explainers.dataset import explain_dataset
from gatelens.models import DataSpec
from gatelens.reports import GlobalReport, global_values
from gatelens.reports.about import python_again
from gatelens.reports.chance import compare_means
from gatelens.reports.overview import Overview
from gatelens.reports.overview_words import missing_notes
from gatelens.reports.prediction import class_probabilities, probabilities
from gatelens.reports.streaming import held, passing, single
from gatelens.reports.token_effects import count_words, word_effects
from gatelens.reports.typical import find_typical
from helpers.draws import make_model

COUNT = 90
KINDS = ("multiclass", "binary", "regression", "tokens")


def explained(kind, count=COUNT):
    """Return a model, its inputs (B, T, D) or ids (B, T), their lengths, and the options of their explanation."""
    rng = np.random.default_rng(3)
    lengths = rng.integers(1, 8, count)
    if kind == "tokens":
        model = make_model(1, vocab_size=12, embedding_dim=3, hidden_sizes=(4,), output_size=3, task="multiclass",
                           dtype=torch.float32)  # fmt: skip
        model.data = DataSpec(vocabulary=tuple(f"word{place}" for place in range(12)), classes=("a", "b", "c"))
        return model, rng.integers(1, 12, size=(count, 7)), lengths, {"baseline": "pad", "output": "probability"}
    outputs = 3 if kind == "multiclass" else 1
    model = make_model(2, input_size=3, hidden_sizes=(5,), output_size=outputs, task=kind, dtype=torch.float32)
    inputs = rng.normal(size=(count, 7, 3)).astype(np.float32)
    return model, inputs, lengths, {"output": "logit" if kind == "regression" else "probability"}


@pytest.fixture(scope="module", params=KINDS)
def stored(request, tmp_path_factory):
    """A store of one kind of model, opened."""
    model, inputs, lengths, options = explained(request.param)
    path = tmp_path_factory.mktemp("stores") / "found.zarr"
    run = explain_dataset(model, inputs, lengths=lengths, method="deeplift", out=path, workers=1, **options)
    return request.param, run.open()


@pytest.fixture(params=[7, 64])
def small_pieces(request, monkeypatch):
    """Let a pass have many pieces."""
    monkeypatch.setattr("gatelens.explainers.attribution.MOST_PIECE_SAMPLES", request.param)
    monkeypatch.setattr("gatelens.explainers.attribution.MOST_PIECES_A_CHUNK", 0)


def in_memory(found):
    """Return all samples of a store, in memory."""
    return found.take(slice(None))


# -- pieces ----------------------------------------------------------------------------------------------------------


def made(samples, steps, features, chunk=None):
    """Return zeros, as if read from a store of such chunks."""
    cells = xr.DataArray(np.zeros((samples, steps, features), np.float32), dims=("sample", "time", "feature"))
    cells.encoding = {} if chunk is None else {"chunks": (chunk, steps, features)}
    return Attribution(xr.Dataset({"attribution": cells, "length": ("sample", np.full(samples, steps))}))


@pytest.mark.parametrize(
    ("found", "sizes"),
    [
        (made(600, 2, 1), [256, 256, 88]),
        (made(250, 2, 1, chunk=100), [200, 50]),  # whole chunks
        (made(600, 2, 1, chunk=300), [300, 300]),  # a chunk is read once
        (made(20, 1024, 128), [8, 8, 4]),  # of long sequences few
        (made(20, 1024, 128, chunk=20), [20]),
        (made(200, 1024, 128, chunk=200), [8] * 25),  # but memory comes first
        (made(3, 2048, 1024), [1, 1, 1]),
        (made(0, 2, 1), []),
    ],
)
def test_pieces_take_some_megabytes_in_whole_chunks(found, sizes) -> None:
    """Pieces hold all samples in order, few where sequences are long, and no chunk is read for two of them."""
    assert [len(piece) for piece in found.pieces()] == sizes
    assert [len(piece) for piece in found.pieces(1)] == [1] * len(found)


def test_passes_read_what_is_asked_for(stored, small_pieces) -> None:
    """A pass gives each sample once, in order, or those asked for, with the variables asked for."""
    _, found = stored
    whole = in_memory(found)
    for samples in (None, np.array([4, 5, 80, 3])):
        rows = np.arange(COUNT) if samples is None else samples
        places, values = [], []
        for part, piece in passing(found, "attribution", samples=samples):
            assert set(piece.dataset.data_vars) == {"attribution", "length"}
            places += list(range(part.start, part.stop))
            values.append(piece.values)
        assert places == list(range(len(rows)))
        np.testing.assert_array_equal(np.concatenate(values), whole.values[rows])
    one = single(found, 5)
    assert (len(one), one.sample_names) == (1, (whole.sample_names[5],))


def test_numbers_of_samples_are_held_and_timesteps_are_not(stored) -> None:
    """What has no timesteps is in memory; cells stay in the store, and the caller's attribution is left as it is."""
    _, found = stored
    numbers = held(found)
    for name in numbers.dataset.data_vars:
        timed = "time" in numbers.dataset[name].dims
        assert numbers.dataset.variables[name]._in_memory == (not timed), name
        assert not found.dataset.variables[name]._in_memory or not timed, name


# -- numbers ---------------------------------------------------------------------------------------------------------


def test_sums_of_pieces_are_those_of_a_loop(stored, small_pieces) -> None:
    """Effects, sizes, timesteps reached and levels equal sums written out in float64, however samples are cut."""
    kind, found = stored
    overview = Overview.of(found)
    whole = in_memory(found)
    cells, steps = whole.values.astype(float), whole.values.shape[1]
    cells = cells.sum(axis=2, keepdims=True) if kind == "tokens" else cells
    totals, reached = np.zeros(overview.totals.shape), np.zeros(steps)
    for sample, length in enumerate(whole.lengths):
        part = cells[sample, :length]
        np.testing.assert_allclose(overview.net[sample], part.sum(axis=0), rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(overview.sizes[sample], np.abs(part).sum(axis=0), rtol=1e-12)
        totals[steps - length :] += np.abs(part)
        reached[steps - length :] += 1
    np.testing.assert_allclose(overview.totals, totals, rtol=1e-12)
    np.testing.assert_array_equal(overview.reached, reached)
    for feature in range(len(overview.names)):
        levels = overview.levels(feature)
        if kind == "tokens":
            assert levels is None
            continue
        for sample, length in enumerate(whole.lengths):
            expected = np.average(whole.inputs[sample, :length, feature], weights=totals[steps - length :, feature])
            assert levels[sample] == pytest.approx(expected, rel=1e-6, abs=1e-7)


def test_probabilities_of_all_are_those_of_each(stored) -> None:
    """The classes' probabilities of all samples at once are those of every single one."""
    kind, found = stored
    every = probabilities(found)
    if kind == "regression":
        assert every is None
        return
    classes, shares = every
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)
    for sample in range(0, COUNT, 9):
        pairs = class_probabilities(found, sample)
        assert dict(pairs) == dict(zip(classes, shares[sample].tolist(), strict=True))
        assert [share for _, share in pairs] == sorted(shares[sample].tolist(), reverse=True)
    names, likeliest = Overview.of(found).likeliest
    assert list(names) == [classes[place] for place in shares.argmax(axis=1)]
    np.testing.assert_array_equal(likeliest, shares.max(axis=1))


@pytest.mark.parametrize("named", [True, False])
def test_words_are_counted_as_by_a_loop(tmp_path, small_pieces, named) -> None:
    """Occurrences, texts and effects of words, in all and in groups of texts, equal those written out."""
    model, ids, lengths, options = explained("tokens")
    if not named:
        model.data = None
    path = tmp_path / "found.zarr"
    found = explain_dataset(model, ids, lengths=lengths, method="deeplift", out=path, workers=1, **options).open()
    member = np.arange(COUNT) % 3
    counts = count_words(found, member)
    course = in_memory(found).timesteps
    for group in (None, 0, 2):
        effects, texts = {}, {}
        for sample in range(COUNT) if group is None else np.flatnonzero(member == group):
            for step in range(lengths[sample]):
                word = f"word{ids[sample, step]}" if named else f"id {ids[sample, step]}"
                effects.setdefault(word, []).append(float(course[sample, step]))
                texts.setdefault(word, set()).add(sample)
        told = {entry.word: entry for entry in counts.told(group)}
        assert set(told) == set(effects)
        for word, entry in told.items():
            assert (entry.count, entry.texts) == (len(effects[word]), len(texts[word]))
            assert entry.mean == pytest.approx(np.mean(effects[word]), abs=1e-12)
            assert entry.size == pytest.approx(np.mean(np.abs(effects[word])))
    words = counts.strongest()
    rows = np.array([70, 2])
    table = word_effects(found, words, rows)
    for place, sample in enumerate(rows):
        for column, word in enumerate(words):
            here = [course[sample, step] for step in range(lengths[sample])
                    if word.endswith(("word", " ")[not named] + str(ids[sample, step]))]  # fmt: skip
            assert table[place, column] == pytest.approx(sum(here), abs=1e-7)


def test_drawn_samples_alone_are_compared(stored, monkeypatch) -> None:
    """Of more samples than are compared those drawn are read, and the same are typical as in memory."""
    monkeypatch.setattr("gatelens.reports.typical.MOST_COMPARED", 40)
    _, found = stored
    assert find_typical(Overview.of(found)) == find_typical(Overview.of(in_memory(found)))
    monkeypatch.setattr("gatelens.reports.typical.MOST_BYTES", 20 * 8 * Overview.of(found).totals.size)
    assert find_typical(Overview.of(found)).compared == 20


def test_draws_do_not_depend_on_how_many_are_made_at_once(monkeypatch) -> None:
    """Intervals of many units, drawn a few at a time, are the same."""
    rng = np.random.default_rng(0)
    values, groups = rng.normal(size=(90, 2)), np.arange(90) % 2
    whole = compare_means(values, groups, np.arange(90), 2)
    monkeypatch.setattr("gatelens.reports.chance.MOST_WEIGHTS", 45 * 30)
    for one, other in zip(whole, compare_means(values, groups, np.arange(90), 2), strict=True):
        assert (one.low, one.high) == pytest.approx((other.low, other.high), rel=1e-12)


# -- pictures and pages ----------------------------------------------------------------------------------------------


def test_pictures_of_a_store_are_those_of_memory(stored, small_pieces, monkeypatch) -> None:
    """Courses, quartiles, rows and levels of the static pictures are the same, also with few steps at once."""
    _, found = stored
    expected, expected_rows = global_values.course_of(in_memory(found)), global_values.rows_of(in_memory(found))
    monkeypatch.setattr(global_values, "MOST_NUMBERS", 2 * COUNT)
    course, rows = global_values.course_of(found), global_values.rows_of(found)
    for one, other in zip(course[:2], expected[:2], strict=True):
        np.testing.assert_array_equal(one, other)
    assert (course[2:], rows.names, rows.count) == (expected[2:], expected_rows.names, expected_rows.count)
    for name in ("effects", "samples", "levels"):
        for one, other in zip(getattr(rows, name), getattr(expected_rows, name), strict=True):
            np.testing.assert_array_equal(one, other)


def test_page_of_a_store_is_that_of_memory(stored, small_pieces) -> None:
    """The page says and draws the same, with groups and truth, classes, numbers, words and lengths that differ."""
    kind, found = stored
    rng = np.random.default_rng(0)
    classes = {"regression": None, "binary": ["0", "1"]}.get(kind, list(found.output_names))
    truth = rng.normal(size=COUNT) if classes is None else rng.integers(0, len(classes), COUNT)
    if kind == "binary":
        truth = truth.astype(float)
    options = {"groups": {"site": np.arange(COUNT) % 2, "age": rng.normal(size=COUNT)}, "truth": truth}
    of_store, of_memory = (GlobalReport(part, **options) for part in (found, in_memory(found)))
    assert of_store.sentences() == of_memory.sentences()
    assert of_store.to_html() == of_memory.to_html()


def test_missing_samples_are_told(tmp_path) -> None:
    """Samples that failed are counted on the page; of those that are taken out of the store this is not told."""
    model, inputs, lengths, options = explained("regression", count=30)
    inputs[[3, 17]] = np.nan
    path = tmp_path / "found.zarr"
    found = explain_dataset(model, inputs, lengths=lengths, method="deeplift", out=path, workers=1, **options).open()
    assert missing_notes(found) == ["2 of 30 samples could not be explained and are left out."]
    assert "2 of 30 samples could not be explained and are left out." in GlobalReport(found, model=model).to_html()
    waiting = Attribution(found.dataset.assign_attrs(samples_failed=0, samples_waiting=1))
    assert missing_notes(waiting) == ["1 of 29 samples is not explained yet and missing here."]
    assert missing_notes(in_memory(found)) == []


def test_how_to_make_the_page_again_is_told(tmp_path) -> None:
    """The Python on the page makes the store again, with the same numbers; in memory it explains the same inputs."""
    model, inputs, lengths, options = explained("multiclass", count=20)
    path = tmp_path / "found.zarr"
    found = explain_dataset(
        model, inputs, lengths=lengths, method="integrated_gradients", out=path, workers=1, target=1,
        options={"steps": 8}, **options,
    ).open()  # fmt: skip
    model.save(tmp_path / "model")
    np.save(tmp_path / "inputs.npy", inputs)
    code = python_again({found.method: found}, "GlobalReport")
    for name, value in (("MODEL", "model"), ("INPUT", "inputs.npy"), ("attributions.zarr", "again.zarr"),
                        ("report.html", "page.html")):  # fmt: skip
        code = code.replace(name, str(tmp_path / value))
    exec(compile(code, "page", "exec"), {})
    assert (tmp_path / "page.html").is_file()
    again = Attribution.open(tmp_path / "again.zarr")
    full = IntegratedGradients(model, steps=8, **options).explain(inputs, target=1)
    np.testing.assert_allclose(again.values, full.values, atol=1e-6)
    own = DeepLIFT(model).explain(inputs)
    assert 'GlobalReport(found["deeplift"]'.replace('"', "'") in python_again({"deeplift": own}, "GlobalReport")


def test_memory_does_not_grow_with_the_samples(tmp_path, monkeypatch) -> None:
    """The report of four times as many samples takes hardly more memory, and less than their cells."""
    monkeypatch.setattr("gatelens.reports.typical.MOST_COMPARED", 200)  # else the distances of 1,500 hide all else
    peaks = {}
    for count in (2000, 8000):
        found = many_stored(tmp_path / f"{count}.zarr", count)
        GlobalReport(found.take(slice(0, 20))).to_html()  # what is made once
        tracemalloc.start()
        try:
            GlobalReport(found, groups=np.arange(count) % 2).to_html()
            peaks[count] = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peaks[8000] < 1.3 * peaks[2000]


def many_stored(path, count, steps=50, features=8):
    """Return random attributions in a store of chunks of 128 samples."""
    rng = np.random.default_rng(0)
    cells = ("sample", "time", "feature")
    values = rng.normal(size=(count, steps, features)).astype(np.float32)
    one = DeepLIFT(make_model(0, input_size=features, dtype=torch.float32)).explain(values[:1])
    sums = values.sum(axis=(1, 2), dtype=float)
    dataset = xr.Dataset(
        {
            "attribution": (cells, values),
            "input": (cells, values),
            "baseline": (cells, np.zeros_like(values)),
            "prediction": ("sample", sums),
            "baseline_prediction": ("sample", np.zeros(count)),
            "completeness_gap": ("sample", np.zeros(count)),
            "length": ("sample", np.full(count, steps)),
            "target_output": ("sample", np.zeros(count, dtype=np.int64)),
            "scores": (("sample", "output"), sums[:, None]),
        },
        {**{name: one.dataset[name] for name in ("time", "feature", "output")}, "sample": np.arange(count)},
        one.attrs,
    )
    chunks = {name: {"chunks": (128, steps, features)} for name in ("attribution", "input", "baseline")}
    dataset.to_zarr(path, zarr_format=3, consolidated=False, encoding=chunks)
    return Attribution(xr.open_zarr(path, consolidated=False, chunks=None))
