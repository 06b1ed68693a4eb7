"""`open_model` finds the right reader by what a path is, and says what it reads where it finds none."""

import pytest
import torch
from torch import nn

from gatelens.examples.glucose import model_path
from gatelens.models import InvalidInputError, LSTMModel, SavedModelError, open_model
from helpers.draws import make_inputs, make_model


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(2, 4, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, inputs):
        return self.head(self.lstm(inputs)[0][:, -1])


def test_a_folder():
    """A saved model's folder is loaded with its data."""
    model = open_model(str(model_path()))
    assert isinstance(model, LSTMModel)
    assert model.data.feature_names[0] == "glucose"


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".PT"])
def test_pytorch_weights(tmp_path, suffix):
    """A state dict gives the module's scores; task and pooling are handed on."""
    net = Net().eval()
    path = tmp_path / f"weights{suffix}"
    torch.save(net.state_dict(), path)
    inputs = torch.randn(2, 5, 2)
    torch.testing.assert_close(open_model(path)(inputs), net(inputs))
    model = open_model(path, task="regression", pooling="mean")
    assert (model.config.task, model.config.pooling) == ("regression", "mean")


def test_safetensors_of_the_reference_model(tmp_path):
    """The weights of a saved folder alone are enough to have its scores back."""
    model = make_model(1, input_size=2, hidden_sizes=(3, 2), pooling="attention")
    model.save(tmp_path / "model")
    again = open_model(tmp_path / "model" / "weights.safetensors")
    inputs = make_inputs(model, 2, 4)
    torch.testing.assert_close(again(inputs), model(inputs))


def test_keras(tmp_path, monkeypatch):
    """A .keras and an .h5 file go to the Keras reader."""
    read = []
    monkeypatch.setattr("gatelens.models.opening.from_keras", lambda path: read.append(path.name))
    for name in ("a.keras", "b.h5", "c.HDF5"):
        (tmp_path / name).touch()
        open_model(tmp_path / name)
    assert read == ["a.keras", "b.h5", "c.HDF5"]


def test_what_cannot_be_opened(tmp_path):
    """A missing path, an unknown kind, and a task for a file that says so itself: each a sentence that helps."""
    with pytest.raises(SavedModelError, match=r"there is no saved model at .*nothing\.pt; expected a folder.*\.keras"):
        open_model(tmp_path / "nothing.pt")
    (tmp_path / "model.onnx").touch()
    with pytest.raises(SavedModelError, match=r"model\.onnx is no saved model.*\.safetensors"):
        open_model(tmp_path / "model.onnx")
    with pytest.raises(InvalidInputError, match=r"task is 'binary'.*leave task out"):
        open_model(model_path(), task="binary")
    (tmp_path / "model.h5").touch()
    with pytest.raises(InvalidInputError, match="pooling is 'mean'"):
        open_model(tmp_path / "model.h5", pooling="mean")


def test_a_folder_of_tensorflow(tmp_path):
    """A TensorFlow SavedModel is no saved model of gatelens that lacks a file: the error says how to save it again."""
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(SavedModelError, match=r'TensorFlow SavedModel folder.*save\("model\.keras"\)'):
        open_model(tmp_path)
    with pytest.raises(InvalidInputError, match="pooling is 'mean'"):
        open_model(tmp_path, pooling="mean")
