"""What each weight of a state dict is, by name and shape; what has no place in an LSTMModel is named."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from gatelens.explainers import available, explain
from gatelens.models import ModelError
from gatelens.models.checkpoints import find_state
from gatelens.models.state_dicts import adopt
from gatelens.models.torch_files import from_torch
from helpers.torch_nets import Net, Tower, floats, ids


def state_of(**options) -> dict[str, torch.Tensor]:
    return dict(Net(**options).state_dict())


def adopted(model) -> dict:
    return model.data.provenance["adopted"]


# -- weights that have their place -----------------------------------------------------------------------------------


def test_order_of_layers():
    """LSTMs are put in the order in which they fit; where widths allow several, the order of the state is assumed."""
    state = Tower().state_dict()
    assert adopt(state).config.hidden_sizes == (6, 6, 4)
    alike = nn.ModuleDict({"a": nn.LSTM(4, 4), "b": nn.LSTM(4, 4), "head": nn.Linear(4, 1)})
    result = adopt(alike.state_dict())
    assert "their order is assumed, the widths allow others: a, b" in result.found
    assert torch.equal(result.weights["lstm.1.weight_ih_l0"], alike["b"].weight_ih_l0)


@pytest.mark.parametrize(
    ("names", "vocabulary"),
    [
        (("embed.weight", "head.weight"), 9),  # as wide as each other: the name tells
        (("wte.weight", "head.weight", "head.bias"), 9),  # a bias tells
        (("head.weight",), None),
        (("weight", "bias"), None),
    ],
)
def test_embedding_or_head(names, vocabulary):
    """Where an embedding and a head could stand for one another, the name or a bias tells them apart."""
    state = {f"lstm.{name}": value for name, value in nn.LSTM(4, 4).state_dict().items()}
    for name in names:
        rows = 9 if name in ("embed.weight", "wte.weight") else 2
        state[name] = torch.randn(rows, 4) if name.endswith("weight") else torch.randn(rows)
    config = adopt(state).config
    assert (config.vocab_size, config.output_size) == (vocabulary, 2)


def test_weights_without_gradient_layout_or_bias():
    """Transposed and shared tensors are copied as they read; missing biases are zeros."""
    state = state_of(bias=False, head_bias=False)
    state["classifier.weight"] = state["classifier.weight"].t().contiguous().t()
    result = adopt(state)
    assert not result.weights["lstm.0.bias_hh_l0"].any()
    assert not result.weights["head.bias"].any()
    assert result.weights["head.weight"].is_contiguous()
    assert "no bias in encoder and the head: zeros stand for it" in result.found


# -- weights that have none ------------------------------------------------------------------------------------------


def put(**changes):
    def change(state):
        state.update({name.replace("__", "."): value for name, value in changes.items()})

    return change


def without(*names):
    def change(state):
        for name in names:
            del state[name]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put(fc__weight=torch.ones(8, 4), fc__bias=torch.ones(8)), r"no place in an LSTMModel: .*weight \(\d, 4\)"),
        (
            put(norm__weight=torch.ones(4), norm__bias=torch.ones(4)),
            r"no place .*: norm\.weight \(4,\), norm\.bias \(4,",
        ),
        (put(bn__num_batches_tracked=torch.tensor(3)), r"no place .*: bn\.num_batches_tracked \(\)\. The explainers"),
        (put(conv__weight=torch.ones(3, 3, 5)), r"conv\.weight \(3, 3, 5\)\. The explainers take the module itself"),
        (put(loss__pos_weight=torch.ones(2)), "can be deleted from the state dict"),
        (
            without("classifier.weight", "classifier.bias"),
            r"no linear head: expected one weight \(outputs, 4\) .* no oth",
        ),
        (without("classifier.weight"), r"no linear head: .* found classifier\.bias \(2,\)"),
        (put(classifier__weight=torch.ones(2, 5)), r"no linear head: .*found classifier\.weight \(2, 5\)"),
        (put(classifier__bias=torch.ones(3)), r"the head classifier has a bias \(3,\); expected \(2,\)"),
        (without("encoder.weight_hh_l0"), "layer 0 of encoder has no weight_hh"),
        (without("encoder.weight_ih_l0"), "layer 0 of encoder has no weight_ih"),
        (put(encoder__weight_hh_l0=torch.ones(12, 4)), r"layer 0 of encoder is a GRU, which has 3 gates"),
        (put(encoder__weight_hh_l0=torch.ones(4, 4)), "layer 0 of encoder is a plain RNN"),
        (
            put(encoder__weight_hh_l0=torch.ones(15, 4)),
            r"weight_ih \(16, 3\) and weight_hh \(15, 4\); expected \(4H, D\)",
        ),
        (put(encoder__weight_hh_l0=torch.ones(16)), r"weight_hh \(16,\); expected \(4H, D\) and \(4H, H\)"),
        (put(encoder__weight_hh_l0=torch.ones(0, 0)), r"weight_hh \(0, 0\); expected \(4H, D\)"),
        (put(encoder__weight_ih_l0=torch.ones(20, 3)), r"has weight_ih \(20, 3\); expected \(16, 3\)"),
        (put(encoder__bias_ih_l0=torch.ones(12)), r"has bias_ih \(12,\); expected \(16,\)"),
        (put(encoder__weight_hr_l0=torch.ones(2, 4)), r"projects its hidden states \(proj_size\)"),
        (
            put(encoder__weight_ih_l0_reverse=torch.ones(16, 3)),
            "the reverse direction of layer 0 of enc.* no weight_hh",
        ),
        (
            put(encoder__weight_ih_l2=torch.ones(16, 4), encoder__weight_hh_l2=torch.ones(16, 4)),
            "forward dir.* of layer 1",
        ),
        (
            put(encoder__weight_ih_l1=torch.ones(16, 5), encoder__weight_hh_l1=torch.ones(16, 4)),
            "layer 1 of encoder reads 5 .* gives 4",
        ),
        (put(encoder__weight_ih=torch.ones(16, 3)), r"encoder has the weight weight_ih of layer 0 twice"),
        (
            put(b__weight_ih=torch.ones(28, 5), b__weight_hh=torch.ones(28, 7)),
            "do not follow .*encoder is .*; b is an LSTM",
        ),
        (
            put(encoder__weight_ih_l0=torch.full((16, 3), torch.nan)),
            r"weight encoder\.weight_ih_l0 holds NaN or infinite",
        ),
        (put(classifier__bias=torch.full((2,), torch.inf)), r"weight classifier\.bias holds NaN or infinite"),
        (put(classifier__weight=torch.ones(2, 4).char()), r"classifier\.weight is torch\.int8; .*quantised model"),
        (put(classifier__weight=torch.ones(2, 4).cfloat()), r"classifier\.weight is torch\.complex64; expected floats"),
        (put(classifier__weight=torch.ones(2, 4).to(torch.float8_e5m2)), r"is torch\.float8_e5m2; expected floats"),
        (put(classifier__weight=torch.ones(2, 4, device="meta")), r"has no values \(device meta\)"),
        (put(classifier__weight=torch.ones(2, 4).to_sparse()), r"is sparse; expected a dense tensor"),
    ],
)
def test_weights_that_are_refused(change, message):
    """Every weight without a place, damaged or incomplete, is named with its shape and what to do."""
    state = state_of()
    change(state)
    with pytest.raises(ModelError, match=f"^state dict: .*{message}"):
        from_torch(state)


@pytest.mark.filterwarnings("ignore")
def test_quantised_and_nested_weights():
    """Quantised and nested tensors of torch are told as such."""
    quantised = torch.quantize_per_tensor(torch.ones(2, 4), 0.1, 0, torch.qint8)
    with pytest.raises(ModelError, match=r"classifier\.weight is quantised \(torch\.qint8\)"):
        from_torch({**state_of(), "classifier.weight": quantised})
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    with pytest.raises(ModelError, match=r"classifier\.weight is a nested tensor"):
        from_torch({**state_of(), "classifier.weight": nested})


def test_directions_must_be_alike():
    """One direction missing, of another shape, or in some LSTMs only, is refused."""
    state = state_of(bidirectional=True)
    forwards = {name: value for name, value in state.items() if name.endswith("reverse") or "class" in name}
    with pytest.raises(ModelError, match="encoder lacks the forward direction of layer 0"):
        from_torch(forwards)
    odd = {
        "encoder.weight_ih_l0_reverse": torch.ones(20, 3),
        "encoder.weight_hh_l0_reverse": torch.ones(20, 5),
        "encoder.bias_ih_l0_reverse": torch.ones(20),
        "encoder.bias_hh_l0_reverse": torch.ones(20),
    }
    with pytest.raises(ModelError, match="the two directions of layer 0 of encoder differ in shape"):
        from_torch(state | odd)
    upper = {f"upper.{name}": value for name, value in nn.LSTM(8, 8).state_dict().items()}
    with pytest.raises(ModelError, match="some LSTMs run in both directions and some in one"):
        from_torch(state | upper)


@pytest.mark.parametrize(("kind", "name"), [(nn.GRU, "a GRU, which has 3 gates"), (nn.RNN, "a plain RNN")])
def test_other_recurrent_modules(kind, name):
    """GRU and RNN are called by their name."""
    net = Net()
    net.encoder = kind(3, 4, batch_first=True)
    with pytest.raises(ModelError, match=f"^Net: layer 0 of encoder is {name}"):
        from_torch(net)


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (nn.GRU(3, 4), "layer 0 is a GRU, which has 3 gates and no cell state; expected an LSTM."),
        (nn.RNN(3, 4), "layer 0 is a plain RNN, which has no gates; expected an LSTM."),
        (nn.GRUCell(3, 4), "layer 0 is a GRU, which has 3 gates and no cell state; expected an LSTM."),
    ],
)
def test_weights_without_a_path(module, sentence):
    """A recurrent module saved by itself has no name; nothing is called an LSTM that is none."""
    with pytest.raises(ModelError) as caught:
        from_torch(module.state_dict())
    assert str(caught.value).startswith(f"state dict: {sentence} The explainers take the module itself")


class Gated(nn.Module):
    """A model with gates and no LSTM."""

    def __init__(self):
        super().__init__()
        self.encoder, self.head = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, inputs):
        return self.head(self.encoder(inputs)[0][:, -1])


class Flat(nn.Module):
    """A model with no recurrent layer at all."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 1)

    def forward(self, inputs):
        return self.head(inputs.mean(dim=1))


@pytest.mark.parametrize("kind", [Gated, Flat])
def test_what_works_without_an_lstm(kind):
    """The error names explainers that need no LSTM; they do explain the module, and the other one refuses."""
    module = kind()
    with pytest.raises(ModelError, match=r"explain\(module, inputs\)\. (.*) need no LSTM; (\w+) does") as caught:
        from_torch(module)
    works = re.search(r"inputs\)\. (.*) need no LSTM; (\w+) does", str(caught.value))
    named = re.split(r", | and ", works[1])
    needs = {name: entry.explainer.needs for name, entry in available().items() if entry.origin == "gatelens"}
    assert {needs[name] for name in named} <= {"function", "gradient"}
    assert needs[works[2]] == "lstm"
    assert list(explain(module, floats(2, 4, 3), named, target=0)) == named
    with pytest.raises(ModelError):
        explain(module, floats(2, 4, 3), [works[2]], target=0)


def test_a_tied_head_that_the_file_lacks():
    """A lone matrix called an embedding is not taken for the head."""
    state = {f"lstm.{name}": value for name, value in nn.LSTM(4, 4).state_dict().items()}
    with pytest.raises(ModelError, match="no linear head"):
        from_torch({**state, "embedding.weight": torch.ones(9, 4)})
    with pytest.raises(ModelError, match=r"no place in an LSTMModel: b\.weight \(3, 4\)"):
        from_torch({**state, "a.weight": torch.ones(9, 4), "b.weight": torch.ones(3, 4)})


def test_a_tied_head():
    """An embedding that is also the head is found in a module, and a prediction of each next token is kept."""

    class Language(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.lstm, self.out = nn.Embedding(9, 4), nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 9)
            self.out.weight = self.words.weight

        def forward(self, inputs):
            return self.out(self.lstm(self.words(inputs))[0])

    net = Language()
    model = from_torch(net)
    torch.testing.assert_close(model(ids(3, 5, vocabulary=9)), net(ids(3, 5, vocabulary=9)).detach())
    assert model.config.pooling == "none"


def test_long_and_odd_names():
    """Names from a file are cut and made printable before they stand in a message."""
    state = state_of() | {"x" * 10**6: torch.ones(1), "\n\x1b[31m": torch.ones(1)}
    state |= {f"more.{index}": torch.ones(1) for index in range(100)}
    with pytest.raises(ModelError, match=r"x{120}\.\.\., \\n\\x1b\[31m \(1,\), .* and 96 more") as caught:
        from_torch(state)
    assert len(str(caught.value)) < 1000


# -- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrap", "left_out"),
    [
        (
            lambda s: {
                "state_dict": {f"model.{name}": value for name, value in s.items()},
                "epoch": 3,
                "loops": {"a": {}},
            },
            ["beside state_dict in the checkpoint, not needed: epoch, loops"],
        ),
        (
            lambda s: {
                "epoch": 1,
                "model_state_dict": s,
                "optimizer_state_dict": {"state": {0: {"step": torch.ones(1)}}},
            },
            ["beside model_state_dict in the checkpoint, not needed: epoch, optimizer_state_dict"],
        ),
        (
            lambda s: {"net": {"module": s, "step": torch.ones(1)}, "loss": torch.ones(1)},
            [
                "beside net in the checkpoint, not needed: loss",
                "beside module in the checkpoint, not needed: step",
            ],
        ),
        (lambda s: {"model": s}, []),
        (lambda s: {**s, "encoder._extra_state": 3}, ["among the weights, no tensors: encoder._extra_state"]),
    ],
)
def test_checkpoints(wrap, left_out):
    """The weights are found wherever a training script has put them; what lay beside them is told."""
    model = from_torch(wrap(state_of()))
    torch.testing.assert_close(model(floats(2, 4, 3)), Net()(floats(2, 4, 3)).detach())
    assert adopted(model)["left_out"] == left_out


def test_checkpoints_with_several_models():
    """Of several models one must be chosen; the same one under two names is one."""
    state = state_of()
    with pytest.raises(
        ModelError, match=r"2 models: model, ema\. Pass the one you mean, e\.g\. from_torch\(checkpoint\['ema'\]"
    ):
        from_torch({"model": state, "ema": dict(state)})
    assert find_state({"model": state, "best": state})[0] == state


def test_no_state_dict():
    """Numbers, lists and other models' weights are told."""
    with pytest.raises(ModelError, match=r"found conv\.weight \(1, 2, 3\)\. The explainers take the module itself"):
        from_torch({"model": {"conv.weight": torch.ones(1, 2, 3)}, "epoch": 3})
    with pytest.raises(ModelError, match=r"it holds no LSTM: .* found no tensors"):
        from_torch({"w": [[1.0]]})
    with pytest.raises(ModelError, match="it holds a int; expected a state dict"):
        find_state(3)
