"""What a training makes smaller: the loss of each task, class weights, and targets brought to one scale."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import Task
from .errors import InvalidInputError
from .labelled import CheckedExamples, known_task
from .predictor import Predictor


class Objective:
    """The loss of one training.

    Args:
        predictor: The model.
        train: What it is trained on; class weights and the targets' scale are taken from it.
        class_weights: None, "balanced", or one number a class.
        scale_targets: A regression's targets count in standard deviations from their mean.
    """

    def __init__(
        self,
        predictor: Predictor,
        train: CheckedExamples,
        class_weights: str | list[float] | None,
        *,
        scale_targets: bool,
    ) -> None:
        self.task = known_task(predictor)
        self.metric = "mean absolute error" if self.task == "regression" else "accuracy"
        self.weights = _class_weights(class_weights, train, self.task, predictor.dtype)
        self._scale: tuple[Tensor, Tensor] | None = None  # center (K,), scale (K,)
        self._head: nn.Linear | None = None
        if scale_targets:
            self._head = _linear_head(predictor, self.task, train.outputs)
            self._scale = _center_and_scale(train.flat_targets())

    def sums(self, scores: Tensor, data: CheckedExamples) -> list[Tensor]:
        """Return sum of weighted losses, sum of weights, sum of the metric, number of answers.

        The metric is in the targets' own unit; a regression's loss is in scaled ones, where they are scaled.
        """
        found, targets = data.flat_scores(scores), data.flat_targets()  # (N, K); (N, K) or (N,)
        weights = None
        if self.task == "multiclass":
            each = nn.functional.cross_entropy(found, targets, reduction="none")  # (N,)
            weights = None if self.weights is None else self.weights[targets]
            metric = found.argmax(dim=1) == targets
        elif self.task == "binary":
            each = nn.functional.binary_cross_entropy_with_logits(found, targets, reduction="none")  # (N, K)
            weights = None if self.weights is None else torch.where(targets > 0, self.weights[1], self.weights[0])
            metric = (found > 0) == (targets > 0)
        elif self._scale is None:
            each, metric = (found - targets) ** 2, (found - targets).abs()
        else:
            center, scale = self._scale
            missed = found - (targets - center) / scale
            each, metric = missed**2, missed.abs() * scale
        count = each.new_tensor(float(each.numel()))
        total = (each if weights is None else each * weights).sum()
        return [total, count if weights is None else weights.sum(), metric.detach().sum().to(each.dtype), count]

    def answer_in_units(self) -> None:
        """Make a model that was trained on scaled targets answer in their own unit, by its head's weights."""
        if self._scale is None or self._head is None:
            return
        center, scale = self._scale
        with torch.no_grad():
            self._head.weight.mul_(scale[:, None])  # (K, H)
            self._head.bias.mul_(scale).add_(center)  # (K,)


def _linear_head(predictor: Predictor, task: Task, outputs: int) -> nn.Linear:
    if task != "regression":
        raise InvalidInputError(f"scale_targets is set, and the task is {task!r}, which has no scale; leave it out.")
    head = getattr(predictor.module, "head", None)
    if not isinstance(head, nn.Linear) or head.out_features != outputs or head.bias is None:
        raise InvalidInputError(
            f"scale_targets needs a model whose last step is `head`, a torch.nn.Linear with a bias; this "
            f"{type(predictor.model).__name__} has none. Scale the targets yourself: (targets - mean) / deviation."
        )
    return head


def _center_and_scale(targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of targets (N, K), each (K,); a constant one has the scale 1."""
    wide = targets.double()
    center, scale = wide.mean(dim=0), wide.std(dim=0, correction=0)
    return center.to(targets.dtype), torch.where(scale > 0, scale, 1.0).to(targets.dtype)


def _class_weights(
    given: str | list[float] | None, train: CheckedExamples, task: Task, dtype: torch.dtype
) -> Tensor | None:
    """Return the weight of each class, (K,), or of no and yes, (2, 1) or (2, K); None for equal ones."""
    if given is None:
        return None
    if task == "regression":
        raise InvalidInputError(
            "class_weights are set, and the task is 'regression', which has no classes; leave them out."
        )
    targets = train.flat_targets()  # (N,) of classes, else (N, K)
    if task == "multiclass":
        counts = torch.bincount(targets, minlength=train.outputs)  # (K,)
    else:
        yes = targets.long().sum(dim=0)  # (K,)
        counts = torch.stack([len(targets) - yes, yes])  # (2, K)
    if isinstance(given, list):
        if len(given) != len(counts):
            raise InvalidInputError(
                f"class_weights has {len(given)} numbers for {len(counts)} classes; expected one each."
            )
        weights = torch.tensor(given, dtype=torch.float64)
        return (weights if task == "multiclass" else weights[:, None]).to(train.inputs.device, dtype)
    if (counts == 0).any():
        raise InvalidInputError(
            f"class_weights is 'balanced', and class {int((counts == 0).nonzero()[0, 0])} does not occur in the "
            "training targets; give the weights as numbers, or add such examples."
        )
    return (len(targets) / (len(counts) * counts.double())).to(train.inputs.device, dtype)
