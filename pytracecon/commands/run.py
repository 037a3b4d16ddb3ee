"""Runs a command, traces it and all that it starts, and ends with a summary: where
it connected, by which names, how fast, how much went each way, what failed.

The command runs as the user who called sudo. Its standard streams are its own;
the summary goes to standard error, or to a file. With --allow-net or
--allow-host, whatever else it tries to reach over TCP, loopback included, is
named, and the run fails. Processes that outlive the command are named, and not
traced any further.

Exit status: that of the command (128 + n if signal n ended it; 127 if there is
no such command, 126 if it cannot be executed). If it was 0: 76 if it reached
what is not allowed, 75 if something was lost and --fail-on-loss or a guard was
given.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

from pytracecon.commands.console import Parser, log_to_stderr
from pytracecon.commands.options import add_tracer, tracer_keywords
from pytracecon.commands.privileges import add_privileges, give_up, judge, leaves
from pytracecon.errors import InvalidValue

if TYPE_CHECKING:
    from pytracecon.outputs.sink import Sink
    from pytracecon.running import Child
    from pytracecon.summary import Summary
    from pytracecon.tracer import Tracer

_EXAMPLE = """\
examples:
  pytracecon run -- make test
  pytracecon run --allow-net loopback --allow-host '*.example.com' -- pytest
  pytracecon run --format json -o network.json -- ./download

  # pytracecon run --allow-net 10.0.0.7 -- ./fetch
  pytracecon: status 0 after 1.32 s: 3 connections; 1 lookup; none lost
    REMOTE               MADE  LATENCY min/median/max     OUT       IN  FAILED
    www.example.com:443     2  9.80 / 9.80 / 10.12 ms  1184 B  31093 B
      93.184.216.34
    10.0.0.7:5432           1  0.21 / 0.21 / 0.21 ms   1020 B   7340 B
    not allowed: fetch (4711) to www.example.com, 93.184.216.34:443 (2)
"""

_LOSS, _NOT_ALLOWED = 75, 76
_LOOK_AGAIN = 0.05  # seconds, for the end of the command and for signals
_CLOSING = 1.0  # seconds that connections of processes that ended have to close

_FORWARDED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


class _Parser(Parser):
    """What stands behind `--` is the command's own."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        own = list(args or [])
        at = own.index("--") if "--" in own else len(own)
        options, rest = super().parse_known_args(own[:at], namespace)
        if rest and not rest[0].startswith("-"):
            self.error(f"{rest[0]}: a command stands behind two dashes: pytracecon run -- COMMAND")
        options.command = own[at + 1 :]
        return options, rest


def parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="pytracecon run",
        usage="pytracecon run [options] -- COMMAND [ARGUMENT...]",
        description=(__doc__ or "").strip(),
        epilog=_EXAMPLE,
    )
    parser.add_argument("--user", metavar="USER", help="run it as this user; default: who called sudo, else the same")
    group = parser.add_argument_group(
        "guard",
        "What one of these lets through is allowed. Names are the program's own word,\n"
        "and UDP is not looked at: it finds what a test reaches, and holds no enemy.",
    )
    group.add_argument(
        "--allow-net",
        metavar="CIDR",
        action="append",
        help="addresses, such as 10.0.0.0/8,::1; or loopback, or none; repeatable",
    )
    group.add_argument(
        "--allow-host", metavar="PATTERN", action="append", help="names, such as '*.example.com'; repeatable"
    )
    output = parser.add_argument_group("output")
    formats = ("text", "json")
    output.add_argument("--format", choices=formats, default="text", metavar="|".join(formats), help="default: text")
    output.add_argument(
        "-o", dest="output", metavar="FILE", help="write the summary there; created for its owner alone"
    )
    output.add_argument("--fail-on-loss", action="store_true", help="exit status 75 if anything was lost")
    output.add_argument("-v", dest="verbose", action="count", default=0, help="say more; -vv: everything")
    add_privileges(parser, user="--tracer-user")
    add_tracer(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    from pytracecon.filters import Filters  # noqa: PLC0415 - none of these is for --help
    from pytracecon.guard import Guard  # noqa: PLC0415
    from pytracecon.outputs import sink  # noqa: PLC0415
    from pytracecon.running import adopting_orphans, user_for  # noqa: PLC0415
    from pytracecon.summary import Summary  # noqa: PLC0415

    if not options.command:
        raise InvalidValue("which command? Give it behind two dashes: pytracecon run -- COMMAND")
    keywords = tracer_keywords(options) | {"processes": False}  # the summary tells nothing of them
    Filters.parse(**keywords)
    summary = Summary(Guard.parse(options.allow_net, options.allow_host))
    user = user_for(options.user, os.environ, os.geteuid())
    judge(options)
    if options.verbose:
        log_to_stderr(options.verbose)
    with contextlib.ExitStack() as at_end:

        def opened() -> Sink | None:
            if options.output is None:
                return None
            target = sink.open_file(options.output, append=False)
            at_end.callback(target.close)
            return target

        target = None if leaves(options) else opened()
        at_end.enter_context(adopting_orphans())
        return _Run(options, keywords, summary, opened if target is None else lambda: target).of(user)


class _Run:
    def __init__(
        self,
        options: argparse.Namespace,
        keywords: dict[str, Any],
        summary: Summary,
        opens: Callable[[], Sink | None],
    ) -> None:
        self._options = options
        self._keywords = keywords
        self._summary = summary
        self._opens = opens
        self._target: Sink | None = None

    def of(self, user: Any) -> int:
        """The exit status."""
        from pytracecon.running import Child  # noqa: PLC0415

        with Child(self._options.command, user) as child, _Signals() as signals:
            from pytracecon.tracer import Tracer  # noqa: PLC0415 - after the fork: the child needs nothing of it

            try:
                tracer = Tracer(pid=child.pid, children=True, **self._keywords)
            except InvalidValue:
                child.reap()
                if child.status is None:
                    raise
                return _shell_status(child.status)  # a signal ended it before it began
            with tracer:
                self._give_up(tracer)
                self._target = self._opens()
                return self._traced(child, tracer, signals)

    def _give_up(self, tracer: Tracer) -> None:
        """The command has its own privileges by now."""
        from pytracecon.upkeep import Upkeep  # noqa: PLC0415 - not for --help

        signals = Upkeep("signals", ("CAP_KILL",), "signals that are sent to us do not reach the command")
        give_up(self._options, tracer, [signals])

    def _traced(self, child: Child, tracer: Tracer, signals: _Signals) -> int:
        started = time.monotonic()
        child.begin()
        while child.status is None:
            self._read(tracer, _LOOK_AGAIN)
            for number in signals.sent():
                child.signal(number)
            child.reap()
        seconds = time.monotonic() - started
        left = child.left_behind()
        self._await_closing(tracer, signals, left)
        tracer.stop()
        while not tracer.stopped:
            self._read(tracer, None)
        self._summary.finish()
        lost = tracer.stats.lost
        status = _shell_status(child.status)
        if not status:
            if self._summary.not_allowed:
                status = _NOT_ALLOWED
            elif lost and (self._options.fail_on_loss or self._summary.guard is not None):
                status = _LOSS
        self._tell(child.status, seconds, left)
        return status

    def _read(self, tracer: Tracer, patience: float | None) -> None:
        for event in tracer.read(patience):
            self._summary.take(event)

    def _await_closing(self, tracer: Tracer, signals: _Signals, left: dict[int, str]) -> None:
        """Connections whose process is gone close by themselves; their bytes are known only then."""
        from pytracecon.recording import told_so_far  # noqa: PLC0415

        deadline = time.monotonic() + _CLOSING
        for batch in told_so_far(tracer):
            for event in batch:
                self._summary.take(event)
        while any(each.pid not in left for each in self._summary.unfinished):
            if time.monotonic() > deadline or signals.sent():
                return
            self._read(tracer, _LOOK_AGAIN)

    def _tell(self, ended: int, seconds: float, left: dict[int, str]) -> None:
        from pytracecon.outputs import sink  # noqa: PLC0415
        from pytracecon.views import run as view  # noqa: PLC0415

        if self._options.format == "json":
            text = view.document(self._options.command, ended, seconds, self._summary, left)
        else:
            text = view.text(ended, seconds, self._summary, left)
        if self._target is not None:
            self._target.begin(text.encode(errors="backslashreplace"))
            text = view.notice(ended, seconds, self._summary, left)
        # Nobody is left to be told when standard error is closed, and the status still tells.
        with contextlib.suppress(sink.OutputFailed, sink.ReaderGone):
            sink.Sink(2, "standard error").begin(text.encode(errors="backslashreplace"))


def _shell_status(ended: int) -> int:
    from pytracecon.running import exit_status  # noqa: PLC0415

    return exit_status(ended)


class _Signals:
    """Holds back what would end us while the command runs: it decides, and the summary is still told.

    What a terminal sends, it sends to the command too. What somebody sent to us alone is passed on.
    """

    def __init__(self) -> None:
        self._held = {number for number in _FORWARDED if signal.getsignal(number) != signal.SIG_IGN}
        self._before: set[int] = set()

    def __enter__(self) -> Self:
        self._before = set(signal.pthread_sigmask(signal.SIG_BLOCK, self._held))
        return self

    def __exit__(self, *_: object) -> None:
        self.sent()
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def sent(self) -> list[int]:
        """The signals that came since this was asked last, from processes: the command has not got them."""
        found = []
        while (info := signal.sigtimedwait(self._held, 0)) is not None:
            if info.si_code <= 0:  # SI_USER and its like; the kernel's own (SI_KERNEL) is a terminal's
                found.append(info.si_signo)
        return found
