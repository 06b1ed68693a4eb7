"""The digits story: a handwritten digit, read row by row, 8 steps of 8 pixels: which is it, and after how many rows?

Shared by the training script, the demo and the tests: the data, the split and what a share of the rows is worth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gatelens.models import DataSpec, FeatureSpec

NAME = "digits"
ROWS = 8
FULL_INK = 16.0
SEED = 0  # of the split

SPEC = DataSpec(
    features=tuple(
        FeatureSpec(name=f"column {column}", unit="ink of 16", scale=FULL_INK) for column in range(1, ROWS + 1)
    ),
    classes=tuple(str(digit) for digit in range(10)),
    target="the digit",
    baseline=(0.0,) * ROWS,
    baseline_description="an empty sheet",
)


@dataclass(frozen=True, eq=False)
class Part:
    """Images of one part: ink from 0 to 1, (N, 8, 8), top row first; the digits (N,); numbers in scikit-learn's set."""

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]
    numbers: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def sample_names(self) -> tuple[str, ...]:
        """What each image is called."""
        return tuple(f"image {number}, a {digit}" for number, digit in zip(self.numbers, self.labels, strict=True))


def split() -> dict[str, Part]:
    """Return the parts "train" (70 %), "validation" and "test" (15 % each), drawn with each digit's share kept."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    inputs = (images.reshape(-1, ROWS, ROWS) / FULL_INK).astype(np.float32)
    train, rest = train_test_split(np.arange(len(labels)), test_size=0.3, random_state=SEED, stratify=labels)
    validation, test = train_test_split(rest, test_size=0.5, random_state=SEED, stratify=labels[rest])
    rows = {"train": np.sort(train), "validation": np.sort(validation), "test": np.sort(test)}
    return {name: Part(inputs[kept], labels[kept].astype(np.int64), kept) for name, kept in rows.items()}


def accuracy_by_rows(model: Any, part: Part) -> list[float]:
    """Return the accuracy after the first 1, 2, ..., 8 rows: the model is asked before it has read on."""
    import torch

    with torch.no_grad():
        answers = [model(part.inputs[:, :rows]).argmax(dim=1).numpy() for rows in range(1, ROWS + 1)]
    return [float((answer == part.labels).mean()) for answer in answers]
