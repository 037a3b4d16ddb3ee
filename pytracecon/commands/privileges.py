"""What a run keeps of its privileges, and as whom it goes on: options, and the moment when the rest is given up."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from pytracecon.commands.console import say
from pytracecon.errors import InvalidValue

if TYPE_CHECKING:
    from pytracecon.dropping import Dropped
    from pytracecon.tracer import Tracer
    from pytracecon.upkeep import Upkeep

__all__ = ["add_privileges", "give_up", "judge", "leaves", "reopening"]

_LACKS = re.compile(r"needs (CAP_\w+(?: and CAP_\w+)*)")
_WHAT_STAYS = ("needs", "none", "all")


def add_privileges(parser: argparse.ArgumentParser, *, user: str = "--user") -> None:
    """`user` is what the option is called that says as whom the run goes on."""
    group = parser.add_argument_group("privileges")
    group.add_argument(
        user, dest="tracer_user", metavar="NAME", help="go on as this user when all is attached; opens -o FILE as it"
    )
    group.add_argument(
        "--privileges",
        choices=_WHAT_STAYS,
        default=_WHAT_STAYS[0],
        metavar="|".join(_WHAT_STAYS),
        help="what stays when all is attached; default: what is still needed",
    )
    group.set_defaults(user_option=user)


def judge(options: argparse.Namespace) -> None:
    """Before anything is loaded: there is such a user, and it may be."""
    if not leaves(options):
        return
    if options.privileges == "all":
        raise InvalidValue(f"--privileges: who leaves root leaves it; leave {options.user_option} out, or all")
    from pytracecon.dropping import named_user  # noqa: PLC0415 - for those who ask for it

    named_user(options.user_option, options.tracer_user)


def leaves(options: argparse.Namespace) -> bool:
    """Whether it goes on as another user."""
    return options.tracer_user is not None


def give_up(options: argparse.Namespace, tracer: Tracer, also: Collection[Upkeep] = ()) -> None:
    """Drop what the tracer does not use any more, and `also` not, and say what that costs."""
    if options.privileges == "all":
        for said in _unmet(tracer):
            say(said)
        return
    from pytracecon.dropping import drop_privileges  # noqa: PLC0415 - not for --help

    engines = _engines(options)
    dropped = drop_privileges(tracer, user=options.tracer_user, keep=options.privileges, also=also)
    if leaves(options) or vars(options).get("verbose"):
        say(_kept(dropped))
    for said in [*_unmet(tracer), *_lost(dropped), *_deaf(engines, dropped)]:
        say(said)


def reopening(path: str) -> Iterator[Upkeep]:
    """What opening this file again takes, of who has it open: nothing, unless its folder is closed to root itself."""
    from pathlib import Path  # noqa: PLC0415 - none of these is for --help

    from pytracecon import capabilities  # noqa: PLC0415
    from pytracecon.upkeep import Upkeep  # noqa: PLC0415

    places = ((path, os.O_WRONLY | os.O_NOFOLLOW), (str(Path(path).parent), os.O_WRONLY | os.O_TMPFILE))
    if not Path(path).is_file() or "CAP_DAC_OVERRIDE" not in capabilities.now():
        return
    with capabilities.only(()):
        for place, flags in places:
            try:
                os.close(os.open(place, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY))
            except PermissionError:
                costs = "the file given with -o cannot be opened again"
                yield Upkeep("opening -o FILE again", ("CAP_DAC_OVERRIDE",), costs)
                return
            except OSError:  # a file system without nameless files, or a device: nothing that a capability helps with
                continue


def _kept(dropped: Dropped) -> str:
    kept = ", ".join(f"{name} ({', '.join(needs)})" for name, needs in dropped.kept.items())
    return f"goes on as user {dropped.user} with {kept or 'no capability'}, and can get no other"


def _lost(dropped: Dropped) -> Iterator[str]:
    if dropped.lost:
        names = ", ".join(sorted(dropped.without))
        yield f"without {names}: {'; '.join(dropped.lost)}"


def _engines(options: argparse.Namespace) -> list[str]:
    """The sockets of root's container engines that are here, for who leaves root and wants to know of containers."""
    if not leaves(options) or not vars(options).get("processes", True):
        return []
    from pathlib import Path  # noqa: PLC0415 - not for --help

    from pytracecon.owners.runtimes import sockets_of_root  # noqa: PLC0415

    return [path for path in sockets_of_root() if Path(path).is_socket()]


def _deaf(engines: list[str], dropped: Dropped) -> Iterator[str]:
    closed = [path for path in engines if not os.access(path, os.W_OK, effective_ids=True)]
    if closed:
        yield f"containers of {', '.join(closed)} have no names: user {dropped.user} may not write there"


def _unmet(tracer: Tracer) -> Iterator[str]:
    """What was not attached because this process may not: one line."""
    from pytracecon.probes import NEEDS  # noqa: PLC0415 - not for --help

    met = {probe.need for probe in tracer.probes if probe.attached}
    lacks: dict[str, str] = {}
    for probe in tracer.probes:
        if probe.need not in met and (found := _LACKS.search(probe.detail)):
            lacks.setdefault(probe.need, found[1])
    if lacks:
        costs = {need.name: need.costs for need in NEEDS}
        yield "; ".join(f"{need} needs {what}: {costs[need]}" for need, what in lacks.items())
