"""The figures of the documents, made from what was kept: `python -m bench.publish`. Needs no root.

Between `<!-- figures PART -->` and `<!-- end -->` stands a part's table. Whatever stood there before goes.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from bench import plot, report
from bench.figures import Raw, Table, tables

TOP = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
NAME = "figures"
DOCUMENTS = (TOP / "docs" / "performance.md", TOP / "README.md")
PLOT = TOP / "docs" / "performance.svg"
IN_SHORT = {"cost": ("rate kept", "rows a connection"), "bpf_time": ("BPF time a connection",)}
"""By part, the rows that the README has."""
MISSING = "Not measured yet."
_REGION = re.compile(r"(<!-- figures (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def published(results: Raw) -> dict[Path, str]:
    """What each file has to be."""
    found = {path: filled(path.read_text(encoding="utf-8"), results) for path in DOCUMENTS}
    return found | {PLOT: plot.svg(list(plot.panels(results)))}


def filled(document: str, results: Raw) -> str:
    """The document with the figures of these results in it. Of a part that was not measured it says so."""
    parts = {name: report.markdown(table) for name, table in tables(results).items()}
    parts |= {"short": _short(results), "taken": _taken(results)}
    return _REGION.sub(lambda region: f"{region[1]}{parts.get(region[2], MISSING)}\n{region[3]}", document)


def _short(results: Raw) -> str:
    """The few rows that say most, with the same columns."""
    found = tables(results)
    if not IN_SHORT.keys() <= found.keys():
        return MISSING
    rows = [
        dict(zip(found[part].columns, row, strict=False)) | {"": row[0]}
        for part, names in IN_SHORT.items()
        for row in found[part].rows
        if row[0] in names
    ]
    columns = ("", "pytracecon", "tcplife", "tcpstates")
    return report.markdown(Table(columns, [tuple(row[name] for name in columns) for row in rows]))


def _taken(results: Raw) -> str:
    """Where and when each part was measured."""
    rows = [
        (
            part,
            taken["time"][:16].replace("T", " "),
            taken["kernel"],
            f"{taken['cpus']}",
            f"{taken['load average'][0]:.1f}",
            f"{taken['seconds']:.0f} s",
        )
        for part, taken in results["taken"].items()
    ]
    columns = ("part", "measured (UTC)", "Linux", "CPUs", "load before", "took")
    return report.markdown(Table(columns, rows))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.publish", description="The figures of the documents.")
    parser.add_argument("--name", default=NAME, help=f"of bench/results/NAME.json; default: {NAME}")
    options = parser.parse_args()
    results = json.loads((RESULTS / f"{options.name}.json").read_text(encoding="utf-8"))
    for path, text in published(results).items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(TOP))
    return 0


if __name__ == "__main__":
    sys.exit(main())
