"""The contenders of `peers.py`: as in `contenders.py`, but coalition methods switch whole timesteps on and off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from contenders import (
    Call,
    Contender,
    Setting,
    by_captum,
    by_shap,
    by_tint,
    ours,
    recurrent_lime,
)
from numpy.typing import NDArray
from torch import Tensor, nn


def game(model: nn.Module, row: Tensor, setting: Setting) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return the value of coalitions of timesteps, (N, T) -> (N,), of a sequence (1, T, D): the others are 0."""

    def value(coalitions: NDArray[Any]) -> NDArray[Any]:
        on = torch.as_tensor(np.asarray(coalitions) == 1)[..., None]
        with torch.no_grad():
            parts = [model(torch.where(part, row, 0.0)) for part in on.split(setting.rows)]
        return torch.cat(parts)[:, 0].double().numpy()  # type: ignore[no-any-return]

    return value


def by_timestep(solve: Callable[[nn.Module, Tensor, Setting], NDArray[Any]]) -> Call:
    """Return the call of a method that gives one sequence's timesteps (T,), shared here among features."""

    def call(model: nn.Module, inputs: Tensor, setting: Setting) -> NDArray[Any]:
        steps = np.stack([np.asarray(solve(model, row[None], setting)).reshape(-1) for row in inputs])  # (b, T)
        return np.repeat(steps[..., None] / inputs.shape[2], inputs.shape[2], axis=2)

    return call


def _tint_occlusion(model: nn.Module, inputs: Tensor, _setting: Setting) -> NDArray[Any]:
    import tint.attr

    features = inputs.shape[2]
    found = tint.attr.Occlusion(model).attribute(
        inputs, sliding_window_shapes=(1, features), baselines=torch.zeros_like(inputs), target=0
    )
    return found.detach().numpy() / features  # each feature gets what the whole timestep did


def _shap_kernel(model: nn.Module, row: Tensor, setting: Setting) -> NDArray[Any]:
    import shap

    steps = row.shape[1]
    np.random.seed(setting.seed)  # noqa: NPY002 - shap draws from the global generator
    explainer = shap.KernelExplainer(game(model, row, setting), np.zeros((1, steps)))
    return np.asarray(
        explainer.shap_values(np.ones((1, steps)), nsamples=setting.evaluations, l1_reg=False, silent=True)
    )


def _shapiq_kernel(model: nn.Module, row: Tensor, setting: Setting) -> NDArray[Any]:
    import shapiq.approximator

    approximator = shapiq.approximator.KernelSHAP(row.shape[1], pairing_trick=True, random_state=setting.seed)
    return np.asarray(approximator.approximate(setting.evaluations, game(model, row, setting)).get_n_order_values(1))


def _of_timesteps(name: str) -> Call:
    """Return the call of a method of captum that takes a mask of what belongs together: a timestep."""

    def call(model: nn.Module, inputs: Tensor, setting: Setting) -> NDArray[Any]:
        import captum.attr

        steps = inputs.shape[1]
        mask = torch.arange(steps)[None, :, None].repeat(1, 1, inputs.shape[2])
        alone = name == "KernelShap"  # as captum's page has it: sequences do not share a surrogate
        given = {"perturbations_per_eval": max(1, setting.rows // (1 if alone else len(inputs)))}
        if name == "ShapleyValueSampling":
            given["n_samples"] = max(1, setting.evaluations // steps)
        elif alone:
            given["n_samples"] = setting.evaluations
        method = getattr(captum.attr, name)(model)
        parts = inputs.split(1) if alone else (inputs,)
        found = [method.attribute(part.clone(), baselines=0.0, target=0, feature_mask=mask, **given) for part in parts]
        return torch.cat(found).detach().numpy() / inputs.shape[2]

    return call


def _captum_integrated(model: nn.Module, inputs: Tensor, setting: Setting) -> NDArray[Any]:
    method = by_captum("IntegratedGradients", n_steps=50, internal_batch_size=setting.gradient_rows)
    return method.call(model, inputs, setting)


def _samples(setting: Setting) -> dict[str, Any]:
    return {"samples": setting.evaluations}


CONTENDERS = (
    ours("deeplift"),
    ours("temporal_shapley"),
    ours("integrated_gradients", lambda _: {"steps": 50}),
    ours("gradient_shap", lambda _: {"samples": 50}),
    ours("kernel_shap", _samples),
    ours("occlusion"),
    ours("lime", _samples),
    by_captum("DeepLift"),
    Contender("captum", "IntegratedGradients", _captum_integrated),
    by_captum("GradientShap", n_samples=50),
    Contender("captum", "FeatureAblation", _of_timesteps("FeatureAblation")),
    Contender("captum", "ShapleyValueSampling", _of_timesteps("ShapleyValueSampling")),
    Contender("captum", "KernelShap", _of_timesteps("KernelShap")),
    by_shap("DeepExplainer"),
    by_shap("GradientExplainer"),
    Contender("shap", "KernelExplainer", by_timestep(_shap_kernel)),
    Contender("shapiq", "KernelSHAP, in pairs", by_timestep(_shapiq_kernel)),
    Contender("lime", "RecurrentTabularExplainer", recurrent_lime),
    by_tint("TemporalIntegratedGradients"),
    Contender("time-interpret", "Occlusion", _tint_occlusion),
)
BY_TITLE = {contender.title: contender for contender in CONTENDERS}
