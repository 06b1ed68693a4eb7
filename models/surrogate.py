"""`SurrogateTree`: a shallow decision tree that imitates a model on named statistics, and says how well it does.

It stands among the models, not the explainers: it gives no contributions of timesteps, but answers of its own, from
numbers a person can check; reports draw it. What the model thinks it tells only as far as the two agree, which is
measured on sequences the tree was not grown on, beside the constant that agrees best.

Sources: Craven & Shavlik 1996, "Extracting Tree-Structured Representations of Trained Networks" (fidelity to the
network, not accuracy on the data); Breiman, Friedman, Olshen & Stone 1984 (the tree, scikit-learn's).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from .data_spec import DataSpec
from .errors import InvalidInputError
from .imitated import Wanted, asked, sequences_of, split
from .labelled import known_task
from .predictor import Predictor
from .segment_statistics import KINDS, Statistic, Values, statistics_of, table_of

FEWEST = 20  # sequences that a tree is grown on


@dataclass(frozen=True)
class Fidelity:
    """How far a surrogate agrees with the model it imitates, on sequences it was not grown on.

    Attributes:
        measure: "accuracy" (share of equal answers) or "R2" (1 - squared error / spread of the model's scores).
        value: Of the tree.
        trivial: Of the best constant answer on the sequences the tree was grown on.
        constant: That answer, in words.
        count: Held-out sequences.
        numbers: What is followed where it is no answer: "scores" or "probabilities".
    """

    measure: str
    value: float
    trivial: float
    constant: str
    count: int
    numbers: str = "scores"

    def __str__(self) -> str:
        if self.measure == "accuracy":
            return (
                f"agrees with the model on {_percent(self.value)} of {self.count} held-out sequences "
                f"(always {self.constant}: {_percent(self.trivial)})"
            )
        return (
            f"follows the model's {self.numbers} on {self.count} held-out sequences with R2 {_signed(self.value)} "
            f"(always {self.constant}: {_signed(self.trivial)})"
        )


@dataclass(frozen=True)
class Node:
    """A place in the tree.

    Attributes:
        number: Its index in `SurrogateTree.nodes`.
        depth: 0 at the root.
        parent: Number of the node above; None at the root.
        condition: What leads here from the node above, in words; "" at the root.
        statistic: What is asked here; None at a leaf.
        threshold: The question's number: up to it `low` follows, above it `high`.
        low, high: Numbers of the nodes below; None at a leaf.
        count: Sequences of the growing set that come here.
        shares: What the model said of them, as a share of each answer; empty for a regression.
        value: The mean of the model's scores of them; NaN for classes.
        answer: What the tree says here, in words.
    """

    number: int
    depth: int
    parent: int | None
    condition: str
    statistic: Statistic | None
    threshold: float
    low: int | None
    high: int | None
    count: int
    shares: tuple[float, ...]
    value: float
    answer: str


class SurrogateTree:
    """A decision tree that imitates a model; make it with `SurrogateTree.fit`.

    Attributes:
        fidelity: How far it agrees with the model.
        nodes: The tree, the root first, each node before those below it.
        statistics: What it may ask.
        answers: Names of what it can say; empty where it imitates a number.
        unit: Of that number; of a probability "%".
    """

    def __init__(self, predictor: Predictor, tree: Any, statistics: tuple[Statistic, ...], wanted: Wanted) -> None:
        self._predictor = predictor
        self._tree = tree
        self._data = predictor.data or DataSpec()
        self._wanted = wanted
        self.statistics = statistics
        self.answers = wanted.answers
        self.unit = wanted.unit
        self.nodes = self._nodes()
        self.fidelity: Fidelity

    @classmethod
    def fit(
        cls,
        model: Any,
        data: Any,
        lengths: Any = None,
        *,
        task: Any = None,
        output: int | str | None = None,
        imitate: Literal["answer", "probability"] = "answer",
        held_out: float | Any = 0.3,
        max_depth: int = 3,
        min_leaf: int = 10,
        statistics: Sequence[str] = tuple(KINDS),
        seed: int = 0,
    ) -> SurrogateTree:
        """Grow a tree on what the model says of some sequences, and measure it on others.

        Args:
            model: `LSTMModel`, any `nn.Module`, a plain function on arrays, or a `Predictor`.
            data: Floats (B, T, D), a `SequenceData` or `Examples` (whose targets play no part: the tree learns the
                model, not the truth). Of a model with one output a timestep the last valid timestep is imitated.
            lengths: (B,) valid timesteps, where `data` does not say.
            task: What a foreign model's scores are; gatelens's own know.
            output: Which output of several (a regression's, or a yes/no question); of classes all are imitated.
            imitate: "answer", or the "probability" of one class (`output`) or of yes: of a model that nearly always
                answers the same, its doubts are all there is to imitate.
            held_out: Share of the sequences that fidelity is measured on, drawn at random; or such sequences, in a
                form that `data` may have. Give them where neighbours overlap, as windows of one recording do.
            max_depth: Most questions before an answer.
            min_leaf: Fewest sequences behind an answer.
            statistics: Which may be asked: "mean", "last", "min", "max", "slope", "std".
            seed: Of drawing, and of ties in the tree.

        Raises:
            InvalidInputError: An option is out of range, there are too few sequences, the model says the same of all,
                or it reads token ids, which have no mean.
        """
        from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

        predictor = model if isinstance(model, Predictor) else Predictor(model, task=task)
        known_task(predictor)
        for name, value in (("max_depth", max_depth), ("min_leaf", min_leaf)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise InvalidInputError(f"{name} is {value!r}; expected a whole number, 1 or more.")
        sequences, scores = asked(predictor, data, lengths, "data")
        grown, measured = split(predictor, sequences, scores, held_out, seed)
        if len(grown[0]) < FEWEST:
            raise InvalidInputError(
                f"a tree would be grown on {len(grown[0])} sequences; expected {FEWEST} or more. Give more data, or a "
                "smaller held_out."
            )
        own = predictor.data or DataSpec()
        named = statistics_of(own, sequences[0].shape[1], statistics)
        wanted = Wanted.of(predictor, scores.shape[1], output, imitate)
        train, test = (wanted.said(part[1]) for part in (grown, measured))
        if (train == train[0]).all():
            raise InvalidInputError(
                f"the model says the same of all {len(train)} sequences the tree would be grown on, so there is "
                "nothing to imitate; give sequences that it tells apart"
                + (", or imitate='probability'." if wanted.answers else ".")
            )
        options = {"max_depth": int(max_depth), "min_samples_leaf": int(min_leaf), "random_state": seed}
        tree = DecisionTreeClassifier(**options) if wanted.answers else DecisionTreeRegressor(**options)
        tree.fit(table_of(named, grown[0], own), train)
        found = cls(predictor, tree, named, wanted)
        said = tree.predict(table_of(named, measured[0], own))
        found.fidelity = _fidelity(train, test, said, wanted)
        return found

    def predict(self, inputs: Any, lengths: Any = None) -> NDArray[Any]:
        """Return what the tree says of sequences, (B,): numbers of classes (of yes/no 0 or 1), or scores."""
        found: NDArray[Any] = self._tree.predict(self.table(inputs, lengths))
        return found

    def table(self, inputs: Any, lengths: Any = None) -> Values:
        """Return the statistics of sequences, (B, statistics), in their own units."""
        return table_of(self.statistics, sequences_of(self._predictor, inputs, lengths, "inputs")[0], self._data)

    def rules(self) -> str:
        """Return the tree in words, a line an answer; of questions about one statistic the narrowest limits."""
        lines = []
        for node in self.nodes:
            if node.statistic is None:
                conditions = [
                    f"{statistic.name} is {_range(limits, statistic.unit)}"
                    for statistic, limits in self._conditions(node).items()
                ]
                when = f"If {' and '.join(conditions)}" if conditions else "Always"
                lines.append(f"{when}: {self._answer(node)}.")
        return "\n".join(lines)

    def explain(self, sample: Any, length: int | None = None) -> str:
        """Return the way of one sequence (T, D) through the tree, in words, beside what the model says of it."""
        given = torch.as_tensor(sample)
        given = given[None] if given.ndim == 2 else given
        if given.ndim != 3 or len(given) != 1:
            raise InvalidInputError(f"sample has shape {tuple(given.shape)}; expected one sequence (time, features).")
        lengths = None if length is None else [length]
        sequences, scores = asked(self._predictor, given, lengths, "sample")
        numbers = table_of(self.statistics, sequences, self._data)[0]
        node = self.nodes[0]
        while node.statistic is not None:
            number = float(np.float32(numbers[self.statistics.index(node.statistic)]))  # as scikit-learn compares
            node = self.nodes[node.low if number <= node.threshold else node.high]  # type: ignore[index]
        steps = [
            f"{statistic.name} is {_number(numbers[self.statistics.index(statistic)], statistic.unit)} "
            f"({_range(limits)})"
            for statistic, limits in self._conditions(node).items()
        ]
        text = f"The tree says {node.answer}, because {'; '.join(steps) or 'it asks nothing'}."
        said = self._wanted.said(scores)[0]
        if not self.answers:
            return f"{text} The model says {_number(said, self.unit)}."
        model_answer = self.answers[int(said)]
        if model_answer == node.answer:
            return f"{text} So does the model, here and of {_percent(max(node.shares))} of all that come this way."
        return f"{text} The model says {model_answer}: on this sequence the rules do not tell what it thinks."

    def __repr__(self) -> str:
        leaves = sum(node.statistic is None for node in self.nodes)
        return f"SurrogateTree({leaves} answers; {self.fidelity})"

    # -- the tree in words -------------------------------------------------------------------------------------------

    def _nodes(self) -> tuple[Node, ...]:
        inner = self._tree.tree_
        found: list[Node] = []
        above: dict[int, tuple[int | None, int, str]] = {0: (None, 0, "")}
        for number in range(inner.node_count):  # depth first: a node comes before those below it
            parent, depth, condition = above[number]
            leaf = inner.children_left[number] == inner.children_right[number]
            statistic = None if leaf else self.statistics[inner.feature[number]]
            threshold = float(inner.threshold[number])
            low, high = (None, None) if leaf else (int(inner.children_left[number]), int(inner.children_right[number]))
            if statistic is not None and low is not None and high is not None:
                for child, side in ((low, "at most"), (high, "above")):
                    words = f"{statistic.name} is {side} {_number(threshold, statistic.unit)}"
                    above[child] = (number, depth + 1, words)
            shares, value, answer = self._said_at(inner.value[number])
            count = int(inner.n_node_samples[number])
            found.append(
                Node(number, depth, parent, condition, statistic, threshold, low, high, count, shares, value, answer)
            )
        return tuple(found)

    def _said_at(self, values: NDArray[np.float64]) -> tuple[tuple[float, ...], float, str]:
        """Return shares, value and answer of a node from scikit-learn's numbers, (1, classes or 1)."""
        if not self.answers:
            value = float(values[0, 0])
            return (), value, _number(value, self.unit)
        weights = values[0] / values[0].sum()
        shares = np.zeros(len(self.answers))
        shares[self._tree.classes_.astype(int)] = weights
        return tuple(map(float, shares)), float("nan"), self.answers[int(shares.argmax())]

    def _conditions(self, node: Node) -> dict[Statistic, dict[str, float]]:
        """Return what leads to a node: for each statistic, first asked first, its limits "above" and "at most"."""
        asked: list[tuple[Statistic, str, float]] = []
        while node.parent is not None:
            parent = self.nodes[node.parent]
            assert parent.statistic is not None
            asked.append((parent.statistic, "at most" if parent.low == node.number else "above", parent.threshold))
            node = parent
        found: dict[Statistic, dict[str, float]] = {}
        for statistic, side, threshold in reversed(asked):  # a later limit lies inside an earlier one
            found.setdefault(statistic, {})[side] = threshold
        return found

    def _answer(self, node: Node) -> str:
        if self.answers:
            return f"{node.answer} ({_percent(max(node.shares))} of {node.count} sequences)"
        return f"about {node.answer} (mean of {node.count} sequences)"


def _fidelity(train: Values, test: Values, said: Values, wanted: Wanted) -> Fidelity:
    answers = wanted.answers
    if answers:
        constant = int(np.bincount(train.astype(int)).argmax())
        same, trivial = float((said == test).mean()), float((test == constant).mean())
        return Fidelity("accuracy", same, trivial, answers[constant], len(test))
    mean, spread = float(train.mean()), float(((test - test.mean()) ** 2).sum())
    if spread == 0:
        raise InvalidInputError(
            "the model says the same of all held-out sequences, so R2 is not defined there; hold out more of them."
        )
    value, trivial = (1 - float(((test - answer) ** 2).sum()) / spread for answer in (said, mean))
    return Fidelity("R2", value, trivial, _number(mean, wanted.unit), len(test), wanted.numbers)


def _range(limits: dict[str, float], unit: str = "") -> str:
    sides = [f"{side} {_number(limits[side])}" for side in ("above", "at most") if side in limits]
    return f"{' and '.join(sides)} {unit}".strip()


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-0.00", "0.00").replace("-", "\N{MINUS SIGN}")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _number(value: float, unit: str = "") -> str:
    """Return a number with three digits, with a real minus sign, and its unit."""
    size = abs(float(value))
    text = f"{size:,.0f}" if size >= 100 else f"{size:.3g}"
    sign = "\N{MINUS SIGN}" if value < 0 and float(text.replace(",", "")) != 0 else ""
    return f"{sign}{text} {unit}".strip()
