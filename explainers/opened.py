"""What the exact methods share: they open an `LSTMModel`, and any module that can be rewritten as one.

A method of this kind computes its contributions from every gate of a pass, so it must know the whole computation from
the input to the score, not only the LSTM. That is `LSTMModel`: (embedding ->) LSTM layers -> pooling -> linear head.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models import GatelensError, LSTMModel, ModelError, Predictor, Target, from_torch
from ..models.inputs import clear_padding
from ..models.opened import OpenedRun, every_score, is_plain, open_run, scores_of
from .base import Explainer, Needs
from .problem import Contribution, Problem


@dataclass(frozen=True, eq=False)
class Part:
    """Some samples of a problem, as the model's lowest layer reads them.

    Attributes:
        rows: Long (b,), which samples.
        values: Features (b, T, D), or embedded tokens (b, T, E).
        baseline: Shaped like values.
        lengths: Long (b,) on the CPU.
        target: What is explained of each sample.
    """

    rows: Tensor
    values: Tensor
    baseline: Tensor
    lengths: Tensor
    target: Target

    @property
    def places(self) -> tuple[Tensor, Tensor] | None:
        """The sample (in this part) and the timestep of each score that is explained, long (N,) each.

        None where a score is of the whole sequence. Scores of a window, which are summed, are several of a sample.
        """
        return None if self.target.timestep is None else self.target.places()


class OpenedExplainer(Explainer):
    """An explainer that opens the model; a subclass writes `_explain_part`.

    Args:
        model: `LSTMModel`, or a module that `from_torch` can rewrite as one (it is, and the numbers are compared).
        options: `baseline`, `background`, `output`, `task`, `seed` of `Explainer`.
    """

    needs: ClassVar[Needs] = "lstm"

    def __init__(self, model: Any, **options: Any) -> None:
        super().__init__(model, **options)
        self._model = reference_model(self.predictor, self.name)

    def _predict(self, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, OpenedRun | None]:
        """Return scores, and the pass that gave them, opened, where it is the model's own and fits the budget."""
        opened = None
        if self._model is self.predictor.model:
            opened = predict_opened(self.predictor, inputs, lengths)
        return super()._predict(inputs, lengths) if opened is None else opened

    def _attribute(self, problem: Problem) -> Contribution:
        continuous = problem.continuous()
        values = torch.zeros(continuous.inputs.shape, dtype=torch.float64)  # (B, T, D or E)
        diagnostics: dict[str, NDArray[Any]] = {}
        batch = len(problem.inputs)
        size = _rows(problem.predictor, problem.inputs)
        for rows in problem.track(torch.arange(batch).split(size), -(-batch // size), self.name):
            for baseline in self._baselines(problem, continuous.baseline, rows):
                part = _part(problem, continuous.inputs, baseline, rows)
                found, numbers = self._explain_part(problem, part)
                values[rows] += found.double().cpu()
                for name, number in numbers.items():
                    diagnostics.setdefault(name, np.zeros(batch))[rows.numpy()] += number
        count = 1 if problem.background is None else len(problem.background)
        return Contribution(
            continuous.to_input_space(values / count),
            diagnostics={name: number / count for name, number in diagnostics.items()},
        )

    @abstractmethod
    def _explain_part(self, problem: Problem, part: Part) -> tuple[Tensor, dict[str, NDArray[np.float64]]]:
        """Return contributions (b, T, D or E), and numbers (b,) about them, of some samples."""

    def _open(self, problem: Problem, part: Part) -> OpenedRun:
        """Return the pass over some samples, opened; refuse a model whose own forward pass gives other scores."""
        kept = problem.kept
        if isinstance(kept, OpenedRun) and kept.hidden.shape[1] == part.values.shape[1]:  # not a part that was trimmed
            return kept
        run = open_run(self._model, part.values, part.lengths)
        problem.predictor.forward_evaluations += len(part.rows)
        found = self._explained(run, part)
        expected = problem.prediction[part.rows.numpy()]
        off = np.abs(found.double().cpu().numpy() - expected).max()
        if off > 1e-3 * max(1.0, float(np.abs(expected).max())):
            raise ModelError(
                f"{self.name} computes scores from the model's weights, and they are off by up to {off:.2g} from those "
                "the model gives: its forward pass does something else. Explainers that take any module: "
                "integrated_gradients, gradient_shap, kernel_shap, lime."
            )
        return run

    def _explained(self, run: OpenedRun, part: Part) -> Tensor:
        """Return the explained number of each sample of a pass, (b,)."""
        places = part.places
        numbers = self.predictor.activate(scores_of(run, places))  # (b, K), or of places (N, K)
        if places is None:
            return part.target.select(numbers)
        return summed(Target(part.target.output[places[0]]).select(numbers), places, run)

    @staticmethod
    def _baselines(problem: Problem, baseline: Tensor, rows: Tensor) -> Iterator[Tensor]:
        """Yield what the samples are compared with, (b, T, D or E): the baseline, or each of the background."""
        if problem.background is None:
            yield baseline[rows]
            return
        lengths = problem.lengths[rows]
        for reference in problem.background:
            one = clear_padding(reference.expand(len(rows), *reference.shape).contiguous(), lengths)
            yield problem.predictor.embedding()(one) if problem.reads_tokens else one


def predict_opened(predictor: Predictor, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, OpenedRun] | None:
    """Return the scores (B, K) or (B, T, K) of an `LSTMModel`, and the pass that gave them, opened.

    None where the model is no plain one, where the pass does not fit the budget, or where scores are not finite.
    """
    model = predictor.model
    if not isinstance(model, LSTMModel) or not is_plain(model) or len(inputs) > _rows(predictor, inputs):
        return None
    with predictor.evaluation(), torch.no_grad():
        run = open_run(model, inputs if model.embedding is None else model.embedding(inputs), lengths)
        scores = every_score(run)
    if not torch.isfinite(scores).all():
        return None
    predictor.forward_evaluations += len(inputs)
    return scores, run


def _rows(predictor: Predictor, inputs: Tensor) -> int:
    """Return how many samples are opened at once."""
    return predictor.batch_rows(inputs, copies=3)


def _part(problem: Problem, values: Tensor, baseline: Tensor, rows: Tensor) -> Part:
    return Part(rows, values[rows], baseline, problem.lengths[rows], problem.target.rows(rows))


def summed(numbers: Tensor, places: tuple[Tensor, Tensor], run: OpenedRun) -> Tensor:
    """Return the sum for each sample of a run, (b,), of the numbers (N,) of its places."""
    found = numbers.new_zeros(run.hidden.shape[:2])  # (b, T)
    found[places] = numbers
    return found.sum(dim=1)


def reference_model(predictor: Predictor, name: str) -> LSTMModel:
    """Return the predictor's model as an `LSTMModel` in its own type and place.

    Raises:
        ModelError: It is not one, and cannot be rewritten as one that gives the same scores.
    """
    model = predictor.model
    if isinstance(model, LSTMModel):
        return model
    others = "Explainers that take any module: integrated_gradients, gradient_shap, kernel_shap, lime."
    if predictor.module is None:
        raise ModelError(f"{name} needs an LSTMModel, and the model is a plain function. {others}")
    try:
        adopted = from_torch(predictor.module, task=predictor.task)
    except GatelensError as error:
        raise ModelError(
            f"{name} needs a model that can be rewritten as an LSTMModel (embedding, LSTM layers, pooling, one linear "
            f"layer), and this one cannot: {error} {others}"
        ) from None
    told = adopted.data.provenance["adopted"]["left_out"] if adopted.data else ()
    if any("gatelens explains the logit" in sentence for sentence in told):
        raise ModelError(
            f"{name} explains scores before a sigmoid or softmax, and this module ends in one. Pass "
            f"from_torch(module) instead of the module, with output='probability' if you want probabilities. {others}"
        )
    return adopted.to(device=predictor.device, dtype=predictor.dtype).requires_grad_(requires_grad=False)
