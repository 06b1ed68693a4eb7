"""`Predictor`: the one way explainers call a model, whatever it is.

It knows how to batch to a memory budget, where the model lives, how to leave it as found, what to do with lengths a
model does not take, which number is explained, and how many evaluations were spent.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from .config import Task
from .data_spec import DataSpec
from .errors import GatelensError, InvalidInputError, InvalidTypeError, ModelError, nearest_name
from .inputs import as_tensor, check_finite, check_ids, check_inputs, check_lengths, clear_padding
from .saved import model_hash
from .sequence_model import SequenceModel
from .state import evaluation_mode
from .targets import Target, resolve_target

Output = Literal["logit", "probability"]

DEFAULT_MEMORY_BYTES = 512 * 2**20
MAX_ROWS = 8192
# What a batch may keep on the CPU, and rows that it has whatever they keep: what is beyond leaves the caches, and is
# given back to the system and taken anew for each batch, which costs as much as the computation (measured).
QUICK_BYTES = 40 * 2**20
LEAST_ROWS = 16


class Predictor:
    """A model, ready to be explained.

    Args:
        model: `LSTMModel` or another `SequenceModel`; any `nn.Module` called as `module(inputs)` or
            `module(inputs, lengths)`; or a plain callable on numpy arrays of the same form. It returns scores (B, K),
            (B,) or per timestep (B, T, K).
        task: What the scores of a foreign model are: "regression", "binary" (one logit), "multiclass" (K logits).
        output: Explain the raw score ("logit") or the probability made from it (sigmoid or softmax; needs a task).
        memory_bytes: Budget for one batch of evaluations.

    Attributes:
        forward_evaluations: Rows evaluated so far.
        backward_evaluations: Rows differentiated so far.
    """

    def __init__(
        self,
        model: Any,
        *,
        task: Task | None = None,
        output: Output = "logit",
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
    ) -> None:
        if not callable(model):
            raise InvalidTypeError(
                f"model is a {type(model).__name__}; expected an LSTMModel, an nn.Module, or a function from arrays "
                "(batch, time, features) to scores (batch, outputs). For a saved model use load(folder); of an object "
                "with a predict method pass model.predict."
            )
        if output not in get_args(Output):
            raise InvalidInputError(f"output is {output!r}; {nearest_name(str(output), get_args(Output))}")
        if task is not None and task not in get_args(Task):
            raise InvalidInputError(f"task is {task!r}; {nearest_name(str(task), get_args(Task))}")
        self.model = model
        self.module: nn.Module | None = model if isinstance(model, nn.Module) else None
        self.config = model.config if isinstance(model, SequenceModel) else None
        if self.config is not None and task not in (None, self.config.task):
            raise InvalidInputError(
                f"task is {task!r}, and this {type(model).__name__}'s task is {self.config.task!r}; leave task out, "
                "the model knows."
            )
        self.task: Task | None = self.config.task if self.config else task
        self.output: Output = output
        self.memory_bytes = memory_bytes
        self.forward_evaluations = 0
        self.backward_evaluations = 0
        self._in_time = True
        self._held = False  # in eval mode, by `evaluation`
        if output == "probability" and self.task not in ("binary", "multiclass"):
            known = "it is a regression" if self.task == "regression" else "its task is not known"
            raise InvalidInputError(
                f"output='probability' needs a model of classes, and {known}; pass task='binary' or task='multiclass' "
                "if its scores are logits, or use output='logit'."
            )
        self.accepts_lengths = _accepts_lengths(model)

    @property
    def data(self) -> DataSpec | None:
        """What the model's numbers mean, where it says so."""
        data = getattr(self.model, "data", None)
        return data if isinstance(data, DataSpec) else None

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        parameter = next(self.module.parameters(), None) if self.module is not None else None
        return torch.device("cpu") if parameter is None else parameter.device

    @property
    def dtype(self) -> torch.dtype:
        """The model's float type; a callable's is that of its inputs, and float32 where something must be said."""
        if self.module is not None:
            for parameter in self.module.parameters():
                if parameter.dtype.is_floating_point:
                    return parameter.dtype
        return torch.float32

    @property
    def reads_tokens(self) -> bool:
        """Whether the model is known to read token ids."""
        return self.config is not None and self.config.reads_tokens

    @property
    def follows_time(self) -> bool:
        """Whether outputs of each timestep, as `predict` last returned them, stand at the inputs' own timesteps."""
        return self._in_time

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names that may stand for outputs: classes, or the outputs of a regression."""
        return () if self.data is None else self.data.classes or self.data.outputs

    def model_id(self) -> str:
        """Return a hash of a module's weights, or the name of a function."""
        if self.module is not None:
            return model_hash(self.module)
        return (
            f"{getattr(self.model, '__module__', '?')}.{getattr(self.model, '__qualname__', type(self.model).__name__)}"
        )

    def check(self, inputs: Any, lengths: Any) -> tuple[Tensor, Tensor]:
        """Return inputs (B, T, D) or ids (B, T), with padding cleared, and lengths (B,); refuse what is wrong."""
        config = self.config
        given = as_tensor(inputs)
        if given.is_inference():  # autograd cannot work on it
            given = given.clone()
        own = given.dtype if given.dtype.is_floating_point else torch.float32  # a function gets what it is given
        checked = check_inputs(
            given,
            features=config.input_size if config else None,
            vocab_size=config.vocab_size if config else None,
            dtype=own if self.module is None else self.dtype,
        )
        lengths = check_lengths(lengths, checked.shape[0], checked.shape[1])
        if checked.ndim == 2:
            check_ids(checked, lengths, config.vocab_size if config else None)
        check_finite(checked, lengths)
        return clear_padding(checked, lengths).to(self.device), lengths

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Hold the model in eval mode with frozen parameters; as found afterwards, also after an error."""
        if self._held:
            yield
            return
        self._held = True
        try:
            with evaluation_mode(self.module, freeze=True):
                yield
        finally:
            self._held = False

    @contextmanager
    def differentiation(self) -> Iterator[None]:
        """`evaluation` with gradients on. cuDNN refuses a backward pass in eval mode, so its kernels are left out."""
        with (
            torch.inference_mode(False),
            self.evaluation(),
            torch.enable_grad(),
            torch.backends.cudnn.flags(enabled=False),
        ):
            yield

    def scores(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Return raw scores (B, K) or (B, T, K) of one batch, differentiable where the model is.

        A model that takes no lengths sees each sequence without its padding, equal lengths together. Scores of each
        timestep have all T of them again, also where the model stops at its longest sequence.
        """
        return self._scores(inputs, lengths)[0]

    def _scores(self, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, bool]:
        """Return `scores`, and whether their second axis is that of the inputs' timesteps."""
        steps = inputs.shape[1]
        parts: list[Tensor] = []
        order: list[Tensor] = []
        in_time = True
        for rows, trimmed in self.uniform_blocks(inputs, lengths):
            part = self._call(trimmed, lengths[rows])
            in_time &= part.ndim == 3 and part.shape[1] in (trimmed.shape[1], int(lengths[rows].max()))
            parts.append(part)
            order.append(rows)
        if in_time:
            parts = [nn.functional.pad(part, (0, 0, 0, steps - part.shape[1])) for part in parts]
        if len({part.shape[1:] for part in parts}) > 1:
            shapes = ", ".join(str(tuple(part.shape[1:])) for part in parts)
            raise ModelError(
                f"the model returned different shapes ({shapes}) for sequences of different lengths; expected as many "
                "outputs for each, or one for each timestep."
            )
        if len(parts) == 1:
            return parts[0], in_time
        return torch.cat(parts)[torch.cat(order).argsort().to(parts[0].device)], in_time

    def values(self, inputs: Tensor, target: Target, lengths: Tensor) -> Tensor:
        """Return the explained number of each row, (B,), of one batch, differentiable where the model is."""
        scores = self.scores(inputs, lengths)
        if target.last is not None:  # of a window the numbers are summed, not the scores they are made from
            return target.select(self.activate(scores))
        return Target(target.output).select(self.activate(target.at_timestep(scores)))

    def activate(self, scores: Tensor) -> Tensor:
        """Return scores, or with output "probability" the probabilities made from them."""
        return self.probabilities(scores) if self.output == "probability" else scores

    def probabilities(self, scores: Tensor) -> Tensor:
        """Return the probabilities of logits (..., K): softmax, or sigmoid each for a binary task."""
        return scores.softmax(dim=-1) if self.task == "multiclass" else scores.sigmoid()

    @torch.no_grad()
    def predict(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Return raw scores (B, K) or (B, T, K), without gradients, in batches that fit the budget."""
        with self.evaluation():
            found = [self._scores(inputs[rows], lengths[rows]) for rows in self.batches(inputs)]
        self._in_time = all(in_time for _, in_time in found)
        return torch.cat([scores for scores, _ in found])

    @torch.no_grad()
    def evaluate(self, inputs: Tensor, target: Target, lengths: Tensor) -> Tensor:
        """Return the explained number of each row, (B,), without gradients, in batches that fit the budget."""
        with self.evaluation():
            return torch.cat(
                [self.values(inputs[rows], target.rows(rows), lengths[rows]) for rows in self.batches(inputs)]
            )

    def resolve_target(self, inputs: Tensor, target: Any, lengths: Tensor) -> Target:
        """Return the `Target` that `target` means for these inputs (see `targets.resolve_target`)."""
        return self.resolve_target_of(self.predict(inputs, lengths), inputs, target, lengths)

    def resolve_target_of(self, scores: Tensor, inputs: Tensor, target: Any, lengths: Tensor) -> Target:
        """`resolve_target` where `predict` has just given the scores."""
        steps = inputs.shape[1] if self._in_time else -1  # a horizon of its own follows no input's length
        return resolve_target(
            target, scores, lengths=lengths, steps=steps, task=self.task, class_names=self.class_names
        )

    def batch_rows(self, inputs: Tensor, *, copies: int = 1) -> int:
        """Return how many rows like those of `inputs` fit the budget at once, `copies` numbers kept for each."""
        return max(1, min(MAX_ROWS, self.memory_bytes // self._row_bytes(inputs, copies)))

    def quick_rows(self, inputs: Tensor, *, copies: int = 1) -> int:
        """Return `batch_rows`, or on the CPU fewer, where they take less time each."""
        rows = self.batch_rows(inputs, copies=copies)
        if self.device.type != "cpu":
            return rows
        return min(rows, max(LEAST_ROWS, QUICK_BYTES // self._row_bytes(inputs, copies)))

    def _row_bytes(self, inputs: Tensor, copies: int) -> int:
        """Return what a row takes, `copies` of each number."""
        width = 1 if inputs.ndim == 2 else inputs.shape[2]
        if self.module is not None:
            for part in self.module.modules():
                if isinstance(part, nn.RNNBase):  # the gates, cell and hidden states that a pass keeps
                    width += 8 * part.hidden_size * part.num_layers * (2 if part.bidirectional else 1)
                elif isinstance(part, nn.Linear):
                    width += part.out_features
        return inputs.shape[1] * width * 4 * copies

    def batches(self, inputs: Tensor) -> Iterator[Tensor]:
        """Yield row indices, long (n,), of batches that fit the budget and are quick."""
        yield from torch.arange(inputs.shape[0]).split(self.quick_rows(inputs))

    def uniform_blocks(self, inputs: Tensor, lengths: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (rows, inputs) to call the model with: all at once, or, if it takes no lengths, trimmed by length."""
        steps = inputs.shape[1]
        if self.accepts_lengths or bool((lengths == steps).all()):
            yield torch.arange(inputs.shape[0]), inputs
            return
        for length in lengths.unique():
            rows = (lengths == length).nonzero()[:, 0]
            yield rows, inputs[rows.to(inputs.device), : int(length)]

    # -- token ids ---------------------------------------------------------------------------------------------------

    def padding_token(self) -> int | None:
        """Return the id that stands for "no token", where the model says which it is."""
        if self.config is not None:
            return self.config.padding_index if self.config.reads_tokens else None
        embedding = self.only_embedding()
        return embedding.padding_idx if embedding is not None else None

    def embedding(self) -> nn.Embedding:
        """Return the model's only token embedding; gradient methods explain what comes out of it.

        Raises:
            ModelError: The model is a function, or holds no or several embeddings.
        """
        found = self._embeddings()
        if len(found) != 1:
            raise ModelError(
                f"gradients through token ids need a torch model with one nn.Embedding; this one has {len(found)}. "
                "Explainers that replace tokens instead: lime, kernel_shap."
            )
        return found[0]

    def only_embedding(self) -> nn.Embedding | None:
        """Return the model's only token embedding, or None where it has none or several."""
        found = self._embeddings()
        return found[0] if len(found) == 1 else None

    def _embeddings(self) -> list[nn.Embedding]:
        return [part for part in self.module.modules() if isinstance(part, nn.Embedding)] if self.module else []

    def values_of_embedded(self, embedded: Tensor, ids: Tensor, target: Target, lengths: Tensor) -> Tensor:
        """Return the explained numbers (B,) when `embedded` (B, T, E) stands in for the embedding of ids (B, T)."""
        blocks = iter(list(self.uniform_blocks(embedded, lengths)))

        def replace(_module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> Tensor:
            block = next(blocks)[1]
            if block.shape != output.shape:
                raise ModelError(
                    f"the embedding returned {tuple(output.shape)} where {tuple(block.shape)} was expected; gradients "
                    "need a model that embeds each token once, in place. Use lime or kernel_shap instead."
                )
            return block

        hook = self.embedding().register_forward_hook(replace)
        try:
            return self.values(ids, target, lengths)
        finally:
            hook.remove()

    # -- the call ----------------------------------------------------------------------------------------------------

    def _call(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        rows = inputs.shape[0]
        try:
            if self.module is not None:
                result = self.module(inputs, **({"lengths": lengths} if self.accepts_lengths else {}))
            else:
                extra = {"lengths": lengths.numpy()} if self.accepts_lengths else {}
                copy = inputs.detach().cpu().numpy().copy()  # a function may write into what it is given
                result = as_tensor(self.model(copy, **extra), "the model's output")
        except GatelensError:
            raise
        except Exception as error:
            raise ModelError(
                f"the model raised {type(error).__name__} on inputs of shape {tuple(inputs.shape)}: {error}"
            ) from error
        if not isinstance(result, Tensor):
            raise ModelError(
                f"the model returned a {type(result).__name__}; expected one tensor of scores (batch, outputs). "
                "Wrap it in a module whose forward returns the scores alone."
            )
        if result.ndim == 1 and result.shape[0] == rows:
            result = result[:, None]
        if result.ndim not in (2, 3) or result.shape[0] != rows or 0 in result.shape:
            raise ModelError(
                f"the model returned shape {tuple(result.shape)} for {rows} sequences; expected ({rows}, outputs), or "
                f"({rows}, time, outputs) for one output a timestep."
            )
        if not result.dtype.is_floating_point:
            result = result.to(self.dtype)
        if not torch.isfinite(result.detach()).all():
            raise ModelError("the model returned NaN or infinite scores; check its weights and the inputs' scaling.")
        self.forward_evaluations += rows
        if result.requires_grad:
            result.register_hook(self._count_backward)
        return result

    def _count_backward(self, gradient: Tensor) -> None:
        self.backward_evaluations += gradient.shape[0]


def _accepts_lengths(model: Callable[..., Any]) -> bool:
    """Whether the model has a parameter called `lengths`."""
    call = model.forward if isinstance(model, nn.Module) else model
    try:
        parameters = inspect.signature(call).parameters
    except (TypeError, ValueError):
        return False
    return "lengths" in parameters
