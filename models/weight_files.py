"""Reading PyTorch and safetensors files that may be anything: nothing in them is executed, memory stays bounded.

A `.pt` file is a pickle, a program. Before torch's own reader sees it (`weights_only=True`), the names it asks for are
compared with a short list; an archive is copied member by member, so sizes and checksums are known to be true.
"""

from __future__ import annotations

import io
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from .errors import SavedModelError

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
MAX_FILE_BYTES = 4 * 2**30
MAX_OPERATIONS = 2_000_000  # of a pickle; a weight takes about 40
MAX_SHARING = 16  # tensors may share storages (tied weights), so that together they claim more than there is

_HARMLESS = {
    *("collections.OrderedDict", "collections.Counter", "_codecs.encode", "torch.Size", "torch.device"),
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("set", "complex")),
    *(f"torch._utils._rebuild_{name}" for name in ("tensor", "tensor_v2", "parameter", "parameter_with_state")),
}
_TYPES = {str(value) for value in vars(torch).values() if isinstance(value, torch.dtype)}
_STORAGE = re.compile(r"torch\.(cuda\.)?[A-Z]\w*Storage")
_OTHER_TENSORS = {
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor",
    "torch._utils._rebuild_qtensor": "a quantised tensor",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor without values (device meta)",
    "torch._utils._rebuild_nested_tensor": "a nested tensor",
    "torch._utils._rebuild_tensor_v3": "a tensor of a rare type (such as float8)",
}
_STARTS = {
    b"\x89HDF": "an HDF5 file; a Keras model is read by from_keras(path)",
    b"\x1f\x8b": "a gzip file; unpack it first",
    b"BZh": "a bzip2 file; unpack it first",
    b"GGUF": "a GGUF file; save the weights with torch.save or safetensors",
}
_MEND = (
    "Where the model was made, save the weights alone: torch.save(model.state_dict(), 'weights.pt'), or "
    "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')."
)


def read_weight_file(path: Path) -> Any:
    """Return what a .pt, .pth, .bin, .ckpt or .safetensors file holds: usually a dict of tensors.

    Raises:
        SavedModelError: The file is missing, of another kind, damaged, claims more memory than it is large, or holds
            objects that only running its code would give.
    """
    try:
        _check_path(path)
    except OSError as error:
        raise SavedModelError(f"{printable(str(path))} cannot be read: {error.strerror}.") from None
    if path.suffix.lower() == ".safetensors":
        with open_safetensors(path) as file:
            names = sorted(file.keys(), key=_in_number_order)  # the file's own order is no model's
            return {name: file.get_tensor(name).clone() for name in names}
    return _read_torch_file(path)


def _check_path(path: Path) -> None:
    """Refuse by its name and kind what is no file of weights."""
    suffix = path.suffix.lower()
    if path.is_dir():
        if (path / "config.json").is_file():
            raise SavedModelError(f"{path} is a saved model's folder; read it with load({str(path)!r}).")
        raise SavedModelError(f"{path} is a folder; expected a file of weights ({', '.join(TORCH_SUFFIXES)}, ...).")
    if not path.exists():
        raise SavedModelError(f"there is no file {path}; expected a file of weights, e.g. 'weights.pt'.")
    if not path.is_file():
        raise SavedModelError(f"{path} is no ordinary file; expected a file of weights, e.g. 'weights.pt'.")
    if suffix in (".keras", ".h5", ".hdf5"):
        raise SavedModelError(f"{path} is a Keras file; read it with from_keras({str(path)!r}).")
    if suffix not in (*TORCH_SUFFIXES, ".safetensors"):
        raise SavedModelError(
            f"{path} ends in {suffix or 'nothing'!r}; from_torch reads {', '.join(TORCH_SUFFIXES)} and .safetensors, "
            "from_keras reads .keras and .h5. Rename the file if it is one of these."
        )


def _in_number_order(name: str) -> list[str]:
    """Return a key that puts lstm.2 before lstm.10."""
    return [part.zfill(9) for part in re.split(r"(\d+)", name)]


@contextmanager
def open_safetensors(path: Path) -> Iterator[Any]:
    """Open a safetensors file; whatever is wrong with it becomes a `SavedModelError`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except SavedModelError:
        raise
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise SavedModelError(f"{path} is not a safetensors file ({error}); it is damaged or truncated.") from None


def weight_fault(value: Tensor) -> str | None:
    """Return what keeps a tensor from being a weight ("is torch.int64; expected floats"), or None."""
    if is_lazy(value):
        return "has no shape yet; run the lazy module once on real inputs"
    if value.is_nested:
        return "is a nested tensor; expected an ordinary one"
    if value.layout != torch.strided:
        return "is sparse; expected a dense tensor, as weight.to_dense() gives"
    if value.is_quantized:
        return f"is quantised ({value.dtype}); expected floats, as weight.dequantize() gives"
    if value.dtype not in FLOATS:
        return f"is {value.dtype}; expected floats (a quantised model must be converted back first)"
    if value.is_meta:
        return "has no values (device meta); expected a tensor on a real device"
    if not torch.isfinite(value).all():
        return "holds NaN or infinite values; the training diverged"
    return None


def _read_torch_file(path: Path) -> Any:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise SavedModelError(f"{path} is larger than {MAX_FILE_BYTES // 2**30} GiB. {_MEND}")
        with path.open("rb") as file:
            start = file.read(16)
            file.seek(0)
            _check_start(path, start)
            content = _copied_archive(path, file, size) if start.startswith(b"PK") else io.BytesIO(file.read())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch thinks of an odd file is told by the checks here
            _check_names(path, content)
            values = torch.load(content, map_location="cpu", weights_only=True)
    except SavedModelError:
        raise
    except MemoryError:
        raise SavedModelError(f"{path} asks for more memory than there is; the file is damaged. {_MEND}") from None
    except Exception as error:  # noqa: BLE001 - a damaged file fails in any way, and all mean the same
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise SavedModelError(
            f"{path} is not a file that torch.save wrote, or it is damaged or truncated ({reason}). {_MEND}"
        ) from None
    _check_claims(path, values, size)
    return values


def _check_start(path: Path, start: bytes) -> None:
    """Refuse by its first bytes a file that is neither an archive nor a pickle."""
    if not start:
        raise SavedModelError(f"{path} is empty (0 bytes); the download or the copy failed. Get the file again.")
    for magic, meaning in _STARTS.items():
        if start.startswith(magic):
            raise SavedModelError(f"{path} is not a PyTorch file: it is {meaning}.")
    if start[8:9] == b"{":
        raise SavedModelError(f"{path} is not a PyTorch file: it looks like safetensors; rename it to .safetensors.")
    if not start.startswith((b"PK", b"\x80")):
        raise SavedModelError(f"{path} is not a file that torch.save wrote: it begins with {start!r}. {_MEND}")


def _copied_archive(path: Path, file: BinaryIO, size: int) -> BinaryIO:
    """Return a fresh archive of the weights in torch's; the copy is what is read, whatever else the file hides."""
    with zipfile.ZipFile(file) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        names = [member.filename for member in members]
        inner = {name.partition("/")[2] for name in names}
        if inner & {"constants.pkl", "attributes.pkl"}:
            raise SavedModelError(f"{path} is a TorchScript archive (torch.jit.save), which holds code. {_MEND}")
        if inner & {"archive_format", "serialized_exported_program.json", "models/model.json"}:
            raise SavedModelError(f"{path} is an exported program (torch.export.save), not weights. {_MEND}")
        if "data.pkl" not in inner or len({name.partition("/")[0] for name in names}) > 1:
            shown = ", ".join(printable(name) for name in names[:4]) or "nothing"
            raise SavedModelError(f"{path} is an archive that torch.save did not write (it holds {shown}). {_MEND}")
        total = sum(member.file_size for member in members)
        if total > size or any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise SavedModelError(
                f"{path} has {size:,} bytes and unpacks to {total:,}; torch.save never compresses, so the file is not "
                f"what it claims to be. {_MEND}"
            )
        if len(set(names)) < len(names):
            raise SavedModelError(f"{path} holds a member twice; the file is damaged. {_MEND}")
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as copy:
            for member in members:
                name = member.filename.partition("/")[2]
                if name in ("data.pkl", "version", "byteorder") or name.startswith("data/"):
                    copy.writestr(f"weights/{name}", archive.read(member))
    content.seek(0)
    return content


def _check_names(path: Path, content: BinaryIO) -> None:
    """Refuse a pickle that asks for anything but tensors and plain values; it is read as text, not run."""
    asked = [name for pickled in _pickles(content) for name in _names_asked_for(pickled)]
    content.seek(0)
    foreign = [name for name in asked if _is_foreign(name)]
    if not foreign:
        return
    own = [name for name in foreign if not name.startswith(("torch.", "collections.", "builtins.", "__builtin__."))]
    for name in foreign:
        if name in _OTHER_TENSORS and not own:
            raise SavedModelError(f"{path} holds {_OTHER_TENSORS[name]}; expected ordinary tensors of floats. {_MEND}")
    name = printable((own or foreign)[0])
    raise SavedModelError(f"{path} holds a pickled {name} object; loading it would run its code. {_MEND}")


def _pickles(content: BinaryIO) -> Iterator[BinaryIO]:
    """Yield each pickle that torch would read, at its beginning, one after the other."""
    start = content.read(2)
    content.seek(0)
    if start == b"PK":
        with zipfile.ZipFile(content) as archive:
            yield io.BytesIO(archive.read("weights/data.pkl"))
        return
    for _ in range(5):  # torch before 1.6: a magic number, a version, the machine, the values, the keys; then numbers
        if not content.read(1):
            return
        content.seek(-1, io.SEEK_CUR)
        yield content


def _is_foreign(name: str) -> bool:
    return name not in _HARMLESS and name not in _TYPES and not _STORAGE.fullmatch(name)


def _names_asked_for(pickled: BinaryIO) -> Iterator[str]:
    """Yield the "module.name" of everything that one pickle would look up."""
    texts = ["?", "?"]
    for count, (operation, argument, _) in enumerate(pickletools.genops(pickled)):
        if count > MAX_OPERATIONS:
            raise ValueError(f"its pickle has over {MAX_OPERATIONS:,} operations")
        if operation.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".", 1)
        elif operation.name == "STACK_GLOBAL":
            yield ".".join(texts)
        elif operation.name.startswith("EXT"):
            yield f"copyreg extension {argument}"
        elif isinstance(argument, str):
            texts = [texts[1], argument]


def _check_claims(path: Path, values: Any, size: int) -> None:
    """Refuse tensors that claim more numbers than the file has: huge shapes over a tiny storage."""
    storages: dict[int, int] = {}
    claimed = 0
    for value in _tensors_in(values):
        own = value.numel() * value.element_size()
        storage = value.untyped_storage()
        if own > storage.nbytes():
            raise SavedModelError(
                f"{path} holds a tensor of shape {tuple(value.shape)} that claims {own:,} bytes of the "
                f"{storage.nbytes():,} stored; expected tensors with all their values. {_MEND}"
            )
        storages[storage.data_ptr()] = storage.nbytes()
        claimed += own
    stored = sum(storages.values())
    if stored > size or claimed > MAX_SHARING * stored:
        raise SavedModelError(
            f"{path} has {size:,} bytes, and its tensors claim {max(stored, claimed):,}; the file is damaged. {_MEND}"
        )


def _tensors_in(values: Any) -> Iterator[Tensor]:
    """Yield every tensor inside nested dicts, lists and tuples, each container once, however deep."""
    waiting, seen = [values], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, dict) else value)


def printable(name: str) -> str:
    """Return a name from a file as it may stand in a message and in JSON: short, no control or half characters."""
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name[:120])
    return shown if len(name) <= 120 else f"{shown}..."


def listed(names: Iterable[str], most: int = 6) -> str:
    """Return "a, b, c and 4 more"."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(printable(name) for name in names[:most]) + more
