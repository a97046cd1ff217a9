"""A small server that hands out a study's page and collects the answers of many raters at once.

Each rater's answers lie in a file of their own, named by a random number that the rater's browser drew, so that two
raters of one name stay two. A file is on disk, whole, before the browser is told that its answers have arrived: a
server that is killed loses nothing that it has confirmed.

It speaks to this machine alone unless told otherwise, and to nobody who reaches it under a stranger's name: a page from
elsewhere could else make a rater's browser talk to it (DNS rebinding).
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from exprtool.errors import DataError, ExprtoolError, UsageError
from exprtool.files import write_bytes
from exprtool.study.design import ANSWERS_FORMAT
from exprtool.study.page import read_page

LIMIT = 1 << 20  # bytes of one rater's answers; a study of 100 faces takes about 60 kB
MAX_RATERS = 10_000
IDLE_S = 20.0  # after which a connection that says nothing is closed
MAX_CONNECTIONS = 200
_NAME_LETTERS = 80
_TOKEN = re.compile(r"[0-9a-f]{32}\Z")
_LOCAL = ("localhost", "127.0.0.1", "::1")


class StudyServer(ThreadingHTTPServer):
    """Serves one study. ``heard`` is told of every rater's file that was written: (name, answers, answers in all)."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        page: Path,
        out: Path,
        host: str = "127.0.0.1",
        port: int = 8000,
        *,
        names: Iterable[str] = (),
        limit: int = LIMIT,
        max_raters: int = MAX_RATERS,
        heard: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self.text, self.study = read_page(page)
        self.out, self.limit, self.max_raters = out, limit, max_raters
        self.names = {*_LOCAL, host.lower(), *(name.lower() for name in names)}
        self.asked = len(self.study["trials"]) * len(self.study["questions"])
        self._heard = heard
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._guard = threading.Lock()
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        out.mkdir(parents=True, exist_ok=True)
        self._known = {path.stem for path in out.glob("*.json")}
        if ":" in host:
            import socket

            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise UsageError(
                f"Cannot listen on {host}, port {port}: {error.strerror}. Choose another --port."
            ) from error

    @property
    def address(self) -> str:
        """Where a browser on this machine finds the study."""
        host, port = self.server_address[0], self.server_address[1]
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(str(host), f"[{host}]" if ":" in str(host) else host)
        return f"http://{shown}:{port}/"

    def process_request(self, request: Any, client_address: Any) -> None:
        """As the base class, but no more than `MAX_CONNECTIONS` threads at once; further ones wait in the queue."""
        self._places.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A rater who goes away in mid-sentence is no event."""

    def welcomes(self, host: str) -> bool:
        """Whether a request's Host header names this server: one of ``names``, or an address where others may come."""
        name = (urlsplit(f"//{host}").hostname or "").lower()
        if name in self.names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return not ipaddress.ip_address(str(self.server_address[0])).is_loopback  # an address cannot be rebound

    def keep(self, answers: Mapping[str, Any]) -> None:
        """Store checked answers unless newer ones of this rater are there; they are on disk when this returns."""
        token = answers["token"]
        with self._guard:
            if token not in self._known and len(self._known) >= self.max_raters:
                raise DataError(f"This study takes no more than {self.max_raters} raters.")
            self._known.add(token)
            lock = self._locks[token]
        with lock:
            path = self.out / f"{token}.json"
            if _revision(path) > answers["revision"]:
                return  # an earlier message that was overtaken on its way
            write_bytes(path, json.dumps(answers, ensure_ascii=False, indent=1).encode())
        if self._heard:
            self._heard(answers["name"], len(answers["answers"]), self.asked)


def check_answers(sent: Any, study: Mapping[str, Any]) -> dict[str, Any]:
    """What a page sent, reduced to what is known and of the right kind; raises `DataError` for anything else."""
    if not isinstance(sent, dict) or sent.get("format") != ANSWERS_FORMAT:
        raise DataError("These are no answers to a study.")
    if sent.get("study") != study["id"]:
        raise DataError("These answers belong to another study. Reload the page.")
    token, name, revision = sent.get("token"), sent.get("name"), sent.get("revision")
    if not (isinstance(token, str) and _TOKEN.match(token)):
        raise DataError("The rater's number is missing.")
    if not (isinstance(name, str) and 0 < len(name) <= _NAME_LETTERS):
        raise DataError("The rater's name is missing or too long.")
    if not isinstance(revision, int) or isinstance(revision, bool) or not 0 <= revision < 2**53:
        raise DataError("The revision is no number.")
    answers: dict[tuple[str, str], dict[str, Any]] = {}
    given = sent.get("answers")
    for answer in given if isinstance(given, list) else [None]:
        if not isinstance(answer, dict):
            raise DataError("An answer cannot be read.")
        trial, question, option = (str(answer.get(field)) for field in ("trial", "question", "option"))
        if trial not in study["trials"] or question not in study["questions"] or option not in study["trials"][trial]:
            raise DataError("An answer is to a question that this study does not ask.")
        if (trial, question) in answers:
            raise DataError("A question is answered twice.")
        kept: dict[str, Any] = {"trial": trial, "question": question, "option": option}
        for field, kinds in (("position", int), ("seconds", (int, float)), ("at", str)):
            value = answer.get(field)
            if isinstance(value, kinds) and not isinstance(value, bool) and len(str(value)) <= 40:
                kept[field] = value
        answers[trial, question] = kept
    return {
        "format": ANSWERS_FORMAT,
        "study": study["id"],
        "token": token,
        "name": "".join(letter if letter.isprintable() else " " for letter in name).strip() or "nameless",
        "revision": revision,
        "finished": sent.get("finished") is True,
        "answers": list(answers.values()),
    }


def _revision(path: Path) -> int:
    try:
        return int(json.loads(path.read_text("utf-8"))["revision"])
    except (OSError, ValueError, KeyError, TypeError):
        return -1


class _Handler(BaseHTTPRequestHandler):
    """GET / the page, POST /answers a rater's answers, nothing else."""

    server: StudyServer  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "exprtool", ""
    timeout = IDLE_S

    def do_GET(self) -> None:
        if not self._welcome():
            return
        if urlsplit(self.path).path not in ("/", "/index.html"):
            self._answer(HTTPStatus.NOT_FOUND, "There is nothing here but the study itself, at /.")
            return
        self._answer(HTTPStatus.OK, self.server.text, "text/html; charset=utf-8")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        try:
            length = int(self.headers.get("Content-Length", "-1"))
        except ValueError:
            length = -1
        if not self._welcome():
            return
        origin = self.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != self.headers.get("Host"):
            self._refuse(HTTPStatus.FORBIDDEN, "Answers are taken from this study's own page only.")
        elif urlsplit(self.path).path != "/answers":
            self._refuse(HTTPStatus.NOT_FOUND, "Answers belong to /answers.")
        elif self.headers.get_content_type() != "application/json":
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Answers are JSON.")
        elif length < 0:
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "How long the answers are must be said first.")
        elif length > self.server.limit:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"Answers take {self.server.limit} bytes at most.")
        else:
            self._take(self.rfile.read(length))

    def _take(self, body: bytes) -> None:
        try:
            answers = check_answers(json.loads(body), self.server.study)
        except (DataError, ValueError, RecursionError) as error:
            told = str(error) if isinstance(error, DataError) else "The answers are not JSON."
            self._answer(HTTPStatus.BAD_REQUEST, told)
            return
        try:
            self.server.keep(answers)
        except DataError as error:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        except ExprtoolError:  # the folder's path is none of the rater's business
            self._answer(HTTPStatus.INSUFFICIENT_STORAGE, "The answers could not be stored. Try again later.")
        else:
            self._answer(HTTPStatus.OK, json.dumps({"kept": len(answers["answers"])}), "application/json")

    def _welcome(self) -> bool:
        if self.server.welcomes(self.headers.get("Host", "")):
            return True
        self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "This server does not go by that name (see --name).")
        return False

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        """As `_answer`, and hang up: what the body holds was not read."""
        self.close_connection = True
        self._answer(status, text)

    def _answer(self, status: HTTPStatus, text: str, kind: str = "text/plain; charset=utf-8") -> None:
        body = text.encode("utf-8")
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Referrer-Policy", "no-referrer"),
        ):
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(ConnectionError, TimeoutError):
                self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what matters is told through ``heard``."""
