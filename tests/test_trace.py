"""`Trace` and `LayerTrace`: mappings of labelled values, and their xarray form."""

from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
import xarray as xr

from gatelens.models import LayerTrace, Trace, gate_statistics, record
from gatelens.models.trace import GATES, QUANTITIES, to_numpy
from helpers.draws import make_inputs, make_model


def layer(*shape: int) -> LayerTrace:
    return LayerTrace(*(torch.full(shape, float(index)) for index in range(6)))


def test_mapping():
    """A Trace is a mapping in the order of its layers; an unknown name is answered with those there are."""
    trace = Trace({"lstm.0": layer(2, 3, 4), "lstm.0.reverse": layer(2, 3, 4)}, lengths=torch.tensor([3, 1]))
    assert list(trace) == ["lstm.0", "lstm.0.reverse"]
    assert len(trace) == 2
    assert trace["lstm.0"].output_gate[0, 0, 0] == 3
    assert repr(trace) == "Trace(lstm.0: (2, 3, 4), lstm.0.reverse: (2, 3, 4))"
    with pytest.raises(KeyError, match=r"no layer 'lstm\.1' in this trace; it has lstm\.0, lstm\.0\.reverse"):
        trace["lstm.1"]


def test_quantities():
    """The six quantities come in the order i, f, g, o, c, h; the first four are the gates."""
    assert QUANTITIES == ("input_gate", "forget_gate", "candidate", "output_gate", "cell_state", "hidden_state")
    assert QUANTITIES[:4] == GATES
    found = layer(1, 1, 1).quantities()
    assert tuple(found) == QUANTITIES
    assert [float(value) for value in found.values()] == [0, 1, 2, 3, 4, 5]
    assert [float(value) for value in layer(1, 1, 1).map(lambda value: value * 2).quantities().values()] == [
        0, 2, 4, 6, 8, 10,
    ]  # fmt: skip


def test_masked():
    """masked() adds the timesteps that a packed pass left out, and sets padding to 0, NaN included."""
    values = LayerTrace(*(torch.full((2, 2, 1), float("nan")) for _ in range(6)))
    values.cell_state[0] = 7.0
    values.cell_state[1, 0] = 8.0
    found = values.masked(torch.tensor([[True, True, False], [True, False, False]]))
    assert found.cell_state[..., 0].tolist() == [[7.0, 7.0, 0.0], [8.0, 0.0, 0.0]]
    assert values.cell_state[1, 1].isnan()


def test_to_xarray():
    """One node a layer, six variables with dims (sample, time, unit), the trace's numbers, and the lengths above."""
    model = make_model(input_size=2, hidden_sizes=(4, 3), bidirectional=True)
    trace = model.trace(make_inputs(model, 2, 5), [5, 3])
    tree = trace.to_xarray()
    assert isinstance(tree, xr.DataTree)
    assert tree.name == "trace"
    assert list(tree.children) == ["lstm.0", "lstm.0.reverse", "lstm.1", "lstm.1.reverse"]
    assert tree["length"].dims == ("sample",)
    assert tree["length"].values.tolist() == [5, 3]
    for name, values in trace.items():
        node = tree[f"/{name}"]
        assert tuple(node.data_vars) == QUANTITIES
        for quantity, value in values.quantities().items():
            assert node[quantity].dims == ("sample", "time", "unit")
            assert node[quantity].dtype == np.float64
            np.testing.assert_array_equal(node[quantity].values, value.numpy())


def test_to_xarray_of_a_projected_lstm():
    """With proj_size the hidden state has its own dimension, "projection"."""
    module = torch.nn.LSTM(2, 4, proj_size=3, batch_first=True).double()
    with record(module) as recording:
        module(torch.zeros(1, 5, 2).double())
    node = recording.trace.to_xarray()["lstm.0"]
    assert dict(node.sizes) == {"sample": 1, "time": 5, "unit": 4, "projection": 3}
    assert node["hidden_state"].dims == ("sample", "time", "projection")


def test_to_xarray_of_gradients_and_bfloat16():
    """Values with a graph, and bfloat16, which numpy does not know, become plain arrays."""
    assert to_numpy(torch.ones(2, requires_grad=True) * 2).tolist() == [2.0, 2.0]
    assert to_numpy(torch.tensor([1.5], dtype=torch.bfloat16)).dtype == np.float32
    assert to_numpy(torch.tensor([1.5], dtype=torch.float64)).dtype == np.float64


def test_some_quantities():
    """A LayerTrace of some quantities keeps their order, names the missing ones, and masks and maps what it has."""
    some = LayerTrace(cell_state=torch.ones(2, 2, 3), input_gate=torch.full((2, 2, 3), 2.0))
    assert list(some.quantities()) == ["input_gate", "cell_state"]
    assert some.shape == (2, 2, 3)
    assert repr(some) == "LayerTrace(input_gate=(2, 2, 3), cell_state=(2, 2, 3))"
    for name in set(QUANTITIES) - {"input_gate", "cell_state"}:
        with pytest.raises(AttributeError, match=f"{name} was not recorded; this trace holds input_gate, cell_state"):
            getattr(some, name)
    masked = some.masked(torch.tensor([[True, True, False], [True, False, False]]))
    assert masked.shape == (2, 3, 3)
    assert list(masked.quantities()) == ["input_gate", "cell_state"]
    assert masked.cell_state[:, :, 0].tolist() == [[1, 1, 0], [1, 0, 0]]
    assert list(some.map(torch.neg).quantities()) == ["input_gate", "cell_state"]


def test_the_shape_is_that_of_the_gates():
    """A shape is (B, T, H) also where the hidden state is narrower; of a hidden state alone it is its own."""
    hidden = torch.ones(2, 5, 3)
    assert LayerTrace(hidden_state=hidden, candidate=torch.ones(2, 5, 4)).shape == (2, 5, 4)
    assert LayerTrace(hidden_state=hidden).shape == (2, 5, 3)


def test_masking_nothing_copies_nothing():
    """A full batch is handed back as it is."""
    full = layer(2, 3, 4)
    assert full.masked(torch.ones(2, 3, dtype=torch.bool)) is full


def test_to_xarray_of_some_quantities():
    """Only what was recorded becomes a variable; a projected hidden state keeps its own dimension beside a gate."""
    module = torch.nn.LSTM(2, 4, proj_size=3, batch_first=True).double()
    with record(module, quantities=("forget_gate", "hidden_state")) as recording:
        module(torch.zeros(1, 5, 2).double())
    node = recording.trace.to_xarray()["lstm.0"]
    assert tuple(node.data_vars) == ("forget_gate", "hidden_state")
    assert node["hidden_state"].dims == ("sample", "time", "projection")
    assert node["forget_gate"].dims == ("sample", "time", "unit")


def test_inputs_of_a_trace():
    """A trace has no inputs unless it is given them."""
    assert Trace({"lstm.0": layer(1, 2, 3)}, lengths=torch.tensor([2])).inputs is None
    inputs = torch.zeros(1, 2, 5)
    assert Trace({"lstm.0": layer(1, 2, 3)}, lengths=torch.tensor([2]), inputs=inputs).inputs is inputs


def test_timesteps_read():
    """What is 0 in every quantity was not read: padding, and what a mask skips."""
    values = torch.zeros(2, 3, 2)
    values[0, :2, 1] = values[1, 2, 0] = 5.0
    some = LayerTrace(forget_gate=torch.zeros(2, 3, 2), cell_state=values)
    assert some.timesteps_read().tolist() == [[True, True, False], [False, False, True]]


# -- in notebooks ----------------------------------------------------------------------------------------------------


def shown(trace: Trace) -> str:
    """Return what a notebook shows, after a parser has read it: nothing is left open, and no script is in it."""
    text = trace._repr_html_()
    tags = {element.tag for element in ET.fromstring(text).iter()}
    assert tags <= {"div", "table", "caption", "thead", "tbody", "tr", "th", "td", "br", "svg", "rect"}
    assert "://" not in text
    return text


def test_html_shows_layers_and_gates():
    """Layers, shapes, mean and range of each gate over what was read, and the half-life at the mean rate."""
    model = make_model(input_size=2, hidden_sizes=(4, 3), bidirectional=True)
    inputs, lengths = make_inputs(model, 2, 5), [5, 3]
    trace = model.trace(inputs, lengths)
    text = shown(trace)
    assert "Trace of 2 sequences, 3 to 5 timesteps" in text
    for name, layer in trace.items():
        assert f">{name}</td>" in text
        read = torch.cat([layer.forget_gate[0], layer.forget_gate[1, :3]])
        assert f">{float(read.mean()):.3g} <svg" in text
        assert f"<br/>{float(read.min()):.2g} to {float(read.max()):.2g}</td>" in text
        assert f">{gate_statistics(model, inputs, lengths=lengths)[name].mean_half_life:.3g} timesteps</td>" in text


def test_html_of_some_quantities_and_of_gradients():
    """Gates that were not recorded are not made up, and gradients have no half-life."""
    some = shown(Trace({"a": LayerTrace(hidden_state=torch.ones(1, 2, 3))}, lengths=torch.tensor([2])))
    assert "not known" in some
    assert "gate</th>" not in some
    kept = LayerTrace(forget_gate=torch.ones(1, 2, 3), input_gate=torch.ones(1, 2, 3))
    part = shown(Trace({"a": kept, "b": LayerTrace(input_gate=torch.ones(1, 2, 3))}, lengths=torch.tensor([2])))
    assert "endless" in part
    assert "not recorded" in part
    gradients = LayerTrace(*(torch.full((1, 2, 3), -0.5) for _ in range(6)))
    assert "not known" in shown(Trace({"a": gradients}, lengths=torch.tensor([2])))
    forgetting = LayerTrace(forget_gate=torch.zeros(1, 2, 3), cell_state=torch.ones(1, 2, 3))
    assert ">0 timesteps</td>" in shown(Trace({"a": forgetting}, lengths=torch.tensor([2])))


def test_html_escapes_names():
    """A layer's name with markup is shown, not run; nothing recorded is nothing shown."""
    hostile = """<script>alert('x')</script>"&\ud800"""
    text = shown(Trace({hostile: layer(1, 2, 3)}, lengths=torch.tensor([2])))
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;&quot;&amp;?" in text
    shown(Trace({}, lengths=torch.tensor([])))
    shown(Trace({"masked": LayerTrace(*(torch.zeros(1, 2, 3) for _ in range(6)))}, lengths=torch.tensor([0])))
