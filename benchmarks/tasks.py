"""Tasks whose true cells are known: data drawn with a seed, and the rule that labels it.

Each generator returns a `Batch`: sequences, what they are labelled with, the cells that decide it, and the rule
itself, which reads nothing but those cells (tests/test_ground_truth.py holds it to that). Sources: Arras et al. 2019
(two marked numbers); Tonekaboni et al. 2020 (hidden Markov states, spikes); Crabbe & van der Schaar 2021 (rare features
and rare times of ARMA noise, read by a white box); Ismail et al. 2020 (boxes, also moving ones).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

SPIKE = 1.5  # what lies above it is a spike; the background stays within -1 and 1

Rule = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Batch:
    """Sequences of a task.

    Attributes:
        inputs: (N, T, D).
        targets: (N,), or (N, T) where each timestep is answered.
        cells: Bool (N, T, D), the true cells: of a task that answers each timestep, those of the answer asked for.
        rule: Inputs (N, T, D) -> targets, as these sequences were labelled, coins included.
        asked: (N, A), the timesteps whose answers are explained; None: the one answer.
        graded: (N, T, D), how much each true cell gives to the answer, where that is known.
        scored: Bool (N, T, D), the cells that compete; None: all.
    """

    inputs: NDArray[np.float32]
    targets: NDArray[np.float32]
    cells: NDArray[np.bool_]
    rule: Rule
    asked: NDArray[np.int64] | None = None
    graded: NDArray[np.float64] | None = None
    scored: NDArray[np.bool_] | None = None


Draw = Callable[[int, np.random.Generator], Batch]


@dataclass(frozen=True)
class Task:
    """A task: how its data are drawn, which model learns it, and how much of it is explained.

    Attributes:
        name: What tables call it.
        text: What is asked, and where it is from.
        draw: (sequences, random generator) -> `Batch`.
        small: The same in small, for a quick run; None: it is small.
        model: "lstm", "gru", or "white box" (the rule itself, and nothing is learned).
        hidden: Units of the model.
        train: Sequences it learns from.
        samples: Sequences explained.
        epochs: Passes over the training sequences.
        each_step: Whether every timestep is answered.
        task: What the answers are.
        learning_rate: Of Adam.
    """

    name: str
    text: str
    draw: Draw
    small: Draw | None = None
    model: str = "lstm"
    hidden: int = 32
    train: int = 1000
    samples: int = 30
    epochs: int = 15
    each_step: bool = False
    task: Any = "binary"
    learning_rate: float = 1e-2
    seed: int = field(default=0)


def arithmetic(sign: float) -> Draw:
    """Return the generator of two marked numbers among ten, added (sign 1) or subtracted (sign -1)."""

    def draw(count: int, rng: np.random.Generator) -> Batch:
        numbers = rng.uniform(-1, 1, (count, 10)).astype(np.float32)
        places = np.sort(rng.random((count, 10)).argsort(axis=1)[:, :2], axis=1)
        rows = np.arange(count)
        kind = np.full((count, 10), 2)  # the column a number stands in: first marked, second marked, not marked
        kind[rows, places[:, 0]], kind[rows, places[:, 1]] = 0, 1
        place = kind[..., None] == np.arange(3)  # (N, T, D)
        signs = np.array([1, sign, 0], dtype=np.float32)
        cells = place & (np.arange(3) < 2)

        def rule(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
            return (inputs * cells * signs).sum(axis=(1, 2))

        inputs = np.where(place, numbers[..., None], 0).astype(np.float32)
        graded = (inputs * signs).astype(np.float64)
        return Batch(inputs, rule(inputs), cells, rule, graded=graded, scored=place)

    return draw


def hidden_states(steps: int = 200, every: int = 40) -> Draw:
    """Return the generator of the state task: feature 1 decides in state 0, feature 2 in state 1.

    States, means, covariances and label odds are those of the published setting. Every `every`-th answer is asked for;
    the true cell of an answer is the deciding feature at its own timestep, and the three features there compete.
    """
    means = np.array([[0.1, 1.6, 0.5], [-0.1, -0.4, -1.5]])
    covariances = np.stack([np.eye(3) * 0.801] * 2)
    for state in (0, 1):
        covariances[state, 0, state + 1] = covariances[state, state + 1, 0] = 0.01
    roots = np.linalg.cholesky(covariances)

    def draw(count: int, rng: np.random.Generator) -> Batch:
        states = np.zeros((count, steps), dtype=np.int64)
        now, stayed = rng.integers(0, 2, count), np.zeros(count)
        for step in range(steps):
            up = rng.random(count) < np.where(now == 1, 0.95 - stayed / 500, 0.05)
            stayed = np.where(up == now, stayed + 1, 0)
            now = states[:, step] = up.astype(np.int64)
        noise = rng.standard_normal((count, steps, 3))
        inputs = (means[states] + np.einsum("ntij,ntj->nti", roots[states], noise)).astype(np.float32)
        coins = rng.random((count, steps))

        def rule(changed: NDArray[np.float32]) -> NDArray[np.float32]:
            deciding = np.take_along_axis(changed, states[..., None] + 1, axis=2)[..., 0].astype(np.float64)
            return (coins < 1 / (1 + np.exp(-2 * deciding))).astype(np.float32)

        asked = np.broadcast_to(np.arange(every - 1, steps, every), (count, steps // every))
        cells = np.arange(3) == states[..., None] + 1
        return Batch(inputs, rule(inputs), cells, rule, asked=asked)

    return draw


def spikes(delay: int, steps: int = 50) -> Draw:
    """Return the generator of spikes: the answer is yes from `delay` timesteps after feature 0's first spike.

    Three features of NARMA noise within -1 and 1 (after Tonekaboni et al. 2020), each with some spikes. The answer at
    the timestep where it turns is asked for; the first spike is its true cell.
    """

    def rule(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        seen = np.maximum.accumulate(inputs[:, :, 0] > SPIKE, axis=1)
        return np.pad(seen, ((0, 0), (delay, 0)))[:, :steps].astype(np.float32)

    def draw(count: int, rng: np.random.Generator) -> Batch:
        inputs = background(count, steps, rng)
        spiked = rng.random((count, steps, 3)) < 0.06
        first = rng.integers(steps // 10, steps - delay - steps // 10, count)
        spiked[np.arange(steps) < first[:, None], 0] = False
        spiked[np.arange(count), first, 0] = True
        inputs[spiked] += 3
        cells = np.zeros((count, steps, 3), dtype=bool)
        cells[np.arange(count), first, 0] = True
        return Batch(inputs, rule(inputs), cells, rule, asked=(first + delay)[:, None])

    return draw


def background(count: int, steps: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return NARMA noise of order 2 with a trend, scaled to -1 and 1, (N, T, 3)."""
    drive = rng.uniform(0, 0.5, (count, steps, 3))
    found = np.zeros((count, steps, 3))
    for t in range(2, steps):
        past = found[:, t - 1]
        found[:, t] = (
            0.3 * past + 0.05 * past * (past + found[:, t - 2]) + 1.5 * drive[:, t - 1] * drive[:, t - 2] + 0.1
        )
    found += np.array([0.003, 0.005, 0.0]) * np.arange(steps)[:, None]
    low, high = found.min(axis=1, keepdims=True), found.max(axis=1, keepdims=True)
    return (2 * (found - low) / (high - low) - 1).astype(np.float32)


def arma(count: int, steps: int, features: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the ARMA noise of Crabbe & van der Schaar 2021, (N, T, D)."""
    found: NDArray[np.float64] = lfilter([2], [2, 0.5, 0.2, 0.1], rng.standard_normal((count, steps, features)), axis=1)
    return found


def boxes(shape: tuple[int, int], *, size: int = 20, moving: bool = False, noise: str = "white") -> Draw:
    """Return the generator of boxes: `shape` cells (timesteps, features) lie higher or lower, and the answer is which.

    Ismail et al. 2020: the cells of the box are around 1 or -1, all others around 0; a moving box is anywhere.
    """

    def draw(count: int, rng: np.random.Generator) -> Batch:
        centre = np.array([[(size - shape[0]) // 2, (size - shape[1]) // 2]])
        room = np.array([size - shape[0] + 1, size - shape[1] + 1])
        start = rng.integers(0, room, (count, 2)) if moving else np.repeat(centre, count, axis=0)
        grid = np.arange(size)
        in_time = (grid >= start[:, :1]) & (grid < start[:, :1] + shape[0])  # (N, T)
        in_feature = (grid >= start[:, 1:]) & (grid < start[:, 1:] + shape[1])  # (N, D)
        cells = in_time[:, :, None] & in_feature[:, None]
        whole = (count, size, size)
        inputs = rng.standard_normal(whole) if noise == "white" else arma(*whole, rng)
        inputs += cells * rng.choice([-1.0, 1.0], count)[:, None, None]

        def rule(changed: NDArray[np.float32]) -> NDArray[np.float32]:
            return ((changed * cells).sum(axis=(1, 2)) > 0).astype(np.float32)

        inputs = inputs.astype(np.float32)
        return Batch(inputs, rule(inputs), cells, rule)

    return draw


def squares(kind: str, size: int = 30, rare: int = 3) -> Draw:
    """Return the generator of ARMA noise whose white box reads `rare` features, or timesteps, of each sequence.

    Crabbe & van der Schaar 2021: rare features at the middle half of time, or rare timesteps in a row of the middle
    half of features. The answer is the sum of squares there, so what each cell gives is its own square.
    """

    def draw(count: int, rng: np.random.Generator) -> Batch:
        cells = np.zeros((count, size, size), dtype=bool)
        middle = slice(size // 4, 3 * size // 4)
        for row in cells:
            if kind == "feature":
                row[middle, rng.permutation(size)[:rare]] = True
            else:
                start = rng.integers(0, size - rare)
                row[start : start + rare, middle] = True

        def rule(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
            return (inputs**2 * cells).sum(axis=(1, 2))

        inputs = arma(count, size, size, rng).astype(np.float32)
        return Batch(inputs, rule(inputs), cells, rule, graded=inputs.astype(np.float64) ** 2 * cells)

    return draw


ARITHMETIC = {"hidden": 4, "train": 4000, "samples": 100, "epochs": 40, "task": "regression", "learning_rate": 2e-2}
STATES = {"each_step": True, "train": 800, "epochs": 30, "samples": 12}
MARKED = "Arras et al. 2019: ten numbers, two of them marked; the answer is {}. The numbers compete."
HMM = (
    "Tonekaboni et al. 2020, Crabbe & van der Schaar 2021: two hidden states, 3 features, 200 timesteps; each timestep "
    "is labelled by feature 1 in state 0, by feature 2 in state 1. As published, each answer's attribution is read at "
    "its own timestep, of every 40th answer; {} of 32 units (published: a GRU of 200)."
)
SPIKES = "After Tonekaboni et al. 2020: the answer turns to yes {} the first spike of feature 0; 50 timesteps."
BOX = "Ismail et al. 2020: 20 timesteps, 20 features; {}."
WHITE = (
    "Crabbe & van der Schaar 2021: the sum of squares of {} of 30 x 30 cells of ARMA noise (published: 50 x 50), "
    "answered by the rule itself; no model is trained, and methods for LSTMs do not apply."
)
TASKS = (
    Task("Two marked numbers, added", MARKED.format("their sum"), arithmetic(1.0), **ARITHMETIC),
    Task("Two marked numbers, subtracted", MARKED.format("their difference"), arithmetic(-1.0), **ARITHMETIC),
    Task("Hidden Markov states, LSTM", HMM.format("an LSTM"), hidden_states(), hidden_states(20, 10), **STATES),
    Task(
        "Hidden Markov states, GRU", HMM.format("a GRU"), hidden_states(), hidden_states(20, 10), model="gru", **STATES
    ),
    Task("Spike", SPIKES.format("at"), spikes(0), spikes(0, 15), each_step=True),
    Task("Delayed spike", SPIKES.format("two timesteps after"), spikes(2), spikes(2, 15), each_step=True),
    Task(
        "Rare features, ARMA, LSTM", BOX.format("ARMA noise, 2 features of 16 timesteps lie higher or lower"),
        boxes((16, 2), noise="arma"), boxes((5, 1), size=6, noise="arma"),
    ),
    Task(
        "Rare times, ARMA, LSTM", BOX.format("ARMA noise, 2 timesteps of 16 features lie higher or lower"),
        boxes((2, 16), noise="arma"), boxes((1, 5), size=6, noise="arma"),
    ),
    Task(
        "Rare features, white box", WHITE.format("3 features at half of the timesteps"),
        squares("feature"), squares("feature", 8, 2), model="white box", samples=10,
    ),
    Task(
        "Rare times, white box", WHITE.format("3 timesteps of half of the features"),
        squares("time"), squares("time", 8, 2), model="white box", samples=10,
    ),
    Task(
        "Middle box", BOX.format("12 x 12 cells in the middle lie higher or lower"),
        boxes((12, 12)), boxes((4, 4), size=6),
    ),
    Task(
        "Moving box", BOX.format("12 x 12 cells anywhere lie higher or lower"),
        boxes((12, 12), moving=True), boxes((4, 4), size=6, moving=True),
    ),
)  # fmt: skip


def quick(task: Task) -> Task:
    """Return the task with small data, a small model, little training and few sequences: to see that it runs."""
    return replace(task, draw=task.small or task.draw, hidden=4, train=64, samples=3, epochs=1)
