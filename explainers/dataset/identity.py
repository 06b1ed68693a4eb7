"""What a store is of, so that another model, method, option or input is not mixed into it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from ..assemble import library_versions
from ..base import Explainer
from .blocks import Source
from .work import Job


def identity_of(job: Job, sequences: Source, reading: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a store is of, so that another can be told from it; texts and numbers."""
    explainer = job.explainer
    predictor = explainer.predictor
    return {
        "model": predictor.model_id(),
        "method": explainer.name,
        "options": _text(explainer.options()),
        "baseline": _text(explainer.baseline),
        "background": _text(explainer.background),
        "output": predictor.output,
        "task": predictor.task or "",
        "target": _text(job.target),
        "seed": explainer.seed,
        "gates": job.gates,
        "samples": sequences.count,
        **{name: _text(value) for name, value in reading.items()},
        "data description": _digest(_text(predictor.data)),
        "stamp": sequences.stamp,
        "versions": json.dumps(library_versions(explainer.library)),
    }


def _text(value: Any) -> str:
    """Return an option as a text that is the same for the same option; of arrays their hash."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_text(item)}" for name, item in sorted(value.items())) + "}"
    if isinstance(value, (list, tuple)):
        return "(" + ", ".join(_text(item) for item in value) + ")"
    if isinstance(value, slice):
        return f"slice{_text((value.start, value.stop, value.step))}"
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    elif hasattr(value, "__array__") and not isinstance(value, np.generic):  # its repr may leave out most of it
        value = np.asarray(value)
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {_digest(np.ascontiguousarray(value).tobytes())}"
    if isinstance(value, Explainer):
        return f"{value.name} {_text(value.options())}"
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        return _text(asdict(value))
    return repr(value)


def _digest(value: str | bytes) -> str:
    return hashlib.sha256(value.encode() if isinstance(value, str) else value).hexdigest()[:16]
