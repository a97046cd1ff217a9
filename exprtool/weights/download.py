"""Downloads that go on where they stopped and never leave a half file under a final name.

A download grows in ``<target>.part``. Beside it, ``<target>.part.json`` remembers what the server said the file was
(ETag or date), so that a later run asks for the rest of the same thing (RFC 9110, sections 13.1.5 and 14.2: If-Range,
Range) and starts anew when the file behind the address has changed. What arrives is only trusted once the caller has
checked it.
"""

from __future__ import annotations

import json
import os
import queue
import re
import stat
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from exprtool.documents import parse_json
from exprtool.files import read_regular, write_bytes

if TYPE_CHECKING:
    import requests

Progress = Callable[[str, int, int], None]
"""Called as (stage, bytes done, bytes in all or 0 where that is not known); stages are "waiting", "downloading",
"checking" and "packing"."""

CHUNK = 1 << 15  # what a broken connection may cost
MOST = 4 << 30  # bytes of a file whose size nobody told; a server must not fill the disk
_MOST_OF_A_MEMORY = 100_000
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)\Z")
_WHOLE_SIZE = re.compile(r"bytes \*/(\d+)\Z")


@dataclass(frozen=True)
class Patience:
    """How long to wait for servers: seconds to connect, seconds without a byte, tries in a row that bring next to
    nothing, seconds from a request to the end of the answer's head, fewest bytes per second over ``window`` seconds,
    and seconds for all tries at one address."""

    connect: float = 10.0
    silence: float = 30.0
    tries: int = 3
    pause: float = 1.0
    answer: float = 60.0
    least_speed: float = 2_000.0
    window: float = 30.0
    total: float = 4 * 3600.0


PATIENCE = Patience()


class DownloadError(Exception):
    """One address that did not yield the file; the message says why, without the address."""

    def __init__(self, *reasons: str, final: bool = False) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons
        self.final = final
        """Trying the same address again would not help (404, wrong size, no space)."""


@dataclass(frozen=True)
class _Partial:
    """The beginning of a file from an earlier try."""

    path: Path

    @property
    def memory(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    @property
    def size(self) -> int:
        try:
            return self.path.stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            return 0

    def validator(self, url: str) -> str | None:
        """What `url` called the file when the beginning was fetched, for If-Range; None if that is not known."""
        try:
            known = parse_json(read_regular(self.memory, _MOST_OF_A_MEMORY))
        except (OSError, ValueError):
            return None
        return known.get("validator") if isinstance(known, dict) and known.get("url") == url else None

    def remember(self, url: str, validator: str | None) -> None:
        write_bytes(self.memory, json.dumps({"url": url, "validator": validator}).encode())

    def open(self, *, keep: bool) -> BinaryIO:
        """Open the beginning to append to it, or a new file; raises `DownloadError` for what others put there.

        Its name can be foreseen, because a later run has to find it: a link of that name, or a second name of
        somebody's file, must not be written into.
        """
        if not keep:
            self.path.unlink(missing_ok=True)  # a name alone: what it may have led to stays
        flags = os.O_WRONLY | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        try:
            descriptor = os.open(self.path, flags | (0 if keep else os.O_CREAT | os.O_EXCL), 0o666)
        except OSError as error:
            raise DownloadError(f"{self.path} cannot be written: {error.strerror or error}", final=True) from error
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            os.close(descriptor)
            raise DownloadError(f"{self.path} is not a file of its own; delete it", final=True)
        return os.fdopen(descriptor, "ab")

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)
        self.memory.unlink(missing_ok=True)


def partial_path(target: Path) -> Path:
    """Where the beginning of an unfinished download of ``target`` lies."""
    return target.with_name(target.name + ".part")


def drop_partial(target: Path) -> None:
    """Forget an unfinished download of ``target``."""
    _Partial(partial_path(target)).drop()


def download(
    urls: Sequence[str],
    target: Path,
    size: int | None,
    accept: Callable[[Path], None],
    *,
    progress: Progress | None = None,
    patience: Patience = PATIENCE,
) -> None:
    """Fetch a file from the first of ``urls`` that has it; ``accept`` then takes the finished part file.

    ``size`` is its size in bytes, None where that is not known beforehand (archives that servers make on demand).
    ``accept`` receives the path of the part file, checks it and moves it to where it belongs; it raises
    `DownloadError` for contents that are wrong. Contents that were put together from several tries are fetched once
    more from the start before an address is given up. Raises `DownloadError` with one line per address; what had
    arrived is then kept for the next call.
    """
    partial = _Partial(partial_path(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    reasons: list[str] = []
    for url in urls:
        try:
            resumed = _complete(url, partial, size, progress, patience)
            try:
                accept(partial.path)
            except DownloadError:
                partial.drop()
                if not resumed:
                    raise
                _complete(url, partial, size, progress, patience)
                accept(partial.path)
            partial.drop()
            return
        except DownloadError as error:
            reasons.append(f"{url}: {error}")
    raise DownloadError(*(reasons or ["no address is known for it"]), final=True)


def _complete(url: str, partial: _Partial, size: int | None, progress: Progress | None, patience: Patience) -> bool:
    """Bring the part file to its end; tells whether it was put together from several answers."""
    import requests

    if size is not None and partial.size > size:
        partial.drop()
    resumed = partial.size > 0
    finished = partial.size == size
    fruitless = 0
    deadline = time.monotonic() + patience.total
    with requests.Session() as session:
        while not finished:
            before = partial.size
            try:
                went_on = _receive(session, url, partial, size, progress, patience, deadline)
                return resumed and went_on
            except (requests.RequestException, DownloadError) as error:
                reason = error if isinstance(error, DownloadError) else DownloadError(_plain_reason(error))
                # A byte for each try would be another way never to come to an end.
                fruitless = 0 if partial.size - before >= CHUNK else fruitless + 1
                resumed = partial.size > 0
                if reason.final or fruitless >= patience.tries:
                    raise reason from error
                time.sleep(patience.pause * 2**fruitless)
    return resumed


def _receive(
    session: requests.Session,
    url: str,
    partial: _Partial,
    size: int | None,
    progress: Progress | None,
    patience: Patience,
    deadline: float,
) -> bool:
    """One request; appends all that is missing. Tells whether the server went on after the bytes that were there."""
    start = partial.size
    # identity: the sizes and ranges that we count must be those of the file itself
    headers = {"Accept-Encoding": "identity", "User-Agent": "exprtool"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator := partial.validator(url):
            headers["If-Range"] = validator
    with _ask(session, url, headers, patience) as answer:
        if answer.status_code == 416:
            if size is None and _number(_WHOLE_SIZE, answer) == start:
                return True  # the part was the whole file, and only the end of the answer had not come
            partial.drop()
            raise DownloadError("the server does not have the bytes that are missing")
        if answer.status_code not in (200, 206):
            transient = answer.status_code in (408, 425, 429) or answer.status_code >= 500
            raise DownloadError(f"HTTP {answer.status_code} {answer.reason}".rstrip(), final=not transient)
        if answer.status_code == 206 and (not start or _number(_CONTENT_RANGE, answer) != start):
            partial.drop()
            raise DownloadError("the server sent another part than the one asked for")
        goes_on = answer.status_code == 206
        start = start if goes_on else 0
        length = _length(answer)
        announced = None if length is None else start + length
        if size is not None and announced not in (None, size):
            raise DownloadError(f"it has {announced} bytes there instead of {size}", final=True)
        partial.remember(url, _validator(answer))
        done = _append(answer, partial, start, size or announced, progress, _Pace(patience, deadline))
    if done < (size or announced or 0):
        raise DownloadError(f"the connection ended after {done} of {size or announced} bytes")
    return goes_on


def _ask(session: requests.Session, url: str, headers: Mapping[str, str], patience: Patience) -> requests.Response:
    """Send the request and wait for the head of the answer, for so long in all.

    requests knows a time limit between two bytes only, and a server can drip its head; so another thread waits for it.
    """
    answers: queue.SimpleQueue[requests.Response | Exception] = queue.SimpleQueue()

    def wait() -> None:
        try:
            answers.put(session.get(url, headers=headers, stream=True, timeout=(patience.connect, patience.silence)))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=wait, name="await-answer", daemon=True).start()
    try:
        answer = answers.get(timeout=patience.connect + patience.answer)
    except queue.Empty:
        raise DownloadError(
            f"the server did not answer in {patience.connect + patience.answer:.0f} s", final=True
        ) from None
    if isinstance(answer, Exception):
        raise answer
    return answer


class _Pace:
    """Watches that bytes come fast enough."""

    def __init__(self, patience: Patience, deadline: float) -> None:
        self._patience, self._deadline = patience, deadline
        self._since, self._bytes = time.monotonic(), 0

    def got(self, count: int) -> None:
        """Count bytes in; raises `DownloadError` where they come too slowly or take too long."""
        now = time.monotonic()
        self._bytes += count
        if now > self._deadline:
            hours = self._patience.total / 3600
            raise DownloadError(f"it takes longer than {hours:.3g} hours; run it again to go on", final=True)
        if (seconds := now - self._since) >= self._patience.window:
            if self._bytes < self._patience.least_speed * seconds:
                raise DownloadError(f"the server sends {self._bytes / seconds:.0f} bytes a second only", final=True)
            self._since, self._bytes = now, 0


def _append(
    answer: requests.Response, partial: _Partial, start: int, size: int | None, progress: Progress | None, pace: _Pace
) -> int:
    """Write an answer's bytes to the part file from ``start`` on; returns where they end."""
    from urllib3.exceptions import HTTPError

    done, most = start, MOST if size is None else size
    with partial.open(keep=start > 0) as file:
        try:
            # read1: what is there, where `iter_content` would wait until a whole chunk has dripped in
            while chunk := answer.raw.read1(CHUNK):
                done += len(chunk)
                if done > most:
                    file.close()
                    partial.drop()
                    raise DownloadError(f"it is larger than the {most} bytes that it may have", final=True)
                file.write(chunk)
                pace.got(len(chunk))
                if progress:
                    progress("downloading", done, size or 0)
        except HTTPError as error:
            raise DownloadError(_plain_reason(error)) from error
        except OSError as error:
            if isinstance(error, _request_error()):
                raise
            raise DownloadError(f"writing {partial.path} failed: {error.strerror or error}", final=True) from error
        finally:
            if not file.closed:
                file.flush()
                os.fsync(file.fileno())
    return done


def _request_error() -> type[Exception]:
    import requests  # its errors are OSErrors too, and must not be taken for a full disk

    return requests.RequestException


def _number(pattern: re.Pattern[str], answer: requests.Response) -> int | None:
    """What a pattern finds in the answer's Content-Range."""
    match = pattern.match(answer.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _length(answer: requests.Response) -> int | None:
    text = answer.headers.get("Content-Length", "")
    return int(text) if text.isdigit() and "Content-Encoding" not in answer.headers else None


def _validator(answer: requests.Response) -> str | None:
    """A strong ETag, else the date; a weak ETag may not be used in If-Range (RFC 9110, 13.1.5)."""
    etag = answer.headers.get("ETag", "")
    return etag if etag.startswith('"') else answer.headers.get("Last-Modified")


def _plain_reason(error: Any) -> str:
    """The reason of a requests error in a few words: their own messages carry object addresses and nesting."""
    import requests
    from urllib3.exceptions import ProtocolError

    if isinstance(error, requests.exceptions.ConnectTimeout):
        return "the server could not be reached in time"
    # requests wraps a timeout in the middle of an answer into a ConnectionError
    if isinstance(error, requests.exceptions.Timeout) or "timed out" in str(error):
        return "the server fell silent"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate could not be checked"
    broken = (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError, ProtocolError)
    if isinstance(error, broken):
        return "the connection broke off"
    if isinstance(error, requests.exceptions.ConnectionError):
        text = str(error)
        if "resolve" in text or "Name or service" in text or "getaddrinfo" in text:
            return f"the name {urlsplit(error.request.url).hostname if error.request else 'of the server'} is not found"
        return "no connection"
    return f"{type(error).__name__}: {error}"
