"""What the interface costs: each explainer of gatelens beside the bare library doing the same, in one run.

`python benchmarks/interface.py` prints the median of several runs of each, in turn, and their ratio. A ratio near 1
means that checking, labelling and counting cost nothing that matters. Gate saliency has no peer library; it stands
beside autograd through a loop over `nn.LSTMCell`, which is what one writes by hand.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from lime.lime_tabular import LimeTabularExplainer
from pages import section
from torch import Tensor, nn

from gatelens.explainers import LIME, GateSaliency, GradientSHAP, IntegratedGradients, KernelSHAP
from gatelens.models import LSTMConfig, LSTMModel

BATCH, STEPS, FEATURES, HIDDEN = 8, 50, 8, 64
RUNS = 5


WHAT = (
    f"B = {BATCH}, T = {STEPS}, D = {FEATURES}, H = {HIDDEN}; medians of {RUNS} runs, taken in turn. Gate saliency has "
    "no peer library; it stands beside autograd through a loop over `nn.LSTMCell`."
)


def sections() -> list[str]:
    """Return the page's lines, and print them."""
    import shap

    torch.manual_seed(0)
    model = LSTMModel(LSTMConfig(input_size=FEATURES, hidden_sizes=(HIDDEN,))).eval()
    inputs = torch.randn(BATCH, STEPS, FEATURES)
    one = inputs[:1]

    def game(z: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        on = torch.as_tensor(z == 1)[:, :, None]
        with torch.no_grad():
            return torch.cat([model(part) for part in torch.where(on, one, 0.0).split(1024)])[:, 0].numpy()

    def bare_lime() -> None:
        both = np.array([[0] * STEPS, [1] * STEPS])
        explainer = LimeTabularExplainer(
            both, mode="regression", categorical_features=range(STEPS), discretize_continuous=False,
            feature_selection="none", random_state=np.random.RandomState(0),
        )  # fmt: skip
        explainer.explain_instance(np.ones(STEPS), game, num_features=STEPS, num_samples=2000)

    def bare_kernel() -> None:
        explainer = shap.KernelExplainer(game, np.zeros((1, STEPS)))
        explainer.shap_values(np.ones((1, STEPS)), nsamples=2148, l1_reg=False, silent=True)

    def bare_gradient_shap() -> None:
        shap.GradientExplainer(model, torch.zeros_like(one), batch_size=200).shap_values(one, nsamples=200, rseed=0)

    rows: list[tuple[str, Callable[[], object], str, Callable[[], object]]] = [
        (
            f"integrated_gradients, 32 steps, batch {BATCH}",
            lambda: IntegratedGradients(model, steps=32).explain(inputs),
            "captum", lambda: CaptumIntegratedGradients(model).attribute(inputs, n_steps=32, target=0),
        ),
        ("lime, 2000 samples, batch 1", lambda: LIME(model).explain(one), "lime", bare_lime),
        ("kernel_shap, 2148 coalitions, batch 1", lambda: KernelSHAP(model).explain(one), "shap", bare_kernel),
        ("gradient_shap, 200 samples, batch 1", lambda: GradientSHAP(model).explain(one), "shap", bare_gradient_shap),
        (
            f"gate_saliency, batch {BATCH}", lambda: GateSaliency(model).explain(inputs), "LSTMCell loop + autograd",
            lambda: gates_by_hand(model, inputs),
        ),
    ]  # fmt: skip
    table = [["explainer", "gatelens, s", "peer", "peer, s", "gatelens / peer"]]
    for name, ours, peer, theirs in rows:
        mine, other = side_by_side(ours, theirs)
        table.append([name, f"{mine:.3f}", peer, f"{other:.3f}", f"{mine / other:.2f}"])
    return section("What the interface costs", WHAT, table)


def side_by_side(ours: Callable[[], object], theirs: Callable[[], object]) -> tuple[float, float]:
    """Return the median seconds of both, run in turn after one warm-up each."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(RUNS + 1):
        for call, found in zip((ours, theirs), times, strict=True):
            start = time.perf_counter()
            call()
            found.append(time.perf_counter() - start)
    return statistics.median(times[0][1:]), statistics.median(times[1][1:])


def gates_by_hand(model: LSTMModel, inputs: Tensor) -> list[Tensor]:
    """Return the gradients of all gates from autograd through a plain loop, as one would write it."""
    layer = model.lstm[0]
    assert isinstance(layer, nn.LSTM)
    weight_ih, weight_hh = layer.weight_ih_l0, layer.weight_hh_l0
    bias = layer.bias_ih_l0 + layer.bias_hh_l0
    h = c = inputs.new_zeros(len(inputs), HIDDEN)
    gates: list[Tensor] = []
    for t in range(inputs.shape[1]):
        i, f, g, o = (inputs[:, t] @ weight_ih.T + h @ weight_hh.T + bias).chunk(4, dim=1)
        step = [i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()]
        c = step[1] * c + step[0] * step[2]
        h = step[3] * c.tanh()
        gates += step
    return list(torch.autograd.grad(model.head(h).sum(), gates))


if __name__ == "__main__":
    sections()
