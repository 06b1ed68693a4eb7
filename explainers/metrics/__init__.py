"""How good explanations are: metrics of any `Attribution` and its model, side by side (`measure`)."""

from .again import MaxSensitivity, Stability
from .agreement import Agreement, AgreementKendall, AgreementTopK, agreement
from .base import Metric
from .changes import Infidelity, Monotonicity, SensitivityN
from .masking import Comprehensiveness, Deletion, Insertion, Sufficiency
from .measure import DEFAULT_METRICS, METRICS, measure
from .measured import Measured
from .plain import Completeness, EffectiveParts, Evaluations, Gini, Seconds
from .quantus import QuantusArrays, to_quantus
from .randomisation import IndependentRandomisation, Randomisation
from .reference import random_reference
from .scores import Scores, bootstrap_interval

__all__ = [
    "measure",
    "Measured",
    "Metric",
    "Scores",
    "METRICS",
    "DEFAULT_METRICS",
    "Completeness",
    "Deletion",
    "Insertion",
    "Comprehensiveness",
    "Sufficiency",
    "Infidelity",
    "MaxSensitivity",
    "SensitivityN",
    "Monotonicity",
    "Randomisation",
    "IndependentRandomisation",
    "Agreement",
    "AgreementKendall",
    "AgreementTopK",
    "Stability",
    "Gini",
    "EffectiveParts",
    "Evaluations",
    "Seconds",
    "agreement",
    "bootstrap_interval",
    "random_reference",
    "QuantusArrays",
    "to_quantus",
]
