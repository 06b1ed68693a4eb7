"""The contract of an explainer, as functions that the author of a plug-in runs: `check_explainer(MyExplainer)`.

Each check takes a factory, called as `factory(model, **options) -> Explainer`: the class itself, or a
`functools.partial` of it. It returns, or raises `ContractError` with a sentence that names the axiom and the numbers.
A check that does not apply (completeness of a method that promises none) returns at once. In a test suite:

    @parametrize_with_checks([MyExplainer])
    def test_contract(explainer, check):
        check(explainer)
"""

from __future__ import annotations

import functools
import random
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..models import GatelensError, InvalidInputError, LSTMConfig, LSTMModel, ModelError
from ..models.state import seeded
from .attribution import Attribution
from .base import Explainer

if TYPE_CHECKING:
    import pytest

Factory = Callable[..., Explainer]
Check = Callable[[Factory], None]

CHECKS: dict[str, Check] = {}

LENGTHS = torch.tensor([6, 4, 1])  # longest first; `batch_permutation` sees the other orders
STEPS = 6
FEATURES = 3
ROUNDING = 1e-5  # of the largest attribution: float32, summed in another order
GAP = {"exact": 1e-4, "converges": 0.05}  # of |f(x) - f(baseline)|
DUMMY_CREDIT = {"exact": 1e-4, "converges": 1e-4, "none": 0.05}  # of all attributions; a surrogate's fit has noise


class ContractError(GatelensError, AssertionError):
    """An explainer breaks an axiom of the contract."""


def check_explainer(explainer: Factory, **options: Any) -> None:
    """Run every check, and tell all that fail.

    Args:
        explainer: The class, or anything called as `explainer(model, **options)`.
        options: Options to make it with, e.g. samples=5000.

    Raises:
        ContractError: At least one check fails; a sentence each.
    """
    factory = functools.partial(explainer, **options)
    found = []
    for check in CHECKS.values():
        try:
            check(factory)
        except ContractError as error:
            found.append(str(error))
    if found:
        raise ContractError("\n".join(found))


def parametrize_with_checks(explainers: Iterable[Factory]) -> pytest.MarkDecorator:
    """Return a decorator for `def test_contract(explainer, check): check(explainer)`, one test an explainer and check.

    Args:
        explainers: Classes, or partials of them.
    """
    import pytest

    pairs = [
        pytest.param(explainer, check, id=f"{_name(explainer)}-{name}")
        for explainer in explainers
        for name, check in CHECKS.items()
    ]
    return pytest.mark.parametrize(("explainer", "check"), pairs)


def _axiom(check: Check) -> Check:
    """List a check in `CHECKS`; whatever it raises is a ContractError that says who breaks which axiom."""

    @functools.wraps(check)
    def run(factory: Factory) -> None:
        axiom = check.__name__.replace("_", " ")
        try:
            check(factory)
        except ContractError as error:
            raise ContractError(f"{_name(factory)} breaks {axiom!r}: {error}") from error.__cause__
        except Exception as error:
            raise ContractError(
                f"{_name(factory)} breaks {axiom!r}: it raised {type(error).__name__}: {error}"
            ) from error

    CHECKS[check.__name__] = run
    return run


# -- what an explanation looks like ----------------------------------------------------------------------------------


@_axiom
def shapes_and_names(factory: Factory) -> None:
    """An explanation is an `Attribution` (B, T, D) of finite numbers with the names of method, samples and features."""
    explainer = factory(_model(factory))
    names = ("first", "second", "third")
    result = explainer.explain(_inputs(), lengths=LENGTHS, sample_names=names)
    _demand(isinstance(result, Attribution), f"explain returned a {type(result).__name__}; expected an Attribution.")
    expected = (len(LENGTHS), STEPS, FEATURES)
    _demand(result.values.shape == expected, f"values has shape {result.values.shape}; expected {expected}.")
    _demand(bool(np.isfinite(result.values).all()), "values holds NaN or infinite numbers.")
    _demand(result.sample_names == names, f"sample_names is {result.sample_names}; {names} was given.")
    _demand(result.method == explainer.name, f"method is {result.method!r}; its name is {explainer.name!r}.")
    _demand(len(result.feature_names) == FEATURES, f"feature_names is {result.feature_names}; expected {FEATURES}.")
    _demand(bool((result.lengths == LENGTHS.numpy()).all()), f"lengths is {result.lengths}; {LENGTHS} was given.")


@_axiom
def accepts_targets(factory: Factory) -> None:
    """None, an int, (B,) ints and (timestep, output) all explain the output that they name."""
    classes, steps = _model(factory, output_size=3, task="multiclass"), _model(factory, output_size=2, pooling="none")
    with torch.no_grad():
        class_scores, step_scores = classes(_inputs(), LENGTHS), steps(_inputs(), LENGTHS)  # (B, 3), (B, T, 2)
    over_time = () if _needs_attention(factory) else ((0, 1), (-1, 0))  # one that pools has no output a timestep
    rows = torch.arange(len(LENGTHS))
    mixed = torch.tensor([2, 0, 1])
    results = {}
    for model, target, expected in (
        (classes, None, class_scores.amax(dim=1)),
        (classes, 0, class_scores[:, 0]),
        (classes, 1, class_scores[:, 1]),
        (classes, 2, class_scores[:, 2]),
        (classes, mixed, class_scores[rows, mixed]),
        *((steps, (step, output), step_scores[rows, LENGTHS - 1 if step else 0, output]) for step, output in over_time),
    ):
        result = factory(model).explain(_inputs(), target=target, lengths=LENGTHS)
        _same(result.prediction, expected.numpy(), f"the prediction explained with target={target}")
        results[str(target)] = result.values
    singly = np.stack([results[str(int(output))][row] for row, output in enumerate(mixed)])
    _same(results[str(mixed)], singly, f"the attribution with target={mixed.tolist()} and that of each class by itself")


@_axiom
def accepts_tokens(factory: Factory) -> None:
    """Of token ids (B, T) an explanation is (B, T, 1) and 0 at padding, or they are refused with a reason."""
    model = _model(factory, input_size=None, vocab_size=7, embedding_dim=4)
    ids = torch.arange(len(LENGTHS) * STEPS).reshape(len(LENGTHS), STEPS) % 6 + 1
    try:
        result = factory(model).explain(ids, lengths=LENGTHS)
    except (InvalidInputError, ModelError):
        return
    expected = (len(LENGTHS), STEPS, 1)
    _demand(result.values.shape == expected, f"values has shape {result.values.shape}; expected {expected}.")
    _demand(bool((result.values[:, 0] != 0).any()), "every first token has the attribution 0.")
    _demand(_outside(result.values, LENGTHS) == 0, "padding ids have an attribution other than 0.")


@_axiom
def nan_refused(factory: Factory) -> None:
    """NaN and infinity at a valid timestep are refused with `InvalidInputError`, not explained."""
    for bad in (float("nan"), float("inf")):
        inputs = _inputs()
        inputs[1, 2, 0] = bad
        try:
            factory(_model(factory)).explain(inputs, lengths=LENGTHS)
        except InvalidInputError:
            continue
        raise ContractError(f"inputs[1, 2, 0] = {bad} was explained; expected InvalidInputError.")


@_axiom
def save_load_identity(factory: Factory) -> None:
    """What `Attribution.load` reads is identical to what `save` wrote: values, names, types and provenance."""
    result = factory(_model(factory)).explain(_inputs(), lengths=LENGTHS, sample_names=("a", "ü", "<c>"))
    with tempfile.TemporaryDirectory() as folder:
        loaded = Attribution.load(result.save(Path(folder) / "attribution.nc"))
    _demand(loaded.dataset.identical(result.dataset), f"loaded {loaded.dataset}, saved {result.dataset}.")


# -- what the numbers owe --------------------------------------------------------------------------------------------


@_axiom
def completeness(factory: Factory) -> None:
    """The attributions of a method that promises it sum to f(x) - f(baseline), within its tolerance."""
    explainer = factory(_model(factory))
    if explainer.completeness == "none":
        return
    result = explainer.explain(_inputs(), lengths=LENGTHS)
    explained = result.prediction - result.baseline_prediction  # (B,)
    gap = explained - result.values.sum(axis=(1, 2), dtype=np.float64)
    allowed = GAP[explainer.completeness] * np.abs(explained)
    if result.std_error is not None:
        allowed += 4 * np.sqrt((result.std_error**2).sum(axis=(1, 2)))
    _demand(
        bool((np.abs(gap) <= allowed).all()),
        f"f(x) - f(baseline) is {explained} and the sum of attributions misses it by {gap}; "
        f"{explainer.completeness!r} allows {allowed}.",
    )


@_axiom
def dummy_feature(factory: Factory) -> None:
    """A feature that the model does not read gets 0, where the method tells features apart."""
    model = _model(factory)
    with torch.no_grad():
        model.get_parameter("lstm.0.weight_ih_l0")[:, -1] = 0
    explainer = _with_players(factory, model, "feature")
    result = explainer.explain(_inputs(), lengths=LENGTHS)
    if result.resolves_features:
        _demand_no_credit(explainer, result.values, result.values[..., -1], "a feature that the model ignores")


@_axiom
def dummy_timestep(factory: Factory) -> None:
    """Timesteps after the explained one get 0 from a model that reads forward only."""
    if _needs_attention(factory):
        return
    explainer = _with_players(factory, _model(factory, pooling="none"), "timestep")
    result = explainer.explain(_inputs(), target=(2, 0))
    if result.resolution in ("cell", "timestep"):
        _demand_no_credit(explainer, result.values, result.values[:, 3:], "timesteps after the explained one")


@_axiom
def padding_invariance(factory: Factory) -> None:
    """What stands in the padding, and how much of it there is, changes nothing; padding gets exactly 0."""
    explainer = factory(_model(factory, bidirectional=True))
    inputs, longer = _inputs(), torch.full((len(LENGTHS), STEPS + 3, FEATURES), 7.0)
    longer[:, :STEPS] = inputs
    for row, length in enumerate(LENGTHS):
        inputs[row, length:] = 0
        longer[row, length:] = 1e6
    longer[-1, -1] = float("nan")
    clean, other = (explainer.explain(part, lengths=LENGTHS).values for part in (inputs, longer))
    credit = _outside(clean, LENGTHS) + _outside(other, LENGTHS)
    _demand(credit == 0, f"padding has attributions whose absolute sum is {credit:.3g}; expected 0.")
    _same(other[:, :STEPS], clean, "the attribution with garbage in a longer padding and that with zeros")


@_axiom
def batch_equals_singles(factory: Factory) -> None:
    """A sample is explained in a batch as it is alone."""
    explainer = factory(_model(factory))
    together = explainer.explain(_inputs(), lengths=LENGTHS).values
    for row in range(len(LENGTHS)):
        alone = explainer.explain(_inputs()[row : row + 1], lengths=LENGTHS[row : row + 1]).values[0]
        _same(together[row], alone, f"the attribution of sample {row} in a batch and alone")


@_axiom
def batch_permutation(factory: Factory) -> None:
    """Samples in another order are explained the same, in that order."""
    explainer = factory(_model(factory))
    order = torch.tensor([2, 0, 1])
    found = explainer.explain(_inputs()[order], lengths=LENGTHS[order]).values
    expected = explainer.explain(_inputs(), lengths=LENGTHS).values[order.numpy()]
    _same(found, expected, f"the attributions of samples in the order {order.tolist()} and those in the order given")


@_axiom
def deterministic_by_seed(factory: Factory) -> None:
    """The same seed gives the same numbers, bit for bit, from an old or a new explainer, whatever was drawn before."""
    first = factory(_model(factory), seed=3)
    values = []
    for seed, explainer in enumerate((first, first, factory(_model(factory), seed=3))):
        with seeded(seed):
            values.append(explainer.explain(_inputs(), lengths=LENGTHS).values)
    difference = max(float(np.abs(value - values[0]).max()) for value in values)
    _demand(difference == 0, f"two runs with seed=3 differ by {difference:.3g}; expected the same numbers.")


# -- what is borrowed is given back ----------------------------------------------------------------------------------


@_axiom
def model_left_untouched(factory: Factory) -> None:
    """Modes, grad flags, parameters, gradients, hooks and global random states are as before, also after an error."""
    for fails_at in (None, 3):  # the third call: after the prediction and its baseline
        model = _FailingModel(_config(factory, dropout=0.5), fails_at)
        model.train()
        model.lstm.eval()
        model.head.weight.requires_grad_(False)
        model.head.bias.grad = torch.ones_like(model.head.bias)
        explainer = factory(model)
        before = _state(model)
        try:
            explainer.explain(_inputs(), lengths=LENGTHS)
        except GatelensError:
            if fails_at is None:
                raise
        changed = [name for name, value in _state(model).items() if value != before[name]]
        when = "an explanation" if fails_at is None else "an error in the model"
        _demand(not changed, f"after {when} these are not as before: {', '.join(changed)}.")


def _state(model: nn.Module) -> dict[str, Any]:
    """Return everything about a model, and about the process, that an explanation has to leave alone."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    state: dict[str, Any] = {
        "the state of random": random.getstate(),
        "the state of numpy.random": str(np.random.get_state(legacy=False)),  # noqa: NPY002
        "the state of torch's generator": torch.get_rng_state().tolist(),
        "torch.is_grad_enabled()": torch.is_grad_enabled(),
    }
    for path, part in model.named_modules():
        state[f"{path or 'model'}.training"] = part.training
        state[f"hooks of {path or 'model'}"] = [list(getattr(part, kind)) for kind in hooks]
    for path, parameter in model.named_parameters():
        state[f"{path}.requires_grad"] = parameter.requires_grad
        state[path] = parameter.tolist()
        state[f"{path}.grad"] = None if parameter.grad is None else parameter.grad.tolist()
    return state


# -- small models and sequences --------------------------------------------------------------------------------------


class _FailingModel(LSTMModel):
    """A model that raises when it is called for the n-th time; never with None."""

    def __init__(self, config: LSTMConfig, fails_at: int | None) -> None:
        with seeded(0):
            super().__init__(config)
        self._calls = 0
        self._fails_at = fails_at

    def forward(self, inputs: Any, lengths: Any = None) -> Tensor:
        """Return scores, or raise."""
        self._calls += 1
        if self._calls == self._fails_at:
            raise RuntimeError("this model fails on purpose")
        return super().forward(inputs, lengths)


def _needs_attention(factory: Any) -> bool:
    return getattr(_made_by(factory), "needs", "") == "attention"


def _config(factory: Factory, **changes: Any) -> LSTMConfig:
    pooling = {"pooling": "attention"} if _needs_attention(factory) else {}
    return LSTMConfig(**{"input_size": FEATURES, "hidden_sizes": (5,), **pooling, **changes})


def _model(factory: Factory, **changes: Any) -> LSTMModel:
    """Return a seeded model that has what the explainer needs, its weights so large that its outputs move."""
    with seeded(0):
        model = LSTMModel(_config(factory, **changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model.eval()


def _inputs() -> Tensor:
    """Return floats (B, T, D), with garbage in the padding."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(len(LENGTHS), STEPS, FEATURES, generator=generator)


def _with_players(factory: Factory, model: nn.Module, players: str) -> Explainer:
    """Return the explainer, told what to switch on and off if it does that."""
    explainer = factory(model)
    return factory(model, players=players) if hasattr(explainer, "players") else explainer


def _demand_no_credit(explainer: Explainer, values: Any, part: Any, what: str) -> None:
    credit = float(np.abs(part).sum())
    allowed = DUMMY_CREDIT[explainer.completeness] * float(np.abs(values).sum())
    _demand(credit <= allowed, f"{what} got {credit:.3g}; allowed is {allowed:.3g}.")


def _outside(values: Any, lengths: Tensor) -> float:
    """Return the absolute sum of values (B, T, D) at padding."""
    return float(sum(np.abs(row[length:]).sum() for row, length in zip(values, lengths.tolist(), strict=True)))


def _same(found: Any, expected: Any, what: str) -> None:
    difference, largest = float(np.abs(found - expected).max()), float(np.abs(expected).max())
    _demand(
        difference <= ROUNDING * largest,
        f"{what} differ by {difference:.3g} where the largest is {largest:.3g}; expected equal numbers.",
    )


def _demand(condition: bool, sentence: str) -> None:
    if not condition:
        raise ContractError(sentence)


def _name(factory: Any) -> str:
    made = _made_by(factory)
    return str(getattr(made, "name", getattr(made, "__name__", made)))


def _made_by(factory: Any) -> Any:
    while isinstance(factory, functools.partial):
        factory = factory.func
    return factory
