"""The server: many raters at once, nothing lost, nobody let in who was not asked."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from exprtool.errors import DataError, UsageError
from exprtool.study.serve import StudyServer, check_answers


def answers(study, token: int, name: str = "Ann", revision: int = 1, upto: int | None = None) -> dict:
    """Every question of every trial, the first option each."""
    every = [
        {"trial": trial["id"], "question": question["id"], "option": trial["options"][0]["id"], "position": 1}
        for trial in study.made.for_page()["trials"]
        for question in study.made.for_page()["questions"]
    ]
    return {
        "format": "exprtool-study-answers/1", "study": study.key["study"], "token": f"{token:032x}", "name": name,
        "revision": revision, "finished": True, "answers": every[:upto],
    }  # fmt: skip


@pytest.fixture
def served(study, tmp_path) -> Iterator[SimpleNamespace]:
    with StudyServer(study.page, tmp_path / "answers", port=0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield SimpleNamespace(server=server, out=tmp_path / "answers", port=server.server_address[1])
        server.shutdown()
        thread.join()


def ask(port: int, body: object = None, path: str = "/answers", **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    if body is None:
        connection.request("GET", path, headers=headers)
    else:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", path, data, {"Content-Type": "application/json", **headers})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def test_many_raters_at_once_and_two_of_one_name_stay_two(served, study):
    with ThreadPoolExecutor(32) as pool:
        sent = list(pool.map(lambda n: ask(served.port, answers(study, n, "Ann")), range(64)))
    assert {status for status, _ in sent} == {200}
    kept = [json.loads(path.read_text()) for path in served.out.glob("*.json")]
    assert len(kept) == 64 and {each["name"] for each in kept} == {"Ann"}
    assert all(len(each["answers"]) == 60 for each in kept)
    assert {path.suffix for path in served.out.iterdir()} == {".json"}, "nothing half-written is left"


def test_answers_that_grow_replace_their_own_file_and_late_ones_do_not(served, study):
    assert ask(served.port, answers(study, 7, revision=4, upto=9))[0] == 200
    assert ask(served.port, answers(study, 7, revision=9))[0] == 200
    assert ask(served.port, answers(study, 7, revision=5, upto=10))[0] == 200  # overtaken on its way
    (path,) = served.out.iterdir()
    assert len(json.loads(path.read_text())["answers"]) == 60


def test_the_page_is_served_whole_and_nothing_else(served, study):
    assert ask(served.port, path="/") == (200, study.page.read_text("utf-8"))
    for path in ("/study.key.json", "/../study.key.json", "/answers", "/%2e%2e/etc/passwd"):
        assert ask(served.port, path=path)[0] == 404


def test_who_and_what_is_refused(served, study):
    good = answers(study, 1)
    port = served.port
    assert ask(port, good, Host="evil.example")[0] == 421, "DNS rebinding"
    assert ask(port, path="/", Host="192.168.1.5:80")[0] == 421, (
        "an address of the network, though it listens here only"
    )
    assert ask(port, good, Origin="http://evil.example")[0] == 403
    assert ask(port, good, path="/other")[0] == 404
    assert ask(port, good, **{"Content-Type": "text/plain"})[0] == 415
    assert ask(port, b"{", Origin=f"http://127.0.0.1:{port}")[0] == 400
    assert ask(port, b"[" * 100_000)[0] == 400
    assert ask(port, {**good, "study": "another"})[0] == 400
    assert ask(port, b"{}", **{"Content-Length": str((1 << 20) + 1)})[0] == 413
    assert ask(port, b"{}", **{"Content-Length": "x"})[0] == 411
    assert list(served.out.iterdir()) == []
    assert ask(port, good, Origin=f"http://127.0.0.1:{port}")[0] == 200


def test_a_limit_of_raters_keeps_those_who_are_in(study, tmp_path):
    with StudyServer(study.page, tmp_path, port=0, max_raters=2) as server:
        known = check_answers(answers(study, 1), server.study)
        server.keep(known)
        server.keep(check_answers(answers(study, 2), server.study))
        with pytest.raises(DataError, match="no more than 2"):
            server.keep(check_answers(answers(study, 3), server.study))
        server.keep({**known, "revision": 2})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"token": "../../etc/passwd"}, "number is missing"),
        ({"token": "A" * 32}, "number is missing"),
        ({"name": ""}, "name is missing"),
        ({"name": "x" * 81}, "too long"),
        ({"revision": True}, "revision"),
        ({"answers": "all"}, "cannot be read"),
        ({"answers": [{"trial": "t", "question": "realism", "option": "o"}]}, "does not ask"),
        ({"answers": [{"trial": ["t"], "question": {}, "option": 3}]}, "does not ask"),
    ],
)
def test_answers_are_checked(study, change, says):
    from exprtool.study.page import read_page

    known = read_page(study.page)[1]
    with pytest.raises(DataError, match=says):
        check_answers({**answers(study, 1), **change}, known)
    twice = answers(study, 1)
    twice["answers"].append(twice["answers"][0])
    with pytest.raises(DataError, match="answered twice"):
        check_answers(twice, known)
    kept = check_answers({**answers(study, 1), "name": "A\x1b[31mn", "more": 1}, known)
    assert kept["name"] == "A [31mn" and "more" not in kept


def test_what_was_confirmed_survives_a_kill(study, tmp_path):
    """SIGKILL while raters send: every answer that was confirmed is on disk, whole."""
    script = "from exprtool.cli.main import run; import sys; sys.argv = ['exprtool', *sys.argv[1:]]; run()"
    out = tmp_path / "answers"
    process = subprocess.Popen(
        [sys.executable, "-c", script, "study", "serve", str(study.page), "-o", str(out), "--port", "0", "--quiet"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    port = int(process.stdout.readline().rstrip("/\n").rpartition(":")[2])
    confirmed: list[int] = []
    enough = threading.Event()

    def send(n: int) -> None:
        try:
            if ask(port, answers(study, n))[0] == 200:
                confirmed.append(n)
        except OSError:
            pass
        if len(confirmed) >= 25:
            enough.set()

    with ThreadPoolExecutor(8) as pool:
        for n in range(400):
            pool.submit(send, n)
        assert enough.wait(30)
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    for n in confirmed:
        assert len(json.loads((out / f"{n:032x}.json").read_text())["answers"]) == 60
    for path in out.glob("*.json"):
        json.loads(path.read_text())


def test_a_taken_port_is_told(study, served, tmp_path):
    with pytest.raises(UsageError, match="--port"):
        StudyServer(study.page, tmp_path, port=served.port)


def test_other_machines_come_in_only_when_told(study, tmp_path):
    with StudyServer(study.page, tmp_path, port=0) as server:
        assert server.server_address[0] == "127.0.0.1" and not server.welcomes("10.0.0.7:8000")
    with StudyServer(study.page, tmp_path, host="0.0.0.0", port=0, names=["study.lan"]) as server:
        assert server.welcomes("10.0.0.7:8000") and server.welcomes("STUDY.lan") and server.welcomes("[::1]:80")
        assert not server.welcomes("evil.example") and not server.welcomes("")
        assert server.address.startswith("http://127.0.0.1:")
