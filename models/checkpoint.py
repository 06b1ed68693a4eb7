"""What a training keeps: its options, its history, and a file from which it goes on after it was killed.

The file holds plain data and is replaced whole after every epoch.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from .errors import InvalidInputError, InvalidTypeError, SavedModelError, nearest_name
from .files import replacing_file
from .labelled import CheckedExamples
from .predictor import Predictor
from .sequence_model import SequenceModel

Optimizer = Literal["adam", "adamw", "rmsprop"]

FILE = "training.pt"
FORMAT = "gatelens.training"
FORMAT_VERSION = 1
MOST_DIFFERENCES = 3
LONGEST_TEXT = 60

Identity = Mapping[str, "str | int | float | None"]


@dataclass(frozen=True, kw_only=True)
class History:
    """How a training went; the curves have one number an epoch.

    Attributes:
        metric: What is told beside the loss: "accuracy", or "mean absolute error" of a regression.
        loss: Training loss, the mean over the epoch while the weights moved (and dropout was on).
        training_metric: The same of the metric.
        validation_loss: Loss after each epoch on the validation examples; empty without them.
        validation_metric: The same of the metric.
        best_epoch: Counted from 1: the epoch whose weights the model holds; 0 before the first has ended.
        stopped: "epochs" (all were done), "patience" (stopped early), or "" where the training broke off.
        seconds: Time spent, that before a resumption included.
        options: What `fit` was told.
    """

    metric: str
    loss: tuple[float, ...] = ()
    training_metric: tuple[float, ...] = ()
    validation_loss: tuple[float, ...] = ()
    validation_metric: tuple[float, ...] = ()
    best_epoch: int = 0
    stopped: str = ""
    seconds: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def learning_rate(self) -> float:
        """The learning rate, the same in all epochs."""
        return float(self.options["learning_rate"])

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: a list for each curve, as `plot_training` draws them, and the rest."""
        curves = {"loss": self.loss, self.metric: self.training_metric}
        if self.validation_loss:
            curves |= {"validation loss": self.validation_loss, f"validation {self.metric}": self.validation_metric}
        return {
            "epoch": list(range(1, len(self) + 1)),
            **{name: list(values) for name, values in curves.items()},
            "best_epoch": self.best_epoch,
            "stopped": self.stopped,
            "seconds": self.seconds,
            "options": dict(self.options),
        }

    def provenance(self) -> dict[str, Any]:
        """Return what belongs into `DataSpec.provenance`: repeatable, so without seconds and to six digits."""
        told = self.to_dict()
        del told["seconds"]
        rounded = {
            name: [float(f"{number:.6g}") for number in value] if isinstance(value, list) and name != "epoch" else value
            for name, value in told.items()
        }
        return {"seed": self.options.get("seed"), "training": rounded}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `fit` was told, checked."""

    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    weight_decay: float | None
    clip_norm: float | None
    patience: int | None
    class_weights: Any  # None, "balanced", or a list of floats
    seed: int
    scale_targets: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.scale_targets, bool):
            raise InvalidTypeError(f"scale_targets is {self.scale_targets!r}; expected True or False.")
        if self.optimizer not in get_args(Optimizer):
            raise InvalidInputError(
                f"optimizer is {self.optimizer!r}; {nearest_name(str(self.optimizer), get_args(Optimizer))}"
            )
        for name, low in (("epochs", 1), ("batch_size", 1), ("patience", 1), ("seed", 0)):
            value = getattr(self, name)
            if name == "patience" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                raise InvalidTypeError(f"{name} is {value!r}; expected a whole number, {low} or more.")
            if value < low or (name == "seed" and value >= 2**32):
                top = " and below 2**32" if name == "seed" else ""
                raise InvalidInputError(f"{name} is {value}; expected a whole number, {low} or more{top}.")
            object.__setattr__(self, name, int(value))
        for name in ("learning_rate", "clip_norm", "weight_decay"):
            value = getattr(self, name)
            if value is None and name != "learning_rate":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
                raise InvalidTypeError(f"{name} is {value!r}; expected a number.")
            if not math.isfinite(value) or value < 0 or (value == 0 and name != "weight_decay"):
                least = "0 or more" if name == "weight_decay" else "more than 0"
                raise InvalidInputError(f"{name} is {value!r}; expected a number, {least}.")
            object.__setattr__(self, name, float(value))
        plain = self.class_weights is None or (isinstance(self.class_weights, str) and self.class_weights == "balanced")
        if not plain:
            object.__setattr__(self, "class_weights", _plain_weights(self.class_weights))


def _plain_weights(given: Any) -> list[float]:
    try:
        values = np.asarray(given.cpu() if isinstance(given, Tensor) else given, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty((0, 0))
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all() or (values <= 0).any():
        raise InvalidInputError(
            f"class_weights is {given!r}; expected 'balanced', or one number above 0 for each class, e.g. [1.0, 4.0]."
        )
    return [float(value) for value in values]


class Checkpoint:
    """The folder in which a training keeps its state.

    Args:
        folder: New, empty, or one that such a training has written.
        identity: What must be the same for the training to go on, in words -> value.

    Raises:
        InvalidInputError: The folder holds something else.
    """

    def __init__(self, folder: str | Path, identity: Identity) -> None:
        self.folder = Path(folder)
        self.identity = dict(identity)
        if self.folder.exists() and not self.folder.is_dir():
            raise InvalidInputError(f"checkpoint is the file {self.folder}; expected a folder's name.")
        present = {path.name for path in self.folder.iterdir()} if self.folder.is_dir() else set()
        others = sorted(name for name in present if name != FILE and not _is_leftover(name))
        if others:
            raise InvalidInputError(
                f"checkpoint is {self.folder}, which holds other files ({', '.join(others[:4])}); choose an empty or a "
                "new folder."
            )
        for name in present:
            if _is_leftover(name):  # of a training that was killed while it wrote
                (self.folder / name).unlink(missing_ok=True)

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the state beside the last one and put it in its place."""
        content = {"format": FORMAT, "format_version": FORMAT_VERSION, "identity": self.identity, "state": dict(state)}
        with replacing_file(self.folder / FILE) as beside:
            torch.save(content, beside)

    def load(self) -> dict[str, Any] | None:
        """Return the last state, or None where there is none yet; nothing in the file is executed.

        Raises:
            SavedModelError: The file is damaged or newer than this gatelens.
            InvalidInputError: It is of another model, other data or other options.
        """
        path = self.folder / FILE
        if not path.exists():
            return None
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # noqa: BLE001 - torch raises anything on bytes that are no checkpoint
            raise SavedModelError(self.damaged(type(error).__name__)) from None
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise SavedModelError(self.damaged("it is no checkpoint of gatelens"))
        if content.get("format_version") != FORMAT_VERSION:
            raise SavedModelError(
                f"{path} has format_version {content.get('format_version')!r}; this gatelens reads {FORMAT_VERSION}. "
                "Use the gatelens that began the training, or another folder."
            )
        found, state = content.get("identity"), content.get("state")
        if not isinstance(found, dict) or not isinstance(state, dict):
            raise SavedModelError(self.damaged("its entries are missing"))
        self._refuse_another(found)
        return state

    def damaged(self, why: str) -> str:
        """Return the sentence about a file that cannot be used."""
        return f"{self.folder / FILE} cannot be read ({why}); delete the folder to begin the training anew."

    def _refuse_another(self, found: Mapping[str, Any]) -> None:
        names = dict.fromkeys([*self.identity, *found])
        differences = [
            f"{name} was {found.get(name, 'not there')} and is {self.identity.get(name, 'not there')}"
            for name in names
            if found.get(name, "not there") != self.identity.get(name, "not there")
        ]
        if differences:
            more = len(differences) - MOST_DIFFERENCES
            rest = f" (and {more} more)" if more > 0 else ""
            raise InvalidInputError(
                f"the checkpoint in {self.folder} is of another training: {'; '.join(differences[:MOST_DIFFERENCES])}"
                f"{rest}. Choose another folder, or delete that one to begin anew."
            )


def fingerprint(*tensors: Tensor) -> str:
    """Return a short hash of the tensors' values."""
    digest = hashlib.sha256()
    for tensor in tensors:
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def identity_of(
    predictor: Predictor, options: Options, train: CheckedExamples, validation: CheckedExamples | None
) -> dict[str, str | int | float | None]:
    """Return what a checkpoint's training and this one must have in common: all but when to stop."""
    model = predictor.module
    assert model is not None  # fit has seen to it
    found: dict[str, Any] = {"the model": type(model).__name__, "the task": predictor.task}
    if isinstance(model, SequenceModel):
        found |= {f"its {name}": _short(value) for name, value in model.config.to_dict().items()}
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor):
            found[f"the weight {name}"] = f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    found["trained"] = _short([name for name, parameter in model.named_parameters() if parameter.requires_grad])
    for name, data in (("training", train), ("validation", validation)):
        if data is not None:
            found[f"the shape of the {name} inputs"] = str(tuple(data.inputs.shape))
            values = fingerprint(data.inputs, data.lengths, data.targets, data.valid)
            found[f"the hash of the {name} examples"] = values
    found["device"] = predictor.device.type
    told = asdict(options)
    del told["epochs"], told["patience"]
    return {**found, **{name: _short(value) for name, value in told.items()}}


def _short(value: Any) -> str:
    """Return a value as a text that fits into an error; of a long one the hash."""
    text = json.dumps(value, default=str)
    return text if len(text) <= LONGEST_TEXT else hashlib.sha256(text.encode()).hexdigest()[:16]


def _is_leftover(name: str) -> bool:
    return name.startswith(f".{FILE}.")
