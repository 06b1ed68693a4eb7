"""Make examples/data/weather.csv.gz from the public-domain NOAA readings in the PyPI package vega_datasets.

Only needed to reproduce the extract: `pip install vega_datasets==0.9.0`, then run this file.
It keeps every row and column as they are, but for the dates, which are written 2012-01-01 instead of 2012/01/01.
"""

from __future__ import annotations

import gzip
from importlib.resources import files
from pathlib import Path

TARGET = Path(__file__).parent / "data" / "weather.csv.gz"


def main() -> None:
    """Write the extract, byte for byte the same each time."""
    source = Path(str(files("vega_datasets"))) / "_data" / "seattle-weather.csv"
    header, *lines = source.read_text(encoding="utf-8").splitlines()
    text = "\n".join([header, *(line[:10].replace("/", "-") + line[10:] for line in lines)]) + "\n"
    TARGET.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    print(f"wrote {len(lines)} rows, {TARGET.stat().st_size / 1000:.0f} kB, to {TARGET}")


if __name__ == "__main__":
    main()
