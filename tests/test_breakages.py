"""Things that once went wrong silently: each is now right, or refused with a sentence."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from gatelens.explainers import (
    LIME,
    GateSaliency,
    IntegratedGradients,
    KernelSHAP,
    available,
    explain,
)
from gatelens.models import (
    DataSpec,
    FeatureSpec,
    InvalidInputError,
    LSTMConfig,
    LSTMModel,
    ModelError,
    SequenceData,
    WindowSpec,
    record,
)
from gatelens.models.table import read_table
from gatelens.reports import Report
from gatelens.reports.evidence import agreement
from gatelens.reports.prediction import comparison
from gatelens.reports.reasons import find_reasons
from gatelens.reports.wording import percent
from helpers.made import made_attribution


class Last(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(2, 4, batch_first=True)
        self.head = nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs):
        self.calls += 1
        return self.head(self.lstm(inputs)[0][:, -1])


class Horizon(Last):
    """Three future steps, whatever the length of the input."""

    def forward(self, inputs):
        return super().forward(inputs)[..., None]


class Stepwise(Last):
    def forward(self, inputs):
        state = None
        for step in range(inputs.shape[1]):
            output, state = self.lstm(inputs[:, step : step + 1], state)
        return self.head(output[:, -1])


INPUTS = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(1))


def test_gates_of_another_time_axis_are_refused() -> None:
    """An LSTM called step by step has no gates at the inputs' timesteps, and gate saliency says so."""
    with pytest.raises(ModelError, match="reads all timesteps of the inputs in one call"):
        GateSaliency(Stepwise()).explain(INPUTS)


@pytest.mark.parametrize("lengths", [[3, 4, 3], [5, 3, 5], [2, 3, 5]])
def test_a_horizon_is_not_the_time_axis(lengths) -> None:
    """Future steps of a model without lengths are explained at the last of them, whatever the sequences' lengths."""
    model = Horizon()
    found = IntegratedGradients(model).explain(INPUTS, lengths=lengths)
    expected = [
        float(model.eval()(INPUTS[row : row + 1, :length])[0, -1, 0].detach()) for row, length in enumerate(lengths)
    ]
    np.testing.assert_allclose(found.prediction, expected, atol=1e-6)
    KernelSHAP(model, samples=20).explain(INPUTS, lengths=lengths)


def test_functions_get_the_precision_they_are_given() -> None:
    """A function of float64 inputs is not fed float32."""
    found = KernelSHAP(lambda a: (a[:, :, 0] - 1.7e9).sum(1), baseline=1.7e9).explain(np.full((1, 3, 1), 1.7e9 + 50))
    np.testing.assert_allclose(found.timesteps, [[50.0, 50.0, 50.0]])


def test_changed_outputs_are_not_rebuilt() -> None:
    """Where a hook changes an LSTM's output, its gates cannot be rebuilt, and record says so."""
    model = Last()
    handle = model.lstm.register_forward_hook(lambda module, args, output: (output[0] * 3, output[1]))
    with record(model) as recording:
        model(INPUTS)
    with pytest.raises(ModelError, match="a hook or a subclass changes it"):
        _ = recording.trace
    handle.remove()


def test_reports_compare_only_explanations_of_one_thing() -> None:
    """Other timesteps, outputs or models are refused, and so is another model than the explained one."""
    per_step = LSTMModel(LSTMConfig(input_size=2, hidden_sizes=(3,), pooling="none"))
    first, second = (IntegratedGradients(per_step).explain(INPUTS, target=(step, 0)) for step in (0, 4))
    with pytest.raises(InvalidInputError, match="explains other targets"):
        Report([first, second])
    model, other = (LSTMModel(LSTMConfig(input_size=2, hidden_sizes=(3,), task="binary")) for _ in range(2))
    logit = IntegratedGradients(model).explain(INPUTS)
    with pytest.raises(InvalidInputError, match="another output"):
        Report([logit, IntegratedGradients(model, output="probability").explain(INPUTS)])
    with pytest.raises(InvalidInputError, match="another model"):
        Report([logit, IntegratedGradients(other).explain(INPUTS)])
    with pytest.raises(InvalidInputError, match="not the one that was explained"):
        Report(logit, model=other)


def test_sampled_shapley_values_are_told_as_an_estimate() -> None:
    """A KernelSHAP that did not see every coalition says how many it saw, and asks for care where these are few."""
    model = LSTMModel(LSTMConfig(input_size=2, hidden_sizes=(3,)))
    few = KernelSHAP(model, samples=60).explain(torch.randn(1, 24, 2))
    assert few.diagnostic("exhaustive")[0] == 0
    assert "an estimate from 60 coalitions of 24 players; more samples" in Report(few).to_html()
    cells = KernelSHAP(model, players="cell").explain(torch.randn(1, 24, 2))
    assert cells.diagnostic("players")[0] == 48
    whole = KernelSHAP(model).explain(INPUTS[:1])
    assert whole.diagnostic("exhaustive")[0] == 1
    assert "an estimate from" not in Report(whole).to_html()


def test_redaction_hides_tokens() -> None:
    """A redacted page of a text model holds none of its words."""
    data = DataSpec(vocabulary=("<pad>", "Smith-Jones", "HIV-positive"))
    model = LSTMModel(LSTMConfig(vocab_size=3, embedding_dim=2, hidden_sizes=(3,)), data)
    found = explain(
        model, torch.tensor([[1, 2, 1]]), ["integrated_gradients", "lime"], options={"lime": {"samples": 50}}
    )
    html = Report(found, model=model, redact=True).to_html()
    assert "Smith-Jones" not in html
    assert "HIV-positive" not in html
    assert "Smith-Jones" in Report(found, model=model).to_html()


def test_the_pad_token_is_the_embeddings() -> None:
    """A foreign model's padding token is its embedding's padding_idx; where none is named, "pad" is refused."""

    class Text(nn.Module):
        def __init__(self, padding):
            super().__init__()
            self.embedding = nn.Embedding(6, 3, padding_idx=padding)
            self.lstm = nn.LSTM(3, 2, batch_first=True)

        def forward(self, ids):
            return self.lstm(self.embedding(ids))[0][:, -1]

    found = KernelSHAP(Text(5), baseline="pad").explain(torch.tensor([[1, 2, 3]]), target=0)
    assert found.dataset["baseline"].to_numpy().ravel().tolist() == [5, 5, 5]
    with pytest.raises(InvalidInputError, match="padding_idx"):
        KernelSHAP(Text(None), baseline="pad").explain(torch.tensor([[1, 2, 3]]), target=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_float_types(dtype) -> None:
    """Every explainer works on models of other float types."""
    model = LSTMModel(LSTMConfig(input_size=2, hidden_sizes=(3,))).to(dtype)
    methods = ["integrated_gradients", "gradient_shap", "kernel_shap", "lime", "gate_saliency"]
    options = {"integrated_gradients": {"steps": 8}, "lime": {"samples": 50}}
    for found in explain(model, INPUTS, methods, options=options).values():
        assert np.isfinite(found.values).all()


def test_buffers_and_random_state_are_put_back() -> None:
    """A module that counts in a buffer or draws in its forward is left as it was, random state included."""

    class Noisy(Last):
        def forward(self, inputs):
            return super().forward(nn.functional.dropout(inputs, 0.5, training=True))

    model = Noisy()
    before = torch.get_rng_state()
    found = explain(model, INPUTS, ["lime"], target=0, options={"lime": {"samples": 20}})
    Report(found, model=model).to_html()
    assert float(model.calls) == 0
    assert torch.equal(torch.get_rng_state(), before)


def test_inside_inference_mode() -> None:
    """Gradient methods work inside torch.inference_mode, on tensors made there."""
    model = LSTMModel(LSTMConfig(input_size=2, hidden_sizes=(3,)))
    expected = IntegratedGradients(model).explain(INPUTS).values
    with torch.inference_mode():
        found = IntegratedGradients(model).explain(INPUTS * 1.0)
        GateSaliency(model).explain(INPUTS * 1.0)
    np.testing.assert_allclose(found.values, expected, atol=1e-6)


def test_an_lstm_that_is_not_called() -> None:
    """An unused LSTM is named as such."""

    class Unused(Last):
        def forward(self, inputs):
            return self.head(torch.cat([inputs[:, -1], inputs[:, 0]], dim=1))

    with pytest.raises(ModelError, match=r"no nn\.LSTM was called"):
        GateSaliency(Unused()).explain(INPUTS, target=0)


def test_models_that_could_not_be_loaded_are_not_saved(tmp_path) -> None:
    """Pruned and mixed-type models, and the working folder as a goal, are refused before anything is written."""
    from torch.nn.utils import prune

    pruned = LSTMModel(LSTMConfig(input_size=2, hidden_sizes=(3,)))
    prune.random_unstructured(pruned.head, "weight", 0.5)
    with pytest.raises(InvalidInputError, match="pruned"):
        pruned.save(tmp_path / "m")
    mixed = LSTMModel(LSTMConfig(input_size=2, hidden_sizes=(3,)))
    mixed.head.double()
    with pytest.raises(InvalidInputError, match="mixed types"):
        mixed.save(tmp_path / "m")
    with pytest.raises(InvalidInputError, match="the folder you are in"):
        LSTMModel(LSTMConfig(input_size=2)).save(".")
    assert list(tmp_path.iterdir()) == []


def test_plugins_that_exit_or_promise_nonsense(monkeypatch) -> None:
    """A plug-in that exits on import, or names a need that does not exist, is listed with its error."""

    def leave():
        sys.exit(3)

    odd = type("Odd", (LIME,), {"needs": "tokens"})
    points = [
        SimpleNamespace(name="exits", value="a:b", dist=None, load=leave),
        SimpleNamespace(name="odd", value="a:Odd", dist=None, load=lambda: odd),
    ]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)
    found = available()
    assert "SystemExit" in found["exits"].error
    assert "needs 'tokens'" in found["odd"].error


@pytest.mark.parametrize("name", ["a.csv.gz", "a.zip", "a.csv.xz", "a.tar"])
def test_damaged_archives(tmp_path, name: str) -> None:
    """A damaged compressed file is a sentence, not an error of its library."""
    (tmp_path / name).write_bytes(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff+I")
    with pytest.raises(InvalidInputError, match="is not a readable CSV"):
        read_table(tmp_path / name)


def test_a_feature_may_be_called_token(tmp_path) -> None:
    """Whether a model reads tokens is told by its inputs, not by a feature's name."""
    data = DataSpec(features=(FeatureSpec(name="token", unit="USD"),))
    model = LSTMModel(LSTMConfig(input_size=1, hidden_sizes=(3,)), data)
    html = Report(IntegratedGradients(model).explain(torch.randn(1, 4, 1)), model=model).to_html()
    assert "id 0" not in html


@pytest.mark.parametrize("text", ["\ud800", "a\0b"])
def test_text_no_file_can_hold(tmp_path, text: str) -> None:
    """Half characters and NUL are refused in a data description and replaced in sample names."""
    with pytest.raises(InvalidInputError, match="no file can"):
        DataSpec(target=text)
    model = LSTMModel(LSTMConfig(input_size=2, hidden_sizes=(3,)))
    found = IntegratedGradients(model).explain(INPUTS[:1], sample_names=[text])
    found.save(tmp_path / "a.nc")
    Report(found, model=model).save(tmp_path / "a.html")


def test_what_is_left_out_is_said() -> None:
    """Sequences too short for a window, and newest rows after a pause, are named in the notes."""
    import pandas as pd

    spec = DataSpec(features=(FeatureSpec(name="x"),), window=WindowSpec(length=3))
    frame = pd.DataFrame({"id": ["a"] * 4 + ["b"] * 2, "x": range(6)})
    assert (
        "1 of 2 sequences are too short for a window and left out: b"
        in SequenceData.from_frame(frame, spec, id_column="id").notes
    )
    timed = DataSpec(features=spec.features, window=WindowSpec(length=3, max_gap_seconds=3600, time_column="t"))
    hours = [f"2020-01-01 0{hour}:00" for hour in range(4)] + ["2020-03-01 00:00", "2020-03-01 01:00"]
    data = SequenceData.from_frame(pd.DataFrame({"t": hours, "x": range(6)}), timed)
    assert data.sample_names == ("2020-01-01 03:00",)
    assert any("the newest 2 rows follow a pause" in note for note in data.notes)


def test_small_things() -> None:
    """A task that contradicts the model is refused, numpy integers are whole numbers, percent keeps its word."""
    with pytest.raises(InvalidInputError, match="the model knows"):
        IntegratedGradients(LSTMModel(LSTMConfig(input_size=2, output_size=3, task="multiclass")), task="regression")
    model = LSTMModel(LSTMConfig(input_size=np.int64(2), hidden_sizes=(np.int32(3),)))
    assert type(model.config.input_size) is int
    IntegratedGradients(model, steps=np.int64(4), seed=np.int64(1)).explain(INPUTS)
    assert percent(0.005) == "under 1 %"
    assert percent(-0.002) == "about 0 %"


def test_the_span_is_told_as_it_is() -> None:
    """Scattered pushes are not called a span, and the state is that of the timesteps that pushed."""
    values = np.zeros((9, 1))
    values[[0, 8]] = 1.0
    values[1:8] = -0.05
    inputs = np.zeros((9, 1))
    inputs[[0, 8]] = 4.0
    made = made_attribution(
        values, inputs=inputs, feature_unit=("K",), feature_center=(0.0,), feature_scale=(1.0,), feature_group=("t",)
    )
    text = find_reasons(made, 0)[0][0].text
    assert text == "raised it, here and there, at 2 of 9 timesteps, when it averaged 4 K (baseline 0)."


def test_words_tell_which_output_and_numbers_apart() -> None:
    """A model of several outputs names the explained one; numbers that differ are written so that they do."""
    data = DataSpec(outputs=("stay", "cost"), target="outcome")
    model = LSTMModel(LSTMConfig(input_size=2, hidden_sizes=(3,), output_size=2), data)
    html = Report(IntegratedGradients(model).explain(INPUTS[:1], target="cost"), model=model).to_html()
    assert "The model predicts outcome, cost:" in html
    close = made_attribution([[0.00552]], baseline_prediction=285.4)
    assert "The prediction is 285.41; for an input of zeros it would be 285.4." in comparison(close, 0)


def test_noise_is_not_disagreement() -> None:
    """Attributions that differ only in rounding noise agree."""
    noise = np.random.default_rng(0).normal(size=(2, 9, 1)) * 1e-8
    noise[:, 4] = 1.0
    one, two = (made_attribution(part, method=name) for part, name in zip(noise, ("kernel_shap", "lime"), strict=True))
    assert agreement({"one": one, "two": two}, 0)[0].correlation == pytest.approx(1)


def test_missing_gates_are_explained_on_the_page() -> None:
    """Where the gates cannot be laid out by timestep, the page says why they are missing; else it shows them."""

    class StartToken(Last):
        def forward(self, inputs):
            return super().forward(torch.cat([inputs[:, :1], inputs], dim=1))

    for model, missing in ((StartToken(), True), (Last(), False)):  # Last takes no lengths: it sees each by itself
        found = IntegratedGradients(model).explain(INPUTS, target=0, lengths=[5, 3, 2])
        assert ("ran over 1 sequences of 3 timesteps" in Report(found, model=model).to_html()) == missing


def test_default_methods_fit_the_model() -> None:
    """Without methods, those that work on the model are used: functions and modules without an LSTM included."""
    options = {"lime": {"samples": 50}}
    assert list(explain(lambda a: a.sum(axis=(1, 2)), INPUTS, options=options)) == ["temporal_shapley", "lime"]
    plain = nn.Sequential(nn.Flatten(), nn.Linear(10, 1))
    assert list(explain(plain, INPUTS, options=options)) == ["integrated_gradients", "temporal_shapley", "lime"]
    found = explain(Last(), INPUTS, target=0, options=options)
    assert list(found) == ["integrated_gradients", "temporal_shapley", "gate_saliency", "lime"]
    own = LSTMModel(LSTMConfig(input_size=2, hidden_sizes=(3,)))
    assert next(iter(explain(own, INPUTS, options=options))) == "deeplift"


def test_sequence_data_brings_its_lengths() -> None:
    """A SequenceData is explained with its own lengths and names, by explain and by an explainer."""
    import pandas as pd

    frame = pd.DataFrame({"id": ["a"] * 4 + ["b"] * 2, "x": [1.0, 2, 3, 4, 5, 6]})
    data = SequenceData.from_frame(frame, DataSpec(features=(FeatureSpec(name="x"),)), id_column="id")
    model = LSTMModel(LSTMConfig(input_size=1, hidden_sizes=(3,), pooling="mean"))
    found = IntegratedGradients(model).explain(data)
    assert found.lengths.tolist() == [4, 2]
    assert found.sample_names == data.sample_names
    again = explain(model, data, ["integrated_gradients"])["integrated_gradients"]
    np.testing.assert_array_equal(again.values, found.values)


def test_several_patients_in_one_table_are_noticed() -> None:
    """A table in which many rows repeat a time is refused, with the way to tell its sequences apart."""
    import pandas as pd

    times = [f"2020-01-01 0{hour}:00" for hour in range(6)] * 2
    spec = DataSpec(features=(FeatureSpec(name="x"),), window=WindowSpec(time_column="t"))
    with pytest.raises(InvalidInputError, match=r"6 of 12 rows repeat a time.*--id-column"):
        SequenceData.from_frame(pd.DataFrame({"t": times, "x": range(12)}), spec)
