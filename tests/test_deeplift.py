"""DeepLIFT against its rules applied number by number, and complete to rounding, whatever the architecture."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gatelens.explainers.deeplift import SMALL, DeepLIFT, DeepSHAP, _through_softmax
from gatelens.models import LSTMConfig, LSTMModel, ModelError, from_torch, kernels
from gatelens.models.activations import ACTIVATIONS
from gatelens.models.differences import difference_slope
from helpers.lstm_loop import make_lstm, random

POOLINGS = ("last", "mean", "max", "attention", "dot_attention", "none")


def make_model(seed=0, dtype=torch.float64, strength=2.0, **options):
    torch.manual_seed(seed)
    options = {"input_size": 3, "hidden_sizes": (5, 4), "output_size": 3, "task": "multiclass", **options}
    model = LSTMModel(LSTMConfig(**options)).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(strength)
    return model


# -- the oracle: two runs and their multipliers, one unit after the other ----------------------------------------------


def slope(function, x, x0):
    """Return (f(x) - f(x0)) / (x - x0), and the derivative where they are nearly the same."""
    if abs(x - x0) < 1e-6:
        y = (function(x) + function(x0)) / 2
        return 1 - y * y if function is math.tanh else y * (1 - y)
    return (function(x) - function(x0)) / (x - x0)


def sigma(x):
    return 1 / (1 + math.exp(-x))


def run_layer(lstm, series, suffix=""):
    """Return z, gates, c and h of every timestep of one sequence, in reading order, as nested lists."""
    w, u, b = (getattr(lstm, f"{name}_l0{suffix}").tolist() for name in ("weight_ih", "weight_hh", "bias_ih"))
    b2 = getattr(lstm, f"bias_hh_l0{suffix}").tolist()
    size = lstm.hidden_size
    h, c = [0.0] * size, [0.0] * size
    steps = []
    for x in reversed(series) if suffix else series:
        z = [
            sum(a * v for a, v in zip(w[row], x, strict=True))
            + sum(a * v for a, v in zip(u[row], h, strict=True))
            + b[row]
            + b2[row]
            for row in range(4 * size)
        ]
        i, f, o = ([sigma(v) for v in z[start * size : (start + 1) * size]] for start in (0, 1, 3))
        g = [math.tanh(v) for v in z[2 * size : 3 * size]]
        before = c
        c = [f[k] * c[k] + i[k] * g[k] for k in range(size)]
        h = [o[k] * math.tanh(c[k]) for k in range(size)]
        steps.append({"z": z, "i": i, "f": f, "g": g, "o": o, "before": before, "c": c, "h": h})
    return steps


def layer_back(lstm, run, base, to_hidden, suffix=""):
    """Return multipliers of the layer's inputs in reading order from those of its hidden states."""
    w, u = (getattr(lstm, f"{name}_l0{suffix}").tolist() for name in ("weight_ih", "weight_hh"))
    size = lstm.hidden_size
    to_inputs = [None] * len(run)
    from_later_h, from_later_c = [0.0] * size, [0.0] * size
    for t in reversed(range(len(run))):
        a, a0 = run[t], base[t]
        p = [0.0] * (4 * size)
        for k in range(size):
            m_h = to_hidden[t][k] + from_later_h[k]
            tau, tau0 = math.tanh(a["c"][k]), math.tanh(a0["c"][k])
            m_o = m_h * (tau + tau0) / 2
            m_c = from_later_c[k] + m_h * (a["o"][k] + a0["o"][k]) / 2 * slope(math.tanh, a["c"][k], a0["c"][k])
            m_i = m_c * (a["g"][k] + a0["g"][k]) / 2
            m_g = m_c * (a["i"][k] + a0["i"][k]) / 2
            m_f = m_c * (a["before"][k] + a0["before"][k]) / 2
            from_later_c[k] = m_c * (a["f"][k] + a0["f"][k]) / 2
            for place, m in enumerate((m_i, m_f, m_g, m_o)):
                row = place * size + k
                p[row] = m * slope(math.tanh if place == 2 else sigma, a["z"][row], a0["z"][row])
        from_later_h = [sum(p[row] * u[row][k] for row in range(4 * size)) for k in range(size)]
        to_inputs[t] = [sum(p[row] * w[row][d] for row in range(4 * size)) for d in range(len(w[0]))]
    return to_inputs


def by_hand(model, inputs, baseline, output):
    """Return the contributions (T, D) of one sequence to a score of a model with pooling "last"."""
    suffixes = ("", "_reverse") if model.config.bidirectional else ("",)
    series, series0 = inputs.tolist(), baseline.tolist()
    kept = []
    for lstm in model.lstm:
        runs = [(run_layer(lstm, series, suffix), run_layer(lstm, series0, suffix)) for suffix in suffixes]
        kept.append(runs)

        def outputs(side, runs=runs):
            parts = [[step["h"] for step in run[side]] for run in runs]
            parts = [part[::-1] if suffix else part for part, suffix in zip(parts, suffixes, strict=True)]
            return [[value for row in rows for value in row] for rows in zip(*parts, strict=True)]

        series, series0 = outputs(0), outputs(1)
    weight = model.head.weight[output].tolist()
    top = model.config.hidden_sizes[-1]
    multiplier = [[0.0] * len(weight) for _ in series]
    multiplier[-1][:top] = weight[:top]
    if len(suffixes) == 2:
        multiplier[0][top:] = weight[top:]
    for lstm, runs in zip(reversed(model.lstm), reversed(kept), strict=True):
        size = lstm.hidden_size
        total = None
        for place, (suffix, (run, base)) in enumerate(zip(suffixes, runs, strict=True)):
            own = [row[place * size : (place + 1) * size] for row in multiplier]
            found = layer_back(lstm, run, base, own[::-1] if suffix else own, suffix)
            found = found[::-1] if suffix else found
            total = (
                found
                if total is None
                else [[x + y for x, y in zip(one, two, strict=True)] for one, two in zip(total, found, strict=True)]
            )
        multiplier = total
    return np.array(multiplier) * (inputs - baseline).numpy()


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_rules_number_by_number(bidirectional, seed):
    """Stacked, both directions: the contributions of an independent loop over units, to 1e-10."""
    model = make_model(seed, bidirectional=bidirectional)
    inputs, baseline = random(2, 6, 3, seed=seed), random(2, 6, 3, seed=seed + 9)
    found = DeepLIFT(model, baseline=baseline).explain(inputs, target=[2, 0]).values
    for sample, output in enumerate((2, 0)):
        expected = by_hand(model, inputs[sample], baseline[sample], output)
        np.testing.assert_allclose(found[sample], expected, rtol=0, atol=1e-10)
    assert np.abs(found).max() > 1e-3


# -- completeness ------------------------------------------------------------------------------------------------------


def relative_gap(attribution):
    """Return the largest gap as a share of |f(x) - f(baseline)|, or of 0.1 where it is less: f itself has 7 digits."""
    difference = attribution.prediction - attribution.to_xarray()["baseline_prediction"].to_numpy()
    return float((np.abs(attribution.completeness_gap) / np.maximum(np.abs(difference), 0.1)).max())


@given(
    pooling=st.sampled_from(POOLINGS),
    bidirectional=st.booleans(),
    activation=st.sampled_from(["tanh", "relu"]),
    task=st.sampled_from(["regression", "binary", "multiclass"]),
    output=st.sampled_from(["logit", "probability"]),
    padded=st.booleans(),
    layers=st.sampled_from([(4,), (6, 3), (3, 5, 4)]),
    step=st.sampled_from([0, slice(None), slice(-1, None)]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=80)
def test_complete_in_float64(pooling, bidirectional, activation, task, output, padded, layers, step, seed):
    """Every architecture, pooling, task and output, of a timestep or summed over some: they add up to 1e-12."""
    model = make_model(
        seed, pooling=pooling, bidirectional=bidirectional, activation=activation, task=task, hidden_sizes=layers,
        output_size=2,
    )  # fmt: skip
    inputs, lengths = random(4, 7, 3, seed=seed), [7, 3, 1, 6] if padded else None
    output = "logit" if task == "regression" else output
    target = (step, 1) if pooling == "none" else 1
    found = DeepLIFT(model, output=output, baseline=random(3, seed=seed + 1)).explain(
        inputs, target=target, lengths=lengths
    )
    difference = np.abs(found.prediction - found.to_xarray()["baseline_prediction"].to_numpy())
    assert np.abs(found.completeness_gap).max() <= 1e-12 * max(1.0, difference.max())


@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("output", ["logit", "probability"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_window_is_the_sum_of_its_timesteps(task, output, shared):
    """Each timestep's probability has slopes of its own; also with one baseline for all, and averaged over several."""
    model = make_model(pooling="none", bidirectional=True, task=task)
    inputs, lengths = random(3, 6, 3), torch.tensor([6, 6, 6] if shared else [6, 3, 4])
    options = {"baseline": 0.3} if shared else {"background": random(3, 6, 3, seed=4)}
    explainer = DeepSHAP(model, output=output, **options)
    found = explainer.explain(inputs, target=(slice(1, -1), [2, 0, 1]), lengths=lengths)
    for row, chosen in enumerate([2, 0, 1]):
        singles = [
            explainer.explain(inputs[[row]], target=(step, chosen), lengths=lengths[[row]]).values[0]
            for step in range(1, int(lengths[row]) - 1)
        ]
        np.testing.assert_allclose(found.values[row], np.sum(singles, axis=0), rtol=0, atol=1e-12)
        assert np.abs(found.values[row]).max() > 1e-3
    assert np.abs(found.completeness_gap).max() < 1e-12


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_complete_in_float32(pooling, bidirectional):
    """float32, the compiled kernels: 1e-5 of the difference explained."""
    model = make_model(1, torch.float32, pooling=pooling, bidirectional=bidirectional, hidden_sizes=(20, 12))
    inputs = random(30, 40, 3).float()
    target = (39, 1) if pooling == "none" else 1
    assert relative_gap(DeepLIFT(model).explain(inputs, target=target)) <= 1e-5
    lengths = torch.arange(1, 31)
    target = (0, 1) if pooling == "none" else 1
    found = DeepLIFT(model).explain(inputs, target=target, lengths=lengths)
    assert relative_gap(found) <= 1e-5
    assert not found.values[np.arange(40) >= lengths.numpy()[:, None]].any()


def test_float32_is_float64():
    """That they add up does not show that they are right: float32's contributions are float64's to 1e-4 of the largest.

    Inputs next to the baseline, where quotients of differences are all rounding, among them.
    """
    model = make_model(2, pooling="attention", bidirectional=True)
    inputs = random(6, 12, 3)
    baseline = inputs + random(6, 12, 3, seed=4) * torch.logspace(-7, 0, 6)[:, None, None]
    exact = DeepLIFT(model, baseline=baseline).explain(inputs, target=0).values
    found = DeepLIFT(model.float(), baseline=baseline.float()).explain(inputs.float(), target=0).values
    for one, other in zip(found[2:], exact[2:], strict=True):
        assert np.abs(one - other).max() <= 2e-3 * np.abs(other).max()
    assert np.abs(found[5] - exact[5]).max() <= 1e-4 * np.abs(exact[5]).max()


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slopes_have_no_jump(name, dtype):
    """Where the quotient gives way to the derivative, both are the same to the type's precision."""
    function, small = ACTIVATIONS[name], SMALL[dtype]
    x = torch.linspace(-6, 6, 241, dtype=torch.float64)
    for factor in (0.999, 1.001):
        other = x + factor * small
        exact = (function.function(other) - function.function(x)) / (other - x)
        one, two = x.to(dtype), other.to(dtype)
        found = difference_slope(function, two, function.function(two), one, function.function(one), small)
        tolerance = 2e-4 if dtype == torch.float32 else 1e-9
        torch.testing.assert_close(found.double(), exact, rtol=0, atol=tolerance)


def test_equal_inputs_get_nothing():
    """Timesteps that equal the baseline's contribute exactly 0; all of them: everything is 0."""
    model, inputs = make_model(), random(2, 6, 3)
    baseline = inputs.clone()
    baseline[:, 2] += 1
    values = DeepLIFT(model, baseline=baseline).explain(inputs, target=0).values
    assert not values[:, [0, 1, 3, 4, 5]].any()
    assert values[:, 2].any()
    assert not DeepLIFT(model, baseline=inputs).explain(inputs, target=0).values.any()


def test_near_a_linear_model_it_is_gradient_times_difference():
    """With tiny differences, multipliers are gradients."""
    model, inputs = make_model(pooling="mean"), random(2, 5, 3)
    step = 1e-4 * random(2, 5, 3, seed=3)
    found = DeepLIFT(model, baseline=inputs - step).explain(inputs, target=1).values
    leaf = (inputs - step / 2).requires_grad_()
    expected = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)[0] * step
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-8 * float(expected.abs().max()) + 1e-12)


# -- models, tokens, backgrounds ---------------------------------------------------------------------------------------


def test_tokens():
    """Of a token: the sum over its embedding; complete."""
    model = make_model(input_size=None, vocab_size=9, embedding_dim=4, pooling="attention")
    ids = torch.tensor([[1, 4, 8, 2], [3, 3, 0, 0]])
    found = DeepLIFT(model).explain(ids, target=1, lengths=[4, 2])
    assert found.values.shape == (2, 4, 1)
    assert np.abs(found.completeness_gap).max() < 1e-12


def test_deep_shap_is_the_mean():
    """Over a background: the mean of DeepLIFT over its references, complete against their mean prediction."""
    model, inputs, background = make_model(), random(3, 6, 3), random(4, 6, 3, seed=8)
    lengths = [6, 2, 5]
    found = DeepSHAP(model, background=background).explain(inputs, target=2, lengths=lengths)
    single = [
        DeepLIFT(model, baseline=reference.expand(3, -1, -1)).explain(inputs, target=2, lengths=lengths).values
        for reference in background
    ]
    np.testing.assert_allclose(found.values, np.mean(single, axis=0), rtol=0, atol=1e-12)
    assert np.abs(found.completeness_gap).max() < 1e-12
    alone = DeepSHAP(model).explain(inputs, target=2).values
    np.testing.assert_allclose(alone, DeepLIFT(model).explain(inputs, target=2).values, rtol=0, atol=0)


class Plain(nn.Module):
    """A model as people write it."""

    def __init__(self, ending=None):
        super().__init__()
        self.rnn = make_lstm(3, input_size=3, hidden_size=6, num_layers=2, batch_first=True)
        self.fc = nn.Linear(6, 1).double()
        self.ending = ending or nn.Identity()

    def forward(self, inputs):
        return self.ending(self.fc(self.rnn(inputs)[0][:, -1]))


def test_other_modules_are_rewritten():
    """A module of the same form is explained as the LSTMModel it is, and left as found."""
    module, inputs = Plain(), random(2, 5, 3)
    found = DeepLIFT(module).explain(inputs)
    expected = DeepLIFT(from_torch(module)).explain(inputs)
    np.testing.assert_allclose(found.values, expected.values, rtol=0, atol=1e-12)
    assert np.abs(found.completeness_gap).max() < 1e-12
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_what_cannot_be_opened_is_refused():
    """A function, a module of another form, one that ends in a sigmoid: an error that says what works."""
    with pytest.raises(ModelError, match=r"needs.*plain function.*lime, kernel_shap"):
        DeepLIFT(lambda x: x.sum((1, 2)))
    with pytest.raises(ModelError, match=r"cannot: .*integrated_gradients"):
        DeepLIFT(nn.Sequential(nn.Flatten(), nn.Linear(15, 1)))
    with pytest.raises(ModelError, match=r"before a sigmoid.*from_torch\(module\)"):
        DeepLIFT(Plain(nn.Sigmoid()))


def test_a_shared_baseline_is_run_once():
    """One row stands for a baseline that all samples share; the contributions are those of a full one."""
    model, inputs = make_model(bidirectional=True, pooling="max"), random(5, 6, 3)
    shared = DeepLIFT(model).explain(inputs, target=0)
    odd = torch.zeros(5, 6, 3, dtype=torch.float64)
    odd[0, 0, 0] = 1e-300
    full = DeepLIFT(model, baseline=odd).explain(inputs, target=0)
    np.testing.assert_allclose(shared.values, full.values, rtol=0, atol=1e-14)


def test_a_forward_of_its_own_is_refused():
    """A subclass whose forward pass does something else is not explained by its weights."""

    class Other(LSTMModel):
        def forward(self, inputs, lengths=None):
            return super().forward(inputs, lengths) * 2

    model = Other(LSTMConfig(input_size=3)).double()
    with pytest.raises(ModelError, match=r"off by up to.*forward pass does something else"):
        DeepLIFT(model).explain(random(2, 5, 3))


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_compiled_factors_are_torchs(shared, padded, monkeypatch):
    """float32: the compiled forward pass, factors and walk give what the torch operations give."""
    model = make_model(4, torch.float32, bidirectional=True, pooling="mean", hidden_sizes=(9, 7))
    inputs, lengths = random(11, 8, 3).float(), torch.tensor([8, 1, 5, 7, 2, 8, 3, 4, 6, 8, 1]) if padded else None
    baseline = "zero" if shared else random(11, 8, 3, seed=5).float()
    found = DeepLIFT(model, baseline=baseline).explain(inputs, target=0, lengths=lengths).values
    monkeypatch.setattr(kernels, "is_compiled", lambda _: False)
    monkeypatch.setattr("gatelens.models.opened.is_compiled", lambda _: False)
    monkeypatch.setattr("gatelens.models.keeping.is_compiled", lambda _: False)
    expected = DeepLIFT(model, baseline=baseline).explain(inputs, target=0, lengths=lengths).values
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * float(np.abs(expected).max()))


@pytest.mark.parametrize("shift", [0.0, 30.0, -200.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_shift_of_all_energies_changes_nothing(dtype, shift):
    """A softmax does not see a common shift of its inputs, so neither do the multipliers; they stay complete."""
    generator = torch.Generator().manual_seed(0)
    x, base, multiplier = (torch.randn(6, 5, generator=generator, dtype=torch.float64).to(dtype) for _ in range(3))
    found = _through_softmax(x + shift, base, multiplier)
    expected = _through_softmax(x.double(), base.double(), multiplier.double())
    tolerance = 1e-4 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(found.double(), expected, atol=tolerance, rtol=tolerance)
    change = (multiplier * ((x + shift).softmax(1) - base.softmax(1))).sum(1)
    told = (found * (x + shift - base)).sum(1)
    torch.testing.assert_close(told, change, atol=(1 + abs(shift)) * tolerance / 10, rtol=0)


def test_sharp_attention_stays_in_scale():
    """Energies that differ by tens from the baseline's give values of the size of the change, complete in float32."""
    for seed in range(5):
        model = make_model(seed, torch.float32, hidden_sizes=(8,), pooling="attention")
        with torch.no_grad():
            model.pooling.query.mul_(60)
        inputs = 3 * torch.randn(20, 12, 3, generator=torch.Generator().manual_seed(seed))
        found = DeepLIFT(model).explain(inputs)
        change = np.abs(found.prediction - found.baseline_prediction)
        assert np.abs(found.values).sum(axis=(1, 2)).max() < 60 * change.max()
        assert (np.abs(found.completeness_gap) <= 1e-5 * np.abs(found.values).sum(axis=(1, 2))).all()
