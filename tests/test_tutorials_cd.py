"""Two tutorials run whole: one question interpreted in several ways, and ten classes read by three networks."""

import contextlib
import html
import io
import json
import re
import shlex
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit, softmax

from gatelens.cli import main as cli
from gatelens.examples import ten_classes, three_ways
from gatelens.examples.story import data_path
from gatelens.explainers import explain
from gatelens.models import DataSpec, ModelError, evaluate, load, open_model
from gatelens.models.surrogate import SurrogateTree
from helpers.keras_made import keras, predicted, saved

layers = keras.layers
STRIDE, MOST = 20, 500
PNG = b"\x89PNG"


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Sums are added in the same order, and measuring again gives the same numbers."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run_whole(main, folder, **options):
    """Run a tutorial; return its folder and what it printed."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        main(folder, **options)
    return SimpleNamespace(folder=folder, told=told.getvalue())


@pytest.fixture(scope="module")
def ways(tmp_path_factory, one_thread):
    folder = tmp_path_factory.mktemp("ways") / "new" / "three_ways"
    return run_whole(three_ways.main, folder, epochs=10, stride=STRIDE, compared=3)


@pytest.fixture(scope="module")
def classes(tmp_path_factory, one_thread):
    folder = tmp_path_factory.mktemp("classes") / "new" / "ten_classes"
    return run_whole(ten_classes.main, folder, epochs=3, most=MOST)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run a command as a user would, in an empty folder; return that folder."""

    def call(line):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", shlex.split(line))
        with pytest.raises(SystemExit) as ended:
            cli()
        assert not ended.value.code
        return tmp_path

    return call


def stored(folder):
    return json.loads((folder / "data.json").read_text(encoding="utf-8"))


def page_of(path):
    """Return a page's text, with plain spaces."""
    return html.unescape(path.read_text(encoding="utf-8")).replace("\N{NO-BREAK SPACE}", " ")


def ends_well(ran, page):
    """Its last line is the path of the page, a PNG is a PNG, and every picture that it names is there."""
    assert ran.told.rstrip().splitlines()[-1] == f"Open {(ran.folder / page).resolve()}"
    named = re.search(r"^Pictures: (.*) in ", ran.told, flags=re.MULTILINE)[1].split(", ")
    assert len(named) >= 5
    for name in named:
        assert (ran.folder / name).read_bytes().startswith(PNG)


# -- three ways --------------------------------------------------------------------------------------------------------


def test_three_ways_writes_what_it_says(ways):
    """Three saved models, a page of each, pictures; the notes of cleaning are printed."""
    ends_well(ways, "lstm.html")
    for name in ("attention", "lstm", "retain"):
        assert load(ways.folder / name).data.target == "glucose in 30 minutes"
        assert "glucose in 30 minutes" in page_of(ways.folder / f"{name}.html")
    for words in (
        "194 rows less than 180 s after another were dropped",
        "17,408",
        "always no rise",
        "chronological",
    ):
        assert words in ways.told


def test_three_ways_metrics_are_true(ways):
    """Measured again on the held-out weeks, all three are as data.json tells, beside the trivial answer."""
    data = three_ways.read(STRIDE)
    for name in ("attention", "lstm", "retain"):
        told = stored(ways.folder / name)["provenance"]
        again = evaluate(load(ways.folder / name), data.test, train=data.train, name=name).to_dict()
        assert list(told["metrics"]) == [name, "always_no rise"]
        for row, values in again.items():
            assert told["metrics"][row] == pytest.approx(values, abs=1e-5)
        assert told["seed"] == 0
        assert told["prepared"]["split"] == "chronological"
        assert told["versions"]
        assert told["intended_use"]


def test_rise_is_the_reading_thirty_minutes_on():
    """Looked up in the file by time, a window is a rise where the reading 30 minutes after its end is 20 higher."""
    readings = (
        pd.read_csv(data_path("glucose"), parse_dates=["time"]).drop_duplicates("time").set_index("time")["glucose"]
    )
    data = three_ways.read(STRIDE)
    seen = 0
    for part in (data.train, data.validation, data.test):
        for end, target, scaled in zip(part.times[:, -1], part.targets, part.inputs[:, -1, 0], strict=True):
            now = readings[pd.Timestamp(end)]
            assert scaled * data.spec.scale[0] + data.spec.center[0] == pytest.approx(now, abs=1e-3)
            later = readings[pd.Timestamp(end) : pd.Timestamp(end) + pd.Timedelta(minutes=30)].iloc[1:]
            if len(later) == 6 and later.index[-1] == pd.Timestamp(end) + pd.Timedelta(minutes=30):
                assert target == (later.iloc[-1] - now > 20)
                seen += 1
    assert seen > 1000


def test_three_ways_compares_all_of_them(ways):
    """The table has a row for each way with what it cannot tell, and the correlations are a symmetric matrix."""
    table = ways.told.split("cannot tell:")[1].split("How far")[0]
    for name, cannot in three_ways.CANNOT.items():
        assert re.search(rf"^  {re.escape(name)} +minutes .*{re.escape(cannot)}$", table, flags=re.MULTILINE)
    assert re.search(r"^  surrogate tree .*where they differ \(\d+% of windows\)$", table, flags=re.MULTILINE)
    lines = ways.told.split("mean of 3 windows):\n")[1].split("\n\n")[0].splitlines()[1:]
    found = np.array([line.split()[-7:] for line in lines], dtype=float)
    assert found.shape == (7, 7)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(np.diag(found), 1)
    assert abs(found).max() <= 1


def test_three_ways_explains_what_it_saved(ways):
    """Each way holds its promise on the saved model: shares sum to 1 or to the score, and the tree is as told."""
    data = three_ways.read(STRIDE)
    windows = data.test.take(range(3))
    attending, lstm, retain = (load(ways.folder / name) for name in ("attention", "lstm", "retain"))
    looked = explain(attending, windows, ["attention"])["attention"]
    np.testing.assert_allclose(looked.timesteps.sum(axis=1), 1, rtol=1e-5)
    outside = explain(lstm, windows, ["deeplift", "temporal_shapley"])
    assert outside["temporal_shapley"].diagnostic("exhaustive").all()  # 18 timesteps: exact
    for found in outside.values():
        assert abs(found.completeness_gap).max() < 1e-4
    parts = explain(retain, windows, ["retain"])["retain"]
    np.testing.assert_allclose(parts.values.sum(axis=(1, 2)) + retain.head.bias.item(), parts.prediction, atol=1e-4)
    tree = SurrogateTree.fit(lstm, data.train, held_out=data.test)
    with torch.no_grad():
        said = lstm(data.test.inputs)[:, 0].numpy() > 0
    assert tree.fidelity.value == pytest.approx((tree.predict(data.test.inputs) == said).mean())
    assert str(tree.fidelity) in ways.told
    assert tree.rules() in ways.told


def test_three_ways_page_holds_the_words(ways):
    """The page of the plain LSTM tells what the script printed about the same window."""
    page = page_of(ways.folder / "lstm.html")
    headline = re.search(r"the model predicts (.*) with (.* probability)", ways.told)
    assert headline[1] in page
    assert headline[2] in page
    for name in ("DeepLIFT", "Temporal Shapley", "LIME"):
        assert name in page
    assert "Attention" in page_of(ways.folder / "attention.html")
    assert "Integrated gradients" in page_of(ways.folder / "retain.html")


def test_three_ways_hint_is_a_command_that_runs(ways, run):
    """The command that it prints makes a page of the same window."""
    line = re.search(r"^At the terminal: (.*)$", ways.told, flags=re.MULTILINE)[1]
    end = re.search(r"--end '(.*)'", line)[1]
    assert f"The plain LSTM about {end}:" in ways.told
    page = page_of(run(line) / "report.html")
    assert "glucose in 30 minutes" in page
    assert end[-5:] in page


# -- ten classes -------------------------------------------------------------------------------------------------------


def convolutional(folder):
    made = ten_classes.ConvolutionalNetwork(DataSpec.from_dict(stored(folder / "cnn"))).eval()
    made.load_state_dict(torch.load(folder / "cnn" / "weights.pt", weights_only=True))
    return made


def test_ten_classes_writes_what_it_says(classes):
    """Models, curves, an image with its maps for each of two images, and pages of the LSTM and of the other network."""
    ends_well(classes, "lstm.html")
    assert len(list(classes.folder.glob("image-*.png"))) == 2
    assert len(list(classes.folder.glob("training-*.png"))) == 3
    for words in ("ActivationLSTM", "AttentionPooling", "Conv2d", "recall of each digit", "f1 of each digit"):
        assert words in classes.told


def test_ten_classes_metrics_are_true(classes):
    """Measured again, all three are as their data.json tells: accuracy, and recall and F1 of each digit."""
    data, _ = ten_classes.read(MOST)
    models = {name: load(classes.folder / name) for name in ("lstm", "attention")}
    models["cnn"] = convolutional(classes.folder)
    for name, model in models.items():
        again = evaluate(model, data.test, train=data.train, task="multiclass", name=name)
        told = stored(classes.folder / name)["provenance"]["metrics"]
        assert len(told) == 2  # and the trivial answer
        for row, values in again.to_dict().items():
            assert told[row] == pytest.approx(values, abs=1e-5)
        assert {"accuracy", "macro_recall", "macro_f1", "recall_7", "f1_7"} <= set(told[name])


def test_pixels_are_those_of_the_images():
    """Row by row, from the top, in ink from 0 to 1; no image is in two parts."""
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    data, _ = ten_classes.read()
    parts = (data.train, data.validation, data.test)
    numbers = np.concatenate([np.array(part.sample_names, dtype=int) for part in parts])
    assert sorted(numbers) == list(range(1797))
    for part in parts:
        rows = np.array(part.sample_names, dtype=int)
        np.testing.assert_allclose(part.inputs, images[rows].reshape(-1, 8, 8) / 16)
        np.testing.assert_array_equal(part.targets, digits[rows])


def test_one_interface_for_all_three(classes):
    """Integrated gradients, occlusion and LIME explain each pixel of all three; gradients add up to the score."""
    data, _ = ten_classes.read(MOST)
    images = data.test.take([0])
    models = [load(classes.folder / "lstm"), load(classes.folder / "attention"), convolutional(classes.folder)]
    for model in models:
        before = {name: value.clone() for name, value in model.state_dict().items()}
        found = explain(model, images, ten_classes.ANY, options=ten_classes.OPTIONS, task="multiclass")
        for attribution in found.values():
            assert attribution.values.shape == (1, 8, 8)
            assert attribution.resolution == "cell"
        gradients = found["integrated_gradients"]
        change = gradients.prediction - gradients.baseline_prediction
        assert abs(gradients.completeness_gap) < 0.01 * abs(change)
        ink = gradients.inputs[0] > 0
        assert not gradients.values[0][~ink].any()  # a pixel without ink is as on the empty sheet
        for name, value in model.state_dict().items():
            assert torch.equal(value, before[name])


def test_occlusion_of_the_convolutional_network_is_brute_force(classes):
    """A pixel's value is what the score loses without its ink, computed by hand."""
    data, _ = ten_classes.read(MOST)
    model, image = convolutional(classes.folder), torch.tensor(data.test.inputs[:1])
    found = explain(model, image, ["occlusion"], options={"occlusion": {"players": "cell"}}, task="multiclass")
    with torch.no_grad():
        scores = model(image)[0]
        target = int(scores.argmax())
        for row, column in np.ndindex(8, 8):
            without = image.clone()
            without[0, row, column] = 0
            lost = float(scores[target] - model(without)[0, target])
            assert found["occlusion"].values[0, row, column] == pytest.approx(lost, abs=1e-4)


def test_what_looks_into_an_lstm_refuses_the_other_network(classes):
    """The printed sentences say what the network lacks and which explainers take it."""
    told = classes.told.split("refuses the convolutional network:")[1]
    assert "gate_saliency: ConvolutionalNetwork holds no nn.LSTM or nn.LSTMCell" in told
    assert "attention: attention explains an LSTMModel with pooling" in told
    assert told.count("integrated_gradients") == 2


def test_ten_classes_pages_hold_the_words(classes):
    """Both pages tell the predictions that were printed, under the explainers' names."""
    said = re.findall(
        r"^(\w+): For the digit, the model predicts (\d) with (.*) probability", classes.told, re.MULTILINE
    )
    assert [network for network, *_ in said] == ["lstm", "cnn"] * 2
    for network, digit, sure in said:
        page = page_of(classes.folder / f"{network}.html")
        assert re.search(rf"predicts\s*(<[^>]*>)?\s*{digit}\b", page)
        assert sure in page
    for name in ("DeepLIFT", "Integrated gradients", "Occlusion", "LIME", "Gate saliency"):
        assert name in page_of(classes.folder / "lstm.html")
    assert "ConvolutionalNetwork" in page_of(classes.folder / "cnn.html")
    assert "Gate saliency" not in page_of(classes.folder / "cnn.html")


def test_ten_classes_hint_is_a_command_that_runs(classes, run):
    """The command that it prints reads the image it wrote, and predicts the same digit."""
    line = re.search(r"^At the terminal: (.*)$", classes.told, flags=re.MULTILINE)[1]
    page = page_of(run(line) / "report.html")
    digit, sure = re.search(
        r"lstm: For the digit, the model predicts (\d) with (.*) probability", classes.told
    ).groups()
    assert re.search(rf"predicts\s*(<[^>]*>)?\s*{digit}\b", page)
    assert sure in page


# -- the same made by Keras --------------------------------------------------------------------------------------------


def trained(model, loss, part, epochs=1):
    """Return a Keras model that Keras has trained."""
    model.compile(keras.optimizers.Adam(0.01), loss)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(part.inputs, part.targets.astype("float32"), epochs=epochs, batch_size=64, verbose=0)
    return model


def scores_of(model, inputs):
    with torch.no_grad():
        return model(torch.tensor(inputs)).numpy()


def test_keras_lstm_is_explained_from_its_file(tmp_path):
    """LSTM(64) -> Dense(1, sigmoid), trained by Keras: the same predictions, complete explanations, a surrogate."""
    data = three_ways.read(STRIDE)
    made = keras.Sequential([keras.Input((18, 2)), layers.LSTM(64), layers.Dense(1, activation="sigmoid")])
    trained(made, "binary_crossentropy", data.train, epochs=5)
    model = open_model(saved(made, tmp_path))
    windows = data.test.take(range(0, len(data.test), 60))
    np.testing.assert_allclose(expit(scores_of(model, windows.inputs)), predicted(made, windows.inputs), atol=1e-5)
    found = explain(model, windows, ["deeplift", "temporal_shapley", "lime"], options={"lime": {"players": "cell"}})
    for name in ("deeplift", "temporal_shapley"):
        assert abs(found[name].completeness_gap).max() < 1e-4
    assert (found["lime"].diagnostic("surrogate_r2") > 0.5).all()
    tree = SurrogateTree.fit(model, data.train, held_out=data.test)
    assert tree.fidelity.count == len(data.test)


def test_keras_attention_is_explained_from_its_file(tmp_path):
    """LSTM(64) with Keras's additive attention: gradients add up, and whose weights are not known says so."""
    data = three_ways.read(STRIDE)
    given = keras.Input((18, 2))
    states = layers.LSTM(64, return_sequences=True)(given)
    context = layers.GlobalAveragePooling1D()(layers.AdditiveAttention()([states, states]))
    made = keras.Model(given, layers.Dense(1, activation="sigmoid")(context))
    trained(made, "binary_crossentropy", data.train)
    model = open_model(saved(made, tmp_path))
    windows = data.test.take(range(2))
    np.testing.assert_allclose(expit(scores_of(model, windows.inputs)), predicted(made, windows.inputs), atol=1e-5)
    found = explain(model, windows, ["integrated_gradients", "lime"])["integrated_gradients"]
    change = abs(found.prediction - found.baseline_prediction)
    assert (abs(found.completeness_gap) <= 0.01 * change + 1e-5).all()


def test_keras_ten_classes_are_explained_from_their_file(tmp_path):
    """LSTM(64, relu) -> Dense(10, softmax), trained by Keras: the same probabilities, complete explanations."""
    data, _ = ten_classes.read(MOST)
    made = keras.Sequential(
        [keras.Input((8, 8)), layers.LSTM(64, activation="relu"), layers.Dense(10, activation="softmax")]
    )
    trained(made, "sparse_categorical_crossentropy", data.train)
    model = open_model(saved(made, tmp_path))
    images = data.test.take(range(3))
    found = softmax(scores_of(model, images.inputs), axis=1)
    np.testing.assert_allclose(found, predicted(made, images.inputs), atol=1e-5)
    methods = [*ten_classes.ANY, "deeplift", "gate_saliency"]
    explained = explain(model, images, methods, options=ten_classes.OPTIONS)
    assert list(explained) == methods
    assert abs(explained["deeplift"].completeness_gap).max() < 1e-4
    assert explained["gate_saliency"].gates is not None


def convolutional_body():
    """Return the layers of the tutorial's convolutional network, as Keras has them."""
    return [
        layers.Conv2D(16, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(2),
        layers.Conv2D(32, 3, padding="same", activation="relu"),
        layers.Flatten(),
        layers.Dense(10, activation="softmax"),
    ]


@pytest.fixture(scope="module", params=["images", "rows"])
def convolutional_file(request, tmp_path_factory, one_thread):
    """Return Keras's trained network, how it wants the data's (B, 8, 8), its file, and the data."""
    data, _ = ten_classes.read(MOST)
    start = [keras.Input((8, 8, 1))] if request.param == "images" else [keras.Input((8, 8)), layers.Reshape((8, 8, 1))]
    made = keras.Sequential([*start, *convolutional_body()])
    as_read = (lambda inputs: inputs[..., None]) if request.param == "images" else np.asarray
    part = SimpleNamespace(inputs=as_read(data.train.inputs), targets=data.train.targets)
    trained(made, "sparse_categorical_crossentropy", part, epochs=3)
    path = saved(made, tmp_path_factory.mktemp(request.param))
    return SimpleNamespace(made=made, as_read=as_read, path=path, data=data)


def test_keras_convolutional_network_is_explained_from_its_file(convolutional_file):
    """Conv2D(16) -> MaxPooling2D -> Conv2D(32) -> Dense(10), trained by Keras: its predictions, complete explanations.

    Images (8, 8, 1), or sequences (8, 8) that the network makes images of itself, are both read as rows of pixels.
    """
    model, data = open_model(convolutional_file.path), convolutional_file.data
    images = data.test.take(range(3))
    every = data.test.inputs
    expected = predicted(convolutional_file.made, convolutional_file.as_read(every))
    assert (expected.argmax(axis=1) == data.test.targets).mean() > 0.6
    np.testing.assert_allclose(softmax(scores_of(model, every), axis=1), expected, atol=1e-5)
    methods = [*ten_classes.ANY, "kernel_shap", "temporal_shapley"]
    found = explain(model, images, methods, options=ten_classes.OPTIONS)
    for attribution in found.values():
        assert attribution.values.shape == (3, 8, 8)
        assert np.isfinite(attribution.values).all()
    change = abs(found["integrated_gradients"].prediction - found["integrated_gradients"].baseline_prediction)
    assert (abs(found["integrated_gradients"].completeness_gap) <= 0.01 * change + 1e-5).all()
    for name in ("kernel_shap", "temporal_shapley"):  # 8 rows: all 256 coalitions
        assert abs(found[name].completeness_gap).max() < 1e-4
    without = images.inputs[:1].copy()
    without[0, 3, 4] = 0
    target = scores_of(model, images.inputs[:1])[0].argmax()
    lost = (scores_of(model, images.inputs[:1]) - scores_of(model, without))[0, target]
    assert found["occlusion"].values[0, 3, 4] == pytest.approx(lost, abs=1e-4)


def test_keras_convolutional_network_has_no_gates(convolutional_file):
    """What looks into an LSTM says that there is none, and which explainers take the network."""
    model, images = open_model(convolutional_file.path), convolutional_file.data.test.take([0])
    for method in ("gate_saliency", "deeplift", "cell_decomposition", "lrp"):
        with pytest.raises(ModelError, match=r"KerasModel:? (it )?holds no .*LSTM.*: integrated_gradients, .* lime\."):
            explain(model, images, [method])


def test_keras_convolutional_network_at_the_terminal(convolutional_file, run, capsys):
    """The layers are listed by inspect, and explain and report tell what it says about an image in a CSV file."""
    frame = pd.DataFrame(convolutional_file.data.test.inputs[0], columns=ten_classes.COLUMNS)
    folder = run(f"gatelens inspect {convolutional_file.path}")
    told = capsys.readouterr().out
    assert "Keras model with no LSTM, multiclass, 10 outputs" in told
    assert "8 timesteps of 8 features" in told
    assert "Conv2D, 16 filters of 3 x 3, relu, padding same" in told
    frame.to_csv(folder / "image.csv", index=False)
    run(f"gatelens explain {convolutional_file.path} --input image.csv")
    said = int(scores_of(open_model(convolutional_file.path), frame.to_numpy(np.float32)[None])[0].argmax())
    assert f"output {said}" in capsys.readouterr().out
    run(f"gatelens report {convolutional_file.path} --input image.csv")
    assert "column 5" in page_of(folder / "report.html")
