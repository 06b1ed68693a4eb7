"""The kernels: compiled float32 against the same steps in float64 torch, and those against a plain loop."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gatelens.models import compiled, compiled_back, kernels, products, threads
from gatelens.models.activations import ACTIVATIONS
from gatelens.models.kernels import Cell, Weights, previous_cells, rebuild_, run_, walk_back_

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
    """Inputs, states, weights and lengths of one direction, representable in float32."""

    def __init__(self, steps, batch, units, *, reverse, seed, features=3, padded=True, scale=2.0):
        self.kind = cell_kind(reverse=reverse)
        self.shape = steps, batch, units
        self.inputs = draw(steps, batch, features, seed=seed)
        self.states = draw(steps, batch, units, seed=seed + 6).tanh().float().double()
        self.weight_ih = draw(4 * units, features, seed=seed + 7, scale=scale / features**0.5)
        self.weight = draw(4 * units, units, seed=seed + 3, scale=1 / units**0.5)
        self.bias = draw(4 * units, seed=seed + 8)
        self.initial = draw(batch, units, seed=seed + 1)
        generator = torch.Generator().manual_seed(seed + 2)
        self.lengths = torch.randint(1, steps + 1, (batch,), generator=generator)
        if not padded:
            self.lengths.fill_(steps)
        self.valid = (torch.arange(steps)[:, None] < self.lengths)[..., None]  # (T, B, 1)
        self.hidden_grad = draw(steps, batch, units, seed=seed + 4) * self.valid
        self.cell_grad = draw(steps, batch, units, seed=seed + 5) * self.valid

    @property
    def pre(self):
        """Pre-activations (T, B, 4, H)."""
        steps, batch, units = self.shape
        return (self.inputs @ self.weight_ih.T + self.states @ self.weight.T + self.bias).view(steps, batch, 4, units)

    def weights(self, dtype):
        return Weights(self.weight_ih.to(dtype), self.weight.to(dtype), self.bias.to(dtype))

    def scan(self, dtype, size=None):
        """Return gates and cell, the whole sequence as one block or in blocks of `size` timesteps."""
        steps, batch, units = self.shape
        gates = torch.full((steps, batch, 4, units), math.nan, dtype=dtype)
        cell = torch.full(self.shape, math.nan, dtype=dtype)
        initial = carry = self.initial.to(dtype)
        size = size or steps
        begins = range(0, steps, size)
        for begin in reversed(begins) if self.kind.reverse else begins:
            some = slice(begin, begin + size)
            rebuild_(
                self.inputs.to(dtype)[some], self.states.to(dtype)[some], self.weights(dtype), gates[some], cell[some],
                initial, carry, self.lengths, begin, self.kind,
            )  # fmt: skip
            carry = cell[some][0 if self.kind.reverse else -1].clone()
        return gates, cell

    def run(self):
        """Return gates, cell and hidden state of a whole float32 pass, which begins with the states of `entered`."""
        steps, batch, units = self.shape
        gates, cell = torch.full((steps, batch, 4, units), math.nan), torch.full(self.shape, math.nan)
        states = torch.zeros(steps + 1, batch, units)
        rows = torch.arange(batch)
        states[self.lengths if self.kind.reverse else 0, rows] = self.entered.float()
        weights, initial = self.weights(torch.float32), self.initial.float()
        run_(self.inputs.float(), states, weights, gates, cell, initial, self.lengths, self.kind)
        hidden = states[:-1] if self.kind.reverse else states[1:]
        return gates, cell, hidden * self.valid

    @property
    def entered(self):
        """Hidden state before the first timestep, (B, H)."""
        return self.states[0]

    def back(self, dtype, kind=None, weight_hr=None, hidden_grad=None):
        """Return gradients at gates, pre-activations, hidden and cell states, and inputs, from float64's values."""
        gates, cell = (part.to(dtype) for part in self.scan(torch.float64))
        hidden_grad = (self.hidden_grad if hidden_grad is None else hidden_grad).to(dtype).clone()
        cell_grad = self.cell_grad.to(dtype).clone()
        gate_grad, pre_grad, input_grad = walk_back_(
            gates, cell, self.initial.to(dtype), self.lengths, kind or self.kind,
            self.weights(dtype), weight_hr, hidden_grad, cell_grad,
        )  # fmt: skip
        return gate_grad, pre_grad, hidden_grad, cell_grad, input_grad

    def masked(self, values):
        return [value * (self.valid if value.ndim == 3 else self.valid[..., None]) for value in values]


@st.composite
def cases(draw_, most_steps=40):
    return Case(
        draw_(st.integers(1, most_steps)),
        draw_(st.integers(1, 20)),
        draw_(st.integers(1, 33)),
        features=draw_(st.integers(1, 9)),
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
    pre = case.pre
    gates, cell = torch.zeros_like(case.pre), torch.zeros(case.shape, dtype=torch.float64)
    for b, length in enumerate(case.lengths.tolist()):
        c = case.initial[b]
        for t in reversed(range(length)) if case.kind.reverse else range(length):
            i, f, g, o = (
                value.tanh() if index == 2 else 1 / (1 + (-value).exp()) for index, value in enumerate(pre[t, b])
            )
            c = f * c + i * g
            gates[t, b], cell[t, b] = torch.stack([i, f, g, o]), c
    return gates, cell


# -- gates of known states -------------------------------------------------------------------------------------------


@given(cases(most_steps=12))
@settings(max_examples=30)
def test_the_torch_rebuild_is_the_loop(case):
    """float64: gates and cell are those of the equations, number by number, 0 at padding."""
    for found, expected in zip(case.scan(torch.float64), scan_by_hand(case), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


@given(cases())
@example(Case(1, 1, 1, reverse=False, seed=0))
@example(Case(2, 5, 700, reverse=True, seed=0))
@example(Case(100, 1, 16, reverse=True, seed=0, features=40))  # tiles across time
@example(Case(3, 41, 8, reverse=False, seed=0))  # tiles that overlap
@settings(max_examples=120)
def test_the_compiled_rebuild_is_the_torch_rebuild(case):
    """float32 compiled: the float64 numbers to 4e-6, exactly 0 at padding, whatever T, B, D, H, direction, lengths."""
    gates, cell = case.scan(torch.float32)
    close([gates, cell], case.scan(torch.float64), 4e-6)
    assert not (gates * ~case.valid[..., None]).any()
    assert not (cell * ~case.valid).any()


def test_float32_does_run_compiled(monkeypatch):
    """The tests above do compare two implementations: float32 calls the compiled tasks, float64 does not."""
    case = Case(3, 2, 5, reverse=False, seed=1)
    shared = shared_tasks(monkeypatch)
    case.scan(torch.float64)
    case.back(torch.float64)
    assert not shared
    case.scan(torch.float32)
    case.back(torch.float32)
    assert shared == [(compiled.run_task, 1), (compiled_back.walk_task, 1)]


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
@pytest.mark.parametrize("batch", [1, 2, 5, 40])
def test_threads_share_a_rebuild(monkeypatch, reverse, batch):
    """Two threads that share the batch, or a small batch's time, give bit for bit what one gives."""
    case = Case(17, batch, 6, reverse=reverse, seed=3)
    alone = case.scan(torch.float32)
    tasks = shared_tasks(monkeypatch)
    monkeypatch.setattr(kernels, "MUCH_WORK", 1)
    shared = case.scan(torch.float32)
    few = [(compiled.run_task, 2), (compiled.run_task, 1)]  # the gates, then the cells
    assert tasks == (few if batch < 2 * products.ROWS else few[:1])
    assert all(torch.equal(one, other) for one, other in zip(alone, shared, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("reverse", [False, True])
def test_blocks_with_a_carry_are_the_whole(reverse, size, dtype):
    """Blocks of timesteps, each with its offset and the cell before it, are one scan of the whole."""
    case = Case(11, 5, 6, reverse=reverse, seed=4)
    tolerance = 0 if dtype == torch.float32 else 1e-15  # torch's products depend on the number of rows
    for found, whole in zip(case.scan(dtype, size), case.scan(dtype), strict=True):
        torch.testing.assert_close(found, whole, rtol=0, atol=tolerance)


@pytest.mark.parametrize("drive", [40.0, -40.0, 1000.0, -1000.0, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saturated_pre_activations(drive, dtype):
    """At +-40 and far beyond, gates are what float64 says, and neither they nor gradients are NaN or infinite."""
    case = Case(6, 2, 5, reverse=False, seed=5, padded=False)
    case.bias.view(4, 5)[:, ::2] = drive
    case.weight_ih.view(4, 5, -1)[:, ::2] = 0
    case.weight.view(4, 5, -1)[:, ::2] = 0
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
    values = np.tile(x.numpy(), 4)[None]  # (1, 4n): one row of pre-activations of n units
    gates = np.empty_like(values)
    compiled.activate(values, 0, gates, 0)
    i, f, g, o = torch.from_numpy(gates[0]).view(4, -1)
    assert torch.equal(i, f)
    assert torch.equal(i, o)
    return g if tanh else i


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
    """Return `Case.back`'s five by autograd through a loop over numbers that are nudged where they are made."""
    steps, batch, units = case.shape
    sigma, phi = hard_sigmoid if gate == "hard_sigmoid" else torch.sigmoid, ACTIVATIONS[shown].function
    width = units if weight_hr is None else weight_hr.shape[0]
    pres = case.pre
    at_pre, at_gate = torch.zeros_like(pres), torch.zeros_like(pres)
    at_input = torch.zeros_like(case.inputs)
    at_cell = torch.zeros(case.shape, dtype=torch.float64)
    at_hidden = torch.zeros(steps, batch, width, dtype=torch.float64)
    nudges = [part.requires_grad_() for part in (at_gate, at_pre, at_hidden, at_cell, at_input)]
    hidden_grad = case.hidden_grad if hidden_grad is None else hidden_grad
    score = torch.zeros((), dtype=torch.float64)
    for b, length in enumerate(case.lengths.tolist()):
        # h before the first timestep is part of the given pre-activations, so only its later effect is added
        c, shift = case.initial[b], torch.zeros(4 * units, dtype=torch.float64)
        for t in reversed(range(length)) if case.kind.reverse else range(length):
            pre = pres[t, b] + at_pre[t, b] + (shift + case.weight_ih @ at_input[t, b]).view(4, units)
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
        case.weight, case.states = case.weight[:, :width], case.states[..., :width].contiguous()
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
def test_float32_without_compiled_kernels(case):
    """The torch path in float32 (as on another device) gives the compiled path's numbers, too."""
    compiled_scan, compiled_back = case.scan(torch.float32), case.back(torch.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "is_compiled", lambda _: False)
        close(case.scan(torch.float32), compiled_scan, 4e-6)
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
@pytest.mark.parametrize("batch", [5, 41])
def test_threads_share_a_walk(monkeypatch, reverse, batch):
    """Two threads that share the batch give bit for bit what one gives."""
    case = Case(7, batch, 6, reverse=reverse, seed=3)
    alone = case.back(torch.float32)
    tasks = shared_tasks(monkeypatch)
    monkeypatch.setattr(kernels, "MUCH_WORK", 1)
    shared = case.back(torch.float32)
    assert tasks == [(compiled_back.walk_task, 2 if batch > products.ROWS else 1)]
    assert all(torch.equal(one, other) for one, other in zip(alone, shared, strict=True))


# -- a whole pass ----------------------------------------------------------------------------------------------------


def pass_by_hand(case):
    """Return gates, cell and hidden state of a whole pass in float64, number by number."""
    gates = torch.zeros_like(case.pre)
    cell, hidden = (torch.zeros(case.shape, dtype=torch.float64) for _ in range(2))
    for b, length in enumerate(case.lengths.tolist()):
        h, c = case.entered[b], case.initial[b]
        for t in reversed(range(length)) if case.kind.reverse else range(length):
            drive = (case.weight_ih @ case.inputs[t, b] + case.weight @ h + case.bias).view(4, -1)
            i, f, g, o = (value.tanh() if index == 2 else 1 / (1 + (-value).exp()) for index, value in enumerate(drive))
            c = f * c + i * g
            h = o * c.tanh()
            gates[t, b], cell[t, b], hidden[t, b] = torch.stack([i, f, g, o]), c, h
    return gates, cell, hidden


@given(cases(most_steps=15))
@example(Case(1, 1, 1, reverse=False, seed=0))
@example(Case(12, 23, 40, reverse=True, seed=1, features=20))
@settings(max_examples=60)
def test_a_compiled_pass_is_the_loop(case):
    """float32: gates, cell and hidden state of the equations to 1e-5, 0 at padding."""
    close(case.run(), pass_by_hand(case), 1e-5)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("batch", [5, 41])
def test_threads_share_a_pass(monkeypatch, reverse, batch):
    """Two threads that share the batch give bit for bit what one gives."""
    case = Case(7, batch, 6, reverse=reverse, seed=3)
    alone = case.run()
    tasks = shared_tasks(monkeypatch)
    monkeypatch.setattr(kernels, "MUCH_WORK", 1)
    shared = case.run()
    assert tasks == [(compiled.run_task, 2 if batch > products.ROWS else 1)]
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


@pytest.mark.parametrize("rows", [1, products.ROWS])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(3, 5, 7), (0, 1, 1), (1, 0, 1), (70, 80, 130), (4, 4, products.COLUMNS)])
def test_a_tile_is_the_product(rows, bias, shape):
    """Rows of two matrices, with strides of their own, times packed weights, plus what is added; nothing beside it."""
    first, second, columns = shape
    inputs, states = draw(rows, first + 2, seed=1), draw(rows, second + 1, seed=2)
    weight, added = draw(first + second, columns, seed=3), draw(columns, seed=4) if bias else None
    panels, start = products.packed(weight.float(), None if added is None else added.float())
    assert start.shape == (products.padded(columns),)
    kept = torch.full((rows + 1, products.padded(columns)), 7.0)
    one, two = inputs.float(), states.float()
    compiled.multiply(
        rows, one.data_ptr(), first + 2, first, two.data_ptr(), second + 1, second,
        panels.data_ptr(), start.data_ptr(), kept.data_ptr(), kept.shape[1],
    )  # fmt: skip
    expected = torch.cat([inputs[:, :first], states[:, :second]], dim=1) @ weight + (0 if added is None else added)
    close([kept[:rows, :columns]], [expected], 2e-6)
    assert not kept[:rows, columns:].any()
    assert (kept[rows] == 7).all()


def test_a_row_is_the_same_in_any_tile():
    """Whether a row is multiplied alone or in a tile, its numbers are the same to the last bit."""
    inputs, weight = draw(products.ROWS, 50, seed=1).float(), draw(50, 40, seed=2).float()
    panels, added = products.packed(weight)
    tile = torch.empty(products.ROWS, products.padded(40))
    alone = torch.empty_like(tile)

    def multiply(rows, source, result):
        compiled.multiply(
            rows, source.data_ptr(), 50, 50, 0, 0, 0, panels.data_ptr(), added.data_ptr(), result.data_ptr(),
            result.shape[1],
        )  # fmt: skip

    multiply(products.ROWS, inputs, tile)
    for row in range(products.ROWS):
        multiply(1, inputs[row:], alone[row:])
    assert torch.equal(tile, alone)


@pytest.mark.parametrize("columns", [1, products.COLUMNS - 1, products.COLUMNS, products.COLUMNS + 1])
def test_packed_weights(columns):
    """Panel p holds the columns from p * COLUMNS on, row by row; 0 stands where there is none."""
    weight = draw(3, columns, seed=1)
    panels, added = products.packed(weight, weight[0])
    width = products.COLUMNS
    assert panels.shape == (-(-columns // width), 3, width)
    for column in range(products.padded(columns)):
        expected = weight[:, column] if column < columns else torch.zeros(3).double()
        assert torch.equal(panels[column // width, :, column % width], expected)
        assert added[column] == (weight[0, column] if column < columns else 0)
