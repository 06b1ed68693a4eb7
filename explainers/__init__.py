"""Explainers of LSTM predictions behind one interface, and the one result they return.

The explainer classes, and what needs them, are imported when they are first asked for, so that importing this package
stays cheap.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .attribution import Attribution
from .base import Explainer, PlayerExplainer
from .over_time import explain_over_time
from .players import Game, Players
from .problem import Contribution, Problem
from .registry import BUILT_IN, DEFAULT_METHODS, available, explain, get

if TYPE_CHECKING:
    from .attention import Attention
    from .captum import InputXGradient, IntegratedGradients, Saliency, SmoothGrad
    from .cell_decomposition import CellDecomposition
    from .contextual_decomposition import ContextualDecomposition
    from .dataset import explain_dataset
    from .deeplift import DeepLIFT, DeepSHAP
    from .gate_saliency import GateSaliency
    from .interactions import temporal_interactions
    from .lime import LIME
    from .lrp import LRP
    from .occlusion import Occlusion
    from .rescaling import TemporalSaliencyRescaling
    from .retain import RetainContributions
    from .shap import GradientSHAP, KernelSHAP
    from .temporal_shapley import TemporalShapley

__all__ = [
    "Attention",
    "Attribution",
    "CellDecomposition",
    "ContextualDecomposition",
    "Contribution",
    "DEFAULT_METHODS",
    "DeepLIFT",
    "DeepSHAP",
    "Explainer",
    "Game",
    "GateSaliency",
    "GradientSHAP",
    "InputXGradient",
    "IntegratedGradients",
    "KernelSHAP",
    "LIME",
    "LRP",
    "Occlusion",
    "PlayerExplainer",
    "Players",
    "Problem",
    "RetainContributions",
    "Saliency",
    "SmoothGrad",
    "TemporalSaliencyRescaling",
    "TemporalShapley",
    "available",
    "explain",
    "explain_dataset",
    "explain_over_time",
    "get",
    "temporal_interactions",
]

LATER = {"explain_dataset": "dataset", "temporal_interactions": "interactions"}


def __getattr__(name: str) -> Any:
    if name in LATER:
        return getattr(importlib.import_module(f".{LATER[name]}", __name__), name)
    for where in BUILT_IN.values():
        module, attribute = where.split(":")
        if attribute == name:
            return getattr(importlib.import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
