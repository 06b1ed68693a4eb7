"""RETAIN: a model whose score is a sum over timesteps and features, with weights that two recurrent networks give.

With v_t the embedding of timestep t, and two networks that read the sequence from its end to its beginning,

    v_t = W_emb x_t                          linear, without a bias: x_t = 0 gives nothing
    g_t = RNN_alpha(v_L, ..., v_t)           e_t = w_alpha . g_t + b_alpha,  alpha = softmax(e)   how much t counts
    h_t = RNN_beta(v_L, ..., v_t)            beta_t = tanh(W_beta h_t + b_beta)                   which parts of v_t do
    c = sum_t alpha_t beta_t * v_t           score_k = w_k . c + b_k

a score is linear in each v_t once alpha and beta are known, so that cell (t, d) gives alpha_t w_k . (beta_t * W_emb,d)
x_td to it, and all cells together the score less its bias.

Source: Choi, Bahadori, Sun, Kulas, Schuetz & Stewart 2016, "RETAIN: An Interpretable Predictive Model for Healthcare
using Reverse Time Attention Mechanism", sections 2.2 and 2.3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from .config import Task, check_choice, check_count, check_shared, check_tokens, plain_integer
from .data_spec import DataSpec
from .errors import InvalidInputError, nearest_name
from .inputs import valid_mask
from .recorder import reading
from .sequence_model import SequenceModel

if TYPE_CHECKING:
    from .trace import Trace

Cell = Literal["gru", "lstm"]


@dataclass(frozen=True, kw_only=True)
class RETAINConfig:
    """Architecture of a `RETAIN`.

    Args:
        input_size: Features D of a float input (B, T, D). Leave it out for token ids.
        embedding_dim: Width E of the linear embedding of a timestep.
        alpha_size: Hidden units of the network that weighs timesteps.
        beta_size: Hidden units of the network that weighs the parts of an embedding.
        cell: What the two networks are: "gru" (as in the paper) or "lstm".
        output_size: Outputs K: quantities of a regression, logits of a binary task, or classes.
        task: "regression", "binary" or "multiclass".
        dropout: Probability of dropping a part of an embedding or of the context c, in training only.
        vocab_size: Number of token ids; makes the input long (B, T).
        padding_index: Token id that stands for "no token": its embedding is 0 and stays so.

    Raises:
        InvalidInputError: A value is out of range, or the parts do not fit together.
    """

    input_size: int | None = None
    embedding_dim: int = 64
    alpha_size: int = 64
    beta_size: int = 64
    cell: Cell = "gru"
    output_size: int = 1
    task: Task = "regression"
    dropout: float = 0.0
    vocab_size: int | None = None
    padding_index: int = 0

    def __post_init__(self) -> None:
        sizes = ("embedding_dim", "alpha_size", "beta_size")
        for name in ("input_size", "output_size", "vocab_size", "padding_index", *sizes):
            object.__setattr__(self, name, plain_integer(getattr(self, name)))
        for name in sizes:
            check_count(name, getattr(self, name))
        check_choice("cell", self.cell, get_args(Cell))
        check_shared(self.task, self.output_size, self.dropout, self.padding_index)
        if self.vocab_size is not None:
            check_count("vocab_size", self.vocab_size)
            check_tokens(self.input_size, self.vocab_size, self.padding_index)
        elif self.input_size is None:
            raise InvalidInputError("input_size is missing; give the number of features, or vocab_size for token ids.")
        else:
            check_count("input_size", self.input_size)

    @property
    def reads_tokens(self) -> bool:
        """Whether inputs are token ids, long (B, T), rather than floats (B, T, D)."""
        return self.vocab_size is not None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RETAINConfig:
        """Make a config from `to_dict`'s values; unknown names are refused."""
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise InvalidInputError(
                    f"the RETAIN config has the unknown entry {name!r}; {nearest_name(name, known)}"
                )
        return cls(**values)


class RETAIN(SequenceModel):
    """Reverse time attention over a linear embedding (see the module's text).

    `model(inputs, lengths)` returns scores (B, K): the regression's values, or logits. Padding is at the end and never
    influences a score. What each cell gives to a score is exact: `contributions`, and the explainer "retain".

    Args:
        config: The architecture.
        data: What the numbers mean (feature names, units, classes, scaling); saved with the model.
    """

    def __init__(self, config: RETAINConfig, data: DataSpec | None = None) -> None:
        super().__init__(config, data)
        self.config: RETAINConfig = config
        width = config.embedding_dim
        self.embedding: nn.Embedding | nn.Linear
        if config.vocab_size is not None:
            self.embedding = nn.Embedding(config.vocab_size, width, padding_idx=config.padding_index)
        else:
            assert config.input_size is not None  # checked by RETAINConfig
            self.embedding = nn.Linear(config.input_size, width, bias=False)
        network = nn.GRU if config.cell == "gru" else nn.LSTM
        self.alpha_network = network(width, config.alpha_size, batch_first=True)
        self.alpha_score = nn.Linear(config.alpha_size, 1)
        self.beta_network = network(width, config.beta_size, batch_first=True)
        self.beta_gate = nn.Linear(config.beta_size, width)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(width, config.output_size)

    def forward(self, inputs: Any, lengths: Any = None) -> Tensor:
        """Return scores (B, K).

        Args:
            inputs: Float (B, T, D), or token ids, long (B, T).
            lengths: Long (B,), valid timesteps of each sequence; None: all T.

        Raises:
            InvalidInputError: A shape, an id or a length does not fit.
        """
        values, lengths = self.prepare(inputs, lengths)
        embedded = self.dropout(self.embedding(values))  # (B, T, E)
        alpha, beta = self._attend(embedded, lengths)
        context = (alpha[..., None] * beta * embedded).sum(dim=1)  # (B, E)
        return self.head(self.dropout(context))  # type: ignore[no-any-return]

    def attention(self, inputs: Any, lengths: Any = None) -> tuple[Tensor, Tensor]:
        """Return alpha (B, T), which sums to 1 over valid timesteps and is 0 at padding, and beta (B, T, E).

        Args:
            inputs: Float (B, T, D), or token ids, long (B, T).
            lengths: Long (B,) or None.
        """
        values, lengths = self.prepare(inputs, lengths)
        return self._attend(self.embedding(values), lengths)

    def contributions(self, inputs: Any, lengths: Any = None, *, output: Any = 0) -> Tensor:
        """Return what each cell gives to a score, (B, T, D), of token ids (B, T, 1); their sum is score less bias.

        Args:
            inputs: Float (B, T, D), or token ids, long (B, T).
            lengths: Long (B,) or None.
            output: Which of the K scores: a number, or one a sequence, long (B,).
        """
        values, lengths = self.prepare(inputs, lengths)
        embedded = self.embedding(values)  # (B, T, E)
        alpha, beta = self._attend(embedded, lengths)
        outputs = torch.as_tensor(output, device=embedded.device).expand(len(embedded))  # (B,)
        slopes = alpha[..., None] * beta * self.head.weight[outputs][:, None]  # (B, T, E), d score / d v_t
        if isinstance(self.embedding, nn.Linear):
            return (slopes @ self.embedding.weight) * values  # (B, T, E) @ (E, D) -> (B, T, D)
        found: Tensor = (slopes * embedded).sum(dim=2, keepdim=True)  # (B, T, 1)
        return found

    def trace(self, inputs: Any, lengths: Any = None) -> Trace:
        """Return the gates and states of both networks where cell is "lstm", at the inputs' own timesteps.

        Args:
            inputs: Float (B, T, D), or token ids, long (B, T).
            lengths: Long (B,) or None.

        Returns:
            "alpha_network.0" and "beta_network.0" -> tensors (B, T, H), 0 at padding.

        Raises:
            ModelError: The networks are GRUs.
        """
        from .predictor import Predictor
        from .tracing import trace_of

        predictor = Predictor(self)
        return trace_of(predictor, *predictor.check(inputs, lengths))

    def save(self, folder: str | Path) -> Path:
        """Write the model as a folder: config.json, weights.safetensors, data.json; whole or not at all."""
        from .saved import save

        return save(self, folder)

    def _attend(self, embedded: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha (B, T) and beta (B, T, E) of embeddings (B, T, E)."""
        steps = embedded.shape[1]
        valid = valid_mask(lengths, steps).to(embedded.device)  # (B, T)
        time = torch.arange(steps, device=embedded.device)
        order = torch.where(valid, valid.sum(dim=1, keepdim=True) - 1 - time, time)  # (B, T), its own inverse
        backwards = _take(embedded, order)
        energy = self.alpha_score(_run(self.alpha_network, backwards, order))  # (B, T, 1)
        beta = torch.tanh(self.beta_gate(_run(self.beta_network, backwards, order)))  # (B, T, E)
        return torch.softmax(energy[..., 0].masked_fill(~valid, -math.inf), dim=1), beta


def _take(values: Tensor, order: Tensor) -> Tensor:
    """Return values (B, T, E) at the timesteps `order` (B, T)."""
    return values.gather(1, order[..., None].expand(-1, -1, values.shape[2]))


def _run(network: nn.RNNBase, backwards: Tensor, order: Tensor) -> Tensor:
    """Return the hidden states (B, T, H) of what is read in `order`, at the timesteps that they belong to."""
    if isinstance(network, nn.LSTM):
        with reading(network, order):  # so that recorded gates stand at the inputs' own timesteps
            return _take(network(backwards)[0], order)
    return _take(network(backwards)[0], order)
