"""Make examples/data/glucose.csv.gz from the public-domain series in the PyPI package bokeh_sampledata.

Only needed to reproduce the extract: `pip install bokeh_sampledata==2026.1`, then run this file.
It keeps the time and the glucose reading of every row, as they are, and leaves the sensor's raw current (isig) out.
"""

from __future__ import annotations

import gzip
import io
from pathlib import Path

TARGET = Path(__file__).parent / "data" / "glucose.csv.gz"


def main() -> None:
    """Write the extract, byte for byte the same each time."""
    import pandas as pd
    from bokeh_sampledata.glucose import data

    text = io.StringIO()
    text.write("time,glucose\n")
    for moment, reading in zip(pd.DatetimeIndex(data.index).strftime("%Y-%m-%d %H:%M"), data["glucose"], strict=True):
        text.write(f"{moment},{reading}\n")
    TARGET.write_bytes(gzip.compress(text.getvalue().encode(), compresslevel=9, mtime=0))
    print(f"wrote {len(data)} rows, {TARGET.stat().st_size / 1000:.0f} kB, to {TARGET}")


if __name__ == "__main__":
    main()
