"""Finding explainers by name: the built-in ones, and plug-ins of the entry-point group `gatelens.explainers`."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from ..models import GatelensError, InvalidInputError, InvalidTypeError, Predictor
from ..models.config import Task
from ..models.errors import nearest_name
from ..models.opened import is_plain
from ..models.pooling import WeightedPooling
from ..models.predictor import Output
from ..models.recorder import lstm_modules
from ..models.retain import RETAIN
from ..models.state import kept_buffers, seeded
from .attribution import Attribution
from .base import Completeness, Explainer, Needs, as_predictor, unpacked
from .opened import OpenedExplainer

ENTRY_POINT_GROUP = "gatelens.explainers"

BUILT_IN = {
    "integrated_gradients": "captum:IntegratedGradients",
    "gradient_shap": "shap:GradientSHAP",
    "kernel_shap": "shap:KernelSHAP",
    "lime": "lime:LIME",
    "deeplift": "deeplift:DeepLIFT",
    "deep_shap": "deeplift:DeepSHAP",
    "temporal_shapley": "temporal_shapley:TemporalShapley",
    "gate_saliency": "gate_saliency:GateSaliency",
    "lrp": "lrp:LRP",
    "contextual_decomposition": "contextual_decomposition:ContextualDecomposition",
    "cell_decomposition": "cell_decomposition:CellDecomposition",
    "saliency": "captum:Saliency",
    "input_x_gradient": "captum:InputXGradient",
    "smooth_grad": "captum:SmoothGrad",
    "occlusion": "occlusion:Occlusion",
    "attention": "attention:Attention",
    "retain": "retain:RetainContributions",
    "temporal_saliency_rescaling": "rescaling:TemporalSaliencyRescaling",
}

DEFAULT_METHODS = ("deeplift", "integrated_gradients", "temporal_shapley", "gate_saliency", "lime")


@dataclass(frozen=True)
class Entry:
    """One explainer that `get` knows.

    Attributes:
        name: What it is called.
        origin: "gatelens", or the package that brings it.
        error: Why it cannot be used; None if it can.
        explainer: The class; None if it cannot be used.
    """

    name: str
    origin: str
    error: str | None
    explainer: type[Explainer] | None

    @property
    def summary(self) -> str:
        """One line about it, or why it cannot be used."""
        if self.explainer is None:
            return f"cannot be used: {self.error}"
        return self.explainer.summary


def available() -> dict[str, Entry]:
    """Return name -> `Entry` of all explainers; a broken plug-in is listed with its error."""
    entries = {}
    for name, where in BUILT_IN.items():
        module, attribute = where.split(":")
        explainer = getattr(importlib.import_module(f".{module}", __package__), attribute)
        entries[name] = Entry(name, "gatelens", None, explainer)
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        origin = point.dist.name if point.dist is not None else "unknown package"
        if point.name in entries:
            entries[f"{point.name} ({origin})"] = Entry(point.name, origin, "its name is already taken", None)
            continue
        entries[point.name] = _load(point, origin)
    return entries


def _load(point: importlib.metadata.EntryPoint, origin: str) -> Entry:
    try:
        explainer = point.load()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a stranger's module raises
        return Entry(point.name, origin, f"{type(error).__name__}: {error}", None)
    if not (isinstance(explainer, type) and issubclass(explainer, Explainer)):
        return Entry(point.name, origin, f"{point.value} is not a subclass of gatelens.explainers.Explainer", None)
    for attribute in ("name", "summary"):
        if not isinstance(getattr(explainer, attribute, None), str):
            return Entry(point.name, origin, f"{point.value} has no class attribute {attribute!r}", None)
    for attribute, known in (("needs", get_args(Needs)), ("completeness", get_args(Completeness))):
        value = getattr(explainer, attribute)
        if value not in known:
            return Entry(
                point.name, origin, f"{point.value} has {attribute} {value!r}; known: {', '.join(known)}", None
            )
    return Entry(point.name, origin, None, explainer)


def get(name: str) -> type[Explainer]:
    """Return the explainer class of that name.

    Raises:
        InvalidInputError: There is none, or its plug-in is broken.
    """
    if name in BUILT_IN:  # without looking at what else is installed
        module, attribute = BUILT_IN[name].split(":")
        explainer: type[Explainer] = getattr(importlib.import_module(f".{module}", __package__), attribute)
        return explainer
    entries = available()
    if name not in entries:
        raise InvalidInputError(f"there is no explainer {name!r}; {nearest_name(str(name), entries)}")
    entry = entries[name]
    if entry.explainer is None:
        raise InvalidInputError(f"the explainer {name!r} of {entry.origin} cannot be used: {entry.error}.")
    return entry.explainer


def make_explainer(name: str, predictor: Predictor, options: Mapping[str, Any]) -> Explainer:
    """Return the explainer of that name, made with these options.

    Raises:
        InvalidInputError, InvalidTypeError: There is none, or the options do not fit.
    """
    return _made(get(name), predictor, options)


def _made(cls: type[Explainer], predictor: Predictor, options: Mapping[str, Any]) -> Explainer:
    try:
        return cls(predictor, **options)
    except TypeError as error:
        if isinstance(error, GatelensError):
            raise
        raise InvalidTypeError(f"the options of {cls.name} do not fit: {error}.") from None


def _works_on(explainer: type[Explainer], predictor: Predictor) -> bool:
    """Whether the model has what the method needs."""
    if explainer.needs == "function":
        return True
    module = predictor.module
    if issubclass(explainer, OpenedExplainer):  # whether a module can be rewritten is seen by doing it
        return module is not None and is_plain(module)
    if explainer.needs == "attention":
        return isinstance(getattr(module, "pooling", None), WeightedPooling)
    if explainer.needs == "retain":
        return isinstance(module, RETAIN)
    return module is not None and (explainer.needs == "gradient" or bool(lstm_modules(module)))


def explain(
    model: Any,
    inputs: Any,
    methods: Sequence[str] | None = None,
    *,
    target: Any = None,
    lengths: Any = None,
    baseline: Any = "zero",
    output: Output = "logit",
    task: Task | None = None,
    seed: int = 0,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    progress: bool = False,
    sample_names: Any = None,
    times: Any = None,
) -> dict[str, Attribution]:
    """Explain the same predictions by several methods.

    Args:
        model: Anything an `Explainer` takes.
        inputs: Float (B, T, D), token ids (B, T), or a `SequenceData` (which brings lengths, names and times).
        methods: Names of explainers; None: those of `DEFAULT_METHODS` that work on this model.
        target: See `Explainer.explain`; resolved once, so that all methods explain the same number.
        lengths: (B,) or None.
        baseline: For all methods, unless `options` says otherwise.
        output: "logit" or "probability".
        task: What a foreign model's scores are.
        seed: For all methods.
        options: Method name -> options of its own, e.g. {"lime": {"players": "cell"}}.
        progress: Show progress bars on standard error.
        sample_names: (B,) names.
        times: (B, T) datetimes.

    Returns:
        Method name -> `Attribution`, in the order asked for.
    """
    if isinstance(methods, str):
        methods = (methods,)
    inputs, lengths, sample_names, times = unpacked(inputs, lengths, sample_names, times)
    predictor = as_predictor(model, output=output, task=task)
    if methods is None:
        methods = [name for name in DEFAULT_METHODS if _works_on(get(name), predictor)]
    if not methods:
        raise InvalidInputError("methods is empty; name at least one, e.g. methods=('integrated_gradients',).")
    options = dict(options or {})
    for name in options:
        if name not in methods:
            raise InvalidInputError(
                f"options are given for {name!r}, which is not among methods; {', '.join(methods)}."
            )
    classes = {name: get(name) for name in methods}
    checked, lengths = predictor.check(inputs, lengths)
    explainers = {}
    for name, cls in classes.items():
        explainers[name] = _made(cls, predictor, {"baseline": baseline, "seed": seed, **options.get(name, {})})
    with seeded(seed), kept_buffers(predictor.module):
        resolved = predictor.resolve_target(checked, target, lengths)
    found: Any = resolved.output
    if resolved.timestep is not None:
        window = slice(resolved.timestep, None if resolved.last is None else resolved.last + 1)
        found = (resolved.timestep if resolved.last is None else window, resolved.output)
    return {
        name: explainer.explain(
            checked, target=found, lengths=lengths, progress=progress, sample_names=sample_names, times=times
        )
        for name, explainer in explainers.items()
    }
