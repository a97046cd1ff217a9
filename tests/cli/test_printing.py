"""What comes from files cannot steer the terminal or pass itself off as a line of exprtool's own."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from rich.text import Text

from exprtool.cli import printing
from exprtool.cli.console import SafeConsole
from exprtool.cli.printing import printable
from exprtool.errors import ExprtoolError, ModelError

TITLE = "\x1b]0;PWND\x07"
ODD = f"a{TITLE}\n[1/1] all.jpg -> done.jpg: 1 face\u202e[red]gpj.exe\x9b31m.jpg"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [red] text", "plain [red] text"),
        ("Zoë 写真　王.jpg", "Zoë 写真　王.jpg"),
        ("می\u200cخواهم 👩\u200d👧", "می\u200cخواهم 👩\u200d👧"),
        ("\x1b[31m\x07\x9b", r"\x1b[31m\x07\x9b"),
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("a\u202eb\u2066\u200f\u2028", r"a\u202eb\u2066\u200f\u2028"),
        ("caf\udce9", r"caf\udce9"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_one_error_is_as_many_lines_as_it_has_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    printing.complain(ModelError(f"{ODD} is broken.", "  tried: this", f"  tried: {ODD}"))
    assert capsys.readouterr().err.splitlines() == [
        f"exprtool: {printable(ODD)} is broken.",
        "  tried: this",
        f"  tried: {printable(ODD)}",
    ]
    assert str(ExprtoolError("one", "two")) == "one\ntwo"


def test_json_is_plain_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    printing.json_line({"name": ODD})
    out = capsys.readouterr().out
    assert out.isascii() and out.count("\n") == 1 and "\x1b" not in out


def test_the_console_prints_text_with_styles_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    console = SafeConsole(width=200, soft_wrap=True)
    console.print(ODD)
    console.print(Text.assemble("a ", (ODD, "red")))
    # rich itself takes out the bell
    assert capsys.readouterr().out.splitlines() == [printable(ODD), "a " + printable(ODD.replace("\x07", ""))]


@pytest.mark.skipif(os.name != "posix", reason="needs file names of any bytes, and a terminal of one's own")
@pytest.mark.parametrize(
    "command",
    [
        ("edit", "FOLDER", "-e", "happy", "-b", "debug"), ("verify", "FILE"), ("models", "import", "FILE"),
        ("video", "FILE", "-e", "happy", "-b", "debug"),
    ],
    ids=lambda command: command[0],
)  # fmt: skip
def test_no_command_lets_a_file_name_through_to_a_terminal(tmp_path: Path, command: tuple[str, ...]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "photo.png")
    odd = folder / ODD.replace("/", "")
    odd.write_bytes(b"no picture")
    places = {"FOLDER": str(folder), "FILE": str(odd), "PHOTO": str(tmp_path / "photo.png")}
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "exprtool", *(places.get(word, word.replace("FILE", str(odd))) for word in command)],
        stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL, cwd=tmp_path, env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    try:
        while data := os.read(ours, 65536):
            seen += data
    except OSError:  # the terminal's other end is closed
        pass
    os.close(ours)
    assert process.wait() in (1, 2), seen
    text = seen.decode("utf-8", "replace")
    assert r"\x1b]0;PWND" in text.replace("\r\n", ""), text
    assert TITLE not in text and "\u202e" not in text and "\x9b" not in text
    assert not any(line.startswith("[1/1] all.jpg") for line in text.splitlines())
