"""`Explainer`, the interface of every method: the base checks, times and counts; a subclass does the mathematics."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models import InvalidInputError, InvalidTypeError, ModelError, Predictor, SequenceData
from ..models.config import Task
from ..models.inputs import clear_padding, valid_mask
from ..models.predictor import Output
from ..models.state import kept_buffers, seeded
from ..models.trace import to_numpy
from .assemble import build_attribution
from .attribution import Attribution
from .baselines import resolve_background, resolve_baseline
from .players import Game, PlayerKind
from .problem import Contribution, Problem
from .segments import Segmentation

Completeness = Literal["exact", "converges", "none"]
Measures = Literal["contribution", "sensitivity"]
Needs = Literal["function", "gradient", "lstm", "attention", "retain"]


class Explainer(ABC):
    """Explains predictions of one model; holds the model and its options, nothing else.

    A subclass sets `name`, `summary` and what it promises, takes its own options, passes the rest to this
    constructor, and writes `_attribute`.

    Args:
        model: `LSTMModel`, any `nn.Module`, a plain function on arrays (black-box methods), or a `Predictor`.
        baseline: The reference input the attribution is relative to (see `resolve_baseline`).
        background: A set of reference sequences (R, T, D) instead, for the methods that average over one.
        output: "logit": explain the raw score; "probability": its softmax or sigmoid.
        task: What a foreign model's scores are, where that matters.
        seed: For everything random.

    Attributes:
        completeness: What the method promises about f(x) - f(baseline) = sum of attributions: "exact" (up to
            rounding), "converges" (with more steps or samples), "none".
        dummy_player: The same about a player (timestep, segment, feature or cell) that the model does not read: it gets
            nothing. The one promise made unless it is taken back; the others are "none" unless made.
        missingness: The same about a player whose input is the baseline's: it gets nothing.
        symmetry: The same about players that the model computes with in the same way and that hold the same, as does
            the baseline: they get the same.
        linearity: The same about a weighted sum of outputs: its attributions are that sum of the outputs' own.
        measures: "contribution" to the explained number, or "sensitivity": how much a part could matter, or was looked
            at, which need not agree with contributions.
        needs: What it asks of the model: "function" (nothing), "gradient" (a torch module), "lstm" (one with nn.LSTM),
            "attention" (an `LSTMModel` that pools by attention), "retain" (a `RETAIN`).
        concurrent: Whether copies of it may explain at once in threads of one process: it leaves alone what a process
            has once, such as numpy's and torch's global generators, numbers of threads, and warning filters.
        unit_sums: Whether of gates' attributions the sum over a layer's units is all that is kept. A method that has
            them may then return (B, layer, T, gate, 1), and spare the rest.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    completeness: ClassVar[Completeness] = "none"
    dummy_player: ClassVar[Completeness] = "converges"
    missingness: ClassVar[Completeness] = "none"
    symmetry: ClassVar[Completeness] = "none"
    linearity: ClassVar[Completeness] = "none"
    needs: ClassVar[Needs] = "function"
    measures: ClassVar[Measures] = "contribution"
    library: ClassVar[str | None] = None
    source: ClassVar[str] = ""
    takes_background: ClassVar[bool] = False
    concurrent: ClassVar[bool] = False
    unit_sums: bool = False

    def __init__(
        self,
        model: Any,
        *,
        baseline: Any = "zero",
        background: Any = None,
        output: Output = "logit",
        task: Task | None = None,
        seed: int = 0,
    ) -> None:
        self.predictor = as_predictor(model, output=output, task=task)
        if background is not None and not self.takes_background:
            raise InvalidInputError(
                f"{self.name} compares with one baseline, not with a background set; pass baseline=, or use "
                "gradient_shap or kernel_shap."
            )
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**32:
            raise InvalidInputError(f"seed is {seed!r}; expected a whole number, 0 to {2**32 - 1}.")
        if self.needs != "function" and self.predictor.module is None:
            raise ModelError(
                f"{self.name} needs a torch module, and the model is a plain function. "
                "Explainers that work on functions: lime, kernel_shap."
            )
        self.baseline = baseline
        self.background = background
        self.seed = int(seed)

    def options(self) -> dict[str, Any]:
        """Return the options of the method, for the record."""
        hidden = ("predictor", "baseline", "background", "seed", "unit_sums")
        return {name: value for name, value in vars(self).items() if name not in hidden and not name.startswith("_")}

    @abstractmethod
    def _attribute(self, problem: Problem) -> Contribution:
        """Return the contribution of every cell; all checks are done before and after."""

    def explain(
        self,
        inputs: Any,
        *,
        target: Any = None,
        lengths: Any = None,
        progress: bool = False,
        sample_names: Any = None,
        times: Any = None,
    ) -> Attribution:
        """Explain a batch of predictions.

        Args:
            inputs: Float (B, T, D), token ids, long (B, T), or a `SequenceData` (which brings lengths, names, times).
            target: None: the predicted class, or output 0 of a single-output model; an int or a class's name; (B,)
                ints; (timestep, output) for per-timestep outputs, or (slice(start, stop), output) for the sum over
                these timesteps of that output (see `resolve_target`).
            lengths: Long (B,), valid timesteps; padding is at the end and gets 0.
            progress: Show a progress bar on standard error.
            sample_names: (B,) names, for reports.
            times: (B, T) datetimes, for reports.

        Returns:
            The `Attribution`.

        Raises:
            InvalidInputError, InvalidTypeError: Something about the inputs, target or options cannot be used.
            ModelError: The model raised, or cannot be explained by this method.
        """
        # a forward pass may count in buffers or draw random numbers (dropout that is always on); both are put back
        with (
            torch.inference_mode(False),
            seeded(self.seed),
            kept_buffers(self.predictor.module),
            self.predictor.evaluation(),
        ):
            inputs, lengths, sample_names, times = unpacked(inputs, lengths, sample_names, times)
            return self._explain(inputs, target, lengths, progress, sample_names, times)

    def _explain(
        self, inputs: Any, target: Any, lengths: Any, progress: bool, sample_names: Any, times: Any
    ) -> Attribution:
        started = time.perf_counter()
        predictor = self.predictor
        model_id = predictor.model_id()  # before a forward pass counts in a buffer
        before = predictor.forward_evaluations, predictor.backward_evaluations
        checked, lengths = predictor.check(inputs, lengths)
        baseline = resolve_baseline(self.baseline, checked, lengths, predictor)
        background = None if self.background is None else resolve_background(self.background, checked)
        scores, kept = self._predict(checked, lengths)
        resolved = predictor.resolve_target_of(scores, checked, target, lengths)
        baseline_prediction, kept_baseline = self._predict_baseline(checked, lengths, resolved, baseline, background)
        problem = Problem(
            predictor=predictor,
            inputs=checked,
            lengths=lengths,
            target=resolved,
            baseline=baseline,
            background=background,
            prediction=_array(resolved.select(_activated(predictor, scores))),
            baseline_prediction=baseline_prediction,
            seed=self.seed,
            progress=progress,
            holds_last=background is None and isinstance(self.baseline, str) and self.baseline == "hold_last",
            kept=kept,
            kept_baseline=kept_baseline,
        )
        contribution = self._attribute(problem)
        values = self._checked_values(contribution, problem)
        return build_attribution(
            explainer=self,
            model_id=model_id,
            problem=problem,
            contribution=contribution,
            values=values,
            scores=_array(resolved.at_timestep(scores)),
            seconds=time.perf_counter() - started,
            evaluations=(predictor.forward_evaluations - before[0], predictor.backward_evaluations - before[1]),
            sample_names=sample_names,
            times=times,
        )

    def _predict(self, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, Any]:
        """Return the model's scores, (B, K) or (B, T, K), and what the method keeps of the pass (see `Problem`).

        Args:
            inputs: Checked, with padding cleared.
            lengths: Long (B,).
        """
        return self.predictor.predict(inputs, lengths), None

    def _predict_baseline(
        self, inputs: Tensor, lengths: Tensor, target: Any, baseline: Tensor, background: Tensor | None
    ) -> tuple[NDArray[np.float64], Any]:
        """Return (B,), the explained number of the baseline, or its mean over the background; and what `_predict` kept.

        That is of one sequence, where one baseline stands for all; else nothing.
        """
        if background is None:
            if bool((lengths == lengths[0]).all()) and bool((baseline == baseline[:1]).all()):
                scores, kept = self._predict(baseline[:1], lengths[:1])
                every = scores.expand(len(lengths), *scores.shape[1:])
                return _array(target.select(_activated(self.predictor, every))), kept
            return _array(self.predictor.evaluate(baseline, target, lengths)), None
        total = np.zeros(len(lengths))
        for reference in background:
            rows = clear_padding(reference.expand(inputs.shape), lengths)
            total += _array(self.predictor.evaluate(rows, target, lengths))
        return total / len(background), None

    def _checked_values(self, contribution: Contribution, problem: Problem) -> NDArray[Any]:
        values = contribution.values
        array = to_numpy(values) if isinstance(values, Tensor) else np.asarray(values)
        batch, steps = problem.inputs.shape[:2]
        expected = (batch, steps, problem.features)
        if array.shape != expected:
            raise InvalidTypeError(f"{type(self).__name__}._attribute gave shape {array.shape}; expected {expected}.")
        if not np.isfinite(array).all():
            raise ModelError(
                f"{self.name} gave {int((~np.isfinite(array)).sum())} attributions that are NaN or infinite; "
                "something overflows in the model here. Scale the inputs, or try another explainer."
            )
        valid = valid_mask(problem.lengths, steps).numpy()
        return np.where(valid[..., None], array, 0).astype(array.dtype)


class PlayerExplainer(Explainer):
    """An explainer that switches players on and off, one sample at a time; a subclass writes `_solve`.

    Args:
        players: "timestep", "segment", "feature" or "cell".
        segments: Number of segments, with players="segment"; the most there may be where change points are sought.
        segmentation: "uniform" (segments of equal length), or "change_point" (cut where the sequence's level changes
            most, see `segments.change_point_starts`).
    """

    def __init__(
        self,
        model: Any,
        *,
        players: PlayerKind = "timestep",
        segments: int = 10,
        segmentation: Segmentation = "uniform",
        **options: Any,
    ) -> None:
        from .players import check_player_kind
        from .segments import check_segmentation

        super().__init__(model, **options)
        check_player_kind(players)
        check_positive("segments", segments)
        check_segmentation(segmentation)
        self.players: PlayerKind = players
        self.segments = segments
        self.segmentation: Segmentation = segmentation

    def _attribute(self, problem: Problem) -> Contribution:
        batch, steps = problem.inputs.shape[:2]
        values = np.zeros((batch, steps, problem.features))
        diagnostics: dict[str, NDArray[Any]] = {}
        for sample in problem.track(range(batch), batch, self.name):
            game = self._game(problem, sample)
            contributions, numbers = self._solve(game)
            values[sample] = game.spread(contributions)
            for name, number in numbers.items():
                diagnostics.setdefault(name, np.zeros(batch))[sample] = number
        return Contribution(values, resolution=self._resolution(problem), diagnostics=diagnostics)

    def _game(self, problem: Problem, sample: int) -> Game:
        """Return the game of one sample."""
        if problem.reads_tokens and self.players == "feature":
            raise InvalidInputError("players='feature' has no meaning for token ids; use 'timestep' or 'segment'.")
        return problem.game(sample, self.players, segments=self.segments, segmentation=self.segmentation)

    def _resolution(self, problem: Problem) -> PlayerKind:
        """Return the finest part that the players tell apart."""
        return "timestep" if problem.reads_tokens and self.players == "cell" else self.players

    @abstractmethod
    def _solve(self, game: Any) -> tuple[NDArray[np.float64], dict[str, float]]:
        """Return the players' contributions (n,) and numbers about the solution."""


def as_predictor(model: Any, *, output: Output, task: Task | None) -> Predictor:
    """Return the model as a `Predictor`; one that is given decides about output and task itself."""
    if not isinstance(model, Predictor):
        return Predictor(model, output=output, task=task)
    if output not in ("logit", model.output) or task not in (None, model.task):
        raise InvalidInputError(
            f"output={output!r}, task={task!r} stand beside a Predictor with output={model.output!r}, "
            f"task={model.task!r}, which decides; say it there: Predictor(model, output={output!r}, task={task!r})."
        )
    return model


def unpacked(inputs: Any, lengths: Any, sample_names: Any, times: Any) -> tuple[Any, Any, Any, Any]:
    """Return the four, a `SequenceData` in place of inputs filling in what was not given."""
    if not isinstance(inputs, SequenceData):
        return inputs, lengths, sample_names, times
    return (
        inputs.inputs,
        inputs.lengths if lengths is None else lengths,
        inputs.sample_names if sample_names is None else sample_names,
        inputs.times if times is None else times,
    )


def check_positive(name: str, value: Any, *, least: int = 1) -> None:
    """Refuse an option that is not a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise InvalidInputError(f"{name} is {value!r}; expected a whole number, {least} or more.")


@torch.no_grad()
def _activated(predictor: Predictor, scores: Tensor) -> Tensor:
    return predictor.activate(scores)


def _array(values: Tensor) -> NDArray[np.float64]:
    return values.detach().double().cpu().numpy()
