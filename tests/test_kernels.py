"""The elementwise kernels: compiled float32 against the same steps in float64 torch, and those against a plain loop."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gatelens.models import compiled, kernels, threads
from gatelens.models.activations import ACTIVATIONS
from gatelens.models.kernels import Cell, linear, previous_cells, scan_, walk_back_

SIGMOID, TANH = ACTIVATIONS["sigmoid"], ACTIVATIONS["tanh"]


def cell_kind(*, reverse: bool, gate: str = "sigmoid", shown: str = "tanh") -> Cell:
    standard = (gate, shown) == ("sigmoid", "tanh")
    return Cell(ACTIVATIONS[gate], ACTIVATIONS[shown], standard=standard, reverse=reverse)


def draw(*shape: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).float().double()


@pytest.fixture
def two_threads():
    """torch, and so the kernels, on two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


class Case:
    """Pre-activations, states and lengths of one direction, representable in float32."""

    def __init__(self, steps, batch, units, *, reverse, seed, padded=True, scale=2.0):
        self.kind = cell_kind(reverse=reverse)
        self.shape = steps, batch, units
        self.pre = draw(steps, batch, 4, units, seed=seed, scale=scale)
        self.initial = draw(batch, units, seed=seed + 1)
        generator = torch.Generator().manual_seed(seed + 2)
        self.lengths = torch.randint(1, steps + 1, (batch,), generator=generator)
        if not padded:
            self.lengths.fill_(steps)
        self.valid = (torch.arange(steps)[:, None] < self.lengths)[..., None]  # (T, B, 1)
        self.weight = draw(4 * units, units, seed=seed + 3) / units**0.5
        self.hidden_grad = draw(steps, batch, units, seed=seed + 4) * self.valid
        self.cell_grad = draw(steps, batch, units, seed=seed + 5) * self.valid

    def scan(self, dtype):
        """Return gates and cell, the whole sequence as one block."""
        gates, cell = self.pre.to(dtype).clone(), torch.full(self.shape, math.nan, dtype=dtype)
        initial = self.initial.to(dtype)
        scan_(gates, cell, initial, initial, self.lengths, 0, self.kind)
        return gates, cell

    def back(self, dtype, kind=None, weight_hr=None, hidden_grad=None):
        """Return gradients at gates, pre-activations, hidden and cell states, from float64's values."""
        gates, cell = (part.to(dtype) for part in self.scan(torch.float64))
        hidden_grad = (self.hidden_grad if hidden_grad is None else hidden_grad).to(dtype).clone()
        cell_grad = self.cell_grad.to(dtype).clone()
        gate_grad, pre_grad = walk_back_(
            gates, cell, self.initial.to(dtype), self.lengths, kind or self.kind,
            self.weight.to(dtype), weight_hr, hidden_grad, cell_grad,
        )  # fmt: skip
        return gate_grad, pre_grad, hidden_grad, cell_grad

    def masked(self, values):
        return [value * (self.valid if value.ndim == 3 else self.valid[..., None]) for value in values]


@st.composite
def cases(draw_, most_steps=40):
    return Case(
        draw_(st.integers(1, most_steps)),
        draw_(st.integers(1, 5)),
        draw_(st.integers(1, 33)),
        reverse=draw_(st.booleans()),
        padded=draw_(st.booleans()),
        seed=draw_(st.integers(0, 1000)),
    )


def close(found, expected, tolerance=2e-6):
    """Each number to `tolerance` of the largest of its kind."""
    for one, other in zip(found, expected, strict=True):
        scale = float(other.abs().max()) or 1.0
        torch.testing.assert_close(one.double(), other.double(), rtol=0, atol=tolerance * scale)


def scan_by_hand(case):
    """Return gates (T, B, 4, H) and cell (T, B, H) number by number."""
    gates, cell = torch.zeros_like(case.pre), torch.zeros(case.shape, dtype=torch.float64)
    for b, length in enumerate(case.lengths.tolist()):
        c = case.initial[b]
        for t in reversed(range(length)) if case.kind.reverse else range(length):
            i, f, g, o = (
                value.tanh() if index == 2 else 1 / (1 + (-value).exp()) for index, value in enumerate(case.pre[t, b])
            )
            c = f * c + i * g
            gates[t, b], cell[t, b] = torch.stack([i, f, g, o]), c
    return gates, cell


# -- the scan ------------------------------------------------------------------------------------------------------


@given(cases(most_steps=12))
@settings(max_examples=30)
def test_the_torch_scan_is_the_loop(case):
    """float64: gates and cell are those of the equations, number by number, 0 at padding."""
    for found, expected in zip(case.scan(torch.float64), scan_by_hand(case), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


@given(cases())
@example(Case(1, 1, 1, reverse=False, seed=0))
@example(Case(2, 5, 1500, reverse=True, seed=0))  # wider than a tile
@example(Case(3, 5, 256, reverse=False, seed=0))  # one timestep is a tile
@settings(max_examples=120)
def test_the_compiled_scan_is_the_torch_scan(case):
    """float32 compiled: the float64 numbers to 2e-6, exactly 0 at padding, whatever T, B, H, direction and lengths."""
    gates, cell = case.scan(torch.float32)
    close([gates, cell], case.scan(torch.float64))
    assert not (gates * ~case.valid[..., None]).any()
    assert not (cell * ~case.valid).any()


def test_float32_does_run_compiled(monkeypatch):
    """The tests above do compare two implementations: float32 calls the compiled scan and walk, float64 does not."""
    few, many = Case(3, 2, 5, reverse=False, seed=1), Case(3, 4, 5, reverse=False, seed=1)
    shared = shared_tasks(monkeypatch)
    walked = []
    original = compiled.walk_rows_back
    monkeypatch.setattr(compiled, "walk_rows_back", lambda *args: (walked.append(1), original(*args)))
    for case in (few, many):
        case.scan(torch.float64)
        case.back(torch.float64)
    assert not shared
    few.back(torch.float32)
    assert walked == [1]
    assert not shared
    many.back(torch.float32)
    assert shared == [(compiled.step_back_task, 1)] * 3
    few.scan(torch.float32)
    assert shared[3:] == [(compiled.scan_task, 1)]
    assert walked == [1]


def shared_tasks(monkeypatch):
    """Return a list that fills with the tasks that threads share from now on, and how many threads."""
    shared = []

    def share(task, job, count):
        shared.append((task, count))
        threads.share(task, job, count)

    monkeypatch.setattr(kernels, "share", share)
    return shared


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_threads_share_a_scan(monkeypatch, reverse, batch):
    """Two threads that share the batch give bit for bit what one gives."""
    case = Case(7, batch, 6, reverse=reverse, seed=3)
    alone = case.scan(torch.float32)
    tasks = shared_tasks(monkeypatch)
    monkeypatch.setattr(kernels, "MANY_NUMBERS", 1)
    shared = case.scan(torch.float32)
    assert tasks == [(compiled.scan_task, min(2, batch))]
    assert all(torch.equal(one, other) for one, other in zip(alone, shared, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("reverse", [False, True])
def test_blocks_with_a_carry_are_the_whole(reverse, size, dtype):
    """Blocks of timesteps, each with its offset and the cell before it, are bit for bit one scan of the whole."""
    case = Case(11, 5, 6, reverse=reverse, seed=4)
    gates, cell = case.pre.to(dtype).clone(), torch.empty(case.shape, dtype=dtype)
    initial = case.initial.to(dtype)
    carry, starts = initial, range(0, 11, size)
    for start in reversed(starts) if reverse else starts:
        block, own = gates[start : start + size], cell[start : start + size]
        scan_(block, own, initial, carry, case.lengths, start, case.kind)
        carry = own[0 if reverse else -1].clone()
    whole = case.scan(dtype)
    torch.testing.assert_close(gates, whole[0], rtol=0, atol=0)
    torch.testing.assert_close(cell, whole[1], rtol=0, atol=0)


@pytest.mark.parametrize("drive", [40.0, -40.0, 1000.0, -1000.0, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saturated_pre_activations(drive, dtype):
    """At +-40 and far beyond, gates are what float64 says, and neither they nor gradients are NaN or infinite."""
    case = Case(6, 2, 5, reverse=False, seed=5, padded=False)
    case.pre[:, :, :, ::2] = drive
    gates, cell = case.scan(dtype)
    side = float(drive > 0)
    for index, low in enumerate((0.0, 0.0, -1.0, 0.0)):
        wanted = torch.full((), 1.0 if side else low, dtype=dtype)
        assert (gates[:, :, index, ::2] - wanted).abs().max() < 1e-17
    assert cell.isfinite().all()
    found = case.back(dtype)
    assert all(part.isfinite().all() for part in found)
    close(found, case.back(torch.float64))


# -- sigma and tanh --------------------------------------------------------------------------------------------------


def activated(x: torch.Tensor, *, tanh: bool) -> torch.Tensor:
    """Return the compiled sigma or tanh of float32 numbers (n,)."""
    values = x.numpy().copy()
    is_tanh = np.full_like(values, 1 if tanh else 0)
    compiled._activate(values, np.full_like(values, 2 if tanh else -1), is_tanh, 1 - is_tanh)
    return torch.from_numpy(values)


def drives() -> torch.Tensor:
    tiny = 10.0 ** torch.linspace(-30, 0, 4001)
    edges = (torch.arange(-140, 141) / 4 * math.log(2))[:, None] + torch.linspace(-1e-3, 1e-3, 21)
    return torch.cat([torch.linspace(-100, 100, 400_001), tiny, -tiny, edges.flatten(), torch.tensor([0.0])])


@pytest.mark.parametrize("tanh", [False, True])
def test_sigma_and_tanh_to_float32s_precision(tanh):
    """Over [-100, 100] and near 0: 1e-6 relative; where float32 has no normal number left, less than 2e-38 absolute."""
    x = drives()
    exact = x.double().tanh() if tanh else x.double().sigmoid()
    torch.testing.assert_close(activated(x, tanh=tanh).double(), exact, rtol=1e-6, atol=2e-38)


@pytest.mark.parametrize("tanh", [False, True])
def test_sigma_and_tanh_stay_in_their_range(tanh):
    """Never above 1 nor below 0 (or -1), so that 1 - sigma and 1 - tanh^2 are never negative; tanh is odd."""
    x = torch.cat([drives(), torch.tensor([-1e4, 1e4, -3e38, 3e38, -math.inf, math.inf])])
    found = activated(x, tanh=tanh)
    assert found.isfinite().all()
    assert float(found.max()) <= 1
    assert float(found.min()) >= (-1 if tanh else 0)
    if tanh:
        torch.testing.assert_close(activated(-x, tanh=True), -found, rtol=1e-6, atol=1e-37)
        assert activated(torch.zeros(1), tanh=True).item() == 0


# -- the walk back ---------------------------------------------------------------------------------------------------


def hard_sigmoid(x: torch.Tensor) -> torch.Tensor:
    """Return the definition; torch's own takes a float32's 1/6 backwards."""
    return (x / 6 + 0.5).clamp(0, 1)


def back_by_autograd(case, weight_hr=None, hidden_grad=None, gate="sigmoid", shown="tanh"):
    """Return `Case.back`'s four by autograd through a loop over numbers that are nudged where they are made."""
    steps, batch, units = case.shape
    sigma, phi = hard_sigmoid if gate == "hard_sigmoid" else torch.sigmoid, ACTIVATIONS[shown].function
    width = units if weight_hr is None else weight_hr.shape[0]
    at_pre, at_gate = torch.zeros_like(case.pre), torch.zeros_like(case.pre)
    at_cell = torch.zeros(case.shape, dtype=torch.float64)
    at_hidden = torch.zeros(steps, batch, width, dtype=torch.float64)
    nudges = [part.requires_grad_() for part in (at_gate, at_pre, at_hidden, at_cell)]
    hidden_grad = case.hidden_grad if hidden_grad is None else hidden_grad
    score = torch.zeros((), dtype=torch.float64)
    for b, length in enumerate(case.lengths.tolist()):
        # h before the first timestep is part of the given pre-activations, so only its later effect is added
        c, shift = case.initial[b], torch.zeros(4 * units, dtype=torch.float64)
        for t in reversed(range(length)) if case.kind.reverse else range(length):
            pre = case.pre[t, b] + at_pre[t, b] + shift.view(4, units)
            i, f, g, o = torch.stack([sigma(pre[0]), sigma(pre[1]), phi(pre[2]), sigma(pre[3])]) + at_gate[t, b]
            c = f * c + i * g + at_cell[t, b]
            h = o * phi(c)
            h = (h if weight_hr is None else weight_hr @ h) + at_hidden[t, b]
            shift = case.weight @ (h - h.detach())
            score = score + (h * hidden_grad[t, b]).sum() + (c * case.cell_grad[t, b]).sum()
    return [
        torch.zeros_like(nudge) if found is None else found
        for nudge, found in zip(nudges, torch.autograd.grad(score, nudges, allow_unused=True), strict=True)
    ]


@given(cases(most_steps=10))
@settings(max_examples=30)
def test_the_torch_walk_is_autograd(case):
    """float64: gradients at gates, pre-activations, hidden and cell states are autograd's through a loop."""
    close(case.masked(case.back(torch.float64)), back_by_autograd(case), 1e-12)


@given(cases(most_steps=10), st.sampled_from(["tanh", "relu", "linear", "sigmoid"]), st.booleans(), st.booleans())
@settings(max_examples=40)
def test_other_nonlinearities_and_a_projection_are_autograd(case, shown, hard, projected):
    """The same with other nonlinearities and with `weight_hr`."""
    gate = "hard_sigmoid" if hard else "sigmoid"
    case.kind = cell_kind(reverse=case.kind.reverse, gate=gate, shown=shown)
    weight_hr = hidden_grad = None
    if projected:
        steps, batch, units = case.shape
        width = max(1, units - 1)
        weight_hr = draw(width, units, seed=7)
        case.weight = case.weight[:, :width]
        hidden_grad = draw(steps, batch, width, seed=8) * case.valid
    found = case.back(torch.float64, weight_hr=weight_hr, hidden_grad=hidden_grad)
    close(case.masked(found), back_by_autograd(case, weight_hr, hidden_grad, gate, shown), 1e-11)


@given(cases())
@example(Case(1, 1, 1, reverse=True, seed=0))
@example(Case(40, 3, 33, reverse=False, seed=0, padded=False))
@example(Case(40, 5, 33, reverse=True, seed=0))
@settings(max_examples=120)
def test_the_compiled_walk_is_the_torch_walk(case):
    """float32 compiled, few rows or many: the float64 gradients to 1e-5 of the largest, at all valid timesteps."""
    close(case.masked(case.back(torch.float32)), case.masked(case.back(torch.float64)), 1e-5)


@given(cases())
@settings(max_examples=25)
def test_the_walk_for_few_rows_is_that_for_many(case):
    """The walk that multiplies by itself and the one that calls a library give the same numbers."""
    before = kernels.FEW_ROWS
    try:
        kernels.FEW_ROWS = 100
        few = case.back(torch.float32)
        kernels.FEW_ROWS = 0
        many = case.back(torch.float32)
    finally:
        kernels.FEW_ROWS = before
    close(case.masked(few), case.masked(many), 1e-5)


@given(cases())
@settings(max_examples=25)
def test_float32_without_compiled_kernels(case):
    """The torch path in float32 (as on another device) gives the compiled path's numbers, too."""
    compiled_scan, compiled_back = case.scan(torch.float32), case.back(torch.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_is_plain_float32", lambda _: False)
        close(case.scan(torch.float32), compiled_scan)
        close(case.masked(case.back(torch.float32)), case.masked(compiled_back), 1e-5)


def test_no_gradient_of_a_valid_timestep_comes_from_padding():
    """What stands at padding reaches no gate nor pre-activation: they are 0 there, in both directions and types."""
    for reverse in (False, True):
        for batch in (2, 5):
            case = Case(9, batch, 6, reverse=reverse, seed=6)
            for dtype in (torch.float32, torch.float64):
                pre_grad = case.back(dtype)[1]
                assert not (pre_grad * ~case.valid[..., None]).any()


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("reverse", [False, True])
def test_threads_share_a_walk(monkeypatch, reverse):
    """Two threads that share each timestep give bit for bit what one gives."""
    case = Case(7, 5, 6, reverse=reverse, seed=3)
    alone = case.back(torch.float32)
    tasks = shared_tasks(monkeypatch)
    monkeypatch.setattr(kernels, "MANY_UNITS", 1)
    shared = case.back(torch.float32)
    assert tasks == [(compiled.step_back_task, 2)] * 7
    assert all(torch.equal(one, other) for one, other in zip(alone, shared, strict=True))


def test_previous_cells():
    """The state that entered each timestep in reading order: the initial one first, 0 at padding."""
    cell = torch.arange(1.0, 7.0).view(3, 2, 1)  # (T, B, H): 1 3 5 and 2 4 6
    cell[2, 1] = 0
    lengths, initial = torch.tensor([3, 2]), torch.tensor([[-1.0], [-2.0]])
    forward = previous_cells(cell, initial, lengths, cell_kind(reverse=False))
    assert forward[:, :, 0].T.tolist() == [[-1, 1, 3], [-2, 2, 0]]
    reverse = previous_cells(cell, initial, lengths, cell_kind(reverse=True))
    assert reverse[:, :, 0].T.tolist() == [[3, 5, -1], [4, -2, 0]]


def test_reading_order():
    """Forward reads 0, 1, 2 and reverse 2, 1, 0; `earlier` is what was read before."""
    forward, reverse = cell_kind(reverse=False), cell_kind(reverse=True)
    assert list(forward.order(3)) == [0, 1, 2]
    assert list(reverse.order(3)) == [2, 1, 0]
    assert (forward.earlier(1), reverse.earlier(1)) == (0, 2)


# -- the product -----------------------------------------------------------------------------------------------------

LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "transposed": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "every other": lambda x: torch.stack([x, -x], dim=-1)[..., 0],
    "a slice": lambda x: torch.cat([x, x], dim=-1)[..., : x.shape[-1]],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(3, 2, 5, 7), (130, 6, 70, 80), (1, 1, 1, 1), (4000, 1, 24, 32)])
@pytest.mark.parametrize("how", ["onednn", "missing", "unavailable", "float64"])
def test_linear_is_the_product(monkeypatch, how, shape, bias, layout):
    """Small or large, any layout, with and without a bias or oneDNN: inputs @ weight^T + bias, contiguous."""
    steps, batch, features, outputs = shape
    inputs = LAYOUTS[layout](draw(steps, batch, features, seed=1))
    weight, offset = draw(outputs, features, seed=2), draw(outputs, seed=3) if bias else None
    expected = torch.einsum("tbd,fd->tbf", inputs, weight) + (offset if bias else 0)
    dtype = torch.float64 if how == "float64" else torch.float32
    if how == "missing":
        monkeypatch.setattr(torch.ops, "mkldnn", object())
    elif how == "unavailable":
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    else:
        assert how == "float64" or not torch.backends.mkldnn.is_available() or torch.ops.mkldnn._linear_pointwise
    found = linear(inputs.to(dtype), weight.to(dtype), None if offset is None else offset.to(dtype))
    assert found.is_contiguous()
    assert found.dtype == dtype
    close([found], [expected], 1e-12 if dtype == torch.float64 else 2e-6)


def test_linear_with_a_transposed_weight():
    """A weight that is a transposed view, as in the gradient at the inputs, is multiplied rightly."""
    inputs, weight = draw(200, 6, 64, seed=1), draw(64, 64, seed=2)
    close([linear(inputs.float(), weight.float().T)], [inputs @ weight], 2e-6)
