"""`explain_dataset` on several processes: the same bits as in one, whatever dies on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from gatelens.explainers.dataset import ClusterError, Progress, explain_dataset, failures, open_store
from gatelens.explainers.dataset.cluster import local_client, one_thread, packed
from gatelens.explainers.dataset.work import Job
from gatelens.models import LSTMConfig, LSTMModel, ModelError
from helpers.stores import files_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="starts and kills processes as POSIX does")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Let a chunk hold 8 samples, so that small datasets have several."""
    monkeypatch.setattr("gatelens.explainers.dataset.budget.MOST_SAMPLES", 8)
    monkeypatch.setattr("gatelens.explainers.dataset.budget.MOST_SAMPLES_ONE_BY_ONE", 8)


@pytest.fixture
def model() -> LSTMModel:
    """Return a small regression."""
    torch.manual_seed(0)
    return LSTMModel(LSTMConfig(input_size=3, hidden_sizes=(5,)))


@pytest.fixture(scope="module")
def cluster():
    """Start a real cluster of two processes on loopback."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address="127.0.0.1:0",
        host="127.0.0.1",
        silence_logs=50,
    ) as started:
        yield started


def numbers(count: int = 64) -> np.ndarray:
    """Return inputs (count, 9, 3)."""
    return np.random.default_rng(0).standard_normal((count, 9, 3)).astype(np.float32)


@pytest.mark.parametrize("method", ["integrated_gradients", "lime"])
def test_a_cluster_gives_the_same_bits(model, tmp_path, cluster, method) -> None:
    """On a running cluster, in worker processes, and in this one: every file is the same, failures included."""
    inputs = numbers(30)
    inputs[11, 4, 1] = np.nan
    call = {"method": method, "options": {"samples": 30} if method == "lime" else {}}
    with one_thread():
        explain_dataset(model, inputs, out=tmp_path / "here.zarr", workers=1, **call)
    explain_dataset(model, inputs, out=tmp_path / "there.zarr", scheduler=cluster.scheduler_address, **call)
    assert files_of(tmp_path / "there.zarr") == files_of(tmp_path / "here.zarr")
    assert failures(tmp_path / "there.zarr")["position"].tolist() == [11]


SCRIPT = """
import sys, numpy as np, torch
from gatelens.explainers.dataset import budget, explain_dataset
budget.MOST_SAMPLES = 8

class Net(torch.nn.Module):  # of the script itself, where no worker can import it
    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(3, 4, batch_first=True)

    def forward(self, inputs):
        return self.lstm(inputs)[0][:, -1, :1]

torch.manual_seed(0)
inputs = np.random.default_rng(0).standard_normal((40, 9, 3)).astype(np.float32)
run = explain_dataset(Net(), inputs, method="saliency", out=sys.argv[1], workers=int(sys.argv[2]),
                      progress=lambda state: print(state.done, flush=True))
"""


def test_a_script_needs_no_guard(tmp_path) -> None:
    """Worker processes are started from a plain script, with a model that is defined in it, and say nothing."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    said = [
        subprocess.run(
            [sys.executable, str(script), str(tmp_path / f"{workers}.zarr"), str(workers)],
            check=True, env=environment, capture_output=True, text=True, timeout=300,
        )
        for workers in (1, 2)
    ]  # fmt: skip
    assert files_of(tmp_path / "1.zarr") == files_of(tmp_path / "2.zarr")
    assert [one.stderr for one in said] == ["", ""]
    assert said[1].stdout.split()[-1] == "40"


def test_a_killed_main_process_leaves_no_workers(tmp_path) -> None:
    """SIGKILL of the process that started them ends the workers, too, and the same command goes on."""
    import psutil

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("(40, 9, 3)", "(400, 200, 3)"))
    command = [sys.executable, str(script), str(tmp_path / "a.zarr"), "2"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if int(line) >= 16:
                children = psutil.Process(process.pid).children(recursive=True)
                process.kill()
                break
    assert len(children) >= 2
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive
    assert 0 < open_store(tmp_path / "a.zarr").attrs["samples_waiting"] < 400
    command[-1] = "1"
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, timeout=300)
    assert open_store(tmp_path / "a.zarr").attrs["samples_waiting"] == 0


def test_a_worker_that_dies_is_retried(model, tmp_path) -> None:
    """A worker is killed in the middle of a chunk; dask gives its work to another, and nothing is missing."""
    from distributed import LocalCluster

    inputs = numbers()
    killed: list[int] = []

    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", host="127.0.0.1",
        silence_logs=50,
    ) as started:  # fmt: skip

        def kill(state: Progress) -> None:
            if state.done >= 16 and not killed:
                killed.append(started.workers[0].pid)
                os.kill(killed[0], signal.SIGKILL)

        explain_dataset(
            model, inputs, method="lime", options={"samples": 200}, out=tmp_path / "a.zarr",
            scheduler=started.scheduler_address, progress=kill,
        )  # fmt: skip
    assert killed
    with one_thread():
        explain_dataset(model, inputs, method="lime", options={"samples": 200}, out=tmp_path / "b.zarr", workers=1)
    assert files_of(tmp_path / "a.zarr") == files_of(tmp_path / "b.zarr")


def test_a_lost_scheduler_is_told_and_the_run_goes_on_elsewhere(model, tmp_path) -> None:
    """The error says so, what was written stays, and the same call in this process does the rest."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DASK_LOGGING__DISTRIBUTED": "critical"}
    environment["DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT"] = "5s"
    file = tmp_path / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    scheduler = subprocess.Popen(
        [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)],
        env=environment, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    worker = subprocess.Popen(
        [*dask, "worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard", "--death-timeout", "5"],
        env=environment, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        import json

        for _ in range(300):
            if file.exists() and file.read_text().strip():
                break
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        told: list[Progress] = []

        def lose(state: Progress) -> None:
            told.append(state)
            if state.done >= 8:
                scheduler.kill()

        call = {"method": "lime", "options": {"samples": 300}, "out": tmp_path / "a.zarr"}
        with pytest.raises(ClusterError, match=r"the scheduler is lost .*goes on from there"):
            explain_dataset(model, numbers(80), scheduler=address, progress=lose, **call)
    finally:
        scheduler.kill()
        worker.kill()
        scheduler.wait()
        worker.wait()
    assert 0 < len(open_store(tmp_path / "a.zarr")) < 80
    with one_thread():
        explain_dataset(model, numbers(80), workers=1, **call)
        explain_dataset(model, numbers(80), workers=1, **{**call, "out": tmp_path / "b.zarr"})
    assert files_of(tmp_path / "a.zarr") == files_of(tmp_path / "b.zarr")


def test_no_scheduler_at_the_address(model, tmp_path, monkeypatch) -> None:
    """It is said where nothing answers, and how to start one."""
    monkeypatch.setattr("gatelens.explainers.dataset.cluster.START_SECONDS", 2.0)
    with pytest.raises(ClusterError, match=r"no dask scheduler answers at tcp://127\.0\.0\.1:9"):
        explain_dataset(model, numbers(9), out=tmp_path / "a.zarr", scheduler="tcp://127.0.0.1:9")


def test_an_error_of_the_model_comes_back(model, tmp_path, cluster) -> None:
    """A sample at which the model raises on a worker is recorded there like here."""

    class Fragile(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(3, 4, batch_first=True)

        def forward(self, inputs):
            if (inputs[:, 0, 0] > 100).any():
                raise RuntimeError("too hot")
            return self.lstm(inputs)[0][:, -1, :1]

    inputs = numbers(20)
    inputs[13, 0, 0] = 1000
    run = explain_dataset(
        Fragile(), inputs, method="saliency", out=tmp_path / "a.zarr", scheduler=cluster.scheduler_address
    )  # fmt: skip
    assert failures(run.path)["position"].tolist() == [13]


def test_a_long_run_is_handed_over_and_gives_the_same_bits(model, tmp_path, monkeypatch) -> None:
    """Without workers= this process begins, and processes go on; every file is that of a run in one."""
    monkeypatch.setattr("gatelens.explainers.dataset.run.SHORT_SECONDS", 0.0)
    monkeypatch.setattr("gatelens.explainers.dataset.run.LONG_SECONDS", 0.0)
    monkeypatch.setattr("gatelens.explainers.dataset.budget.cores", lambda: 2)
    used: list[int] = []

    @contextmanager
    def counted(workers: int):
        used.append(workers)
        with local_client(workers) as client:
            yield client

    monkeypatch.setattr("gatelens.explainers.dataset.run.local_client", counted)
    run = explain_dataset(model, numbers(40), out=tmp_path / "a.zarr")
    assert used == [2]
    assert run.explained == 40
    with one_thread():
        explain_dataset(model, numbers(40), out=tmp_path / "b.zarr", workers=1)
    assert files_of(tmp_path / "a.zarr") == files_of(tmp_path / "b.zarr")


def test_what_cannot_travel_is_said(model, tmp_path) -> None:
    """A model that holds a lock cannot be sent; the error says how to go on."""
    model.lock = threading.Lock()
    from gatelens.explainers import IntegratedGradients

    with pytest.raises(ModelError, match="workers=1"):
        packed(Job(IntegratedGradients(model), tmp_path / "a.zarr"))


def test_the_model_travels_once(model, tmp_path, cluster) -> None:
    """The job is unpacked once on each worker, not with each chunk."""
    import torch as whole

    class Counting(whole.nn.Module):
        def __init__(self, inner, folder) -> None:
            super().__init__()
            self.inner, self.folder = inner, str(folder)

        def __setstate__(self, state) -> None:
            from pathlib import Path
            from uuid import uuid4

            self.__dict__.update(state)
            Path(self.folder, uuid4().hex).touch()

        def forward(self, inputs):
            return self.inner(inputs)

    folder = tmp_path / "unpacked"
    folder.mkdir()
    explain_dataset(
        Counting(model, folder), numbers(), method="saliency", out=tmp_path / "a.zarr",
        scheduler=cluster.scheduler_address,
    )  # fmt: skip
    assert 1 <= len(list(folder.iterdir())) <= 2
