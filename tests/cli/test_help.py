"""``--help`` shows texts as they were written, and words in place of Python's types."""

from __future__ import annotations

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from exprtool.cli.main import app
from exprtool.extras import install_command


def commands(command, path=()):
    yield path, command
    for name, nested in getattr(command, "commands", {}).items():
        yield from commands(nested, (*path, name))


def shown(*words: str) -> str:
    return CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"}).stdout


def test_no_command_shows_a_python_type() -> None:
    for path, _ in commands(get_command(app)):
        text = shown(*path)
        for word in ("<bool>", "<str>", "<int", "<float", "<path>", "list["):
            assert word not in text, (path, word)


def test_brackets_in_help_are_no_markup() -> None:
    text = " ".join(shown("ablate").split())
    assert "[train] with what all share, [variants] or [grid], seeds" in text
    assert "[default: what the machine's memory allows]" in shown("edit")


@pytest.mark.parametrize("command", ["edit", "video", "animate", "sheet", "synth", "export", "evaluate", "ablate"])
def test_every_output_goes_by_the_same_names(command: str) -> None:
    paths = {path[-1]: node for path, node in commands(get_command(app)) if path}
    option = next(option for option in paths[command].params if "-o" in option.opts)
    assert set(option.opts) == {"--output", "--out", "-o"}


def test_remedies_name_packages_that_an_index_knows() -> None:
    assert install_command("heic").startswith("pip install 'pillow-heif>=")
    assert "'torch>=" in install_command("torch") and "exprtool" not in install_command("torch")
    assert install_command("nothing") == "pip install 'exprtool[nothing]'"
