"""One run of a tracer into an output: from the first signal that may come to the totals at the end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pytracecon.commands.console import say
from pytracecon.commands.signals import Signals
from pytracecon.notify import Notifier
from pytracecon.outputs import Output, Summary
from pytracecon.outputs.sink import NotReopened, OutputFailed, ReaderGone, Sink
from pytracecon.tracer import Stats, Tracer

if TYPE_CHECKING:
    from pytracecon.events import Event
    from pytracecon.probes import Probe
    from pytracecon.views.beginnings import Beginnings

__all__ = ["Session", "identity", "names", "totals"]

_LOSS = 75
_NAMES = frozenset({"libc lookups", "dns messages"})
_LOOK_FOR_READER = 0.5  # seconds; while nothing happens, only so is a closed pipe noticed


class Session:
    """`opens` gives where it is written to, when all is attached; and gives up what is not used from then on.

    `makes` gives the output, when tracing has begun: what that imports, no start waits for. `shows` chooses the
    events that are written; `count` and `duration` (seconds) end the run.

    An output that sums up (`Summary`) is asked for it every `interval` seconds, and at the end.
    """

    output: Output
    sink: Sink
    _signals: Signals
    _notifier: Notifier

    # No dataclass: what makes one takes as long to import as all that a start needs besides.
    def __init__(
        self,
        keywords: dict[str, Any],
        makes: Callable[[Sink], Output],
        opens: Callable[[Tracer], Sink],
        *,
        what: str = "TCP connections",
        shows: Callable[[Event], bool] | None = None,
        count: int | None = None,
        duration: float | None = None,
        interval: float | None = None,
        fail_on_loss: bool = False,
        verbose: int = 0,
        holds: Callable[[Tracer], Beginnings] | None = None,
        json: bool = False,
    ) -> None:
        """`holds` gives what keeps events back that are not complete yet. With `json` the output is JSON lines: the
        tracer makes them itself where nobody has to see the events.
        """
        self.keywords = keywords
        self.makes = makes
        self.opens = opens
        self.what = what
        self.shows = shows
        self.count = count
        self.duration = duration
        self.interval = interval
        self.fail_on_loss = fail_on_loss
        self.verbose = verbose
        self.holds = holds
        self.json = json
        self._held: Beginnings | None = None
        self._left_out = 0
        self._losses = 0

    def run(self, signals: Signals) -> int:
        """The exit status. Whatever happens, the tracer is closed and the totals are said."""
        if signals.asked:
            return 0
        self._signals = signals
        self._notifier = Notifier.of(os.environ, os.getpid())
        with Tracer(**self.keywords) as tracer:
            signals.stop_at_signal(tracer)
            signals.nudge = tracer.nudge
            try:
                return self._traced(tracer, signals)
            finally:
                signals.nudge = lambda: None
                signals.stop_at_signal(None)

    def _traced(self, tracer: Tracer, signals: Signals) -> int:
        if self.verbose:
            _say_probes(tracer)
        self.sink = self.opens(tracer)
        if not signals.asked:
            self._say_begin(tracer)
        started = time.monotonic()
        self.output = self.makes(self.sink)
        self._held = None if self.holds is None else self.holds(tracer)
        status = unread = failed = 0
        try:
            self.sink.begin(self.output.header())
            self._say_unless_told(self._notifier.ready(f"tracing {self.what}"))
            self._pump(tracer, None if self.duration is None else started + self.duration)
            self._left_out += _drained(tracer) + self._held_back
        except ReaderGone:
            unread = self._unwritten() + _drained(tracer)
        except OutputFailed as error:
            say(str(error))
            status = error.exit_status
            failed = self._unwritten() + _drained(tracer)
        seconds = time.monotonic() - started
        stats = tracer.stats
        self._say_unless_told(self._notifier.stopping(self._status(stats)))
        self._say_end(stats, seconds, failed=failed, unread=unread)
        return status or (_LOSS if stats.lost and self.fail_on_loss else 0)

    def _say_begin(self, tracer: Tracer) -> None:
        attached = sum(probe.attached for probe in tracer.probes)
        say(f"tracing {self.what} ({attached} probes; names: {names(tracer.probes)}). Ctrl-C ends.")

    def _say_end(self, stats: Stats, seconds: float, *, failed: int, unread: int) -> None:
        """`failed` events could not be written, `unread` ones nobody was there to read."""
        say(totals(self.sink.written - self._losses, seconds, stats, output=failed))
        if self.verbose or stats.lost:
            say(identity(stats, self.sink.written, output=failed, unread=unread, left_out=self._left_out))

    def _pump(self, tracer: Tracer, deadline: float | None) -> None:
        """From the ring to the output, until the tracer was stopped and all is written, or `count` is reached."""
        due = None if self.interval is None else time.monotonic() + self.interval
        while not tracer.stopped:
            turn = None if self._held is None else self._held.deadline
            if not self._transfer(tracer, self._patience(deadline, due, turn)):
                self._be_idle()
            self._turned(tracer)
            if self.count == 0:
                break
            now = time.monotonic()
            if self.interval is not None and due is not None and now >= due:
                self._sum_up()
                # As the clock goes, however long this took; one that is over already is not told.
                due += self.interval * ((now - due) // self.interval + 1)
            if deadline is not None and now >= deadline:
                tracer.stop()
                deadline = None
        if self._held is not None and self.count != 0:
            self._write(self._held.rest())
        self._sum_up(last=True)
        self.sink.flush()

    def _sum_up(self, *, last: bool = False) -> None:
        if isinstance(self.output, Summary):
            self.sink.write(self.output.sum_up(last=last))
            self.sink.flush()

    def _unwritten(self) -> int:
        return self._held_back + self.sink.unwritten + (self.output.untold if isinstance(self.output, Summary) else 0)

    @property
    def _held_back(self) -> int:
        return 0 if self._held is None else len(self._held)

    def _turned(self, tracer: Tracer) -> None:
        """The loop has read and written once more."""
        if self._signals.reload_asked:
            self._signals.reload_asked = False
            self._reload()
        if self._notifier.due is not None and time.monotonic() >= self._notifier.due:
            stats = tracer.stats
            self._say_unless_told(
                self._notifier.turned(stats.wanted - stats.lost_ring, stats.delivered, self._status(stats))
            )

    def _reload(self) -> None:
        self._say_unless_told(self._notifier.reloading())
        status = f"tracing {self.what}"
        if self.sink.can_reopen:
            try:
                self.sink.reopen(self.output.header)
            except NotReopened as error:
                status = str(error)
                say(status)
        self._say_unless_told(self._notifier.ready(status))

    def _status(self, stats: Stats) -> str:
        return f"{self.sink.written - self._losses} events written, {stats.lost or 'none'} lost"

    @staticmethod
    def _say_unless_told(trouble: str | None) -> None:
        if trouble is not None:
            say(trouble)

    def _be_idle(self) -> None:
        if self.sink.pending:
            self.sink.flush()
        elif self.sink.has_reader and self.sink.reader_is_gone():
            raise ReaderGone

    def _transfer(self, tracer: Tracer, patience: float | None) -> bool:
        """One batch; False if there was none."""
        if self.json and self.shows is None and self.count is None and self._held is None:
            batch = tracer.read_json(patience)
            self._losses += batch.losses
            if batch.events:
                self.sink.write([(batch.data, batch.events)])
            return batch.events > 0
        events = tracer.read(patience)
        if self._held is not None:
            events = self._held.take(events)
        if events:
            self._write(events)
        return bool(events)

    def _patience(self, *ends: float | None) -> float | None:
        """How long to wait for events: not at all while something is still to be written."""
        if self.sink.pending:
            return 0
        waits = [_LOOK_FOR_READER] if self.sink.has_reader else []
        waits += [max(0.0, end - time.monotonic()) for end in (*ends, self._notifier.due) if end is not None]
        return min(waits, default=None)

    def _write(self, events: list[Event]) -> None:
        from pytracecon.events import Lost  # noqa: PLC0415 - by now it is there, and no start waited for it

        shown = events if self.shows is None else list(filter(self.shows, events))
        if self.count is not None:
            shown = self._counted(shown, self.count)
        self._left_out += len(events) - len(shown)
        self._losses += sum(isinstance(event, Lost) for event in shown)
        self.sink.write(self.output.render(shown))

    def _counted(self, events: list[Event], left: int) -> list[Event]:
        """As many as may still be written. Losses do not count."""
        from pytracecon.events import Lost  # noqa: PLC0415 - as above

        for at, event in enumerate(events):
            left -= not isinstance(event, Lost)
            if left == 0:
                events = events[: at + 1]
                break
        self.count = left
        return events


def _drained(tracer: Tracer) -> int:
    """How many events there still were: the sums only come out when the ring is empty and nothing is attached."""
    tracer.stop()
    count = 0
    while not tracer.stopped:
        count += len(tracer.read())
    return count


def names(probes: list[Probe]) -> str:
    """Which sources of names there are, as the first line of a run says it."""
    found = {probe.need for probe in probes if probe.attached} & _NAMES
    if found == _NAMES:
        return "on"
    return {"dns messages": "packets only", "libc lookups": "libc only"}[found.pop()] if found else "off"


def totals(events: int, seconds: float, stats: Stats, *, output: int, what: str = "event") -> str:
    """The last line of a run."""
    where = {
        "ring": stats.lost_ring,
        "map": stats.lost_map,
        "names": stats.lost_names,
        "probe": stats.lost_probe,
        "queue": stats.lost_queue,
        "output": output,
    }
    parts = [f"{name} {count}" for name, count in where.items() if count]
    lost = f"{sum(where.values())} lost ({', '.join(parts)})" if parts else "none lost"
    return f"{events} {what}{'' if events == 1 else 's'} in {seconds:.1f} s, {lost}"


def identity(stats: Stats, written: int, *, output: int, unread: int, left_out: int) -> str:
    """The sums that always come out. `handed` counts `lost` events too, which nobody delivered."""
    parts = {"written": written, "lost by the output": output, "after the reader left": unread, "not shown": left_out}
    said = " + ".join(f"{count} {name}" for name, count in parts.items() if count or name == "written")
    elsewhere = {"not wanted after all": stats.left_out, "dropped by snapshots": stats.lost_queue}
    told = ", ".join(f"{count} {name}" for name, count in elsewhere.items() if count)
    others = f" ({told})" if told else ""
    return (
        f"{stats.wanted} events wanted = {stats.delivered} delivered{others} + {stats.lost_ring} lost in the ring; "
        f"{stats.handed} events handed over = {said}"
        + (f"; {stats.evicted_names} names forgotten for others" if stats.evicted_names else "")
    )


def _say_probes(tracer: Tracer) -> None:
    for probe in tracer.probes:
        outcome = "attached" if probe.attached else f"not attached: {probe.detail}"
        say(f"{probe.need:<12} {probe.rung:<10} {probe.name:<28} {outcome}")
