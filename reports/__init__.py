"""Pictures, words and the HTML page made from attributions."""

from .model_card import ModelCard, describe
from .narrative import Narrative, narrate
from .reasons import Reason
from .report import Report

__all__ = ["ModelCard", "Narrative", "Reason", "Report", "describe", "narrate"]
