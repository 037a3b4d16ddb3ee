"""What each key does."""

from __future__ import annotations

from collections.abc import Callable

from pytracecon.top.columns import Glyphs
from pytracecon.top.pages import help_page, page_of
from pytracecon.top.rows import Board
from pytracecon.top.view import Page, View

__all__ = ["press"]

_END = frozenset({"q", "ctrl+c", "ctrl+q"})
_VIEWS = {"p": "process", "c": "connection", "h": "host"}


def press(view: View, board: Board, glyphs: Glyphs, high: int, key: str, character: str | None) -> bool:
    """`high` rows are shown. False: it is the end."""
    if key == "ctrl+c" or (key in _END and not view.typing):
        return False
    if view.typing:
        _typed(view, key, character)
    elif not _moved(view, high, key):
        _chosen(view, board, glyphs, key, character)
    return True


def _typed(view: View, key: str, character: str | None) -> None:
    if key == "enter":
        view.typing = False
    elif key == "escape":
        view.typing = False
        view.filter("")
    elif key in ("backspace", "ctrl+h"):
        view.filter(view.words[:-1])
    elif key == "ctrl+u":
        view.filter("")
    elif character is not None:
        view.filter(view.words + character)


def _moved(view: View, high: int, key: str) -> bool:
    steps = {
        "up": -1,
        "k": -1,
        "down": 1,
        "j": 1,
        "pageup": -high,
        "pagedown": high,
        "home": -(1 << 30),
        "end": 1 << 30,
    }
    if key not in steps:
        return False
    view.move(steps[key], high)
    return True


def _chosen(view: View, board: Board, glyphs: Glyphs, key: str, character: str | None) -> None:
    if key == "escape":
        if view.page is not None:
            view.page = None
        elif view.words:
            view.filter("")
        else:
            view.selected = None
    elif key == "space":
        view.freeze()
    elif character == "?":
        view.page = help_page() if view.page is None else None
    elif view.page is not None:
        _of_page(view, view.page, board, glyphs, character)
    else:
        _of_rows(view, board, glyphs, key, character)


def _of_page(view: View, page: Page, board: Board, glyphs: Glyphs, character: str | None) -> None:
    if character == "c" and page.words:
        view.filter(page.words)
        view.show_by("connection")
        view.page = None
    elif character == "o" and page.peer is not None and view.picture is not None:
        other = view.picture.find(page.peer)
        view.page = page if other is None else page_of(other, view, board, glyphs)


def _of_rows(view: View, board: Board, glyphs: Glyphs, key: str, character: str | None) -> None:
    does: dict[str, Callable[[], None]] = {
        "tab": view.next_by,
        "shift+tab": lambda: view.next_by(-1),
        "s": lambda: view.sort_by_next(1),
        ">": lambda: view.sort_by_next(1),
        "S": lambda: view.sort_by_next(-1),
        "<": lambda: view.sort_by_next(-1),
        "r": view.reverse,
        "l": view.show_listeners,
    }
    if key == "enter":
        item = view.item()
        view.page = None if item is None else page_of(item, view, board, glyphs)
    elif character == "/":
        view.typing = True
    elif character in _VIEWS:
        view.show_by(_VIEWS[character])
    elif (found := does.get(key) or does.get(character or "")) is not None:
        found()
