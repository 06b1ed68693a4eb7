"""`fit`: trains a model on sequences, repeatably, stoppable and resumable, and returns how it went."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .checkpoint import Checkpoint, History, Optimizer, Options, identity_of
from .config import Task
from .errors import InvalidInputError, InvalidTypeError, ModelError, SavedModelError
from .labelled import CheckedExamples, known_task
from .objective import Objective
from .predictor import Predictor
from .state import borrowed, seeded_for

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop,
}  # fmt: skip
LARGE = 10.0  # inputs or targets beyond this are worth scaling


class DivergedError(ModelError):
    """The loss became NaN or infinite; the model holds its last good weights, and `history` says how it came."""

    def __init__(self, message: str, history: History) -> None:
        super().__init__(message)
        self.history = history


def fit(
    model: nn.Module,
    train: Any,
    validation: Any = None,
    *,
    task: Task | None = None,
    epochs: int = 30,
    batch_size: int = 32,
    optimizer: Optimizer = "adam",
    learning_rate: float = 1e-3,
    weight_decay: float | None = None,
    clip_norm: float | None = 1.0,
    class_weights: Literal["balanced"] | Sequence[float] | None = None,
    scale_targets: bool = False,
    patience: int | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = False,
    checkpoint: str | Path | None = None,
) -> History:
    """Train a model; it then holds the weights of its best epoch.

    The loss is the mean squared error of a regression and the cross-entropy of classes and of yes/no outputs; padding
    does not count. The best epoch is that of the lowest validation loss, or the last one without validation examples.
    Equal seeds give equal weights, to the bit on one thread of the CPU; the global random state, the model's mode, its
    gradients and its device are as before afterwards, also after an error.

    Args:
        model: `LSTMModel`, or another module that `Predictor` takes. Parameters that need no gradient stay fixed.
        train: `Examples`, or a tuple (inputs, targets) or (inputs, targets, lengths).
        validation: Examples that the weights are not fitted to, which say when to stop.
        task: What a foreign model's scores are; gatelens's own know.
        epochs: At most so many passes over the training examples.
        batch_size: Sequences a step.
        optimizer: "adam", "adamw" or "rmsprop".
        learning_rate: Its step size.
        weight_decay: Its weight decay; None: the optimizer's own default (0.01 for AdamW, else 0).
        clip_norm: Longest gradient of a step (Pascanu et al. 2013, algorithm 1); None: any.
        class_weights: Weight of each class in the loss; "balanced": the inverse of how often it occurs in training.
        scale_targets: Train on a regression's targets in standard deviations from their mean, as numbers far from 1
            need; the loss is then in those. Afterwards the weights of the model's `head` are scaled back, so that it
            answers in the targets' own unit. For a model that is trained from the start.
        patience: Stop after so many epochs without a lower validation loss; None: never early.
        seed: Of shuffling and dropout. The weights at the start are the model's own.
        device: Where to train, e.g. "cuda"; None: where the model is.
        progress: Show a progress bar on standard error, where a person watches.
        checkpoint: Folder that keeps the state after each epoch. Where it holds that of the same training, that goes
            on; more epochs, or another patience, are no other training.

    Raises:
        InvalidInputError: An option is out of range, or the examples do not fit the model or the checkpoint.
        DivergedError: The loss became NaN or infinite.
    """
    options = Options(
        epochs=epochs, batch_size=batch_size, optimizer=optimizer, learning_rate=learning_rate,
        weight_decay=weight_decay, clip_norm=clip_norm, patience=patience, class_weights=class_weights, seed=seed,
        scale_targets=scale_targets,
    )  # fmt: skip
    if not isinstance(model, nn.Module):
        raise InvalidTypeError(f"model is a {type(model).__name__}; expected a torch module, e.g. LSTMModel(config).")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InvalidInputError("the model has no parameter that may be trained; use parameter.requires_grad_(True).")
    if patience is not None and validation is None:
        raise InvalidInputError(
            "patience needs validation examples, which say when it gets no better; pass validation."
        )
    with borrowed(model, device), seeded_for(model, options.seed), torch.inference_mode(False), torch.enable_grad():
        predictor = Predictor(model, task=task)
        known_task(predictor)
        data = CheckedExamples.of(predictor, train, "train")
        held = None if validation is None else CheckedExamples.of(predictor, validation, "validation")
        training = _Training(predictor, options, data, held)
        kept = None if checkpoint is None else Checkpoint(checkpoint, identity_of(predictor, options, data, held))
        with _shown(progress, epochs) as show:
            return training.run(kept, show)


class _Training:
    """One training: its state between epochs, and the loop."""

    def __init__(
        self, predictor: Predictor, options: Options, train: CheckedExamples, validation: CheckedExamples | None
    ) -> None:
        assert predictor.module is not None  # fit has seen to it
        self.predictor, self.model, self.options = predictor, predictor.module, options
        self.train, self.validation = train, validation
        self.objective = Objective(predictor, train, options.class_weights, scale_targets=options.scale_targets)
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        more: dict[str, Any] = {} if options.weight_decay is None else {"weight_decay": options.weight_decay}
        self.optimizer = OPTIMIZERS[options.optimizer](self.parameters, lr=options.learning_rate, **more)
        self.shuffle = torch.Generator().manual_seed(options.seed)
        self.history = History(metric=self.objective.metric, options=asdict(options))
        self.best = _copied(self.model)

    def run(self, checkpoint: Checkpoint | None, show: Callable[[History], None]) -> History:
        """Train until it is done; whatever ends it, the model then holds the best weights so far."""
        self.model.train()
        try:
            if checkpoint is not None and (state := checkpoint.load()) is not None:
                self._resume(state, checkpoint)
            show(self.history)
            while not self.stopped:
                began = time.perf_counter()
                self._epoch()
                self.history = replace(self.history, seconds=self.history.seconds + time.perf_counter() - began)
                if checkpoint is not None:
                    checkpoint.save(self._state())
                show(self.history)
            return replace(self.history, stopped=self.stopped)
        finally:
            self.model.load_state_dict(self.best)
            if len(self.history):
                self.objective.answer_in_units()

    @property
    def stopped(self) -> str:
        """Why no further epoch is needed; "" while one is."""
        done, patience = len(self.history), self.options.patience
        if patience is not None and done - self.history.best_epoch >= patience:
            return "patience"
        return "epochs" if done >= self.options.epochs else ""

    def _epoch(self) -> None:
        sums = torch.zeros(4, dtype=torch.float64)
        order = torch.randperm(len(self.train), generator=self.shuffle)
        for number, rows in enumerate(order.split(self.options.batch_size), start=1):
            batch = self.train.part(rows)
            self.optimizer.zero_grad()
            try:
                found = self.objective.sums(self.predictor.scores(batch.inputs, batch.lengths), batch)
            except ModelError as error:
                raise self._diverged(error, f", batch {number}") from None
            loss = found[0] / found[1]
            if not torch.isfinite(loss):
                raise self._diverged(f"the loss became {loss.item()}", f", batch {number}")
            loss.backward()
            longest = self.options.clip_norm if self.options.clip_norm is not None else math.inf
            norm = nn.utils.clip_grad_norm_(self.parameters, longest)
            if not torch.isfinite(norm):
                raise self._diverged(f"the gradient became {norm.item()}", f", batch {number}")
            try:
                self.optimizer.step()
            except RuntimeError as error:  # torch refuses a step that its floats cannot hold
                if "overflow" not in str(error):
                    raise
                raise self._diverged("the step became infinite", f", batch {number}") from None
            sums += torch.stack(found).detach().double().cpu()
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.parameters):
            raise self._diverged("a weight became NaN or infinite")
        if self.validation is None:
            self._judge(batch, "loss")  # were these weights of no use, the next epoch would be too late to see it
            self._keep(sums, None)
        else:
            self._keep(sums, self._judge(self.validation, "validation loss"))

    def _judge(self, data: CheckedExamples, name: str) -> Tensor:
        """Return the sums of the objective in eval mode, or refuse where they are not finite."""
        try:
            scores = self.predictor.predict(data.inputs, data.lengths)
        except ModelError as error:
            raise self._diverged(error) from None
        sums = torch.stack(self.objective.sums(scores, data)).double().cpu()
        if not torch.isfinite(sums[0]):
            raise self._diverged(f"the {name} became {float(sums[0])}")
        return sums

    def _keep(self, sums: Tensor, held: Tensor | None) -> None:
        """Add an epoch to the history, and keep its weights if they are the best."""
        history, done = self.history, len(self.history) + 1
        loss, metric = _means(sums)
        values: dict[str, Any] = {"loss": (*history.loss, loss), "training_metric": (*history.training_metric, metric)}
        better = True
        if held is not None:
            loss, metric = _means(held)
            better = not history.validation_loss or loss < min(history.validation_loss)
            values["validation_loss"] = (*history.validation_loss, loss)
            values["validation_metric"] = (*history.validation_metric, metric)
        if better:
            self.best = _copied(self.model)
            values["best_epoch"] = done
        self.history = replace(history, **values)

    def _diverged(self, what: object, where: str = "") -> Exception:
        """Return what to raise where numbers are no longer finite, with advice; another fault as it is."""
        if isinstance(what, ModelError):
            if what.__cause__ is not None or "NaN" not in str(what):
                return what
            what = "the model's scores became NaN or infinite"
        options, history = self.options, self.history
        advice = [f"a smaller learning_rate (it is {options.learning_rate:g}; try {options.learning_rate / 10:g})"]
        if options.clip_norm is None:
            advice.append("clip_norm=1.0")
        inputs = self.train.inputs.abs().max().item() if self.train.inputs.dtype.is_floating_point else 0.0
        if inputs > LARGE:
            advice.append(f"scaling the inputs to about -1 to 1 (the largest is {inputs:.3g})")
        if (
            self.objective.task == "regression"
            and not options.scale_targets
            and (largest := self.train.targets.abs().max().item()) > LARGE
        ):
            advice.append(f"scale_targets=True (the largest target is {largest:.3g})")
        held = f"epoch {history.best_epoch}" if history.best_epoch else "the start"
        message = (
            f"{what} in epoch {len(history) + 1}{where}. Try {', or '.join(advice)}. The model holds the weights of "
            f"{held}."
        )
        return DivergedError(message, history)

    # -- going on after a kill -----------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        device = self.predictor.device
        history = asdict(self.history)
        del history["options"]
        return {
            "model": _copied(self.model),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "shuffle": self.shuffle.get_state(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
            "history": history,
        }

    def _resume(self, state: Mapping[str, Any], checkpoint: Checkpoint) -> None:
        try:
            self.model.load_state_dict(state["best"])
            best = _copied(self.model)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.shuffle.set_state(state["shuffle"])
            torch.set_rng_state(state["random"])
            if state["random_cuda"] is not None:
                torch.cuda.set_rng_state(state["random_cuda"], self.predictor.device)
            history = History(**state["history"], options=self.history.options)
            done = len(history)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise SavedModelError(checkpoint.damaged(f"{type(error).__name__}: {str(error)[:100]}")) from None
        if done > self.options.epochs:
            raise InvalidInputError(
                f"epochs is {self.options.epochs}, and the checkpoint in {checkpoint.folder} has {done} behind "
                "it; ask for as many or more, or choose another folder."
            )
        self.history, self.best = history, best


def _means(sums: Tensor) -> tuple[float, float]:
    loss, weight, metric, count = sums.tolist()
    return loss / weight, metric / count


def _copied(model: nn.Module) -> dict[str, Any]:
    """Return the model's state, in memory of its own."""
    return {
        name: value.detach().clone() if isinstance(value, Tensor) else value
        for name, value in model.state_dict().items()
    }


@contextmanager
def _shown(progress: bool, epochs: int) -> Iterator[Callable[[History], None]]:
    """Yield what to call with the history after each epoch; it moves a bar where a person watches."""
    if not progress:
        yield lambda _history: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=epochs)

        def show(history: History) -> None:
            said = f"loss {history.loss[-1]:.4g}" if history.loss else ""
            if history.validation_loss:
                said += f", validation {history.validation_loss[-1]:.4g}"
            bar.update(task, completed=len(history), description=said)

        yield show
