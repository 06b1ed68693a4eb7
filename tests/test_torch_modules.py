"""Running a module to see what it computes: what is no LSTMModel is refused with its reason; all is left as found."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from gatelens.models import ModelError
from gatelens.models.torch_files import from_torch
from helpers.torch_nets import Net, NetWithLengths


class Changed(Net):
    """A net whose forward a test sets."""

    def forward(self, inputs):
        return self.compute(inputs)


def changed(compute, **options) -> Changed:
    net = Changed(**options)
    net.compute = compute.__get__(net)
    return net


@pytest.mark.parametrize(
    "compute",
    [
        lambda net, x: Net.forward(net, x).relu(),
        lambda net, x: Net.forward(net, x / 10),
        lambda net, x: Net.forward(net, x) + 1e-3,
        lambda net, x: net.classifier(net.encoder(x)[0][:, -2]),
        lambda net, x: net.classifier(net.encoder(x)[0].sum(1)),
        lambda net, x: Net.forward(net, x.flip(1)),
        lambda net, x: Net.forward(net, x) * torch.rand(1),
        lambda net, x: net.classifier(net.encoder(x, (torch.ones(1, len(x), 4),) * 2)[0][:, -1]),
        lambda net, x: Net.forward(net, x) * float("nan"),
        lambda net, x: Net.forward(net, x)[:, :1],
        lambda net, x: Net.forward(net, x).sum(0),
        lambda net, x: Net.forward(net, x).argmax(1),
    ],
)
def test_a_module_that_computes_something_else(compute):
    """A relu at the end, scaled or reversed inputs, another timestep, a sum, an initial state: no pooling agrees."""
    with pytest.raises(
        ModelError, match=r"^Changed: it computes something else.*\(last, mean, max, dot_attention, none.*explain\(mod"
    ):
        from_torch(changed(compute))


@pytest.mark.parametrize(("batch_first", "at"), [(True, r"output\[:, -1\]"), (False, r"output\[-1\]")])
@pytest.mark.parametrize("ending", [None, torch.sigmoid])
def test_the_last_output_of_a_bidirectional_lstm(batch_first, at, ending):
    """output[:, -1] is not the final state of the reverse direction; the error says which mistake it is."""
    net = Net("step", bidirectional=True, batch_first=batch_first, ending=ending)
    with pytest.raises(ModelError, match=f"it reads {at}, where the reverse direction has seen the last timestep only"):
        from_torch(net)
    assert from_torch(Net("step", batch_first=batch_first, ending=ending)).config.pooling == "last"


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda net, x: (Net.forward(net, x), x), "it returned a tuple; expected one tensor of scores. Wrap it"),
        (lambda net, x: net.missing, "it raised AttributeError on inputs of shape .*no attribute 'missing'"),
        (lambda net, x: (_ for _ in ()).throw(RuntimeError("")), "it raised RuntimeError on inputs.*: no message"),
    ],
)
def test_a_module_that_cannot_be_run(compute, message):
    """What it raised or returned is told; no traceback of its own comes through."""
    with pytest.raises(ModelError, match=f"^Changed: it cannot be compared with an LSTMModel: {message}") as caught:
        from_torch(changed(compute))
    assert caught.value.__cause__ is None


def test_a_module_that_takes_other_arguments():
    """The missing argument is named."""

    class Seq2Seq(Net):
        def forward(self, source, target):
            return super().forward(source + target)

    with pytest.raises(ModelError, match=r"Seq2Seq: it cannot be compared .*missing 1 required positional argument"):
        from_torch(Seq2Seq())


def test_lengths_that_are_used_otherwise():
    """A module that reads past the end of a sequence agrees on full sequences only, and is refused."""

    class Past(NetWithLengths):
        def forward(self, inputs, lengths):
            return Net.forward(self, inputs)

    with pytest.raises(ModelError, match="agrees with pooling 'last' on full sequences, and not on padded ones"):
        from_torch(Past())


def test_a_large_bias_hides_nothing():
    """Scores are compared by how they vary: a bias of 1000 does not make every pooling agree."""
    net = Net("mean").double()
    with torch.no_grad():
        net.classifier.bias.fill_(1000.0)
        net.classifier.weight.mul_(0.01)
    assert from_torch(net).config.pooling == "mean"


class Restless(Net):
    """Changes whatever a forward pass can change."""

    def __init__(self, **options):
        super().__init__(**options)
        self.calls = 0
        self.encoder.mark = "as found"
        self.register_buffer("count", torch.zeros(1), persistent=False)

    def forward(self, inputs):
        scores = super().forward(inputs)
        self.calls += 1
        self.new = inputs
        self.encoder.mark = "changed"
        self.count += 1
        with torch.no_grad():
            self.classifier.bias.mul_(1 + torch.rand(1) * 0)
            self.encoder.weight_hh_l0.mul_(1.5)
        np.random.rand()  # noqa: NPY002 - the global generator is meant
        inputs.zero_()
        return scores


def snapshot(net):
    return (
        {name: value.detach().clone() for name, value in [*net.named_parameters(), *net.named_buffers()]},
        [(part, part.training) for part in net.modules()],
        [(value, value.requires_grad, value.grad) for value in net.parameters()],
        [(dict(part._forward_hooks), dict(part._forward_pre_hooks)) for part in net.modules()],
        {name: value for name, value in vars(net).items() if not name.startswith("_")},
    )


@pytest.mark.parametrize("kind", [Net, Restless, changed])
def test_a_module_is_left_as_found(kind):
    """Modes, flags, gradients, hooks, weights, buffers, attributes and random state, also after an error."""
    net = kind() if kind is not changed else changed(lambda net, x: torch.rand(1) + net.missing)
    net.train()
    net.encoder.eval()
    net.classifier.weight.requires_grad_(False)
    seen = []
    net.classifier.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    net.classifier.bias.grad = torch.ones(2)
    before = snapshot(net)
    attributes = copy.copy(vars(net.encoder))
    random, numpy_random = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    try:
        from_torch(net)
    except ModelError:
        assert kind is not Net
    after = snapshot(net)
    assert all(torch.equal(after[0][name], value) for name, value in before[0].items())
    assert after[1:] == before[1:]
    assert vars(net.encoder) == attributes
    assert torch.equal(torch.get_rng_state(), random)
    assert (np.random.get_state()[1] == numpy_random).all()  # noqa: NPY002
    assert not any(seen)
    assert torch.is_grad_enabled()


def test_dropout_does_not_disturb():
    """A module in training mode is compared, and left, as it is."""
    net = Net(num_layers=2, dropout=0.9).train()
    assert from_torch(net).config.hidden_sizes == (4, 4)
    assert net.encoder.training


def test_a_lazy_module():
    """A module that has not seen an input has no weights yet."""
    net = Net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some versions of torch warn of lazy modules
        net.classifier = nn.LazyLinear(2)
    with pytest.raises(ModelError, match=r"classifier\.weight has no shape yet; run the lazy module once"):
        from_torch(net)
    with pytest.raises(ModelError, match=r"it holds no LSTM: .* found weight \?, bias \?"):
        from_torch(net.classifier)


def test_tokens_that_a_module_skips():
    """A module that treats token 0 as the end, without padding_idx to say so, does not agree."""

    class Stops(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Net("mean", tokens=4)
            self.net.words.padding_idx = None

        def forward(self, inputs):
            return torch.where((inputs == 0).any(1)[:, None], 0.0, self.net(inputs))

    with pytest.raises(ModelError, match="it computes something else"):
        from_torch(Stops())
    assert from_torch(Stops().net).config.pooling == "mean"
