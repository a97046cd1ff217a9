"""Flat dataclasses of settings as flags, as TOML and as JSON: each field is declared once, with its help.

A field is declared with `setting`. Its type must be bool, int, float, str, Path, a Literal of words, a tuple of one of
these (any length), or one of these or None.
"""

from __future__ import annotations

import json
import math
import types
from collections.abc import Mapping
from dataclasses import Field, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from exprtool.documents import MOST, parse_toml
from exprtool.errors import UnknownNameError, UsageError
from exprtool.files import read_regular

T = TypeVar("T")


def setting(
    default: T,
    group: str,
    help: str,
    *,
    stored: bool = True,
    span: tuple[float, float] | None = None,
    changes: bool = False,
) -> T:
    """A dataclass field: its default, the heading under which it is listed, and one line of help.

    ``stored`` False marks a field that says how to start rather than what is done; it is a flag but no key of a file.
    ``span`` is the least and the greatest number allowed. ``changes`` marks what may be changed when a run is resumed.
    """
    metadata = {"group": group, "help": help, "stored": stored, "span": span, "changes": changes or not stored}
    return field(default=default, metadata=metadata)


def stored_fields(kind: type[Any]) -> list[Field[Any]]:
    """The fields of a dataclass that belong into files, those under one heading together."""
    kept = [entry for entry in fields(kind) if entry.metadata.get("stored", True)]
    groups = list(dict.fromkeys(entry.metadata.get("group", "") for entry in kept))
    return sorted(kept, key=lambda entry: groups.index(entry.metadata.get("group", "")))


@cache
def hints(kind: type[Any]) -> dict[str, Any]:
    """The types of a dataclass's fields, resolved."""
    return get_type_hints(kind)


def flag(name: str) -> str:
    """The command line's spelling of a field."""
    return "--" + name.replace("_", "-")


def bare(hint: Any) -> Any:
    """The type without its "or None"."""
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = [part for part in get_args(hint) if part is not type(None)]
    return hint


def words(hint: Any) -> tuple[str, ...]:
    """The words that a field of this type may hold; empty where it is no choice of words."""
    hint = bare(hint)
    return get_args(hint) if get_origin(hint) is Literal else ()


def check(config: Any) -> None:
    """Raise `UnknownNameError` where a field holds another word than its type allows, `UsageError` where a number lies
    outside its span or is none."""
    for entry in fields(config):
        known, value = words(hints(type(config))[entry.name]), getattr(config, entry.name)
        if known and value not in known:
            raise UnknownNameError(flag(entry.name), str(value), known)
        span = entry.metadata.get("span")
        if span and not (math.isfinite(value) and span[0] <= value <= span[1]):
            low, high = span
            allowed = f"from {low:g} to {high:g}" if math.isfinite(high) else f"at least {low:g}"
            raise UsageError(f"{flag(entry.name)} must be {allowed}, not {value!r}.")


def to_plain(config: Any) -> dict[str, Any]:
    """The stored fields as JSON-ready values."""
    return {entry.name: _plain(getattr(config, entry.name)) for entry in stored_fields(type(config))}


def from_plain(kind: type[Any], data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Values read from TOML or JSON as the fields' types, None left out; ``where`` names their source in errors.

    Raises `UsageError` for a key that is no stored field and for a value of another type.
    """
    known = {entry.name: hints(kind)[entry.name] for entry in stored_fields(kind)}
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in known:
            raise UsageError(f"{where}: {UnknownNameError('setting', key, known)}")
        if value is not None:
            values[key] = _typed(value, known[key], f"{where}: {key}")
    return values


def to_toml(config: Any, title: str) -> str:
    """The stored fields as TOML under their headings, each with its help as a comment."""
    lines, group = [f"# {title}"], ""
    for entry in stored_fields(type(config)):
        if entry.metadata.get("group", "") != group:
            group = entry.metadata["group"]
            lines += ["", f"# {group}"]
        value = getattr(config, entry.name)
        text = f"{entry.name} = {_toml(value)}" if value is not None else f"# {entry.name} ="
        lines.append(f"{text}  # {entry.metadata.get('help', '')}")
    return "\n".join(lines) + "\n"


def read_toml(kind: type[Any], path: Path) -> dict[str, Any]:
    """The settings in a TOML file, of the fields' types; `UsageError` names the file and what is wrong in it."""
    try:
        data = parse_toml(read_regular(path, MOST).decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path} cannot be read: {reason}. Write a file to start from with --dump-config.") from None
    except ValueError as error:
        raise UsageError(f"{path} is not valid TOML: {error}. Write one to start from with --dump-config.") from None
    return from_plain(kind, data, str(path))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def _toml(value: Any) -> str:
    """TOML's strings, numbers, booleans and lists of them are JSON's, but for infinity and the delete character."""
    return json.dumps(_plain(value), ensure_ascii=False).replace("Infinity", "inf").replace("\x7f", "\\u007f")


def _typed(value: Any, hint: Any, where: str) -> Any:
    hint = bare(hint)
    origin = get_origin(hint)
    if origin is tuple and isinstance(value, list):
        return tuple(_typed(part, get_args(hint)[0], where) for part in value)
    if hint is float and type(value) in (int, float):
        return float(value)
    if (origin is Literal or hint is str) and isinstance(value, str):
        return value
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint in (int, bool) and type(value) is hint:
        return value
    wanted = {tuple: "a list", Literal: "a word", Path: "a path", bool: "true or false", int: "a whole number"}
    raise UsageError(f"{where} must be {wanted.get(origin or hint, 'a number')}, not {value!r}.")


def resumed(stored: T, settings: Mapping[str, Any]) -> T:
    """The ``stored`` configuration of a run with a user's ``settings`` on top; `UsageError` names those that differ
    though their field says that they may not."""
    changes = {entry.name: entry.metadata.get("changes", False) for entry in fields(stored)}  # type: ignore[arg-type]
    frozen = [
        f"{flag(key)} {value} (the run: {getattr(stored, key)})"
        for key, value in settings.items()
        if not changes[key] and value != getattr(stored, key)
    ]
    if frozen:
        raise UsageError(
            f"A resumed run keeps its settings, but these differ: {', '.join(frozen)}. Leave them out, or start a new "
            "run in another --out."
        )
    return replace(stored, **settings)  # type: ignore[type-var]  # a dataclass, as everything here
