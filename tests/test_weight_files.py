"""Files that may be anything: nothing in them runs, memory stays bounded, each fault has its own clear error."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch

from gatelens.models import LSTMModel, SavedModelError
from gatelens.models.torch_files import from_torch
from gatelens.models.weight_files import read_weight_file
from helpers.torch_nets import Net

LEGACY = {"_use_new_zipfile_serialization": False}
MEND = r"save the weights alone: torch\.save\(model\.state_dict\(\), 'weights\.pt'\)"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pt"


def refused(path, message):
    with pytest.raises(SavedModelError, match=message) as caught:
        from_torch(path)
    assert str(caught.value).startswith(str(path))
    assert caught.value.__cause__ is None
    assert len(str(caught.value)) < 1000
    return str(caught.value)


def rewritten(source, goal, change=lambda name, content: content, compression=zipfile.ZIP_STORED):
    """Write the members of an archive again, some of them changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(goal, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return goal


def with_pickle(path, pickled):
    """Write a torch archive whose data.pkl is `pickled`."""
    buffer = io.BytesIO()
    torch.save(Net().state_dict(), buffer)
    return rewritten(buffer, path, lambda name, content: pickled if name.endswith("data.pkl") else content)


# -- what is read ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, LEGACY])
def test_both_formats_of_torch(path, options):
    """Archives and the format before torch 1.6 give the tensors that were saved, tied and strided ones too."""
    weight = torch.randn(4, 3)
    saved = {"a": weight, "b": weight.t(), "c": [weight[1:], {"d": torch.arange(3)}], "e": torch.nn.Parameter(weight)}
    torch.save(saved, path, **options)
    values = read_weight_file(path)
    assert torch.equal(values["a"], weight)
    assert torch.equal(values["b"], weight.t())
    assert torch.equal(values["c"][0], weight[1:])
    assert torch.equal(values["e"], weight)
    assert values["a"].data_ptr() == values["b"].data_ptr()


def test_harmless_values(path):
    """Settings of a checkpoint that are plain values do not hinder."""
    extras = {
        "lr": 0.1,
        "shape": torch.Size([2]),
        "type": torch.float16,
        "on": torch.device("cuda"),
        "tags": {"a", "b"},
    }
    torch.save({"model": Net().state_dict(), "settings": extras, "state": b"\0\xff", "z": 1j}, path)
    assert isinstance(from_torch(path), LSTMModel)


def test_numbered_weights_of_safetensors(tmp_path):
    """A safetensors file has no order of its own: numbers in names give it, 2 before 10."""
    names = [f"lstm.{index}.w" for index in range(12)]
    safetensors.torch.save_file({name: torch.ones(1) for name in names}, tmp_path / "a.safetensors")
    assert list(read_weight_file(tmp_path / "a.safetensors")) == names


# -- nothing runs ----------------------------------------------------------------------------------------------------


class Attack:
    """Makes a file when it is unpickled."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("how", ["archive", "legacy", *range(6)])
@pytest.mark.parametrize("nested", [False, True])
def test_code_is_not_run(path, how, nested):
    """A pickle that would call os.system or open a file is refused by name, in every format and protocol."""
    made = path.with_name("made")
    for attack in (Attack(os.system, f"touch {made}"), Attack(open, str(made), "w"), Attack(eval, "1/0")):
        value = {"state_dict": {"lstm.weight_ih_l0": attack}} if nested else attack
        if isinstance(how, int):
            path.write_bytes(pickle.dumps(value, protocol=how))
        else:
            torch.save(value, path, **(LEGACY if how == "legacy" else {}))
        if how in (0, 1):
            refused(path, "is not a file that torch.save wrote")
        else:
            name = r"(posix\.system|_?io\.open|(__)?builtins?(__)?\.eval)"
            refused(path, rf"holds a pickled {name} object; loading it would run its code\. .*{MEND}")
        assert not made.exists()


def test_a_pickled_module(path):
    """A whole module is refused by the name of its class, and how to save it is told."""
    torch.save(Net(), path)
    assert "pickled helpers.torch_nets.Net object" in refused(path, MEND)
    torch.save({"model": torch.nn.LSTM(1, 1)}, path)
    refused(path, r"holds a pickled torch\.nn\.modules\.rnn\.LSTM object")


def test_numpy_values(path):
    """A numpy number needs numpy's code; it is named."""
    torch.save({"model": Net().state_dict(), "best": np.float64(1)}, path)
    refused(path, r"holds a pickled numpy\.\S+ object")


def test_what_the_user_has_allowed_is_not_allowed_here(path):
    """The list of safe names in torch, which anyone may lengthen, is not asked."""
    torch.save({"w": Attack(print, "hello")}, path)
    with torch.serialization.safe_globals([print]):
        refused(path, "print object; loading it would run its code")


@pytest.mark.parametrize(
    "pickled", [b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.", b"\x80\x02ctorch\nFloatTensor\n)R."]
)
def test_calls_that_only_take_memory(path, pickled):
    """What torch allows beyond tensors and plain values is refused too."""
    refused(with_pickle(path, pickled), "object; loading it would run its code")


def test_scripts_and_exported_programs(path):
    """TorchScript and exported programs are told apart, and hold code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    refused(path, rf"is a TorchScript archive .* {MEND}")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/archive_format", "pt2")
        archive.writestr("a/models/model.json", "{}")
    refused(path, "is an exported program")


# -- memory stays bounded --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, LEGACY])
def test_a_huge_shape_over_a_tiny_storage(path, options):
    """Stride 0 makes terabytes of one number; it is refused before anything copies it."""
    torch.save({"lstm.weight_ih_l0": torch.zeros(1).expand(4 * 10**6, 10**6)}, path, **options)
    refused(path, "shape \\(4000000, 1000000\\) that claims 16,000,000,000,000 bytes of the 4 stored")
    torch.save({f"{index}": torch.zeros(100).expand(1, 100) for index in range(3)}, path, **options)
    refused(path, "it holds no LSTM")
    shared = torch.zeros(1000)
    torch.save({f"{index}": shared.view(10, 100) for index in range(1000)}, path, **options)
    refused(path, "its tensors claim 4,000,000; the file is damaged")


@pytest.mark.parametrize(("method", "name"), [(zipfile.ZIP_DEFLATED, "deflated"), (zipfile.ZIP_BZIP2, "bzip2")])
def test_a_zip_bomb(path, monkeypatch, method, name):
    """An archive that unpacks to more than it is large is refused before a member is read."""
    buffer = io.BytesIO()
    torch.save(Net().state_dict(), buffer)
    rewritten(buffer, path, lambda _, content: content + bytes(2**24), method)
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("read"))
    tracemalloc.start()
    refused(path, r"and unpacks to \d{3},\d{3},\d{3}; torch\.save never compresses")
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_members_that_overlap(path):
    """A directory that names the same bytes many times is refused by their sum; one that names a name twice, too."""
    torch.save({"w": torch.zeros(1000)}, path)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        start, count = archive.start_dir, len(archive.namelist())
    directory = content[start : content.index(b"PK\x06\x06", start)]
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count * 50, count * 50, len(directory) * 50, start, 0)
    path.write_bytes(content[:start] + directory * 50 + end)
    refused(path, r"unpacks to .* torch\.save never compresses")
    path.write_bytes(content + bytes(2**20))
    refused(path, "damaged or truncated")
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count * 2, count * 2, len(directory) * 2, start, 0)
    path.write_bytes(content[:start] + directory * 2 + end)
    refused(path, "(holds a member twice|unpacks to)")


def test_numbers_that_are_not_there(path):
    """A storage that claims more than its record, or than the old format's numbers, is refused."""
    for options in ({}, LEGACY):
        buffer = io.BytesIO()
        torch.save({"w": torch.zeros(7)}, buffer, **options)
        content = buffer.getvalue()
        if options:
            path.write_bytes(content.replace(b"K\x07", b"J\x00\x00\x00\x10"[:5]))
        else:
            rewritten(buffer, path, lambda _, part: part.replace(b"K\x07", b"J\x00\x00\x00\x10"))
        refused(path, "damaged or truncated")
    content = content[: content.rindex(b"\x80\x02")] + b"\x80\x02]q\x00."  # no storage is filled
    path.write_bytes(content.replace(b"K\x07", b"J\x00\x00\x00\x10"))
    refused(path, "its tensors claim 1,073,741,824; the file is damaged")


@pytest.mark.parametrize("depth", [10_000, 50_000])
def test_deep_nesting(path, depth):
    """Lists or dicts nested 10,000 deep are no state dict."""
    lists = b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."
    refused(with_pickle(path, lists), "it holds a list; expected a state dict")
    dicts = b"\x80\x02" + b"}X\x01\x00\x00\x00a" * depth + b"}" + b"s" * depth + b"."
    refused(with_pickle(path, dicts), "it holds no LSTM: .* found no tensors")
    path.write_bytes(lists)
    refused(path, "damaged or truncated")


def test_cycles_and_endless_pickles(path, monkeypatch):
    """A dict that holds itself ends; so does a pickle with too many operations."""
    loop: dict = {"w": torch.ones(1)}
    loop["self"] = loop
    torch.save(loop, path)
    refused(path, "it holds no LSTM")
    torch.save(Net().state_dict(), path)
    monkeypatch.setattr("gatelens.models.weight_files.MAX_OPERATIONS", 10)
    refused(path, "over 10 operations")


def test_large_files(path, monkeypatch):
    """A file over the limit is refused by its size."""
    torch.save(Net().state_dict(), path)
    monkeypatch.setattr("gatelens.models.weight_files.MAX_FILE_BYTES", 100)
    refused(path, "is larger than 0 GiB")


# -- damaged, and of other kinds -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["archive", "legacy", "safetensors"])
def test_truncated_files(tmp_path, kind):
    """A file cut anywhere is refused as damaged."""
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pt")
    if kind == "safetensors":
        safetensors.torch.save_file(Net().state_dict(), path)
    else:
        torch.save(Net().state_dict(), path, **(LEGACY if kind == "legacy" else {}))
    content = path.read_bytes()
    for length in sorted({1, 2, 3, 8, 9, 20, 64, 300, *range(0, len(content) - 1, 97), len(content) - 1} - {0}):
        path.write_bytes(content[:length])
        refused(path, "(damaged or truncated|is not a file that torch.save wrote)")


@pytest.mark.parametrize("kind", ["archive", "legacy", "safetensors"])
def test_flipped_bytes(tmp_path, kind):
    """Whatever byte is wrong, there is a model or a clear error."""
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pt")
    if kind == "safetensors":
        safetensors.torch.save_file(Net().state_dict(), path)
    else:
        torch.save(Net().state_dict(), path, **(LEGACY if kind == "legacy" else {}))
    content = path.read_bytes()
    draw = random.Random(0)
    models = 0
    for _ in range(400):
        changed = bytearray(content)
        changed[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        try:
            from_torch(path)
            models += 1
        except SavedModelError as error:
            assert str(error).startswith(str(path))  # noqa: PT017 - most bytes are weights, and any will do
    assert models < 400


def test_a_wrong_bit_in_an_archive_is_noticed(path):
    """The archive's checksums are looked at, which torch does not."""
    torch.save({"w": torch.full((100,), 1.5)}, path)
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<f", 1.5) * 10, struct.pack("<f", 1.25) * 10, 1))
    refused(path, "damaged or truncated .*CRC")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"epoch,loss\n1,0.5\n", r"is not a file that torch\.save wrote: it begins with b'epoch,loss"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), r"is an HDF5 file; a Keras model is read by from_keras\(path\)"),
        (b"\x1f\x8b\x08" + bytes(64), "is a gzip file; unpack it first"),
        (b"\x20\0\0\0\0\0\0\0" + b'{"a":1}' + bytes(64), r"looks like safetensors; rename it to \.safetensors"),
        (b"PK\x03\x04" + bytes(64), "damaged or truncated"),
        (b"\x80\x02." + bytes(64), "damaged or truncated"),
        (b"\x80\x04\x95" + bytes(64), "damaged or truncated"),
        (b"\x80\x02K\x01.", "damaged or truncated"),
        (bytes(100), "is not a file that torch.save wrote"),
    ],
)
def test_other_content(path, content, message):
    """Text, HDF5, gzip, safetensors and rubbish under a .pt name are told apart by their first bytes."""
    path.write_bytes(content)
    refused(path, message)


def test_other_archives(path):
    """A zip of something else is told by what it holds."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<a/>")
    refused(path, r"is an archive that torch\.save did not write \(it holds word/document\.xml\)")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        archive.writestr("b/data.pkl", b"\x80\x02}.")
    refused(path, r"is an archive that torch\.save did not write")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        archive.writestr("a/version", b"3\n")
    refused(path, "it holds no LSTM")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda weight: weight.to_sparse(), "holds a sparse tensor; expected ordinary tensors of floats"),
        (lambda weight: torch.zeros(4, 4, device="meta"), "holds a tensor without values"),
        (lambda weight: weight.to(torch.float8_e4m3fn), "holds a tensor of a rare type"),
        (lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8), "holds a quantised tensor"),
        (lambda weight: torch.ones(4), "it holds a Tensor; expected a state dict"),
        (lambda weight: [weight], "it holds a list; expected a state dict"),
    ],
)
def test_other_tensors(path, make, message):
    """Tensors that are not ordinary are named."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = make(torch.ones(4, 4))
        alone = isinstance(value, list) or value.shape == (4,)
        torch.save(value if alone else {"lstm.weight_ih_l0": value}, path)
    refused(path, message)


def test_paths(tmp_path):
    """A missing file, a folder, a pipe and other suffixes are told, with what is read."""
    refused_paths = {
        "gone.pt": r"^there is no file .*gone\.pt; expected a file of weights",
        "folder.pt": r"folder\.pt is a folder; expected a file of weights",
        "pipe.pt": r"pipe\.pt is no ordinary file",
        "a.keras": r"a\.keras is a Keras file; read it with from_keras\(",
        "a.h5": r"a\.h5 is a Keras file; read it with from_keras\(",
        "a.onnx": r"a\.onnx ends in '\.onnx'; from_torch reads \.pt, \.pth, \.bin, \.ckpt and \.safetensors",
        "a": r"a ends in 'nothing'; from_torch reads",
    }
    (tmp_path / "folder.pt").mkdir()
    os.mkfifo(tmp_path / "pipe.pt")
    for name, message in refused_paths.items():
        if name.startswith("a"):
            (tmp_path / name).write_bytes(b"x")
        with pytest.raises(SavedModelError, match=message):
            from_torch(tmp_path / name)


def test_a_name_too_long_for_a_file():
    """What the operating system says comes through as a sentence."""
    with pytest.raises(SavedModelError, match=r"x{120}.* cannot be read: File name too long"):
        from_torch("x" * 5000 + ".pt")
    with pytest.raises(SavedModelError, match="there is no file"):
        from_torch("a\0.pt")


# -- safetensors -----------------------------------------------------------------------------------------------------


def written(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(shape, offsets, kind="F32"):
    return {"dtype": kind, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("header", "data", "length"),
    [
        ({"w": entry([4, 3], [0, 48])}, b"", None),
        ({"w": entry([4, 3], [0, 4])}, bytes(4), None),
        ({"w": entry([10**9, 10**9], [0, 4])}, bytes(4), None),
        ({"w": entry([2**63, 2**63], [0, 4])}, bytes(4), None),
        ({"w": entry([1], [0, 4]), "v": entry([1], [0, 4])}, bytes(4), None),
        ({"w": entry([-1], [0, 4])}, bytes(4), None),
        ({"w": entry([1], [0, 4], "F99")}, bytes(4), None),
        ({"w": 3}, bytes(4), None),
        ({"w": entry([1], [0, 4])}, bytes(4), 2**63),
        ({"w": entry([1], [0, 4])}, bytes(4), 2**62),
        ({"w": entry([1], [0, 4])}, bytes(4), 3),
        (b"[" * 10_000, b"", None),
        (b"\xff\xfe", b"", None),
        (b"", b"", None),
    ],
)
def test_safetensors_that_lie(tmp_path, header, data, length):
    """Headers that do not fit the data, are huge, malformed or of unknown types are refused, nothing allocated."""
    path = written(tmp_path / "a.safetensors", header, data, length)
    refused(path, "is not a safetensors file .* damaged or truncated")


def test_empty_safetensors(tmp_path):
    """No bytes, and no tensors."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"")
    refused(path, "is not a safetensors file")
    refused(written(path, {}), "it holds no LSTM: .* found no tensors")
    torch.save(Net().state_dict(), path)
    refused(path, "is not a safetensors file")
