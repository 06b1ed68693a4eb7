"""What the pages share: they are written whole or not at all, and show the model that was explained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..explainers import Attribution
from ..models import InvalidInputError, Predictor
from ..models.files import replacing_file


def write_page(path: str | Path, make: Callable[[], str]) -> Path:
    """Write what `make` returns, whole or not at all; return the path."""
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise InvalidInputError(f"{path} does not end in .html; a report is a web page, e.g. report.html.")
    text = make()
    with replacing_file(path) as beside:
        beside.write_text(text, encoding="utf-8")
    return path


def check_explained_model(model: Any, attribution: Attribution, name: str = "model") -> None:
    """Refuse a model that is not the explained one; None is no model."""
    if model is None:
        return
    predictor = model if isinstance(model, Predictor) else Predictor(model)
    if predictor.module is not None and predictor.model_id() != attribution.attrs["model"]:
        raise InvalidInputError(
            f"the {name} given (hash {predictor.model_id()}) is not the one that was explained (hash "
            f"{attribution.attrs['model']}); pass the explained model, or none."
        )
