"""The page about many predictions: its numbers are the data's, and differences are claimed only beyond chance."""

import base64
import html
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import norm

from gatelens.examples.glucose import data_path, model_path
from gatelens.explainers import Attribution, DeepLIFT, Occlusion, Saliency
from gatelens.models import InvalidInputError, InvalidTypeError, load, read_csv
from gatelens.reports import GlobalReport
from gatelens.reports.chance import FEWEST_UNITS, compare_means, group_means
from gatelens.reports.global_pictures import plot_course, plot_where, plot_words
from gatelens.reports.grouping import MISSING, Grouping
from gatelens.reports.overview import Overview, at_the_end
from gatelens.reports.overview_words import (
    completeness_of_all,
    feature_sentence,
    handling_notes,
    main_sentence,
    prediction_sentences,
)
from gatelens.reports.palette import LIGHT, NARROW_WIDTH
from gatelens.reports.performance import Performance
from gatelens.reports.token_effects import count_words, most_effective, word_effects
from gatelens.reports.typical import find_typical
from gatelens.reports.wording import count_of, percent
from helpers.draws import make_model
from helpers.made import made_attribution

NARROW = replace(LIGHT, width=NARROW_WIDTH)
HOSTILE = "</style><script>document.title='broken'</script><img src=x onerror=alert(1)>"


def many(values, *, names=None, **options) -> Attribution:
    """Return an Attribution of B samples, values (B, T, D); options of `made_attribution` may be lists of B."""
    values = np.asarray(values, dtype=float)
    own = {name: value for name, value in options.items() if isinstance(value, list)}
    same = {name: value for name, value in options.items() if name not in own}
    parts = []
    for sample, cells in enumerate(values):
        one = made_attribution(cells, **same, **{name: value[sample] for name, value in own.items()})
        parts.append(one.dataset.assign_coords(sample=[names[sample] if names else f"sample {sample}"]))
    return Attribution(xr.concat(parts, "sample", data_vars="minimal", coords="minimal", compat="override",
                                 combine_attrs="override", join="override"))  # fmt: skip


def text_of(page: str) -> str:
    """Return the words of a page."""
    shown = re.sub(r"<style.*?</style>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", shown)).replace("\N{NO-BREAK SPACE}", " ").split())


def drawings(page: str) -> list[str]:
    """Return the pictures of a page as SVG."""
    return [base64.b64decode(code).decode() for code in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page)]


@pytest.fixture(scope="module")
def glucose():
    """300 real windows, explained for rise, and whether each is in the afternoon."""
    model = load(model_path())
    data = read_csv(data_path(), model.data, windows="all")
    rows = np.sort(np.random.default_rng(0).choice(len(data), 300, replace=False))
    found = DeepLIFT(model, baseline="mean", output="probability").explain(
        data.inputs[rows], target="rise", sample_names=[data.sample_names[row] for row in rows], times=data.times[rows]
    )
    return model, found


# -- alignment and sizes ---------------------------------------------------------------------------------------------


def test_sequences_are_aligned_at_their_ends() -> None:
    """The last valid timestep of each sample stands in the last place, whatever its length; before it is 0."""
    values = np.arange(1.0, 9.0).reshape(2, 4, 1)
    moved = at_the_end(values, np.array([4, 2]))
    np.testing.assert_array_equal(moved[:, :, 0], [[1, 2, 3, 4], [0, 0, 5, 6]])
    np.testing.assert_array_equal(at_the_end(values[:, :, 0], np.array([1, 3])), [[0, 0, 0, 1], [0, 5, 6, 7]])


def test_shares_and_means_are_those_of_a_loop() -> None:
    """Shares, mean sizes by timestep and reached counts equal sums written out, with lengths and feature groups."""
    rng = np.random.default_rng(0)
    values, lengths = rng.normal(size=(5, 4, 3)), [4, 2, 3, 1, 4]
    for sample, length in enumerate(lengths):
        values[sample, length:] = 0
    found = many(values, length=lengths, feature_group=("a", "clock", "clock"))
    overview = Overview.of(found)
    sizes, by_step, counts = np.zeros(2), np.zeros((4, 2)), np.zeros(4)
    for sample, length in enumerate(lengths):
        for step in range(length):
            cells = np.abs([values[sample, step, 0], values[sample, step, 1] + values[sample, step, 2]])
            sizes += cells
            by_step[4 - length + step] += cells
            counts[4 - length + step] += 1
    assert overview.names == ("a", "clock")
    np.testing.assert_allclose(overview.shares, sizes / sizes.sum())
    np.testing.assert_allclose(overview.by_step, by_step / counts[:, None])
    np.testing.assert_array_equal(overview.reached, counts)


def test_sentences_hold_the_numbers() -> None:
    """The largest feature is named with its share, mean size, place in time, and how often it raised."""
    values = np.zeros((4, 5, 2))
    values[:, 4, 0] = [2.0, 2.0, 2.0, -2.0]
    values[:, 0, 1] = 0.5
    overview = Overview.of(many(values, features=("speed", "load"), output_unit="km"))
    assert "".join(main_sentence(overview)) == "Speed moved these 4 predictions most: 80 % of all effects."
    sentence = feature_sentence(overview, 0)
    assert (
        sentence
        == "moved it by 2 km on average, mostly at the last timestep (100 % of this); raised it in 75 % of samples."
    )
    assert "mostly at timestep 1 (100 % of this); raised it in 100 % of samples" in feature_sentence(overview, 1)


def test_features_abreast_are_named_together() -> None:
    """Shares that differ by less than a tenth are not put in an order; many alike are none."""
    values = np.ones((3, 2, 2)) * [1.0, 0.95]
    assert "".join(main_sentence(Overview.of(many(values, features=("b", "a"))))) == (
        "B and a moved these 3 predictions most: 51 % and 49 % of all effects."
    )
    values = np.ones((3, 2, 5))
    assert main_sentence(Overview.of(many(values)))[1] == "No single feature"
    assert main_sentence(Overview.of(many(np.zeros((3, 2, 2)))))[1] == "No part of the input"


def test_direction_is_said_only_where_ranks_are_clear() -> None:
    """High values are said to raise where level and effect rank alike in enough samples, and not else."""
    rng = np.random.default_rng(0)
    levels = rng.normal(size=40)
    inputs = [np.full((3, 1), level) for level in levels]
    clear = Overview.of(many(np.tile(levels[:, None, None], (1, 3, 1)), inputs=inputs))
    assert "high values raise it (rank correlation 1)" in feature_sentence(clear, 0)
    unclear = Overview.of(many(rng.normal(size=(40, 3, 1)), inputs=inputs))
    assert "high values" not in feature_sentence(unclear, 0)
    few = Overview.of(many(np.tile(levels[:10, None, None], (1, 3, 1)), inputs=inputs[:10]))
    assert "high values" not in feature_sentence(few, 0)


def test_lengths_and_classes_that_differ_are_said() -> None:
    """Different lengths and different explained classes are told, with their numbers; signs then stay unsaid."""
    values = np.ones((4, 3, 1))
    values[0, 2:] = 0
    found = many(
        values, length=[2, 3, 3, 3], task="multiclass", output="probability", outputs=("up", "down"),
        scores=[(1.0, 0.0), (0.0, 1.0), (0.0, 1.0), (0.0, 1.0)],
    )  # fmt: skip
    overview = Overview.of(found)
    lengths, classes = handling_notes(overview)
    assert "2 to 3 timesteps; they are aligned at their ends" in lengths
    assert "its own class (down and up; down in 3 of 4 samples)" in classes
    assert "raised" not in feature_sentence(overview, 0)
    assert prediction_sentences(overview)[0] == "Predicted most often: down, in 3 of 4 samples."
    page = text_of(GlobalReport(found).to_html())
    assert "Down, explained in 3 samples" in page
    assert "Up, explained in 1 samples" in page


def test_completeness_counts_the_failing_samples() -> None:
    """Samples whose effects miss the change by over 5 % are counted; those that hardly change are no failure."""
    values = np.full((4, 2, 1), 0.5)
    whole = completeness_of_all(many(values))
    assert (whole.passed, "all 4 samples" in whole.text) == (True, True)
    failing = completeness_of_all(many(values, prediction=[1.0, 1.0, 2.0, 1.04]))
    assert not failing.passed
    assert "In 1 of 4 samples" in failing.text
    values[0] = [[1e-7], [-1e-7]]
    assert completeness_of_all(many(values, prediction=[1e-9, 1.0, 1.0, 1.0])).passed
    assert not completeness_of_all(many(values, completeness="none")).passed


# -- performance -----------------------------------------------------------------------------------------------------


def classes(scores, **options) -> Attribution:
    """Return samples of a three-class model with the given scores."""
    return many(
        np.ones((len(scores), 2, 1)), task="multiclass", output="probability", outputs=("fall", "stay", "rise"),
        scores=[tuple(row) for row in scores], **options,
    )  # fmt: skip


def test_accuracy_and_recall_beside_the_most_frequent_class() -> None:
    """Accuracy, recalls and the constant's accuracy equal counts, names and numbers of classes mean the same."""
    truth = ["stay"] * 30 + ["rise"] * 25 + [0] * 3 + [None, np.nan]
    predicted = [1] * 24 + [2] * 6 + [2] * 10 + [1] * 15 + [0, 1, 1] + [1, 1]
    found = Performance.of(classes(np.eye(3)[predicted]), truth)
    one, recalled, few = found.sentences()
    assert "(58 of 60 samples), the predicted class is right in 60 %; always saying stay would be right in 52 %" in one
    assert recalled == "Recognised: stay in 80 % of 30 and rise in 40 % of 25."
    assert few == "Too few to say how well they are recognised: fall (3)."
    assert found.check() is None


def test_no_better_than_a_constant_asks_for_care() -> None:
    """A model that is right no more often than the most frequent class is not passed."""
    found = classes(np.eye(3)[[1, 1, 2, 2]])
    check = Performance.of(found, ["stay", "stay", "stay", "rise"]).check()
    assert check is not None
    assert not check.passed
    assert "Read with care" in text_of(GlobalReport(found, truth=["stay", "stay", "stay", "rise"]).to_html())


def test_mean_error_beside_the_median() -> None:
    """Of numbers the mean error and that of the median are told, in the output's unit."""
    found = many(np.ones((3, 1, 1)), prediction=[1.0, 2.0, 6.0], output_unit="mm")
    text = Performance.of(found, [2.0, 2.0, 5.0]).sentences()[0]
    assert "off by 0.667 mm on average; always saying 2 mm, the median, would be off by 1 mm" in text


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (["stay", "sideways"], "'sideways', which is no class of this model; known: fall, stay, rise"),
        (["stay", 3], "holds 3"),
        (["stay"], r"shape \(1,\); expected \(2,\)"),
        ([None, ""], "missing for every sample"),
    ],
)
def test_truth_that_does_not_fit(truth, message) -> None:
    """A class that is none, a wrong number of them, or none at all is refused."""
    with pytest.raises(InvalidInputError, match=message):
        Performance.of(classes(np.eye(3)[[0, 1]]), truth)


# -- groups ----------------------------------------------------------------------------------------------------------


def test_group_means_are_means() -> None:
    """Means by group leave out what is not known, and samples of no group."""
    values = np.array([[1.0, np.nan], [3.0, 4.0], [5.0, 6.0], [100.0, 100.0]])
    means = group_means(values, np.array([0, 0, 1, -1]), 3)
    np.testing.assert_array_equal(means, [[2, 4], [5, 6], [np.nan, np.nan]])


def test_intervals_of_normal_data_are_near_students() -> None:
    """Of one quantity and two groups the interval is near the classical one of means."""
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=200), 0.5 + rng.normal(size=300)])[:, None]
    groups = np.repeat([0, 1], [200, 300])
    (found,) = compare_means(values, groups, np.arange(500), 2)
    one, two = values[:200, 0], values[200:, 0]
    error = np.sqrt(one.var(ddof=1) / 200 + two.var(ddof=1) / 300)
    assert found.size == pytest.approx(one.mean() - two.mean())
    assert (found.high - found.low) / 2 == pytest.approx(norm.ppf(0.975) * error, rel=0.08)
    assert found.beyond_chance


@pytest.mark.parametrize("sizes", [(25, 25), (20, 300), (60, 40, 80)])
@pytest.mark.parametrize("kind", ["skewed", "shares"])
def test_shuffled_groups_are_hardly_ever_told_apart(sizes, kind) -> None:
    """Where groups are shuffled, a difference is named in about one table of twenty, whatever the number of rows."""
    rng = np.random.default_rng(3)
    named, tables = 0, 100
    for table in range(tables):
        values = rng.exponential(size=(sum(sizes), 8)) if kind == "skewed" else rng.random((sum(sizes), 8)) < 0.1
        groups = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
        found = compare_means(
            values.astype(float), groups, np.arange(len(groups)), len(sizes), is_share=np.full(8, kind == "shares"),
            seed=table,
        )  # fmt: skip
        named += any(entry.beyond_chance for entry in found)
    assert named <= 11


def test_samples_of_one_series_are_one_piece_of_evidence() -> None:
    """Copies of a sample make no difference certain: with units the interval is that of the units alone."""
    rng = np.random.default_rng(0)
    values, groups = rng.normal(size=(60, 1)), np.repeat([0, 1], 30)
    units = np.arange(60)
    (alone,) = compare_means(values, groups, units, 2)
    (copied,) = compare_means(np.repeat(values, 9, 0), np.repeat(groups, 9), np.repeat(units, 9), 2)
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))
    (wrong,) = compare_means(np.repeat(values, 9, 0), np.repeat(groups, 9), np.arange(540), 2)
    assert wrong.high - wrong.low < 0.5 * (alone.high - alone.low)
    clustered = sum(
        any(
            entry.beyond_chance
            for entry in compare_means(
                np.repeat(rng.normal(size=(50, 4)), 8, 0), np.repeat(rng.integers(0, 2, 50), 8),
                np.repeat(np.arange(50), 8), 2, seed=table,
            )
        )
        for table in range(60)
    )  # fmt: skip
    assert clustered <= 7


def test_small_groups_are_not_compared() -> None:
    """A group of fewer units than needed is in no difference, and a lone large one is compared with nothing."""
    values = np.concatenate([np.zeros((FEWEST_UNITS - 1, 1)), np.ones((50, 1)), 5 + np.zeros((50, 1))])
    groups = np.repeat([0, 1, 2], [FEWEST_UNITS - 1, 50, 50])
    found = compare_means(values, groups, np.arange(len(groups)), 3)
    assert [(entry.first, entry.second) for entry in found] == [(1, 2)]
    assert compare_means(values, np.minimum(groups, 1) * 0 + (groups == 2) * 1, np.zeros(len(groups)), 2) == []


def grouped(rng, *, apart: float, count: int = 80, **options) -> GlobalReport:
    """Return a report of two groups whose second feature differs in size by `apart`."""
    labels = np.array(["a", "b"])[rng.integers(0, 2, count)]
    values = rng.normal(size=(count, 3, 2))
    values[labels == "b", :, 1] *= 1 + apart
    return GlobalReport(many(values, features=("speed", "load")), groups={"site": labels}, **options)


def test_a_real_difference_is_named_with_its_interval() -> None:
    """A feature that matters more in one group is named, with the data's means and an interval around their gap."""
    report = grouped(np.random.default_rng(0), apart=2.0)
    comparison = report.groups[0]
    (sentence,) = [text for text in comparison.sentences() if text.startswith("How much features matter")]
    members = [comparison.grouping.member == group for group in (0, 1)]
    means = [float(report.overview.sizes[member, 1].mean()) for member in members]
    assert sentence.startswith(
        f"How much features matter: load differs most, {means[1]:.3g} in b against {means[0]:.3g} in a: "
        f"+{means[1] - means[0]:.3g} (95 % interval +"
    )
    page = text_of(report.to_html())
    assert sentence in page
    assert "95 % confidence" in page


def test_shuffled_groups_claim_nothing() -> None:
    """Groups without meaning claim no difference in any topic."""
    report = grouped(np.random.default_rng(1), apart=0.0)
    texts = [text for text in report.groups[0].sentences() if ":" in text and "intervals" not in text]
    assert len(texts) == 3
    assert all(text.endswith("no difference between groups is beyond chance.") for text in texts)


def test_many_groups_are_compared_as_far_as_they_are_kept() -> None:
    """Of twenty groups the largest are compared; the rest, in none of which a comparison is made, do not stop it."""
    found = many(np.random.default_rng(0).normal(size=(400, 5, 2)))
    labels = np.array([f"language {number % 20}" for number in range(400)])
    compared = GlobalReport(found, groups=labels).groups[0]
    assert len(compared.grouping.labels) == 8
    assert compared.grouping.labels[-1] == "13 other values"


def test_groups_too_small_claim_nothing() -> None:
    """However different, groups of ten are shown, marked, and not compared."""
    report = grouped(np.random.default_rng(0), apart=20.0, count=20)
    small, nothing = report.groups[0].sentences()
    assert small.startswith("Too small to compare (*): ")
    assert "no two groups large enough" in nothing
    assert report.groups[0].differences == ()
    assert "differs most" not in report.to_html()


def test_numbers_become_quarters_and_names_the_largest() -> None:
    """Many numbers are cut into quarters; of many names the most frequent are groups, the rest is not compared."""
    grouping = Grouping.of("age", [*range(100), np.nan], 101)
    assert grouping.labels == ("up to 24.75", "over 24.75 to 49.5", "over 49.5 to 74.25", "over 74.25", MISSING)
    assert list(np.bincount(grouping.member)) == [25, 25, 25, 25, 1]
    names = [f"town {place}" for place in range(12) for _ in range(20 - place)]
    grouping = Grouping.of("town", names, len(names))
    assert grouping.labels[0] == "town 0"
    assert grouping.labels[-1] == "5 other values"
    assert grouping.others == 7
    assert (grouping.member == 7).sum() == sum(20 - place for place in range(7, 12))
    assert Grouping.of("flag", [True, False, True, 10.0], 4).labels == ("10", "False", "True")
    assert Grouping.of("beds", ["100", "-2", "30", None], 4).labels == ("-2", "30", "100", MISSING)
    assert Grouping.of("period", ["2014", "2013, spring", "2015"], 3).labels == ("2013, spring", "2014", "2015")


# -- words, typical samples ------------------------------------------------------------------------------------------


def words(texts, values) -> Attribution:
    """Return texts of equal length with the effect of each word."""
    return many(np.array(values)[:, :, None], features=("token",), token=[list(text) for text in texts])


def test_words_have_the_mean_of_their_places() -> None:
    """A word's mean effect, count and number of texts are those of its occurrences."""
    found = words([("good", "bad", "good"), ("bad", "film", "good")], [[1.0, -2.0, 3.0], [-1.0, 0.5, 2.0]])
    told = {entry.word: entry for entry in count_words(found).told()}
    assert (told["good"].count, told["good"].texts, told["good"].mean) == (3, 2, 2.0)
    assert (told["bad"].count, told["bad"].mean, told["film"].mean) == (2, -1.5, 0.5)
    raising, lowering, often = most_effective(list(told.values()))
    assert ([entry.word for entry in raising], lowering, often) == (["good"], [], 3)
    effects = word_effects(found, ["good", "bad", "film"])
    np.testing.assert_allclose(sorted(effects[0]), [-2.0, 0.0, 4.0])
    page = text_of(GlobalReport(found).to_html())
    assert page.count("The word good moved these 2 predictions most where it stands: +2 on average, in 3 places.") == 2


def test_characters_are_told_as_characters() -> None:
    """Of a model that reads characters the page speaks of characters, not words."""
    found = words([("a", "b"), ("b", "a")], [[1.0, 2.0], [3.0, 4.0]])
    found.dataset.attrs["token_unit"] = "character"
    page = text_of(GlobalReport(found).to_html())
    assert "The character " in page
    assert "Mean effect of a character where it occurs, of 2 characters" in page
    assert not re.search(r"\b[Ww]ords? (moved|in|of)\b|\bof 2 words\b", page)


def test_a_space_is_seen_among_the_words() -> None:
    """A token that is a space has a mark beside its bar."""
    found = count_words(words([(" ", "a")], [[1.0, 2.0]])).told()
    for figure in (plot_words(found, "score", theme=theme) for theme in (LIGHT, NARROW)):
        assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "\N{OPEN BOX}"]


def test_titles_are_whole_on_narrow_screens(glucose) -> None:
    """A title that takes two lines has room above the first panel."""
    overview = Overview.of(glucose[1])
    plotted = [plot_where(overview, theme=NARROW)]
    plotted += [plot_course(glucose[1], 0, redact=redact, theme=NARROW) for redact in (False, True)]
    lines = set()
    for figure in plotted:
        for axes in figure.axes:
            title = axes.get_title(loc="left")
            lines.add(title.count("\n"))
            assert not title or axes._left_title.get_window_extent().y1 <= figure.bbox.y1, title
    assert 1 in lines


def test_redacted_texts_have_no_words() -> None:
    """A redacted page of texts holds none of their words."""
    found = words([("secret", "word"), ("word", "secret")], [[1.0, 2.0], [3.0, 4.0]])
    assert "secret" in GlobalReport(found).to_html()
    assert "secret" not in GlobalReport(found, redact=True).to_html()


def test_typical_samples_are_the_medoids() -> None:
    """Two clear kinds give the two samples in their middles, with counts; a far sample is unusual, not a kind."""
    rng = np.random.default_rng(0)
    values = np.concatenate([[[5.0, 0, 0]] * 30, [[0, 0, 5.0]] * 20]) + 0.3 * rng.normal(size=(50, 3))
    values[7] = [80.0, -80.0, 80.0]
    typical = find_typical(Overview.of(many(values[:, :, None])))
    assert [entry.count for entry in typical.prototypes] == [29, 20]
    first = np.setdiff1d(np.arange(30), 7)
    distance = np.linalg.norm(values[first][:, None] - values[first], axis=2).sum(axis=1)
    assert typical.prototypes[0].sample == first[distance.argmin()]
    assert [entry.sample for entry in typical.outliers] == [7]
    every = np.linalg.norm(values[:, None] - values, axis=2).sum(axis=1) / 49
    assert typical.outliers[0].times == pytest.approx(every[7] / np.median(every))


def test_one_cloud_has_one_typical_sample_and_no_outlier() -> None:
    """Where there are no clear kinds, only the sample in the middle is shown, and none is called unusual."""
    values = np.random.default_rng(0).normal(size=(60, 10, 1))
    typical = find_typical(Overview.of(many(values)))
    assert len(typical.prototypes) == 1
    assert typical.outliers == ()
    assert "do not fall into clear kinds" in typical.sentences[0]


def test_typical_samples_of_many_are_of_a_seeded_draw(monkeypatch) -> None:
    """Beyond a number of samples some are drawn, always the same, and that is said."""
    monkeypatch.setattr("gatelens.reports.typical.MOST_COMPARED", 20)
    overview = Overview.of(many(np.random.default_rng(0).normal(size=(50, 3, 1))))
    one, two = find_typical(overview), find_typical(overview)
    assert one == two
    assert one.sentences[0] == "Compared were 20 of 50 samples, drawn at random."


# -- the page --------------------------------------------------------------------------------------------------------


def test_page_of_real_predictions(glucose, tmp_path) -> None:
    """The page tells the shares, the spread, the groups and the typical samples of the data, and stays small."""
    model, found = glucose
    afternoon = (found.dataset["timestamp"].to_numpy()[:, -1].astype("datetime64[h]").astype(int) % 24) >= 12
    report = GlobalReport(
        found, model=model, groups={"time": np.where(afternoon, "afternoon", "morning")}, command="gatelens summarize",
        notes=["Explained are 300 of many."],
    )  # fmt: skip
    path = report.save(tmp_path / "page.html")
    text = text_of(path.read_text(encoding="utf-8"))
    overview = report.overview
    for feature, name in enumerate(overview.names):
        assert name in text
        assert percent(float(overview.shares[feature])) in text
    assert f"The probability of rise runs from {percent(float(found.prediction.min()))} to" in text
    for words_ in ("Explained are 300 of many.", "Groups by time", "afternoon", "Typical of", "gatelens summarize"):
        assert words_ in text
    assert path.stat().st_size < 4e6
    assert (
        path.read_text(encoding="utf-8").count("<picture>")
        == path.read_text(encoding="utf-8").count("<summary>The same") + 1
    )
    assert count_of(300, 300) in text


def test_overlapping_windows_ask_for_care(glucose) -> None:
    """Groups of windows that overlap in time ask for care, unless it is said which belong together."""
    _, found = glucose
    labels = np.arange(len(found)) % 2
    order = np.argsort(found.dataset["timestamp"].to_numpy()[:, 0])
    stamps = found.dataset["timestamp"].to_numpy()[order[:1]] + np.arange(len(found))[:, None] * np.timedelta64(5, "m")
    near = Attribution(found.dataset.assign(timestamp=(("sample", "time"), stamps)))
    assert "The samples overlap in time" in text_of(GlobalReport(near, groups=labels)._repr_html_())
    assert "overlap in time" not in GlobalReport(near, groups=labels, together=np.arange(300) // 24)._repr_html_()
    assert "overlap in time" not in GlobalReport(near)._repr_html_()


def test_redacted_page_has_no_raw_inputs_or_names(glucose) -> None:
    """Sample names, clock times, group labels and input values are not in a redacted page."""
    model, found = glucose
    labels = np.where(np.arange(300) % 2, "ward seven", "ward nine")
    shown = GlobalReport(found, model=model, groups={"ward": labels}).to_html()
    page = GlobalReport(found, model=model, groups={"ward": labels}, redact=True).to_html()
    for name in (*found.sample_names, "ward seven", "ward nine"):
        assert name not in page
    assert "ward seven" in shown
    assert any(name in shown for name in found.sample_names)
    assert "group 1" in page
    for stamp in found.dataset["timestamp"].to_numpy()[:, -1]:
        assert str(stamp)[:16].replace("T", " ") not in page
    assert any("rate of change, mg/dL" in drawing for drawing in drawings(shown))
    assert not any("mg/dL" in drawing or ">low<" in drawing for drawing in drawings(page))
    assert "rate of change (mg/dL" in shown
    assert "rate of change (mg/dL" not in page


def test_hostile_names_stay_text() -> None:
    """Features, samples, groups, columns, titles and notes that are HTML are shown as they are."""
    rng = np.random.default_rng(0)
    found = many(
        rng.normal(size=(30, 3, 2)), features=(HOSTILE, "$b"), names=[f"{HOSTILE} {place}" for place in range(30)],
        output_unit=HOSTILE, target=HOSTILE,
    )  # fmt: skip
    page = GlobalReport(found, groups={HOSTILE: [HOSTILE, "b"] * 15}, title=HOSTILE, notes=[HOSTILE]).to_html()
    assert "<script" not in page
    assert "<img src=x" not in page
    assert page.count("</style>") == 1
    assert HOSTILE in html.unescape(page)
    texts = words([(HOSTILE, "b")] * 3, [[1.0, 2.0]] * 3)
    assert "<script" not in GlobalReport(texts).to_html()


@pytest.mark.parametrize(
    "kind", ["cells", "timesteps", "features", "sensitivity", "one", "one step", "window", "zeros"]
)
def test_every_kind_of_attribution_gives_a_page(kind) -> None:
    """Whatever is told apart, of one sample or many, of one timestep or a window, there is a page without warnings."""
    model = make_model(3, input_size=2, hidden_sizes=(4,), output_size=3, task="multiclass", pooling="none",
                       dtype=torch.float32)  # fmt: skip
    rng = np.random.default_rng(0)
    inputs, lengths = rng.normal(size=(12, 5, 2)).astype(np.float32), rng.integers(1, 6, 12)
    explainer = {
        "timesteps": Occlusion(model, players="timestep"), "features": Occlusion(model, players="feature"),
        "sensitivity": Saliency(model),
    }.get(kind, DeepLIFT(model))  # fmt: skip
    target = (slice(0, 3), 1) if kind == "window" else None
    if kind in ("one", "window"):
        inputs, lengths = inputs[: 1 if kind == "one" else 12], None
    elif kind == "one step":
        inputs, lengths = inputs[:, :1], None
    elif kind == "zeros":
        inputs = np.zeros_like(inputs)
    found = explainer.explain(inputs, lengths=lengths, target=target)
    text = text_of(GlobalReport(found, model=model, groups=np.arange(len(found)) % 2).to_html())
    assert ("No part of the input moved" in text) == (kind == "zeros")
    one_class = len({*found.dataset["target_output"].to_numpy()}) == 1
    assert ("raised it in" in text) == (len(found) > 1 and one_class and kind not in ("sensitivity", "zeros"))


def test_refusals(tmp_path) -> None:
    """What is no attribution, another model's, of no sample, or labels that do not fit is refused."""
    found = many(np.ones((3, 2, 1)))
    with pytest.raises(InvalidTypeError, match="attribution is a list"):
        GlobalReport([found])
    with pytest.raises(InvalidInputError, match="holds no sample"):
        GlobalReport(Attribution(found.dataset.isel(sample=slice(0, 0))))
    with pytest.raises(InvalidInputError, match="is not the one that was explained"):
        GlobalReport(found, model=make_model(0, input_size=1))
    with pytest.raises(InvalidInputError, match=r"groups by 'group' has shape \(2,\)"):
        GlobalReport(found, groups=["a", "b"])
    with pytest.raises(InvalidInputError, match=r"together has shape \(1,\)"):
        GlobalReport(found, groups=["a", "b", "a"], together=[1])
    with pytest.raises(InvalidInputError, match=r"does not end in \.html"):
        GlobalReport(found).save(tmp_path / "page.pdf")
    assert list(tmp_path.iterdir()) == []


def test_token_model_from_end_to_end() -> None:
    """Texts of different lengths of a real token model give a page; padding has no word."""
    model = make_model(1, vocab_size=6, embedding_dim=3, hidden_sizes=(4,), output_size=1, task="binary",
                       dtype=torch.float32)  # fmt: skip
    rng = np.random.default_rng(0)
    ids, lengths = rng.integers(1, 6, size=(15, 6)), rng.integers(2, 7, 15)
    found = DeepLIFT(model, baseline="pad", output="probability").explain(ids, lengths=lengths)
    told = count_words(found).told()
    assert sum(entry.count for entry in told) == lengths.sum()
    assert "2 to 6 timesteps" in text_of(GlobalReport(found, model=model).to_html())
