"""`from_torch`: other people's PyTorch models, as modules, state dicts or files, become an `LSTMModel`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from .checkpoints import find_state
from .config import LSTMConfig, Pooling, Task
from .data_spec import DataSpec
from .errors import GatelensError, InvalidInputError, InvalidTypeError, ModelError, SavedModelError, nearest_name
from .lstm import LSTMModel
from .saved import CONFIG_FILE, WEIGHTS_FILE, check_is_as_configured, with_weights
from .state_dicts import ANY_MODULE, Adopted, adopt
from .torch_modules import match_pooling
from .weight_files import printable, read_weight_file

_POOLINGS: tuple[Pooling, ...] = ("last", "mean", "max", "dot_attention", "none")


def from_torch(source: Any, *, pooling: Pooling | None = None, task: Task | None = None) -> LSTMModel:
    """Rewrite a PyTorch model (token embedding ->) LSTM layers -> pooling -> one linear head as an `LSTMModel`.

    The weights are copied, to the CPU, as float32 (float64 if all are); the source is left as found. What was
    recognised, assumed and left out stands in `model.data.provenance["adopted"]`, as sentences.

    Args:
        source: An `nn.Module`, its state dict, or the path of a .pt, .pth, .bin, .ckpt or .safetensors file with one,
            checkpoints of training scripts included. No code in a file is run. An `LSTMModel` comes back as a copy.
        pooling: How hidden states become the head's input. None: of a module it is found out by running it on random
            inputs; of weights alone "last" is assumed, or "attention" where they hold LSTMModel's own.
        task: What the scores are. None: what the module's last layer (sigmoid, softmax) says, else "regression" for
            one output and "multiclass" for several.

    Returns:
        The model in eval mode; of one that ends in a sigmoid or softmax it gives the logits before it.

    Raises:
        SavedModelError: The file cannot be read, or its weights have no place in an `LSTMModel`.
        ModelError: So has a module or a state dict, or the module computes something else from its weights.
        InvalidInputError: `pooling` or `task` contradicts the source.
        InvalidTypeError: `source` is none of these.
    """
    for name, value, known in (("pooling", pooling, get_args(Pooling)), ("task", task, get_args(Task))):
        if value is not None and value not in known:
            raise InvalidInputError(f"{name} is {value!r}; {nearest_name(str(value), known)}")
    with torch.inference_mode(False), torch.no_grad():
        if isinstance(source, nn.Module):
            return _from_module(_unwrapped(source), pooling, task)
        if isinstance(source, Mapping):
            return _from_weights(source, pooling, task, name="state dict", kind="state dict", refusal=ModelError)
        if isinstance(source, (str, os.PathLike)):
            return _from_file(Path(source), pooling, task)
    raise InvalidTypeError(
        f"source is a {type(source).__name__}; expected an nn.Module, a state dict, or the path of a .pt, .pth, .bin, "
        ".ckpt or .safetensors file."
    )


def _unwrapped(module: nn.Module) -> nn.Module:
    """Return what DataParallel and torch.compile have wrapped."""
    inner: Any = module
    while inner is not None:
        module = inner
        wraps = isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel))
        inner = module.module if wraps else getattr(module, "_orig_mod", None)
    return module


def _from_file(path: Path, pooling: Pooling | None, task: Task | None) -> LSTMModel:
    values = read_weight_file(path)
    kind = "safetensors" if path.suffix.lower() == ".safetensors" else "PyTorch file"
    told = []
    if path.name == WEIGHTS_FILE and (path.parent / CONFIG_FILE).is_file():
        told.append(f"{CONFIG_FILE} beside it was not read; load(folder) reads a saved model's pooling, task and names")
    return _from_weights(values, pooling, task, name=str(path), kind=kind, refusal=SavedModelError, told=told)


def _from_weights(
    values: Any,
    pooling: Pooling | None,
    task: Task | None,
    *,
    name: str,
    kind: str,
    refusal: type[GatelensError],
    told: Sequence[str] = (),
) -> LSTMModel:
    with _refusing(name, refusal):
        state, left_out = find_state(values)
        adopted = adopt(state)
    assumed = []
    chosen = _agreed_pooling(adopted, pooling)
    if pooling is None and chosen == "last":
        exactly = " (the final state of each direction, h_n)" if adopted.config.bidirectional else ""
        assumed.append(
            f"pooling 'last'{exactly} is assumed, weights do not say it; else pass pooling='mean', 'max' or 'none'"
        )
    if task is None:
        assumed.append(_assumed_task(adopted.config))
    about = {
        "file": printable(Path(name).name),
        "format": kind,
        "found": list(adopted.found),
        "assumed": assumed,
        "left_out": [*left_out, *told],
    }
    return _made(adopted, chosen, task or adopted.config.task, about)


def _from_module(module: nn.Module, pooling: Pooling | None, task: Task | None) -> LSTMModel:
    if type(module) is LSTMModel:
        return _copied(module, pooling, task)
    name = type(module).__name__
    tables = {path: part for path, part in module.named_modules() if isinstance(part, nn.Embedding)}
    known = [part.padding_idx for part in tables.values() if part.padding_idx is not None]
    script = isinstance(module, torch.jit.ScriptModule)  # its parts do not say of what kind they are
    with _refusing(name, ModelError):
        state, left_out = find_state(module.state_dict())
        adopted = adopt(state, embeddings=None if script else tables, padding=known[0] if known else 0)
    _agreed_pooling(adopted, pooling)
    candidates: tuple[Pooling, ...] = ("attention",) if adopted.config.pooling == "attention" else _POOLINGS
    models = {candidate: _made(adopted, candidate, adopted.config.task, {}) for candidate in candidates}
    with _refusing(name, ModelError):
        match = match_pooling(module, models, padding=known[0] if known else None)
    if pooling is not None and pooling != match.pooling and pooling not in match.others:
        raise InvalidInputError(f"pooling is {pooling!r}; {name}, run on random inputs, uses {match.pooling!r}.")
    assumed: list[str] = []
    found = [*adopted.found, f"run on random inputs, it agrees with pooling {match.pooling!r}"]
    if match.others:
        found.append(f"pooling {' and '.join(match.others)} would agree as well, the weights tell no difference")
    if match.time_first:
        found.append("it reads (time, batch, features); the LSTMModel reads (batch, time, features)")
    if known and adopted.config.reads_tokens:
        found.append(f"it was compared without the padding token {known[0]}; say by lengths where sequences end")
    told = {"sigmoid": "binary", "softmax": "multiclass", "log-softmax": "multiclass"}.get(match.ending)
    if told is not None:
        left_out.append(f"the module ends in a {match.ending}; gatelens explains the logit before it")
        if task not in (None, told):
            raise InvalidInputError(f"task is {task!r}; {name} ends in a {match.ending}, so its task is {told!r}.")
        task = "binary" if told == "binary" else "multiclass"
    elif task is None:
        assumed.append(_assumed_task(adopted.config))
    about = {
        "file": name,
        "format": "PyTorch module",
        "found": found,
        "assumed": assumed,
        "left_out": left_out,
    }
    return _made(adopted, pooling or match.pooling, task or adopted.config.task, about)


@contextmanager
def _refusing(name: str, refusal: type[GatelensError]) -> Iterator[None]:
    """Put the source's name before a refusal, and make it of the kind that fits the source."""
    try:
        yield
    except GatelensError as error:
        raise refusal(f"{name}: {error}") from None


def _copied(model: LSTMModel, pooling: Pooling | None, task: Task | None) -> LSTMModel:
    for name, value, own in (("pooling", pooling, model.config.pooling), ("task", task, model.config.task)):
        if value not in (None, own):
            raise InvalidInputError(f"{name} is {value!r}; this LSTMModel's is {own!r}. Leave it out, the model knows.")
    with _refusing("LSTMModel", ModelError):
        check_is_as_configured(model)
    weights = {name: value.detach().cpu().clone().contiguous() for name, value in model.state_dict().items()}
    with torch.device("meta"):
        copy = LSTMModel(model.config, model.data)
    return with_weights(copy, weights)


def _agreed_pooling(adopted: Adopted, pooling: Pooling | None) -> Pooling:
    """Return the pooling that the caller and the weights agree on."""
    own = adopted.config.pooling
    if pooling == "attention" and own != "attention":
        raise InvalidInputError(
            "pooling is 'attention'; the weights hold none of LSTMModel's form (pooling.query, pooling.key.weight, "
            f"pooling.key.bias). {ANY_MODULE}"
        )
    if own == "attention" and pooling not in (None, "attention"):
        raise InvalidInputError(f"pooling is {pooling!r}; the weights hold an attention. Leave pooling out.")
    return pooling or own


def _assumed_task(config: LSTMConfig) -> str:
    if config.task == "regression":
        return "task 'regression' is assumed for the one output; pass task='binary' if it is a logit"
    return f"task 'multiclass' is assumed for the {config.output_size} outputs; else pass task='binary' or 'regression'"


def _made(adopted: Adopted, pooling: Pooling, task: Task, about: Mapping[str, Any]) -> LSTMModel:
    """Return the model, on the adopted weights."""
    config = replace(adopted.config, pooling=pooling, task=task)
    with torch.device("meta"):  # nothing is drawn from the global random generator
        model = LSTMModel(config, DataSpec(provenance={"adopted": about}))
    return with_weights(model, adopted.weights)
