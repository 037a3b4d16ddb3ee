"""The program on the terminal: it takes keys and updates, and shows lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.app import App, ComposeResult
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from pytracecon.top.columns import Glyphs
from pytracecon.top.feed import Feed, Update
from pytracecon.top.frame import Line, draw, rows_that_fit
from pytracecon.top.keys import press
from pytracecon.top.rows import Board
from pytracecon.top.terminal import Terminal
from pytracecon.top.view import View

__all__ = ["Top"]

_COLOURS = {
    "": Style(),
    "bold": Style(bold=True),
    "sorted": Style(bold=True, color="cyan"),
    "selected": Style(reverse=True),
    "bad": Style(color="red"),
    "dim": Style(dim=True),
}
_WITHOUT = _COLOURS | {"sorted": Style(bold=True, underline=True), "bad": Style(bold=True), "dim": Style()}


class Panel(Widget, can_focus=True):
    """The whole screen. Only lines that have changed are drawn again: over a slow line that is what counts."""

    def __init__(self, view: View, glyphs: Glyphs, *, coloured: bool) -> None:
        super().__init__()
        self._view = view
        self._glyphs = glyphs
        self._styles = _COLOURS if coloured else _WITHOUT
        self._lines: list[Line] = []

    def redraw(self) -> None:
        wide, high = self.size
        lines = draw(self._view, wide, high, self._glyphs)
        before, self._lines = self._lines, lines
        if len(before) != len(lines):
            self.refresh()
            return
        changed = [Region(0, y, wide, 1) for y, line in enumerate(lines) if line != before[y]]
        if changed:
            self.refresh(*changed)

    def on_resize(self) -> None:
        self._lines = []
        self.redraw()

    def render_line(self, y: int) -> Strip:
        if y >= len(self._lines):
            return Strip.blank(self.size.width)
        return Strip([Segment(text, self._styles[style]) for text, style in self._lines[y]])


class Top(App[None]):
    """Shows what the feed delivers. `failure` is what ended it, if that was an error of the feed."""

    CSS: ClassVar[str] = """
    Screen, Panel { background: ansi_default; color: ansi_default; }
    Panel { width: 100%; height: 100%; }
    """
    ENABLE_COMMAND_PALETTE: ClassVar[bool] = False

    def __init__(self, feed: Feed, view: View, *, glyphs: Glyphs, coloured: bool) -> None:
        super().__init__(driver_class=Terminal, ansi_color=True)
        self.view = view
        self.board = Board()
        self.failure: BaseException | None = None
        self._feed = feed
        self._glyphs = glyphs
        self._panel = Panel(view, glyphs, coloured=coloured)
        self._is_over = False

    def compose(self) -> ComposeResult:
        yield self._panel

    def on_mount(self) -> None:
        self._panel.focus()
        if self._is_over:
            self.exit()
        else:
            self._feed.start(self._deliver, self._failed)

    def on_unmount(self) -> None:
        self._feed.stop()

    def stop(self) -> None:
        """From any thread, and in a signal handler."""
        self._is_over = True
        self._soon(self.exit)

    def _soon(self, call: Callable[..., object], *arguments: object) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(call, *arguments)

    def _deliver(self, update: Update) -> None:
        self._soon(self._take, update)

    def _failed(self, error: BaseException) -> None:
        self.failure = error
        self.stop()

    def _take(self, update: Update) -> None:
        self.view.take(self.board.take(update.snapshot, update.events))
        driver = self._driver
        if isinstance(driver, Terminal):
            if driver.is_gone:
                self.exit()
                return
            if driver.is_behind:
                return
        self._panel.redraw()

    def on_key(self, event: events.Key) -> None:
        event.stop()
        event.prevent_default()
        if event.key == "ctrl+z":
            self.action_suspend_process()
            return
        high = rows_that_fit(self._panel.size.height)
        if press(self.view, self.board, self._glyphs, high, event.key, event.character):
            self._panel.redraw()
        else:
            self.exit()

    def on_paste(self, event: events.Paste) -> None:
        if self.view.typing:
            self.view.filter(self.view.words + event.text)
            self._panel.redraw()
