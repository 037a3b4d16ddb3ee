"""The frame of a verb that is like a tool of bcc: the verb itself is its options, its columns, its keywords."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from pytracecon.commands import show
from pytracecon.commands.console import Parser
from pytracecon.commands.launch import launch
from pytracecon.commands.options import (
    Formats,
    add_filters,
    add_names,
    add_output,
    add_run,
    add_tracer,
    shows_processes,
    shows_table,
    tracer_keywords,
)
from pytracecon.commands.signals import Signals

if TYPE_CHECKING:
    from pytracecon.events import Event
    from pytracecon.outputs import Output
    from pytracecon.outputs.sink import Sink
    from pytracecon.tracer import Tracer
    from pytracecon.upkeep import Upkeep
    from pytracecon.views.answers import Answers
    from pytracecon.views.beginnings import Beginnings

__all__ = ["Tool"]


class Tool(ABC):
    """`parser` and `run` are what a verb has to have. What one of them has of its own stands first here."""

    name: ClassVar[str]
    about: ClassVar[str | None]
    examples: ClassVar[str]
    what: ClassVar[str]
    """What is traced, as the first line of a run says it."""
    arguments: ClassVar[str] = "[options]"
    also: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType({})
    """What common filters are called besides, as in the namesake."""
    without: ClassVar[Collection[str]] = ()
    """Common filters of no sense here."""
    named: ClassVar[bool] = True
    """Connections can have a name: whoever comes has none that was asked for."""

    @abstractmethod
    def add_options(self, parser: Parser) -> None:
        """Those of this verb alone."""

    @abstractmethod
    def events(self, options: argparse.Namespace) -> list[str]: ...

    @abstractmethod
    def table(self, options: argparse.Namespace, answers: Answers, target: Sink) -> Output: ...

    def add_formats(self, formats: Formats) -> None:  # noqa: B027 - most have none
        """Those of this verb alone, of which one excludes the others."""

    def given(self, options: argparse.Namespace) -> dict[str, Any]:
        """The keywords that options are. Raises `InvalidValue` for options that make no sense together."""
        return tracer_keywords(options)

    def shows_names(self, _options: argparse.Namespace) -> bool:
        """Whether the table tells of names."""
        return False

    def shows_answers(self, _options: argparse.Namespace) -> bool:
        """Whether the table tells of names, and of when they were looked up, which `answers` knows."""
        return False

    def parser(self) -> argparse.ArgumentParser:
        parser = Parser(
            prog=f"pytracecon {self.name}",
            usage=f"pytracecon {self.name} {self.arguments}",
            description=(self.about or "").strip(),
            epilog=self.examples,
        )
        self.add_options(parser)
        add_filters(parser, also=self.also, without=self.without)
        if self.named:
            add_names(parser)
        self.add_formats(add_output(parser))
        add_run(parser)
        add_tracer(parser)
        return parser

    def run(self, options: argparse.Namespace) -> int:
        with Signals() as signals:
            from pytracecon.views.answers import Answers  # noqa: PLC0415 - not for --help

            answers = Answers()
            return launch(
                options,
                signals,
                self.keywords(options),
                what=self.what,
                table=lambda target: self.table(options, answers, target),
                shows=self.shows(options, answers),
                holds=self.holds(options),
                uses=self.uses(options),
            )

    def keywords(self, options: argparse.Namespace) -> dict[str, Any]:
        """Of the tracer, judged. Names that nobody would see are left out, lookups are for who sees when they were."""
        from pytracecon.filters import Filters  # noqa: PLC0415 - not for --help

        given = self.given(options)
        given.pop("failed", None)  # a choice of events here, where the verb has it
        given["events"] = self.events(options)
        names = show.shows_names(options) or self.shows_names(options)
        if not self.named:
            given["names"] = False
        elif shows_table(options):
            if self.shows_answers(options):
                given["events"].append("lookup")
            elif not names and not options.host and not options.reverse:
                given["names"] = False
        if not shows_processes(options, show.keys(options)):
            given["processes"] = False
        Filters.parse(**given)
        return given

    def holds(self, _options: argparse.Namespace) -> Callable[[Tracer], Beginnings] | None:
        """What keeps events back that are not complete yet."""
        return None

    def uses(self, _options: argparse.Namespace) -> Collection[Upkeep]:
        """Privileges that this verb needs while it runs, besides those of the tracer."""
        return ()

    def shows(self, options: argparse.Namespace, answers: Answers) -> Callable[[Event], bool] | None:
        """In the table no lookups, which `answers` keeps; nor, unless -v is given, paths of what has a row itself."""
        from pytracecon.views.columns import is_whole  # noqa: PLC0415

        if not shows_table(options):
            return None
        return answers.passes if options.verbose else lambda event: is_whole(event) and answers.passes(event)
