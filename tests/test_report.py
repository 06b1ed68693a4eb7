"""The page: its numbers are the data's, its parts are there, and it refuses what does not belong together."""

import base64
import gzip
import hashlib
import json
import re
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
import torch
from torch import nn

from gatelens.examples.glucose import data_path, model_path
from gatelens.explainers import IntegratedGradients, explain
from gatelens.models import (
    DataSpec,
    FeatureSpec,
    InvalidInputError,
    InvalidTypeError,
    LSTMConfig,
    LSTMModel,
    from_torch,
    gate_statistics,
    load,
    read_csv,
)
from gatelens.reports import Report, describe, narrate, plots
from gatelens.reports.gate_words import gate_sentences
from gatelens.reports.wording import number
from helpers.made import made_attribution


@pytest.fixture(scope="module")
def glucose():
    """A real window, explained by three methods."""
    model = load(model_path())
    data = read_csv(data_path(), model.data, end="2010-10-05 18:03")
    found = explain(
        model, data.inputs, ["integrated_gradients", "gate_saliency", "lime"], baseline="mean", output="probability",
        sample_names=data.sample_names, times=data.times, options={"lime": {"samples": 200}},
    )  # fmt: skip
    return model, found


def text_of(html: str) -> str:
    without = re.sub(r"<(style|script)[^>]*>.*?</\1>", "", html, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", without)).replace("\xa0", " ").split())


def test_page_tells_what_the_narrative_says(glucose) -> None:
    """Headline, reasons and checks stand on the page, with the numbers of the attribution."""
    model, found = glucose
    text = text_of(Report(found, model=model).to_html())
    narrative = narrate(found)
    assert f"the model predicts fall with {found['lime'].prediction[0]:.0%} probability".replace("%", " %") in text
    for reason in narrative.reasons:
        assert reason.text in text
        assert reason.effect_text in text
    for check in narrative.checks:
        assert check.text in text
    assert "2010-10-05 18:03" in text


def test_page_holds_tables_card_and_provenance(glucose) -> None:
    """The table has every timestep; the card the architecture and metrics; provenance hash, seed and versions."""
    model, found = glucose
    html = Report(found, model=model, command="gatelens report x").to_html()
    text = text_of(html)
    for label in ("16:08", "17:03", "18:03"):
        assert f"<td>{label}</td>" in html
    assert describe(model).rows[0][1] in text
    assert "0.771" in text
    assert found["lime"].attrs["model"] in text
    assert torch.__version__ in text
    assert "gatelens report x" in text


@pytest.fixture
def adopted(tmp_path):
    """Somebody's weights in a checkpoint, which say neither pooling nor task nor scaling; table columns as features."""
    torch.manual_seed(0)
    net = nn.ModuleDict({"lstm": nn.LSTM(2, 4), "head": nn.Linear(4, 1)})
    torch.save({"model": net.state_dict(), "<u>epoch</u>": 3}, tmp_path / "net.pt")

    def opened(**options):
        model = from_torch(tmp_path / "net.pt", **options)
        features = (FeatureSpec(name="temperature"), FeatureSpec(name="pressure"))
        model.data = replace(model.data, features=features)
        return model

    return opened


def checks_of(html: str) -> str:
    """Return the words of the first screen's checks."""
    return text_of(re.search(r'<section class="checks.*?</section>', html)[0])


def test_what_was_assumed_of_a_model_is_a_reason_for_care(adopted) -> None:
    """Where all else passes, an assumption about the model still asks for care; where nothing is assumed, none does."""
    inputs = torch.randn(1, 3, 2, generator=torch.Generator().manual_seed(1))
    model = adopted()
    found = explain(model, inputs, ["integrated_gradients", "kernel_shap"])
    assert narrate(found).passed
    html = Report(found, model=model).to_html()
    checks = checks_of(html)
    assert checks.startswith("Read with care. About the model: pooling 'last' is assumed, weights do not say it; ")
    assert "About the model: task 'regression' is assumed for the one output" in checks
    assert '<section class="checks care">' in html
    assert Report(found, model=model)._repr_html_().count("is assumed") == 2
    told = adopted(pooling="last", task="regression")
    html = Report(explain(told, inputs, ["integrated_gradients", "kernel_shap"]), model=told).to_html()
    assert checks_of(html).startswith("Checks passed.")
    assert "assumed" not in text_of(html)


def test_card_on_the_page_tells_what_was_adopted(adopted) -> None:
    """The card holds what was assumed, found and left out of a file, as text; a model of our own has no such lists."""
    model = adopted()
    html = Report(IntegratedGradients(model).explain(torch.randn(1, 3, 2)), model=model).to_html()
    card = describe(model)
    text = text_of(html).split("How this page was made")[1]
    for title, sentences in (
        ("Assumed", card.assumed),
        ("Found in the file", card.found),
        ("Not taken over", card.left_out),
    ):
        assert len(sentences) > 0
        assert f"{title} {' '.join(sentences)}" in text
    assert "<u>" not in html
    hostile = {"assumed": ["<u>a</u>"], "found": ["<u>b</u>"], "left_out": ["<u>c</u>"]}
    model.data = replace(model.data, provenance={"adopted": hostile})
    html = Report(IntegratedGradients(model).explain(torch.randn(1, 3, 2)), model=model).to_html()
    assert text_of(html).count("<u>a</u>") == 2  # among the checks and on the card
    for words in ("<u>b</u>", "<u>c</u>"):
        assert words in text_of(html)
    assert "<u>" not in html
    own = LSTMModel(LSTMConfig(input_size=2, hidden_sizes=(4,)))
    text = text_of(Report(IntegratedGradients(own).explain(torch.randn(1, 3, 2)), model=own).to_html())
    for title in ("Assumed", "Found in the file", "Not taken over"):
        assert title not in text


def test_an_unknown_scaling_is_not_told_as_known(adopted, glucose) -> None:
    """Without a known center or scale the baseline is called what it is, 0, and the card shows neither column."""
    model = adopted()
    html = Report(IntegratedGradients(model).explain(torch.randn(1, 3, 2)), model=model).to_html()
    text = text_of(html)
    assert "for an input with every feature at 0 it would be" in text
    assert "its center" not in text
    assert "<td>temperature</td><td></td><td>column temperature</td></tr>" in html
    assert "as they stand, unscaled" in text
    assert "Center" not in text
    assert "Scale" not in text
    model.data = replace(model.data, features=(FeatureSpec(name="temperature", center=11.5), FeatureSpec(name="p")))
    scaled = Report(IntegratedGradients(model).explain(torch.randn(1, 3, 2)), model=model).to_html()
    assert "for an input with every feature at its center it would be" in text_of(scaled)
    assert "<td>column temperature</td><td>11.5</td><td>1</td></tr>" in scaled
    assert "unscaled" not in text_of(scaled)
    text = text_of(Report(glucose[1], model=glucose[0]).to_html())
    assert "Center Scale" in text
    assert "unscaled" not in text


def test_page_is_one_file_without_network(glucose) -> None:
    """No link, no address; the policy forbids all but the page's own style, script and library, each by its hash."""
    html = Report(glucose[1], model=glucose[0]).to_html()
    assert re.findall(r"<script(?! type=\"(?:text/plain|application/json)\")[^>]*>", html) == ["<script>"]
    assert "<link" not in html
    without_blocks = re.sub(r"<script[^>]*>.*?</script>", "", html, flags=re.DOTALL)
    assert not re.findall(r"""(?:src|href|srcset)=["'](?!data:|#)""", without_blocks)
    policy = unescape(re.search(r'Content-Security-Policy" content="([^"]+)"', html)[1])
    parts = dict(part.split(" ", 1) for part in policy.split("; "))
    assert parts["default-src"] == "'none'"
    script = re.search(r"<script>(.*)</script>", html, re.DOTALL)[1]
    library = gzip.decompress(base64.b64decode(re.search(r'id="bokeh">([^<]+)<', html)[1])).decode()
    expected = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in (script, library)
    ]
    assert parts["script-src"].split() == expected
    assert "unsafe" not in policy


def test_page_is_the_same_each_time(glucose) -> None:
    """The same attributions give the same bytes."""
    model, found = glucose
    assert Report(found, model=model).to_html() == Report(found, model=model).to_html()


def test_redacted_page_holds_no_inputs(glucose) -> None:
    """No raw reading, clock time, date or sample name is in a redacted file, pictures included."""
    model, found = glucose
    html = Report(found, model=model, redact=True).to_html()
    packs = [gzip.decompress(base64.b64decode(part)) for part in re.findall(r'data-sample="\d+">([^<]+)<', html)]
    assert len(packs) == 1
    for text in ("18:03", "2010-10-05"):
        assert text not in text_of(html)
        assert text.encode() not in packs[0]
    inputs = found["lime"].inputs[0].astype("<f4")
    for column in range(inputs.shape[1]):  # neither scaled nor in its unit
        for course in (inputs[:, column], plots.raw_series(found["lime"], 0, column)[0].astype("<f4")):
            assert course.tobytes() not in packs[0]
    readings = {f"{value:.0f}" for value in found["lime"].inputs[0, :, 0] * 52.1 + 137.5}
    assert not readings & set(re.findall(r"(?<![\d.])\d{3}(?![\d.])", text_of(html).split("How this page")[0]))
    assert "left out" in text_of(html)


def test_several_samples_have_an_article_each() -> None:
    """Each sample has its own article, and the list at the top leads there."""
    model = LSTMModel(LSTMConfig(input_size=2, hidden_sizes=(4,)))
    found = IntegratedGradients(model).explain(torch.randn(3, 5, 2), sample_names=["a", "b", "c"])
    html = Report(found, model=model).to_html()
    assert re.findall(r'<article id="(sample-\d)"', html) == ["sample-1", "sample-2", "sample-3"]
    assert re.findall(r'href="#(sample=\d)"', html) == ["sample=1", "sample=2", "sample=3"]


@pytest.mark.parametrize(
    "kind", ["tokens", "per timestep", "variable lengths", "black box", "foreign module", "binary"]
)
def test_every_kind_of_model_gets_a_page(kind: str, tmp_path) -> None:
    """Token models, outputs per timestep, variable lengths, functions, foreign modules and binary tasks have pages."""
    torch.manual_seed(0)
    inputs = torch.randn(2, 6, 3)
    lengths = None
    methods = ["integrated_gradients", "gate_saliency", "kernel_shap"]
    if kind == "tokens":
        data = DataSpec(vocabulary=("<pad>", "not", "bad", "<b>bold</b>"))
        model = LSTMModel(LSTMConfig(vocab_size=4, embedding_dim=3, hidden_sizes=(4,)), data)
        inputs, lengths = torch.tensor([[1, 2, 3], [3, 1, 0]]), [3, 2]
    elif kind == "per timestep":
        model = LSTMModel(LSTMConfig(input_size=3, hidden_sizes=(4,), pooling="none"))
    elif kind == "variable lengths":
        model = LSTMModel(LSTMConfig(input_size=3, hidden_sizes=(4, 3), bidirectional=True))
        lengths = [6, 2]
    elif kind == "black box":
        model, methods = (lambda x: x.sum(axis=(1, 2))), ["kernel_shap", "lime"]
    elif kind == "binary":
        model = LSTMModel(LSTMConfig(input_size=3, hidden_sizes=(4,), task="binary"))
    else:
        model = Foreign()
    found = explain(model, inputs, methods, lengths=lengths, options={"kernel_shap": {"samples": 100}})
    path = Report(found, model=model).save(tmp_path / "report.html")
    text = text_of(path.read_text(encoding="utf-8"))
    assert "The model predicts" in text
    assert ("What the network did" in text) == (kind != "black box")
    if kind == "tokens":
        assert "<b>bold</b>" in text


def test_a_window_is_told_on_the_page() -> None:
    """A page about a sum over timesteps says which, by whose clock, and gives the sum; redacted it has no times."""
    torch.manual_seed(0)
    model = LSTMModel(LSTMConfig(input_size=2, hidden_sizes=(4,), output_size=2, task="binary", pooling="none"))
    model.data = DataSpec(outputs=("rain", "wind"))
    times = np.datetime64("2024-05-01T06:00") + np.arange(8)[None] * np.timedelta64(15, "m")
    found = explain(
        model, torch.randn(1, 8, 2), ("deeplift", "kernel_shap"), target=(slice(3, 6), "wind"), output="probability",
        times=times,
    )  # fmt: skip
    words = "sum over timesteps 4 to 6 (06:45 to 07:15) of the probability of wind"
    text = text_of(Report(found, model=model).to_html())
    assert f"The {words} is {number(float(found['deeplift'].prediction[0]))} ." in text
    assert f"What raised and lowered the {words}" in text
    assert f"Explained the {words}" in text
    assert f"{found['deeplift'].prediction[0]:.0%}".replace("%", " %") not in text
    hidden = text_of(Report(found, model=model, redact=True).to_html())
    assert "sum over timesteps 4 to 6 of the probability of wind" in hidden
    assert "06:45" not in hidden


class Foreign(nn.Module):
    """Somebody's own module."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.LSTM(3, 4, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(8, 2)

    def forward(self, inputs):
        return self.head(self.encoder(inputs)[0].mean(dim=1))


def test_refusals(tmp_path) -> None:
    """What is no attribution, of other inputs or targets, or of no page's name is refused, and nothing is written."""
    one = made_attribution([[1.0], [2.0]])
    with pytest.raises(InvalidInputError, match="at least one"):
        Report({})
    with pytest.raises(InvalidTypeError, match="holds a str"):
        Report(["integrated_gradients"])
    with pytest.raises(InvalidInputError, match="explains other inputs"):
        Report([one, made_attribution([[1.0], [2.0]], inputs=[[5.0], [5.0]])])
    with pytest.raises(InvalidInputError, match="explains other targets"):
        Report([one, made_attribution([[1.0], [2.0]], scores=(0.0, 1.0), outputs=("a", "b"))])
    window = made_attribution([[1.0], [2.0]], target_timestep=0, target_last=1)
    for other in (
        one,
        *(made_attribution([[1.0], [2.0]], target_timestep=0, **more) for more in ({}, {"target_last": 0})),
    ):
        with pytest.raises(InvalidInputError, match="explains other targets"):
            Report([window, other])
    assert Report([window, made_attribution([[1.0], [2.0]], target_timestep=0, target_last=1)]).to_html()
    with pytest.raises(InvalidInputError, match=r"does not end in \.html"):
        Report(one).save(tmp_path / "report.pdf")
    assert list(tmp_path.iterdir()) == []


def test_only_named_timesteps_are_shaded() -> None:
    """A span is shaded where the words name it; "throughout" and "here and there" name none."""

    def spans(values: object, **more: object) -> list[list[int]]:
        html = Report(made_attribution(values, **more)).to_html()
        pack = gzip.decompress(base64.b64decode(re.search(r'data-sample="0">([^<]+)<', html)[1]))
        return json.loads(re.search(rb'"spans":(\[.*?\]),"', pack)[1])

    assert spans([[0.0], [0.0], [1.0], [0.0]]) == [[2, 2]]
    assert spans([[1.0], [1.0], [1.0], [1.0]], resolution="feature") == []
    assert spans([[1.0]] * 2) == []
    scattered = [[1.0 if step % 3 == 0 else 0.0] for step in range(16)]
    assert "here and there" in text_of(Report(made_attribution(scattered)).to_html())
    assert spans(scattered) == []


def test_every_samples_table_has_its_name() -> None:
    """Where there are several samples, the folded tables say whose they are."""
    model = LSTMModel(LSTMConfig(input_size=2, hidden_sizes=(4,)))
    inputs = torch.randn(2, 5, 2)
    found = explain(model, inputs, ["deeplift", "integrated_gradients"], sample_names=["<a>", "b"])
    text = text_of(Report(found).to_html())
    for name in ("<a>", "b"):
        assert f"Every timestep as a table, {name}" in text
        assert f"Where the explainers agree, {name}" in text
    assert "Every timestep as a table, sample 2" in text_of(Report(found, redact=True).to_html())


def test_weak_tokens_stay_quiet() -> None:
    """Of a text only strong tokens carry a number, weak ones are not coloured, and every one tells its number."""
    words = ["strong", "medium", "weak", ""]
    values = [[-10.0], [1.5], [0.1], [0.0]]
    html = Report(made_attribution(values, features=("token",), token=words)).to_html()
    spans = re.findall(r'<span class="([^"]*)" title="([^"]*)" data-step="\d">([^<]*)(<sup>)?', html)
    minus = "\N{MINUS SIGN}"
    assert spans == [
        ("lowers s4", f"{minus}10", "strong", "<sup>"), ("raises s1", "+1.5", "medium", "<sup>"),
        ("", "+0.1", "weak", ""), ("", "0", "\N{OPEN BOX}", ""),
    ]  # fmt: skip


def test_failed_save_leaves_the_old_page(tmp_path, monkeypatch) -> None:
    """If making the page fails, the page of before stays and nothing else is left."""
    path = tmp_path / "report.html"
    path.write_text("old")
    monkeypatch.setattr("gatelens.reports.report.narrate", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Report(made_attribution([[1.0]])).save(path)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_notebook_view_has_the_words() -> None:
    """In a notebook the headline, reasons and checks are shown."""
    view = Report(made_attribution([[1.0], [3.0]]))._repr_html_()
    assert "The model predicts" in view
    assert "Read with care" in view


def test_model_is_left_as_found(glucose) -> None:
    """Recording the trace for a page changes neither mode nor hooks nor flags."""
    model = Foreign().train()
    found = IntegratedGradients(model).explain(np.random.default_rng(0).normal(size=(1, 4, 3)), target=0)
    Report(found, model=model).to_html()
    assert all(part.training for part in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(part._forward_hooks for part in model.modules())


def test_large_pages_are_thinned_and_told(monkeypatch) -> None:
    """Past the limit a page keeps the strongest units, then none; attributions stay; the page and `notes` say so."""
    model = LSTMModel(LSTMConfig(input_size=2, hidden_sizes=(64,)))
    found = IntegratedGradients(model).explain(torch.randn(1, 60, 2))
    whole = Report(found, model=model)
    size = sum(len(part) for part in re.findall(r'data-sample="[0-9]+">([^<]+)<', whole.to_html()))
    assert whole.notes == []
    monkeypatch.setattr("gatelens.reports.report.LARGEST_BYTES", size - 1)
    thinned = Report(found, model=model)
    html = thinned.to_html()
    assert "only the 32 strongest units of each layer are in it" in thinned.notes[0]
    assert thinned.notes[0] in text_of(html)
    assert "Cell state" in html
    monkeypatch.setattr("gatelens.reports.report.LARGEST_BYTES", 6000)
    bare = Report(found, model=model)
    html = bare.to_html()
    assert "it is without its units" in bare.notes[0]
    assert 'data-panel="cell_state"' not in html
    assert 'data-panel="steps-0"' in html
    monkeypatch.setattr("gatelens.reports.report.LARGE_BYTES", 1000)
    bare.to_html()
    assert bare.notes[-1].startswith("This page is large")


def test_the_page_says_how_to_make_it_again(glucose) -> None:
    """The Python on the page runs, and gives the same numbers."""
    from gatelens.reports.about import python_again

    model, found = glucose
    code = python_again(found)
    assert code in unescape(Report(found, model=model).to_html())
    code = code.replace('"MODEL"', repr(str(model_path()))).replace('"INPUT.csv"', repr(str(data_path())))
    code = code.replace("model.data)\n", 'model.data, end="2010-10-05 18:03")\n').rsplit("\n", 1)[0]
    scope: dict = {}
    exec(code, scope)
    for name, again in scope["found"].items():
        np.testing.assert_allclose(again.values, found[name].values, rtol=1e-6)


def test_the_gates_are_told_in_words() -> None:
    """What the gates did on the page's sequences is what `gatelens inspect` says of them, layer by layer."""
    model = LSTMModel(LSTMConfig(input_size=3, hidden_sizes=(5, 4), bidirectional=True))
    inputs, lengths = torch.randn(3, 9, 3), [9, 4, 6]
    found = explain(model, inputs, ["input_x_gradient"], lengths=lengths)
    page = text_of(Report(found, model=model).to_html())
    for name, statistics in gate_statistics(model, inputs, lengths=lengths).items():
        assert name in page
        for sentence in gate_sentences(statistics):
            assert sentence in page
    assert "The gates, in words" not in text_of(Report(found).to_html())
