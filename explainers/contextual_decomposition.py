"""Contextual decomposition: what a phrase gives to the score by itself, in the context of the rest.

Murdoch, Liu & Yu 2018, "Beyond word importance: contextual decomposition to extract interactions from LSTMs".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models import InvalidInputError, InvalidTypeError
from ..models.errors import nearest_name
from ..models.inputs import valid_mask
from ..models.opened import OpenedRun
from ..models.state import kept_buffers, seeded
from .base import check_positive, unpacked
from .cell_decomposition import check_pooling
from .opened import Part
from .phrases import relevant_parts
from .players import PlayerKind, Players, check_player_kind
from .problem import Contribution, Problem
from .raw_score import RawScoreExplainer, trimmed

BLOCK_NUMBERS = 2**22  # relevant hidden states of one layer that phrases worked on together may take

Span = tuple[int, int]


class ContextualDecomposition(RawScoreExplainer):
    """Contextual decomposition: score = relevant + irrelevant + head's bias, for any phrase.

    A timestep's attribution is the relevant part of the phrase that it alone is. The parts of all timesteps do not
    sum to the score: what two of them do together is relevant for neither. `decompose` and `interaction` take
    any span of timesteps, or some features of it.

    The paper has one layer that reads forward, the last hidden state and a linear head. Here, by the same equations:
    a stacked layer reads the relevant and the irrelevant part of the layer below as its input; each direction of a
    bidirectional layer is decomposed in its own reading order, and stands beside the other; pooling "mean" and "none"
    are linear. Of a phrase that holds only some features of a timestep, the product of biases made there is irrelevant
    (it belongs to the whole timestep), so features without weights get 0.

    Args:
        model: `LSTMModel` with pooling "last", "mean" or "none", or a module that `from_torch` can rewrite as one.
        players: What the attribution's phrases are: "timestep", "segment", "feature" or "cell".
        segments: Number of segments, with players="segment".
        options: `task`, `seed` of `Explainer`; `baseline` changes only what the result is shown beside.

    Raises:
        InvalidInputError: An option is unknown, or output="probability", which has no rule here.
        ModelError: The model pools by maximum or attention.
    """

    name = "contextual_decomposition"
    summary = "what each part of the sequence gives to the score by itself, in the context of the rest"
    dummy_player = symmetry = linearity = "exact"
    concurrent = True
    source = "Murdoch, Liu & Yu 2018"

    def __init__(self, model: Any, *, players: PlayerKind = "timestep", segments: int = 10, **options: Any) -> None:
        super().__init__(model, **options)
        check_player_kind(players)
        check_positive("segments", segments)
        check_pooling(self.name, self._model.config.pooling)
        self.players: PlayerKind = players
        self.segments = segments

    def _attribute(self, problem: Problem) -> Contribution:
        if problem.reads_tokens and self.players == "feature":
            raise InvalidInputError("players='feature' has no meaning for token ids; use 'timestep' or 'segment'.")
        resolution: PlayerKind = "timestep" if problem.reads_tokens and self.players == "cell" else self.players
        return replace(super()._attribute(problem), resolution=resolution)

    def _take_apart(self, problem: Problem, part: Part) -> tuple[Tensor, dict[str, NDArray[np.float64]]]:
        steps, features = part.values.shape[1], problem.features
        labels = torch.full((len(part.rows), steps, features), -1)  # the player of each cell; -1 at padding
        for row, length in enumerate(part.lengths.tolist()):
            players = Players.make(self.players, length, features, segments=self.segments)
            labels[row, :length] = torch.tensor(players.labels)
        count = int(labels.max()) + 1
        run = self._open(problem, part)
        found = self._relevant(run, part, count, lambda players: labels == players[:, None, None, None])  # (P, b)
        members = labels.clamp(min=0).flatten(1)  # (b, T D)
        sizes = torch.zeros(len(labels), count).scatter_add_(1, members, (labels >= 0).flatten(1).float())
        shared = found.T.double().cpu() / sizes.clamp(min=1)  # (b, P), of each of a player's cells
        values = torch.where(labels >= 0, shared.gather(1, members).view(labels.shape), 0)  # (b, T, D)
        if problem.reads_tokens:
            width = part.values.shape[2]
            values = values.expand(-1, -1, width) / width
        return values, {}

    def decompose(
        self,
        inputs: Any,
        start: Any,
        stop: Any,
        *,
        features: Sequence[int | str] | None = None,
        target: Any = None,
        lengths: Any = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return what a phrase gives to the score, and what the rest gives: relevant (B,), irrelevant (B,).

        relevant + irrelevant = score - bias of the head, exactly (of a window, once for each of its timesteps).

        Args:
            inputs: What `explain` takes.
            start: The phrase's first timestep, from 0; an int, or (B,) ints.
            stop: The timestep after its last one; an int, or (B,) ints. Padding in between does not count.
            features: The features of these timesteps that are the phrase, by number or name; None: all.
            target: See `Explainer.explain`.
            lengths: Long (B,) or None.

        Raises:
            InvalidInputError: The span or a feature is not in the inputs, or something else `explain` would refuse.
        """

        def phrase(batch: int, steps: int, width: int) -> Tensor:
            return _span_cells(start, stop, batch, steps)[None] & self._chosen(features, width)

        relevant, total = self._decompose(inputs, phrase, target, lengths)
        return relevant[0], total - relevant[0]

    def interaction(
        self,
        inputs: Any,
        span: Span,
        other_span: Span,
        *,
        features: Sequence[int | str] | None = None,
        target: Any = None,
        lengths: Any = None,
    ) -> NDArray[np.float64]:
        """Return what two spans give together beyond what each gives: relevant(both) - relevant(one) - relevant(other).

        Args:
            inputs: What `explain` takes.
            span: (start, stop), from 0, stop excluded.
            other_span: Another one, apart from it.
            features: The features of these timesteps that are the phrases; None: all.
            target: See `Explainer.explain`.
            lengths: Long (B,) or None.

        Returns:
            (B,), in units of the score.

        Raises:
            InvalidInputError: The spans overlap or are not in the inputs, or something else `explain` would refuse.
        """

        def phrases(batch: int, steps: int, width: int) -> Tensor:
            one, other = (_span_cells(*_checked_span(part), batch, steps) for part in (span, other_span))
            if bool((one & other).any()):
                raise InvalidInputError(
                    f"the spans {tuple(span)} and {tuple(other_span)} overlap; expected two that share no timestep."
                )
            return torch.stack([one | other, one, other]) & self._chosen(features, width)

        relevant, _ = self._decompose(inputs, phrases, target, lengths)
        beyond: NDArray[np.float64] = relevant[0] - relevant[1] - relevant[2]
        return beyond

    def _decompose(
        self, inputs: Any, phrases: Callable[[int, int, int], Tensor], target: Any, lengths: Any
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the relevant parts (P, B) of phrases, bool (P, B, T, 1 or D), and the score without bias, (B,)."""
        predictor = self.predictor
        with torch.inference_mode(False), seeded(self.seed), kept_buffers(predictor.module), torch.no_grad():
            inputs, lengths, _, _ = unpacked(inputs, lengths, None, None)
            checked, lengths = predictor.check(inputs, lengths)
            batch, steps = checked.shape[:2]
            cells = phrases(batch, steps, 1 if checked.ndim == 2 else checked.shape[2])
            scores = predictor.predict(checked, lengths)
            resolved = predictor.resolve_target_of(scores, checked, target, lengths)
            explained = resolved.select(scores).double().cpu()
            problem = Problem(
                predictor=predictor,
                inputs=checked,
                lengths=lengths,
                target=resolved,
                baseline=checked,
                background=None,
                prediction=explained.numpy(),
                baseline_prediction=explained.numpy(),
                seed=self.seed,
                progress=False,
            )
            values = problem.continuous().inputs  # (B, T, D or E)
            found = []
            with predictor.evaluation():
                for rows in torch.arange(len(checked)).split(predictor.batch_rows(checked, copies=3)):
                    part = trimmed(Part(rows, values[rows], values[rows], lengths[rows], resolved.rows(rows)))
                    chosen = cells[:, rows, : part.values.shape[1]]
                    run = self._open(problem, part)
                    found.append(self._relevant(run, part, len(cells), chosen.__getitem__))
            total = explained - resolved.counts * self._model.head.bias[resolved.output].double().cpu()
        return torch.cat(found, dim=1).double().cpu().numpy(), total.numpy()

    def _relevant(self, run: OpenedRun, part: Part, count: int, cells: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the relevant parts (P, b) of phrases; `cells` gives those that are asked for, (p, b, T, 1 or D)."""
        config = self._model.config
        numbers = len(part.values) * part.values.shape[1] * max(config.hidden_sizes) * config.directions
        size = max(1, BLOCK_NUMBERS // numbers)
        weight, valid = self._model.head.weight[part.target.output], valid_mask(part.lengths, part.values.shape[1])
        blocks = [
            relevant_parts(run, (cells(some) & valid[..., None]).to(weight.device), weight, part.target)
            for some in torch.arange(count).split(size)
        ]
        return torch.cat(blocks)

    def _chosen(self, features: Sequence[int | str] | None, width: int) -> Tensor:
        """Return bool (D,), the features of a phrase; (1,) where it has all."""
        if features is None:
            return torch.ones(1, dtype=torch.bool)
        if self._model.config.reads_tokens:
            raise InvalidInputError("features has no meaning for token ids; leave it out.")
        data = self.predictor.data
        names = data.feature_names if data is not None else ()
        chosen = torch.zeros(width, dtype=torch.bool)
        for feature in [features] if isinstance(features, (str, int)) else features:
            if isinstance(feature, str):
                if feature not in names:
                    raise InvalidInputError(f"features holds {feature!r}; {nearest_name(feature, names)}")
                chosen[names.index(feature)] = True
            elif isinstance(feature, bool) or not isinstance(feature, (int, np.integer)) or not 0 <= feature < width:
                raise InvalidInputError(f"features holds {feature!r}; expected 0 to {width - 1}, or a feature's name.")
            else:
                chosen[int(feature)] = True
        if not bool(chosen.any()):
            raise InvalidInputError("features is empty; expected at least one, or None for all.")
        return chosen


def _checked_span(span: Any) -> Span:
    if not isinstance(span, (tuple, list)) or len(span) != 2:
        raise InvalidTypeError(
            f"a span is {span!r}; expected (start, stop), e.g. (0, 3) for the first three timesteps."
        )
    return span[0], span[1]


def _span_cells(start: Any, stop: Any, batch: int, steps: int) -> Tensor:
    """Return bool (B, T, 1), the timesteps of each sample from start to before stop."""
    first, after = (_indices(name, value, batch) for name, value in (("start", start), ("stop", stop)))
    for one, other in zip(first.tolist(), after.tolist(), strict=True):
        if not 0 <= one < other <= steps:
            raise InvalidInputError(
                f"the span is [{one}, {other}); expected 0 <= start < stop <= {steps}, the number of timesteps."
            )
    time = torch.arange(steps)
    return ((time >= first[:, None]) & (time < after[:, None]))[..., None]


def _indices(name: str, value: Any, batch: int) -> Tensor:
    array = np.asarray(value)
    if array.dtype.kind not in "iu" or array.shape not in ((), (batch,)):
        raise InvalidTypeError(f"{name} is {value!r}; expected a whole number, or {batch}, one a sample.")
    return torch.tensor(np.broadcast_to(array, (batch,)).astype(np.int64))
