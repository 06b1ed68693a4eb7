"""The contract of an explainer, as functions that the author of a plug-in runs: `check_explainer(MyExplainer)`.

Each check takes a factory, called as `factory(model, **options) -> Explainer`: the class itself, or a
`functools.partial` of it. It returns, or raises `ContractError` with a sentence that names the axiom and the numbers.
A check that does not apply (completeness of a method that promises none) returns at once. Here are those of what an
explanation looks like, and of what it must not depend on or change; `axioms.py` has those of its numbers. In a test
suite:

    @parametrize_with_checks([MyExplainer])
    def test_contract(explainer, check):
        check(explainer)
"""

from __future__ import annotations

import functools
import random
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..models import GatelensError, InvalidInputError, ModelError
from ..models.state import seeded
from . import axioms  # noqa: F401 - lists its checks
from .attribution import Attribution
from .base import Explainer
from .contract import (
    CHECKS,
    FEATURES,
    LENGTHS,
    STEPS,
    VOCABULARY,
    ContractError,
    Factory,
    axiom,
    demand,
    demand_same,
    explains_timesteps,
    fitted,
    model_class,
    name_of,
    sequences,
    small_config,
    small_model,
    token_ids,
)

if TYPE_CHECKING:
    import pytest

__all__ = ["CHECKS", "ContractError", "check_explainer", "parametrize_with_checks"]


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
        pytest.param(explainer, check, id=f"{name_of(explainer)}-{name}")
        for explainer in explainers
        for name, check in CHECKS.items()
    ]
    return pytest.mark.parametrize(("explainer", "check"), pairs)


# -- what an explanation looks like ----------------------------------------------------------------------------------


@axiom
def shapes_and_names(factory: Factory) -> None:
    """An explanation is an `Attribution` (B, T, D) of finite numbers with the names of method, samples and features."""
    explainer = factory(small_model(factory))
    names = ("first", "second", "third")
    result = explainer.explain(sequences(), lengths=LENGTHS, sample_names=names)
    demand(isinstance(result, Attribution), f"explain returned a {type(result).__name__}; expected an Attribution.")
    expected = (len(LENGTHS), STEPS, FEATURES)
    demand(result.values.shape == expected, f"values has shape {result.values.shape}; expected {expected}.")
    demand(bool(np.isfinite(result.values).all()), "values holds NaN or infinite numbers.")
    demand(result.sample_names == names, f"sample_names is {result.sample_names}; {names} was given.")
    demand(result.method == explainer.name, f"method is {result.method!r}; its name is {explainer.name!r}.")
    demand(len(result.feature_names) == FEATURES, f"feature_names is {result.feature_names}; expected {FEATURES}.")
    demand(bool((result.lengths == LENGTHS.numpy()).all()), f"lengths is {result.lengths}; {LENGTHS} was given.")


@axiom
def accepts_targets(factory: Factory) -> None:
    """None, an int, (B,) ints, (timestep, output) and (window, output) all explain the output that they name."""
    classes = factory(small_model(factory, output_size=3, task="multiclass"))
    scores = _explained_scores(classes)  # (B, 3)
    rows, mixed = torch.arange(len(LENGTHS)), torch.tensor([2, 0, 1])
    asked: list[tuple[Explainer, Any, Tensor]] = [
        (classes, None, scores.amax(dim=1)),
        (classes, 0, scores[:, 0]),
        (classes, 1, scores[:, 1]),
        (classes, 2, scores[:, 2]),
        (classes, mixed, scores[rows, mixed]),
    ]
    if explains_timesteps(factory):
        steps = factory(small_model(factory, output_size=2, task="multiclass", pooling="none"))
        scores = _explained_scores(steps)  # (B, T, 2)
        whole = torch.stack([row[:length].sum(dim=0) for row, length in zip(scores, LENGTHS.tolist(), strict=True)])
        asked += [
            (steps, (0, 1), scores[:, 0, 1]),
            (steps, (-1, 0), scores[rows, LENGTHS - 1, 0]),
            (steps, (slice(None), 1), whole[:, 1]),
        ]
    results = {}
    for explainer, target, expected in asked:
        result = explainer.explain(sequences(), target=target, lengths=LENGTHS)
        demand_same(result.prediction, expected.numpy(), f"the prediction explained with target={target}")
        results[str(target)] = result.values
    singly = np.stack([results[str(int(output))][row] for row, output in enumerate(mixed)])
    what = f"the attribution with target={mixed.tolist()} and that of each class by itself"
    demand_same(results[str(mixed)], singly, what)


def _explained_scores(explainer: Explainer) -> Tensor:
    """Return what the explainer's model says of each output, (B, K) or (B, T, K): its score, or its probability."""
    predictor = explainer.predictor
    return predictor.activate(predictor.predict(sequences(), LENGTHS))


@axiom
def accepts_tokens(factory: Factory) -> None:
    """Of token ids (B, T) an explanation is (B, T, 1) and 0 at padding, or they are refused with a reason."""
    model = small_model(factory, input_size=None, vocab_size=VOCABULARY, embedding_dim=4)
    try:
        result = fitted(factory, model, token_ids()).explain(token_ids(), lengths=LENGTHS)
    except (InvalidInputError, ModelError):
        return
    expected = (len(LENGTHS), STEPS, 1)
    demand(result.values.shape == expected, f"values has shape {result.values.shape}; expected {expected}.")
    demand(bool((result.values[:, 0] != 0).any()), "every first token has the attribution 0.")
    demand(_outside(result.values, LENGTHS) == 0, "padding ids have an attribution other than 0.")


@axiom
def nan_refused(factory: Factory) -> None:
    """NaN and infinity at a valid timestep are refused with `InvalidInputError`, not explained."""
    for bad in (float("nan"), float("inf")):
        inputs = sequences()
        inputs[1, 2, 0] = bad
        try:
            factory(small_model(factory)).explain(inputs, lengths=LENGTHS)
        except InvalidInputError:
            continue
        raise ContractError(f"inputs[1, 2, 0] = {bad} was explained; expected InvalidInputError.")


@axiom
def save_load_identity(factory: Factory) -> None:
    """What `Attribution.load` reads is identical to what `save` wrote: values, names, types and provenance."""
    result = factory(small_model(factory)).explain(sequences(), lengths=LENGTHS, sample_names=("a", "ü", "<c>"))
    with tempfile.TemporaryDirectory() as folder:
        loaded = Attribution.load(result.save(Path(folder) / "attribution.nc"))
    demand(loaded.dataset.identical(result.dataset), f"loaded {loaded.dataset}, saved {result.dataset}.")


# -- what an explanation does not depend on ---------------------------------------------------------------------------


@axiom
def padding_invariance(factory: Factory) -> None:
    """What stands in the padding, and how much of it there is, changes nothing; padding gets exactly 0."""
    model = small_model(factory, bidirectional=True)
    inputs, longer = sequences(), torch.full((len(LENGTHS), STEPS + 3, FEATURES), 7.0)
    longer[:, :STEPS] = inputs
    for row, length in enumerate(LENGTHS):
        inputs[row, length:] = 0
        longer[row, length:] = 1e6
    longer[-1, -1] = float("nan")
    clean, other = (fitted(factory, model, part).explain(part, lengths=LENGTHS).values for part in (inputs, longer))
    credit = _outside(clean, LENGTHS) + _outside(other, LENGTHS)
    demand(credit == 0, f"padding has attributions whose absolute sum is {credit:.3g}; expected 0.")
    demand_same(other[:, :STEPS], clean, "the attribution with garbage in a longer padding and that with zeros")


@axiom
def batch_equals_singles(factory: Factory) -> None:
    """A sample is explained in a batch as it is alone."""
    explainer = factory(small_model(factory))
    together = explainer.explain(sequences(), lengths=LENGTHS).values
    for row in range(len(LENGTHS)):
        alone = explainer.explain(sequences()[row : row + 1], lengths=LENGTHS[row : row + 1]).values[0]
        demand_same(together[row], alone, f"the attribution of sample {row} in a batch and alone")


@axiom
def batch_permutation(factory: Factory) -> None:
    """Samples in another order are explained the same, in that order."""
    explainer = factory(small_model(factory))
    order = torch.tensor([2, 0, 1])
    found = explainer.explain(sequences()[order], lengths=LENGTHS[order]).values
    expected = explainer.explain(sequences(), lengths=LENGTHS).values[order.numpy()]
    what = f"the attributions of samples in the order {order.tolist()} and those in the order given"
    demand_same(found, expected, what)


@axiom
def deterministic_by_seed(factory: Factory) -> None:
    """The same seed gives the same numbers, bit for bit, from an old or a new explainer, whatever was drawn before."""
    first = factory(small_model(factory), seed=3)
    values = []
    for seed, explainer in enumerate((first, first, factory(small_model(factory), seed=3))):
        with seeded(seed):
            values.append(explainer.explain(sequences(), lengths=LENGTHS).values)
    difference = max(float(np.abs(value - values[0]).max()) for value in values)
    demand(difference == 0, f"two runs with seed=3 differ by {difference:.3g}; expected the same numbers.")


# -- what is borrowed is given back ----------------------------------------------------------------------------------


@axiom
def model_left_untouched(factory: Factory) -> None:
    """Modes, grad flags, parameters, gradients, hooks and global random states are as before, also after an error."""
    for fails_at in (None, 3):  # the third call: after the prediction and its baseline
        model = _failing_model(factory, fails_at)
        model.train()
        next(model.children()).eval()
        model.head.weight.requires_grad_(False)
        model.head.bias.grad = torch.ones_like(model.head.bias)
        explainer = factory(model)
        before = _state(model)
        try:
            explainer.explain(sequences(), lengths=LENGTHS)
        except GatelensError:
            if fails_at is None:
                raise
        changed = [name for name, value in _state(model).items() if value != before[name]]
        when = "an explanation" if fails_at is None else "an error in the model"
        demand(not changed, f"after {when} these are not as before: {', '.join(changed)}.")


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


def _failing_model(factory: Factory, fails_at: int | None) -> Any:
    """Return a model that raises when it is called for the n-th time; never with None."""
    made = model_class(factory)
    calls = 0

    def forward(self: nn.Module, inputs: Any, lengths: Any = None) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise RuntimeError("this model fails on purpose")
        scores: Tensor = made.forward(self, inputs, lengths)
        return scores

    with seeded(0):
        return type("FailingModel", (made,), {"forward": forward})(small_config(factory, dropout=0.5))


def _outside(values: Any, lengths: Tensor) -> float:
    """Return the absolute sum of values (B, T, D) at padding."""
    return float(sum(np.abs(row[length:]).sum() for row, length in zip(values, lengths.tolist(), strict=True)))
