"""The nonlinearities: values against their definitions, slopes against autograd, and what a module declares."""

import pytest
import torch
from torch import nn

from gatelens.models import InvalidInputError
from gatelens.models.activations import ACTIVATIONS, CELL_ACTIVATIONS, GATE_ACTIVATIONS, activations_of, is_standard

DEFINITIONS = {
    "tanh": lambda x: (torch.exp(x) - torch.exp(-x)) / (torch.exp(x) + torch.exp(-x)),
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
    "relu": lambda x: torch.where(x > 0, x, 0.0),
    "linear": lambda x: x,
    "hard_sigmoid": lambda x: (x / 6 + 0.5).clamp(0, 1),
    "hard_sigmoid_keras2": lambda x: torch.where(x < -2.5, 0.0, torch.where(x > 2.5, 1.0, 0.2 * x + 0.5)),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_are_the_definitions(name):
    """Each function is its textbook definition, to 1e-15."""
    x = torch.linspace(-9, 9, 1001, dtype=torch.float64)
    torch.testing.assert_close(ACTIVATIONS[name].function(x), DEFINITIONS[name](x), rtol=0, atol=2e-15)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes_told_from_the_output_are_autograds(name):
    """The slope that is told from y is dy/dx of the definition, also at the flat ends.

    The definition's, because torch's own hardsigmoid takes a float32's 1/6 backwards.
    """
    x = torch.cat([torch.linspace(-5, 5, 1000, dtype=torch.float64), torch.tensor([-50.0, 50.0], dtype=torch.float64)])
    x.requires_grad_()
    (expected,) = torch.autograd.grad(DEFINITIONS[name](x).sum(), x)
    y = ACTIVATIONS[name].function(x.detach())
    torch.testing.assert_close(ACTIVATIONS[name].slope(y), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slopes_of_saturated_outputs_are_finite(name, dtype):
    """At +-1000 neither a value nor a slope is NaN or infinite, and the type stays."""
    y = ACTIVATIONS[name].function(torch.tensor([-1000.0, -40.0, 0.0, 40.0, 1000.0], dtype=dtype))
    slope = ACTIVATIONS[name].slope(y)
    assert y.isfinite().all()
    assert slope.isfinite().all()
    assert (y.dtype, slope.dtype) == (dtype, dtype)


def test_every_choice_is_known():
    """What a module may declare is in the table."""
    assert {*CELL_ACTIVATIONS, *GATE_ACTIVATIONS} <= set(ACTIVATIONS)


def test_what_a_module_declares():
    """Those of torch are sigma and tanh; attributes say otherwise."""
    module = nn.LSTM(1, 1)
    assert activations_of(module) == (ACTIVATIONS["sigmoid"], ACTIVATIONS["tanh"])
    assert is_standard(module)
    module.activation = "relu"
    assert activations_of(module)[1] is ACTIVATIONS["relu"]
    assert not is_standard(module)
    module.activation, module.gate_activation = "tanh", "hard_sigmoid"
    assert activations_of(module) == (ACTIVATIONS["hard_sigmoid"], ACTIVATIONS["tanh"])
    assert not is_standard(module)


@pytest.mark.parametrize(
    ("attribute", "name", "message"),
    [
        ("activation", "tahn", "activation 'tahn'.*Did you mean 'tanh'"),
        ("gate_activation", "tanh", "activation 'tanh'"),
        ("activation", "hard_sigmoid", "activation 'hard_sigmoid'"),
    ],
)
def test_unknown_activations_are_refused(attribute, name, message):
    """A name that is unknown there is refused, and the nearest one is named."""
    module = nn.LSTM(1, 1)
    setattr(module, attribute, name)
    with pytest.raises(InvalidInputError, match=message):
        activations_of(module)
