"""How good explanations are: completeness beside the peers, exact Shapley values, a task with known answers, cost.

`python benchmarks/quality.py` trains four small models (seeded, a minute or two) and prints:

1. what DeepLIFT of captum and shap leave unexplained on an `nn.LSTM`, beside gatelens;
2. every explainer against exact Shapley values of 16 timesteps: Pearson's r and the relative L2 error;
3. the arithmetic task of Arras et al. 2019 (two marked numbers, added or subtracted): how each marked timestep's
   attribution follows its number;
4. what the exact methods cost, in fused forward and backward passes.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pages import section
from recorder import in_turn
from torch import Tensor, nn

from gatelens.explainers import Contribution, Explainer, Problem, get
from gatelens.models import LSTMConfig, LSTMModel, ModelError

STEPS, FEATURES, HIDDEN = 16, 8, 64
METHODS: dict[str, dict[str, Any]] = {
    "temporal_shapley": {},
    "deeplift": {},
    "integrated_gradients": {},
    "kernel_shap": {"samples": 1024},
    "gradient_shap": {},
    "lime": {"samples": 1024},
    "occlusion": {},
    "lrp": {},
    "contextual_decomposition": {},
    "cell_decomposition": {},
    "input_x_gradient": {},
    "smooth_grad": {},
    "saliency": {},
    "gate_saliency": {},
}


def sections() -> list[str]:
    """Return the page's lines, and print them."""
    torch.manual_seed(0)
    models = {"1 layer": trained((HIDDEN,)), "2 layers": trained((HIDDEN, HIDDEN))}
    inputs = torch.randn(20, STEPS, FEATURES, generator=torch.Generator().manual_seed(9))
    pages = section("What DeepLIFT leaves unexplained", WHAT_GAPS, gaps(models, inputs))
    pages += section("Distance to exact Shapley values", WHAT_QUALITY, quality(models, inputs))
    pages += section("Two marked numbers", WHAT_TOY, arithmetic())
    return pages + section("What the exact methods cost", WHAT_COST, cost())


WHAT_GAPS = (
    "Largest |f(x) - f(baseline) - sum| over 20 sequences, as a share of the mean |f(x) - f(baseline)|, on trained "
    "LSTMs (T = 16, D = 8, H = 64, zero baseline). captum and shap treat `nn.LSTM` as one linear step."
)
WHAT_QUALITY = (
    "Per-timestep attributions of 20 sequences beside exact Shapley values over 16 timesteps: mean Pearson's r, and "
    "relative L2 error (|a - s| / |s|). Methods of absolute values (saliency, smooth_grad) cannot have signs right."
)
WHAT_TOY = (
    "An LSTM learns to add or subtract the two marked numbers of a sequence (Arras et al. 2019). Pearson's r, over 200 "
    "sequences, between the attribution of each marked timestep and its number with its sign."
)
WHAT_COST = (
    "Median seconds of explaining (B, T, D, H) = (32, 100, 16, 64) as multiples of one fused forward and backward "
    "pass, in turn in one run; checks, predictions and the result object included, which the last row shows alone."
)


def trained(sizes: tuple[int, ...]) -> LSTMModel:
    """Return a model of a task that needs gates: what a switch let in, held until a reset, times what comes later."""
    torch.manual_seed(1)
    model = LSTMModel(LSTMConfig(input_size=FEATURES, hidden_sizes=sizes))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(1500):
        inputs = torch.randn(128, STEPS, FEATURES)
        loss = nn.functional.mse_loss(model(inputs)[:, 0], truth(inputs))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"trained {sizes}: mean squared error {loss.item():.3f} of {float(truth(inputs).var()):.3f}", flush=True)
    return model.eval()


def truth(inputs: Tensor) -> Tensor:
    """Return what the model learns, (B,)."""
    level, total = inputs.new_zeros(len(inputs)), inputs.new_zeros(len(inputs))
    for step in inputs.unbind(dim=1):  # (B, D)
        total = total + level * step[:, 2].tanh()
        level = torch.where(step[:, 3] > 1, 0.0, level + (step[:, 0] > 0) * step[:, 1])
    return total / 3


def timesteps(method: str, model: LSTMModel, inputs: Tensor, **options: Any) -> NDArray[np.float64] | None:
    """Return the attribution of every timestep (B, T), or None where the method does not take the model."""
    try:
        return get(method)(model, **options).explain(inputs).timesteps
    except ModelError:
        return None


def gaps(models: dict[str, LSTMModel], inputs: Tensor) -> list[list[str]]:
    """Return the shares that are left unexplained."""
    import shap
    from captum.attr import DeepLift

    rows = [["", *models]]
    found: dict[str, list[float]] = {"gatelens deeplift": [], "captum DeepLift": [], "shap DeepExplainer": []}
    for model in models.values():
        baseline = torch.zeros_like(inputs)
        with torch.no_grad():
            difference = (model(inputs) - model(baseline))[:, 0].double().numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            captum = DeepLift(model).attribute(inputs, baseline).detach().double().numpy()
            theirs = shap.DeepExplainer(model, baseline[:1]).shap_values(inputs, check_additivity=False)
        ours = timesteps("deeplift", model, inputs)
        assert ours is not None
        sums = ours.sum(axis=1), captum.sum(axis=(1, 2)), np.asarray(theirs).reshape(len(inputs), -1).sum(axis=1)
        for name, total in zip(found, sums, strict=True):
            found[name].append(float(np.abs(difference - total).max() / np.abs(difference).mean()))
    return rows + [[name, *(f"{gap:.1e}" for gap in values)] for name, values in found.items()]


def quality(models: dict[str, LSTMModel], inputs: Tensor) -> list[list[str]]:
    """Return r and relative error of each method on each model."""
    rows = [["method", *(f"{name}: {what}" for name in models for what in ("r", "error"))]]
    exact = {name: timesteps("temporal_shapley", model, inputs) for name, model in models.items()}
    for method, options in METHODS.items():
        if method == "temporal_shapley":
            continue
        row = [method]
        for name, model in models.items():
            reference, values = exact[name], timesteps(method, model, inputs, **options)
            assert reference is not None
            if values is None:
                row += ["does not apply", ""]
                continue
            r = np.mean([np.corrcoef(a, s)[0, 1] for a, s in zip(values, reference, strict=True)])
            error = np.mean(np.linalg.norm(values - reference, axis=1) / np.linalg.norm(reference, axis=1))
            row += [f"{r:.3f}", f"{error:.3f}"]
        rows.append(row)
    return rows


def arithmetic() -> list[list[str]]:
    """Return how attributions follow the marked numbers."""
    rows = [["method", "add", "subtract"]]
    models = {task: toy(task) for task in ("add", "subtract")}
    batch = {task: marked(200, task, torch.Generator().manual_seed(5)) for task in models}
    for method, options in METHODS.items():
        row = [method]
        for task, model in models.items():
            inputs, _, places, numbers = batch[task]
            values = timesteps(
                method, model, inputs, **({**options, "evaluations": 256} if "shapley" in method else options)
            )
            if values is None:
                row.append("does not apply")
                continue
            own = np.take_along_axis(values, places.numpy(), axis=1)
            row.append(f"{np.corrcoef(own.ravel(), numbers.numpy().ravel())[0, 1]:.4f}")
        rows.append(row)
    return rows


def marked(count: int, task: str, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return inputs (N, 10, 3), results (N,), the marked places (N, 2) and their numbers with their signs (N, 2)."""
    steps = 10
    numbers = torch.rand(count, steps, generator=generator) * 2 - 1
    places = torch.rand(count, steps, generator=generator).argsort(dim=1)[:, :2].sort(dim=1).values
    inputs = torch.zeros(count, steps, 3)
    rows = torch.arange(count)
    for index in range(2):
        inputs[rows, places[:, index], index] = numbers[rows, places[:, index]]
    other = torch.ones(count, steps, dtype=torch.bool)
    other[rows[:, None], places] = False
    inputs[..., 2] = numbers * other
    signs = torch.tensor([1.0, 1.0 if task == "add" else -1.0])
    own = numbers.gather(1, places) * signs
    return inputs, own.sum(dim=1), places, own


def toy(task: str) -> LSTMModel:
    """Return an LSTM of one unit, as in the paper, that has learned the task."""
    torch.manual_seed(2)
    generator = torch.Generator().manual_seed(3)
    model = LSTMModel(LSTMConfig(input_size=3, hidden_sizes=(1,)))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6000)
    for _ in range(6000):
        inputs, result, _, _ = marked(256, task, generator)
        loss = nn.functional.mse_loss(model(inputs)[:, 0], result)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    print(f"trained to {task}: mean squared error {loss.item():.2e}", flush=True)
    return model.eval()


class Nothing(Explainer):
    """What checks, predictions and the result object cost by themselves."""

    name = "nothing"
    summary = "gives 0"

    def _attribute(self, problem: Problem) -> Contribution:
        return Contribution(torch.zeros_like(problem.inputs))


def cost() -> list[list[str]]:
    """Return the cost of the exact methods in fused forward and backward passes."""
    rows = [["method", "1 layer", "2 layers"]]
    inputs = torch.randn(32, 100, 16)
    methods = ("deeplift", "lrp", "cell_decomposition", "gate_saliency")
    idle = "(an explainer that does nothing)"
    found: dict[str, list[str]] = {method: [] for method in (*methods, idle)}
    for sizes in ((64,), (64, 64)):
        model = LSTMModel(LSTMConfig(input_size=16, hidden_sizes=sizes)).eval()

        def both(model: LSTMModel = model) -> None:
            leaf = inputs.clone().requires_grad_()
            torch.autograd.grad(model(leaf).sum(), leaf)

        explainers = [*(get(method)(model) for method in methods), Nothing(model)]
        ways = [lambda explainer=explainer: explainer.explain(inputs).timesteps for explainer in explainers]
        for method, (_, ratio) in zip(found, in_turn(both, *ways)[1:], strict=True):
            found[method].append(f"{ratio:.2f}")
    return rows + [[method, *values] for method, values in found.items()]


if __name__ == "__main__":
    sections()
