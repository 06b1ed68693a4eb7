"""`from_torch`: modules, state dicts and files keep their scores as an `LSTMModel`, which says what was assumed."""

from __future__ import annotations

import collections
import itertools

import pytest
import safetensors.torch
import torch
from hypothesis import assume, given, settings
from torch import nn

from gatelens.models import InvalidInputError, InvalidTypeError, LSTMModel, ModelError, SavedModelError, load
from gatelens.models.torch_files import from_torch
from helpers.draws import cases, make_inputs, make_model
from helpers.torch_nets import Cells, Net, NetWithLengths, Tower, floats, ids

POOLINGS = ("last", "mean", "max", "dot_attention", "none")


def adopted(model: LSTMModel) -> dict:
    return model.data.provenance["adopted"]


def told(model: LSTMModel) -> str:
    return "; ".join(sentence for name in ("found", "assumed", "left_out") for sentence in adopted(model)[name])


def same(given, expected):
    torch.testing.assert_close(given, expected.detach(), rtol=1e-6, atol=1e-6)


# -- modules ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(
    ("layers", "bidirectional", "batch_first", "bias"),
    [*itertools.product((1, 2), (False, True), (True, False), (True,)), (2, True, True, False)],
)
def test_modules_keep_their_scores(pooling, layers, bidirectional, batch_first, bias):
    """Stacked, bidirectional, without bias, in either layout: pooling is found, and scores are those of the module."""
    net = Net(
        pooling, num_layers=layers, bidirectional=bidirectional, batch_first=batch_first, bias=bias, head_bias=bias
    ).eval()
    model = from_torch(net)
    inputs = floats(5, 6, 3)
    expected = net(inputs if batch_first else inputs.transpose(0, 1))
    same(model(inputs), expected if batch_first or pooling != "none" else expected.transpose(0, 1))
    assert (model.config.pooling, model.config.bidirectional) == (pooling, bidirectional)
    assert model.config.hidden_sizes == (4,) * layers
    assert ("reads (time, batch, features)" in told(model)) == (not batch_first)
    assert ("no bias in encoder and the head: zeros" in told(model)) == (not bias)
    assert (adopted(model)["file"], adopted(model)["format"]) == ("Net", "PyTorch module")


def test_stacked_modules_and_squeezed_scores():
    """Several nn.LSTM of different widths are put in the order in which they fit; (B,) scores become (B, 1)."""
    net = Tower().eval()
    model = from_torch(net)
    assert (model.config.hidden_sizes, model.config.task) == ((6, 6, 4), "regression")
    same(model(floats(4, 5, 3))[:, 0], net(floats(4, 5, 3)))
    assert "lower is an LSTM of 2 layers: 3 -> 6; upper is an LSTM of 1 layer: 6 -> 4; a linear head" in told(model)
    assert "pass task='binary' if it is a logit" in told(model)


def test_cells_in_a_loop():
    """nn.LSTMCell modules are layers too."""
    net = Cells()
    model = from_torch(net)
    same(model(floats(4, 5, 3)), net(floats(4, 5, 3)))
    same(from_torch(net.state_dict())(floats(4, 5, 3)), net(floats(4, 5, 3)))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_token_modules(pooling):
    """An embedding makes a token model, and its padding_idx is the padding token."""
    net = Net(pooling, tokens=9)
    model = from_torch(net)
    tokens = ids(4, 6, vocabulary=9)
    same(model(tokens), net(tokens))
    assert (model.config.vocab_size, model.config.embedding_dim, model.config.padding_index) == (9, 3, 0)
    assert "a token embedding, 9 tokens -> 3; token 0 is padding" in told(model)
    assert "compared without the padding token 0" in told(model)


def test_modules_that_take_lengths():
    """A module that packs by lengths keeps its scores on padded sequences."""
    net = NetWithLengths(bidirectional=True)
    model = from_torch(net)
    lengths = torch.tensor([6, 4, 1])
    same(model(floats(3, 6, 3), lengths), net(floats(3, 6, 3), lengths))


@pytest.mark.parametrize(
    ("outputs", "ending", "task", "name"),
    [
        (1, torch.sigmoid, "binary", "sigmoid"),
        (3, torch.sigmoid, "binary", "sigmoid"),
        (3, lambda scores: scores.softmax(-1), "multiclass", "softmax"),
        (3, lambda scores: scores.log_softmax(-1), "multiclass", "log-softmax"),
    ],
)
def test_endings(outputs, ending, task, name):
    """A sigmoid or softmax at the end tells the task; the model gives the logits before it."""
    net = Net("mean", outputs=outputs, ending=ending)
    model = from_torch(net)
    assert (model.config.task, model.config.pooling) == (task, "mean")
    same(ending(model(floats(4, 5, 3))), net(floats(4, 5, 3)))
    assert f"the module ends in a {name}; gatelens explains the logit before it" in adopted(model)["left_out"]
    assert from_torch(net, task=task).config.task == task
    with pytest.raises(InvalidInputError, match=f"task is 'regression'; Net ends in a {name}"):
        from_torch(net, task="regression")


def test_given_options_are_checked_against_the_module():
    """A pooling that the module does not use is refused; a task is taken as given."""
    assert from_torch(Net("max"), pooling="max", task="regression").config.task == "regression"
    with pytest.raises(InvalidInputError, match="pooling is 'last'; Net, run on random inputs, uses 'max'"):
        from_torch(Net("max"), pooling="last")
    with pytest.raises(InvalidInputError, match=r"task is 'multiclass' with output_size=1"):
        from_torch(Net(outputs=1), task="multiclass")
    with pytest.raises(InvalidInputError, match="the weights hold none of LSTMModel's form"):
        from_torch(Net(), pooling="attention")


def test_weights_that_tell_no_difference():
    """Where all poolings agree (an LSTM of zeros), it says so, and any of them may be asked for."""
    net = Net()
    with torch.no_grad():
        for parameter in net.encoder.parameters():
            parameter.zero_()
    assert "pooling mean and max and dot_attention would agree as well" in told(from_torch(net))
    assert from_torch(net, pooling="max").config.pooling == "max"


def test_wrapped_modules():
    """DataParallel is taken off, and state dicts with its prefix or torch.compile's are the same model."""
    net = Net("mean")
    expected = net(floats(2, 4, 3))
    assert adopted(from_torch(nn.DataParallel(net)))["file"] == "Net"
    compiled = nn.Module()
    compiled._orig_mod = net
    same(from_torch(compiled)(floats(2, 4, 3)), expected)
    for prefix in ("module.", "_orig_mod.", "module._orig_mod."):
        model = from_torch({prefix + name: value for name, value in net.state_dict().items()}, pooling="mean")
        same(model(floats(2, 4, 3)), expected)
        assert "encoder is an LSTM" in told(model)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_modules():
    """A scripted module is run like any other."""

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.LSTM(3, 4, batch_first=True)
            self.head = nn.Linear(4, 2)

        def forward(self, inputs: torch.Tensor):
            return self.head(self.net(inputs)[0][:, -1])

    net = torch.jit.script(Plain().eval())
    same(from_torch(net)(floats(2, 4, 3)), net(floats(2, 4, 3)))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision(kind):
    """Half weights become float32, and it is told; float64 stays."""
    net = Net("mean").to(kind)
    model = from_torch(net)
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert model.config.pooling == "mean"
    assert f"weights of {str(kind)[6:]} were converted to float32" in told(model)
    assert from_torch(Net().double()).head.weight.dtype == torch.float64
    mixed = Net()
    mixed.classifier.double()
    assert "weights of float64 were converted to float32" in told(from_torch(mixed.state_dict()))


def test_nothing_is_shared():
    """The model's weights are its own, trainable, in eval mode, also when made inside inference_mode."""
    net = Net()
    with torch.inference_mode():
        model = from_torch(net)
    places = {parameter.data_ptr() for parameter in net.parameters()}
    assert not places & {parameter.data_ptr() for parameter in model.parameters()}
    assert not any(part.training for part in model.modules())
    model(floats(2, 3, 3)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


# -- LSTMModel -------------------------------------------------------------------------------------------------------


def test_an_lstm_model_comes_back_as_a_copy():
    """Config, data and scores are the same, weights are not shared; options must not contradict it."""
    model = make_model(input_size=2, pooling="attention", activation="relu", task="binary")
    copy = from_torch(model)
    assert (copy.config, copy.data) == (model.config, model.data)
    assert torch.equal(copy(make_inputs(model, 2, 4)), model(make_inputs(model, 2, 4)))
    assert copy.head.weight.data_ptr() != model.head.weight.data_ptr()
    with pytest.raises(InvalidInputError, match="pooling is 'mean'; this LSTMModel's is 'attention'"):
        from_torch(model, pooling="mean")
    nn.utils.parametrizations.weight_norm(model.head)
    with pytest.raises(ModelError, match=r"LSTMModel: the weights .* parametrized"):
        from_torch(model)


@given(cases())
@settings(max_examples=15)
def test_own_weights_are_recognised(tmp_path_factory, case):
    """The safetensors of an LSTMModel, attention included, give the model again when the pooling is named."""
    assume(case.model.config.activation == "tanh")  # weights do not say it
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    safetensors.torch.save_file(case.model.state_dict(), path)
    model = from_torch(path, pooling=case.model.config.pooling)
    scores, expected = model(case.inputs, case.lengths), case.model(case.inputs, case.lengths)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-12)


def test_weights_inside_a_saved_model(tmp_path):
    """weights.safetensors of a saved model can be read, and load(folder) is pointed to; so it is for the folder."""
    folder = make_model(input_size=2, pooling="attention").save(tmp_path / "model")
    model = from_torch(folder / "weights.safetensors")
    assert model.config.pooling == "attention"
    assert any("load(folder) reads a saved model's pooling" in sentence for sentence in adopted(model)["left_out"])
    with pytest.raises(SavedModelError, match=r"is a saved model's folder; read it with load\("):
        from_torch(folder)


def test_attention_and_pooling_must_agree():
    """Weights of an attention take no other pooling."""
    state = make_model(input_size=2, pooling="attention").state_dict()
    assert from_torch(state).config.pooling == "attention"
    with pytest.raises(InvalidInputError, match="pooling is 'mean'; the weights hold an attention"):
        from_torch(state, pooling="mean")


# -- state dicts and files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".PT", ".safetensors"])
def test_files(tmp_path, suffix):
    """Every kind of file gives the module's scores, and says that the pooling is assumed."""
    net = Net(num_layers=2, bidirectional=True, outputs=1)
    path = tmp_path / f"weights{suffix}"
    writes = safetensors.torch.save_file if suffix == ".safetensors" else torch.save
    writes(net.state_dict(), path)
    for source in (path, str(path)):
        model = from_torch(source)
        same(model(floats(3, 5, 3)), net(floats(3, 5, 3)))
    assert adopted(model)["file"] == path.name
    assert adopted(model)["format"] == ("safetensors" if suffix == ".safetensors" else "PyTorch file")
    assert "pooling 'last' (the final state of each direction, h_n) is assumed" in told(model)
    assert "task 'regression' is assumed" in told(model)
    named = from_torch(path, pooling="mean", task="binary")
    assert "assumed" not in told(named)
    assert (named.config.pooling, named.config.task) == ("mean", "binary")


def test_what_was_adopted_is_saved_with_the_model(tmp_path):
    """The sentences go into data.json, whatever letters the names have."""
    state = {f"é\ud800\0.{name}": value for name, value in Net().state_dict().items()}
    model = from_torch(state)
    assert load(model.save(tmp_path / "model")).data == model.data


def test_ordered_dicts_and_parameters():
    """Any mapping of names to tensors or parameters will do."""
    net = Net()
    for state in (dict(net.named_parameters()), collections.OrderedDict(net.state_dict())):
        same(from_torch(state)(floats(2, 3, 3)), net(floats(2, 3, 3)))


@pytest.mark.parametrize("source", [None, 3, [1], b"a.pt", torch.ones(2), Net])
def test_other_sources(source):
    """Anything else is refused by its type."""
    with pytest.raises(InvalidTypeError, match=rf"source is a {type(source).__name__}; expected an nn\.Module"):
        from_torch(source)


def test_unknown_options():
    """A misspelt option is named."""
    with pytest.raises(InvalidInputError, match=r"pooling is 'maen'.*Did you mean 'mean'"):
        from_torch(Net(), pooling="maen")
    with pytest.raises(InvalidInputError, match=r"task is \['binary'\]; known"):
        from_torch(Net(), task=["binary"])


def test_who_refuses():
    """The source's name comes first: a file's is a SavedModelError, a module's and a state dict's a ModelError."""
    with pytest.raises(ModelError, match=r"^Linear: it holds no LSTM: .* found weight"):
        from_torch(nn.Linear(2, 2))
    with pytest.raises(ModelError, match=r"^state dict: it holds no LSTM"):
        from_torch({})
