"""Pictures, words and the HTML page made from attributions."""

from . import plots
from .changes import explain_change
from .comparison import Comparison
from .explainer_agreement import ExplainerAgreement, compare_explainers
from .global_report import GlobalReport
from .judgement import Judgement
from .judgement_page import JudgementPage
from .model_card import ModelCard, describe
from .narrative import Narrative, narrate
from .reasons import Reason
from .report import Report

__all__ = [
    "Comparison",
    "ExplainerAgreement",
    "GlobalReport",
    "Judgement",
    "JudgementPage",
    "ModelCard",
    "Narrative",
    "Reason",
    "Report",
    "compare_explainers",
    "describe",
    "explain_change",
    "narrate",
    "plots",
]
