"""Temporal saliency rescaling: which timesteps move another explainer's map, then which features at those timesteps.

Source: Ismail, Gunady, Corrada Bravo & Feizi 2020, "Benchmarking Deep Learning Interpretability in Time Series
Predictions", algorithm 1; the threshold as a quantile is from the authors' own code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models import GatelensError, InvalidInputError, InvalidTypeError
from .base import Completeness, Explainer
from .players import mixture
from .problem import Contribution, Problem


class TemporalSaliencyRescaling(Explainer):
    """Relevance of a cell's timestep times relevance of its feature there, by what masking does to another's map.

    With R(x) the map (L, D) that `method` makes of a sequence, a timestep's relevance is the sum of |R(x) - R(x')| over
    all cells, where x' has the whole timestep masked by the baseline (with "zero", as in the paper); the relevance of
    a feature at that timestep is the same with only that one cell masked. Timesteps below the threshold get 0.
    Importances are 0 or more and in squared units of the map: they rank cells, and say nothing of direction or size.

    A map of timesteps (or features) alone is compared as such, before any sharing among the cells.

    Costs 1 + L + r D maps of a sample, r of its L timesteps being at or above the threshold, each the map of one
    sequence and one evaluation more (token ids, D = 1: 1 + L).

    Args:
        model: What `method` needs.
        method: Name or class of the explainer whose maps are compared.
        method_options: Its own options, e.g. {"steps": 20}; baseline, output, task and seed are those given here.
        threshold: Quantile of the sample's own timestep relevances, 0 to below 1; timesteps below it are left out. 0
            looks at the features of all timesteps.
        options: `baseline`, `output`, `task`, `seed` of `Explainer`.

    The result carries `maps`, the maps made for each sample.
    """

    name = "temporal_saliency_rescaling"
    measures = "sensitivity"
    summary = "how masking a timestep, then a feature in it, changes another explainer's map"
    completeness = "none"
    dummy_player = missingness = "exact"  # masking it leaves the map as it is
    needs = "gradient"  # of the default method; an instance needs what its own method needs
    source = "Ismail et al. 2020"

    def __init__(
        self,
        model: Any,
        *,
        method: str | type[Explainer] = "saliency",
        method_options: Mapping[str, Any] | None = None,
        threshold: float = 0.55,
        **options: Any,
    ) -> None:
        wrapped = _wrapped_class(method)
        vars(self).update(needs=wrapped.needs, library=wrapped.library)
        super().__init__(model, **options)
        if isinstance(threshold, bool) or not (isinstance(threshold, (int, float)) and 0 <= threshold < 1):
            raise InvalidInputError(f"threshold is {threshold!r}; expected a quantile, 0 to below 1.")
        self.threshold = threshold
        given = dict(method_options or {})
        for name in ("baseline", "background", "seed"):
            if name in given:
                raise InvalidInputError(
                    f"method_options holds {name!r}; give baseline and seed beside them. A background set is not taken."
                )
        try:
            self._wrapped = wrapped(self.predictor, seed=self.seed, **given)  # the baseline is the problem's
        except TypeError as error:
            if isinstance(error, GatelensError):
                raise
            raise InvalidTypeError(f"method_options do not fit {wrapped.name}: {error}.") from None

    @property
    def symmetry(self) -> Completeness:  # type: ignore[override]
        """Maps that treat players alike change alike."""
        return self._wrapped.symmetry

    def options(self) -> dict[str, Any]:
        """Return the options of the method, and those of the explainer in it."""
        wrapped = self._wrapped
        return {"method": wrapped.name, "method_options": wrapped.options(), "threshold": self.threshold}

    def _attribute(self, problem: Problem) -> Contribution:
        batch = len(problem.lengths)
        values = np.zeros((batch, problem.inputs.shape[1], problem.features))
        made = np.zeros(batch)
        for sample in problem.track(range(batch), batch, self.name):
            length = int(problem.lengths[sample])
            values[sample, :length], made[sample] = self._rescaled(problem, sample, length)
        return Contribution(values, diagnostics={"maps": made})

    def _rescaled(self, problem: Problem, sample: int, length: int) -> tuple[NDArray[np.float64], int]:
        """Return the importance (L, D) of one sample's cells, and how many maps it took."""
        features = problem.features
        original = self._maps(problem, sample, problem.inputs[sample : sample + 1, :length])  # (1, L, D) or coarser
        of_time = self._relevance(problem, sample, original, torch.arange(length), None)  # (L,)
        relevant = np.flatnonzero(of_time >= np.quantile(of_time, self.threshold))  # (r,)
        importance = np.zeros((length, features))
        if features == 1:  # masking the feature is masking the timestep
            importance[relevant, 0] = of_time[relevant] ** 2
            return importance, 1 + length
        time = torch.as_tensor(relevant).repeat_interleave(features)  # (r D,)
        feature = torch.arange(features).repeat(len(relevant))  # (r D,)
        of_feature = self._relevance(problem, sample, original, time, feature).reshape(-1, features)
        importance[relevant] = of_time[relevant, None] * of_feature
        return importance, 1 + length + len(time)

    def _relevance(
        self, problem: Problem, sample: int, original: NDArray[np.float64], time: Tensor, feature: Tensor | None
    ) -> NDArray[np.float64]:
        """Return (N,): how far the map moves when a timestep (N,), or one feature (N,) of it, is masked."""
        length = int(problem.lengths[sample])
        inputs, reference = problem.inputs[sample, :length], problem.baseline[sample, :length]  # (L, D) or (L,)
        found = []
        for part in torch.arange(len(time)).split(problem.predictor.batch_rows(inputs[None], copies=3)):
            on = torch.ones(len(part), *inputs.shape, dtype=torch.bool, device=inputs.device)  # (N, L, D) or (N, L)
            rows = torch.arange(len(part))
            on[(rows, time[part]) if feature is None else (rows, time[part], feature[part])] = False
            masked = mixture(inputs, reference, on, holds_last=problem.holds_last)
            found.append(np.abs(original - self._maps(problem, sample, masked)).sum(axis=(1, 2)))
        return np.concatenate(found)

    def _maps(self, problem: Problem, sample: int, inputs: Tensor) -> NDArray[np.float64]:
        """Return the maps of variations of one sample: (N, L, D), (N, L, 1) of timesteps or (N, 1, D) of features.

        What a method shares among the cells of a player is added up again: masking changes who shares.
        """
        variations = problem.variations(inputs, sample)
        contribution = self._wrapped._attribute(variations)  # noqa: SLF001 - explain() would check and label each map
        maps = self._wrapped._checked_values(contribution, variations).astype(np.float64)  # noqa: SLF001
        if contribution.resolution == "segment":
            raise InvalidInputError(
                f"{self.name} masks single timesteps, and {self._wrapped.name} is asked for players='segment': "
                "its map is of segments. Use method_options={'players': 'cell'} or 'timestep'."
            )
        over = {"cell": (), "timestep": (2,), "feature": (1,)}[contribution.resolution]
        found: NDArray[np.float64] = maps.sum(axis=over, keepdims=True)
        return found


def _wrapped_class(method: Any) -> type[Explainer]:
    from .registry import get

    if isinstance(method, str):
        method = get(method)
    if not (isinstance(method, type) and issubclass(method, Explainer)) or method is TemporalSaliencyRescaling:
        raise InvalidTypeError(f"method is {method!r}; expected the name or the class of another explainer.")
    return method
