"""The surrogate tree: scikit-learn's own answers, a model that is a rule, and fidelity worked out by hand."""

import re

import numpy as np
import pytest
import torch

from gatelens.models import DataSpec, Examples, FeatureSpec, InvalidInputError, ModelError, Predictor
from gatelens.models.surrogate import SurrogateTree
from helpers.explained import Foreign, lstm, sequences, token_ids

DATA = DataSpec(
    features=(FeatureSpec(name="load", unit="kW", center=50.0, scale=10.0), FeatureSpec(name="noise")),
    classes=("fine", "hot"),
)


def rule(inputs):
    """Say hot (1) where the mean load of the last third is above 52 kW: 0.2 as the model reads it."""
    third = inputs[:, 2 * inputs.shape[1] // 3 :, :1]
    return 20 * (np.asarray(third).mean(axis=1) - 0.2)


def ruled(**options):
    """Return a tree grown on the rule, as the model's own data would name it."""
    predictor = Predictor(rule, task="binary")
    predictor.model.data = DATA
    return SurrogateTree.fit(predictor, sequences(400, 9, 2).numpy(), **options)


@pytest.fixture(scope="module")
def classes():
    """Return a model of three classes."""
    return lstm(task="multiclass", output_size=3, strength=4.0)


# -- what it learns ----------------------------------------------------------------------------------------------------


def test_it_finds_a_rule():
    """Of a model that is one threshold on one statistic the tree is that, in words and units, with full fidelity."""
    tree = ruled(max_depth=1)
    assert tree.fidelity.value > 0.97
    low, high = tree.rules().splitlines()
    found = re.fullmatch(
        r"If mean of load in the last third is at most (\d+\.?\d*) kW: fine \((9\d|100) % of \d+ sequences\)\.", low
    )
    assert float(found[1]) == pytest.approx(52, abs=0.4)
    assert high.startswith(f"If mean of load in the last third is above {found[1]} kW: hot (")


def test_it_says_what_scikit_learns_tree_says(classes):
    """Answers are those of scikit-learn's tree on the same table, shares are counts, counts add up."""
    from sklearn.tree import DecisionTreeClassifier

    inputs, held = sequences(200, 6, 3), sequences(80, 6, 3, seed=9)
    tree = SurrogateTree.fit(classes, inputs, held_out=held, max_depth=4, min_leaf=5)
    own = classes(inputs).argmax(dim=1).numpy()
    table = tree.table(inputs)
    oracle = DecisionTreeClassifier(max_depth=4, min_samples_leaf=5, random_state=0).fit(table, own)
    np.testing.assert_array_equal(tree.predict(held), oracle.predict(tree.table(held)))
    leaves = [node for node in tree.nodes if node.statistic is None]
    assert sum(node.count for node in leaves) == 200
    at = oracle.apply(table)
    for node in leaves:
        shares = np.bincount(own[at == node.number], minlength=3) / node.count
        np.testing.assert_allclose(node.shares, shares, rtol=0, atol=1e-12)
        assert node.answer == f"class {int(shares.argmax())}"


def test_fidelity_is_measured_on_what_was_not_grown_on(classes):
    """Accuracy is the share of equal answers on the held-out set; the constant is the growing set's favourite."""
    inputs, held = sequences(200, 6, 3), sequences(90, 6, 3, seed=9)
    tree = SurrogateTree.fit(classes, inputs, held_out=held)
    said, grown = (classes(part).argmax(dim=1).numpy() for part in (held, inputs))
    favourite = int(np.bincount(grown).argmax())
    assert tree.fidelity.value == pytest.approx((tree.predict(held) == said).mean())
    assert tree.fidelity.trivial == pytest.approx((said == favourite).mean())
    assert (tree.fidelity.constant, tree.fidelity.count) == (f"class {favourite}", 90)
    share = SurrogateTree.fit(classes, inputs, held_out=0.25)
    assert share.fidelity.count == 50
    assert share.nodes[0].count == 150


def test_fidelity_of_a_regression():
    """R2 is scikit-learn's on the held-out scores, beside that of the growing set's mean."""
    from sklearn.metrics import r2_score

    model, inputs, held = lstm(output_size=2), sequences(200, 6, 3), sequences(90, 6, 3, seed=9)
    tree = SurrogateTree.fit(model, inputs, output=1, held_out=held)
    with torch.no_grad():
        said, grown = (model(part)[:, 1].double().numpy() for part in (held, inputs))
    assert tree.fidelity.measure == "R2"
    assert tree.fidelity.value == pytest.approx(r2_score(said, tree.predict(held)))
    assert tree.fidelity.trivial == pytest.approx(r2_score(said, np.full(90, grown.mean())))
    assert tree.fidelity.value > tree.fidelity.trivial + 0.2
    assert "R2" in repr(tree)
    assert all(": about " in line for line in tree.rules().splitlines())


def test_lengths_and_forms_of_data(classes):
    """Padding is no influence, and arrays, Examples and a Predictor give the same tree."""
    inputs, lengths = sequences(120, 6, 3), torch.arange(120) % 6 + 1
    dirty = inputs.clone()
    for row, length in enumerate(lengths.tolist()):
        dirty[row, length:] = 1e6
    first = SurrogateTree.fit(classes, inputs, lengths)
    others = [
        SurrogateTree.fit(classes, dirty.numpy(), lengths),
        SurrogateTree.fit(Predictor(classes), Examples(inputs, np.zeros(120, dtype=int), lengths)),
    ]
    for other in others:
        assert other.rules() == first.rules()
        assert other.fidelity == first.fidelity


def test_the_last_timestep_of_an_output_each_timestep():
    """A model with one output a timestep is imitated at each sequence's last."""
    model, inputs, lengths = lstm(pooling="none"), sequences(100, 6, 3), torch.arange(100) % 6 + 1
    tree = SurrogateTree.fit(model, inputs, lengths, held_out=0.2)
    with torch.no_grad():
        last = model(inputs, lengths)[torch.arange(100), lengths - 1, 0].double().numpy()
    order = np.random.default_rng(0).permutation(100)
    assert tree.nodes[0].value == pytest.approx(last[order[20:]].mean())


def test_seeds_repeat(classes):
    """The same seed gives the same tree and fidelity; the model is as it was."""
    before = {name: value.clone() for name, value in classes.state_dict().items()}
    one, other = (SurrogateTree.fit(classes, sequences(150, 6, 3), seed=5) for _ in range(2))
    assert (one.rules(), one.fidelity) == (other.rules(), other.fidelity)
    assert all(torch.equal(value, before[name]) for name, value in classes.state_dict().items())


# -- in words ----------------------------------------------------------------------------------------------------------


def test_the_way_of_a_sequence():
    """The way names each statistic asked, its value and its limits, and whether the model says so too."""
    tree = ruled(max_depth=1)
    hot = np.full((9, 2), 0.9, dtype=np.float32)
    threshold = tree.nodes[0].threshold
    text = tree.explain(hot)
    assert text.startswith(f"The tree says hot, because mean of load in the last third is 59 kW (above {threshold:.3g}")
    assert re.search(r"So does the model, here and of (9\d|100) % of all that come this way\.$", text)
    assert tree.explain(hot[None], length=7) == text
    with pytest.raises(InvalidInputError, match="expected one sequence"):
        tree.explain(np.zeros((2, 9, 2), dtype=np.float32))


def test_a_sequence_that_the_rules_get_wrong_is_told(classes):
    """Where tree and model disagree the sentence says so, and the two are in fact those of both."""
    inputs = sequences(300, 6, 3)
    tree = SurrogateTree.fit(classes, inputs, max_depth=1)
    said, answers = classes(inputs).argmax(dim=1).numpy(), tree.predict(inputs).astype(int)
    for row in (int(np.flatnonzero(said != answers)[0]), int(np.flatnonzero(said == answers)[0])):
        text = tree.explain(inputs[row])
        assert text.startswith(f"The tree says class {answers[row]}, because ")
        wrong = f"The model says class {said[row]}: on this sequence the rules do not tell what it thinks."
        assert text.endswith(wrong) == (said[row] != answers[row])


def test_rules_lead_where_the_tree_goes():
    """Read as conditions, exactly one line is true of each sequence, and says what the tree says."""
    model = lstm(output_size=1)
    model.data = DataSpec(features=tuple(FeatureSpec(name=name) for name in "abc"))
    inputs = sequences(300, 7, 3)
    tree = SurrogateTree.fit(model, inputs, max_depth=4)
    names, table = [one.name for one in tree.statistics], tree.table(inputs)
    text = tree.rules().replace("\N{MINUS SIGN}", "-")
    holds = np.zeros((len(inputs), len(text.splitlines())), dtype=bool)
    for column, line in enumerate(text.splitlines()):
        conditions, answer = re.fullmatch(r"If (.*): about (\S+) \(mean of \d+ sequences\)\.", line).groups()
        holds[:, column] = True
        name = ""
        for part in conditions.split(" and "):
            known = re.match(r"(.*) is (above|at most) (\S+)$", part)
            name, side, limit = known.groups() if known else (name, *re.match(r"(at most) (\S+)$", part).groups())
            values = table[:, names.index(name)]
            holds[:, column] &= values > float(limit) if side == "above" else values <= float(limit)
        said = tree.predict(inputs)[holds[:, column]]
        assert np.median(said) == pytest.approx(float(answer), rel=0.01, abs=0.01)
    assert (holds.sum(axis=1) == 1).mean() > 0.97  # limits are told with three digits


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_depth": 0}, "max_depth is 0"),
        ({"min_leaf": 1.5}, "min_leaf is 1.5"),
        ({"held_out": 0}, "held_out is 0; expected a share"),
        ({"held_out": 1.0}, "held_out is 1.0; expected a share"),
        ({"held_out": 0.9}, "grown on 12 sequences; expected 20 or more"),
        ({"statistics": ["median"]}, "statistics holds 'median'"),
        ({"output": 1}, "all classes are imitated at once"),
        ({"lengths": [7] * 120}, r"data: lengths\[0\] is 7"),
        ({"held_out": torch.zeros(3, 6, 2)}, "held_out: inputs has shape"),
    ],
)
def test_options_that_are_refused(classes, options, message):
    """Options out of range, and data that does not fit, are refused by name."""
    with pytest.raises(InvalidInputError, match=message):
        SurrogateTree.fit(classes, sequences(120, 6, 3), **options)


def test_models_that_are_refused(classes):
    """Token models, models of unknown task, constant ones, and outputs that there are not."""
    with pytest.raises(InvalidInputError, match="token ids, which have no mean or slope"):
        SurrogateTree.fit(lstm(vocab_size=9, embedding_dim=2), token_ids(50, 5))
    with pytest.raises(InvalidInputError, match="task is not known for a Foreign"):
        SurrogateTree.fit(Foreign(), sequences(50, 6, 3))
    with pytest.raises(InvalidInputError, match="says the same of all 70 sequences"):
        SurrogateTree.fit(classes, sequences(1, 6, 3).expand(100, -1, -1))
    with pytest.raises(InvalidInputError, match="output is 2; expected one of the outputs 0 to 1"):
        SurrogateTree.fit(lstm(output_size=2), sequences(50, 6, 3), output=2)
    with pytest.raises(InvalidInputError, match="output is None"):
        SurrogateTree.fit(lstm(output_size=2), sequences(50, 6, 3))
    with pytest.raises(InvalidInputError, match="R2 is not defined"):
        SurrogateTree.fit(lstm(), sequences(50, 6, 3), held_out=sequences(1, 6, 3).expand(9, -1, -1))

    def horizon(inputs):
        return np.zeros((len(inputs), 4, 1))

    with pytest.raises(ModelError, match="a horizon of their own"):
        SurrogateTree.fit(horizon, sequences(50, 6, 3).numpy(), task="regression")


def test_yes_no_questions_of_several():
    """One of several yes/no outputs is imitated by its number or its name."""
    model = lstm(task="binary", output_size=2, strength=4.0)
    model.data = DataSpec(outputs=("rain", "wind"))
    by_name, by_number = (SurrogateTree.fit(model, sequences(150, 6, 3), output=one) for one in ("wind", 1))
    assert by_name.answers == ("not wind", "wind")
    assert by_name.rules() == by_number.rules()


def test_the_probability_of_a_cautious_model_is_imitated():
    """A model that says no to all has nothing to imitate but its doubts; the tree follows them, in percent."""
    model, inputs = lstm(task="binary"), sequences(300, 6, 3)
    with torch.no_grad():
        model.head.weight.mul_(3)
        model.head.bias.fill_(-6)
    probabilities = 100 * model.predict(inputs)[:, 0]
    assert probabilities.max() < 50
    with pytest.raises(InvalidInputError, match="imitate='probability'"):
        SurrogateTree.fit(model, inputs)
    tree = SurrogateTree.fit(model, inputs, imitate="probability", min_leaf=5)
    assert tree.fidelity.measure == "R2"
    assert tree.fidelity.value > tree.fidelity.trivial
    assert "follows the model's probabilities" in str(tree.fidelity)
    leaf = np.array([tree.predict(inputs[row : row + 1])[0] for row in range(len(inputs))])
    assert leaf.mean() == pytest.approx(probabilities.mean(), rel=0.2)
    assert tree.nodes[0].value == pytest.approx(leaf.mean(), rel=0.2)
    assert "%" in tree.rules()
    assert f"{probabilities[0]:.2f}"[:3] in tree.explain(inputs[0])


def test_the_probability_of_one_class_is_imitated():
    """Of several classes one is named; of a regression there is no probability."""
    model, inputs = lstm(task="multiclass", output_size=3, strength=4.0), sequences(200, 6, 3)
    model.data = DataSpec(classes=("a", "b", "c"))
    tree = SurrogateTree.fit(model, inputs, imitate="probability", output="b")
    assert tree.nodes[0].value == pytest.approx(100 * model.predict(inputs)[:, 1].mean(), rel=0.2)
    with pytest.raises(InvalidInputError, match="output is None; expected one of the outputs 0 to 2"):
        SurrogateTree.fit(model, inputs, imitate="probability")
    with pytest.raises(InvalidInputError, match="the model gives numbers"):
        SurrogateTree.fit(lstm(), inputs, imitate="probability")
    with pytest.raises(InvalidInputError, match="imitate is 'odds'"):
        SurrogateTree.fit(lstm(), inputs, imitate="odds")
