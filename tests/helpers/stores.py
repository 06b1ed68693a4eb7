"""Stores of attributions as tests compare them."""

from __future__ import annotations

from pathlib import Path


def files_of(path: Path) -> dict[str, bytes]:
    """Return the bytes of all files of a store but those that hold seconds."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and "chunk_cost" not in file.parts
    }
