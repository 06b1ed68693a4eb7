"""`Judgement`: the recommendation follows from the numbers, and its words claim no more than they show."""

import json
import re

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from gatelens.cli.app import app
from gatelens.examples.glucose import data_path, model_path
from gatelens.explainers import Attribution, explain
from gatelens.explainers.metrics import random_reference
from gatelens.models import InvalidInputError, LSTMConfig, LSTMModel, load, read_csv
from gatelens.reports import Report
from gatelens.reports.judgement import Judgement
from gatelens.reports.judgement_page import JudgementPage
from gatelens.reports.judgement_plot import plot_judgement


class Weighted(nn.Module):
    """A sum over timesteps with known weights: the true order is that of weight times input."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([4.0, -1.0, 0.0, 2.0, 0.5, -3.0, 0.1, 1.0]))

    def forward(self, inputs):
        return (inputs[..., 0] * self.weight).sum(dim=1, keepdim=True)


INPUTS = torch.randn(20, 8, 1, generator=torch.Generator().manual_seed(0)) + 0.5


def with_values(attribution, values):
    """The same predictions with another explanation."""
    dataset = attribution.dataset.copy(deep=True)
    dataset["attribution"] = (("sample", "time", "feature"), values)
    return Attribution(dataset)


@pytest.fixture(scope="module")
def found():
    return explain(Weighted(), INPUTS, ["input_x_gradient", "saliency", "kernel_shap"], target=0)


def text_of(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html).replace("\N{NO-BREAK SPACE}", " ").split())


def test_a_linear_model_has_a_true_order(found):
    """Methods that find weight times input are as faithful as can be; sizes of gradients are not, nor is chance."""
    judgement = Judgement(Weighted(), found)
    verdicts = {verdict.name: verdict for verdict in judgement.verdicts}
    exact = verdicts["input_x_gradient"]
    assert exact.faithfulness == pytest.approx(verdicts["kernel_shap"].faithfulness, abs=0.02)
    assert exact.level_with_best
    assert exact.beats_random
    assert not verdicts["saliency"].level_with_best
    assert judgement.random_faithfulness < verdicts["saliency"].faithfulness < exact.faithfulness
    assert judgement.recommended == "kernel_shap"  # it alone promises to add up
    headline, why, *others = judgement.sentences()
    assert headline == "For this model use Kernel SHAP."
    assert "it adds up exactly" in why.lower()
    assert "Input x gradient is level with it" in why or "is level with it" in why
    assert any(text.startswith("Saliency") for text in others)


def test_the_area_is_that_of_the_curves(found):
    """Faithfulness is the mean area between insertion and deletion over the mean change, by hand."""
    model, one = Weighted(), found["input_x_gradient"]
    judgement = Judgement(model, {"input_x_gradient": one})
    areas, changes = [], []
    for row in range(len(INPUTS)):
        parts = (INPUTS[row, :, 0] * model.weight).detach().double().numpy()
        sign = np.sign(parts.sum())
        order = np.argsort(-sign * one.values[row, :, 0].astype(float), kind="stable")
        gained = np.concatenate([[0], np.cumsum(sign * parts[order])])
        left = sign * parts.sum() - gained
        areas.append(np.trapezoid(gained - left, dx=1 / 8))
        changes.append(abs(parts.sum()))
    verdict = judgement.verdicts[0]
    assert verdict.faithfulness == pytest.approx(np.sum(areas) / np.sum(changes), rel=1e-4)
    assert verdict.interval[0] < verdict.faithfulness < verdict.interval[1]
    assert verdict.agreement is None


def test_random_explanations_are_not_recommended(found):
    """Where nothing beats a random order, nothing is recommended, and the page says so."""
    reference = random_reference(found["kernel_shap"], seed=5)
    fake = with_values(found["input_x_gradient"], reference.values)
    judgement = Judgement(Weighted(), {"input_x_gradient": fake})
    assert judgement.recommended is None
    assert not judgement.verdicts[0].beats_random
    headline, why, remark = judgement.sentences()
    assert headline == "No explainer measured here can be recommended for this model."
    assert "none orders the timesteps better than a random order does" in why
    assert "orders the parts no better than chance" in remark
    assert headline in text_of(JudgementPage(judgement).to_html())


def test_few_samples_claim_nothing(found):
    """Of three predictions nothing is told apart from chance, and the words say that they are few."""
    few = {name: Attribution(one.dataset.isel(sample=slice(3))) for name, one in found.items()}
    judgement = Judgement(Weighted(), few)
    assert judgement.recommended is None
    assert "3 predictions are few: measure more." in judgement.sentences()[1]
    assert all("3 samples are too few" in verdict.remarks[0] for verdict in judgement.verdicts)
    single = Judgement(Weighted(), {"saliency": few["saliency"][0]})
    assert single.verdicts[0].interval is None
    assert "1 prediction" in single.sentences()[1]


def test_cost_decides_between_equals(found):
    """Of two that are level and add up the quicker one is recommended; a slower twin is named as level."""
    slow = Attribution(found["kernel_shap"].dataset.copy(deep=True))
    slow.dataset.attrs["seconds"] = 100.0 + found["kernel_shap"].attrs["seconds"]
    judgement = Judgement(Weighted(), {"slow": slow, "quick": found["kernel_shap"]})
    assert judgement.recommended == "quick"
    assert "is level with it" in judgement.sentences()[1]


def test_it_is_the_same_again_and_leaves_the_model(found):
    """Equal seeds give equal judgements; the model keeps its mode and its gradients."""
    model = Weighted().train()
    one, two = (Judgement(model, found, seed=3).to_dict() for _ in range(2))
    assert json.dumps(one) == json.dumps(two)
    assert model.training
    assert model.weight.grad is None


def test_of_explains_and_judges():
    """`Judgement.of` runs the methods, on batches with lengths, and its table has a row each and one for chance."""
    torch.manual_seed(0)
    model = LSTMModel(LSTMConfig(input_size=2, hidden_sizes=(6,)))
    inputs, lengths = torch.randn(8, 7, 2), [7, 3, 5, 7, 2, 6, 7, 4]
    judgement = Judgement.of(model, inputs, ["deeplift", "occlusion"], lengths=lengths, baselines=["zero", "hold_last"])
    table = judgement.table()
    assert list(table["explainer"])[-1] == "random"
    assert set(table["explainer"]) == {"deeplift", "occlusion", "random"}
    assert judgement.measured.baselines == ("zero", "hold_last")
    assert list(table["faithfulness"][:2]) == sorted(table["faithfulness"][:2], reverse=True)


def test_refusals(found):
    """No attribution, and one that takes the reference's name."""
    with pytest.raises(InvalidInputError, match="no attribution to judge"):
        Judgement(Weighted(), {})
    with pytest.raises(InvalidInputError, match="called 'random'"):
        Judgement(Weighted(), {"random": found["saliency"]})
    judgement = Judgement(Weighted(), {"saliency": found["saliency"]})
    with pytest.raises(InvalidInputError, match=r"ends in \.html"):
        JudgementPage(judgement).save("page.pdf")


def test_the_page_holds_the_numbers(found, tmp_path):
    """Table and picture: each explainer's numbers as in the verdicts, each metric's source, no script."""
    judgement = Judgement(Weighted(), found)
    path = JudgementPage(judgement, model=Weighted(), title="<b>mine</b>").save(tmp_path / "e.html")
    html = path.read_text(encoding="utf-8")
    text = text_of(html)
    assert "<b>mine</b>" not in html
    for verdict in judgement.verdicts:
        assert verdict.label in text
        assert f"{verdict.faithfulness:.2f}" in text
    for words in ("A random order", "Petsiuk et al. 2018", "What it cannot tell", "How this was measured"):
        assert words in text
    assert "<script" not in html
    figure = plot_judgement(judgement)
    drawn = [label.get_text() for label in figure.axes[0].texts]
    assert {verdict.label for verdict in judgement.verdicts} <= set(drawn)
    section = text_of(Report(found["kernel_shap"][0], judgement=judgement).to_html())
    assert "Which explainer to rely on For this model use Kernel SHAP." in section


def test_command_line(tmp_path, monkeypatch):
    """On the glucose model: DeepLIFT adds up, is quick, and no other is clearly more faithful."""
    monkeypatch.chdir(tmp_path)
    options = ["evaluate", str(model_path()), "-i", str(data_path()), "--samples", "8", "-m", "deeplift", "-m",
               "gate_saliency", "--stride", "400"]  # fmt: skip
    result = CliRunner().invoke(app, [*options, "--json"], catch_exceptions=False)
    told = json.loads(result.stdout)
    assert told["samples"] == 8
    assert told["recommended"] == "deeplift"
    assert {row["explainer"] for row in told["explainers"]} == {"deeplift", "gate_saliency", "random"}
    shown = CliRunner().invoke(app, options, catch_exceptions=False).stdout
    assert shown.startswith("For this model use DeepLIFT.")
    assert "a random order" in shown
    assert (tmp_path / "evaluation.html").exists()
    with pytest.raises(InvalidInputError, match="--samples is 0"):
        CliRunner().invoke(app, [*options, "--samples", "0"], catch_exceptions=False)


def test_model_of_the_demo_is_judged_alike_in_python():
    """The same sequences judged from Python give the same order of explainers."""
    model = load(model_path())
    data = read_csv(data_path(), model.data, windows="all", stride=6000)
    judgement = Judgement.of(model, data, ["deeplift", "saliency"], baseline="mean", output="probability")
    assert judgement.verdicts[0].name == "deeplift"
