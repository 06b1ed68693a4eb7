"""Borrowing a user's module: eval mode and frozen parameters for the length of a `with`, everything back afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from .errors import InvalidInputError


@contextmanager
def evaluation_mode(module: nn.Module | None, *, freeze: bool = False) -> Iterator[None]:
    """Put `module` into eval mode, and back as it was, module by module, also after an error.

    Args:
        module: The module; None does nothing.
        freeze: Also switch `requires_grad` of its parameters off meanwhile, so that no gradient is computed for them.
    """
    if module is None:
        yield
        return
    modes = [
        (part, part.training) for part in module.modules() if hasattr(part, "training")
    ]  # frozen scripts have none
    flags = [(parameter, parameter.requires_grad) for parameter in module.parameters()] if freeze else []
    try:
        for part, _ in modes:
            part.training = False
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for part, training in modes:
            part.training = training
        for parameter, required in flags:
            parameter.requires_grad_(required)


@contextmanager
def kept_buffers(module: nn.Module | None) -> Iterator[None]:
    """Put the buffers of `module` (counters, running statistics) back as they were, also after an error."""
    buffers = [] if module is None else [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    parts = (
        [] if module is None else [part for part in module.modules() if not isinstance(part, torch.jit.ScriptModule)]
    )
    names = [(part, dict(part._buffers)) for part in parts]  # noqa: SLF001 - a script's cannot be put in another place
    try:
        yield
    finally:
        for part, own in names:
            part._buffers.update(own)  # noqa: SLF001 - a forward may have put another tensor in its place
        with torch.no_grad():
            for buffer, value in buffers:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed numpy's and torch's global generators for libraries that use them, and restore both afterwards."""
    numpy_state = np.random.get_state()  # noqa: NPY002
    torch_state = torch.get_rng_state()
    try:
        np.random.seed(seed)  # noqa: NPY002 - shap draws from the global generator
        torch.default_generator.manual_seed(seed)
        yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_rng_state(torch_state)


@contextmanager
def borrowed(model: nn.Module, device: str | torch.device | None) -> Iterator[None]:
    """Take the model to `device`; its device, modes and gradients are as found afterwards, also after an error."""
    modes = [(part, part.training) for part in model.modules()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    home = next(model.parameters()).device
    try:
        for parameter, _ in gradients:
            parameter.grad = None
        if device is not None:
            try:
                model.to(device)
            except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for the device
                reason = (str(error).strip() or "not there").splitlines()[0]
                raise InvalidInputError(
                    f"device is {str(device)!r}, which cannot be used: {reason.rstrip('.')}. Leave it out to train "
                    "where the model is."
                ) from None
        yield
    finally:
        for parameter, _ in gradients:
            parameter.grad = None
        if device is not None:
            model.to(home)
        for parameter, gradient in gradients:
            parameter.grad = gradient
        for part, training in modes:
            part.training = training


@contextmanager
def seeded_for(model: nn.Module, seed: int) -> Iterator[None]:
    """Seed the global generators, that of the model's GPU included, and restore them afterwards."""
    device = next(model.parameters()).device
    with seeded(seed):
        if device.type != "cuda":
            yield
            return
        with torch.random.fork_rng(devices=[device]):
            torch.cuda.manual_seed(seed)
            yield
