"""Options that mean the same in every verb. Values are taken as text: `pytracecon.filters` judges them."""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["add_filters", "add_output", "add_run", "add_tracer", "tracer_keywords"]


def tracer_keywords(options: argparse.Namespace) -> dict[str, Any]:
    """The options that were given, as keywords of `Tracer`."""
    from inspect import signature  # noqa: PLC0415 - neither is for --help

    from pytracecon.filters import Filters  # noqa: PLC0415

    given = vars(options)
    return {name: given[name] for name in signature(Filters.parse).parameters if given.get(name) not in (None, False)}


def add_filters(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "filters", "All must hold; several values of one are alternatives. They are applied in the kernel."
    )
    several: dict[str, Any] = {"action": "append"}
    group.add_argument("-p", "--pid", metavar="PID", **several, help="this process; repeatable")
    group.add_argument("--children", action="store_true", help="and all that it starts from now on")
    group.add_argument("--uid", metavar="USER", **several, help="processes of this user: number or name")
    group.add_argument("--comm", metavar="NAME", **several, help="processes of this name (1 to 15 bytes)")
    family = group.add_mutually_exclusive_group()
    family.add_argument("-4", dest="family", action="store_const", const=4, help="IPv4 only")
    family.add_argument("-6", dest="family", action="store_const", const=6, help="IPv6 only")
    group.add_argument("--port", metavar="PORTS", **several, help="remote ports, such as 80,443,8000-8999")
    group.add_argument("--local-port", metavar="PORTS", **several, help="local ports")
    group.add_argument("--not-port", metavar="PORTS", **several, help="all but these remote ports")
    group.add_argument("--remote", metavar="CIDR", **several, help="remote addresses, such as 10.0.0.0/8,2001:db8::/32")
    group.add_argument("--local", metavar="CIDR", **several, help="local addresses")
    group.add_argument("--not-remote", metavar="CIDR", **several, help="all but these remote addresses")
    group.add_argument("--netns", metavar="NS", **several, help="a network namespace: path, name of `ip netns`, or pid")
    group.add_argument("--cgroup", metavar="PATH", **several, help="a cgroup2 directory, or as in /proc/PID/cgroup")
    group.add_argument("--direction", metavar="out|in", help="connections made, or connections taken")
    group.add_argument("--failed", action="store_true", help="failed attempts only")
    group.add_argument("--min-latency", metavar="MS", help="only what took at least so long, from 0.001")


def add_run(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the run")
    group.add_argument("--duration", metavar="S", help="end after so many seconds")
    group.add_argument("--count", metavar="N", help="end after so many events")
    group.add_argument("--fail-on-loss", action="store_true", help="exit status 75 if anything was lost")
    group.add_argument("-v", dest="verbose", action="count", default=0, help="say more; -vv: everything")


def add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    formats = ("table", "json", "csv")
    group.add_argument("--format", choices=formats, default="table", metavar="|".join(formats), help="default: table")
    group.add_argument("-o", dest="output", metavar="FILE", help="write there; created for its owner alone")
    group.add_argument("-a", dest="append", action="store_true", help="append to it")
    group.add_argument("--utc", action="store_true", help="times of the table in UTC, as those of JSON and CSV are")


def add_tracer(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the tracer")
    group.add_argument("--ring-size", metavar="SIZE", help="from 4K to 1G, a power of two; default: 8M")
    group.add_argument("--max-connections", metavar="N", help="connections that are kept track of; default: 65536")
    group.add_argument("--probes", metavar="HOW", help="auto, fentry, kprobe or tracepoint; default: auto")
    group.add_argument("--btf", metavar="FILE", help="the kernel's types, if the kernel does not tell them")
    group.add_argument("--libbpf", metavar="FILE", help="this libbpf.so.1 instead of the system's")
