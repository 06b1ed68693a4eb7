"""Borrowing a module: eval mode and frozen parameters inside, everything as found afterwards."""

import numpy as np
import pytest
import torch
from torch import nn

from gatelens.models.state import evaluation_mode, seeded


@pytest.fixture
def module() -> nn.Module:
    built = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 1))).train()
    built[1][0].eval()
    built[0].weight.requires_grad_(False)
    return built


def look(module: nn.Module):
    return [part.training for part in module.modules()], [part.requires_grad for part in module.parameters()]


@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize("fail", [False, True])
def test_evaluation_mode(module, freeze, fail):
    """Inside, all is in eval mode and, if asked, frozen; afterwards each part is as it was, also after an error."""
    before = look(module)
    try:
        with evaluation_mode(module, freeze=freeze):
            modes, flags = look(module)
            assert not any(modes)
            assert flags == ([False] * 4 if freeze else before[1])
            if fail:
                raise KeyError
    except KeyError:
        assert fail
    assert look(module) == before


def test_evaluation_mode_sets_flags_and_nothing_else():
    """A train() of the module's own, which may do anything, is not called; its flag changes and comes back."""

    class Own(nn.Dropout):
        def train(self, mode=True):  # noqa: FBT002 - torch's signature
            raise AssertionError("called")

    module = nn.Sequential(Own(0.5))
    with evaluation_mode(module):
        assert not module[0].training
    assert module[0].training


def test_evaluation_mode_nests(module):
    """One inside another restores what it found, which is the outer one's."""
    before = look(module)
    with evaluation_mode(module, freeze=True):
        with evaluation_mode(module, freeze=True):
            pass
        assert not any(look(module)[0] + look(module)[1])
    assert look(module) == before


def test_evaluation_mode_of_nothing():
    """None, which stands for a plain function, is fine."""
    with evaluation_mode(None, freeze=True):
        pass


@pytest.mark.parametrize("fail", [False, True])
def test_seeded(fail):
    """The same seed draws the same numbers; the global generators of numpy and torch go on as if nothing had been."""

    def draw():
        return np.random.rand(), float(torch.rand(()))  # noqa: NPY002

    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    expected = [draw(), draw()]
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    found = [draw()]
    inside = []
    for seed in (5, 5, 6):
        try:
            with seeded(seed):
                inside.append(draw())
                if fail:
                    raise KeyError
        except KeyError:
            assert fail
    found.append(draw())
    assert found == expected
    assert inside[0] == inside[1]
    assert inside[0] != inside[2]
