"""Whoever explains: gatelens's explainers and those of captum, shap, lime and time-interpret, behind one call.

Each is asked the same: the contribution of every cell to the one answer of a model (b, L, D) -> (b, 1), against the
baseline 0. A peer gets the model itself, and is called as its documentation says; sampling methods get the same number
of model evaluations. time-interpret is not among gatelens's dependencies: `pip install time-interpret` beside it.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gatelens.explainers import get
from gatelens.models import GatelensError


@dataclass(frozen=True)
class Setting:
    """What contenders may need beside the model and the inputs.

    Attributes:
        train: (N, T, D), sequences the model was trained on, of at least the inputs' length.
        evaluations: Model evaluations a sequence, for sampling methods.
        seed: For everything random.
        rows: Sequences that the model takes at once, for methods that let one choose.
        gradient_rows: The same where gradients are asked for.
        counted: Where gatelens's explainers add their forward and backward evaluations.
    """

    train: NDArray[np.float32]
    evaluations: int
    seed: int = 0
    rows: int = 512
    gradient_rows: int = 200
    counted: list[int] = field(default_factory=list)


Call = Callable[[nn.Module, Tensor, Setting], NDArray[Any]]


@dataclass(frozen=True)
class Contender:
    """One explainer of one library.

    Attributes:
        library: Who brings it.
        name: Its name there.
        call: (model, inputs (b, L, D), setting) -> (b, L, D).
    """

    library: str
    name: str
    call: Call

    @property
    def title(self) -> str:
        """What tables call it."""
        return f"{self.library} {self.name}".strip()


class FailedError(Exception):
    """A contender that cannot explain this model, with what the table says about it."""


def run(contender: Contender, model: nn.Module, inputs: Tensor, setting: Setting) -> NDArray[np.float64]:
    """Return the attributions (b, L, D).

    Raises:
        FailedError: It raised, or gave something that is no finite number for each cell.
    """
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(None):
            warnings.simplefilter("ignore")
            torch.manual_seed(setting.seed)
            values = np.asarray(contender.call(model, inputs, setting), dtype=np.float64)
    except ImportError as error:
        raise FailedError(f"not installed here ({error.name}): `pip install time-interpret`") from error
    except GatelensError as error:
        raise FailedError(f"does not apply: {shortened(str(error))}") from error
    except Exception as error:  # whatever a library raises is what its row says
        raise FailedError(f"{type(error).__name__}: {shortened(str(error))}") from error
    if values.shape != tuple(inputs.shape):
        raise FailedError(f"gave shape {values.shape} for inputs of {tuple(inputs.shape)}")
    if not np.isfinite(values).all():
        raise FailedError("gave NaN or infinite values")
    return values


def shortened(message: str) -> str:
    """Return the first sentence, fit for a table's cell."""
    line = " ".join(message.split()).replace("|", "/")
    first = line.split(". ")[0].split("; ")[0]
    return first if len(first) <= 90 else first[:87] + "..."


def ours(name: str, options: Callable[[Setting], dict[str, Any]] = lambda _: {}) -> Contender:
    """Return one of gatelens's explainers."""

    def call(model: nn.Module, inputs: Tensor, setting: Setting) -> NDArray[Any]:
        task: Any = None if hasattr(model, "config") else "regression"  # the raw score of a foreign model
        explainer = get(name)(model, task=task, seed=setting.seed, **options(setting))
        found = explainer.explain(inputs, target=0)
        attributes = found.dataset.attrs
        setting.counted.append(int(attributes["forward_evaluations"]) + int(attributes["backward_evaluations"]))
        return found.values

    return Contender("gatelens", name, call)


def sampled(name: str) -> Contender:
    """Return one of gatelens's coalition methods, a player a cell."""
    key = {"temporal_shapley": "evaluations"}.get(name, "samples")
    return ours(name, lambda setting: {"players": "cell", key: setting.evaluations})


def draws(inputs: Tensor, setting: Setting) -> int:
    """Return how many values each cell may be replaced by, one at a time, within the evaluations; 10 at most."""
    return min(10, max(1, setting.evaluations // inputs[0].numel()))


def with_background(name: str, **options: Any) -> Contender:
    """Return one of gatelens's explainers, against training sequences instead of 0."""

    def call(model: nn.Module, inputs: Tensor, setting: Setting) -> NDArray[Any]:
        background = setting.train[: draws(inputs, setting), : inputs.shape[1]]
        return ours(name, lambda _: {**options, "background": background}).call(model, inputs, setting)

    return Contender("gatelens", f"{name}, background", call)


def _of_probability(model: nn.Module, inputs: Tensor, setting: Setting) -> NDArray[Any]:
    """Return integrated gradients of the probability: most of its way is where the model makes up its mind.

    The log-odds go on growing long after that, and so do the gradients that their average is made of. It does not apply
    to a regression.
    """
    return ours("integrated_gradients", lambda _: {"steps": 50, "output": "probability"}).call(model, inputs, setting)


def _at_baseline(model: nn.Module, inputs: Tensor, setting: Setting) -> NDArray[Any]:
    """Return the first-order expansion at the baseline: (input - baseline) times the gradient at the baseline.

    It helps where the model saturates soon on the way to the input, as gradients there have nothing left to say. What
    the model does anywhere but next to the baseline is not in it, so it does not add up, and sequences differ only in
    the inputs that one map of the model is multiplied with.
    """
    signed = ours("saliency", lambda _: {"absolute": False})
    gradient = signed.call(model, torch.zeros_like(inputs[:1]), setting)  # (1, L, D)
    return np.asarray(gradient * inputs.numpy())


def _random(_model: nn.Module, inputs: Tensor, setting: Setting) -> NDArray[Any]:
    return np.random.default_rng(setting.seed).standard_normal(tuple(inputs.shape))


def by_captum(name: str, **options: Any) -> Contender:
    def call(model: nn.Module, inputs: Tensor, _setting: Setting) -> NDArray[Any]:
        import captum.attr

        method = getattr(captum.attr, name)(model)
        given: dict[str, Any] = {"baselines": torch.zeros_like(inputs[:1] if name == "GradientShap" else inputs)}
        if name == "Saliency":  # knows none
            given = {}
        found: Tensor = method.attribute(inputs.clone(), target=0, **given, **options)
        return found.detach().numpy()

    return Contender("captum", name, call)


def _captum_lime(model: nn.Module, inputs: Tensor, setting: Setting) -> NDArray[Any]:
    from captum.attr import Lime

    method = Lime(model)
    rows = [
        method.attribute(row[None], target=0, n_samples=setting.evaluations, perturbations_per_eval=256)
        for row in inputs
    ]
    return torch.cat(rows).detach().numpy()


def captum_smooth(model: nn.Module, inputs: Tensor, _setting: Setting) -> NDArray[Any]:
    """Return captum's SmoothGrad, with noise of 15 % of the inputs' range, as its paper has it."""
    from captum.attr import NoiseTunnel, Saliency

    noise = 0.15 * float(inputs.max() - inputs.min())
    method = NoiseTunnel(Saliency(model))
    found = method.attribute(
        inputs.clone(), nt_type="smoothgrad", nt_samples=GRADIENT_SAMPLES, stdevs=noise, target=0, abs=False
    )
    return found.detach().numpy()  # type: ignore[no-any-return]


def by_shap(name: str, *, background: bool = False) -> Contender:
    """Return one of shap's gradient methods, against 0, or against training sequences, as shap's pages have it."""

    def call(model: nn.Module, inputs: Tensor, setting: Setting) -> NDArray[Any]:
        import shap

        references = torch.zeros_like(inputs[:1])
        if background:
            references = torch.as_tensor(setting.train[: draws(inputs, setting), : inputs.shape[1]])
        if name == "GradientExplainer":
            method = shap.GradientExplainer(model, references, batch_size=setting.gradient_rows)
            found = method.shap_values(inputs.clone(), nsamples=GRADIENT_SAMPLES, rseed=setting.seed)
        else:
            found = shap.DeepExplainer(model, references).shap_values(inputs.clone(), check_additivity=False)
        return np.asarray(found).reshape(inputs.shape)

    return Contender("shap", f"{name}, background" if background else name, call)


def recurrent_lime(model: nn.Module, inputs: Tensor, setting: Setting) -> NDArray[Any]:
    from lime.lime_tabular import RecurrentTabularExplainer

    batch, steps, features = inputs.shape
    explainer = RecurrentTabularExplainer(
        setting.train[:, :steps], mode="regression", feature_names=[str(index) for index in range(features)],
        random_state=setting.seed,
    )  # fmt: skip

    def answers(rows: NDArray[Any]) -> NDArray[Any]:
        with torch.no_grad():
            parts = torch.as_tensor(rows, dtype=inputs.dtype).split(setting.rows)
            return torch.cat([model(part) for part in parts])[:, 0].numpy()

    found = np.zeros((batch, features * steps))
    for row, values in zip(inputs.numpy(), found, strict=True):
        explained = explainer.explain_instance(
            row, answers, num_features=steps * features, num_samples=setting.evaluations
        )
        for cell, weight in explained.local_exp[1]:
            values[cell] = weight
    return found.reshape(batch, features, steps).transpose(0, 2, 1)


def by_tint(name: str) -> Contender:
    """Return one of time-interpret's methods."""

    def call(model: nn.Module, inputs: Tensor, setting: Setting) -> NDArray[Any]:
        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        import tint.attr

        if name == "AugmentedOcclusion":
            train = torch.as_tensor(setting.train[:, : inputs.shape[1]])
            found = tint.attr.AugmentedOcclusion(model, data=train, n_sampling=draws(inputs, setting)).attribute(
                inputs, sliding_window_shapes=(1, 1), target=0, attributions_fn=abs
            )
        else:  # TemporalIntegratedGradients, which integrates anew for each timestep
            steps = min(50, max(2, setting.evaluations // inputs.shape[1]))
            found = tint.attr.TemporalIntegratedGradients(model).attribute(
                inputs, baselines=torch.zeros_like(inputs), target=0, n_steps=steps
            )
        return found.detach().numpy()

    return Contender("time-interpret", name, call)


GRADIENT_SAMPLES = 50
OURS = (
    ours("deeplift"),
    sampled("temporal_shapley"),
    ours("integrated_gradients", lambda _: {"steps": 50}),
    ours("gate_saliency"),
    ours("lrp"),
    ours("cell_decomposition"),
    ours("occlusion", lambda _: {"players": "cell"}),
    sampled("lime"),
    sampled("kernel_shap"),
    ours("gradient_shap", lambda _: {"samples": GRADIENT_SAMPLES}),
    ours("temporal_saliency_rescaling"),
    ours("contextual_decomposition"),
    ours("saliency"),
    ours("smooth_grad"),
    with_background("deep_shap"),
    with_background("gradient_shap", samples=GRADIENT_SAMPLES),
    with_background("occlusion", players="cell"),
    Contender("gatelens", "integrated_gradients of the probability", _of_probability),
    Contender("gatelens", "saliency at the baseline, times input", _at_baseline),
)
PEERS = (
    by_captum("IntegratedGradients", n_steps=50),
    by_captum("Saliency"),
    by_captum("DeepLift"),
    by_captum("FeatureAblation", perturbations_per_eval=64),
    by_captum("GradientShap", n_samples=GRADIENT_SAMPLES),
    Contender("captum", "Lime", _captum_lime),
    Contender("captum", "NoiseTunnel", captum_smooth),
    by_shap("GradientExplainer"),
    by_shap("GradientExplainer", background=True),
    by_shap("DeepExplainer"),
    by_shap("DeepExplainer", background=True),
    Contender("lime", "RecurrentTabularExplainer", recurrent_lime),
    by_tint("TemporalIntegratedGradients"),
    by_tint("AugmentedOcclusion"),
)
RANDOM = Contender("", "random", _random)
CONTENDERS = (*OURS, *PEERS, RANDOM)
