"""Which of the dicts in a checkpoint holds the model's weights: training scripts nest and wrap them in many ways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from .errors import ModelError
from .state_dicts import ANY_MODULE, RECURRENT, shapes
from .weight_files import listed, printable

MAX_NESTING = 4


def find_state(values: Any) -> tuple[dict[str, Tensor], list[str]]:
    """Return the one mapping of names to tensors in a checkpoint that holds recurrent weights, and what lay beside it.

    Raises:
        ModelError: No mapping holds recurrent weights, or several do.
    """
    if not isinstance(values, Mapping):
        raise ModelError(f"it holds a {type(values).__name__}; expected a state dict, as module.state_dict() gives it.")
    levels = dict(_levels(values))
    holders = [path for path, level in levels.items() if any(map(RECURRENT.fullmatch, _tensors(level)))]
    if not holders:
        most = max((_tensors(level) for level in levels.values()), key=len)
        raise ModelError(
            "it holds no LSTM: expected weights called NAME.weight_ih_l0 (nn.LSTM) or NAME.weight_ih (nn.LSTMCell), "
            f"found {shapes(most) if most else 'no tensors'}. {ANY_MODULE}"
        )
    if len(holders) > 1:
        names = listed(".".join(path) or "the top level" for path in holders)
        chosen = "".join(f"[{printable(name)!r}]" for name in holders[-1])
        raise ModelError(
            f"it holds the weights of {len(holders)} models: {names}. Pass the one you mean, e.g. "
            f"from_torch(checkpoint{chosen})."
        )
    path = holders[0]
    left_out = []
    for depth, key in enumerate(path):
        beside = [str(name) for name in levels[path[:depth]] if name != key]
        if beside:
            left_out.append(f"beside {printable(key)} in the checkpoint, not needed: {listed(beside)}")
    others = [str(name) for name, value in levels[path].items() if not isinstance(value, Tensor)]
    if others:
        left_out.append(f"among the weights, no tensors: {listed(others)}")
    return _without_wrappers(_tensors(levels[path])), left_out


def _levels(values: Mapping[Any, Any]) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any]]]:
    """Yield (path, mapping) of a checkpoint and of the mappings nested in it, each once."""
    waiting: list[tuple[tuple[str, ...], Mapping[Any, Any]]] = [((), values)]
    seen = {id(values)}
    while waiting:
        path, level = waiting.pop(0)
        yield path, level
        for name, value in level.items():
            if isinstance(value, Mapping) and isinstance(name, str) and id(value) not in seen:
                seen.add(id(value))
                if len(path) < MAX_NESTING:
                    waiting.append(((*path, name), value))


def _tensors(level: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in level.items() if isinstance(name, str) and isinstance(value, Tensor)}


def _without_wrappers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state without the prefixes of DataParallel and torch.compile."""
    plain = {name.replace("_orig_mod.", ""): value for name, value in state.items()}
    if all(name.startswith("module.") for name in plain):
        plain = {name.removeprefix("module."): value for name, value in plain.items()}
    return plain if len(plain) == len(state) else state
