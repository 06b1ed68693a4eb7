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
        for name in (
            "tasks",
            "learning",
            "scoring",
            "ground_truth",
            "standings",
            "contenders",
            "parts",
            "growth",
            "peers",
        )
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
    for metric in names:  # the best by AUPRC, and random in brackets
        assert f"{metric} " in lines[2]
    assert f"({found['random'].values['AUR'].mean():.3f})" in lines[2]
    assert "AUR cannot tell" in lines[3]


def test_a_rank_correlation_that_random_reaches_is_named(programs):
    """Spearman stands beside the largest of random attributions, and is named where the best is not above it."""
    result, rng = programs["standings"].Result, np.random.default_rng(0)
    values = {name: rng.normal(0.9, 0.02, 30) for name in programs["scoring"].METRICS}
    chance = {name: each - 0.5 for name, each in values.items()}
    for correlation, named in ((0.8, False), (0.1, True), (-0.8, True)):
        found = {"peer b": result(values, correlation), "random": result(chance, 0.0, chance=0.2)}
        lines = programs["standings"].beside_random(found)
        assert f"Spearman {correlation:.3f} (at most 0.200)" in lines[0]
        assert any("Spearman cannot tell" in line for line in lines) == named


def test_a_peers_formula_is_no_lead(programs):
    """What a peer computes too is level at most, even where rounding is in its favour, and the next one is told."""
    standings, rng = programs["standings"], np.random.default_rng(0)
    names = programs["scoring"].METRICS
    base = {name: rng.normal(0.8, 0.02, 30) for name in names}

    def moved(by):
        return standings.Result({name: base[name] + by for name in names})

    own = "gatelens saliency at the baseline, times input"
    found = {own: moved(1e-6), "gatelens deeplift": moved(-0.1), "shap DeepExplainer": moved(0.0)}
    for line in standings.verdicts(found):
        assert "**level**" in line
        assert "the formula of shap DeepExplainer: no lead" in line
        assert "deeplift) is **behind**" in line
    assert "level, same formula" in standings.summary_of(found)[-1]
    row = ["A task", *standings.summary_of({"gatelens deeplift": moved(-0.1), "shap DeepExplainer": moved(0.0)})]
    assert "A task (behind / behind)" in standings.not_level([row])
    assert "Nowhere" in standings.not_level([["A task", "", "level / ahead"]])


def test_growth_is_set_against_the_promise(programs):
    """Seconds as promised agree; an exponent more than 0.3 off is bold, and faster growth is named."""
    growth = programs["growth"]
    assert growth.exponent([3.0, 12.0, 48.0]) == pytest.approx(2)
    assert growth.promised("deeplift", "T") == pytest.approx(1)
    assert growth.promised("occlusion", "T") == pytest.approx(2)
    assert growth.promised("kernel_shap", "B") == pytest.approx(1)
    assert 1 < growth.promised("lrp", "H") < 2
    assert 0 < growth.promised("lrp", "D") < 0.5
    linear, square = ([(size**power, 1.0) for size in growth.STEPS] for power in (1, 2))
    assert "**" not in growth.told("deeplift", "T", linear)
    assert "**promised 1.0, found 2.00**" in growth.told("deeplift", "T", square)
    lines = growth.disagreements({("deeplift", "T"): square, ("occlusion", "T"): linear})
    assert "Faster than promised, by more than 0.3: deeplift in T (+1.00)." in lines[0]
    assert lines[1].startswith("- 1 exponents are that much lower")


def test_peers_are_judged_by_their_arrays(programs):
    """An array of DeepLIFT's, measured as a peer's, gets what `measure` says of its result; the opposite is worse."""
    import torch

    from gatelens.explainers import DeepLIFT
    from gatelens.explainers.metrics import measure
    from gatelens.models import LSTMConfig, LSTMModel

    torch.manual_seed(0)
    model = LSTMModel(LSTMConfig(input_size=3, hidden_sizes=(8,))).eval()
    inputs = torch.randn(3, 12, 3)
    found = DeepLIFT(model).explain(inputs)
    arrays = {"own": found.values.astype(float), "opposite": -found.values.astype(float)}
    told = programs["peers"].faithfulness(programs["peers"].Models(model, model), arrays, inputs)
    expected = measure(model, found, ("comprehensiveness", "deletion"))
    scale = np.abs(found.prediction - found.baseline_prediction).mean()
    for metric in ("comprehensiveness", "deletion"):
        assert told["own"][metric] == pytest.approx(expected.scores(metric).mean / scale)
    assert told["opposite"]["comprehensiveness"] < told["own"]["comprehensiveness"]
    assert told["opposite"]["deletion"] > told["own"]["deletion"]
    chance = programs["peers"].random_told({**told, "random": told["own"]})
    assert "drop cannot tell anyone from it here" in chance


def test_what_takes_too_long_is_not_run(programs):
    """Seconds are expected in proportion to sequences, timesteps and evaluations; beyond the limit they are told."""
    clock = programs["peers"].Clock(limit=5.0, until=float("inf"))
    assert clock.refusal("a", 20, 1) == ""
    clock.asked["a", 20] = 100
    clock.note("a", 20, 1, 0.1)
    assert clock.expected("a", 20, 64) == pytest.approx(6.4)
    assert clock.refusal("a", 20, 64) == "(about 6)"
    clock.note("a", 20, 64, 0.5)  # together they were faster
    assert clock.expected("a", 100, 64) == pytest.approx(2.5)
    clock.asked["a", 100] = 300
    assert clock.expected("a", 100, 64) == pytest.approx(7.5)
    clock.until = 0
    assert clock.refusal("a", 20, 1) == "out of time"


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
