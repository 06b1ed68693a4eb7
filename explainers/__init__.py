"""Explainers of LSTM predictions behind one interface, and the one result they return.

The explainer classes are imported when they are first asked for, so that importing this package stays cheap.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .attribution import Attribution
from .base import Explainer, PlayerExplainer
from .players import Game, Players
from .problem import Contribution, Problem
from .registry import BUILT_IN, DEFAULT_METHODS, available, explain, get

if TYPE_CHECKING:
    from .captum import IntegratedGradients
    from .gate_saliency import GateSaliency
    from .lime import LIME
    from .shap import GradientSHAP, KernelSHAP

__all__ = [
    "Attribution",
    "Contribution",
    "DEFAULT_METHODS",
    "Explainer",
    "Game",
    "GateSaliency",
    "GradientSHAP",
    "IntegratedGradients",
    "KernelSHAP",
    "LIME",
    "PlayerExplainer",
    "Players",
    "Problem",
    "available",
    "explain",
    "get",
]


def __getattr__(name: str) -> Any:
    for where in BUILT_IN.values():
        module, attribute = where.split(":")
        if attribute == name:
            return getattr(importlib.import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
