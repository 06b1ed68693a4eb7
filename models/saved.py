"""Saved models: a folder of config.json, weights.safetensors and data.json, read without executing anything."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .config import LSTMConfig
from .data_spec import DataSpec
from .errors import GatelensError, InvalidInputError, InvalidTypeError, SavedModelError
from .files import replacing_folder
from .lstm import LSTMModel
from .retain import RETAIN, RETAINConfig
from .sequence_model import ModelConfig, SequenceModel
from .weight_files import open_safetensors, weight_fault

FORMATS: dict[str, type[LSTMConfig | RETAINConfig]] = {  # a closed list: no class is looked up by its name
    "gatelens.LSTMModel": LSTMConfig,
    "gatelens.RETAIN": RETAINConfig,
}
FORMAT_VERSION = 1
MAX_JSON_BYTES = 16 * 2**20

CONFIG_FILE, WEIGHTS_FILE, DATA_FILE = "config.json", "weights.safetensors", "data.json"

Saveable = LSTMModel | RETAIN
_SIZES = ("hidden_sizes", "input_size", "vocab_size", "embedding_dim", "alpha_size", "beta_size", "output_size")
_Saveable = TypeVar("_Saveable", bound=Saveable)


def save(model: Saveable, folder: str | Path) -> Path:
    """Write `model` to `folder`: whole or not at all; an older saved model there is replaced.

    Returns:
        The folder.

    Raises:
        InvalidTypeError: It is no model that `load` reads.
        InvalidInputError: The folder cannot be written, holds something else, a weight is not finite, or the data
            description does not fit the model.
    """
    from safetensors.torch import save_file

    if not isinstance(model, (LSTMModel, RETAIN)):
        raise InvalidTypeError(
            f"model is a {type(model).__name__}; expected an LSTMModel or a RETAIN, which load reads."
        )
    folder = check_destination(folder)
    if model.data is not None:
        _check_data_fits(model.config, model.data)
    check_is_as_configured(model)
    weights = {name: value.detach().cpu().clone().contiguous() for name, value in model.state_dict().items()}
    for name, value in weights.items():
        if not torch.isfinite(value).all():
            raise InvalidInputError(f"the weight {name} holds NaN or infinite values; a diverged model is not saved.")
    form = next(form for form, kind in FORMATS.items() if isinstance(model.config, kind))
    config = {"format": form, "format_version": FORMAT_VERSION, "model": model.config.to_dict()}
    data = (model.data or DataSpec()).to_dict()
    with replacing_folder(folder) as beside:
        (beside / CONFIG_FILE).write_text(_dump(config), encoding="utf-8")
        (beside / DATA_FILE).write_text(_dump(data), encoding="utf-8")
        save_file(weights, beside / WEIGHTS_FILE)
    return folder


def check_destination(folder: str | Path) -> Path:
    """Return the folder a model may be saved to; refuse one that holds anything but a saved model."""
    folder = Path(folder)
    if folder.resolve() == Path.cwd():
        raise InvalidInputError("the model cannot replace the folder you are in; name a folder, e.g. 'my_model'.")
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    others = sorted(present - {CONFIG_FILE, WEIGHTS_FILE, DATA_FILE})
    if others or (present and WEIGHTS_FILE not in present):  # a config.json alone is somebody else's
        raise InvalidInputError(
            f"{folder} holds files ({', '.join(others or sorted(present))}) that are not a saved model; "
            "choose an empty or a new folder."
        )
    return folder


def check_is_as_configured(model: Saveable) -> None:
    """Refuse a model whose weights are not those its config describes (pruned, parametrized, of mixed types)."""
    with torch.device("meta"):
        expected = {name: tuple(value.shape) for name, value in _made(model.config).state_dict().items()}
    found = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if found != expected:
        odd = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        raise InvalidInputError(
            f"the weights {', '.join(odd[:4])} are not those of the model's config (it was pruned, parametrized or "
            "changed); make that permanent first, e.g. with torch.nn.utils.prune.remove."
        )
    types = {str(value.dtype).removeprefix("torch.") for value in model.state_dict().values()}
    if len(types) > 1:
        raise InvalidInputError(
            f"the weights are of mixed types ({', '.join(sorted(types))}); use one, e.g. model.float()."
        )


def _made(config: LSTMConfig | RETAINConfig, data: DataSpec | None = None) -> Saveable:
    return LSTMModel(config, data) if isinstance(config, LSTMConfig) else RETAIN(config, data)


def load(folder: str | Path) -> Saveable:
    """Read a saved model, `LSTMModel` or `RETAIN`; it comes back in eval mode, on the CPU.

    Raises:
        SavedModelError: A file is missing, damaged, of a newer format, or the weights do not fit the config.
    """
    folder = Path(folder)
    if not folder.exists():
        raise SavedModelError(f"there is no saved model at {folder}; expected a folder with {CONFIG_FILE}.")
    if not folder.is_dir():
        raise SavedModelError(
            f"{folder} is a file; expected a saved model's folder, as model.save(folder) writes it. "
            "Keras files and PyTorch weights are read by open_model."
        )
    for name in (CONFIG_FILE, WEIGHTS_FILE, DATA_FILE):
        if not (folder / name).is_file():
            raise SavedModelError(
                f"{folder} has no {name}; a saved model is {CONFIG_FILE}, {WEIGHTS_FILE} and {DATA_FILE}. "
                "Copy the whole folder, or save the model again."
            )
    config = _read_config(folder / CONFIG_FILE)
    try:
        data = DataSpec.from_dict(read_json_object(folder / DATA_FILE))
        _check_data_fits(config, data)
    except (InvalidInputError, InvalidTypeError) as error:
        raise SavedModelError(f"{folder / DATA_FILE}: {error}") from None
    try:
        with torch.device("meta"):  # no memory for a config's claims before the weights have borne them out
            model = _made(config, data)
    except (RuntimeError, OverflowError, TypeError):
        sizes = ", ".join(f"{name}={getattr(config, name)}" for name in _SIZES if getattr(config, name, None))
        raise SavedModelError(
            f"{folder / CONFIG_FILE} describes a model too large for any machine ({sizes}); the file is damaged."
        ) from None
    return with_weights(model, _read_weights(folder / WEIGHTS_FILE, model.state_dict()))


def with_weights(model: _Saveable, weights: Mapping[str, Tensor]) -> _Saveable:
    """Return a model made on the meta device with these very tensors as its parameters, in eval mode."""
    model.load_state_dict(weights, assign=True)
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters()
    model.eval()
    return model


def model_hash(model: nn.Module) -> str:
    """Return a short SHA-256 of a module's class, configuration and weights: equal hash, equal predictions."""
    digest = hashlib.sha256()
    digest.update(repr(model.config.to_dict() if isinstance(model, SequenceModel) else str(model)).encode())
    for name, value in sorted(model.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
            digest.update(
                value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
                if value.numel()
                else b""
            )
    return digest.hexdigest()[:16]


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file that may be anything."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise SavedModelError(f"{path} is larger than {MAX_JSON_BYTES // 2**20} MiB; expected a small JSON file.")
        content = path.read_bytes()
    except OSError as error:
        raise SavedModelError(f"{path} cannot be read: {error.strerror}.") from None
    return parse_json_object(content, str(path))


def parse_json_object(content: bytes, where: str) -> dict[str, Any]:
    """Return the JSON object in `content`, which may be anything; `where` begins an error."""
    try:
        values = json.loads(content.decode("utf-8"))
    except RecursionError:
        raise SavedModelError(f"{where} is nested too deeply; expected a small JSON object.") from None
    except UnicodeDecodeError:
        raise SavedModelError(f"{where} is not text; expected JSON in UTF-8.") from None
    except ValueError as error:  # malformed JSON, and numbers beyond what Python parses
        raise SavedModelError(f"{where} is not JSON ({error}); the file is damaged or truncated.") from None
    if not isinstance(values, dict):
        raise SavedModelError(f"{where} holds a {type(values).__name__}; expected a JSON object {{...}}.")
    return values


def _read_config(path: Path) -> LSTMConfig | RETAINConfig:
    values = read_json_object(path)
    form = values.get("format")
    if not isinstance(form, str) or form not in FORMATS:
        raise SavedModelError(f"{path} has format {form!r}; expected {' or '.join(map(repr, FORMATS))}.")
    version = values.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise SavedModelError(f"{path} has format_version {version!r}; expected a whole number.")
    if version > FORMAT_VERSION:
        raise SavedModelError(
            f"{path} has format_version {version}; this gatelens reads up to {FORMAT_VERSION}. Update gatelens."
        )
    model = values.get("model")
    if not isinstance(model, dict):
        raise SavedModelError(f"{path} has no object 'model' with the model's configuration.")
    try:
        return FORMATS[form].from_dict(model)
    except GatelensError as error:
        raise SavedModelError(f"{path}: {error}") from None


def _check_data_fits(config: ModelConfig, data: DataSpec) -> None:
    said = "the data description names"
    if data.features and config.reads_tokens:
        raise InvalidInputError(f"{said} features; the model reads token ids.")
    if data.vocabulary is not None and not config.reads_tokens:
        raise InvalidInputError(f"{said} tokens; the model reads features.")
    if data.features and len(data.features) != config.input_size:
        raise InvalidInputError(f"{said} {len(data.features)} features; the model reads {config.input_size}.")
    if data.baseline is not None and not config.reads_tokens and len(data.baseline) != config.input_size:
        raise InvalidInputError(
            f"baseline has {len(data.baseline)} values; the model reads {config.input_size} features."
        )
    if data.vocabulary is not None and len(data.vocabulary) != config.vocab_size:
        raise InvalidInputError(f"{said} {len(data.vocabulary)} tokens; the model reads {config.vocab_size}.")
    if data.outputs and len(data.outputs) != config.output_size:
        raise InvalidInputError(f"{said} {len(data.outputs)} outputs; the model has {config.output_size}.")
    classes = {"multiclass": (config.output_size,), "binary": (2,), "regression": ()}[config.task]
    if data.classes and len(data.classes) not in classes:
        expected = f"{classes[0]}" if classes else "none"
        raise InvalidInputError(
            f"{said} {len(data.classes)} classes; a {config.task} model of this shape has {expected}."
        )


def _read_weights(path: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    with open_safetensors(path) as file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        for name, value in expected.items():
            if name not in found:
                raise SavedModelError(f"{path} has no weight {name}; it does not belong to this config.json.")
            if found[name] != tuple(value.shape):
                raise SavedModelError(
                    f"{path}: the weight {name} has shape {found[name]}; config.json expects {tuple(value.shape)}."
                )
        for name in sorted(found.keys() - expected.keys()):
            raise SavedModelError(f"{path} has the weight {name}, which config.json knows nothing of.")
        for name in expected:
            weights[name] = file.get_tensor(name).clone()  # aligned memory of its own: same bits, same sums
    for name, value in weights.items():
        fault = weight_fault(value)
        if fault:
            raise SavedModelError(f"{path}: the weight {name} {fault}.")
    types = sorted({str(value.dtype).removeprefix("torch.") for value in weights.values()})
    if len(types) > 1:
        raise SavedModelError(f"{path} holds weights of {' and '.join(types)}; expected one type for all.")
    return weights


def _dump(values: dict[str, Any]) -> str:
    try:
        return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"the data description cannot be written as JSON: {error}.") from None
