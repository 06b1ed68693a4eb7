"""Hypothesis strategies of models and inputs, and models with reproducible weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from gatelens.models import LSTMConfig, LSTMModel

POOLINGS = ("last", "mean", "max", "attention", "dot_attention", "none")


class Case(NamedTuple):
    """A float64 model in eval mode, with inputs (B, T, D) or ids (B, T), and lengths (B,)."""

    model: LSTMModel
    inputs: Tensor
    lengths: Tensor


def make_model(seed: int = 0, *, data: Any = None, dtype: torch.dtype = torch.float64, **config: Any) -> LSTMModel:
    """Return a model whose weights depend on `seed` only, in eval mode; torch's global generator stays untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LSTMModel(LSTMConfig(**config), data).to(dtype).eval()


def make_inputs(model: LSTMModel, batch: int, steps: int, seed: int = 0) -> Tensor:
    """Return random inputs (B, T, D) or ids (B, T) that `model` reads."""
    generator = torch.Generator().manual_seed(seed)
    if model.config.vocab_size is not None:
        return torch.randint(model.config.vocab_size, (batch, steps), generator=generator)
    return torch.randn(
        batch, steps, model.config.layer_input_sizes[0], generator=generator, dtype=model.head.weight.dtype
    )


@st.composite
def cases(draw: st.DrawFn, *, tokens: bool | None = None) -> Case:
    """Draw a reference LSTM of any kind with a batch of any lengths."""
    reads_tokens = draw(st.booleans()) if tokens is None else tokens
    batch, steps = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    reads = (
        {"vocab_size": draw(st.integers(2, 6)), "embedding_dim": draw(st.integers(1, 4))}
        if reads_tokens
        else {"input_size": draw(st.integers(1, 5))}
    )
    seed = draw(st.integers(0, 2**16))
    model = make_model(
        seed,
        **reads,
        hidden_sizes=tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))),
        output_size=draw(st.integers(1, 3)),
        bidirectional=draw(st.booleans()),
        pooling=draw(st.sampled_from(POOLINGS)),
        activation=draw(st.sampled_from(["tanh", "relu"])),
        dropout=0.5,
    )
    lengths = torch.tensor(draw(st.lists(st.integers(1, steps), min_size=batch, max_size=batch)))
    return Case(model, make_inputs(model, batch, steps, seed), lengths)
