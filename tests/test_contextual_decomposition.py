"""Contextual decomposition: both parts by the paper's equations, a unit at a time, are the oracle; then phrases."""

import itertools

import numpy as np
import pytest
import torch

from gatelens.explainers import ContextualDecomposition
from gatelens.models import DataSpec, FeatureSpec, InvalidInputError, InvalidTypeError, ModelError, Predictor
from helpers.explained import LENGTHS, Foreign, ForeignWithLengths, lstm, sequences, token_ids
from helpers.unit_loop import head_of, phi_of, read, run_passes, sigma


def linearised(function, terms, *, bias_first=True):
    """Return each term's contribution to function(sum of terms): its mean over the orders that begin with the last."""
    orders = list(itertools.permutations(range(len(terms))))
    if bias_first:
        orders = [order for order in orders if order[0] == len(terms) - 1]
    found = [0.0] * len(terms)
    for order in orders:
        so_far = 0.0
        for place, term in enumerate(order):
            before = function(so_far) if place or not bias_first else 0.0  # the bias is given all of function(bias)
            so_far += terms[term]
            found[term] += (function(so_far) - before) / len(orders)
    return found


def oracle(model, sequence, phrase, output=0, timestep=None):
    """Return relevant and irrelevant part of the score of one sequence; `phrase` is bool (L, D or E)."""
    layers, _ = run_passes(model, sequence)
    phi, x = phi_of(model), read(model, sequence)
    relevant, irrelevant = np.where(phrase, x, 0.0), np.where(phrase, 0.0, x)  # (L, D)
    whole = phrase.all(axis=1)
    for layer in layers:
        parts = [decompose_pass(one, relevant, irrelevant, whole, phi) for one in layer]
        relevant, irrelevant = (np.concatenate([part[side] for part in parts], axis=1) for side in (0, 1))
    weight, _ = head_of(model, output)
    steps, width, pooling = len(relevant), model.config.hidden_sizes[-1], model.config.pooling
    found = []
    for side in (relevant, irrelevant):
        if pooling == "mean":
            pooled = side.mean(axis=0)
        elif pooling == "none":
            pooled = side[timestep]
        else:
            pooled = np.concatenate([side[steps - 1, :width], side[0, width:]])
        found.append(float(weight @ pooled))
    return found


def decompose_pass(one, relevant, irrelevant, whole, phi):
    """Return beta and gamma of a direction's hidden states, (L, H) each, from those of what it reads, (L, D)."""
    steps, units = one.h.shape
    betas, gammas = np.zeros((2, steps, units))
    beta, gamma, beta_c, gamma_c = np.zeros((4, units))
    for t in one.order:
        new = np.zeros((4, units))
        for unit in range(units):
            parts = []
            for gate, function in ((0, sigma), (1, sigma), (2, phi)):
                w, v = one.w[gate, unit], one.v[gate, unit]
                terms = [w @ relevant[t] + v @ beta, w @ irrelevant[t] + v @ gamma, one.b[gate, unit]]
                parts.append(linearised(function, terms))
            i, f, g = parts  # (relevant, irrelevant, bias) each
            in_phrase = i[0] * g[0] + i[0] * g[2] + i[2] * g[0]
            outside = i[1] * g[0] + i[1] * g[1] + i[1] * g[2] + i[0] * g[1] + i[2] * g[1]
            if whole[t]:
                in_phrase += i[2] * g[2]
            else:
                outside += i[2] * g[2]
            in_phrase += (f[0] + f[2]) * beta_c[unit]
            outside += f[1] * beta_c[unit] + (f[0] + f[1] + f[2]) * gamma_c[unit]
            shown = linearised(phi, [in_phrase, outside], bias_first=False)
            o = one.gates[t, 3, unit]
            new[:, unit] = o * shown[0], o * shown[1], in_phrase, outside
        beta, gamma, beta_c, gamma_c = new
        np.testing.assert_allclose(beta + gamma, one.h[t], atol=1e-12)
        betas[t], gammas[t] = beta, gamma
    return betas, gammas


def span_mask(sequence, model, start, stop, features=None):
    """Return bool (L, D or E), a span of timesteps, or some features of it."""
    values = read(model, sequence)
    mask = np.zeros(values.shape, dtype=bool)
    mask[start:stop, slice(None) if features is None else features] = True
    return mask


CONFIGS = [
    {},
    {"hidden_sizes": (4, 3)},
    {"bidirectional": True},
    {"bidirectional": True, "hidden_sizes": (4, 3)},
    {"activation": "relu", "hidden_sizes": (3, 3)},
]


@pytest.mark.parametrize("pooling", ["last", "mean", "none"])
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_each_timestep_is_the_papers_relevant_part(pooling, config):
    """The attribution of each timestep equals beta of the loop, in every kind of model, also at lengths below T."""
    model = lstm(**config, pooling=pooling, output_size=2, double=True)
    inputs = sequences(3, 6, 3, double=True)
    timestep = 1 if pooling == "none" else None
    result = ContextualDecomposition(model).explain(
        inputs, lengths=LENGTHS, target=1 if timestep is None else (timestep, 1)
    )
    for row, length in enumerate(LENGTHS):
        sequence = inputs[row, :length]
        expected = [
            oracle(model, sequence, span_mask(sequence, model, t, t + 1), 1, timestep)[0] for t in range(length)
        ]
        np.testing.assert_allclose(result.timesteps[row, :length], expected, rtol=0, atol=1e-10)
        assert np.abs(expected).max() > 1e-2
        assert not result.values[row, length:].any()
    assert result.resolution == "timestep"


@pytest.mark.parametrize("pooling", ["last", "mean", "none"])
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_a_phrase_and_the_rest_are_the_score_without_bias(pooling, config):
    """Spans and feature sets equal the loop in both parts, which sum to score - bias to rounding."""
    model = lstm(**config, pooling=pooling, double=True)
    inputs = sequences(3, 6, 3, double=True)
    target = (-1, 0) if pooling == "none" else None
    explainer = ContextualDecomposition(model)
    score = explainer.explain(inputs, lengths=LENGTHS, target=target).prediction
    bias = model.head.bias.item()
    for start, stop, features in ((0, 6, None), (1, 3, None), (0, 2, [0, 2]), (1, 5, [1])):
        found = explainer.decompose(inputs, start, stop, features=features, lengths=LENGTHS, target=target)
        np.testing.assert_allclose(found[0] + found[1], score - bias, rtol=0, atol=1e-12)
        for row, length in enumerate(LENGTHS):
            sequence = inputs[row, :length]
            mask = span_mask(sequence, model, start, stop, features)
            expected = oracle(model, sequence, mask, 0, length - 1)
            np.testing.assert_allclose([part[row] for part in found], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_a_window_is_the_sum_of_its_timesteps(config):
    """Of a sum over timesteps, a timestep's part and a phrase's two parts are the loop's, summed; so is the bias."""
    model = lstm(**config, pooling="none", output_size=2, double=True)
    inputs, explainer = sequences(3, 6, 3, double=True), ContextualDecomposition(model)
    target = (slice(-2, None), 1)
    result = explainer.explain(inputs, lengths=LENGTHS, target=target)
    phrase = explainer.decompose(inputs, 0, 2, features=[0, 2], lengths=LENGTHS, target=target)
    np.testing.assert_allclose(np.sum(phrase, axis=0), result.prediction - 2 * model.head.bias[1].item(), atol=1e-12)
    for row, length in enumerate(LENGTHS):
        sequence, ends = inputs[row, :length], (length - 2, length - 1)

        def summed(start, stop, features=None, sequence=sequence, ends=ends):
            mask = span_mask(sequence, model, start, stop, features)
            return np.sum([oracle(model, sequence, mask, 1, end) for end in ends], axis=0)

        expected = [summed(t, t + 1)[0] for t in range(length)]
        np.testing.assert_allclose(result.timesteps[row, :length], expected, rtol=0, atol=1e-10)
        np.testing.assert_allclose([part[row] for part in phrase], summed(0, 2, [0, 2]), rtol=0, atol=1e-10)
        assert not result.values[row, length:].any()


def test_the_whole_sequence_is_all_relevant_and_nothing_is_not():
    """With every timestep in the phrase nothing is left; a span in the padding has no part at all."""
    explainer = ContextualDecomposition(lstm(bidirectional=True, hidden_sizes=(4, 3), double=True))
    inputs = sequences(3, 6, 3, double=True)
    relevant, irrelevant = explainer.decompose(inputs, 0, 6, lengths=LENGTHS)
    np.testing.assert_allclose(irrelevant, 0, atol=1e-12)
    assert np.abs(relevant).min() > 1e-3
    relevant, irrelevant = explainer.decompose(inputs, 4, 6, lengths=LENGTHS)
    assert relevant[0] != 0
    assert (relevant[1:] == 0).all()
    assert np.abs(irrelevant).min() > 1e-3


def test_spans_may_differ_between_samples():
    """Where start and stop are (B,), each sample has its own span; so has it its class."""
    explainer = ContextualDecomposition(lstm(output_size=3, task="multiclass", double=True))
    inputs = sequences(3, 6, 3, double=True)
    starts, stops, target = [0, 2, 1], [2, 4, 2], [2, 0, 1]
    together = explainer.decompose(inputs, starts, stops, target=target, lengths=LENGTHS)
    for row in range(3):
        alone = explainer.decompose(
            inputs[row : row + 1], starts[row], stops[row], target=target[row], lengths=LENGTHS[row : row + 1]
        )
        np.testing.assert_allclose([part[row] for part in together], np.ravel(alone), rtol=1e-12)


@pytest.mark.parametrize("config", CONFIGS[:4], ids=str)
def test_interaction_is_what_two_spans_give_beyond_each(config):
    """The interaction is relevant(both) - relevant(one) - relevant(other), both by the loop; order does not matter."""
    model = lstm(**config, double=True)
    inputs = sequences(2, 6, 3, double=True)
    explainer = ContextualDecomposition(model)
    found = explainer.interaction(inputs, (0, 2), (3, 5))
    for row in range(2):
        one, other = (span_mask(inputs[row], model, *span) for span in ((0, 2), (3, 5)))
        parts = [oracle(model, inputs[row], mask)[0] for mask in (one | other, one, other)]
        assert found[row] == pytest.approx(parts[0] - parts[1] - parts[2], abs=1e-10)
    np.testing.assert_allclose(explainer.interaction(inputs, (3, 5), (0, 2)), found, rtol=1e-12)
    assert np.abs(found).min() > 1e-4


def test_players_choose_the_phrases():
    """Segments, features and cells are phrases; their part is shared equally by their valid cells."""
    model = lstm(double=True)
    inputs = sequences(2, 6, 3, double=True)
    lengths = [6, 4]

    def part(row, *span, features=None):
        one = inputs[row : row + 1, : lengths[row]]
        return ContextualDecomposition(model).decompose(one, *span, features=features)[0][0]

    segments = ContextualDecomposition(model, players="segment", segments=2).explain(inputs, lengths=lengths)
    for row, cut in ((0, 3), (1, 2)):
        found = [segments.timesteps[row, :cut].sum(), segments.timesteps[row, cut : lengths[row]].sum()]
        np.testing.assert_allclose(found, [part(row, 0, cut), part(row, cut, lengths[row])], rtol=1e-10)
        np.testing.assert_allclose(segments.values[row, :cut], found[0] / cut / 3, rtol=1e-10)
    features = ContextualDecomposition(model, players="feature").explain(inputs, lengths=lengths)
    cells = ContextualDecomposition(model, players="cell").explain(inputs, lengths=lengths)
    for row, feature in itertools.product(range(2), range(3)):
        whole = part(row, 0, lengths[row], features=[feature])
        assert features.values[row, :, feature].sum() == pytest.approx(whole, rel=1e-10)
        assert cells.values[row, 1, feature] == pytest.approx(part(row, 1, 2, features=[feature]), rel=1e-10)
    for result, resolution in ((segments, "segment"), (features, "feature"), (cells, "cell")):
        assert result.resolution == resolution
        assert not result.values[1, 4:].any()


def test_a_feature_without_weights_gets_exactly_nothing():
    """What the model does not read has no relevant part, with every gate's bias far from 0."""
    model = lstm(bidirectional=True, hidden_sizes=(4, 3))
    with torch.no_grad():
        for name in ("weight_ih_l0", "weight_ih_l0_reverse"):
            getattr(model.lstm[0], name)[:, 1] = 0
    values = ContextualDecomposition(model, players="cell").explain(sequences(2, 6, 3)).values
    assert not values[..., 1].any()
    assert np.abs(values[..., 0]).min() > 0


@pytest.mark.parametrize("config", CONFIGS[:4], ids=str)
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_variable_lengths_are_trimmed_singles(config, pooling):
    """A padded sequence in a batch, with garbage in its padding, is explained as alone and trimmed."""
    explainer = ContextualDecomposition(lstm(**config, pooling=pooling, double=True))
    inputs = sequences(3, 6, 3, double=True)
    together = explainer.explain(inputs, lengths=LENGTHS).values
    for row, length in enumerate(LENGTHS):
        alone = explainer.explain(inputs[row : row + 1, :length]).values[0]
        np.testing.assert_allclose(together[row, :length], alone, rtol=1e-9, atol=1e-14)


def test_blocks_of_phrases_and_rows_change_nothing(monkeypatch):
    """What fits the memory budget decides how much is worked on at once, and no number."""
    import gatelens.explainers.contextual_decomposition as module

    inputs = sequences(3, 6, 3, double=True)
    for config in ({}, {"bidirectional": True, "hidden_sizes": (4, 3), "pooling": "mean"}):
        model = lstm(**config, double=True)
        whole = ContextualDecomposition(model)
        expected = whole.explain(inputs, lengths=LENGTHS).values
        phrase = whole.decompose(inputs, 1, 4, lengths=LENGTHS)
        with monkeypatch.context() as patched:
            patched.setattr(module, "BLOCK_NUMBERS", 1)
            small = ContextualDecomposition(Predictor(model, memory_bytes=1))
            np.testing.assert_allclose(small.explain(inputs, lengths=LENGTHS).values, expected, rtol=1e-10, atol=1e-14)
            np.testing.assert_allclose(small.decompose(inputs, 1, 4, lengths=LENGTHS), phrase, rtol=1e-10)


def test_tokens_are_phrases():
    """A token's part is that of its embedding, whole."""
    model = lstm(vocab_size=9, embedding_dim=4, double=True)
    ids = token_ids(3, 6)
    explainer = ContextualDecomposition(model)
    result = explainer.explain(ids, lengths=LENGTHS)
    relevant, irrelevant = explainer.decompose(ids, 0, 2, lengths=LENGTHS)
    for row, length in enumerate(LENGTHS):
        masks = [span_mask(ids[row, :length], model, t, t + 1) for t in range(length)]
        expected = [oracle(model, ids[row, :length], mask)[0] for mask in masks]
        np.testing.assert_allclose(result.values[row, :length, 0], expected, rtol=0, atol=1e-10)
        pair = oracle(model, ids[row, :length], masks[0] | masks[1])
        np.testing.assert_allclose([relevant[row], irrelevant[row]], pair, rtol=0, atol=1e-10)
    for refused in (
        lambda: ContextualDecomposition(model, players="feature").explain(ids),
        lambda: explainer.decompose(ids, 0, 2, features=[0]),
    ):
        with pytest.raises(InvalidInputError, match="no meaning for token ids"):
            refused()


@pytest.mark.parametrize("config", CONFIGS[:4], ids=str)
def test_float32_is_close_to_float64(config):
    """Differences of nonlinearities in float32 give the float64 numbers to 1e-4 of the largest."""
    single, double = (
        ContextualDecomposition(lstm(**config, double=wide)).explain(sequences(2, 20, 3)).values
        for wide in (False, True)
    )
    np.testing.assert_allclose(single, double, rtol=0, atol=1e-4 * np.abs(double).max())


@pytest.mark.parametrize("kind", [Foreign, ForeignWithLengths])
def test_a_plain_torch_module_is_adopted(kind):
    """A stranger's stacked module gives what the oracle gives on its rewritten model."""
    from gatelens.models import from_torch

    module = kind().double()
    inputs = sequences(3, 6, 3, double=True)
    explainer = ContextualDecomposition(module)
    result = explainer.explain(inputs, lengths=LENGTHS)
    rest = explainer.decompose(inputs, 0, 1, lengths=LENGTHS)[1]
    adopted = from_torch(module).double()
    for row, length in enumerate(LENGTHS):
        expected = oracle(adopted, inputs[row, :length], span_mask(inputs[row, :length], adopted, 0, 1))
        np.testing.assert_allclose([result.timesteps[row, 0], rest[row]], expected, rtol=0, atol=1e-10)


def test_features_have_names():
    """A phrase's features may be named, where the model knows names."""
    model = lstm(double=True)
    model.data = DataSpec(features=tuple(FeatureSpec(name=name) for name in ("heat", "rain", "wind")))
    explainer, inputs = ContextualDecomposition(model), sequences(2, 6, 3, double=True)
    named, numbered = (explainer.decompose(inputs, 0, 3, features=chosen)[0] for chosen in (["rain"], [1]))
    np.testing.assert_array_equal(named, numbered)
    with pytest.raises(InvalidInputError, match=r"features holds 'rian'.*Did you mean 'rain'"):
        explainer.decompose(inputs, 0, 3, features=["rian"])


def test_the_model_is_left_as_found():
    """Phrases are computed in eval mode, and mode, grad flags and training stay as they were."""
    model = lstm(dropout=0.5).train()
    explainer, inputs = ContextualDecomposition(model), sequences(2, 6, 3)
    first, again = (explainer.decompose(inputs, 0, 3)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda one, x: one.decompose(x, 2, 2), InvalidInputError, r"\[2, 2\); expected 0 <= start < stop <= 6"),
        (lambda one, x: one.decompose(x, 0, 7), InvalidInputError, r"\[0, 7\)"),
        (lambda one, x: one.decompose(x, -1, 3), InvalidInputError, r"\[-1, 3\)"),
        (lambda one, x: one.decompose(x, 0.5, 3), InvalidTypeError, r"start is 0\.5; expected a whole number, or 2"),
        (lambda one, x: one.decompose(x, 0, [1, 2, 3]), InvalidTypeError, r"stop is \[1, 2, 3\]"),
        (lambda one, x: one.decompose(x, 0, 3, features=[3]), InvalidInputError, "features holds 3; expected 0 to 2"),
        (lambda one, x: one.decompose(x, 0, 3, features=[]), InvalidInputError, "features is empty"),
        (lambda one, x: one.interaction(x, (0, 3), (2, 4)), InvalidInputError, r"\(0, 3\) and \(2, 4\) overlap"),
        (lambda one, x: one.interaction(x, (0, 3), 4), InvalidTypeError, r"a span is 4; expected \(start, stop\)"),
        (lambda one, x: one.decompose(x * float("nan"), 0, 3), InvalidInputError, "NaN"),
    ],
)
def test_phrases_that_are_none_are_refused(call, error, message):
    """Spans outside the sequence, unknown features and overlapping spans are refused by what was expected."""
    with pytest.raises(error, match=message):
        call(ContextualDecomposition(lstm()), sequences(2, 6, 3))


def test_models_and_options_without_a_rule_are_refused():
    """Maximum, attention, probabilities and unknown players are refused when the explainer is made."""
    for pooling in ("max", "attention"):
        with pytest.raises(ModelError, match=rf"contextual_decomposition needs .*'{pooling}'.*deeplift, lrp"):
            ContextualDecomposition(lstm(pooling=pooling))
    with pytest.raises(InvalidInputError, match="contextual_decomposition takes the raw score apart"):
        ContextualDecomposition(lstm(task="binary"), output="probability")
    with pytest.raises(InvalidInputError, match="players is 'word'"):
        ContextualDecomposition(lstm(), players="word")
    with pytest.raises(InvalidInputError, match="segments is 0"):
        ContextualDecomposition(lstm(), players="segment", segments=0)
