"""How commands and options look in ``--help``: their texts as they were written, and plain words for types."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

_TYPE_WORDS = {"str": "TEXT", "Path": "PATH", "int": "N", "int range": "N", "float": "NUMBER", "float range": "NUMBER"}


class _Look:
    """What commands and groups share: brackets as they were written, and no Python types."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        itself: Any = self
        for item in (itself, *itself.params) if itself.rich_markup_mode == "rich" else ():
            if text := getattr(item, "help", None):
                item.help = _as_written(text)

    def get_params(self, ctx: Any) -> list[Any]:
        """With those that are added late: --help, and for the application completion."""
        options: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for option in options:
            _name_type(option)
        return options


class Command(_Look, TyperCommand):
    """A command with this look."""


class Group(_Look, TyperGroup):
    """A group of commands with this look."""


def _as_written(text: str) -> str:
    """The text so that Rich, which takes [this] for markup, shows it unchanged."""
    from rich.markup import escape

    return escape(text)


def _name_type(option: Any) -> None:
    if option.param_type_name == "argument":  # which its name describes
        option.display_type_rich = lambda ctx: None
    elif getattr(option, "is_flag", False):
        option.metavar = ""
    elif option.metavar is None:
        word = option.bare_type().removeprefix("list[").removesuffix("]")
        option.metavar = _TYPE_WORDS.get(word)


def apply_to(group: typer.Typer) -> None:
    """Give the application, its commands and the groups in it this look."""
    group.info.cls = Group
    for command in group.registered_commands:
        command.cls = Command
    for nested in group.registered_groups:
        if nested.typer_instance:
            apply_to(nested.typer_instance)
