"""Tables as text, for a terminal, and as Markdown, for the documents."""

from __future__ import annotations

from bench.figures import Raw, Table, tables


def text(results: Raw) -> str:
    """A table for each part that was measured."""
    took = {part: f", in {taken['seconds']:.0f} s" for part, taken in results.get("taken", {}).items()}
    return "\n".join(f"{part}{took.get(part, '')}\n{_aligned(table)}\n" for part, table in tables(results).items())


def _aligned(table: Table) -> str:
    rows = [table.columns, *table.rows]
    widths = [max(len(row[at]) for row in rows) for at in range(len(table.columns))]
    return "\n".join(
        "  ".join(
            # A first column of names and a last one of remarks read from the left, figures from the right.
            f"{cell:<{width}}" if at == 0 or not table.columns[at] else f"{cell:>{width}}"
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def markdown(table: Table) -> str:
    aligned = [":--" if at == 0 or not name else "--:" for at, name in enumerate(table.columns)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [table.columns, aligned, *table.rows])
