"""What the checks of the contract share: their list, their error, and the small models and sequences they ask about."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..models import GatelensError, LSTMConfig, LSTMModel
from ..models.retain import RETAIN, RETAINConfig
from ..models.state import seeded
from .base import Explainer

Factory = Callable[..., Explainer]
Check = Callable[[Factory], None]

CHECKS: dict[str, Check] = {}

LENGTHS = torch.tensor([6, 4, 1])  # longest first; `batch_permutation` sees the other orders
STEPS = 6
FEATURES = 3
VOCABULARY = 7
ROUNDING = 1e-5  # of the largest attribution: float32, summed in another order


class ContractError(GatelensError, AssertionError):
    """An explainer breaks an axiom of the contract."""


def axiom(check: Check) -> Check:
    """List a check in `CHECKS`; whatever it raises is a ContractError that says who breaks which axiom."""

    @functools.wraps(check)
    def run(factory: Factory) -> None:
        broken = check.__name__.replace("_", " ")
        try:
            check(factory)
        except ContractError as error:
            raise ContractError(f"{name_of(factory)} breaks {broken!r}: {error}") from error.__cause__
        except Exception as error:
            raise ContractError(
                f"{name_of(factory)} breaks {broken!r}: it raised {type(error).__name__}: {error}"
            ) from error

    CHECKS[check.__name__] = run
    return run


def demand(condition: bool, sentence: str) -> None:
    """Raise a ContractError that says the sentence unless the condition holds."""
    if not condition:
        raise ContractError(sentence)


def demand_same(found: Any, expected: Any, what: str) -> None:
    """Demand that numbers are equal up to rounding."""
    difference, largest = float(np.abs(found - expected).max()), float(np.abs(expected).max())
    demand(
        difference <= ROUNDING * largest,
        f"{what} differ by {difference:.3g} where the largest is {largest:.3g}; expected equal numbers.",
    )


# -- who is checked --------------------------------------------------------------------------------------------------


def name_of(factory: Any) -> str:
    """Return what an explainer is called."""
    made = _made_by(factory)
    return str(getattr(made, "name", getattr(made, "__name__", made)))


def needs_of(factory: Any) -> str:
    """Return what an explainer asks of the model (see `Explainer.needs`)."""
    return getattr(_made_by(factory), "needs", "")


def explains_timesteps(factory: Any) -> bool:
    """Whether an explainer works on models with one output a timestep: not on those that weigh timesteps."""
    return needs_of(factory) not in ("attention", "retain")


def _made_by(factory: Any) -> Any:
    while isinstance(factory, functools.partial):
        factory = factory.func
    return factory


def fitted(factory: Factory, model: nn.Module, inputs: Tensor) -> Explainer:
    """Return the explainer, its background set, where it was given one, with as many timesteps as inputs."""
    explainer = factory(model)
    if explainer.background is None:
        return explainer
    return factory(model, background=fitting(explainer.background, inputs))


def fitting(background: Any, inputs: Tensor) -> Tensor:
    """Return background sequences (R, T, D) as long as inputs (B, T, D), repeated or cut; ids where inputs are ids."""
    sequences = torch.as_tensor(background)
    count, steps = sequences.shape[:2]
    time = torch.arange(inputs.shape[1])
    return sequences[:, time % steps] if inputs.ndim == 3 else (time + torch.arange(count)[:, None]) % VOCABULARY


# -- what it is asked to explain -------------------------------------------------------------------------------------


def small_config(factory: Factory, **changes: Any) -> LSTMConfig | RETAINConfig:
    """Return the configuration of a model that has what the explainer needs."""
    # one output of a task with probabilities, for an explainer that is told to explain these
    options = {"input_size": FEATURES, "task": "binary", **changes}
    if needs_of(factory) == "retain":
        options.pop("bidirectional", None)  # it always reads from the end
        return RETAINConfig(**{"embedding_dim": 5, "alpha_size": 4, "beta_size": 4, **options})
    pooling = {"pooling": "attention"} if needs_of(factory) == "attention" else {}
    return LSTMConfig(**{"hidden_sizes": (5,), **pooling, **options})


def model_class(factory: Factory) -> type[Any]:
    """Return the class of `small_config`'s model."""
    return RETAIN if needs_of(factory) == "retain" else LSTMModel


def reading_weight(model: LSTMModel | RETAIN) -> Tensor:
    """Return the weight that reads the features, (.., D)."""
    return model.get_parameter("embedding.weight" if isinstance(model, RETAIN) else "lstm.0.weight_ih_l0")


def small_model(factory: Factory, **changes: Any) -> LSTMModel | RETAIN:
    """Return a seeded model that has what the explainer needs, its weights so large that its outputs move."""
    with seeded(0):
        model: LSTMModel | RETAIN = model_class(factory)(small_config(factory, **changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model.eval()


def sequences() -> Tensor:
    """Return floats (B, T, D), with garbage in the padding."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(len(LENGTHS), STEPS, FEATURES, generator=generator)


def token_ids() -> Tensor:
    """Return ids (B, T), none of them 0."""
    return torch.arange(len(LENGTHS) * STEPS).reshape(len(LENGTHS), STEPS) % (VOCABULARY - 1) + 1
