"""The reference LSTM, its traces, saved models, and the one way explainers call any model."""

from .config import LSTMConfig
from .data_spec import DataSpec, FeatureSpec, WindowSpec
from .errors import GatelensError, InvalidInputError, InvalidTypeError, ModelError, SavedModelError
from .gradients import trace_gradients
from .lstm import LSTMModel
from .predictor import Predictor
from .recorder import Recording, record
from .saved import load, model_hash, save
from .sequence_data import SequenceData, read_csv
from .targets import Target, resolve_target
from .trace import LayerTrace, Trace

__all__ = [
    "DataSpec",
    "FeatureSpec",
    "GatelensError",
    "InvalidInputError",
    "InvalidTypeError",
    "LSTMConfig",
    "LSTMModel",
    "LayerTrace",
    "ModelError",
    "Predictor",
    "Recording",
    "SavedModelError",
    "SequenceData",
    "Target",
    "Trace",
    "WindowSpec",
    "load",
    "model_hash",
    "read_csv",
    "record",
    "resolve_target",
    "save",
    "trace_gradients",
]
