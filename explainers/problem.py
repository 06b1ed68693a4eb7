"""What an explainer's mathematics gets and gives: a checked `Problem` in, a `Contribution` out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models import InvalidInputError, Predictor, Target
from .players import Game, PlayerKind, Players
from .segments import Segmentation, change_point_starts

_Item = TypeVar("_Item")


@dataclass(frozen=True, eq=False)
class Contribution:
    """What `_attribute` returns.

    Attributes:
        values: (B, T, D) contributions in units of the explained number.
        resolution: The finest part that `values` tells apart: "cell", or "timestep", "segment", "feature" where the
            contribution of a larger part is shared equally among its cells.
        std_error: (B, T, D) standard errors of sampling, where known.
        gates: (B, layer, T, gate, unit), where the method explains gates; NaN where a layer has fewer units.
        layers: Names of the layers in `gates`.
        diagnostics: Name -> (B,) numbers about each sample's explanation (a surrogate's R^2, steps used).
    """

    values: NDArray[Any] | Tensor
    resolution: PlayerKind = "cell"
    std_error: NDArray[Any] | None = None
    gates: NDArray[Any] | None = None
    layers: tuple[str, ...] = ()
    diagnostics: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Continuous:
    """A problem as gradient methods see it: features, or for token ids what their embedding gives.

    Attributes:
        inputs: Float (B, T, E).
        baseline: Float (B, T, E).
    """

    problem: Problem
    inputs: Tensor
    baseline: Tensor

    def arguments(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Return what `forward` takes beside the inputs for the samples in `rows`: ids, outputs, timesteps, lengths.

        The timesteps are (N,), or of a window its first and last, (N, 2).
        """
        target = self.problem.target
        timestep = target.output if target.timestep is None else target.timestep
        if target.last is not None:
            timestep = torch.stack([timestep, target.last], dim=1)
        return self.problem.inputs[rows], target.output[rows], timestep[rows], self.problem.lengths[rows]

    def forward(self, values: Tensor, ids: Tensor, output: Tensor, timestep: Tensor, lengths: Tensor) -> Tensor:
        """Return the explained numbers (N,) of values (N, T, E), differentiably."""
        known = self.problem.target
        ends = () if known.timestep is None else (timestep,) if known.last is None else timestep.unbind(dim=1)
        target = Target(output, *ends)
        if self.problem.reads_tokens:
            return self.problem.predictor.values_of_embedded(values, ids, target, lengths)
        return self.problem.predictor.values(values, target, lengths)

    def to_input_space(self, attribution: Tensor) -> Tensor:
        """Return attributions (B, T, E) as (B, T, D): of a token, the sum over its embedding."""
        return attribution.sum(dim=2, keepdim=True) if self.problem.reads_tokens else attribution


@dataclass(frozen=True, eq=False)
class Problem:
    """Checked inputs, a resolved target and baseline, and the model to ask.

    Attributes:
        predictor: Calls the model; it is in eval mode with frozen parameters while `_attribute` runs.
        inputs: Float (B, T, D) or token ids, long (B, T); 0 at padding.
        lengths: Long (B,) on the CPU.
        target: The explained output of each sample.
        baseline: Shaped like inputs.
        background: (R, T, D) or (R, T), or None.
        prediction: (B,) the explained number.
        baseline_prediction: (B,) of the baseline, or the mean over the background.
        seed: For everything random; each sample is explained as if it were alone.
        progress: Whether to show a progress bar.
        holds_last: Whether the baseline is "hold_last": `baseline` holds each sequence's first timestep, and what is
            switched off holds the last value before it that is on (see `players.mixture`).
        kept: What `Explainer._predict` kept of the pass that gave the prediction.
        kept_baseline: The same of the baseline's, where one sequence stands for all.
    """

    predictor: Predictor
    inputs: Tensor
    lengths: Tensor
    target: Target
    baseline: Tensor
    background: Tensor | None
    prediction: NDArray[np.float64]
    baseline_prediction: NDArray[np.float64]
    seed: int
    progress: bool
    holds_last: bool = False
    kept: Any = None
    kept_baseline: Any = None

    @property
    def reads_tokens(self) -> bool:
        """Whether inputs are token ids."""
        return self.inputs.ndim == 2

    @property
    def features(self) -> int:
        """D; 1 for tokens."""
        return 1 if self.reads_tokens else self.inputs.shape[2]

    def references(self, sample: int) -> Tensor:
        """Return what stands for "absent" in a sample: (R, T, D) or (R, T); one row without a background."""
        return self.baseline[sample][None] if self.background is None else self.background

    def evaluate(self, inputs: Tensor, sample: int) -> NDArray[np.float64]:
        """Return the explained numbers (N,) of variations (N, L, D) of a sample, without gradients."""
        count = inputs.shape[0]
        rows = torch.full((count,), sample)
        lengths = torch.full((count,), inputs.shape[1])
        result = self.predictor.evaluate(inputs, self.target.rows(rows), lengths)
        return result.double().cpu().numpy()

    def variations(self, inputs: Tensor, sample: int) -> Problem:
        """Return the problem of explaining variations (N, L, D) of a sample, each for the sample's target."""
        count, length = inputs.shape[:2]
        rows = torch.full((count,), sample)
        return replace(
            self,
            inputs=inputs,
            lengths=torch.full((count,), length),
            target=self.target.rows(rows),
            baseline=self.baseline[sample, :length].expand(inputs.shape),
            background=None if self.background is None else self.background[:, :length],
            prediction=self.evaluate(inputs, sample),
            baseline_prediction=self.baseline_prediction[rows.numpy()],
            progress=False,
            kept=None,
            kept_baseline=None,
        )

    def continuous(self) -> Continuous:
        """Return the problem as gradient methods see it."""
        if not self.reads_tokens:
            return Continuous(self, self.inputs, self.baseline)
        embedding = self.predictor.embedding()
        with torch.no_grad():
            return Continuous(self, embedding(self.inputs), embedding(self.baseline))

    def game(
        self, sample: int, kind: PlayerKind, *, segments: int, segmentation: Segmentation = "uniform", merged: int = 0
    ) -> Game:
        """Return the coalition game of one sample, its first `merged` timesteps one player."""
        length = int(self.lengths[sample])
        starts = None
        if kind == "segment" and segmentation == "change_point":
            if self.reads_tokens:
                raise InvalidInputError(
                    "segmentation='change_point' has no meaning for token ids, which have no level; use 'uniform'."
                )
            starts = change_point_starts(self.inputs[sample, merged:length].double().cpu().numpy(), segments)
        players = Players.make(kind, length, self.features, segments=segments, starts=starts, merged=merged)
        return Game(self, sample, players)

    def track(self, items: Iterable[_Item], total: int, title: str) -> Iterator[_Item]:
        """Yield the items, with a progress bar on standard error where the user asked for one."""
        if not self.progress:
            yield from items
            return
        from rich.console import Console
        from rich.progress import track

        console = Console(stderr=True)
        shown = {"console": console, "transient": True, "disable": not console.is_terminal}
        yield from track(items, description=title, total=total, **shown)  # type: ignore[arg-type]
