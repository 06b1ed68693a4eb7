"""The benchmark of true cells: its data are what they claim, its scores are scikit-learn's, and it runs."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def programs():
    """The benchmark's modules, which import one another from their own folder."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield {
        name: importlib.import_module(name)
        for name in ("tasks", "learning", "scoring", "ground_truth", "standings", "contenders", "parts")
    }
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def tasks(programs):
    return {task.name: task for task in programs["tasks"].TASKS}


def drawn(task, count=20, seed=0):
    return task.draw(count, np.random.default_rng(seed))


NAMES = (
    "Two marked numbers, added",
    "Two marked numbers, subtracted",
    "Hidden Markov states, LSTM",
    "Hidden Markov states, GRU",
    "Spike",
    "Delayed spike",
    "Rare features, ARMA, LSTM",
    "Rare times, ARMA, LSTM",
    "Rare features, white box",
    "Rare times, white box",
    "Middle box",
    "Moving box",
)


def test_names(tasks):
    """Every task is tested below."""
    assert set(tasks) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_labels_follow_from_the_true_cells(tasks, name):
    """Other background at all other cells changes no label; turning over the true cells changes some."""
    batch = drawn(tasks[name])
    np.testing.assert_array_equal(batch.rule(batch.inputs), batch.targets)
    for seed in range(3):
        other = np.random.default_rng(seed).uniform(-1, 1, batch.inputs.shape).astype(np.float32)  # without spikes
        np.testing.assert_array_equal(batch.rule(np.where(batch.cells, batch.inputs, other)), batch.targets)
    moved = np.where(batch.cells, -batch.inputs + (3 if "white" in name else 0), batch.inputs)
    changed = batch.rule(moved) != batch.targets
    assert changed.reshape(len(changed), -1).any(axis=1).all()


@pytest.mark.parametrize("name", NAMES)
def test_seeds_repeat(tasks, name):
    """The same seed draws the same, another one something else."""
    first, again, other = drawn(tasks[name]), drawn(tasks[name]), drawn(tasks[name], seed=1)
    np.testing.assert_array_equal(first.inputs, again.inputs)
    np.testing.assert_array_equal(first.targets, again.targets)
    np.testing.assert_array_equal(first.cells, again.cells)
    assert not np.array_equal(first.inputs, other.inputs)


@pytest.mark.parametrize("name", NAMES)
def test_each_sequence_has_true_cells_and_others(programs, tasks, name):
    """Scores exist for every sequence: some, but not all, of the cells that compete are true."""
    task = tasks[name]
    batch = drawn(task, 4)
    model = None if task.model == "white box" else programs["learning"].made(task, batch.inputs.shape[2])
    held = {row: [] for row in range(4)}
    for case in programs["ground_truth"].cases(task, model, batch):
        for place, row in enumerate(case.rows):
            held[row].append(case.cells[place][case.scored[place]])
    for parts in held.values():
        cells = np.concatenate(parts)
        assert 0 < cells.sum() < len(cells)


def test_graded_truth_adds_up_to_the_answer(tasks):
    """Where each cell's part is known, the parts are the whole."""
    graded = [drawn(task) for task in tasks.values() if drawn(task, 1).graded is not None]
    assert len(graded) == 4
    for batch in graded:
        np.testing.assert_allclose(batch.graded.sum(axis=(1, 2)), batch.targets, rtol=1e-4, atol=1e-5)
        assert not batch.graded[~batch.cells].any()


def test_states_have_the_published_setting(tasks):
    """200 timesteps, 3 features, the published means; labels agree with the deciding feature's odds."""
    batch = drawn(tasks["Hidden Markov states, LSTM"], 300)
    assert batch.inputs.shape == (300, 200, 3)
    assert not batch.cells[..., 0].any()
    np.testing.assert_array_equal(batch.cells.sum(axis=2), 1)
    for state, means in enumerate([[0.1, 1.6, 0.5], [-0.1, -0.4, -1.5]]):
        inside = batch.inputs[batch.cells[..., state + 1]]
        np.testing.assert_allclose(inside.mean(axis=0), means, atol=0.03)
        np.testing.assert_allclose(inside.std(axis=0), np.sqrt(0.801), atol=0.03)
    deciding = batch.inputs[batch.cells]
    odds = 1 / (1 + np.exp(-2 * deciding))
    np.testing.assert_allclose(batch.targets.mean(), odds.mean(), atol=0.01)
    np.testing.assert_allclose(batch.targets.ravel()[deciding > 0.5].mean(), odds[deciding > 0.5].mean(), atol=0.01)


def test_answers_of_a_timestep_are_those_of_the_beginning(programs, tasks):
    """The model that is explained says at the beginning's end what the trained one says at that timestep."""
    import torch

    for name in ("Spike", "Hidden Markov states, GRU"):
        task = programs["tasks"].quick(tasks[name])
        model = programs["learning"].made(task, 3).eval()
        batch = drawn(task, 3)
        for case in programs["ground_truth"].cases(task, model, batch):
            with torch.no_grad():
                every = model(torch.as_tensor(batch.inputs[case.rows]))[:, case.inputs.shape[1] - 1]
                torch.testing.assert_close(case.model(case.inputs), every)


def test_models_are_kept(programs, tasks, tmp_path):
    """A model is trained once; another setting is another model."""
    import torch

    task = programs["tasks"].quick(tasks["Spike"])
    first = programs["learning"].trained(task, tmp_path)
    (kept,) = tmp_path.iterdir()
    stamp = kept.stat().st_mtime_ns
    again = programs["learning"].trained(task, tmp_path)
    assert kept.stat().st_mtime_ns == stamp
    for name, value in first.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0)
    programs["learning"].trained(programs["tasks"].quick(tasks["Delayed spike"]), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_scores_by_hand(programs):
    """Four cells: three of the four pairs of a true and another cell are in order; precision 1 and 2/3."""
    values, cells = np.array([0.9, -0.5, 0.4, 0.1]), np.array([True, False, True, False])
    found = programs["scoring"].scores(values, cells)
    assert found["AUROC"] == pytest.approx(3 / 4)
    assert found["AUPRC"] == pytest.approx((1 + 2 / 3) / 2)
    # scaled: 1, .5, .375, 0; precision at these thresholds 1, 1/2, 2/3, 1/2, recall 1/2, 1/2, 1, 1
    precision = 0.375 * (1 / 2 + 2 / 3) / 2 + 0.125 * (2 / 3 + 1 / 2) / 2 + 0.5 * (1 / 2 + 1) / 2
    recall = 0.375 * 1 + 0.125 * (1 + 1 / 2) / 2 + 0.5 * 1 / 2
    assert found["AUP"] == pytest.approx(precision)
    assert found["AUR"] == pytest.approx(recall)


def test_scores_are_those_of_scikit_learn(programs):
    """Also with ties, and for cells in any order."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        values, cells = rng.normal(size=60).round(1), rng.random(60) < 0.3
        found = programs["scoring"].scores(values, cells)
        assert found["AUROC"] == roc_auc_score(cells, abs(values))
        assert found["AUPRC"] == average_precision_score(cells, abs(values))


def test_random_scores_are_chance_and_perfect_ones_are_one(programs):
    """Random: AUROC 1/2 and AUPRC the base rate. The true cells themselves: 1, whatever their scale or sign."""
    rng = np.random.default_rng(0)
    cells = rng.random((200, 100)) < 0.3
    chance = [programs["scoring"].scores(rng.normal(size=100), row) for row in cells]
    assert np.mean([one["AUROC"] for one in chance]) == pytest.approx(0.5, abs=0.02)
    assert np.mean([one["AUPRC"] for one in chance]) == pytest.approx(cells.mean(), abs=0.03)
    for factor in (1e-6, -3.0):
        perfect = programs["scoring"].scores(factor * (cells[0] + rng.uniform(0, 0.1, 100)), cells[0])
        assert (perfect["AUROC"], perfect["AUPRC"]) == pytest.approx((1, 1))


def test_a_monotone_rescaling_moves_aup_and_aur_alone(programs):
    """What the page warns of: the same ranking, squared."""
    rng = np.random.default_rng(0)
    values, cells = rng.random(100), rng.random(100) < 0.3
    first, squared = programs["scoring"].scores(values, cells), programs["scoring"].scores(values**2, cells)
    assert first["AUROC"] == squared["AUROC"]
    assert first["AUPRC"] == squared["AUPRC"]
    assert abs(first["AUR"] - squared["AUR"]) > 0.05
    assert abs(first["AUP"] - squared["AUP"]) > 0.005


def test_constant_attributions_score_as_chance(programs):
    """All zeros: nothing is found, and nothing raises."""
    cells = np.array([True, False, False, False])
    found = programs["scoring"].scores(np.zeros(4), cells)
    assert (found["AUROC"], found["AUPRC"]) == (0.5, 0.25)
    assert programs["scoring"].rank_correlation(np.zeros(4), np.arange(4.0)) == 0


def test_intervals_and_words(programs):
    """A mean's interval holds it and narrows with more sequences; words follow the paired differences."""
    scoring, rng = programs["scoring"], np.random.default_rng(0)
    few, many = rng.normal(0.5, 0.1, 20), rng.normal(0.5, 0.1, 2000)
    mean = scoring.Mean.of(few)
    assert mean.low < few.mean() < mean.high
    assert scoring.Mean.of(many).high - scoring.Mean.of(many).low < mean.high - mean.low
    assert scoring.compared(few, few)[0] == "level"
    assert scoring.compared(few + 0.1, few)[0] == "ahead"
    assert scoring.compared(few - 0.1, few)[0] == "behind"


def test_what_fails_is_a_row(programs):
    """A contender that raises, that is missing, or that gives no numbers, says so in its row."""
    import torch

    contenders, ground_truth = programs["contenders"], programs["ground_truth"]
    setting = contenders.Setting(np.zeros((1, 2, 2), np.float32), 10)
    inputs = torch.zeros(1, 2, 2)

    def missing(*_):
        raise ModuleNotFoundError("No module named 'tint'", name="tint")

    def broken(*_):
        raise RuntimeError("cannot | do it. Because.")

    for call, said in (
        (missing, r"not installed here \(tint\)"),
        (broken, "RuntimeError: cannot / do it"),
        (lambda *_: np.full((1, 2, 2), np.nan), "NaN"),
        (lambda *_: np.zeros(3), "shape"),
    ):
        contender = contenders.Contender("somebody", "Method", call)
        with pytest.raises(contenders.FailedError, match=said):
            contenders.run(contender, torch.nn.Identity(), inputs, setting)
    rows = ground_truth.table({"somebody Method": ground_truth.Result({}, failure="fails")})
    assert rows[1][:2] == ["somebody Method", "fails"]


@pytest.mark.parametrize(("title", "place"), [("captum DeepLift", 1.0), ("shap DeepExplainer", 0.0)])
def test_what_peers_make_of_an_lstm(programs, tasks, title, place):
    """What the page says of them: the gradient at the input, or at the baseline, times the input."""
    import torch

    task = programs["tasks"].quick(tasks["Middle box"])
    model = programs["learning"].made(task, 6).eval()
    inputs = torch.as_tensor(drawn(task, 4).inputs)
    (contender,) = (one for one in programs["contenders"].PEERS if one.title == title)
    found = programs["contenders"].run(contender, model, inputs, programs["contenders"].Setting(inputs.numpy(), 10))
    leaf = (place * inputs).requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf).sum(), leaf)
    np.testing.assert_allclose(found, (gradient * inputs).numpy(), rtol=1e-5, atol=1e-7)


def test_verdicts(programs):
    """The lines say who is level, and which metric tells nothing."""
    ground_truth, rng = programs["ground_truth"], np.random.default_rng(0)
    names = programs["scoring"].METRICS

    def result(level):
        return ground_truth.Result({name: rng.normal(level[name], 0.02, 30) for name in names})

    good = {"AUROC": 0.9, "AUPRC": 0.8, "AUP": 0.5, "AUR": 0.3}
    found = {
        "gatelens a": result(good),
        "peer b": result({**good, "AUROC": 0.95}),
        "random": result({"AUROC": 0.5, "AUPRC": 0.2, "AUP": 0.2, "AUR": 0.5}),
    }
    lines = ground_truth.verdicts(found)
    assert "**behind**" in lines[0]
    assert "**level**" in lines[1]
    assert "AUR cannot tell" in lines[2]


def test_a_part_is_replaced_whole(programs, tmp_path):
    """Written twice it stands once, and what is around it stays."""
    page, write_part = tmp_path / "page.md", programs["parts"].write_part
    page.write_text("# Benchmarks\n\n## Other\n", encoding="utf-8")
    write_part(page, "one", ["first"])
    write_part(page, "two", ["second"])
    write_part(page, "one", ["third"])
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Benchmarks\n\n## Other\n")
    assert "first" not in text
    assert text.index("third") < text.index("second")
    assert text.count("<!-- one -->") == 1


def test_the_quick_run_writes_its_tables(programs, tmp_path, capsys):
    """Every task has its table, random its row, and the page of the docs is left alone."""
    docs = ROOT / "docs" / "benchmarks.md"
    before = docs.read_bytes()
    page = tmp_path / "benchmarks.md"
    programs["ground_truth"].main(["--quick", "--page", str(page)])
    text = page.read_text(encoding="utf-8")
    for name in NAMES:
        assert f"### {name}\n" in text
    assert text.count("| random | ") == len(NAMES)
    assert text.count("| gatelens integrated_gradients | ") == len(NAMES) + 1  # also beside the published numbers
    assert "### Beside the published numbers" in text
    assert docs.read_bytes() == before
    capsys.readouterr()
