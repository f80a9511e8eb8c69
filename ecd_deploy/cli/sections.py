"""A group of commands whose help lists them under headings, and cuts no sentence."""

from __future__ import annotations

from dataclasses import dataclass

import click

_NO_LIMIT = 10_000  # characters: click ends a longer first sentence with "..."


@dataclass(frozen=True)
class Section:
    """A heading of the help, and the commands under it in their order."""

    title: str
    commands: tuple[click.Command, ...]


class SectionedGroup(click.Group):
    """A group whose commands are added section by section."""

    sections: tuple[Section, ...] = ()

    def add_section(self, title: str, *commands: click.Command) -> None:
        """Add commands under a heading of their own."""
        self.sections += (Section(title, commands),)
        for command in commands:
            self.add_command(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write each section with the first sentence of each command."""
        width = max(map(len, self.commands), default=0)
        for section in self.sections:
            with formatter.section(section.title):
                formatter.write_dl(
                    [(f"{command.name:{width}}", command.get_short_help_str(_NO_LIMIT)) for command in section.commands]
                )
