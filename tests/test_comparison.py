"""Comparisons: explainers on one prediction, two models on one input, two inputs of one model."""

import base64
import html
import re

import numpy as np
import pytest
import torch
from scipy.stats import rankdata, spearmanr
from torch import nn

from gatelens.examples.glucose import data_path, model_path
from gatelens.explainers import DeepLIFT, IntegratedGradients, Occlusion, explain
from gatelens.models import DataSpec, FeatureSpec, InvalidInputError, load, read_csv
from gatelens.reports import Comparison, compare_explainers, explain_change
from gatelens.reports.change_words import feature_rows
from gatelens.reports.changes import Change, same_input
from gatelens.reports.wording import effect
from helpers.draws import make_inputs, make_model
from helpers.explained import Foreign, linear_function
from helpers.made import made_attribution

HOSTILE = "</style><script>document.title='broken'</script><img src=x onerror=alert(1)>"


def text_of(page: str) -> str:
    """Return the words of a page."""
    shown = re.sub(r"<style.*?</style>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", shown)).replace("\N{NO-BREAK SPACE}", " ").split())


def two_inputs(model, *, steps=(6, 6), seed=0, method=DeepLIFT, target=None, **options):
    """Return the explanations of two inputs of a model, by the same method and target."""
    found = []
    for place, length in enumerate(steps):
        inputs = make_inputs(model, 1, length, seed=seed + place)
        names = [f"input {place}"]
        found.append(method(model, **options).explain(inputs, target=target, sample_names=names))
    return found


# -- explainers ------------------------------------------------------------------------------------------------------


def test_agreement_of_explainers_is_that_of_ranks() -> None:
    """Correlation, shared largest parts and ranks equal those computed from the values."""
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(10, 4)) + 3, rng.normal(size=(10, 4)) + 3
    found = {"deeplift": made_attribution(one, method="deeplift"), "lime": made_attribution(two, method="lime")}
    (pair,) = compare_explainers(found).pairs
    assert (pair.over, pair.parts, pair.largest) == ("cells", 40, 4)
    assert pair.correlation == pytest.approx(spearmanr(one.ravel(), two.ravel()).statistic)
    ranks = [rankdata(-np.abs(values.ravel()), method="min") for values in (one, two)]
    tops = [set(np.flatnonzero(rank <= 4)) for rank in ranks]
    assert pair.shared == len(tops[0] & tops[1])
    large = sorted(tops[0] | tops[1])
    worst = max(large, key=lambda part: abs(ranks[0][part] - ranks[1][part]))
    place = pair.ranked_apart[0]
    assert (place.timestep, place.feature) == divmod(worst, 4)
    assert (place.first_rank, place.second_rank) == (ranks[0][worst], ranks[1][worst])
    sentence = compare_explainers(found).sentences[0]
    assert sentence.replace("−", "-") == (
        f"DeepLIFT and LIME have a rank correlation of {pair.correlation:.2f} over 40 cells; they share "
        f"{pair.shared} of their 4 largest."
    )


def test_opposite_signs_are_named() -> None:
    """The part that one method says raised and the other lowered is named with both shares."""
    one, two = np.ones((5, 2)), np.ones((5, 2))
    one[3, 1], two[3, 1] = 10.0, -10.0
    one[2, 0], two[2, 0] = 3.0, 3.1
    found = compare_explainers(
        {"a": made_attribution(one, features=("speed", "load")), "b": made_attribution(two, features=("speed", "load"))}
    )
    (pair,) = found.pairs
    (place,) = pair.opposite
    assert (place.timestep, place.feature) == (3, 1)
    assert place.first == pytest.approx(10 / np.abs(one).sum())
    assert place.second == pytest.approx(-10 / np.abs(two).sum())
    assert any("push opposite ways: load at timestep 4 (+48 % and −47 % of all weight)" in text
               for text in found.sentences)  # fmt: skip


def test_explainers_that_agree_disagree_nowhere() -> None:
    """Equal attributions agree fully and no place is named."""
    values = np.random.default_rng(0).normal(size=(6, 2))
    found = compare_explainers({"a": made_attribution(values), "b": made_attribution(2 * values)})
    assert found.pairs[0].correlation == pytest.approx(1)
    assert found.pairs[0].opposite == found.pairs[0].ranked_apart == ()
    assert len(found.sentences) == 1
    assert found.rows() == [("A, B", "12 cells", "1.00", "2 of 2")]


def test_what_cannot_be_compared_is_said() -> None:
    """Fewer than two, another input, or parts that are not told apart together."""
    one = made_attribution([[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(InvalidInputError, match="pass two or more"):
        compare_explainers({"a": one})
    with pytest.raises(InvalidInputError, match="b explains another input than a"):
        compare_explainers({"a": one, "b": made_attribution([[1.0, 2.0], [3.0, 4.0]], inputs=[[9.0, 9.0], [9.0, 9.0]])})
    apart = {"a": made_attribution([[1.0], [2.0]], resolution="timestep"),
             "b": made_attribution([[1.0], [2.0]], resolution="feature")}  # fmt: skip
    assert compare_explainers(apart).sentences == (
        "The explainers tell different parts apart, or too few, and cannot be compared by rank.",
    )


def test_sensitivities_have_no_opposite_ways() -> None:
    """Where one method tells sensitivity, signs are not compared."""
    one = made_attribution([[10.0], [1.0], [2.0]])
    two = made_attribution([[-10.0], [1.0], [2.0]], measures="sensitivity")
    assert compare_explainers({"a": one, "b": two}).pairs[0].opposite == ()


# -- one model, two inputs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["last", "attention", "none"])
def test_the_change_is_shared_out_exactly(pooling) -> None:
    """The effects of the change add up to f(second) - f(first), and equal inputs get nothing."""
    model = make_model(2, input_size=3, hidden_sizes=(5,), output_size=2, pooling=pooling)
    first, second = two_inputs(model, target=1 if pooling != "none" else (slice(1, 4), 1))
    direct = explain_change(model, first, second)
    assert direct.method == "deeplift"
    assert direct.values.sum() == pytest.approx(second.prediction[0] - first.prediction[0], abs=1e-12)
    assert direct.baseline_prediction[0] == pytest.approx(first.prediction[0], abs=1e-12)
    expected = DeepLIFT(model, baseline=first.inputs).explain(
        second.inputs, target=1 if pooling != "none" else (slice(1, 4), 1)
    )
    np.testing.assert_allclose(direct.values, expected.values)
    changed = second.inputs.copy()
    changed[:, :, 1] = first.inputs[:, :, 1]
    third = DeepLIFT(model).explain(changed, target=1 if pooling != "none" else (slice(1, 4), 1))
    assert (explain_change(model, first, third).features[0] == 0).tolist() == [False, True, False]


def test_change_of_probabilities_and_of_other_models() -> None:
    """The change of a probability, of a module that DeepLIFT does not open, and of a function is shared out."""
    torch.manual_seed(0)

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(2, 1)

        def forward(self, inputs):
            return self.head(inputs.tanh().sum(dim=1))

    cases = [
        (make_model(0, input_size=2, output_size=3, task="multiclass"), "deeplift", {"output": "probability"}),
        (Odd().double(), "integrated_gradients", {}),
        (linear_function(torch.randn(4, 2, dtype=torch.float64)), "kernel_shap", {}),
    ]
    for model, expected, options in cases:
        method = Occlusion if expected == "kernel_shap" else IntegratedGradients
        inputs = np.random.default_rng(0).normal(size=(2, 1, 4, 2))
        first, second = (method(model, **options).explain(part, target=0) for part in inputs)
        direct = explain_change(model, first, second)
        assert direct.method == expected
        change = float(second.prediction[0] - first.prediction[0])
        assert direct.values.sum() == pytest.approx(change, rel=0.01)


def test_sequences_of_other_lengths_are_not_shared_out() -> None:
    """Without equal shapes there is no exact split, and the page says so and shows the difference of the effects."""
    model = make_model(0, input_size=2, hidden_sizes=(4,), dtype=torch.float32)
    first, second = two_inputs(model, steps=(5, 8))
    assert explain_change(model, first, second) is None
    page = Comparison(first, second, models=model)
    assert page.direct is None
    text = text_of(page.to_html())
    assert "different lengths, or no method works" in text
    assert "Difference of the two" not in text


def test_rows_add_up_to_the_difference() -> None:
    """Starting points, features, the rest and what is unaccounted for add up to the difference of the predictions."""
    model = make_model(5, input_size=9, hidden_sizes=(6,))
    first, second = two_inputs(model, steps=(4, 7), method=Occlusion, players="cell")
    change = Change.of(first, second)
    rows = feature_rows(change, ("a", "b"))
    assert sum(size for size, _, _ in rows) == pytest.approx(change.difference, rel=0.02)
    assert rows[-1][1] == "Not accounted for"
    assert rows[-1][0] == pytest.approx(second.completeness_gap[0] - first.completeness_gap[0])
    for row in change.features():
        column = change.first.feature_names.index(row.name)
        assert row.first == pytest.approx(first.features[0, column])
        assert row.difference == pytest.approx(second.features[0, column] - first.features[0, column])


@pytest.fixture(scope="module")
def glucose():
    """Two real windows, half an hour apart, explained for rise."""
    model = load(model_path())
    found = []
    for end in ("2010-09-24 06:54", "2010-09-24 07:24"):
        data = read_csv(data_path(), model.data, end=end)
        explained = DeepLIFT(model, baseline="mean", output="probability").explain(data, target="rise")
        found.append(explained)
    return model, found


def test_page_of_two_inputs_tells_the_numbers(glucose, tmp_path) -> None:
    """Predictions, the change, its reasons with their sizes, and the inputs before and now are those of the data."""
    model, (first, second) = glucose
    page = Comparison(first, second, models=model, command="gatelens compare x")
    path = page.save(tmp_path / "page.html")
    text = text_of(path.read_text(encoding="utf-8"))
    levels = [f"{float(found.prediction[0]) * 100:.0f} %" for found in (first, second)]
    assert page.headline == f"The probability of rise went up from {levels[0]} to {levels[1]}."
    assert f"The change is {effect(page.change.difference, second)}".replace(" points", " percentage points") in text
    for size, amount, name, words in page.rows():
        column = [place for place, feature in enumerate(second.feature_names) if name in (feature, "time of day")]
        part = page.direct.values[0][:, column].sum(axis=1)
        signed = part[part > 0].sum() if size > 0 else part[part < 0].sum()
        if name != "time of day":
            assert size == pytest.approx(signed)
        assert amount == effect(size, second)
        assert words in text
    assert "The reasons account for 100 % of the change." in text
    assert "2010-09-24 06:54" in text
    assert "gatelens compare x" in text
    raw = (
        second.inputs[0, -1, 0] * second.dataset["feature_scale"].to_numpy()[0]
        + second.dataset["feature_center"].to_numpy()[0]
    )
    assert f"{raw:.0f}" in text
    assert "went up from" in page.sentences()[0]


def test_redacted_comparison_has_no_raw_inputs_or_times(glucose) -> None:
    """Names, clock times, values and courses of the inputs are left out of a redacted page."""
    model, (first, second) = glucose
    page = Comparison(first, second, models=model, redact=True).to_html()
    for hidden in ("2010-09-24", "07:24", "06:54", "when it was", "What changed in the input", "mg/dL per 5 min ("):
        assert hidden not in page
    drawings = [base64.b64decode(code).decode() for code in re.findall(r"base64,([^\"]+)", page)]
    assert not any("mg/dL" in drawing for drawing in drawings)
    assert "the first input" in page


def test_unchanged_features_are_named() -> None:
    """Features that are the same in both inputs are said to be."""
    model = make_model(0, input_size=2, hidden_sizes=(4,), dtype=torch.float32)
    inputs = make_inputs(model, 1, 5)
    other = inputs.clone()
    other[:, 3, 1] += 1
    first, second = (DeepLIFT(model).explain(part) for part in (inputs, other))
    text = text_of(Comparison(first, second, models=model, names=("before", "now")).to_html())
    assert "The same in both: feature 0." in text
    assert "Feature 1 " in text


def test_texts_are_compared_word_by_word() -> None:
    """Of texts the differing tokens are counted, both are listed, and a redacted page has no word."""
    words = ("<pad>", "good", "bad", "film", "secret")
    model = make_model(
        1, vocab_size=5, embedding_dim=3, hidden_sizes=(4,), data=DataSpec(vocabulary=words), dtype=torch.float32
    )
    first, second = (DeepLIFT(model, baseline="pad").explain(np.array([ids])) for ids in ([1, 3, 4], [2, 3, 4]))
    page = Comparison(first, second, models=model)
    assert page.direct is not None
    assert page.direct.values.sum() == pytest.approx(page.change.difference, rel=1e-4)
    assert (page.direct.values[0, 1:] == 0).all()
    text = text_of(page.to_html())
    assert "Different are 1 of 3 tokens." in text
    assert "“bad”" in text
    hidden = Comparison(first, second, models=model, redact=True).to_html()
    assert "secret" not in hidden
    assert "“bad”" not in text_of(hidden)


# -- two models, one input -------------------------------------------------------------------------------------------


def two_models(**config):
    """Return two models of one kind with other weights, and the explanations of one input."""
    models = [make_model(seed, input_size=2, hidden_sizes=(4,), dtype=torch.float32, **config) for seed in (1, 2)]
    inputs = make_inputs(models[0], 1, 6, seed=3)
    return models, [DeepLIFT(model).explain(inputs) for model in models]


def test_two_models_on_one_input(tmp_path) -> None:
    """Both predictions, the effects in both and their difference are those of the data; nothing is shared out."""
    models, (first, second) = two_models()
    page = Comparison(first, second, models=models, names=("old", "new"))
    assert page.direct is None
    text = text_of(page.save(tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "two models on one input" in text
    assert f"is {float(first.prediction[0]):.3g} by old and {float(second.prediction[0]):.3g} by new" in text.replace(
        "−", "-"
    )
    for row in page.change.features():
        assert effect(row.difference, second) in text
    assert "rank correlation" in text
    assert models[0].config.hidden_sizes
    assert "The models" in text


def test_models_may_scale_and_choose_their_inputs_differently() -> None:
    """The input is the same where the features of one name are, in their own units, over the steps both look at."""

    def model(names, scale, seed):
        data = DataSpec(features=tuple(FeatureSpec(name=name, center=3.0 * scale, scale=scale) for name in names))
        return make_model(seed, data=data, input_size=len(names), hidden_sizes=(3,))

    raw = np.random.default_rng(0).normal(size=(1, 8, 2))
    one, two = model(("a", "b"), 1.0, 0), model(("b", "c"), 10.0, 1)
    first = DeepLIFT(one).explain((raw - 3) / 1.0)
    other = np.stack([raw[0, 2:, 1], np.zeros(6)], axis=1)[None]
    second = DeepLIFT(two).explain((other - 30) / 10)
    assert same_input(first, second)
    page = Comparison(first, second, models=(one, two), names=("one", "two"))
    told = " ".join(page.sentences())
    assert "is not read by two" in told
    assert "is not read by one" in told
    assert page.change.correlation() is None
    page.to_html()
    assert not same_input(first, DeepLIFT(two).explain((other + 1 - 30) / 10))


def test_models_of_other_methods_ask_for_care() -> None:
    """Different methods or baselines for the two models ask for care."""
    models, (first, _) = two_models()
    second = IntegratedGradients(models[1], baseline="hold_last").explain(first.inputs)
    texts = [check.text for check in Comparison(first, second).checks() if not check.passed]
    assert any("part of the difference may be the methods'" in text for text in texts)
    assert any("different baselines" in text for text in texts)


def test_hostile_names_stay_text() -> None:
    """Features, samples, models' names and titles that are HTML are shown as they are."""
    data = DataSpec(features=(FeatureSpec(name=HOSTILE, unit=HOSTILE), FeatureSpec(name="$b")), target=HOSTILE)
    model = make_model(0, data=data, input_size=2, hidden_sizes=(3,), dtype=torch.float32)
    inputs = [make_inputs(model, 1, 4, seed=seed) for seed in (0, 1)]
    first, second = (
        DeepLIFT(model).explain(part, sample_names=[f"{HOSTILE}{place}"]) for place, part in enumerate(inputs)
    )
    page = Comparison(first, second, models=model, title=HOSTILE, command=HOSTILE).to_html()
    assert "<script" not in page
    assert "<img src=x" not in page
    assert page.count("</style>") == 1
    assert HOSTILE in html.unescape(page)


def test_equal_predictions_and_single_steps() -> None:
    """Inputs of one timestep, and inputs that give the same prediction, are compared without a claim."""
    model = make_model(0, input_size=1, hidden_sizes=(3,), dtype=torch.float32)
    first, second = two_inputs(model, steps=(1, 1))
    assert "went" in Comparison(first, second, models=model).headline
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    first, second = two_inputs(model)
    page = Comparison(first, second, models=model)
    assert "stayed at" in page.headline
    assert page.rows() == []
    assert any("no change to explain" in check.text for check in page.checks())
    assert "Read with care" in text_of(page.to_html())


def test_refusals(tmp_path) -> None:
    """What does not belong together is refused, with what to do."""
    models, (first, second) = two_models()
    one, two = two_inputs(models[0])
    with pytest.raises(InvalidInputError, match="both the model and the input differ"):
        Comparison(one, second)
    with pytest.raises(InvalidInputError, match="use compare_explainers"):
        Comparison(first, IntegratedGradients(models[0]).explain(first.inputs))
    batch = DeepLIFT(models[0]).explain(make_inputs(models[0], 2, 3))
    with pytest.raises(InvalidInputError, match=r"holds 2 samples; a comparison is of one with one, e.g. second\[0\]"):
        Comparison(one, batch)
    with pytest.raises(InvalidInputError, match="models holds 1; expected 2"):
        Comparison(first, second, models=models[0])
    with pytest.raises(InvalidInputError, match="the second model given"):
        Comparison(first, second, models=[models[0], models[0]])
    with pytest.raises(InvalidInputError, match="names is 'ab'"):
        Comparison(one, two, names="ab")
    with pytest.raises(InvalidInputError, match="is a sensitivity"):
        Comparison(*[explain(models[0], found.inputs, ["gate_saliency"])["gate_saliency"] for found in (one, two)])
    several = make_model(0, input_size=2, hidden_sizes=(3,), output_size=2, pooling="none")
    inputs = [make_inputs(several, 1, 4, seed=seed) for seed in (0, 1)]
    with pytest.raises(InvalidInputError, match="explain both with the same target"):
        Comparison(*(DeepLIFT(several).explain(part, target=(2, place)) for place, part in enumerate(inputs)))
    with pytest.raises(InvalidInputError, match="timestep 0 and second timestep 1"):
        Comparison(*(DeepLIFT(several).explain(part, target=(place, 0)) for place, part in enumerate(inputs)))
    with pytest.raises(InvalidInputError, match="does not end in"):
        Comparison(one, two).save(tmp_path / "page.txt")
    assert list(tmp_path.iterdir()) == []


def test_foreign_modules_are_compared() -> None:
    """Two inputs of an own PyTorch module are compared, and the module is left as found."""
    model = Foreign()
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    inputs = torch.randn(2, 1, 5, 3, generator=torch.Generator().manual_seed(0))
    first, second = (IntegratedGradients(model).explain(part, target=0) for part in inputs)
    page = Comparison(first, second, models=model)
    assert page.direct is not None
    page.to_html()
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
