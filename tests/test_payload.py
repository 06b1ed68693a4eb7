"""What the page's script reads: exact where it is called exact, and 8 bits where it is a picture."""

import base64
import gzip
import json
import struct

import numpy as np
import pytest
import torch

from gatelens.explainers import Attribution, DeepLIFT, explain, explain_over_time
from gatelens.models import DataSpec, FeatureSpec, LSTMConfig, LSTMModel, memory_flow
from gatelens.models.trace import to_numpy
from gatelens.reports.payload import EXACT_UNITS, QUANTITIES, SIGNED, Pack, pack_sample
from helpers.made import made_attribution


def unpacked(text):
    """Return header and arrays of a pack, as its docstring says they lie."""
    whole = gzip.decompress(base64.b64decode(text))
    (size,) = struct.unpack_from("<I", whole)
    header = json.loads(whole[4 : 4 + size])
    arrays = {}
    for name, listed in header["arrays"].items():
        kind = {"u1": np.uint8, "f4": "<f4"}[listed["type"]]
        start = 4 + size + listed["offset"]
        assert start % 4 == 0
        found = np.frombuffer(whole, kind, int(np.prod(listed["shape"])), start).reshape(listed["shape"])
        arrays[name] = np.cumsum(found, axis=-1, dtype=np.uint8) if listed["type"] == "u1" else found
    return header, arrays


@pytest.fixture(scope="module")
def packed():
    """A model with names and units, two sequences, and their pack."""
    torch.manual_seed(0)
    features = tuple(FeatureSpec(name=name, unit="m", center=3.0, scale=2.0) for name in "abc")
    config = LSTMConfig(input_size=3, hidden_sizes=(40,), bidirectional=True, pooling="none")
    model = LSTMModel(config, DataSpec(features=features)).eval()
    inputs, lengths = torch.randn(2, 7, 3), torch.tensor([7, 5])
    found = explain(model, inputs, ["deeplift", "gate_saliency", "temporal_shapley"], lengths=lengths)
    over = explain_over_time(DeepLIFT(model), inputs, lengths=lengths)
    trace = model.trace(inputs, lengths)

    def pack(**options):
        made = pack_sample(
            found, 1, name="two", primary="deeplift", trace=trace, flows=memory_flow(trace), over_time=over, **options
        )
        return unpacked(made.text())

    return model, inputs, found, over, trace, pack


def test_contributions_and_inputs_are_exact(packed) -> None:
    """Attributions, inputs in their units and output timesteps are float32, without padding."""
    _, inputs, found, over, _, pack = packed
    header, arrays = pack(spans=[(1, 3)])
    np.testing.assert_array_equal(arrays["effect.0"], found["deeplift"].values[1, :5].T.astype(np.float32))
    np.testing.assert_array_equal(
        arrays["effect.2"], found["temporal_shapley"].values[1, :5].T.sum(axis=0, dtype=np.float64)[None].astype("f4")
    )
    np.testing.assert_allclose(arrays["inputs"], inputs[1, :5].T.numpy() * 2 + 3, rtol=1e-6)
    np.testing.assert_array_equal(
        arrays["over_time"], over["attribution"].to_numpy()[1, :5, :5].transpose(0, 2, 1).astype("f4")
    )
    assert header["over_time"]["steps"] == [0, 1, 2, 3, 4]
    assert (header["length"], header["name"], header["spans"], header["primary"]) == (5, "two", [[1, 3]], 0)
    assert [one["signed"] for one in header["explainers"]] == [True, False, True]
    assert [one["apart"] for one in header["explainers"]] == [True, False, False]


def test_units_are_pictures_and_the_strongest_are_exact(packed) -> None:
    """Rows are units in their order, within half a level; the first eight units' numbers come as they are."""
    *_, trace, pack = packed
    header, arrays = pack()
    for number, (name, layer) in enumerate(trace.items()):
        told = header["layers"][number]
        flow = memory_flow(trace)[name].flow
        for place, quantity in enumerate(QUANTITIES):
            values = flow if quantity == "flow" else getattr(layer, quantity)
            expected = to_numpy(values)[1, :5].T[told["order"]]
            levels = arrays[f"{quantity}.{number}"].astype(float)
            scale = told["scales"][quantity]
            shown = (levels - 128) / 127 * scale if quantity in SIGNED else levels / 255
            np.testing.assert_allclose(
                shown, expected, rtol=0, atol=0.51 * scale / (127 if quantity in SIGNED else 255)
            )
            np.testing.assert_array_equal(arrays[f"exact.{number}"][:, place], expected[:EXACT_UNITS].astype("f4"))
        np.testing.assert_allclose(
            arrays[f"flow_sum.{number}"][0], to_numpy(flow)[1, :5].sum(axis=1, dtype=np.float64), rtol=1e-5, atol=1e-6
        )
        assert sorted(told["order"]) == list(range(40))
    assert [told["label"] for told in header["layers"]] == ["1", "1, backwards"]


def test_fewer_units_and_redaction(packed) -> None:
    """Units beyond the most are left out; redacted, neither inputs nor baselines are there."""
    *_, pack = packed
    header, arrays = pack(units=32, redact=True)
    assert arrays["input_gate.0"].shape == (32, 5)
    assert header["layers"][0]["units"] == 40
    assert 0 < header["layers"][0]["share"] < 1
    assert not {"inputs", "baseline"} & set(arrays)
    header, arrays = pack(units=0)
    assert header["layers"] == []
    assert not [name for name in arrays if "gate" in name]


def test_without_memory_flow_nothing_is_told_of_it(packed) -> None:
    """Without memory flow there is neither a picture nor a sum of it, and its numbers beside the cursor are absent."""
    _, _, found, _, trace, _ = packed
    header, arrays = unpacked(pack_sample(found, 0, name="one", primary="deeplift", trace=trace).text())
    assert not [name for name in arrays if name.startswith("flow")]
    assert "flow" not in header["layers"][0]["scales"]
    exact = arrays["exact.0"]
    assert np.isnan(exact[:, QUANTITIES.index("flow")]).all()
    assert np.isfinite(np.delete(exact, QUANTITIES.index("flow"), axis=1)).all()


def test_the_explained_output_timestep_is_shown_first(packed) -> None:
    """Where one output timestep is explained, the reader's choice begins there, else at the last."""
    model, inputs, _, over, _, pack = packed
    assert pack()[0]["over_time"]["first"] == 4  # the last of the second sequence is explained
    found = {"deeplift": DeepLIFT(model).explain(inputs, target=(2, 0), lengths=torch.tensor([7, 5]))}
    header, _ = unpacked(pack_sample(found, 0, name="one", primary="deeplift", over_time=over).text())
    assert header["over_time"]["first"] == 2


def test_names_cannot_turn_numbers_around() -> None:
    """Overrides of the direction of writing do not reach the script, wherever a name comes from."""
    turning = "\N{RIGHT-TO-LEFT OVERRIDE}a"
    found = made_attribution([[1.0]], features=(turning,), feature_unit=(turning,), output_unit=turning)
    scaled = {"feature_center": ("feature", [0.0]), "feature_scale": ("feature", [1.0])}
    found = Attribution(found.dataset.assign_coords(scaled))
    header, _ = unpacked(pack_sample({"one": found}, 0, name=turning, primary="one").text())
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in json.dumps(header, ensure_ascii=False)
    assert header["features"] == [{"name": "\N{REPLACEMENT CHARACTER}a", "unit": "\N{REPLACEMENT CHARACTER}a"}]
    texts = made_attribution([[1.0]], features=("token",), token=[turning])
    header, _ = unpacked(pack_sample({"one": texts}, 0, name="a", primary="one").text())
    assert header["tokens"] == ["\N{REPLACEMENT CHARACTER}a"]


def test_packs_are_the_same_each_time() -> None:
    """The same numbers give the same text; empty ones do, too."""
    pack = Pack({"a": "\N{SNOWMAN}</script>"}, {"x": np.arange(3.0), "y": np.arange(10, dtype=np.uint8).reshape(2, 5)})
    assert pack.text() == pack.text()
    header, arrays = unpacked(pack.text())
    assert header["a"] == "\N{SNOWMAN}</script>"
    np.testing.assert_array_equal(arrays["y"], np.arange(10).reshape(2, 5))
    assert unpacked(Pack().text())[1] == {}
