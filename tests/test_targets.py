"""Which number is explained: every form a user may say, and every refusal."""

import numpy as np
import pytest
import torch

from gatelens.models import InvalidInputError, InvalidTypeError, Target, resolve_target

SCORES = torch.tensor([[0.1, 0.9, 0.5], [2.0, -1.0, 0.0]])  # (2, 3)
STEPS = torch.arange(24.0).reshape(2, 4, 3)  # (2, 4, 3)


def resolve(target, scores=SCORES, lengths=None, steps=None, **options):
    steps = scores.shape[1] if steps is None and scores.ndim == 3 else steps or 7
    lengths = torch.full((scores.shape[0],), steps) if lengths is None else torch.tensor(lengths)
    return resolve_target(target, scores, lengths=lengths, steps=steps, **options)


# -- one output a sequence -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        [2, 2],
        (np.int64(2)),
        2,
        np.array([2, 2]),
        np.array([2, 2], dtype=np.uint8),
        torch.tensor([2, 2]),
        torch.tensor(2),
        [2],
        range(2, 3),
    ],
)
def test_ints(target):
    """An int means that output for all; a list, an array or a tensor one each."""
    found = resolve(target)
    assert found.output.tolist() == [2, 2]
    assert found.timestep is None
    assert found.select(SCORES).tolist() == [0.5, 0.0]


def test_one_each():
    """(B,) ints pick another output of each sample."""
    assert resolve([1, 0]).select(SCORES).tolist() == pytest.approx([0.9, 2.0])


def test_none_is_the_predicted_class():
    """None is each sample's highest score, for multiclass and unknown tasks."""
    assert resolve(None).output.tolist() == [1, 0]
    assert resolve(None, task="multiclass").output.tolist() == [1, 0]


@pytest.mark.parametrize("task", [None, "regression", "binary"])
def test_none_is_the_only_output(task):
    """None is output 0 where there is no other."""
    assert resolve(None, SCORES[:, :1], task=task).output.tolist() == [0, 0]


def test_names():
    """A class's name is its index; of a binary model with one score the positive class is that score."""
    names = ("fall", "stay", "rise")
    assert resolve("rise", class_names=names).output.tolist() == [2, 2]
    assert resolve("yes", SCORES[:, :1], class_names=("no", "yes")).output.tolist() == [0, 0]
    assert resolve("no", SCORES[:, :2], class_names=("no", "yes")).output.tolist() == [0, 0]


# -- one output a timestep -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "timesteps", "outputs"),
    [
        ((1, 2), [1, 1], [2, 2]),
        ((-1, 2), [3, 1], [2, 2]),
        ((-2, 0), [2, 0], [0, 0]),
        (([3, 0], 1), [3, 0], [1, 1]),
        (([-1, -2], [0, 1]), [3, 0], [0, 1]),
        ((torch.tensor([-4, 1]), np.array([2, 0])), [0, 1], [2, 0]),
        ((0, None), [0, 0], [2, 2]),
        (1, [3, 1], [1, 1]),
        ([0, 2], [3, 1], [0, 2]),
        (None, [3, 1], [2, 2]),
        ("b", [3, 1], [1, 1]),
        ((1, "a"), [1, 1], [0, 0]),
    ],
)
def test_timesteps(target, timesteps, outputs):
    """(timestep, output) for sequences of 4 and 2 timesteps: negative ones count from each end; without, the last."""
    found = resolve(target, STEPS, lengths=[4, 2], class_names=("a", "b", "c"))
    assert found.timestep.tolist() == timesteps
    assert found.output.tolist() == outputs
    expected = [float(STEPS[row, t, k]) for row, (t, k) in enumerate(zip(timesteps, outputs, strict=True))]
    assert found.select(STEPS).tolist() == expected
    assert found.at_timestep(STEPS).tolist() == [STEPS[row, t].tolist() for row, t in enumerate(timesteps)]


def test_the_predicted_class_at_a_timestep():
    """None as the output is the highest score at the chosen timestep, not at another."""
    scores = torch.tensor([[[3.0, 0.0], [0.0, 1.0]]])
    assert resolve((0, None), scores).output.tolist() == [0]
    assert resolve(None, scores).output.tolist() == [1]


def test_a_model_with_its_own_timesteps():
    """Where the scores have another number of timesteps than the inputs, theirs are counted, whatever the lengths."""
    assert resolve((-1, 0), STEPS, lengths=[9, 5], steps=9).timestep.tolist() == [3, 3]


def test_rows_and_at_timestep():
    """A part of the rows keeps its outputs and timesteps; (B, K) scores have no timestep to choose."""
    target = resolve(([3, 0], [1, 2]), STEPS, lengths=[4, 2])
    part = target.rows(torch.tensor([1]))
    assert (part.output.tolist(), part.timestep.tolist()) == ([2], [0])
    assert resolve(1).rows(torch.tensor([0])).timestep is None
    assert Target(torch.tensor([0, 0])).at_timestep(SCORES) is SCORES


# -- a window of timesteps -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "first", "last"),
    [
        (slice(0, 2), [0, 0], [1, 1]),
        (slice(None), [0, 0], [3, 1]),
        (slice(1, None), [1, 1], [3, 1]),
        (slice(-2, None, 1), [2, 0], [3, 1]),
        (slice(None, -1), [0, 0], [2, 0]),
        (slice(-2, -1), [2, 0], [2, 0]),
        (slice([1, 0], [4, 1]), [1, 0], [3, 0]),
        (slice(torch.tensor([-3, 0]), np.array([2, 2])), [1, 0], [1, 1]),
        (range(2), [0, 0], [1, 1]),
        (range(1, 2), [1, 1], [1, 1]),
        (range(-2, 0), [2, 0], [3, 1]),
        (range(-2, -1), [2, 0], [2, 0]),
    ],
    ids=str,
)
def test_windows(window, first, last):
    """A slice or range is a sum over timesteps, of sequences of 4 and 2; its ends count from each sequence's end."""
    found = resolve((window, [1, 2]), STEPS, lengths=[4, 2])
    assert (found.timestep.tolist(), found.last.tolist(), found.output.tolist()) == (first, last, [1, 2])
    spans = [slice(one, other + 1) for one, other in zip(first, last, strict=True)]
    sums = [STEPS[row, span].sum(dim=0) for row, span in enumerate(spans)]
    assert found.select(STEPS).tolist() == [float(sums[0][1]), float(sums[1][2])]
    assert found.at_timestep(STEPS).tolist() == [part.tolist() for part in sums]
    assert found.counts.tolist() == [span.stop - span.start for span in spans]
    covered = torch.zeros(2, 4, dtype=torch.bool)
    for row, span in enumerate(spans):
        covered[row, span] = True
    assert torch.equal(found.covers(4), covered)
    assert [part.tolist() for part in found.places()] == [part.tolist() for part in covered.nonzero(as_tuple=True)]
    part = found.rows(torch.tensor([1]))
    assert [part.timestep.item(), part.last.item(), part.output.item()] == [first[1], last[1], 2]


def test_single_timesteps_are_places_too():
    """One timestep is covered, counted once, and is its own place; of scores (B, K) one is counted too."""
    found = resolve(([3, 0], 1), STEPS, lengths=[4, 2])
    assert found.last is None
    assert found.covers(4).nonzero().tolist() == [[0, 3], [1, 0]]
    assert [part.tolist() for part in found.places()] == [[0, 1], [3, 0]]
    assert found.counts.tolist() == resolve(1).counts.tolist() == [1, 1]


def test_a_window_that_is_not_summed_over_gets_no_gradient():
    """What lies outside a window has a gradient of exactly 0, what lies inside of 1."""
    scores = STEPS.clone().requires_grad_()
    target = resolve((slice(1, -1), 2), scores, lengths=[4, 3])
    target.select(scores).sum().backward()
    assert scores.grad[..., 2].tolist() == [[0, 1, 1, 0], [0, 1, 0, 0]]
    assert not scores.grad[..., :2].any()


def test_the_output_with_the_largest_sum():
    """None as the output is that with the largest sum of scores over the window, not at one of its timesteps."""
    scores = torch.tensor([[[3.0, 0.0], [0.0, 1.0], [0.0, 3.0]]])
    assert resolve((slice(0, 2), None), scores).output.tolist() == [0]
    assert resolve((slice(0, 3), None), scores).output.tolist() == [1]


def test_windows_of_a_model_with_its_own_timesteps():
    """Horizons of a model's own are counted, whatever the lengths of its inputs."""
    found = resolve((slice(-3, None), 0), STEPS, lengths=[9, 5], steps=9)
    assert (found.timestep.tolist(), found.last.tolist()) == ([1, 1], [3, 3])


# -- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (3, InvalidInputError, r"target is 3, which this model does not have; its outputs are 0 to 2\."),
        (-1, InvalidInputError, "target is -1, which this model does not have"),
        ([0, 7], InvalidInputError, "target is 7, which"),
        ((0, 1), InvalidInputError, r"\(0, 1\), a \(timestep, output\) pair, but .* one output a sequence"),
        ([0, 1, 2], InvalidInputError, r"target has shape \(3,\); expected one number, or one for each of 2 samples"),
        ([[0, 1]], InvalidInputError, r"target has shape \(1, 2\)"),
        ([], InvalidTypeError, r"target is \[\]; expected None, a whole number"),
        (True, InvalidTypeError, "target is True; expected None, a whole number"),
        (1.0, InvalidTypeError, "target is 1.0; expected None, a whole number"),
        ([True, False], InvalidTypeError, r"target is \[True, False\]"),
        (torch.tensor([0.0, 1.0]), InvalidTypeError, r"target is tensor\(\[0., 1.\]\)"),
        (["a", "b"], InvalidTypeError, r"target is \['a', 'b'\]"),
        ([[0], [1, 2]], InvalidTypeError, r"target is \[\[0\], \[1, 2\]\]"),
        (2**70, InvalidTypeError, "target is 1180591620717411303424"),
        ("rise", InvalidInputError, "'rise', which is not a class of this model; the model names no classes"),
    ],
)
def test_refusals(target, error, message):
    """An output that is not there, a form that is not known: the sentence says what came and what is expected."""
    with pytest.raises(error, match=message):
        resolve(target)


def test_refusals_of_names():
    """An unknown class is told the nearest; the negative class of a single score has no score of its own."""
    with pytest.raises(InvalidInputError, match=r"'rize', .*known: fall, rise. Did you mean 'rise'"):
        resolve("rize", class_names=("fall", "rise"))
    with pytest.raises(InvalidInputError, match="one score, for 'yes'; explain that one"):
        resolve("no", SCORES[:, :1], class_names=("no", "yes"))
    with pytest.raises(InvalidInputError, match=r"target is 5.*0 to 2 \(a, b, c\)"):
        resolve(5, class_names=("a", "b", "c"))
    with pytest.raises(InvalidInputError, match=r"target is 1, .* its only output is 0"):
        resolve(1, SCORES[:, :1])


@pytest.mark.parametrize("task", ["regression", "binary"])
def test_several_outputs_need_a_target(task):
    """A regression or multi-label model with several outputs has no natural one."""
    with pytest.raises(InvalidInputError, match=f"this {task} model has 3 outputs.*target 0 to 2"):
        resolve(None, task=task)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ((4, 0), InvalidInputError, "timestep is 4, but sequence 0 has the timesteps 0 to 3"),
        ((2, 0), InvalidInputError, "timestep is 2, but sequence 1 has the timesteps 0 to 1"),
        ((-3, 0), InvalidInputError, "timestep is -3, but sequence 1 .*negative ones count from the end"),
        ((0, 3), InvalidInputError, "target is 3, which"),
        ((0, 0, 0), InvalidInputError, r"\(0, 0, 0\); expected \(timestep, output\), two entries"),
        ((1.0, 0), InvalidTypeError, "timestep is 1.0; expected"),
        ((None, 0), InvalidTypeError, "timestep is None; expected"),
        (([0, 1, 1], 0), InvalidInputError, r"timestep has shape \(3,\)"),
    ],
)
def test_refusals_of_timesteps(target, error, message):
    """A timestep in the padding or beyond, or no timestep at all, is refused with the sequence's own range."""
    with pytest.raises(error, match=message):
        resolve(target, STEPS, lengths=[4, 2])


BEYOND = r"reaches beyond sequence {}, with the timesteps 0 to {}; negative ends count"
EMPTY = r"holds no timestep of sequence {}, with the timesteps 0 to {}; its stop is left out: slice\(3, 8\) is"


@pytest.mark.parametrize(
    ("window", "error", "message"),
    [
        (slice(0, 5), InvalidInputError, r"slice\(0, 5, None\), which " + BEYOND.format(0, 3)),
        (slice(0, 3), InvalidInputError, BEYOND.format(1, 1)),
        (slice(2, None), InvalidInputError, BEYOND.format(1, 1)),
        (slice(-3, None), InvalidInputError, BEYOND.format(1, 1)),
        (range(1, 4), InvalidInputError, r"range\(1, 4\), which " + BEYOND.format(1, 1)),
        (slice([0, 2], None), InvalidInputError, BEYOND.format(1, 1)),
        (slice(1, 1), InvalidInputError, EMPTY.format(0, 3)),
        (slice(1, -1), InvalidInputError, EMPTY.format(1, 1)),
        (slice(1, -9), InvalidInputError, EMPTY.format(0, 3)),
        (slice(0, 4, 2), InvalidInputError, r"with a step; expected neighbouring timesteps, slice\(start, stop\)"),
        (slice(0, 1, -1), InvalidInputError, "with a step"),
        (range(1, -1, -1), InvalidInputError, "with a step"),
        (range(1, 1), InvalidInputError, r"range\(1, 1\), which is empty; expected e.g. range\(3, 8\)"),
        (range(-1), InvalidInputError, "which is empty"),
        (range(-2, 1), InvalidInputError, "counts its start from the end and its stop from the beginning"),
        (slice(0.5, 2), InvalidTypeError, r"the window's start is 0.5; expected a whole number, 2 of them .* or None"),
        (slice(0, "b"), InvalidTypeError, "the window's stop is 'b'; expected a whole number"),
        (slice(0, [1, 1, 1]), InvalidInputError, r"the window's stop has shape \(3,\)"),
    ],
    ids=str,
)
def test_refusals_of_windows(window, error, message):
    """A window that is empty, has a step or leaves a sequence is refused with that sequence's own range."""
    with pytest.raises(error, match=message):
        resolve((window, 0), STEPS, lengths=[4, 2])


def test_a_window_needs_timesteps_and_stands_in_a_pair():
    """Of one output a sequence there is no window; alone, without an output, a window is no target."""
    with pytest.raises(InvalidInputError, match=r"slice.*a \(timestep, output\) pair, but .* one output a sequence"):
        resolve((slice(0, 1), 0))
    with pytest.raises(InvalidTypeError, match=r"slice.*or \(timestep, output\), where timestep may be a slice"):
        resolve(slice(0, 1), STEPS)
