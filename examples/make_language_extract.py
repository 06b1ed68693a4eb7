"""Make examples/data/language.csv.gz from the CLDR names in the PyPI package babel, and copy CLDR's licence beside it.

Only needed to reproduce the extract: `pip install babel==2.18.0`, then run this file.
It keeps the names of territories, languages and currencies that occur in one of the twelve languages only.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections import defaultdict
from importlib import import_module
from importlib.resources import files
from pathlib import Path

LANGUAGES = ("cs", "da", "de", "en", "es", "fi", "fr", "it", "nl", "pl", "pt", "sv")
TARGET = Path(__file__).parent / "data" / "language.csv.gz"
LICENCE = TARGET.with_name("LICENSE.unicode")


def rows() -> list[tuple[str, str, str, str]]:
    """Return (kind, code, language, text) of every name that occurs in one language only, sorted."""
    locale_of = import_module("babel").Locale  # not among the libraries that the checks of types know
    found: list[tuple[str, str, str, str]] = []
    languages_of: dict[str, set[str]] = defaultdict(set)
    for language in LANGUAGES:
        locale = locale_of(language)
        kinds = {"territory": locale.territories, "language": locale.languages, "currency": locale.currencies}
        for kind, names in kinds.items():
            for code, text in names.items():
                found.append((kind, str(code), language, text))
                languages_of[text].add(language)
    kept: dict[str, tuple[str, str, str, str]] = {}  # a text that stands for two codes is kept once
    for row in sorted(found):
        if len(languages_of[row[3]]) == 1:
            kept.setdefault(row[3], row)
    return list(kept.values())


def main() -> None:
    """Write the extract, byte for byte the same each time, and the licence."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("kind", "code", "language", "text"))
    found = rows()
    writer.writerows(found)
    TARGET.write_bytes(gzip.compress(text.getvalue().encode(), compresslevel=9, mtime=0))
    LICENCE.write_bytes((files("babel") / "locale-data" / "LICENSE.unicode").read_bytes())
    print(f"wrote {len(found)} rows, {TARGET.stat().st_size / 1000:.0f} kB, to {TARGET}")


if __name__ == "__main__":
    main()
