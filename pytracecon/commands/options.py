"""Options that mean the same in every verb. Values are taken as text: `pytracecon.filters` judges them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any

from pytracecon.commands.privileges import add_privileges

__all__ = [
    "Formats",
    "add_filters",
    "add_names",
    "add_output",
    "add_processes",
    "add_run",
    "add_tracer",
    "shows_processes",
    "shows_table",
    "tracer_keywords",
]

Formats = argparse._MutuallyExclusiveGroup  # noqa: SLF001 - it has no other name
"""The options of which one says in what format is written."""

_SEVERAL: dict[str, Any] = {"action": "append"}
_NOTHING: Mapping[str, tuple[str, ...]] = MappingProxyType({})


def tracer_keywords(options: argparse.Namespace) -> dict[str, Any]:
    """The options that were given, as keywords of `Tracer`. As it is without an option, it is not given."""
    from pytracecon.filters import Filters  # noqa: PLC0415 - not for --help

    given = vars(options)
    # Not by inspect.signature(): to import that takes 2 ms of a start.
    defaults = Filters.parse.__kwdefaults__ or {}
    return {name: given[name] for name, default in defaults.items() if given.get(name) not in (None, default)}


def shows_table(options: argparse.Namespace) -> bool:
    """Whether the verb's own columns are written, and so nothing of an event but what stands in these."""
    return options.format == "table" and options.template is None


def add_processes(add: Callable[..., object]) -> None:
    """`add` is the `add_argument` of a group."""
    add("-p", "--pid", metavar="PID", **_SEVERAL, help="this process; repeatable")
    add("--children", action="store_true", help="and its descendants, those that it has and those to come")
    add("--uid", metavar="USER", **_SEVERAL, help="processes of this user: number or name")
    add("--comm", metavar="NAME", **_SEVERAL, help="processes of this name (1 to 15 bytes)")
    add("--netns", metavar="NS", **_SEVERAL, help="a network namespace: path, name of `ip netns`, or pid")
    add("--cgroup", metavar="PATH", **_SEVERAL, help="a cgroup2 directory, or as in /proc/PID/cgroup")
    add("--container", metavar="PATTERN", **_SEVERAL, help="processes in a container: its id, or its name; repeatable")
    add("--unit", metavar="PATTERN", **_SEVERAL, help="processes of a systemd unit, such as 'nginx*'; repeatable")
    add("--exe", metavar="PATTERN", **_SEVERAL, help="processes of a program: its path, or its file's name; repeatable")
    add("--cgroupmap", metavar="PATH", help="cgroups whose ids are keys of this pinned BPF map")
    add("--mntnsmap", metavar="PATH", help="mount namespaces that are keys of this pinned BPF map")


def add_filters(
    parser: argparse.ArgumentParser, *, also: Mapping[str, tuple[str, ...]] = _NOTHING, without: Collection[str] = ()
) -> None:
    """`also`: what a common option is called in this verb besides, as in its namesake; `without` those of no sense."""
    behind = " and ".join(
        ["--container, --unit", "--exe"] if "--host" in without else ["--container, --unit, --exe", "--host"]
    )
    group = parser.add_argument_group(
        "filters",
        "All must hold; several values of one are alternatives. They are applied in the\n"
        f"kernel, but {behind} behind it,\nto what the others let through.",
    )

    def add(*names: str, **about: Any) -> None:
        if names[-1] not in without:
            ordered = sorted({*also.get(names[-1], ()), *names}, key=lambda name: (name.startswith("--"), name))
            group.add_argument(*ordered, **({"dest": names[-1].strip("-").replace("-", "_")} | about))

    add_processes(add)
    family = group.add_mutually_exclusive_group()
    family.add_argument("-4", "--ipv4", dest="family", action="store_const", const=4, help="IPv4 only")
    family.add_argument("-6", "--ipv6", dest="family", action="store_const", const=6, help="IPv6 only")
    add("--port", metavar="PORTS", **_SEVERAL, help="remote ports, such as 80,443,8000-8999")
    add("--local-port", metavar="PORTS", **_SEVERAL, help="local ports")
    add("--not-port", metavar="PORTS", **_SEVERAL, help="all but these remote ports")
    add("--remote", metavar="CIDR", **_SEVERAL, help="remote addresses, such as 10.0.0.0/8,2001:db8::/32")
    add("--local", metavar="CIDR", **_SEVERAL, help="local addresses")
    add("--not-remote", metavar="CIDR", **_SEVERAL, help="all but these remote addresses")
    add("--direction", metavar="out|in", help="connections made, or connections taken")
    add("--failed", action="store_true", help="failed attempts only")
    add("--min-latency", metavar="MS", help="only what took at least so long, from 0.001")
    add("--host", metavar="PATTERN", **_SEVERAL, help="connections to a name, such as '*.example.com'; repeatable")


def add_names(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("names")
    group.add_argument(
        "--no-names",
        dest="names",
        action="store_false",
        help="attach nothing for them: no lookup events, no host",
    )
    group.add_argument(
        "--reverse",
        action="store_true",
        help="ask the resolver for those that are not known (PTR; marked ptr); sends queries of its own",
    )


def shows_processes(options: argparse.Namespace, keys: Collection[str]) -> bool:
    """Whether `keys` of events, a filter or the format tells what owners are beyond number and name."""
    if options.container or options.unit or options.exe or not shows_table(options):
        return True
    if not keys:
        return False
    from pytracecon.views.shown import OF_PROCESSES  # noqa: PLC0415 - most runs show none

    return not OF_PROCESSES.isdisjoint(keys)


def add_run(parser: argparse.ArgumentParser, *, counted: str = "events") -> None:
    """With the options of privileges, since what runs has some."""
    group = parser.add_argument_group("the run")
    group.add_argument("--duration", metavar="S", help="end after so many seconds")
    group.add_argument("--count", metavar="N", help=f"end after so many {counted}")
    group.add_argument("--fail-on-loss", action="store_true", help="exit status 75 if anything was lost")
    group.add_argument("-v", dest="verbose", action="count", default=0, help="say more; -vv: everything")
    add_privileges(parser)


def add_output(parser: argparse.ArgumentParser, *, show: bool = True) -> Formats:
    """`show`: a row of the table is an event, and can have more columns. A verb may add formats to those returned."""
    group = parser.add_argument_group("output")
    formats = ("table", "json", "csv", "journal")
    when = ("auto", "always", "never")
    form = group.add_mutually_exclusive_group()
    form.add_argument("--format", choices=formats, default="table", metavar="|".join(formats), help="default: table")
    form.add_argument("--template", metavar="LINE", help="a line of your own, such as '{comm} {remote_addr}'")
    if show:
        group.add_argument(
            "--show", metavar="KEYS", **_SEVERAL, help="more columns in the table: keys of events, such as unit,args"
        )
    group.add_argument("-o", dest="output", metavar="FILE", help="write there; created for its owner alone")
    group.add_argument("-a", dest="append", action="store_true", help="append to it")
    group.add_argument("--utc", action="store_true", help="times of the table in UTC, as those of JSON and CSV are")
    group.add_argument(
        "--color", choices=when, default="auto", metavar="|".join(when), help="tables; auto: on a terminal"
    )
    group.add_argument("--journal-socket", metavar="PATH", help="where --format journal sends entries to")
    return form


def add_tracer(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the tracer")
    group.add_argument(
        "--no-processes",
        dest="processes",
        action="store_false",
        help="attach nothing for what owners are: no program, container or unit",
    )
    group.add_argument("--ring-size", metavar="SIZE", help="from 4K to 1G, a power of two; default: 8M")
    group.add_argument("--udp-idle", metavar="S", help="silence that ends a UDP conversation; default: 30 s")
    group.add_argument("--max-connections", metavar="N", help="connections that are kept track of; default: 65536")
    group.add_argument("--probes", metavar="HOW", help="auto, fentry, kprobe or tracepoint; default: auto")
    group.add_argument("--btf", metavar="FILE", help="the kernel's types, if the kernel does not tell them")
    group.add_argument("--libbpf", metavar="FILE", help="this libbpf.so.1 instead of the system's")
