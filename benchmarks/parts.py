"""Parts of a page of `docs/` that a program writes by itself, replaced whole each time."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def write_part(page: Path, program: str, lines: list[str]) -> None:
    """Replace what `program` wrote into the page before, or add it at the end; all else stays as it is."""
    begin, end = f"<!-- {program} -->", f"<!-- end of {program} -->"
    part = "\n".join([begin, "", *lines]).rstrip() + f"\n\n{end}\n"
    text = page.read_text(encoding="utf-8") if page.exists() else "# Benchmarks\n"
    before, found, rest = text.partition(begin)
    if found:
        _, closed, after = rest.partition(end + "\n")
        if not closed:
            raise ValueError(f"{page} has {begin!r} without {end!r} in a line of its own; remove what is left of it.")
        text = before + part + after
    else:
        text = f"{text.rstrip()}\n\n{part}"
    page.write_text(text, encoding="utf-8")
    print(f"wrote {page}")
