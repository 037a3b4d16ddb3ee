"""The plot of the documents: bars, a panel for each question, as SVG that is readable on light and on dark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from statistics import median
from typing import Any, NamedTuple

Raw = dict[str, Any]

WIDTH, NAMES, BAR, GAP = 760, 210, 18, 6
ROOM = WIDTH - NAMES - 110
"""Of the longest bar. What remains is for its figure."""
OURS, OTHERS, INK = "#2f81f7", "#8b949e", "#768390"


class Bar(NamedTuple):
    name: str
    value: float
    shown: str
    ours: bool


class Panel(NamedTuple):
    title: str
    bars: Sequence[Bar]


def panels(results: Raw) -> Iterator[Panel]:
    """Of what was measured."""
    if "cost" in results:
        cost = results["cost"]
        alone = [_rate(each["nothing"]) for each in cost]
        yield _of_sides(
            "connections a second, of 1 untraced (longer is better)",
            {
                side: median(_rate(each[side]) / rate for each, rate in zip(cost, alone, strict=True))
                for side in cost[0]
            },
            "{:.2f}",
        )
    if "bpf_time" in results:
        raw = results["bpf_time"]
        yield _of_sides(
            "BPF time a connection (shorter is better)",
            {
                side: median(each[side]["bpf_ns"] / each[side]["generator"]["connections"] for each in raw) / 1e3
                for side in raw[0]
                if "bpf_ns" in raw[0][side]
            },
            "{:.1f} µs",
        )
    if "loss_free" in results:
        sustained = results["loss_free"]["sustained"]
        rates = {side: float(raw["rate"]) for side, raw in sustained.items() if side != "untraced"}
        yield _of_sides("connections a second without a loss (longer is better)", rates, "{:,.0f}")
    if "growth" in results:
        bars = []
        for step in results["growth"]["steps"]:
            value = median(load["cpu_ns"] / load["events"] for load in step["loads"]) / 1e3
            shown = f"{value:.2f} µs, {step['pss_kb'] / 1024:.0f} MB"
            bars.append(Bar(f"{step['open']:,} open connections", value, shown, ours=True))
        yield Panel("CPU an event, and memory, while others are open", bars)


def _of_sides(title: str, values: dict[str, float], form: str) -> Panel:
    return Panel(title, [Bar(side, value, form.format(value), side == "pytracecon") for side, value in values.items()])


def _rate(raw: Raw) -> float:
    return float(raw["generator"]["connections"] / raw["generator"]["seconds"])


def svg(drawn: Sequence[Panel]) -> str:
    """Each panel has a scale of its own, from zero."""
    parts: list[str] = []
    y = 0
    for panel in drawn:
        y += 26
        parts.append(_text(0, y, panel.title, weight="bold"))
        y += 10
        most = max(bar.value for bar in panel.bars) or 1
        for bar in panel.bars:
            length = bar.value / most * ROOM
            parts.append(_text(NAMES - 8, y + BAR - 5, bar.name, anchor="end"))
            colour = OURS if bar.ours else OTHERS
            parts.append(f'<rect x="{NAMES}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{colour}"/>')
            parts.append(_text(round(NAMES + length + 6), y + BAR - 5, bar.shown))
            y += BAR + GAP
        y += 8
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}"'
    font = f'font-family="sans-serif" font-size="13" fill="{INK}">'
    return "\n".join([f"{head} {font}", *parts, "</svg>", ""])


def _text(x: int, y: int, words: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-weight="{weight}">{escape(words)}</text>'
