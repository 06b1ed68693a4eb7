"""Chunks on threads of one process: the same bits as one after the other, and the process as it was."""

from __future__ import annotations

import threading
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from gatelens.explainers import DeepLIFT, Explainer, available, get
from gatelens.explainers.dataset import explain_dataset, failures
from gatelens.explainers.dataset.cluster import one_thread
from gatelens.explainers.dataset.here import at_once, copies
from gatelens.explainers.dataset.store import WAITING, AttributionStore
from gatelens.explainers.dataset.work import Job, Worker
from gatelens.models import LSTMConfig, LSTMModel, Predictor
from helpers.stores import files_of

CONCURRENT = [name for name in available() if get(name).concurrent]
STEPS, FEATURES = 9, 3


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Let a chunk hold 4 samples, and two threads be there on any machine."""
    monkeypatch.setattr("gatelens.explainers.dataset.budget.MOST_SAMPLES", 4)
    monkeypatch.setattr("gatelens.explainers.dataset.budget.cores", lambda: 2)


@pytest.fixture
def model() -> LSTMModel:
    """Return a small classifier."""
    torch.manual_seed(0)
    return LSTMModel(LSTMConfig(input_size=FEATURES, hidden_sizes=(5,), output_size=3, task="multiclass"))


def numbers(count: int = 30) -> np.ndarray:
    """Return inputs (count, STEPS, FEATURES)."""
    return np.random.default_rng(0).standard_normal((count, STEPS, FEATURES)).astype(np.float32)


def test_who_may_share_a_process() -> None:
    """The quick methods may; those that draw from global generators, or set numbers of threads, may not."""
    assert set(CONCURRENT) == {
        "cell_decomposition", "contextual_decomposition", "deep_shap", "deeplift", "gate_saliency", "input_x_gradient",
        "integrated_gradients", "lrp", "saliency",
    }  # fmt: skip


@pytest.mark.parametrize("method", CONCURRENT)
def test_threads_give_the_same_bits(model, tmp_path, monkeypatch, method) -> None:
    """Every file is that of a run in one thread, failures included; two threads have really explained."""
    inputs = numbers()
    inputs[11, 4, 1] = np.nan
    lengths = np.random.default_rng(1).integers(1, STEPS + 1, 30)
    lengths[11] = STEPS
    options = {"background": numbers(3)} if get(method).takes_background else {}
    call = {"method": method, "lengths": lengths, "options": options}
    with one_thread():
        explain_dataset(model, inputs, out=tmp_path / "one.zarr", workers=1, **call)

    both, seen = threading.Barrier(2, timeout=60), set()
    do = Worker.do

    def seen_do(self, index):
        if threading.get_ident() not in seen:
            seen.add(threading.get_ident())
            both.wait()
        assert torch.get_num_threads() == 1
        return do(self, index)

    monkeypatch.setattr(Worker, "do", seen_do)
    run = explain_dataset(model, inputs, out=tmp_path / "two.zarr", **call)
    assert len(seen) == 2
    assert threading.get_ident() not in seen
    assert files_of(tmp_path / "one.zarr") == files_of(tmp_path / "two.zarr")
    assert (run.explained, run.failed) == (29, 1)
    assert failures(tmp_path / "two.zarr")["position"].tolist() == [11]


def test_the_process_is_left_as_it_was(model, tmp_path) -> None:
    """Generators, warning filters, numbers of threads, cuDNN's switch and the model, also after an error."""
    explain_dataset(
        model, numbers(), method="saliency", out=tmp_path / "first.zarr"
    )  # imports add filters of their own
    model.train()
    before = (
        torch.get_rng_state(), np.random.get_state()[1].copy(), list(warnings.filters), torch.get_num_threads(),  # noqa: NPY002
        torch.backends.cudnn.enabled, {name: value.clone() for name, value in model.state_dict().items()},
    )  # fmt: skip

    def same() -> None:
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
        assert warnings.filters == before[2]
        assert torch.get_num_threads() == before[3]
        assert torch.backends.cudnn.enabled == before[4]
        assert model.training
        assert all(torch.equal(value, before[5][name]) for name, value in model.state_dict().items())
        assert all(parameter.requires_grad for parameter in model.parameters())
        fresh = []  # what a new thread gets
        thread = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert fresh == [before[3]]

    explain_dataset(model, numbers(), method="saliency", out=tmp_path / "a.zarr")
    same()

    def broken(state) -> None:
        if state.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explain_dataset(model, numbers(), method="saliency", out=tmp_path / "b.zarr", progress=broken)
    same()
    assert explain_dataset(model, numbers(), method="saliency", out=tmp_path / "b.zarr").before >= 4
    assert files_of(tmp_path / "a.zarr") == files_of(tmp_path / "b.zarr")


def test_enough_is_a_beginning(model, tmp_path) -> None:
    """What is done when it is enough are the first chunks, all of them, so that others go on behind them."""
    explain_dataset(model, numbers(), method="deeplift", out=tmp_path / "a.zarr", workers=1)
    store = AttributionStore(tmp_path / "a.zarr", writable=True)
    store.array("status")[:] = WAITING
    jobs = copies(Job(DeepLIFT(model), tmp_path / "a.zarr"), 2)
    assert len(jobs) == 2
    count = 0

    def enough() -> bool:
        return count >= 3

    done = []
    for one in at_once(jobs, range(store.chunks), enough):
        count += 1
        done.append(one.index)
    assert sorted(done) == list(range(len(done)))
    assert 3 <= len(done) <= 6 < store.chunks
    assert set(range(store.chunks)) - set(store.waiting()) == set(done)
    assert sorted(one.index for one in at_once(jobs, range(store.chunks))) == list(range(store.chunks))


def test_an_error_in_a_thread_reaches_the_caller(model, tmp_path, monkeypatch) -> None:
    """And the next run goes on."""
    write = AttributionStore.write

    def full(self, index, *rest):
        if index == 5:
            raise OSError(28, "No space left on device")
        write(self, index, *rest)

    monkeypatch.setattr(AttributionStore, "write", full)
    with pytest.raises(OSError, match="full"):
        explain_dataset(model, numbers(), method="deeplift", out=tmp_path / "a.zarr")
    monkeypatch.setattr(AttributionStore, "write", write)
    assert explain_dataset(model, numbers(), method="deeplift", out=tmp_path / "a.zarr").explained == 30


class Foreign(nn.Module):
    """Counts its calls in a place of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, 4, batch_first=True)

    def forward(self, inputs):
        """Return (B, 1)."""
        return self.lstm(inputs)[0][:, -1, :1]


def hooked(model: LSTMModel) -> LSTMModel:
    model.register_forward_hook(lambda *_: None)
    return model


def unsendable(model: LSTMModel) -> LSTMModel:
    model.lock = threading.Lock()
    return model


@pytest.mark.parametrize("made", [lambda _: Foreign(), hooked, unsendable], ids=["foreign", "hooked", "unsendable"])
def test_what_is_not_known_is_done_one_by_one(model, tmp_path, made) -> None:
    """A stranger's forward or hook may use what the process has once; what cannot be copied stays alone."""
    job = Job(get("saliency")(made(model)), tmp_path / "a.zarr")
    assert copies(job, 2) == []
    assert explain_dataset(job.explainer.predictor.model, numbers(9), method="saliency", out=job.path).explained == 9


def test_other_reasons_to_do_one_by_one(model, tmp_path) -> None:
    """One core, a method that does not say it may, and a plain function."""

    class Plain(Explainer):
        name, summary = "plain", "no word about threads"

        def _attribute(self, problem):
            raise NotImplementedError

    path = tmp_path / "a.zarr"
    assert copies(Job(DeepLIFT(model), path), 1) == []
    assert copies(Job(Plain(model), path), 2) == []
    assert copies(Job(get("lime")(Predictor(lambda x: x[:, -1, :1])), path), 2) == []
