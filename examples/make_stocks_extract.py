"""Make examples/data/stocks.csv.gz from the public-domain series in the PyPI package bokeh_sampledata.

Only needed to reproduce the extract: `pip install bokeh_sampledata==2026.1`, then run this file.
It keeps ticker, date and adjusted closing price of the four long series, as they are; FB has 196 days and is left out.
"""

from __future__ import annotations

import gzip
from pathlib import Path

TICKERS = ("AAPL", "GOOG", "IBM", "MSFT")
TARGET = Path(__file__).parent / "data" / "stocks.csv.gz"


def main() -> None:
    """Write the extract, byte for byte the same each time."""
    from bokeh_sampledata.stocks import data

    kept = data.loc[data["ticker"].isin(TICKERS), ["ticker", "date", "adj_close"]]
    text = kept.to_csv(index=False, date_format="%Y-%m-%d", lineterminator="\n")
    TARGET.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    print(f"wrote {len(kept)} rows, {TARGET.stat().st_size / 1000:.0f} kB, to {TARGET}")


if __name__ == "__main__":
    main()
