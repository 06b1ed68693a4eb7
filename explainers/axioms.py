"""The axioms of attribution, as checks: what the numbers of an explanation owe to the model and the baseline.

An explainer says by class attributes of the axioms' names what it promises: "exact" (up to rounding), "converges" (with
more steps or samples) or "none"; within the standard errors that it tells, in either case. Coalition methods are asked
with each kind of player that they take.
Sources: Shapley 1953 (dummy player, symmetry, linearity); Sundararajan, Taly & Yan 2017 (completeness); Lundberg & Lee
2017 (missingness).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models import InvalidInputError, LSTMModel
from ..models.retain import RETAIN
from .attribution import Attribution
from .base import Completeness, Explainer
from .baselines import resolve_baseline
from .contract import (
    FEATURES,
    LENGTHS,
    ContractError,
    Factory,
    axiom,
    demand,
    explains_timesteps,
    fitted,
    fitting,
    needs_of,
    reading_weight,
    sequences,
    small_model,
)
from .players import PlayerKind

ALLOWED = {"exact": 1e-4, "converges": 0.05}  # of what is attributed, or of the largest attribution
STANDARD_ERRORS = 4
STEPS = 4  # few: cells are players too, and their coalitions are many
HALF = STEPS // 2
SATURATED = 200.0  # as a bias it opens or, negative, shuts a gate completely
WEIGHTS = 0.75, -1.5  # of two outputs in the third


@axiom
def completeness(factory: Factory) -> None:
    """The attributions of a method that promises it sum to f(x) - f(baseline), within its tolerance."""
    explainer = factory(small_model(factory))
    share = _allowed(explainer, "completeness")
    if share is None:
        return
    result = explainer.explain(sequences(), lengths=LENGTHS)
    explained = result.prediction - result.baseline_prediction  # (B,)
    gap = explained - result.values.sum(axis=(1, 2), dtype=np.float64)
    allowed = share * np.abs(explained) + np.sqrt((_errors(result) ** 2).sum(axis=(1, 2)))
    demand(
        bool((np.abs(gap) <= allowed).all()),
        f"f(x) - f(baseline) is {explained} and the sum of attributions misses it by {gap}; "
        f"{explainer.completeness!r} allows {allowed}.",
    )


@axiom
def dummy_player(factory: Factory) -> None:
    """What the model does not read gets nothing: a feature without weights, timesteps after the explained one."""
    blind = small_model(factory)
    with torch.no_grad():
        reading_weight(blind)[:, -1] = 0
    feature = np.arange(FEATURES) == FEATURES - 1  # (D,)
    for explainer, result in _explained(factory, blind, ("feature", "cell")):
        if result.resolves_features:
            _demand_nothing(explainer, "dummy_player", result, feature[None], "a feature that the model ignores")
    if not explains_timesteps(factory):
        return
    later = np.arange(STEPS) >= HALF  # (T,)
    forward = small_model(factory, pooling="none")
    for explainer, result in _explained(factory, forward, ("timestep", "segment", "cell"), target=(HALF - 1, 0)):
        if result.resolves_time:
            _demand_nothing(explainer, "dummy_player", result, later[:, None], "timesteps after the explained one")


@axiom
def missingness(factory: Factory) -> None:
    """A player whose input is the baseline's gets nothing from a method that promises it."""
    if _allowed(factory(small_model(factory)), "missingness") is None:
        return
    first = (np.arange(STEPS) < HALF)[:, None]  # (T, 1)
    feature = (np.arange(FEATURES) == 1)[None]  # (1, D)

    def missing(values: Tensor) -> Tensor:
        return values.masked_fill(torch.tensor(first | feature), 0.5)

    for explainer, result in _explained(factory, small_model(factory), get_args(PlayerKind), missing):
        whole = (first & result.resolves_time) | (feature & result.resolves_features)  # players that are all missing
        _demand_nothing(explainer, "missingness", result, whole, "what holds the baseline's value")


@axiom
def symmetry(factory: Factory) -> None:
    """Players that the model computes with in the same way get the same for the same, where that is promised."""
    if _allowed(factory(small_model(factory)), "symmetry") is None:
        return
    twins = small_model(factory)
    with torch.no_grad():
        weight = reading_weight(twins)  # (.., D)
        weight[:, 1] = weight[:, 0]

    def features_alike(values: Tensor) -> Tensor:
        return values[..., [0, 0, *range(2, FEATURES)]]

    for explainer, result in _explained(factory, twins, ("feature", "cell"), features_alike):
        if result.resolves_features:
            one, other = (np.arange(FEATURES) == feature for feature in (0, 1))
            _demand_same_credit(explainer, result, one[None], other[None], "two features with the same weights")

    def halves_alike(values: Tensor) -> Tensor:
        return values[..., [*range(HALF), *range(HALF)], :]

    for explainer, result in _explained(factory, _orderless(factory), ("timestep", "segment", "cell"), halves_alike):
        if result.resolves_time:
            early = np.arange(STEPS) < HALF
            what = "the timesteps of two halves whose order does not matter to the model"
            _demand_same_credit(explainer, result, early[:, None], ~early[:, None], what)


@axiom
def linearity(factory: Factory) -> None:
    """What a weighted sum of outputs owes to a player is that sum of what they owe, where that is promised."""
    explainer = factory(small_model(factory))
    share = _allowed(explainer, "linearity")
    if share is None or explainer.predictor.output == "probability":  # a softmax of three is no sum of them
        return
    model = small_model(factory, output_size=3, task="regression")
    one, other = WEIGHTS
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter[2] = one * parameter[0] + other * parameter[1]
    inputs = _inputs()
    results = [fitted(factory, model, inputs).explain(inputs, target=output) for output in range(3)]
    terms = [weight * result.values for weight, result in zip(WEIGHTS, results, strict=False)]
    errors = [weight * _errors(result) for weight, result in zip((*WEIGHTS, 1), results, strict=True)]
    difference = np.abs(results[2].values - sum(terms))
    largest = max(float(np.abs(term).max()) for term in terms)
    demand(
        bool((difference <= share * largest + np.sqrt(np.square(errors).sum(axis=0))).all()),
        f"{one} f + {other} g is explained by numbers that differ by up to {difference.max():.3g} from {one} times "
        f"those of f and {other} times those of g, where the largest is {largest:.3g}; "
        f"{explainer.linearity!r} allows {share:g} of it.",
    )


# -- asking ----------------------------------------------------------------------------------------------------------


def _inputs() -> Tensor:
    """Return floats (1, T, D), short, and without padding."""
    return sequences()[:1, :STEPS]


def _orderless(factory: Factory) -> LSTMModel | RETAIN:
    """Return a model to which the order of timesteps means nothing.

    Its cells add up what is written, and nothing is fed back; or, under attention, they forget everything at once.
    """
    model = small_model(factory)
    if isinstance(model, RETAIN):
        with torch.no_grad():
            for network in (model.alpha_network, model.beta_network):
                units = network.hidden_size
                network.get_parameter("weight_hh_l0").zero_()
                update = slice(units, 2 * units)  # gates of a GRU: reset, update, new; shut, it keeps nothing
                network.get_parameter("weight_ih_l0")[update] = 0
                network.get_parameter("bias_ih_l0")[update] = -SATURATED
        return model
    attends = needs_of(factory) == "attention"
    units = model.config.hidden_sizes[0]
    forget = slice(units, 2 * units)
    with torch.no_grad():
        model.get_parameter("lstm.0.weight_hh_l0").zero_()
        weight, bias = (model.get_parameter(f"lstm.0.{name}_ih_l0") for name in ("weight", "bias"))
        weight[forget] = 0
        bias[forget] = -SATURATED if attends else SATURATED
        if not attends:
            weight[3 * units :] = 0  # the output gate is the same at every timestep
    return model


def _explained(
    factory: Factory,
    model: LSTMModel | RETAIN,
    kinds: Sequence[PlayerKind],
    edit: Callable[[Tensor], Tensor] | None = None,
    **options: Any,
) -> Iterator[tuple[Explainer, Attribution]]:
    """Explain with each kind of player that the explainer takes, once if it knows none.

    Args:
        factory: Makes the explainer.
        model: The model.
        kinds: Of player.
        edit: Changes the inputs, and in the same way the baseline or background that they are compared with.
        options: Of `explain`.
    """
    inputs = _inputs() if edit is None else edit(_inputs())
    for players in _players(factory, model, kinds):
        told = functools.partial(factory, **players)
        explainer = fitted(told, model, inputs)
        if edit is not None and explainer.background is not None:
            explainer = told(model, background=edit(fitting(explainer.background, inputs)))
        elif edit is not None:
            lengths = torch.full((len(inputs),), STEPS)
            reference = resolve_baseline(explainer.baseline, inputs, lengths, explainer.predictor)
            explainer = told(model, baseline=edit(reference))
        yield explainer, explainer.explain(inputs, **options)


def _players(factory: Factory, model: LSTMModel | RETAIN, kinds: Sequence[PlayerKind]) -> Iterator[dict[str, Any]]:
    """Yield the options that make each kind of player; none for an explainer that knows no players."""
    explainer = factory(model)
    if not hasattr(explainer, "players"):
        yield {}
        return
    halves = {"segments": 2, "segmentation": "uniform"}
    for kind in kinds:
        cut = {name: value for name, value in halves.items() if kind == "segment" and hasattr(explainer, name)}
        options = {"players": kind, **cut}
        try:
            factory(model, **options)
        except InvalidInputError:  # a window of timesteps cannot slide over features
            continue
        yield options


# -- judging ---------------------------------------------------------------------------------------------------------


def _allowed(explainer: Explainer, name: str) -> float | None:
    """Return by which share an explainer may miss an axiom; None where it promises nothing."""
    promise = getattr(explainer, name)
    if promise not in get_args(Completeness):
        known = ", ".join(repr(known) for known in get_args(Completeness))
        raise ContractError(f"its attribute {name} is {promise!r}; expected one of {known}.")
    return ALLOWED.get(promise)


def _errors(result: Attribution) -> NDArray[np.float64]:
    """Return how far sampling may have moved each cell, (B, T, D)."""
    return np.zeros(result.values.shape) if result.std_error is None else STANDARD_ERRORS * result.std_error


def _demand_nothing(explainer: Explainer, name: str, result: Attribution, cells: NDArray[np.bool_], what: str) -> None:
    """Demand that the cells (T or 1, D or 1) get nothing."""
    share = _allowed(explainer, name)
    if share is None:
        return
    credit = float(np.abs(result.values * cells).sum())
    allowed = share * float(np.abs(result.values).sum()) + float((_errors(result) * cells).sum())
    demand(credit <= allowed, f"{what} got {credit:.3g} with {_asked(result)}; allowed is {allowed:.3g}.")


def _demand_same_credit(
    explainer: Explainer, result: Attribution, some: NDArray[np.bool_], others: NDArray[np.bool_], what: str
) -> None:
    """Demand that cells (T or 1, D or 1) get the same as others, in their order."""
    share = _allowed(explainer, "symmetry")
    shape = result.values.shape[1:]
    one, other = (np.broadcast_to(cells, shape) for cells in (some, others))
    difference = np.abs(result.values[:, one] - result.values[:, other])
    largest = float(np.abs(result.values).max())
    errors = np.hypot(_errors(result)[:, one], _errors(result)[:, other])
    demand(
        share is None or bool((difference <= share * largest + errors).all()),
        f"{what} got numbers that differ by up to {difference.max():.3g} with {_asked(result)}, where the largest is "
        f"{largest:.3g}; {explainer.symmetry!r} allows {share:g} of it.",
    )


def _asked(result: Attribution) -> str:
    return f"resolution {result.resolution!r}"
