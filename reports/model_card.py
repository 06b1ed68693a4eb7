"""What a model is, in rows a person can read: architecture, size, features, training data and held-out metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..models import DataSpec, KerasModel, LSTMModel, Predictor, SequenceModel
from ..models.keras_model import KerasConfig
from ..models.recorder import lstm_modules
from ..models.retain import RETAIN
from ..models.sequence_model import ModelConfig
from .evidence import Check
from .wording import joined, number

MOST_EPOCHS = 10_000  # of a curve that is told


@dataclass(frozen=True)
class ModelCard:
    """Rows about a model.

    Attributes:
        rows: (label, text) about the whole.
        layers: (name, kind, input width, output width, parameters) of each layer that has parameters.
        features: (name, unit, how it is made, center, scale).
        found: What was recognised in a file that somebody else's program wrote, as sentences.
        assumed: What that file does not say and was assumed.
        left_out: What of that file was not taken over.
        metrics: Model or trivial forecast -> metric -> value, on held-out data.
        curves: How the training went: measure -> one number an epoch, as `plot_training` draws them.
        output_unit: Unit of a regression's errors.
    """

    rows: tuple[tuple[str, str], ...]
    layers: tuple[tuple[str, str, str, str, int], ...]
    features: tuple[tuple[str, str, str, float, float], ...]
    metrics: Mapping[str, Mapping[str, float]]
    found: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    output_unit: str = ""

    def __str__(self) -> str:
        """The rows and the layers as a table, e.g. to print a model's summary."""
        wide = max(len(label) for label, _ in self.rows)
        lines = [f"{label.ljust(wide)}  {text}" for label, text in self.rows]
        if self.layers:
            rows = [("layer", "kind", "reads", "gives", "parameters")]
            rows += [(name, kind, reads, gives, f"{count:,}") for name, kind, reads, gives, count in self.layers]
            widths = [max(len(row[place]) for row in rows) for place in range(5)]
            lines.append("")
            for name, kind, *numbers in rows:
                right = "  ".join(text.rjust(width) for text, width in zip(numbers, widths[2:], strict=True))
                lines.append(f"{name.ljust(widths[0])}  {kind.ljust(widths[1])}  {right}")
        return "\n".join(lines)


def describe(model: Any) -> ModelCard:
    """Return the card of an `LSTMModel`, any module, a function, or a `Predictor` around one."""
    predictor = model if isinstance(model, Predictor) else Predictor(model)
    data = predictor.data or DataSpec()
    rows: list[tuple[str, str]] = [("Kind", _kind(predictor))]
    adopted = data.provenance.get("adopted")
    adopted = adopted if isinstance(adopted, Mapping) else {}
    if "file" in adopted:
        rows.append(("Read from", f"{adopted['file']} ({adopted.get('format', 'unknown format')})"))
    layers: list[tuple[str, str, str, str, int]] = []
    if predictor.module is not None:
        count = sum(parameter.numel() for parameter in predictor.module.parameters())
        rows.append(("Parameters", f"{count:,}"))
        layers = _layers(predictor.module)
    reads = _reads(predictor, data)
    if reads:
        rows.append(("Reads", reads))
    rows.append(("Explained", _explained(predictor)))
    if data.target:
        rows.append(("Predicts", data.target + (f" ({data.target_note})" if data.target_note else "")))
    if data.classes or data.outputs:
        rows.append(("Classes" if data.classes else "Outputs", ", ".join(data.classes or data.outputs)))
    if data.baseline_description:
        rows.append(("Baseline", data.baseline_description))
    for name, label in (("data", "Trained on"), ("split", "Split"), ("seed", "Seed"), ("script", "Training script"),
                        ("intended_use", "Intended use")):  # fmt: skip
        if name in data.provenance:
            rows.append((label, str(data.provenance[name])))
    curves = _curves(data)
    if curves:
        rows.append(("Training", _training_words(data.provenance["training"], curves)))
    rows.append(("Hash" if predictor.module is not None else "Function", predictor.model_id()))
    features = tuple(
        (feature.name, feature.unit, _made_from(feature), feature.center, feature.scale) for feature in data.features
    )
    found, assumed, left_out = (_sentences(adopted.get(name)) for name in ("found", "assumed", "left_out"))
    return ModelCard(
        tuple(rows), tuple(layers), features, _metrics(data), found, assumed, left_out, curves, data.output_unit
    )


def metric_sentence(card: ModelCard) -> str:
    """Return how good the model is beside the best trivial forecast, in one sentence; "" where nothing is known."""
    check = metric_check(card)
    return "" if check is None else check.text


def metric_check(card: ModelCard) -> Check | None:
    """Return how good the model is beside the best trivial forecast; it asks for care where that one does better."""
    rows = dict(card.metrics)
    names = list(rows)
    metric = next((name for name in ("accuracy", "mae") if names and name in rows[names[0]]), None)
    if metric is None:
        return None
    own = rows.pop(names[0])[metric]
    others = {name: row[metric] for name, row in rows.items() if metric in row}
    best = (max if metric == "accuracy" else min)(others, key=lambda name: others[name], default="")
    if metric == "accuracy":
        told = [f"{number(100 * value, digits=2)} %" for value in (own, others.get(best, own))]
        text = f"On held-out data the model is right {told[0]} of the time"
    else:
        unit = f" {card.output_unit}" if card.output_unit else ""
        told = [f"by {number(value, digits=3)}{unit}" for value in (own, others.get(best, own))]
        text = f"On held-out data the model is off {told[0]} on average"
    if not others:
        return Check("metrics", passed=True, text=f"{text}.")
    beaten = others[best] > own if metric == "accuracy" else others[best] < own
    does = " does better," if beaten and told[0] != told[1] else ""
    simple = f"the best simple forecast ({best.replace('_', ' ')}){does} {told[1]}"
    return Check("metrics", passed=not does, text=f"{text}; {simple}.")


def _sentences(value: Any) -> tuple[str, ...]:
    """Return a list of sentences from a file's free provenance; nothing where it is none."""
    return tuple(map(str, value)) if isinstance(value, (list, tuple)) else ()


def _kind(predictor: Predictor) -> str:
    if predictor.module is None:
        return f"function {predictor.model_id()}"
    module = predictor.module
    lstms = lstm_modules(module).values()
    if isinstance(module, KerasModel):
        each = [
            f"{part.hidden_size} units{' each way' if getattr(part, 'bidirectional', False) else ''}" for part in lstms
        ]
        layers = (
            f"an LSTM layer of {each[0]}" if len(each) == 1 else f"LSTM layers of {joined(each)}" if each else "no LSTM"
        )
        steps = ", one output a timestep" if per_timestep(module.config) else ""
        return f"Keras model with {layers}{steps}, {_ending(module)}"
    if isinstance(module, RETAIN):
        sizes = f"{module.config.alpha_size} and {module.config.beta_size}"
        return f"RETAIN, two {module.config.cell.upper()}s of {sizes} units that read backwards, {_ending(module)}"
    if not isinstance(module, LSTMModel):
        kinds = joined(
            sorted({f"nn.{'LSTM' if isinstance(part, nn.LSTM) else 'LSTMCell'}" for part in lstms}) or ["LSTM"]
        )
        return f"{type(module).__name__} (PyTorch module) with {len(lstms) or 'no'} {kinds}"
    config = module.config
    count = len(config.hidden_sizes)
    sizes = joined([str(size) for size in config.hidden_sizes])
    parts = [f"LSTM, {count} layer{'s' if count > 1 else ''} of {sizes} units"]
    if config.bidirectional:
        parts.append("bidirectional")
    if config.activation != "tanh":
        parts.append(f"{config.activation} activation")
    words = {"none": "one output a timestep", "dot_attention": "dot-product attention pooling"}
    parts.append(words.get(config.pooling, f"{config.pooling} pooling"))
    parts.append(_ending(module))
    return ", ".join(parts)


def _ending(model: SequenceModel) -> str:
    return f"{model.config.task}, {model.config.output_size} output{'s' if model.config.output_size > 1 else ''}"


def _explained(predictor: Predictor) -> str:
    """Say which number an explanation of this model is about, if nothing else is asked for."""
    if predictor.config is None:
        return "the model's score; with several outputs, the one named by target"
    task, several = predictor.task, predictor.config.output_size > 1
    what = {
        "binary": "the probability (sigmoid) or the score (logit)",
        "multiclass": "the probability (softmax) or the score (logit) of the predicted class",
    }.get(task or "", "the predicted value")
    of = " of the output named by target" if several and task != "multiclass" else ""
    when = ", at the last timestep unless target names another" if per_timestep(predictor.config) else ""
    return f"{what}{of}{when}"


def per_timestep(config: ModelConfig) -> bool:
    """Return whether there are scores for each timestep."""
    return config.per_timestep if isinstance(config, KerasConfig) else getattr(config, "pooling", None) == "none"


def _reads(predictor: Predictor, data: DataSpec) -> str:
    """Return what one sequence is, as far as the model says: "24 timesteps of 3 features, one every 5 minutes"."""
    length, config = data.window.length, predictor.config
    steps = "" if length is None else f"{length} timestep{'' if length == 1 else 's'}"
    if config is None:
        return steps + (steps and _interval_words(data))
    if config.reads_tokens:
        ids = f"token ids, 0 to {(config.vocab_size or 0) - 1:,}"
        return f"{steps} of {ids}" if steps else ids
    what = f"{config.input_size} feature{'' if config.input_size == 1 else 's'}"
    return (f"{steps} of {what}" if steps else f"{what} a timestep") + _interval_words(data)


def _layers(module: nn.Module) -> list[tuple[str, str, str, str, int]]:
    rows = []
    for name, part in module.named_modules():
        own = sum(parameter.numel() for parameter in part.parameters(recurse=False))
        if own == 0:
            continue
        if isinstance(part, nn.RNNBase):
            widths = (str(part.input_size), str((part.proj_size or part.hidden_size) * (1 + part.bidirectional)))
        elif isinstance(part, nn.RNNCellBase):
            widths = (str(part.input_size), str(part.hidden_size))
        elif isinstance(part, nn.Embedding):
            widths = (str(part.num_embeddings), str(part.embedding_dim))
        elif isinstance(part, nn.Linear):
            widths = (str(part.in_features), str(part.out_features))
        else:
            widths = ("", "")
        rows.append((name or "(model)", type(part).__name__, *widths, own))
    return rows


def _interval_words(data: DataSpec) -> str:
    from .wording import duration

    seconds = data.window.interval_seconds
    return "" if seconds is None else f", one every {duration(seconds).removeprefix('1 ')}"


def _made_from(feature: Any) -> str:
    words = {
        "identity": "column {}",
        "difference": "change of {} since the timestep before",
        "day_sine": "sine of the time of day in {}",
        "day_cosine": "cosine of the time of day in {}",
    }
    return words[feature.transform].format(feature.source)


def _metrics(data: DataSpec) -> dict[str, dict[str, float]]:
    """Return provenance.metrics where it has the form model -> metric -> number; foreign forms are left out."""
    found = data.provenance.get("metrics")
    if not isinstance(found, Mapping):
        return {}
    result = {}
    for name, row in found.items():
        if isinstance(row, Mapping):
            numbers = {
                str(k): float(v) for k, v in row.items() if isinstance(v, (int, float)) and not isinstance(v, bool)
            }
            if numbers:
                result[str(name)] = numbers
    return result


def _curves(data: DataSpec) -> dict[str, tuple[float, ...]]:
    """Return the curves of provenance.training, one number an epoch each; what has another form is left out."""
    found = data.provenance.get("training")
    if not isinstance(found, Mapping):
        return {}
    curves = {
        str(name): tuple(map(float, values))
        for name, values in found.items()
        if isinstance(values, (list, tuple))
        and 0 < len(values) <= MOST_EPOCHS
        and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    }
    return curves if any(name != "epoch" for name in curves) else {}


def _training_words(told: Mapping[str, Any], curves: Mapping[str, tuple[float, ...]]) -> str:
    """Return how long it was trained and whose epoch's weights the model holds."""
    epochs = len(next(values for name, values in curves.items() if name != "epoch"))
    text = f"{epochs:,} epoch{'' if epochs == 1 else 's'}"
    best = told.get("best_epoch")
    if isinstance(best, int) and 0 < best <= epochs:
        held = curves.get("validation loss")
        lowest = "" if held is None or len(held) < best else f", validation loss {number(held[best - 1])}"
        text += f"; the weights are those of epoch {best}{lowest}"
    return text + ("; stopped as it got no better" if told.get("stopped") == "patience" else "")
