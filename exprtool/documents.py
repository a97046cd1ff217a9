"""TOML and JSON from outside: a few kilobytes of plain file, whatever is found there."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exprtool.files import read_regular

MOST = 1 << 20
"""Bytes: settings and cards have a few kilobytes; what is larger is another file."""


def parse_json(text: str | bytes) -> Any:
    """A JSON document; raises `ValueError`, also for one that is nested deeper than Python can follow."""
    return _shallow(json.loads, text)


def parse_toml(text: str) -> dict[str, Any]:
    """A TOML document; raises `ValueError` as `parse_json` does."""
    return _shallow(tomllib.loads, text)


def read_document(path: Path) -> Any:
    """What a TOML file, or one that ends in ``.json``, holds. Raises `OSError` for what is no plain file of at most
    `MOST` bytes, and `ValueError` for what is not what its name says."""
    text = read_regular(path, MOST).decode("utf-8")
    return parse_json(text) if path.suffix.lower() == ".json" else parse_toml(text)


def _shallow(parse: Callable[[Any], Any], text: str | bytes) -> Any:
    try:
        return parse(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
