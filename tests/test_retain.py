"""RETAIN: the paper's equations in a float64 loop are the oracle, of scores and of each cell's contribution."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gatelens.explainers import RetainContributions, explain
from gatelens.explainers.registry import _works_on
from gatelens.models import (
    DataSpec,
    FeatureSpec,
    InvalidInputError,
    InvalidTypeError,
    ModelError,
    Predictor,
    SavedModelError,
    evaluate,
    fit,
    load,
    model_hash,
    open_model,
    save,
)
from gatelens.models.retain import RETAIN, RETAINConfig
from gatelens.reports import Report, describe
from helpers.explained import LENGTHS, linear_function, lstm, sequences, token_ids

REVERSED = {"gru": torch.nn.GRUCell, "lstm": torch.nn.LSTMCell}


def retain(seed=0, *, strength=2.0, double=True, **config):
    """Return a seeded RETAIN in eval mode, its weights so large that its attentions move."""
    if "vocab_size" not in config:
        config = {"input_size": 3, **config}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = RETAIN(RETAINConfig(**{"embedding_dim": 5, "alpha_size": 4, "beta_size": 3, **config}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(strength)
    return (model.double() if double else model).eval()


def inputs_for(model, batch=3, steps=6):
    """Return floats (B, T, D) or ids (B, T)."""
    return token_ids(batch, steps) if model.config.reads_tokens else sequences(batch, steps, 3, double=True)


@torch.no_grad()
def states(cell, weights, embedded):
    """Return the hidden states (L, H) of a cell that reads embeddings (L, E) from the last to the first."""
    size = weights["weight_hh_l0"].shape[1]
    step = REVERSED[cell](embedded.shape[1], size).double()
    step.load_state_dict({name.removesuffix("_l0"): value for name, value in weights.items()})
    found, state = [None] * len(embedded), None
    for t in reversed(range(len(embedded))):
        state = step(embedded[t][None], state)
        found[t] = (state[0] if cell == "lstm" else state)[0]
    return torch.stack(found)


@torch.no_grad()
def by_hand(model, sequence, output):
    """Return the score and the contributions (L, D) of one sequence, by the paper's equations, cell by cell."""
    state = {name: value.detach() for name, value in model.state_dict().items()}
    table = state["embedding.weight"]
    embedded = table[sequence] if model.config.reads_tokens else sequence @ table.T  # (L, E)
    hidden = {
        name: states(
            model.config.cell,
            {key.split(".")[1]: value for key, value in state.items() if key.startswith(f"{name}_network")},
            embedded,
        )
        for name in ("alpha", "beta")
    }
    energy = [float(state["alpha_score.weight"][0] @ g + state["alpha_score.bias"][0]) for g in hidden["alpha"]]
    alpha = np.exp(energy) / np.exp(energy).sum()
    context, rows = 0.0, []
    for t, h in enumerate(hidden["beta"]):
        beta = torch.tanh(state["beta_gate.weight"] @ h + state["beta_gate.bias"])
        context = context + alpha[t] * beta * embedded[t]
        if model.config.reads_tokens:
            rows.append([float(alpha[t] * (state["head.weight"][output] @ (beta * embedded[t])))])
        else:
            rows.append(
                [
                    float(alpha[t] * (state["head.weight"][output] @ (beta * table[:, d])) * sequence[t, d])
                    for d in range(3)
                ]
            )
    return float(state["head.weight"][output] @ context + state["head.bias"][output]), np.array(rows)


KINDS = [{"cell": cell, **reads} for cell in ("gru", "lstm") for reads in ({}, {"vocab_size": 9})]


# -- the model -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_scores_and_contributions_are_the_papers(config):
    """Scores, and what each cell gives to each of them, are those of a loop over the equations, padded or not."""
    model = retain(output_size=2, **config)
    inputs = inputs_for(model)
    scores = model(inputs, LENGTHS).detach()
    for output in range(2):
        given = model.contributions(inputs, LENGTHS, output=output).detach().numpy()
        for row, length in enumerate(LENGTHS):
            score, cells = by_hand(model, inputs[row, :length], output)
            assert float(scores[row, output]) == pytest.approx(score, abs=1e-12)
            np.testing.assert_allclose(given[row, :length], cells, rtol=0, atol=1e-12)
            assert not given[row, length:].any()


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_contributions_sum_to_the_score_less_the_bias(config):
    """The sum over all cells is score - bias to 1e-12, for an output of each sequence's own."""
    model, outputs = retain(output_size=3, task="multiclass", **config), torch.tensor([2, 0, 1])
    inputs = inputs_for(model)
    sums = model.contributions(inputs, LENGTHS, output=outputs).sum(dim=(1, 2))
    expected = model(inputs, LENGTHS)[torch.arange(3), outputs] - model.head.bias[outputs]
    torch.testing.assert_close(sums, expected, rtol=0, atol=1e-12)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.sampled_from(["gru", "lstm"]), st.integers(0, 1000))
@settings(max_examples=20)
def test_padding_is_no_influence(lengths, cell, seed):
    """In a padded batch with garbage in the padding, even NaN, each sequence has the scores it has alone."""
    model = retain(seed, cell=cell)
    inputs = sequences(len(lengths), 5, 3, seed=seed, double=True)
    dirty = inputs.clone()
    for row, length in enumerate(lengths):
        dirty[row, length:] = float("nan")
    alone = torch.cat([model(inputs[row : row + 1, :length]) for row, length in enumerate(lengths)])
    torch.testing.assert_close(model(dirty, lengths), alone, rtol=0, atol=1e-12)


def test_it_reads_backwards():
    """A change at a timestep moves the attentions at it and before it, not after it."""
    model, inputs = retain(), sequences(1, 6, 3, double=True)
    changed = inputs.clone()
    changed[0, 3] += 1.0
    (_, beta), (_, other) = model.attention(inputs), model.attention(changed)
    moved = (beta != other).any(dim=2)[0].tolist()
    assert moved == [True, True, True, True, False, False]


def test_attention_sums_to_one():
    """Each valid timestep has its share alpha, which sum to 1; beta lies between -1 and 1."""
    alpha, beta = (part.detach() for part in retain().attention(sequences(3, 6, 3, double=True), LENGTHS))
    torch.testing.assert_close(alpha.sum(dim=1), torch.ones(3, dtype=torch.float64))
    assert not alpha[2, 2:].any()
    assert float(beta.abs().max()) <= 1


def test_padding_tokens_give_nothing():
    """The embedding of "no token" is 0, also after training, so a sequence of them has the bias as its score."""
    model = retain(vocab_size=5, padding_index=2, strength=1.0, double=False)
    fit(model, (token_ids(20, 4, vocab_size=5).numpy(), np.arange(20.0)), epochs=2)
    assert not model.embedding.weight[2].any()
    score = model(torch.full((1, 4), 2))
    torch.testing.assert_close(score[0], model.head.bias)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({}, InvalidInputError, "input_size is missing"),
        ({"input_size": 0}, InvalidInputError, "input_size is 0"),
        ({"input_size": 2, "embedding_dim": 0}, InvalidInputError, "embedding_dim is 0"),
        ({"input_size": 2, "alpha_size": "4"}, InvalidTypeError, "alpha_size is '4'"),
        ({"input_size": 2, "cell": "grru"}, InvalidInputError, "cell is 'grru'.*Did you mean 'gru'"),
        ({"input_size": 2, "vocab_size": 3}, InvalidInputError, "input_size=2 stands beside vocab_size=3"),
        ({"vocab_size": 3, "padding_index": 3}, InvalidInputError, "padding_index is 3"),
        ({"input_size": 2, "task": "multiclass"}, InvalidInputError, "one output a class"),
        ({"input_size": 2, "dropout": 1}, InvalidInputError, "dropout is 1"),
    ],
)
def test_configs_that_are_refused(values, error, message):
    """Values out of range, and parts that do not fit together, are refused by name."""
    with pytest.raises(error, match=message):
        RETAINConfig(**values)


def test_config_round_trip():
    """A config comes back from its plain values; unknown ones are refused."""
    config = RETAINConfig(input_size=np.int64(3), cell="lstm", task="binary")
    assert RETAINConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(InvalidInputError, match="the RETAIN config has the unknown entry 'pooling'"):
        RETAINConfig.from_dict({"input_size": 3, "pooling": "last"})


# -- saved, trained, described ---------------------------------------------------------------------------------------

DATA = DataSpec(features=tuple(FeatureSpec(name=name) for name in "abc"), classes=("no", "yes"), target="a thing")


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_what_was_saved_comes_back(tmp_path, config):
    """Scores, weights, config, data and hash are those of the model that was saved, by `load` and `open_model`."""
    model = retain(task="binary", **config)
    model.data = None if "vocab_size" in config else DATA
    folder = model.save(tmp_path / "model")
    inputs = inputs_for(model)
    for loaded in (load(folder), open_model(folder)):
        assert type(loaded) is RETAIN
        assert (loaded.config, model_hash(loaded), loaded.training) == (model.config, model_hash(model), False)
        assert loaded.data == (model.data or DataSpec())
        torch.testing.assert_close(loaded(inputs, LENGTHS), model(inputs, LENGTHS), rtol=0, atol=1e-12)
    loaded.train()(inputs).sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())


def test_what_cannot_be_loaded_is_not_saved(tmp_path):
    """A module of another kind is refused, and nothing is written."""
    with pytest.raises(InvalidTypeError, match="model is a LSTM; expected an LSTMModel or a RETAIN"):
        save(torch.nn.LSTM(1, 1), tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format="gatelens.RETAINS"), "expected 'gatelens.LSTMModel' or 'gatelens.RETAIN'"),
        (lambda c: c.update(format=["gatelens.RETAIN"]), "has format"),
        (lambda c: c.update(format="gatelens.LSTMModel"), "unknown entry"),
        (lambda c: c["model"].update(cell="lstm"), "alpha_network.weight_ih_l0 has shape"),
        (lambda c: c["model"].update(embedding_dim=10**30), "too large for any machine .*embedding_dim=1000"),
    ],
)
def test_damaged_configs_are_refused(tmp_path, change, message):
    """Another class's format, another architecture and absurd sizes are refused."""
    folder = retain().save(tmp_path / "model")
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    change(values)
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(SavedModelError, match=message):
        load(folder)


@pytest.mark.parametrize(("task", "outputs"), [("regression", 1), ("regression", 2), ("binary", 1), ("multiclass", 3)])
def test_it_learns_every_task(task, outputs):
    """`fit` lowers the loss of every task, with variable lengths, and `evaluate` measures it."""
    model = retain(task=task, output_size=outputs, double=False, strength=1.0, dropout=0.1)
    inputs = sequences(60, 6, 3)
    lengths = torch.arange(60) % 6 + 1
    score = inputs[:, 0, 0]
    targets = {
        "regression": torch.stack([score] * outputs, dim=1),
        "binary": score > 0,
        "multiclass": (score > -0.5).long() + (score > 0.5),
    }[task]
    examples = (inputs, targets, lengths)
    history = fit(model, examples, epochs=25, learning_rate=0.02).to_dict()
    losses = next(values for name, values in history.items() if "loss" in name)
    assert losses[-1] < 0.6 * losses[0]
    rows = evaluate(model, examples, train=examples).rows
    own, trivial = list(rows.values())[:2]
    measure = "r2" if task == "regression" else "accuracy"
    assert own[measure] > trivial[measure] + 0.2


def test_the_model_card_says_what_it_is():
    """The card names the architecture, its layers and what it reads."""
    card = describe(retain(task="binary", cell="lstm"))
    rows = dict(card.rows)
    assert rows["Kind"] == "RETAIN, two LSTMs of 4 and 3 units that read backwards, binary, 1 output"
    assert rows["Reads"] == "3 features a timestep"
    names = [layer[0] for layer in card.layers]
    assert names == ["embedding", "alpha_network", "alpha_score", "beta_network", "beta_gate", "head"]


def test_traces_stand_at_the_inputs_timesteps():
    """Of cell "lstm" recorded hidden states are those of the loop, where the inputs have them; a GRU has no gates."""
    model, inputs = retain(cell="lstm"), sequences(2, 5, 3, double=True)
    hidden = model.trace(inputs, [5, 3])["alpha_network.0"].hidden_state
    weights = {name.split(".")[1]: v for name, v in model.state_dict().items() if name.startswith("alpha_network")}
    for row, length in enumerate((5, 3)):
        expected = states("lstm", weights, model.embedding(inputs[row, :length]).detach())
        torch.testing.assert_close(hidden[row, :length], expected, rtol=0, atol=1e-12)
        assert not hidden[row, length:].any()
    with pytest.raises(ModelError, match="LSTM"):
        retain().trace(inputs)


# -- its explainer, and the others -----------------------------------------------------------------------------------


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_the_explainer_gives_the_models_contributions(config):
    """With the zero baseline (padding, of tokens) attributions are the model's own, and sum to score less bias."""
    model = retain(output_size=3, task="multiclass", **config)
    inputs = inputs_for(model)
    result = explain(model, inputs, "retain", target=[2, 0, 1], lengths=LENGTHS)["retain"]
    expected = model.contributions(inputs, LENGTHS, output=torch.tensor([2, 0, 1])).detach().numpy()
    np.testing.assert_allclose(result.values, expected, rtol=0, atol=1e-12)
    bias = model.head.bias[torch.tensor([2, 0, 1])].detach().numpy()
    np.testing.assert_allclose(result.values.sum(axis=(1, 2)), result.prediction - bias, rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.baseline_prediction, bias, rtol=0, atol=1e-12)


@pytest.mark.parametrize("baseline", [0.5, "linear", "hold_last"])
def test_another_baseline_is_subtracted_cell_by_cell(baseline):
    """With any baseline the sum is f(x) - f(baseline), and equal sequences give nothing."""
    model, inputs = retain(), sequences(3, 6, 3, double=True)
    result = RetainContributions(model, baseline=baseline).explain(inputs, lengths=LENGTHS)
    np.testing.assert_allclose(result.completeness_gap, 0, atol=1e-12)
    same = RetainContributions(model, baseline=inputs[0]).explain(inputs[:1])
    assert not same.values.any()


def test_small_batches_give_the_same():
    """How many rows fit the budget changes nothing."""
    model, inputs = retain(), sequences(5, 6, 3, double=True)
    small = RetainContributions(Predictor(model, memory_bytes=1)).explain(inputs)
    np.testing.assert_allclose(small.values, RetainContributions(model).explain(inputs).values, rtol=0, atol=1e-14)


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_other_explainers_take_it(config):
    """Gradient and black-box methods explain the same number; gate methods where there are gates; others refuse."""
    model = retain(task="binary", **config)
    inputs = inputs_for(model)
    methods = ["retain", "integrated_gradients", "gradient_shap", "saliency", "input_x_gradient", "smooth_grad",
               "kernel_shap", "temporal_shapley", "lime", "occlusion", "temporal_saliency_rescaling"]  # fmt: skip
    methods += ["gate_saliency"] if config["cell"] == "lstm" else []
    found = explain(model, inputs, methods, lengths=LENGTHS, options={"lime": {"samples": 100}})
    expected = model(inputs, LENGTHS)[:, 0].detach().numpy()
    for result in found.values():
        np.testing.assert_allclose(result.prediction, expected, rtol=0, atol=1e-12)
        assert result.values.any()
        assert not any(result.values[row, length:].any() for row, length in enumerate(LENGTHS))
    np.testing.assert_allclose(found["integrated_gradients"].completeness_gap, 0, atol=0.02)
    for name in ("deeplift", "lrp", "attention", "cell_decomposition"):
        with pytest.raises(ModelError, match=rf"{name} .*"):
            explain(model, inputs, name)


def test_other_models_are_refused():
    """An LSTMModel and a function are refused when the explainer is made, with what works on them."""
    with pytest.raises(ModelError, match=r"retain explains a RETAIN, and this model is a LSTMModel.*deeplift"):
        RetainContributions(lstm())
    with pytest.raises(ModelError, match="retain needs a torch module"):
        RetainContributions(linear_function(sequences(4, 3)))
    with pytest.raises(InvalidInputError, match=r"retain takes the raw score apart.*output='logit'"):
        RetainContributions(retain(task="binary"), output="probability")
    assert [_works_on(RetainContributions, Predictor(model)) for model in (retain(), lstm())] == [True, False]


def test_a_forward_of_its_own_is_refused():
    """A subclass that computes something else from the same weights is seen."""

    class Doubled(RETAIN):
        def forward(self, inputs, lengths=None):
            return 2 * super().forward(inputs, lengths)

    model = Doubled(RETAINConfig(input_size=3))
    with torch.no_grad():
        model.head.weight.mul_(50)
    with pytest.raises(ModelError, match="its forward pass does something else"):
        RetainContributions(model).explain(sequences(2, 5, 3))


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_report_is_written(tmp_path, cell):
    """A report of its explanations opens with the model's card."""
    model, inputs = retain(task="binary", cell=cell, double=False), sequences(2, 6, 3)
    model.data = DATA
    found = explain(model, inputs, ["retain", "integrated_gradients"])
    page = Report(found, model=model).save(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "RETAIN, two" in page
