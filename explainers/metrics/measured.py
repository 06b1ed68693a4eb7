"""`Measured`: what `measure` found, as labelled arrays, as scores and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...models import InvalidInputError
from ...models.errors import nearest_name
from .scores import Scores

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


@dataclass(frozen=True, eq=False)
class Measured:
    """What `measure` found.

    Attributes:
        dataset: A variable a metric, (explainer, sample), or (explainer, baseline, sample) where it depends on a
            baseline; attrs of each: source, least, most, direction, unit, cannot, options. Of metrics with details also
            "NAME_details", with one dim more: "deletion_details" is the curve, the explained number at each point (a
            sample with fewer parts repeats its last); "randomisation_details" the correlation at each stage. "parts"
            (sample) is how many parts there are, beside "prediction" (sample) and "baseline_prediction" (baseline,
            sample). attrs: parts, seed, seconds, model hash.
    """

    dataset: xr.Dataset

    def __repr__(self) -> str:
        explainers = ", ".join(self.explainers)
        return f"Measured({len(self.metrics)} metrics of {explainers}, {self.dataset.sizes['sample']} samples)"

    @property
    def explainers(self) -> tuple[str, ...]:
        """Names of the explainers."""
        return tuple(str(name) for name in self.dataset["explainer"].to_numpy())

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics."""
        return tuple(str(name) for name, values in self.dataset.data_vars.items() if "direction" in values.attrs)

    @property
    def baselines(self) -> tuple[str, ...]:
        """Names of the baselines; none where no metric depends on one."""
        return tuple(str(name) for name in self.dataset["baseline"].to_numpy()) if "baseline" in self.dataset else ()

    def scores(self, metric: str, explainer: str | None = None, *, baseline: str | None = None) -> Scores:
        """Return the scores of one metric.

        Args:
            metric: Its name.
            explainer: Which; None where there is only one.
            baseline: Which; None: the mean over all, with each in `Scores.each`.
        """
        if metric not in self.metrics:
            raise InvalidInputError(f"metric is {metric!r}; {nearest_name(str(metric), self.metrics)}")
        if explainer is None and len(self.explainers) > 1:
            raise InvalidInputError(f"there are several explainers; name one of {', '.join(self.explainers)}.")
        explainer = self.explainers[0] if explainer is None else explainer
        if explainer not in self.explainers:
            raise InvalidInputError(f"explainer is {explainer!r}; {nearest_name(str(explainer), self.explainers)}")
        found = self.dataset[metric].sel(explainer=explainer)
        each: dict[str, Scores] = {}
        if "baseline" in found.dims:
            each = {name: self._scores(metric, found.sel(baseline=name).to_numpy()) for name in self.baselines}
            if baseline is not None:
                if baseline not in each:
                    raise InvalidInputError(f"baseline is {baseline!r}; {nearest_name(str(baseline), self.baselines)}")
                return each[baseline]
            found = found.mean("baseline")
        return self._scores(metric, found.to_numpy(), each)

    def _scores(self, metric: str, values: NDArray[Any], each: Mapping[str, Scores] | None = None) -> Scores:
        attrs = self.dataset[metric].attrs
        seed = int(self.dataset.attrs["seed"])
        return Scores(metric, attrs["direction"], values.astype(np.float64), str(attrs["cannot"]), seed, each or {})

    def table(self) -> pd.DataFrame:
        """Return one row a metric and explainer: mean over samples (and baselines), its interval, direction and unit.

        Of a single sample the interval is its value.
        """
        import pandas as pd

        rows = []
        for metric in self.metrics:
            for explainer in self.explainers:
                scores = self.scores(metric, explainer)
                low, high = scores.interval or (scores.mean, scores.mean)
                unit = self.dataset[metric].attrs["unit"]
                rows.append((metric, explainer, scores.mean, low, high, scores.direction, unit))
        return pd.DataFrame(rows, columns=["metric", "explainer", "mean", "low", "high", "better", "unit"])
