"""Downloads that go on where they stopped and never leave a half file under a final name.

A download grows in ``<target>.part``. Beside it, ``<target>.part.json`` remembers what the server said the file was
(ETag or date), so that a later run asks for the rest of the same thing (RFC 9110, sections 13.1.5 and 14.2: If-Range,
Range) and starts anew when the file behind the address has changed. What arrives is only trusted once the caller has
checked it.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from exprtool.documents import parse_json
from exprtool.files import read_regular

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
    """How long to wait for servers: seconds to connect, seconds without a byte, tries in a row that bring nothing."""

    connect: float = 10.0
    silence: float = 30.0
    tries: int = 3
    pause: float = 1.0


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
            return self.path.stat().st_size
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
        self.memory.write_text(json.dumps({"url": url, "validator": validator}), "utf-8")

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
    with requests.Session() as session:
        while not finished:
            before = partial.size
            try:
                went_on = _receive(session, url, partial, size, progress, patience)
                return resumed and went_on
            except (requests.RequestException, DownloadError) as error:
                reason = error if isinstance(error, DownloadError) else DownloadError(_plain_reason(error))
                fruitless = 0 if partial.size > before else fruitless + 1
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
) -> bool:
    """One request; appends all that is missing. Tells whether the server went on after the bytes that were there."""
    start = partial.size
    # identity: the sizes and ranges that we count must be those of the file itself
    headers = {"Accept-Encoding": "identity", "User-Agent": "exprtool"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator := partial.validator(url):
            headers["If-Range"] = validator
    timeout = (patience.connect, patience.silence)
    with session.get(url, headers=headers, stream=True, timeout=timeout) as answer:
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
        done = _append(answer, partial, start, size or announced, progress)
    if done < (size or announced or 0):
        raise DownloadError(f"the connection ended after {done} of {size or announced} bytes")
    return goes_on


def _append(
    answer: requests.Response, partial: _Partial, start: int, size: int | None, progress: Progress | None
) -> int:
    """Write an answer's bytes to the part file from ``start`` on; returns where they end."""
    done, most = start, MOST if size is None else size
    with partial.path.open("ab" if start else "wb") as file:
        try:
            for chunk in answer.iter_content(CHUNK):
                done += len(chunk)
                if done > most:
                    file.close()
                    partial.drop()
                    raise DownloadError(f"it is larger than the {most} bytes that it may have", final=True)
                file.write(chunk)
                if progress:
                    progress("downloading", done, size or 0)
        except OSError as error:
            if isinstance(error, _request_error()):
                raise
            raise DownloadError(f"writing {partial.path} failed: {error.strerror or error}", final=True) from error
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

    if isinstance(error, requests.exceptions.ConnectTimeout):
        return "the server could not be reached in time"
    # requests wraps a timeout in the middle of an answer into a ConnectionError
    if isinstance(error, requests.exceptions.Timeout) or "Read timed out" in str(error):
        return "the server fell silent"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate could not be checked"
    if isinstance(error, requests.exceptions.ChunkedEncodingError | requests.exceptions.ContentDecodingError):
        return "the connection broke off"
    if isinstance(error, requests.exceptions.ConnectionError):
        text = str(error)
        if "resolve" in text or "Name or service" in text or "getaddrinfo" in text:
            return f"the name {urlsplit(error.request.url).hostname if error.request else 'of the server'} is not found"
        return "no connection"
    return f"{type(error).__name__}: {error}"
