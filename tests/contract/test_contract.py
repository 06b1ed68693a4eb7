"""Every explainer keeps the contract, and promises as much as it keeps."""

import functools

import pytest
import torch

from gatelens.explainers import BUILT_IN, IntegratedGradients, get
from gatelens.explainers.checks import CHECKS, ContractError, check_explainer, parametrize_with_checks
from gatelens.explainers.contract import small_model
from helpers.explained import sequences

BACKGROUND = sequences(3, 6, 3, seed=2)
PROMISES = ("completeness", "dummy_player", "missingness", "symmetry", "linearity")

BUILT_IN_EXPLAINERS = [get(name) for name in BUILT_IN]
OTHER_OPTIONS = [
    functools.partial(get(name), **options)
    for name, options in (
        ("lime", {"players": "cell"}),
        ("kernel_shap", {"players": "segment", "segments": 3}),
        ("kernel_shap", {"players": "cell"}),
        ("kernel_shap", {"baseline": "hold_last"}),
        ("temporal_shapley", {"players": "segment", "segments": 3}),
        ("temporal_shapley", {"players": "feature"}),
        ("temporal_shapley", {"players": "cell", "evaluations": 64}),
        ("temporal_shapley", {"players": "cell", "evaluations": 100, "tolerance": 0.5}),
        ("temporal_shapley", {"players": "cell", "evaluations": 1000, "estimator": "kernel_shap"}),
        ("temporal_shapley", {"pruning": 0.5}),
        ("temporal_shapley", {"baseline": "hold_last"}),
        ("integrated_gradients", {"steps": 50}),
        ("integrated_gradients", {"baseline": "linear", "steps": 100}),
        ("integrated_gradients", {"output": "probability"}),
        ("gradient_shap", {"background": BACKGROUND}),
        ("gate_saliency", {"mode": "gradient"}),
        ("saliency", {"absolute": False}),
        ("smooth_grad", {"samples": 5, "absolute": True}),
        ("deeplift", {"output": "probability"}),
        ("deeplift", {"baseline": "hold_last"}),
        ("deep_shap", {"background": BACKGROUND}),
        ("deep_shap", {"background": BACKGROUND, "output": "probability"}),
        ("lrp", {"bias": "shared"}),
        ("lrp", {"epsilon": 0}),
        ("contextual_decomposition", {"players": "cell"}),
        ("contextual_decomposition", {"players": "feature"}),
        ("contextual_decomposition", {"players": "segment", "segments": 2}),
        ("occlusion", {"players": "cell", "baseline": "hold_last"}),
        ("occlusion", {"players": "segment", "segments": 3, "segmentation": "change_point"}),
        ("occlusion", {"background": BACKGROUND}),
        ("occlusion", {"window": 3, "stride": 2}),
        ("temporal_saliency_rescaling", {"method": "occlusion", "threshold": 0}),
        ("temporal_saliency_rescaling", {"method": "smooth_grad", "method_options": {"samples": 5}}),
    )
]


def described(factory):
    """Return the name of an explainer, and the options it is made with."""
    told = {name: "..." if isinstance(value, torch.Tensor) else value for name, value in factory.keywords.items()}
    return f"{factory.func.name}-{told}"


@parametrize_with_checks(BUILT_IN_EXPLAINERS)
def test_built_in_explainers_keep_the_contract(explainer, check):
    """Each built-in explainer passes each check."""
    check(explainer)


@pytest.mark.parametrize("factory", OTHER_OPTIONS, ids=described)
def test_options_keep_the_contract(factory):
    """Explainers made with other options than the default pass all checks."""
    check_explainer(factory)


@pytest.mark.parametrize("factory", [*map(functools.partial, BUILT_IN_EXPLAINERS), *OTHER_OPTIONS], ids=described)
def test_what_is_not_promised_is_not_kept(factory):
    """An explainer that promised exactly what it does not promise would fail that check: no promise is left out."""
    explainer = factory(small_model(factory))
    for promise in PROMISES:
        if getattr(explainer, promise) == "none":
            eager = functools.partial(type("Eager", (factory.func,), {promise: "exact"}), **factory.keywords)
            with pytest.raises(ContractError, match=f"breaks {promise.replace('_', ' ')!r}: .*allow"):
                CHECKS[promise](eager)


def test_a_promise_that_is_none_of_the_known_is_told():
    """A promise in other words than the known ones fails its check, with the words that are known."""

    class Proud(IntegratedGradients):
        symmetry = True

    with pytest.raises(ContractError, match="symmetry is True; expected one of 'exact', 'converges', 'none'"):
        CHECKS["symmetry"](Proud)


def test_check_explainer_passes_options_on():
    """Options of `check_explainer` reach the explainer."""
    with pytest.raises(ContractError, match="steps is 0"):
        check_explainer(IntegratedGradients, steps=0)
