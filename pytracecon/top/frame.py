"""A screen of `top` as lines of text: what stands above the rows, the rows, and the keys below them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from pytracecon.connections import Connection
from pytracecon.text import safe, width
from pytracecon.top.columns import COLUMNS, DEFAULT_SORT, Column, Glyphs, Look, fit, layout, quantity
from pytracecon.top.rows import BY, Group, Item, Picture
from pytracecon.top.view import Page, View
from pytracecon.views.wording import time_of_day

__all__ = ["LEAST_HEIGHT", "LEAST_WIDTH", "Line", "draw", "rows_that_fit", "text_of"]

Line: TypeAlias = list[tuple[str, str]]
"""Parts of a line, each with its style: `bold`, `sorted`, `selected`, `bad`, `dim`, or none."""

LEAST_WIDTH, LEAST_HEIGHT = 20, 5

_KEYS = "? help,q quit,/ filter,Tab by,s sort,r reverse,Space freeze,Enter open,l listeners"
_PLURAL = {"process": "processes", "connection": "connections", "host": "hosts"}


def draw(view: View, wide: int, high: int, glyphs: Glyphs) -> list[Line]:
    """Exactly `high` lines, each exactly `wide`."""
    if wide < LEAST_WIDTH or high < LEAST_HEIGHT:
        said = f"{wide}x{high} is too small: {LEAST_WIDTH}x{LEAST_HEIGHT}"
        return [[(fit(said, wide, glyphs.cut), "")], *([(" " * wide, "")] for _ in range(high - 1))][:high]
    if view.page is not None:
        return _page(view.page, wide, high, glyphs)
    lines = [_head(view, wide, glyphs)]
    body, header = _body(view, wide, rows_that_fit(high), glyphs)
    lines += [header, *body]
    lines += [[(" " * wide, "")] for _ in range(high - 1 - len(lines))]
    return [*lines, _foot(view, wide, high, glyphs)]


def rows_that_fit(high: int) -> int:
    return max(0, high - 3)


def text_of(line: Line) -> str:
    return "".join(text for text, _ in line).rstrip()


def table(view: View, rows: Iterable[Item], wide: int, glyphs: Glyphs) -> tuple[Line, list[Line]]:
    """The names of the columns, and a line for each of the rows."""
    if view.picture is None:
        return [(" " * wide, "")], []
    look = Look(view.picture, glyphs)
    columns = layout(COLUMNS[view.by], wide)
    chosen = None if view.selected is None else view.item()
    lines = [_row(each, columns, look, wide, selected=each is chosen) for each in rows]
    return _names(view, columns, wide, glyphs), lines


def _body(view: View, wide: int, high: int, glyphs: Glyphs) -> tuple[list[Line], Line]:
    top = view.scroll(high)
    header, lines = table(view, view.rows[top : top + high], wide, glyphs)
    if not lines:
        return [[(fit(_nothing(view), wide, glyphs.cut), "dim")]], header
    return lines, header


def _nothing(view: View) -> str:
    if view.picture is None:
        return "looking around"
    if view.words:
        return f"nothing matches {safe(view.words)}"
    return "nothing is open"


def _names(view: View, columns: list[tuple[Column, int]], wide: int, glyphs: Glyphs) -> Line:
    line: Line = []
    mark = glyphs.up if view.least_first else glyphs.down
    for column, given in columns:
        sorted_by = column.key and (
            column.key == view.sort or (view.sort == DEFAULT_SORT and column.key in ("tx_rate", "rx_rate"))
        )
        line.append((fit(column.title, given, "", right=column.right), "sorted" if sorted_by else "bold"))
        line.append((mark, "sorted") if sorted_by else (" ", "bold"))
    return _exactly(line, wide, "bold")


def _row(item: Item, columns: list[tuple[Column, int]], look: Look, wide: int, *, selected: bool) -> Line:
    text = " ".join(column.cell(item, look, given) for column, given in columns)
    return _exactly([(text, "selected" if selected else _style(item))], wide, "selected" if selected else "")


def _style(item: Item) -> str:
    if isinstance(item, Group):
        return "bad" if item.failed else "dim" if item.gone else ""
    return {"failed": "bad", "closed": "dim"}.get(item.outcome, "")


def _exactly(line: Line, wide: int, style: str) -> Line:
    """Filled up, or without what was put behind the last part."""
    room = wide - sum(width(text) for text, _ in line)
    if room >= 0:
        return [*line, (" " * room, style)] if room else line
    return line[:-1]


def _head(view: View, wide: int, glyphs: Glyphs) -> Line:
    """What matters most is left out last."""
    parts = list(_parts(view))
    while len(parts) > 1 and sum(width(text) for text, _ in parts) + 2 * (len(parts) - 1) > wide:
        parts.pop()
    line: Line = []
    for at, (text, style) in enumerate(parts):
        line += [("  ", "")] if at else []
        line.append((fit(text, min(width(text), wide), glyphs.cut), style))
    return _exactly(line, wide, "")


def _parts(view: View) -> Iterable[tuple[str, str]]:
    picture = view.picture
    if picture is None:
        yield "pytracecon top", "bold"
        return
    clock = time_of_day(picture.time_ns, decimals=0)
    yield (f"{clock} FROZEN", "sorted") if view.frozen else (clock, "bold")
    if picture.lost:
        yield f"lost {picture.lost}", "bad"
    yield _count(view, picture), ""
    if picture.tx_rate is not None:
        yield f"out {quantity(picture.tx_rate)}B/s", ""
        yield f"in {quantity(picture.rx_rate)}B/s", ""
    if picture.left_out:
        yield f"{picture.left_out} left out", "bad"
    if picture.new is not None and picture.failed is not None:
        yield f"new {quantity(picture.new)}/s", ""
        yield f"failed {quantity(picture.failed)}/s", "bad" if picture.failed else ""
    if view.by != "connection":
        yield f"{quantity(picture.open)} open", ""
    if picture.listeners:
        yield f"{picture.listeners} listen", ""


def _count(view: View, picture: Picture) -> str:
    shown = sum(not isinstance(row, Connection) or row.subflow_of is None for row in view.rows)
    everything = (picture.processes, picture.connections, picture.hosts)
    whole = len(everything[BY.index(view.by)])
    said = f"{shown} of {whole}" if view.words else str(shown)
    return f"{said} {view.by if (whole if view.words else shown) == 1 else _PLURAL[view.by]}"


def _foot(view: View, wide: int, high: int, glyphs: Glyphs) -> Line:
    if view.typing:
        typed = f"/{safe(view.words)}_"
        return [(fit(typed, wide, glyphs.cut, keep=0), "bold")]
    most = rows_that_fit(high)
    place = "" if len(view.rows) <= most else f" {view.offset + 1}-{view.offset + most}/{len(view.rows)}"
    keys = [f"/{safe(view.words)} (Esc: all)"] if view.words else []
    return _keys([*keys, *_KEYS.split(",")], place, wide, glyphs)


def _keys(keys: list[str], place: str, wide: int, glyphs: Glyphs) -> Line:
    while len(keys) > 1 and width("  ".join(keys)) + len(place) > wide:
        keys.pop()
    room = wide - len(place)
    return (
        [(fit("  ".join(keys), room, glyphs.cut), "dim"), (place, "dim")]
        if place
        else [(fit("  ".join(keys), wide, glyphs.cut), "dim")]
    )


def _page(page: Page, wide: int, high: int, glyphs: Glyphs) -> list[Line]:
    text = page.lines(wide)
    room = high - 2
    page.offset = max(0, min(page.offset, len(text) - room))
    shown = text[page.offset : page.offset + room]
    place = "" if len(text) <= room else f" {page.offset + 1}-{page.offset + len(shown)}/{len(text)}"
    lines: list[Line] = [[(fit(page.title, wide, glyphs.cut), "bold")]]
    lines += [[(fit(line, wide, glyphs.cut), "")] for line in shown]
    lines += [[(" " * wide, "")] for _ in range(room - len(shown))]
    keys = ["Esc back", *(["c connections"] if page.words else []), *(["o other end"] if page.peer else []), "q quit"]
    return [*lines, _keys(keys, place, wide, glyphs)]
