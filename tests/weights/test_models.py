"""The registry of weights against a real HTTP server on this machine that can be told to misbehave."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from exprtool import hookimpl, plugins
from exprtool.errors import ModelError, UnknownNameError, UsageError
from exprtool.types import BackendSpec, DetectorSpec, WeightFile
from exprtool.weights import catalogue as models
from exprtool.weights.catalogue import State
from exprtool.weights.download import Patience, partial_path

CONTENT = bytes(hashlib.sha256(str(i).encode()).digest()[0] for i in range(40_000)) * 20  # 800 kB
CUT = 9 << 15
HASTY = Patience(connect=2, silence=2, tries=2, pause=0.01)


@dataclass
class Server:
    """What the server has, how it misbehaves, and what it was asked."""

    content: bytes = CONTENT
    etag: str | None = '"v1"'
    ranges: bool = True
    cut_after: list[int] = field(default_factory=list)
    """Bytes after which the next connections break off, one entry each."""
    status: list[int] = field(default_factory=list)
    """Status codes with which the next requests fail."""
    announce_length: bool = True
    stall: bool = False
    pace: float = 0.0
    step: int = 1 << 16
    """Bytes that are sent between two pauses of ``pace`` seconds."""
    drip_head: float = 0.0
    """Seconds between the bytes of the answer's head."""
    asked: list[dict[str, str]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append({"path": self.path, **{key.lower(): value for key, value in self.headers.items()}})
            if state.status or "missing" in self.path:
                self.send_error(state.status.pop(0) if state.status else 404)
                return
            while state.drip_head:
                self.wfile.write(b"X")
                time.sleep(state.drip_head)
            content = b"x" * len(CONTENT) if "wrong" in self.path else state.content
            start = self._start(content)
            if start is not None and start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = content[start or 0 :]
            self.send_response(200 if start is None else 206)
            if state.announce_length:
                self.send_header("Content-Length", str(len(body)))
            if start is not None:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if state.etag:
                self.send_header("ETag", state.etag)
            self.end_headers()
            if state.cut_after:
                body = body[: state.cut_after.pop(0)]
            for at in range(0, len(body), state.step):
                self.wfile.write(body[at : at + state.step])
                time.sleep(state.pace)
            if state.stall:
                self.wfile.flush()
                time.sleep(4)
            self.close_connection = True

        def _start(self, content: bytes) -> int | None:
            match = re.match(r"bytes=(\d+)-\Z", self.headers.get("Range", ""))
            if not match or not state.ranges:
                return None
            condition = self.headers.get("If-Range")
            return int(match[1]) if condition in (None, state.etag) else None

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Quiet(http.server.ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that hangs up is part of the tests."""

    with Quiet(("127.0.0.1", 0), Handler) as httpd:
        httpd.daemon_threads = True
        threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
        state.url = f"http://127.0.0.1:{httpd.server_address[1]}"
        yield state
        httpd.shutdown()


@pytest.fixture
def weight(server: Server) -> WeightFile:
    return WeightFile(
        name="tiny",
        file="tiny.onnx",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size=len(CONTENT),
        licence="MIT",
        commercial=True,
        origin="https://example.org/tiny",
        urls=(f"{server.url}/tiny.onnx",),
    )


@pytest.fixture
def known(weight: WeightFile) -> Iterator[WeightFile]:
    """The tiny weights, as a plugin's backend declares them."""
    with plugged_in(weight):
        yield weight


def plugged_in(*weights: WeightFile, quality: int = 0):
    class Plugin:
        @hookimpl
        def register_backends(self, register: Callable[[BackendSpec], None]) -> None:
            register(
                BackendSpec(
                    "needy", "Needs weights.", load=lambda device: pytest.fail("loaded"), needs=weights, quality=quality
                )
            )

    return plugins.plugged_in("needy", Plugin())


def leftovers(folder: Path) -> list[str]:
    """What lies in the cache besides finished weights, stamps and locks."""
    ours = (".verified", ".lock", ".onnx")
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and not p.name.endswith(ours))


def cli(*arguments: str, **environment: str):
    from exprtool.cli.main import app

    return CliRunner().invoke(app, list(arguments), env=environment)


# ---------------------------------------------------------------------------------------------------------------------
# Where things are


def test_home_overrides_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("EXPRTOOL_HOME", str(tmp_path / "mine"))
    assert models.cache_dir() == tmp_path / "mine"
    monkeypatch.delenv("EXPRTOOL_HOME")
    assert models.cache_dir().name == "exprtool"
    assert models.cache_dir() != tmp_path / "mine"


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/../../b", "C:\\x", "c:x", ""])
def test_file_names_that_leave_the_cache_are_refused_and_reported(weight, name):
    bad = replace(weight, file=name)
    with pytest.raises(ModelError, match="no plain file name"):
        models.location(bad)
    with plugged_in(bad):
        found = models.catalogue()
        assert "tiny" not in found.weights
        assert any("no plain file name" in problem.reason for problem in found.problems)


def test_two_files_under_one_name_are_reported_and_the_first_stays(weight):
    other = replace(weight, sha256="0" * 64)
    with plugged_in(weight, other):
        found = models.catalogue()
        assert found.weights["tiny"] == weight
        assert any("clash" in problem.reason for problem in found.problems)


def test_unknown_model_lists_the_known(known):
    with pytest.raises(UnknownNameError, match="tiny"):
        models.find("tinny")
    assert models.find("tiny.onnx") is known


# ---------------------------------------------------------------------------------------------------------------------
# Not here


def test_missing_weights_name_file_size_licence_origin_and_both_commands(known):
    with pytest.raises(ModelError) as caught:
        models.weight_path(known)
    message = str(caught.value)
    for part in (
        "tiny.onnx", "800 kB", "MIT", "https://example.org/tiny",
        "exprtool models fetch tiny", "exprtool models import tiny.onnx",
    ):  # fmt: skip
        assert part in message
    assert not models.is_there(known)


def test_weights_without_an_address_offer_only_the_import(known):
    with pytest.raises(ModelError) as caught:
        models.weight_path(replace(known, urls=()))
    assert "models import tiny.onnx" in str(caught.value)
    assert "models fetch" not in str(caught.value)


def test_readiness_says_what_to_fetch(known, server):
    spec = plugins.registry().backend("needy")
    answer = models.readiness(spec)
    assert not answer.ready
    assert "exprtool models fetch tiny" in answer.remedy
    models.fetch(known, patience=HASTY)
    assert models.readiness(spec).ready
    bad = replace(spec, readiness=lambda: 1 / 0)
    assert "ZeroDivisionError" in models.readiness(bad).reason  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------------------------
# Fetching


def test_fetch_stores_what_was_pinned_and_asks_once(known, server):
    seen: list[tuple[str, int, int]] = []
    path = models.fetch(known, progress=lambda *step: seen.append(step), patience=HASTY)
    assert path.read_bytes() == CONTENT
    assert models.weight_path(known) == path
    assert models.fetch(known, patience=HASTY) == path
    assert len(server.asked) == 1
    assert leftovers(path.parent) == []
    done = [step[1] for step in seen if step[0] == "downloading"]
    assert done == sorted(done)
    assert done[-1] == len(CONTENT)
    assert seen[-1] == ("checking", len(CONTENT), len(CONTENT))


def test_a_broken_connection_is_taken_up_where_it_broke(known, server):
    server.cut_after = [CUT, CUT]
    assert models.fetch(known, patience=HASTY).read_bytes() == CONTENT
    assert [asked.get("range") for asked in server.asked] == [None, f"bytes={CUT}-", f"bytes={2 * CUT}-"]
    assert [asked.get("if-range") for asked in server.asked] == [None, '"v1"', '"v1"']


def test_a_later_run_goes_on_with_what_an_earlier_one_left(known, server):
    server.cut_after = [CUT, 0, 0, 0]
    with pytest.raises(ModelError, match="goes on where it stopped"):
        models.fetch(known, patience=replace(HASTY, tries=1))
    target = models.location(known)
    assert not target.exists()
    assert partial_path(target).stat().st_size == CUT
    check = models.state(known)
    assert check.state is State.PARTIAL
    assert "295 kB of 800 kB" in check.detail
    server.cut_after = []
    server.asked.clear()
    assert models.fetch(known, patience=HASTY).read_bytes() == CONTENT
    assert server.asked[0]["range"] == f"bytes={CUT}-"
    assert leftovers(target.parent) == []


def test_a_file_that_changed_on_the_server_is_fetched_anew(known, server):
    partial = partial_path(models.location(known))
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"old" * 1000)
    partial.with_name(partial.name + ".json").write_text(json.dumps({"url": known.urls[0], "validator": '"v0"'}))
    assert models.fetch(known, patience=HASTY).read_bytes() == CONTENT
    assert server.asked[0]["if-range"] == '"v0"'
    assert len(server.asked) == 1


def test_a_spoilt_beginning_is_found_out_and_fetched_anew(known, server):
    """The server cannot tell that these are not its first bytes; the hash can."""
    partial = partial_path(models.location(known))
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"z" * 1000)
    assert models.fetch(known, patience=HASTY).read_bytes() == CONTENT
    assert [asked.get("range") for asked in server.asked] == ["bytes=1000-", None]


def test_a_complete_part_is_used_without_asking_and_an_overlong_one_is_dropped(known, server):
    partial = partial_path(models.location(known))
    partial.parent.mkdir(parents=True)
    partial.write_bytes(CONTENT)
    assert models.fetch(known, patience=HASTY).read_bytes() == CONTENT
    assert server.asked == []
    models.location(known).unlink()
    partial.write_bytes(CONTENT + b"more")
    assert models.fetch(known, patience=HASTY).read_bytes() == CONTENT


def test_a_server_without_ranges_starts_over(known, server):
    server.ranges = False
    server.cut_after = [CUT]
    assert models.fetch(known, patience=HASTY).read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_a_weak_etag_is_not_used_as_a_condition(known, server):
    server.etag = 'W/"v1"'
    server.cut_after = [CUT]
    assert models.fetch(known, patience=HASTY).read_bytes() == CONTENT
    assert "if-range" not in server.asked[1]


def test_the_next_address_is_tried_and_goes_on_with_the_bytes_of_the_first(known, server):
    server.cut_after = [CUT, 0]
    two = replace(known, urls=(f"{server.url}/a", f"{server.url}/b"))
    assert models.fetch(two, patience=replace(HASTY, tries=1)).read_bytes() == CONTENT
    last = server.asked[-1]
    assert last["path"] == "/b"
    assert last["range"] == f"bytes={CUT}-"
    assert "if-range" not in last  # what /a called the file says nothing about /b


@pytest.mark.parametrize("first", ["missing", "wrong"])
def test_addresses_that_fail_or_lie_are_passed_over(known, server, first):
    two = replace(known, urls=(f"{server.url}/{first}", f"{server.url}/good"))
    assert models.fetch(two, patience=HASTY).read_bytes() == CONTENT
    assert [asked["path"] for asked in server.asked] == [f"/{first}", "/good"]


def test_wrong_bytes_never_get_the_name(known, server):
    with pytest.raises(ModelError, match="SHA-256") as caught:
        models.fetch(replace(known, urls=(f"{server.url}/wrong",)), patience=HASTY)
    assert "exprtool models import tiny.onnx" in str(caught.value)
    target = models.location(known)
    assert not target.exists()
    assert leftovers(target.parent) == []
    assert len(server.asked) == 1  # nothing was resumed, so asking again would bring the same


def test_a_wrong_size_is_refused_before_it_is_downloaded(known, server):
    server.content = CONTENT * 3
    with pytest.raises(ModelError, match="2400000 bytes there instead of 800000"):
        models.fetch(known, patience=HASTY)
    assert leftovers(models.models_dir()) == []


def test_a_server_that_never_ends_is_stopped_at_the_size(known, server):
    server.announce_length = False
    server.content = CONTENT * 3
    with pytest.raises(ModelError, match="larger than the 800000 bytes"):
        models.fetch(known, patience=HASTY)
    assert leftovers(models.models_dir()) == []


def test_a_silent_server_is_given_up_and_its_bytes_kept(known, server):
    server.cut_after = [CUT, 0]
    server.stall = True
    with pytest.raises(ModelError, match="fell silent"):
        models.fetch(known, patience=replace(HASTY, silence=0.3, tries=1))
    assert partial_path(models.location(known)).stat().st_size == CUT


def test_a_dripping_server_is_given_up_and_its_bytes_kept(known, server):
    """Each byte comes within the time for silence, so that alone would wait for ever."""
    server.pace, server.step = 0.1, 1
    slow = replace(HASTY, least_speed=1000, window=0.5)
    with pytest.raises(ModelError, match=r"sends \d+ bytes a second only"):
        models.fetch(known, patience=slow)
    assert 0 < partial_path(models.location(known)).stat().st_size < 100
    server.pace, server.step = 0.0, 1 << 16
    assert models.fetch(known, patience=HASTY).read_bytes() == CONTENT


def test_a_server_that_drips_the_head_of_its_answer_is_given_up(known, server):
    server.drip_head = 0.3
    with pytest.raises(ModelError, match=r"did not answer in \d+ s"):
        models.fetch(known, patience=replace(HASTY, connect=0.2, answer=0.8))


def test_a_download_has_an_end_whatever_the_speed(known, server):
    server.pace = 0.1
    with pytest.raises(ModelError, match=r"takes longer than .* run it again to go on"):
        models.fetch(known, patience=replace(HASTY, total=0.3))


def test_a_byte_for_each_connection_is_no_progress(known, server):
    server.cut_after = [1] * 50
    with pytest.raises(ModelError, match="connection"):
        models.fetch(known, patience=HASTY)
    assert len(server.asked) <= 3


@pytest.mark.skipif(os.name != "posix", reason="links are POSIX's")
@pytest.mark.parametrize("plant", ["symlink_to", "hardlink_to"])
def test_a_planted_beginning_is_not_written_into(known, server, tmp_path, plant):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    part = partial_path(models.location(known))
    part.parent.mkdir(parents=True)
    getattr(part, plant)(victim)
    with pytest.raises(ModelError):
        models.fetch(known, patience=HASTY)
    assert victim.read_bytes() == b"precious"


def test_a_passing_fault_is_tried_again_and_a_lasting_one_is_not(known, server):
    server.status = [503]
    assert models.fetch(known, patience=HASTY).read_bytes() == CONTENT
    assert len(server.asked) == 2
    models.location(known).unlink()
    server.asked.clear()
    with pytest.raises(ModelError, match="HTTP 404"):
        models.fetch(replace(known, urls=(f"{server.url}/missing",)), patience=HASTY)
    assert len(server.asked) == 1


def test_no_connection_is_said_in_plain_words(known):
    with pytest.raises(ModelError, match="no connection") as caught:
        models.fetch(replace(known, urls=("http://127.0.0.1:9/x",)), patience=replace(HASTY, tries=1))
    assert "0x" not in str(caught.value)


def test_an_unwritable_cache_is_said(known, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EXPRTOOL_HOME", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="EXPRTOOL_HOME"):
        models.fetch(known, patience=HASTY)


def test_a_full_disk_is_seen_before_the_download(known, server, monkeypatch):
    monkeypatch.setattr(models.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(ModelError, match=r"1\.0 kB are free"):
        models.fetch(known, patience=HASTY)
    assert server.asked == []


def test_two_processes_fetch_once(known, server, tmp_path):
    """The second waits for the first and uses what it brought."""
    server.pace = 0.05
    script = tmp_path / "fetch.py"
    script.write_text(
        textwrap.dedent(
            f"""
            from exprtool.weights import catalogue as models
            from exprtool.types import WeightFile
            stages = []
            weight = WeightFile("tiny", "tiny.onnx", {known.sha256!r}, {known.size}, "MIT", True, "", {known.urls!r})
            models.fetch(weight, progress=lambda stage, done, size: stages.append(stage))
            print(" ".join(sorted(set(stages))))
            """
        )
    )
    both = [subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[0].strip() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert "checking downloading" in said
    assert len(server.asked) == 1
    assert models.is_there(known)


def test_a_killed_download_leaves_no_file_and_no_lock(known, server, tmp_path):
    server.pace = 0.2
    script = tmp_path / "fetch.py"
    script.write_text(
        "from exprtool.weights import catalogue as models\nfrom exprtool.types import WeightFile\n"
        f'weight = WeightFile("tiny", "tiny.onnx", {known.sha256!r}, {known.size}, "MIT", True, "", {known.urls!r})\n'
        "models.fetch(weight)\n"
    )
    process = subprocess.Popen([sys.executable, script])
    partial = partial_path(models.location(known))
    deadline = time.monotonic() + 30
    while not (partial.exists() and partial.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not models.location(known).exists()
    begun = partial.stat().st_size
    assert 0 < begun < len(CONTENT)
    server.pace = 0
    server.asked.clear()
    assert models.fetch(known, patience=HASTY).read_bytes() == CONTENT
    assert server.asked[0]["range"] == f"bytes={begun}-"


# ---------------------------------------------------------------------------------------------------------------------
# Packing


def halve(downloaded: Path, target: Path) -> None:
    data = downloaded.read_bytes()
    if data[:1] == b"x":
        raise ValueError("not an archive")
    target.write_bytes(data[: len(data) // 2])


@pytest.fixture
def packed(weight: WeightFile, server: Server) -> WeightFile:
    half = CONTENT[: len(CONTENT) // 2]
    return replace(
        weight,
        sha256=hashlib.sha256(half).hexdigest(),
        size=len(half),
        pack=halve,
        download_size=len(CONTENT),
        urls=(f"{server.url}/archive.zip",),
    )


def test_what_was_downloaded_is_packed_and_the_packed_file_is_what_is_checked(packed):
    path = models.fetch(packed, patience=HASTY)
    assert path.read_bytes() == CONTENT[: len(CONTENT) // 2]
    assert leftovers(path.parent) == []


def test_an_archive_that_does_not_unpack_is_passed_over(packed, server):
    two = replace(packed, urls=(f"{server.url}/wrong", f"{server.url}/good"))
    assert models.fetch(two, patience=HASTY).stat().st_size == packed.size
    assert leftovers(models.models_dir()) == []


@pytest.mark.parametrize("announced", [True, False])
def test_an_archive_of_unknown_size_is_fetched_to_its_end(packed, server, announced):
    server.announce_length = announced
    unknown = replace(packed, download_size=None)
    assert models.fetch(unknown, patience=HASTY).read_bytes() == CONTENT[: len(CONTENT) // 2]
    assert "larger download" in models.describe(unknown)


def test_an_archive_of_unknown_size_is_taken_up_where_it_broke(packed, server):
    server.cut_after = [CUT]
    assert models.fetch(replace(packed, download_size=None), patience=HASTY).stat().st_size == packed.size
    assert server.asked[1]["range"] == f"bytes={CUT}-"


def test_a_whole_archive_of_unknown_size_is_recognised_by_the_servers_refusal(packed, server):
    partial = partial_path(models.location(packed))
    partial.parent.mkdir(parents=True)
    partial.write_bytes(CONTENT)
    assert models.fetch(replace(packed, download_size=None), patience=HASTY).stat().st_size == packed.size
    assert len(server.asked) == 1


def test_an_endless_archive_of_unknown_size_is_stopped(packed, server, monkeypatch):
    monkeypatch.setattr("exprtool.weights.download.MOST", CUT)
    server.announce_length = False
    with pytest.raises(ModelError, match="larger than"):
        models.fetch(replace(packed, download_size=None), patience=HASTY)
    assert leftovers(models.models_dir()) == []


@pytest.mark.parametrize("name", ["archive.zip", "archive-master (1).zip"])
def test_the_archive_itself_can_be_imported(packed, tmp_path, name):
    """Browsers save archives under names of their own."""
    archive = tmp_path / "downloads" / name
    archive.parent.mkdir()
    archive.write_bytes(CONTENT)
    for source in (archive, archive.parent):
        with plugged_in(replace(packed, download_size=None)):
            (check,) = models.import_files([source])
            assert check.path.read_bytes() == CONTENT[: len(CONTENT) // 2]
            assert archive.read_bytes() == CONTENT
            check.path.unlink()


def test_another_archive_is_refused_even_where_the_weights_are_here(packed, tmp_path):
    (tmp_path / "archive.zip").write_bytes(b"x" * len(CONTENT))
    with plugged_in(packed):
        models.fetch(packed, patience=HASTY)
        with pytest.raises(ModelError, match=r"none of the files(.|\n)*as tiny: it could not be unpacked"):
            models.import_files([tmp_path / "archive.zip"])
        with pytest.raises(ModelError, match="No file in"):
            models.import_files([tmp_path])
        assert models.is_there(packed)
        assert leftovers(models.models_dir()) == []


def test_an_archive_under_a_refused_licence_is_not_unpacked(packed, tmp_path):
    (tmp_path / "archive.zip").write_bytes(CONTENT)
    with plugged_in(replace(packed, commercial=False)):
        with pytest.raises(ModelError, match="forbids commercial use"):
            models.import_files([tmp_path / "archive.zip"], commercial_only=True)
        assert not models.location(packed).exists()


# ---------------------------------------------------------------------------------------------------------------------
# Importing and verifying


def test_a_file_is_recognised_by_its_contents(known, tmp_path):
    mine = tmp_path / "my download (2).bin"
    mine.write_bytes(CONTENT)
    (check,) = models.import_files([mine])
    assert check.weight is known
    assert models.weight_path(known).read_bytes() == CONTENT
    assert mine.exists()


def test_an_unknown_file_is_refused_with_the_known_ones(known, tmp_path):
    other = tmp_path / "tiny.onnx"
    other.write_bytes(b"other")
    with pytest.raises(ModelError, match="none of the files") as caught:
        models.import_files([other])
    assert "tiny.onnx" in str(caught.value)
    assert "https://example.org/tiny" in str(caught.value)
    with pytest.raises(ModelError, match="Cannot read"):
        models.import_files([tmp_path / "nothing"])
    assert not models.location(known).exists()


def test_a_folder_is_searched(known, tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "x").write_bytes(CONTENT)
    (tmp_path / "deep" / "same-size").write_bytes(b"?" * len(CONTENT))
    (tmp_path / "notes.txt").write_text("hello")
    assert [check.weight for check in models.import_files([tmp_path / "deep"])] == [known]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ModelError, match="No file in"):
        models.import_files([empty])


def test_an_import_completes_a_download_that_had_begun(known, tmp_path):
    partial = partial_path(models.location(known))
    partial.parent.mkdir(parents=True)
    partial.write_bytes(CONTENT[:10])
    (tmp_path / "f").write_bytes(CONTENT)
    models.import_files([tmp_path / "f"])
    assert leftovers(models.models_dir()) == []


def test_a_damaged_file_is_found_by_its_stamp_and_replaced(known, server):
    path = models.fetch(known, patience=HASTY)
    spoilt = bytearray(CONTENT)
    spoilt[1234] ^= 1
    path.write_bytes(spoilt)
    os.utime(path, ns=(1, 1))  # even where the clock is coarse, a write is a new time
    assert models.state(known).state is State.DAMAGED
    with pytest.raises(ModelError, match=r"damaged.*exprtool models fetch tiny"):
        models.weight_path(known)
    assert models.fetch(known, patience=HASTY).read_bytes() == CONTENT


def test_verify_hashes_even_what_the_stamp_vouches_for(known):
    path = models.fetch(known, patience=HASTY)
    times = path.stat()
    spoilt = bytearray(CONTENT)
    spoilt[7] ^= 1
    path.write_bytes(spoilt)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # bit rot leaves the time as it was
    assert models.is_there(known)
    (check,) = models.verify([known])
    assert check.state is State.DAMAGED
    assert not models.is_there(known)


def test_looking_again_hashes_nothing(known, monkeypatch):
    models.fetch(known, patience=HASTY)
    models._seen.clear()  # as in a new process
    monkeypatch.setattr(models, "sha256_of", lambda *_: pytest.fail("hashed again"))
    assert models.is_there(known)


def test_a_file_put_there_by_hand_is_hashed_once(known, monkeypatch):
    path = models.location(known)
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert models.is_there(known)
    models._seen.clear()
    monkeypatch.setattr(models, "sha256_of", lambda *_: pytest.fail("hashed again"))
    assert models.is_there(known)


# ---------------------------------------------------------------------------------------------------------------------
# Licences


def test_non_commercial_weights_are_refused_where_only_commercial_ones_are_wanted(weight, monkeypatch, tmp_path):
    research = replace(weight, commercial=False, licence="non-commercial research only")
    (tmp_path / "f").write_bytes(CONTENT)
    with plugged_in(research):
        spec = plugins.registry().backend("needy")
        for refused in (
            lambda: models.fetch(research, commercial_only=True),
            lambda: models.weight_path(research, commercial_only=True),
            lambda: models.import_files([tmp_path / "f"], commercial_only=True),
            lambda: models.import_files([tmp_path], commercial_only=True),
        ):
            with pytest.raises(ModelError, match="non-commercial research only"):
                refused()
        assert not models.location(research).exists()
        models.import_files([tmp_path / "f"])
        assert models.readiness(spec).ready
        monkeypatch.setenv("EXPRTOOL_COMMERCIAL_ONLY", "1")
        assert not models.readiness(spec).ready
        with pytest.raises(ModelError, match="forbids commercial use"):
            models.weight_path(research)
        monkeypatch.setenv("EXPRTOOL_COMMERCIAL_ONLY", "0")
        assert models.weight_path(research)


# ---------------------------------------------------------------------------------------------------------------------
# The command line


def test_list_shows_state_size_licence_origin_and_who_needs_it(known):
    entries = {entry["name"]: entry for entry in json.loads(cli("models", "list", "--json").stdout)}
    entry = entries["tiny"]
    assert (entry["state"], entry["size"], entry["licence"], entry["commercial"]) == (
        "missing",
        len(CONTENT),
        "MIT",
        True,
    )
    assert entry["needed_by"] == ["backend needy"]
    text = cli("models", "list").stdout
    for part in ("tiny", "missing", "800 kB", "MIT", "https://example.org/tiny", "backend needy"):
        assert part in text


def test_list_leaves_out_what_may_not_be_used_commercially(weight):
    with plugged_in(replace(weight, commercial=False)):
        assert "tiny" in cli("models", "list", "--json").stdout
        hidden = cli("models", "list", "--json", "--commercial-only")
        assert '"tiny"' not in hidden.stdout
        assert "no commercial use" in hidden.stderr


def test_fetch_by_the_name_of_a_backend_prints_plain_lines_and_then_path_answers(known, server):
    server.pace = 0.001
    fetched = cli("models", "fetch", "needy")
    assert fetched.exit_code == 0, fetched.output
    assert "fetched and verified" in fetched.stderr
    assert "\x1b" not in fetched.stderr
    assert cli("models", "path", "tiny").stdout.strip() == str(models.location(known))
    assert cli("models", "path").stdout.strip() == str(models.models_dir())
    assert "here already" in cli("models", "fetch", "tiny").stderr


def test_fetch_reports_each_failure_and_brings_the_rest(weight, server):
    bad = replace(weight, name="bad", file="bad.onnx", urls=(f"{server.url}/missing",))
    with plugged_in(bad, weight):
        done = cli("models", "fetch", "bad", "tiny")
        assert done.exit_code == 1
        assert "HTTP 404" in done.stderr
        assert models.is_there(weight)


def test_fetch_refuses_before_the_first_byte(weight, server):
    research = replace(weight, name="research", file="r.onnx", commercial=False)
    with plugged_in(weight, research):
        done = cli("models", "fetch", "tiny", "research", "--commercial-only")
        assert isinstance(done.exception, ModelError)
        assert server.asked == []


def test_fetch_of_a_detector_that_needs_any_of_several_asks_which(weight):
    other = replace(weight, name="other", file="other.onnx")

    class Plugin:
        @hookimpl
        def register_detectors(self, register: Callable[[DetectorSpec], None]) -> None:
            register(DetectorSpec("choosy", "Any.", load=print, needs=(weight, other), needs_any=True))  # type: ignore[arg-type]

    with plugins.plugged_in("choosy", Plugin()):
        done = cli("models", "fetch", "choosy")
        assert isinstance(done.exception, UsageError)
        assert "tiny" in str(done.exception)
        assert "other" in str(done.exception)
        assert models.readiness(plugins.registry().detector("choosy")).ready  # its own word counts


def test_verify_exits_1_for_damaged_and_names_the_remedy(known):
    models.fetch(known, patience=HASTY)
    assert cli("models", "verify").exit_code == 0
    models.location(known).write_bytes(b"0" * len(CONTENT))
    done = cli("models", "verify")
    assert done.exit_code == 1
    assert "damaged" in done.stdout
    assert "exprtool models fetch tiny" in done.stderr


def test_verify_of_a_missing_model_fails_only_where_it_was_named(known):
    assert cli("models", "verify").exit_code == 0
    assert cli("models", "verify", "tiny").exit_code == 1


def test_import_prints_where_it_went(known, tmp_path):
    (tmp_path / "f").write_bytes(CONTENT)
    done = cli("models", "import", str(tmp_path / "f"))
    assert done.exit_code == 0
    assert str(models.location(known)) in done.stderr


# ---------------------------------------------------------------------------------------------------------------------
# Archives that would unpack to more than they should, and weights that were damaged


def bomb(path: Path, name: str, size: int) -> Path:
    """A zip whose one member is ``size`` zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w") as member:
        for at in range(0, size, 1 << 20):
            member.write(bytes(min(1 << 20, size - at)))
    return path


def stored_bytes(home: Path) -> int:
    return sum(path.stat().st_size for path in home.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["pack/det_10g.onnx", "pack/det_500m.onnx", "vertices.npy", "ICT/FaceXModel/a.obj"])
def test_zip_bombs_are_refused_by_what_they_declare(home, tmp_path, name):
    archive = bomb(tmp_path / "pack.zip", name, 80_000_000)
    assert archive.stat().st_size < 1_000_000
    with pytest.raises(ModelError, match="none of the files"):
        models.import_file(archive)
    assert stored_bytes(home) < 1000


@pytest.mark.parametrize(("name", "size"), [("det_10g.onnx", 16_923_827), ("det_500m.onnx", 2_524_817)])
def test_a_model_packs_member_of_another_size_is_not_unpacked(tmp_path, name, size):
    """Also where the archive's own size and hash are not looked at first."""
    weight = next(weight for weight in models.all_weights().values() if weight.file.endswith(name))
    assert weight.pack is not None and weight.size == size
    for wrong in (size - 1, size + 1):
        archive = bomb(tmp_path / f"{wrong}.zip", name, wrong)
        with pytest.raises(ModelError, match=rf"{wrong} bytes instead of {size}"):
            weight.pack(archive, tmp_path / "out")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [("vertices.npy", 100 << 20, "no face model"), ("x/FaceXModel/generic_neutral_mesh.obj", 20 << 20, "are smaller")],
)
def test_a_face_models_archive_is_measured_before_it_is_unpacked(tmp_path, name, size, words):
    weight = models.find("ict-facekit")
    assert weight.pack is not None
    with pytest.raises(ModelError, match=words):
        weight.pack(bomb(tmp_path / "a.zip", name, size), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("pinned", ["size", "hash"])
def test_an_archive_that_was_pinned_is_checked_before_it_is_unpacked(packed, tmp_path, pinned):
    unpacked = []
    archive = tmp_path / "archive.zip"
    archive.write_bytes(b"x" * 1000)
    wrong = {"size": {"download_size": 999}, "hash": {"download_size": 1000, "download_sha256": "0" * 64}}[pinned]
    weight = replace(packed, pack=lambda source, target: unpacked.append(source), **wrong)
    with plugged_in(weight), pytest.raises(ModelError, match="instead of"):
        models.import_file(archive)
    assert not unpacked


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX's")
def test_pipes_and_devices_are_no_models(known, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for source in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ModelError, match="pipe or a device"):
            models.import_file(source)


def test_auto_does_not_pass_over_what_is_damaged(weight):
    """Missing weights were never asked for; damaged ones worked yesterday, and another backend would look different."""
    from exprtool.pipeline import Session

    with plugged_in(weight, quality=99):
        assert "needy" not in Session(detector="dlib").chain.names
        path = models.location(weight)
        path.parent.mkdir(parents=True)
        path.write_bytes(CONTENT)
        assert Session(detector="dlib").chain.names[0] == "needy"
        path.write_bytes(b"!" + CONTENT[1:])
        with pytest.raises(ModelError, match=r"'tiny'.*damaged.*exprtool models fetch tiny.*another backend"):
            Session(detector="dlib")
        assert Session("default", "dlib").chain.names == ["default"]


def test_no_face_is_measured_where_only_weights_for_commercial_use_are_wanted(monkeypatch):
    from exprtool.choice import load_detector
    from exprtool.pipeline import Session

    for ask in (lambda: Session("default", "dlib", commercial_only=True), lambda: load_detector(commercial_only=True)):
        with pytest.raises(models.LicenceError, match=r"shape_predictor_68.*iBUG 300-W.*--commercial-only"):
            ask()
    monkeypatch.setenv("EXPRTOOL_COMMERCIAL_ONLY", "1")
    with pytest.raises(models.LicenceError, match="shape_predictor_68"):
        Session("default", "dlib")
