"""Words about gates: their numbers are those of the data, and nothing is claimed that the data does not show."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gatelens.models import gate_statistics
from gatelens.models.gate_statistics import LayerStatistics
from gatelens.models.trace import GATES
from gatelens.reports.gate_words import dead_words, gate_sentences, steps_count, steps_words
from gatelens.reports.wording import number, percent
from helpers.draws import make_inputs, make_model

NONE = dict.fromkeys(GATES, 0.0)


def statistics(**changes) -> LayerStatistics:
    """Return those of a layer of three units whose gates are never saturated, all alive."""
    values = {
        "layer": "lstm.0",
        "open_share": NONE,
        "closed_share": NONE,
        "half_lives": np.array([2.0, 4.0, 12.0]),
        "unit_ranges": np.ones(3),
        "timesteps": 100,
    }
    return LayerStatistics(**{**values, **changes})


def made_model():
    """Return a model whose forget gates are known: 0.5, 2^(-1/8) and 1 at every timestep."""
    model = make_model(0, input_size=2, hidden_sizes=(3,))
    layer = model.lstm[0]
    with torch.no_grad():
        layer.weight_ih_l0[:6] = layer.weight_hh_l0[:6] = layer.bias_hh_l0[:6] = 0
        layer.bias_ih_l0[:3] = 8.0  # input gates of 0.9997: open
        layer.bias_ih_l0[3:6] = torch.logit(torch.tensor([0.5, 2 ** (-1 / 8), 1.0]).double()).clamp(max=800)
        layer.weight_ih_l0[7] = layer.weight_hh_l0[7] = layer.bias_ih_l0[7] = layer.bias_hh_l0[7] = 0
    return model


def test_words_say_the_numbers_of_the_data() -> None:
    """From a trace to words: each number in the sentences is one that was counted in the gates themselves."""
    model = made_model()
    inputs = make_inputs(model, 4, 7)
    memory, saturation, dead = gate_sentences(gate_statistics(model, inputs)["lstm.0"], interval=60)
    assert "half of what its cell holds after 8 timesteps (8 minutes)" in memory
    assert "(the quickest unit: 1 timestep; the slowest: never)" in memory
    assert f"At the mean rate of all units that takes {number(3 / (1 + 1 / 8), digits=2)} timesteps." in memory
    trace = model.trace(inputs)["lstm.0"]
    for gate, word in (("input_gate", "input"), ("forget_gate", "forget"), ("output_gate", "output")):
        values = getattr(trace, gate)
        above, below = (float(share.double().mean()) for share in (values > 0.95, values < 0.05))
        told = (
            f"{percent(above + below)} ({percent(above)} open, {percent(below)} closed)" if above + below else "never"
        )
        assert f"{word} {told}" in saturation
    candidates = float((trace.candidate.abs() > 0.95).double().mean())
    assert f"Candidates beyond ±0.95: {percent(candidates) if candidates else 'none'}" in saturation
    assert "So the input gate is open most of the time" in saturation
    assert dead.startswith("Dead units: 1 of 3, ")
    assert dead.endswith(": 1.")


def test_words_follow_the_data() -> None:
    """Other inputs to the same model, other words: what is said is said of this data, not of the weights."""
    model = make_model(1, input_size=2, hidden_sizes=(3,))
    inputs = make_inputs(model, 4, 7)
    small, large = (gate_sentences(gate_statistics(model, inputs * scale)["lstm.0"]) for scale in (0.01, 1000.0))
    assert "Saturated gates (above 0.95 or below 0.05): none" in small[1]
    assert "Nearly everything is saturated" in large[1]
    assert small[0] != large[0]


@pytest.mark.parametrize(
    ("half_lives", "says", "never"),
    [
        ([math.inf] * 3, "the cells forget nothing", "half of"),
        (
            [1.0, math.inf, math.inf],
            "unit never forgets half of what its cell holds (the quickest unit: 1 timestep; the slowest: never). At",
            "has forgotten",
        ),
        ([2.0, 4.0, 12.0], "after 4 timesteps (the quickest unit: 2 timesteps; the slowest: 12 timesteps). ", "never"),
        ([2.0, 4.0, math.inf], "after 4 timesteps (", "forget nothing"),
        ([3.0, 3.0, 3.0], "after 3 timesteps. ", "quickest"),
        ([1.0], "the middle unit has forgotten half of what its cell holds after 1 timestep. ", "quickest"),
        (
            [0.0, 0.0, 0.0],
            "holds within 0.1 timesteps. At the mean rate of all units that takes under 0.1 timesteps.",
            "after",
        ),
        ([2e6, 2e6, 2e6], "has forgotten half of what its cell holds after more than 1,000,000 timesteps. ", "never"),
    ],
)
def test_memory(half_lives, says, never) -> None:
    """Nothing is said of forgetting where nothing is forgotten, nor of a spread of units that are all alike."""
    text = gate_sentences(statistics(half_lives=np.array(half_lives)))[0]
    assert says in text
    assert never not in text
    assert "not a number" not in text


def test_spread_of_the_units() -> None:
    """Of eleven units the middle one, and where the quickest and slowest tenth end; of nine, the quickest unit."""
    shuffled = np.random.default_rng(0).permutation(np.arange(1.0, 12.0))
    text = gate_sentences(statistics(half_lives=shuffled))[0]
    assert "after 6 timesteps (quickest tenth of the units: 2 timesteps; slowest: 10 timesteps)" in text
    for count, words in ((10, "quickest tenth of the units: 2 "), (9, "the quickest unit: 1 "), (7, "unit: 1 ")):
        few = gate_sentences(statistics(half_lives=np.sort(shuffled)[:count][::-1]))[0]
        assert words in few
        assert ("tenth" in few) is (count == 10)
        assert f"slowest: {count if count < 10 else 9} timesteps)" in few


def test_time_is_told_only_where_it_is_known() -> None:
    """Minutes stand beside timesteps where the interval is known and the half-life is at least one timestep."""
    assert "minute" not in gate_sentences(statistics())[0]
    assert "4 timesteps (20 minutes)" in gate_sentences(statistics(), interval=300)[0]
    assert "minute" not in gate_sentences(statistics(half_lives=np.full(3, 0.5)), interval=300)[0]


@pytest.mark.parametrize(
    ("steps", "count", "words"),
    [
        (0.0, "under 0.1", "under 0.1 timesteps"),
        (0.0999, "under 0.1", "under 0.1 timesteps"),
        (0.5, "0.5", "0.5 timesteps"),
        (1.0, "1", "1 timestep"),
        (2.26, "2.3", "2.3 timesteps"),
        (1234.4, "1,234", "1,234 timesteps"),
        (1e6, "1,000,000", "1,000,000 timesteps"),
        (1.1e6, "over 1,000,000", "over 1,000,000 timesteps"),
        (math.inf, "never", "never"),
    ],
)
def test_steps(steps, count, words) -> None:
    """A number of timesteps has two digits, its unit, and a word where there is no number."""
    assert steps_count(steps) == count
    assert steps_words(steps) == words


def test_nothing_saturated() -> None:
    """No gate saturated is one word, not six zeros, and nothing follows from it."""
    text = gate_sentences(statistics())[1]
    assert text == "Saturated gates (above 0.95 or below 0.05): none. Candidates beyond ±0.95: none."
    rare = gate_sentences(statistics(open_share={**NONE, "input_gate": 0.001}))[1]
    assert "input under 1 % (under 1 % open, 0 % closed), forget never and output never." in rare
    assert "So " not in rare


def test_saturated_shares() -> None:
    """Each gate's share stands with its parts, open and closed; a gate that is never saturated has a word."""
    found = statistics(
        open_share={"input_gate": 0.1, "forget_gate": 0.6, "candidate": 0.25, "output_gate": 0.0},
        closed_share={"input_gate": 0.2, "forget_gate": 0.004, "output_gate": 0.0},
    )
    assert gate_sentences(found)[1] == (
        "Saturated gates (above 0.95 or below 0.05): input 30 % (10 % open, 20 % closed), "
        "forget 60 % (60 % open, under 1 % closed) and output never. Candidates beyond ±0.95: 25 %. "
        "So the forget gate is open most of the time, all units together."
    )


@pytest.mark.parametrize(
    ("opened", "closed", "words"),
    [
        ({"input_gate": 0.5}, {"input_gate": 0.5}, None),
        ({"input_gate": 0.51}, {}, "the input gate is open"),
        ({}, {"output_gate": 0.6}, "the output gate is closed"),
        ({"input_gate": 0.6, "output_gate": 0.9}, {}, "the input and output gates are open"),
        ({"forget_gate": 0.7}, {"input_gate": 0.6, "output_gate": 0.9},
         "the forget gate is open and the input and output gates are closed"),
        ({"candidate": 0.9}, {}, None),
    ],
)  # fmt: skip
def test_what_follows_from_saturation(opened, closed, words) -> None:
    """A gate is called open or closed only where most of its values are; a candidate is neither."""
    text = gate_sentences(statistics(open_share=NONE | opened, closed_share=NONE | closed))[1]
    if words is None:
        assert "So " not in text
    else:
        assert f" So {words} most of the time, all units together." in text


@pytest.mark.parametrize(("share", "told"), [(0.8, False), (0.81, True)])
def test_the_scaling_is_doubted_only_where_nearly_everything_is_saturated(share, told) -> None:
    """The doubt about scaling is told with its other cause, and only where every gate and the candidate give it."""
    doubt = "either the weights are very large, or the inputs are hardly scaled"
    assert (doubt in gate_sentences(statistics(open_share=dict.fromkeys(GATES, share)))[1]) is told
    but_one = dict.fromkeys(GATES, share) | {"candidate": 0.5}
    assert doubt not in gate_sentences(statistics(open_share=but_one))[1]


@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        ([1.0, 0.5, 0.2], "Dead units: none of 3; every unit's output moves on this data."),
        ([1.0, 0.011, 0.2], "Dead units: none of 3; every unit's output moves on this data."),
        ([0.0, 0.0], "Dead units: all 2; no unit's output moves on this data."),
        ([1.0, 0.0, 0.2, 0.001],
         "Dead units: 2 of 4, whose output moves less than 1 % of what the liveliest unit's does: 1 and 3."),
        ([1.0, *[0.0] * 9], "Dead units: 9 of 10, whose output moves less than 1 % of what the liveliest unit's does."),
    ],
)  # fmt: skip
def test_dead_units(ranges, words) -> None:
    """Dead units are counted, up to eight named, and none is called dead where all move."""
    found = statistics(unit_ranges=np.array(ranges))
    assert gate_sentences(found)[2] == words
    assert dead_words(found) == f"{len(found.resting_units)} of {len(ranges)}"


def test_one_timestep_shows_no_dead_units() -> None:
    """From a single timestep nothing is said of what moves; from two it is."""
    model = made_model()
    found = gate_statistics(model, make_inputs(model, 1, 1))["lstm.0"]
    assert dead_words(found) == "not known"
    assert gate_sentences(found)[2] == "Dead units: not known; a single timestep does not show what moves."
    assert dead_words(gate_statistics(model, make_inputs(model, 1, 2))["lstm.0"]) == "1 of 3"


@given(
    half_lives=st.lists(st.floats(1e-6, 1e18) | st.sampled_from([0.0, math.inf]), min_size=1, max_size=12),
    share=st.floats(0, 0.5),
    interval=st.none() | st.floats(1e-3, 1e6),
    timesteps=st.integers(1, 10**7),
)
def test_words_of_anything(half_lives, share, interval, timesteps) -> None:
    """Whatever the numbers are, the sentences are whole and hold no nan, inf or doubled stop."""
    found = statistics(
        half_lives=np.array(half_lives),
        open_share=dict.fromkeys(GATES, share),
        closed_share=dict.fromkeys(GATES, share),
        timesteps=timesteps,
    )
    for sentence in gate_sentences(found, interval=interval):
        assert sentence.endswith(".")
        assert ".." not in sentence
        for word in ("nan", "inf", "not a number", "e+"):
            assert word not in sentence
