"""`fit`: it learns, repeatably, to the bit also after a kill; it refuses in sentences and leaves what it borrowed."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gatelens.models import (
    DataSpec,
    DivergedError,
    Examples,
    History,
    InvalidInputError,
    InvalidTypeError,
    LSTMConfig,
    LSTMModel,
    SavedModelError,
    SequenceData,
    evaluate,
    fit,
    load,
)

LENGTHS = np.random.default_rng(9).integers(2, 7, 96)


def make(seed=0, **config):
    torch.manual_seed(seed)
    return LSTMModel(LSTMConfig(**{"input_size": 2, "hidden_sizes": (6,), **config}))


def numbers(seed=0, rows=96):
    """Inputs (rows, 6, 2), of which the first feature decides."""
    return np.random.default_rng(seed).normal(size=(rows, 6, 2)).astype(np.float32)


def binary(seed=0, rows=96):
    inputs = numbers(seed, rows)
    return inputs, (inputs[:, -1, 0] > 0).astype(np.int64)


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def curves(history):
    return history.loss, history.training_metric, history.validation_loss, history.validation_metric, history.best_epoch


def tasks():
    inputs = numbers()
    level = inputs[:, -1]
    ids = np.random.default_rng(1).integers(0, 6, (96, 6))
    valid = np.arange(6) < LENGTHS[:, None]
    first = np.arange(96), 0
    yield "regression of two", {"output_size": 2}, (inputs, level * [2, -1])
    yield "regression of one", {}, (inputs, level[:, 0])
    yield "binary", {"task": "binary"}, (inputs, level[:, 0] > 0)
    yield "two yes/no", {"task": "binary", "output_size": 2}, (inputs, level > 0)
    yield "classes", {"task": "multiclass", "output_size": 3}, (inputs, np.digitize(level[:, 0], [-0.5, 0.5]))
    yield "steps", {"pooling": "none"}, (inputs, np.where(valid, inputs[..., 1], np.nan), LENGTHS)
    steps = {"pooling": "none", "task": "multiclass", "output_size": 3}
    yield "classes of steps", steps, (inputs, np.where(valid, (inputs[..., 0] > 0) * 2, -100), LENGTHS)
    tokens = {"input_size": None, "vocab_size": 6, "embedding_dim": 4, "task": "binary", "pooling": "mean"}
    yield "tokens", tokens, (ids, ids[first] > 2, LENGTHS)


@pytest.mark.parametrize(("config", "train"), [pytest.param(c, t, id=name) for name, c, t in tasks()])
def test_every_task_is_learned(config, train):
    """The model of each task beats the trivial answer, and the loss falls."""
    model = make(**config)
    history = fit(model, train, train, epochs=12, batch_size=16, learning_rate=0.03)
    found = evaluate(model, train, train=train)
    own, trivial = found.rows.values()
    if model.config.task == "regression":
        assert own["mse"] < 0.6 * trivial["mse"]
        assert history.validation_loss[history.best_epoch - 1] == pytest.approx(own["mse"], rel=1e-5)
        assert history.validation_metric[history.best_epoch - 1] == pytest.approx(own["mae"], rel=1e-5)
    else:
        assert own["accuracy"] > trivial["accuracy"] + 0.1
        assert history.validation_metric[history.best_epoch - 1] == pytest.approx(own["accuracy"], rel=1e-6)
    assert history.loss[-1] < history.loss[0]
    assert len(history) == 12
    assert history.stopped == "epochs"


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "rmsprop"])
@pytest.mark.parametrize(("weight_decay", "clip_norm"), [(None, 0.02), (0.1, None), (0.1, 0.02)])
def test_one_step_is_torchs_own(optimizer, weight_decay, clip_norm):
    """One epoch of one batch is one step of torch's optimizer on torch's loss, with the gradient clipped."""
    inputs, targets = binary()
    model, twin = make(task="binary"), make(task="binary")
    options = {} if weight_decay is None else {"weight_decay": weight_decay}
    history = fit(
        model, (inputs, targets), epochs=1, batch_size=96, optimizer=optimizer, learning_rate=0.01, clip_norm=clip_norm,
        **options,
    )  # fmt: skip
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop}[optimizer]
    step = kind(twin.parameters(), lr=0.01, **options)
    order = torch.randperm(96, generator=torch.Generator().manual_seed(0))
    scores = twin(inputs[order.numpy()])[:, 0]
    loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, torch.tensor(targets[order]).float())
    loss.backward()
    assert torch.nn.utils.clip_grad_norm_(twin.parameters(), clip_norm or 1e9) > 0.02
    step.step()
    assert history.loss == (pytest.approx(loss.item()),)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_equal_seeds_give_equal_bits():
    """Shuffling and dropout follow the seed alone; another seed gives other weights."""
    data, found = binary(), []
    for seed, before in ((1, 5), (1, 6), (2, 5)):
        model = make(task="binary", dropout=0.3, hidden_sizes=(4, 4))
        torch.manual_seed(before)
        history = fit(model, data, binary(1, 30), epochs=3, seed=seed)
        found.append((state(model), curves(history)))
    assert same(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    assert not same(found[0][0], found[2][0])


def test_random_state_mode_gradients_and_flags_are_as_found():
    """Also after an error; a frozen parameter stays as it is; training is on where the caller had switched it off."""
    model = make(task="binary").eval()
    model.dropout.train()
    model.head.weight.requires_grad_(False)
    mark = torch.ones_like(model.head.bias)
    model.head.bias.grad = mark
    head = model.head.weight.clone()
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - the global one is meant
    modes = [part.training for part in model.modules()]
    with torch.no_grad():
        fit(model, binary(), epochs=2)
    with torch.inference_mode(), pytest.raises(InvalidInputError):
        fit(model, (numbers(), np.zeros(3)))
    with pytest.raises(DivergedError):
        fit(model, binary(), learning_rate=1e38)
    assert [part.training for part in model.modules()] == modes
    assert model.head.bias.grad is mark
    assert model.lstm[0].weight_ih_l0.grad is None
    assert torch.equal(model.head.weight, head)
    assert not model.head.weight.requires_grad
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_early_stopping_restores_the_best_epoch():
    """It stops `patience` epochs after the lowest validation loss, with the weights of that epoch."""
    train, held = binary(0, 24), binary(1, 40)
    model = make(task="binary", hidden_sizes=(16,))
    history = fit(model, train, held, epochs=80, patience=3, learning_rate=0.05, batch_size=8)
    best = history.best_epoch
    assert history.stopped == "patience"
    assert len(history) == best + 3 < 80
    assert history.validation_loss[best - 1] == min(history.validation_loss)
    shorter = make(task="binary", hidden_sizes=(16,))
    fit(shorter, train, held, epochs=best, learning_rate=0.05, batch_size=8)
    assert same(state(model), state(shorter))
    with torch.no_grad():
        scores = model.eval()(held[0])[:, 0]
    loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, torch.tensor(held[1]).float())
    assert loss.item() == pytest.approx(history.validation_loss[best - 1], rel=1e-5)


def test_the_best_epoch_is_the_lowest_of_all():
    """Not the last that was better than the one before it."""
    model = make(task="binary", hidden_sizes=(16,))
    history = fit(model, binary(0, 24), binary(1, 40), epochs=25, learning_rate=0.1, batch_size=8)
    losses, best = np.array(history.validation_loss), history.best_epoch
    assert best == losses.argmin() + 1
    assert (np.diff(losses[best:]) < 0).any()
    assert history.validation_loss[best - 1] < losses[-1]


@pytest.mark.parametrize("pooling", ["last", "none", "attention"])
def test_padding_does_not_count(pooling):
    """More padding, NaN in it or none where sequences are equally long: the same bits; one by one: the same loss."""
    inputs = numbers(3, 40)
    lengths = LENGTHS[:40]
    valid = np.arange(6) < lengths[:, None]
    targets = np.where(valid, inputs[..., 0], np.nan) if pooling == "none" else inputs[:, 0, 0]
    wide = np.full((40, 11, 2), np.nan, np.float32)
    wide[:, :6][valid] = inputs[valid]
    wide_targets = np.pad(targets, ((0, 0), (0, 5))) if pooling == "none" else targets
    models = [make(pooling=pooling), make(pooling=pooling)]
    histories = [
        fit(models[0], (inputs, targets, lengths), (inputs, targets, lengths), epochs=2),
        fit(models[1], (wide, wide_targets, lengths), Examples(wide, wide_targets, lengths), epochs=2),
    ]
    assert same(state(models[0]), state(models[1]))
    assert curves(histories[0]) == curves(histories[1])
    squares = []
    with torch.no_grad():
        for row, length in enumerate(lengths):
            scores = models[0](inputs[row : row + 1, :length])[0, ..., 0].numpy()
            squares += list((scores - (targets[row, :length] if pooling == "none" else targets[row])).reshape(-1) ** 2)
    best = histories[0].validation_loss[histories[0].best_epoch - 1]
    assert best == pytest.approx(np.mean(squares), rel=1e-5)


def test_balanced_class_weights_are_scikit_learns():
    """The same bits as with scikit-learn's weights given by hand, and a loss that is torch's weighted one."""
    from sklearn.utils.class_weight import compute_class_weight

    inputs = numbers(4, 60)
    targets = np.repeat([0, 1, 2], [40, 15, 5])
    weights = compute_class_weight("balanced", classes=np.arange(3), y=targets)
    found = []
    for given in ("balanced", weights, torch.tensor(weights), None):
        model = make(task="multiclass", output_size=3)
        history = fit(model, (inputs, targets), (inputs, targets), class_weights=given, epochs=2)
        found.append((state(model), history))
    assert same(found[0][0], found[1][0])
    assert same(found[0][0], found[2][0])
    assert not same(found[0][0], found[3][0])
    with torch.no_grad():
        scores = model(inputs)
    model.load_state_dict(found[0][0])
    with torch.no_grad():
        scores = model(inputs)
    loss = torch.nn.functional.cross_entropy(scores, torch.tensor(targets), weight=torch.tensor(weights).float())
    assert found[0][1].validation_loss[found[0][1].best_epoch - 1] == pytest.approx(loss.item(), rel=1e-5)
    json.dumps([history.to_dict() for _, history in found])


def test_balanced_weights_of_yes_and_no():
    """A rare yes weighs as much as the many no's; of several outputs each has its own weights."""
    from sklearn.utils.class_weight import compute_class_weight

    inputs, rare = numbers(5, 40), np.arange(40) % 8 == 0
    weights = compute_class_weight("balanced", classes=np.arange(2), y=rare.astype(int))
    models = [make(task="binary"), make(task="binary")]
    for model, given in zip(models, ("balanced", list(weights)), strict=True):
        fit(model, (inputs, rare), epochs=2, class_weights=given)
    assert same(state(models[0]), state(models[1]))
    both = make(task="binary", output_size=2)
    before = both(inputs).detach().double()
    targets = np.stack([rare, np.arange(40) % 2 == 0], axis=1)
    history = fit(both, (inputs, targets), epochs=1, batch_size=40, class_weights="balanced")
    weight = np.where(targets, 40 / (2 * targets.sum(0)), 40 / (2 * (~targets).sum(0)))
    loss_of = torch.nn.BCEWithLogitsLoss(reduction="none")
    plain = loss_of(before, torch.tensor(targets).double())
    assert history.loss[0] == pytest.approx(float((plain.numpy() * weight).sum() / weight.sum()), rel=1e-5)


def test_scaled_targets_train_like_standardised_ones_and_answer_in_the_own_unit(tmp_path):
    """The same losses as with targets standardised by hand; answers and the metric are in the targets' own unit."""
    inputs = numbers(6)
    targets = np.stack([150 + 40 * inputs[:, -1, 0], 1e-3 * inputs[:, :, 1].sum(axis=1)], axis=1)  # (96, 2)
    center, scale = targets[:64].mean(axis=0), targets[:64].std(axis=0)
    by_hand = (targets - center) / scale
    setting = {"epochs": 8, "learning_rate": 0.02}
    model, twin = make(output_size=2), make(output_size=2)
    history = fit(model, (inputs[:64], targets[:64]), (inputs[64:], targets[64:]), scale_targets=True, **setting)
    expected = fit(twin, (inputs[:64], by_hand[:64]), (inputs[64:], by_hand[64:]), **setting)
    np.testing.assert_allclose(history.loss, expected.loss, rtol=1e-4)
    np.testing.assert_allclose(history.validation_loss, expected.validation_loss, rtol=1e-4)
    with torch.no_grad():
        found, plain = model(inputs).numpy(), twin(inputs).numpy()
    np.testing.assert_allclose((found - center) / scale, plain, atol=1e-3)
    missed = np.abs(found[64:] - targets[64:]).mean()
    assert history.validation_metric[history.best_epoch - 1] == pytest.approx(missed, rel=1e-3)
    assert evaluate(model, (inputs[64:], targets[64:]), train=(inputs[:64], targets[:64])).model[
        "mae"
    ] == pytest.approx(missed, rel=1e-3)
    resumed = make(output_size=2)
    train = (inputs[:64], targets[:64])
    fit(resumed, train, (inputs[64:], targets[64:]), scale_targets=True, checkpoint=tmp_path, **setting | {"epochs": 3})
    fit(resumed, train, (inputs[64:], targets[64:]), scale_targets=True, checkpoint=tmp_path, **setting)
    assert same(state(resumed), state(model))


def test_a_constant_target_is_scaled_by_one_and_no_epoch_leaves_the_model_alone(tmp_path):
    """Nothing is divided by zero; a refused checkpoint changes no weight."""
    model = make()
    fit(model, (numbers(), np.full(96, 70.0)), epochs=40, learning_rate=0.05, scale_targets=True)
    with torch.no_grad():
        assert float(model(numbers()).mean()) == pytest.approx(70, abs=0.5)
    (tmp_path / "training.pt").write_bytes(b"no checkpoint")
    before = state(model)
    with pytest.raises(SavedModelError, match="cannot be read"):
        fit(model, (numbers(), np.full(96, 70.0)), epochs=2, scale_targets=True, checkpoint=tmp_path)
    assert same(state(model), before)


def test_scaled_targets_need_a_regression_with_a_linear_head():
    """Classes have no scale, and a model without `head` cannot be scaled back."""
    with pytest.raises(InvalidInputError, match="scale_targets is set, and the task is 'binary'"):
        fit(make(task="binary"), binary(), epochs=1, scale_targets=True)
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 1))
    with pytest.raises(InvalidInputError, match="whose last step is `head`"):
        fit(plain, (numbers(), numbers()[:, 0, 0]), task="regression", epochs=1, scale_targets=True)
    with pytest.raises(InvalidTypeError, match="scale_targets is 1"):
        fit(make(), (numbers(), numbers()[:, 0, 0]), epochs=1, scale_targets=1)


def test_history_is_drawn_and_saved(tmp_path):
    """Its dict is what `plot_training` draws; its provenance is JSON without seconds, which a model saves."""
    model = make(task="binary")
    model.data = DataSpec(classes=("down", "up"))
    history = fit(model, binary(), binary(1), epochs=3, seed=4, learning_rate=0.01)
    from gatelens.reports.training_plots import plot_training

    told = history.to_dict()
    assert told["epoch"] == [1, 2, 3]
    assert told["validation accuracy"] == list(history.validation_metric)
    assert history.learning_rate == 0.01
    assert history.seconds > 0
    titles = [axes.get_title(loc="left") for axes in plot_training(history).axes]
    assert len(titles) == 2
    assert f"epoch {history.best_epoch}" in titles[0]
    assert len(plot_training(fit(make(), (numbers(), numbers()[:, 0, 0]), epochs=1)).axes) == 2
    provenance = history.provenance()
    assert provenance["seed"] == 4
    assert "seconds" not in provenance["training"]
    model.data = DataSpec.from_dict({**model.data.to_dict(), "provenance": provenance})
    assert load(model.save(tmp_path / "model")).data.provenance == provenance
    assert isinstance(history, History)


def test_a_foreign_module_and_a_sequence_data_are_trained():
    """A module of one's own says its task; without lengths it sees each sequence as long as it is."""
    torch.manual_seed(0)
    seen = []

    class Mean(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.line = torch.nn.Linear(2, 2)

        def forward(self, inputs):
            seen.append(inputs.shape[1])
            return self.line(inputs.mean(dim=1))

    inputs = numbers()
    data = SequenceData(inputs, LENGTHS, tuple(map(str, range(96))), None, np.arange(96))
    means = np.array([row[:length, 0].mean() for row, length in zip(inputs, LENGTHS, strict=True)])
    model = Mean()
    history = fit(model, (data, means > 0), task="multiclass", epochs=10, learning_rate=0.1)
    assert history.training_metric[-1] > 0.9
    assert history.best_epoch == 10
    assert set(seen) == set(LENGTHS.tolist())
    with pytest.raises(InvalidInputError, match="task is not known for a Mean"):
        fit(model, (data, means > 0))


# -- divergence --------------------------------------------------------------------------------------------------------


def test_divergence_stops_with_advice_and_the_last_good_weights():
    """A loss that is NaN from the third epoch on: the weights are those of the second, and the advice fits the data."""
    inputs, targets = numbers() * 50, numbers()[:, 0, 0] * 1000
    model, twin = make(), make()
    calls = []

    def poison(module, _args):
        calls.append(module.training)
        if module.training and sum(calls) > 7:
            with torch.no_grad():
                module.head.bias.fill_(torch.nan)

    model.head.register_forward_pre_hook(lambda _module, args: poison(model, args))
    with pytest.raises(DivergedError, match="NaN or infinite in epoch 3, batch 2") as caught:
        fit(model, (inputs, targets), epochs=9, batch_size=32, clip_norm=None)
    text = str(caught.value)
    for advice in ("smaller learning_rate", "try 0.0001", "clip_norm=1.0", "scaling the inputs",
                   "scale_targets=True (the largest", "holds the weights of epoch 2"):  # fmt: skip
        assert advice in text
    fit(twin, (inputs, targets), epochs=2, batch_size=32, clip_norm=None)
    assert same(state(model), state(twin))
    assert len(caught.value.history) == 2


@pytest.mark.parametrize("learning_rate", [1e37, 1e38])
@pytest.mark.parametrize("held", [True, False])
def test_a_step_into_nowhere_is_seen_at_once(held, learning_rate):
    """A step to weights that give no finite scores, or no finite weights: refused, with the weights of the start."""
    model = make(activation="relu")
    before = state(model)
    data = (numbers(), numbers()[:, 0, 0])
    with pytest.raises(DivergedError, match="holds the weights of the start") as caught:
        fit(model, data, data if held else None, learning_rate=learning_rate, epochs=3, batch_size=96)
    assert same(state(model), before)
    assert "scaling" not in str(caught.value)
    assert "clip_norm=1.0" not in str(caught.value)


def test_a_fault_of_the_model_is_told_as_it_is():
    """An exception inside the model is no divergence."""
    model = make()
    model.head.register_forward_pre_hook(lambda module, _args: 1 / 0 if module.training else None)
    with pytest.raises(Exception, match="raised ZeroDivisionError") as caught:
        fit(model, (numbers(), numbers()[:, 0, 0]))
    assert not isinstance(caught.value, DivergedError)


# -- checkpoints -------------------------------------------------------------------------------------------------------

SETTING = {"epochs": 5, "batch_size": 16, "learning_rate": 0.02, "seed": 3, "clip_norm": 0.5, "optimizer": "adamw"}
WHOLE = {"task": "binary", "hidden_sizes": (5, 4), "dropout": 0.3}
KILLED = """
import os, signal, sys
sys.path[:0] = [{tests!r}]
import torch
torch.set_num_threads(1)
from test_training import SETTING, WHOLE, binary, fit, make
model, calls = make(**WHOLE), []
def die():
    os.kill(os.getpid(), signal.SIGKILL)
if {where!r} == "batch":
    def count(*_):
        calls.append(1)
        if len(calls) > 24:
            die()
    model.register_forward_pre_hook(count)
else:
    save = torch.save
    def half(content, path):
        save(content, path)
        calls.append(1)
        if len(calls) == 4:
            with open(path, "r+b") as file:
                file.truncate(1000)
            die()
    torch.save = half
fit(model, binary(), binary(1, 40), checkpoint={folder!r}, **SETTING)
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Two checkpoint folders whose trainings were killed, at the same time: within an epoch, and while it wrote."""
    folders = {where: tmp_path_factory.mktemp(where) for where in ("batch", "write")}
    tests = str(Path(__file__).parent)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", KILLED.format(tests=tests, where=where, folder=str(folder))],
            stderr=subprocess.PIPE, text=True,
        )
        for where, folder in folders.items()
    ]  # fmt: skip
    for child in running:
        said = child.communicate(timeout=120)[1]
        assert child.returncode == -signal.SIGKILL, said
    return folders


@pytest.mark.parametrize("where", ["batch", "write"])
def test_after_a_kill_it_goes_on_to_the_bit(where, killed):
    """Killed within an epoch, or while it writes: resumed, it ends with the bits of an uninterrupted training."""
    folder = killed[where]
    left = {path.name for path in folder.iterdir()}
    assert "training.pt" in left
    assert (len(left) > 1) == (where == "write")
    begun = len(torch.load(folder / "training.pt", weights_only=True)["state"]["history"]["loss"])
    assert 1 <= begun < 5
    model, twin = make(seed=77, **WHOLE), make(**WHOLE)  # the weights at the start are the checkpoint's
    resumed = fit(model, binary(), binary(1, 40), checkpoint=folder, **SETTING)
    straight = fit(twin, binary(), binary(1, 40), **SETTING)
    assert same(state(model), state(twin))
    assert curves(resumed) == curves(straight)
    assert [path.name for path in folder.iterdir()] == ["training.pt"]


def test_a_finished_checkpoint_gives_its_result_and_takes_more_epochs(tmp_path):
    """Called again it does nothing more; with more epochs, or more patience, it goes on as if never stopped."""
    folder, data, held = tmp_path / "a" / "b", binary(0, 24), binary(1, 40)
    setting = {"learning_rate": 0.05, "batch_size": 8}
    model, again, twin = make(task="binary"), make(task="binary"), make(task="binary")
    first = fit(model, data, held, epochs=30, patience=2, checkpoint=folder, **setting)
    assert first.stopped == "patience"
    stamp = (folder / "training.pt").stat().st_mtime_ns
    assert fit(again, data, held, epochs=30, patience=2, checkpoint=folder, **setting) == first
    assert same(state(model), state(again))
    assert (folder / "training.pt").stat().st_mtime_ns == stamp
    longer = len(first) + 3
    more = fit(again, data, held, epochs=longer, checkpoint=folder, **setting)
    straight = fit(twin, data, held, epochs=longer, **setting)
    assert curves(more) == curves(straight)
    assert same(state(again), state(twin))
    with pytest.raises(InvalidInputError, match=rf"epochs is 1, and the checkpoint in .* has {longer} behind it"):
        fit(again, data, held, epochs=1, checkpoint=folder, **setting)


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    """Other sizes, data or options: the difference is named, and model and file stay as they are."""
    folder = tmp_path / "checkpoint"
    inputs, targets = binary()
    fit(make(task="binary"), (inputs, targets), epochs=1, checkpoint=folder)
    content = (folder / "training.pt").read_bytes()
    other = inputs.copy()
    other[0, 0, 0] += 1
    for config, data, options, message in (
        ({"hidden_sizes": (3,)}, (inputs, targets), {}, r"its hidden_sizes was \[6\] and is \[3\]"),
        ({"pooling": "max"}, (inputs, targets), {}, 'its pooling was "last" and is "max"'),
        ({}, (inputs[:90], targets[:90]), {}, r"training inputs was \(96, 6, 2\) and is \(90, 6, 2\)"),
        ({}, (other, targets), {}, "the hash of the training examples was"),
        ({}, (inputs, 1 - targets), {}, "the hash of the training examples was"),
        ({}, (inputs, targets), {"optimizer": "adamw"}, 'optimizer was "adam" and is "adamw"'),
        ({}, (inputs, targets), {"seed": 1}, "seed was 0 and is 1. Choose another folder"),
        ({}, (inputs, targets), {"validation": binary(1)}, "validation inputs was not there and is"),
        ({}, (inputs, targets), {"batch_size": 4, "seed": 1, "learning_rate": 1.0, "clip_norm": 2.0}, "and 1 more"),
    ):
        model = make(**{"task": "binary", **config})
        before = state(model)
        with pytest.raises(InvalidInputError, match=message):
            fit(model, data, epochs=1, checkpoint=folder, **options)
        assert same(state(model), before)
    model = make(task="binary")
    model.head.bias.requires_grad_(False)
    with pytest.raises(InvalidInputError, match="trained was"):
        fit(model, (inputs, targets), epochs=1, checkpoint=folder)
    assert (folder / "training.pt").read_bytes() == content


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path):
    """Foreign files, a file, damaged bytes, a newer format: each its sentence, and nothing is overwritten."""
    data = binary()

    def refused(folder, error, message):
        with pytest.raises(error, match=message):
            fit(make(task="binary"), data, epochs=1, checkpoint=folder)

    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    refused(foreign, InvalidInputError, r"holds other files \(notes.txt\); choose an empty or a new folder")
    refused(foreign / "notes.txt", InvalidInputError, "checkpoint is the file")
    folder = tmp_path / "checkpoint"
    fit(make(task="binary"), data, epochs=1, checkpoint=folder)
    file = folder / "training.pt"
    whole, content = file.read_bytes(), torch.load(file, weights_only=True)
    for damaged in (b"", b"junk", whole[:-200], whole[: len(whole) // 2]):
        file.write_bytes(damaged)
        refused(folder, SavedModelError, "training.pt cannot be read .*delete the folder")
        assert file.read_bytes() == damaged
    for change, message in (
        ({"format": "other"}, "it is no checkpoint of gatelens"),
        ({"format_version": 2}, "has format_version 2; this gatelens reads 1"),
        ({"state": None}, "its entries are missing"),
        ({"state": {**content["state"], "optimizer": {}}}, "cannot be read"),
        ({"state": {"model": {}}}, "KeyError"),
        ({"state": {**content["state"], "history": {"loss": 3.0}}}, "cannot be read"),
    ):
        torch.save({**content, **change}, file)
        refused(folder, SavedModelError, message)


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"optimizer": "adm"}, InvalidInputError, "optimizer is 'adm'; known: adam, adamw, rmsprop. Did you mean"),
        ({"optimizer": "sgd"}, InvalidInputError, "optimizer is 'sgd'; known"),
        ({"epochs": 0}, InvalidInputError, "epochs is 0; expected a whole number, 1 or more"),
        ({"epochs": 2.5}, InvalidTypeError, "epochs is 2.5"),
        ({"batch_size": -1}, InvalidInputError, "batch_size is -1"),
        ({"batch_size": True}, InvalidTypeError, "batch_size is True"),
        ({"learning_rate": 0}, InvalidInputError, "learning_rate is 0; expected a number, more than 0"),
        ({"learning_rate": float("nan")}, InvalidInputError, "learning_rate is nan"),
        ({"learning_rate": "fast"}, InvalidTypeError, "learning_rate is 'fast'; expected a number"),
        ({"weight_decay": -1}, InvalidInputError, "weight_decay is -1; expected a number, 0 or more"),
        ({"clip_norm": 0.0}, InvalidInputError, "clip_norm is 0.0"),
        ({"patience": 0, "validation": binary()}, InvalidInputError, "patience is 0"),
        ({"patience": 3}, InvalidInputError, "patience needs validation examples"),
        ({"seed": -1}, InvalidInputError, r"seed is -1; expected a whole number, 0 or more and below 2\*\*32"),
        ({"seed": None}, InvalidTypeError, "seed is None"),
        ({"device": "gpu"}, InvalidInputError, "device is 'gpu', which cannot be used"),
        ({"device": "cuda:99"}, InvalidInputError, "device is 'cuda:99', which cannot be used"),
        ({"task": "multiclass"}, InvalidInputError, "task is 'multiclass', and this LSTMModel's task is 'binary'"),
        ({"class_weights": "balance"}, InvalidInputError, "class_weights is 'balance'; expected 'balanced', or"),
        ({"class_weights": [1.0]}, InvalidInputError, "class_weights has 1 numbers for 2 classes"),
        ({"class_weights": [1.0, 0.0]}, InvalidInputError, "expected 'balanced', or one number above 0"),
        ({"class_weights": {0: 1.0}}, InvalidInputError, "expected 'balanced', or one number above 0"),
        ({"train": (numbers(), np.zeros(96)), "class_weights": "balanced"}, InvalidInputError, "class 1 does not"),
        ({"train": (numbers(), np.full(96, np.nan))}, InvalidInputError, r"train: targets\[0\] is nan, one of 96"),
        ({"train": (numbers(), np.arange(96))}, InvalidInputError, r"train: targets\[2\] is 2, one of 94"),
        ({"train": (numbers(rows=0), [])}, InvalidInputError, r"train: inputs has shape \(0, 6, 2\)"),
        ({"validation": (numbers(), np.zeros(95))}, InvalidInputError, "validation: targets has shape"),
        ({"train": numbers()}, InvalidTypeError, "train is a ndarray; expected"),
    ],
)  # fmt: skip
def test_refusals(options, error, message):
    """Each option and each example that does not fit has its sentence, and the model stays as it is."""
    model = make(task="binary")
    before = state(model)
    with pytest.raises(error, match=message):
        fit(model, **{"train": binary(), **options})
    assert same(state(model), before)


def test_models_that_are_refused():
    """No module, nothing to train, a regression with class weights."""
    with pytest.raises(InvalidTypeError, match="model is a LSTMConfig; expected a torch module"):
        fit(LSTMConfig(input_size=1), binary())
    with pytest.raises(InvalidInputError, match="no parameter that may be trained"):
        fit(make(task="binary").requires_grad_(False), binary())
    with pytest.raises(InvalidInputError, match="the task is 'regression', which has no classes"):
        fit(make(), binary(), class_weights="balanced")


def test_the_bar_shows_only_where_a_person_watches(capsys, monkeypatch):
    """Nothing is written to a pipe; on a terminal there is a bar with the loss."""
    fit(make(task="binary"), binary(), epochs=1, progress=True)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    fit(make(task="binary"), binary(), binary(1), epochs=1, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "validation 0." in err
