"""The reference LSTM, its traces, saved models, and the one way explainers call any model."""

from .checkpoint import History
from .config import LSTMConfig
from .data_spec import DataSpec, FeatureSpec, WindowSpec
from .errors import GatelensError, InvalidInputError, InvalidTypeError, ModelError, SavedModelError
from .gate_statistics import LayerStatistics, gate_statistics
from .gradients import trace_gradients
from .keras_files import from_keras
from .keras_model import KerasModel
from .labelled import Examples
from .lstm import LSTMModel
from .memory_flow import MemoryFlow, memory_flow
from .metrics import Metrics, evaluate
from .opening import open_model
from .predictor import Predictor
from .preparation import Prepared, prepare
from .recipe import Recipe, Trained
from .recorder import Recording, record
from .retain import RETAIN, RETAINConfig
from .saved import load, model_hash, save
from .sequence_data import SequenceData, read_csv
from .sequence_model import SequenceModel
from .surrogate import Fidelity, SurrogateTree
from .targets import Target, resolve_target
from .text_data import encode_text, prepare_text
from .torch_files import from_torch
from .trace import LayerTrace, Trace
from .training import DivergedError, fit

__all__ = [
    "DataSpec",
    "DivergedError",
    "Examples",
    "FeatureSpec",
    "Fidelity",
    "GatelensError",
    "History",
    "InvalidInputError",
    "InvalidTypeError",
    "KerasModel",
    "LSTMConfig",
    "LSTMModel",
    "LayerStatistics",
    "LayerTrace",
    "MemoryFlow",
    "Metrics",
    "ModelError",
    "Predictor",
    "Prepared",
    "RETAIN",
    "RETAINConfig",
    "Recipe",
    "Recording",
    "SavedModelError",
    "SequenceData",
    "SequenceModel",
    "SurrogateTree",
    "Target",
    "Trace",
    "Trained",
    "WindowSpec",
    "encode_text",
    "evaluate",
    "fit",
    "from_keras",
    "from_torch",
    "gate_statistics",
    "load",
    "memory_flow",
    "model_hash",
    "open_model",
    "prepare",
    "prepare_text",
    "read_csv",
    "record",
    "resolve_target",
    "save",
    "trace_gradients",
]
