"""Stability, max-sensitivity and the randomisation test: explaining again, and leaving the user's model alone."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from gatelens.explainers import (
    BUILT_IN,
    LIME,
    Contribution,
    DeepLIFT,
    DeepSHAP,
    Explainer,
    InputXGradient,
    KernelSHAP,
    Occlusion,
    Saliency,
    TemporalSaliencyRescaling,
    get,
)
from gatelens.explainers.metrics import (
    IndependentRandomisation,
    MaxSensitivity,
    Randomisation,
    Stability,
    measure,
    random_reference,
)
from gatelens.explainers.metrics.again import explain_again
from gatelens.explainers.metrics.base import Case
from gatelens.explainers.metrics.predictions import Predictions
from gatelens.explainers.metrics.randomisation import stages_of
from gatelens.models import InvalidInputError, ModelError, Predictor
from gatelens.models.retain import RETAIN, RETAINConfig
from helpers.explained import LENGTHS, Foreign, linear_function, lstm, sequences, token_ids
from helpers.judged import linear


class Echo(Explainer):
    """Says the input itself, whatever the model."""

    name = "echo"
    summary = "the input"

    def _attribute(self, problem):
        return Contribution(problem.inputs)


class Jumpy(Explainer):
    """Says anew at random whenever the input is another."""

    name = "jumpy"
    summary = "noise"

    def _attribute(self, problem):
        seed = int(problem.inputs.double().sum().mul(1e6).item())
        generator = torch.Generator().manual_seed(seed % 2**31)
        return Contribution(torch.randn(problem.inputs.shape, generator=generator))


def again(model, found, rows, **options):
    names = {"it": found}
    return explain_again(Case("it", names, Predictions(model, names), "timestep", {}), torch.tensor(rows), **options)


# -- explaining again ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", sorted(BUILT_IN))
def test_every_explainer_is_made_again_from_its_result(method):
    """Its own values come out, of any choice of samples."""
    model = lstm(pooling="attention" if method == "attention" else "last")
    if method == "retain":
        torch.manual_seed(0)
        config = RETAINConfig(input_size=3, embedding_dim=4, alpha_size=3, beta_size=3, task="binary")
        model = RETAIN(config).eval()
    background = {"background": sequences(4, 6, 3, seed=7)} if method in ("gradient_shap", "deep_shap") else {}
    explainer = get(method)(model, **background)
    found = explainer.explain(sequences(3, 6, 3), lengths=LENGTHS)
    names = {"it": found}
    case = Case("it", names, Predictions(model, names), "timestep", {"it": explainer} if background else {})
    values = explain_again(case, torch.tensor([2, 0, 2]))
    np.testing.assert_allclose(values, found.values[[2, 0, 2]], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("target", [(1, 0), (slice(1, 3), 0)])
def test_the_target_is_the_attributions_own(target):
    """Also a timestep's output, and the sum over a window, with a baseline of numbers."""
    model = lstm(pooling="none")
    found = DeepLIFT(model, baseline=sequences(6, 3, seed=4)).explain(sequences(3, 6, 3), target=target)
    np.testing.assert_allclose(again(model, found, [1, 2]), found.values[[1, 2]], atol=1e-6)


def test_options_are_kept():
    """Players, samples and methods within a method are those of the result."""
    model, inputs = lstm(), sequences(2, 5, 3)
    for explainer in (
        LIME(model, players="cell", samples=60),
        TemporalSaliencyRescaling(model, method="integrated_gradients", method_options={"steps": 5}),
    ):
        found = explainer.explain(inputs)
        np.testing.assert_allclose(again(model, found, [0, 1]), found.values, rtol=1e-4, atol=1e-6)


def test_a_background_set_asks_for_the_explainer():
    """The result does not hold it; with the explainer it goes."""
    model = lstm()
    explainer = DeepSHAP(model, background=sequences(3, 6, 3, seed=8))
    found = explainer.explain(sequences(2, 6, 3))
    with pytest.raises(InvalidInputError, match=r"background set, .*explainers=\{'deep_shap': THE_EXPLAINER\}"):
        Stability()(model, found)
    np.testing.assert_allclose(Stability(repeats=1)(model, found, explainer=explainer).values, 1)
    with pytest.raises(InvalidInputError, match="explainers gives lime for deep_shap"):
        measure(model, found, ("stability",), explainers={"deep_shap": LIME(model)})
    with pytest.raises(InvalidInputError, match="explainers names 'other'"):
        measure(model, found, ("stability",), explainers={"other": explainer})


def test_an_unknown_explainer_asks_for_it():
    """A method that is not registered cannot be made by its name."""
    model = lstm()
    found = Echo(model).explain(sequences(2, 6, 3))
    with pytest.raises(InvalidInputError, match=r"echo cannot be explained again .*explainers="):
        Stability()(model, found)
    assert Stability()(model, found, explainer=Echo(model)).mean == 1


# -- stability -------------------------------------------------------------------------------------------------------


def test_stability_is_one_without_chance_and_low_with_much():
    """DeepLIFT draws nothing; LIME with few samples moves with its seed; a random reference is about 0."""
    model, inputs = lstm(), sequences(4, 12, 3)
    found = {"deeplift": DeepLIFT(model).explain(inputs), "lime": LIME(model, samples=30).explain(inputs)}
    found["random"] = random_reference(found["deeplift"])
    measured = measure(model, found, (Stability(repeats=4),))
    np.testing.assert_allclose(measured.scores("stability", "deeplift").values, 1)
    assert 0.1 < measured.scores("stability", "lime").mean < 0.95
    assert abs(measured.scores("stability", "random").mean) < 0.35


def test_stability_by_hand():
    """It is the mean rank correlation with the explanations of the next seeds."""
    from scipy.stats import spearmanr

    model, inputs = lstm(), sequences(1, 8, 3)
    first, second, third = (LIME(model, samples=30, seed=seed).explain(inputs).timesteps[0] for seed in (5, 6, 7))
    expected = np.mean([spearmanr(first, other).statistic for other in (second, third)])
    found = LIME(model, samples=30, seed=5).explain(inputs)
    np.testing.assert_allclose(Stability(repeats=2)(model, found).values, expected)


# -- max-sensitivity -------------------------------------------------------------------------------------------------


def test_max_sensitivity_of_a_linear_model_by_hand():
    """A gradient does not move; of input x gradient it is the largest |move x weight| over |input x weight|."""
    model, found = linear([[3.0], [4.0]])
    inputs = torch.ones(1, 2, 1, dtype=torch.float64)
    assert MaxSensitivity()(model, Saliency(model, absolute=False).explain(inputs)).mean == 0
    product = InputXGradient(model).explain(inputs)
    generator = Predictions(model, {"it": product}).generator(0, "max_sensitivity")
    moves = generator.uniform(-0.1, 0.1, (7, 2, 1))
    expected = max(np.linalg.norm(move[:, 0] * [3, 4]) for move in moves) / 5
    np.testing.assert_allclose(MaxSensitivity(radius=0.1, draws=7)(model, product).values, expected)
    assert len(found) == 1


def test_max_sensitivity_is_bad_for_what_jumps():
    """Noise that follows the input moves by more than its own size; a random reference never moves."""
    model, inputs = lstm(), sequences(2, 6, 3)
    jumpy, calm = Jumpy(model).explain(inputs), DeepLIFT(model).explain(inputs)
    assert MaxSensitivity()(model, jumpy, explainer=Jumpy(model)).mean > 1
    assert 0 < MaxSensitivity()(model, calm).mean < 0.5
    assert MaxSensitivity()(model, random_reference(calm)).mean == 0


def test_max_sensitivity_leaves_padding_alone():
    """A short sequence beside a long one has the value it has alone."""
    model, inputs = lstm(double=True), sequences(2, 6, 3, double=True)
    together = MaxSensitivity()(model, DeepLIFT(model).explain(inputs, lengths=[6, 3])).values
    alone = MaxSensitivity()(model, DeepLIFT(model).explain(inputs[1:, :3])).values
    np.testing.assert_allclose(together[1], alone[0])


def test_max_sensitivity_refuses_what_it_cannot_move():
    """Token ids, and radii that are none."""
    model = lstm(vocab_size=9, embedding_dim=4)
    with pytest.raises(InvalidInputError, match="token ids cannot be moved"):
        MaxSensitivity()(model, Occlusion(model).explain(token_ids(2, 5)))
    with pytest.raises(InvalidInputError, match="radius is 0"):
        MaxSensitivity(radius=0)


# -- the randomisation test ------------------------------------------------------------------------------------------


def names_of(model, inputs):
    lengths = torch.full((len(inputs),), inputs.shape[1])
    return [name for name, _ in stages_of(Predictor(model), inputs, lengths)]


def test_stages_go_from_the_output_down():
    """Head, pooling, upper layer, lower layer, embedding; each layer of a stacked nn.LSTM is one."""
    inputs = sequences(1, 5, 3)
    assert names_of(lstm(hidden_sizes=(5, 4), pooling="attention"), inputs)[-2:] == ["lstm.1", "lstm.0"]
    assert names_of(lstm(hidden_sizes=(5, 4)), inputs) == ["head", "lstm.1", "lstm.0"]
    assert names_of(lstm(vocab_size=9, embedding_dim=4), token_ids(1, 5)) == ["head", "lstm.0", "embedding"]
    assert names_of(Foreign(), inputs) == ["head", "encoder layer 1", "encoder layer 0"]
    assert names_of(Backwards(), inputs) == ["last", "first"]
    assert names_of(linear([[1.0]])[0], torch.ones(1, 1, 1).double()) == ["model"]


class Backwards(nn.Module):
    """Holds its last layer first."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.last = nn.Linear(4, 1)
        self.first = nn.Linear(3, 4)

    def forward(self, inputs):
        return self.last(torch.tanh(self.first(inputs)).sum(dim=1))


class Sum(nn.Module):
    """Has no weights."""

    def forward(self, inputs):
        return inputs.sum(dim=(1, 2))[:, None]


def test_what_does_not_read_the_weights_is_found_out():
    """An echo of the input and a random reference correlate at 1 at each stage; DeepLIFT does not."""
    model, inputs = lstm(hidden_sizes=(8, 6)), sequences(4, 15, 3)
    found = {"deeplift": DeepLIFT(model).explain(inputs), "echo": Echo(model).explain(inputs)}
    found["random"] = random_reference(found["deeplift"])
    metrics = ("randomisation", "randomisation_independent")
    measured = measure(model, found, metrics, explainers={"echo": Echo(model)})
    for metric in metrics:
        np.testing.assert_allclose(measured.scores(metric, "echo").values, 1)
        np.testing.assert_allclose(measured.scores(metric, "random").values, 1)
        assert measured.scores(metric, "deeplift").mean < 0.8
        details = measured.dataset[f"{metric}_details"].sel(explainer="deeplift")
        np.testing.assert_allclose(np.abs(details).mean(axis=1), measured.scores(metric, "deeplift").values)
    assert measured.dataset["randomisation_stage"].to_numpy().tolist() == ["head", "lstm.1", "lstm.0"]


def test_stages_by_hand():
    """Cascading keeps what was drawn before, independent puts it back; the first stage is the same."""
    model, inputs = lstm(hidden_sizes=(6,)), sequences(1, 10, 3)
    found = DeepLIFT(model).explain(inputs)
    both = measure(model, found, (Randomisation(), IndependentRandomisation())).dataset
    cascading, independent = both["randomisation_details"][0, 0], both["randomisation_independent_details"][0, 0]
    np.testing.assert_allclose(cascading[0], independent[0])
    assert float(cascading[1]) != float(independent[1])
    predictions = Predictions(model, {"it": found})
    states = {}
    for metric in (Randomisation(), IndependentRandomisation()):
        states[metric.name] = [
            (name, copy.deepcopy(drawn.module.state_dict())) for name, drawn in metric._models(predictions)
        ]
    own = model.state_dict()
    for name, (stage, state) in [(n, pair) for n, pairs in states.items() for pair in pairs]:
        changed = {key.rsplit(".", 1)[0] for key in own if not torch.equal(own[key], state[key])}
        expected = {"head", "lstm.0"} if (name, stage) == ("randomisation", "lstm.0") else {stage}
        assert changed == expected


@pytest.mark.parametrize("metric", [Randomisation(), IndependentRandomisation()], ids=lambda metric: metric.name)
def test_randomisation_by_hand(metric):
    """It is the mean size of the rank correlations with the explanations of the drawn models, stage by stage."""
    from scipy.stats import spearmanr

    model, inputs = lstm(hidden_sizes=(6,)), sequences(1, 10, 3)
    found = DeepLIFT(model).explain(inputs)
    expected = []
    for _, drawn in metric._models(Predictions(model, {"it": found})):
        expected.append(spearmanr(found.timesteps[0], DeepLIFT(drawn.module).explain(inputs).timesteps[0]).statistic)
    assert len(expected) == 2
    np.testing.assert_allclose(metric(model, found).values, np.abs(expected).mean(), atol=1e-9)


def test_drawn_weights_keep_their_scale():
    """The root mean square of a large tensor is about its own, and zeros stay."""
    torch.manual_seed(0)
    model = Foreign()
    model.encoder = nn.LSTM(3, 50, batch_first=True)
    model.head = nn.Linear(50, 1)
    nn.init.zeros_(model.head.bias)
    found = Saliency(model).explain(sequences(1, 4, 3))
    for _, drawn in Randomisation()._models(Predictions(model, {"it": found})):
        last = drawn.module
    weight, before = last.encoder.weight_hh_l0.detach(), model.encoder.weight_hh_l0.detach()
    assert float(weight.square().mean().sqrt() / before.square().mean().sqrt()) == pytest.approx(1, abs=0.05)
    assert last.head.bias.item() == 0


def test_the_users_model_is_left_alone():
    """Weights, modes, flags, gradients, hooks and the random state are as before."""
    model = lstm(hidden_sizes=(5, 4), pooling="attention")
    model.train()
    next(model.parameters()).requires_grad_(False)
    found = Occlusion(model).explain(sequences(2, 6, 3))
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    measure(model, found, ("randomisation", "stability", "max_sensitivity", "deletion"))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()][:2] == [False, True]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(part.training for part in model.modules())
    assert not any(part._forward_hooks for part in model.modules())
    assert torch.equal(state, torch.get_rng_state())


def test_a_function_has_no_weights():
    """The randomisation test needs a module, and one that can be copied."""
    function = linear_function(torch.ones(4, 2))
    nothing = Sum()
    with pytest.raises(ModelError, match="this model has none"):
        Randomisation()(nothing, Occlusion(nothing).explain(sequences(1, 4, 3)))
    with pytest.raises(ModelError, match="plain function"):
        Randomisation()(function, KernelSHAP(function).explain(sequences(1, 4, 2)))
    model = Foreign()
    model.lock = (value for value in ())
    with pytest.raises(ModelError, match="cannot be copied"):
        Randomisation()(model, Occlusion(model).explain(sequences(1, 4, 3)))


def test_repeats_are_checked():
    """Stability needs another seed at least."""
    with pytest.raises(InvalidInputError, match="repeats is 0"):
        Stability(repeats=0)
