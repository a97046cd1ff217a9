"""FVS as in the paper: the confidence, 0 to 100, of the Face++ compare service that two pictures show one person.

This sends the pictures to a company's server under the user's own key; it is never done unasked. The key and the
secret go into the request body only and are struck out of every message.
"""

from __future__ import annotations

import base64
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exprtool.errors import ExprtoolError, UsageError
from exprtool.measures.stats import Stat
from exprtool.types import Image

URL = "https://api-us.faceplusplus.com/facepp/v3/compare"
KEY_VARIABLE, SECRET_VARIABLE = "FACEPP_API_KEY", "FACEPP_API_SECRET"
MAX_BYTES = 2 * 1024 * 1024  # per picture, as the service allows
MIN_SIDE = 48

_BUSY = ("CONCURRENCY_LIMIT_EXCEEDED", "INTERNAL_ERROR", "RATE_LIMIT")
_REMEDIES = {
    "AUTHENTICATION_ERROR": f"check {KEY_VARIABLE} and {SECRET_VARIABLE}",
    "AUTHORIZATION_ERROR": "the key is not allowed to use the compare service: see the console of your Face++ account",
    "INSUFFICIENT_BALANCE": "the account has no balance left",
    "COEXISTENCE_ARGUMENTS": "the service refused the request's arguments",
}


class FaceServiceError(ExprtoolError):
    """The Face++ service refused or could not be reached."""


@dataclass
class FacePlusPlus:
    """A client of the compare service.

    ``per_second`` bounds the rate of requests (free keys allow one). A busy service and broken connections are tried
    again up to ``attempts`` times, waiting twice as long each time, or as long as the service says.
    """

    key: str = field(repr=False)
    secret: str = field(repr=False)
    url: str = URL
    per_second: float = 1.0
    attempts: int = 6
    timeout: float = 30.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    _next: float = field(default=0.0, init=False, repr=False)

    @classmethod
    def from_environment(
        cls, key: str | None = None, secret: str | None = None, url: str | None = None
    ) -> FacePlusPlus:
        """With the given key and secret, else those of the environment; raises `UsageError` where one is missing."""
        key = key or os.environ.get(KEY_VARIABLE)
        secret = secret or os.environ.get(SECRET_VARIABLE)
        if not key or not secret:
            raise UsageError(
                f"FVS needs a Face++ account: set {KEY_VARIABLE} and {SECRET_VARIABLE}. The pictures are sent to that "
                "service. Without one, use the local verification score, which is always measured."
            )
        url = url or URL
        if not url.startswith(("https://", "http://")):
            raise UsageError(f"The address of the Face++ service must start with https://, not {url!r}.")
        return cls(key, secret, url)

    def compare(self, a: Image, b: Image) -> float | None:
        """The confidence in [0, 100] that two RGB pictures show one person; None where it sees no face in one.

        Raises `FaceServiceError` when the service refuses, or still cannot be reached after all attempts.
        """
        answer = self._post({"image_base64_1": _encode(a), "image_base64_2": _encode(b)})
        if "confidence" in answer:
            try:
                confidence = float(answer["confidence"])
            except (TypeError, ValueError):
                confidence = float("nan")
            if not 0 <= confidence <= 100:
                raise FaceServiceError(f"Face++ answered with confidence {answer['confidence']!r}; expected 0 to 100.")
            return confidence
        if "faces1" in answer and "faces2" in answer:
            return None
        raise FaceServiceError("Face++ answered neither with a confidence nor with faces. Try again later.")

    def _post(self, values: Mapping[str, str]) -> dict[str, Any]:
        body = urllib.parse.urlencode({"api_key": self.key, "api_secret": self.secret, **values}).encode()
        request = urllib.request.Request(self.url, data=body, method="POST")
        problem = ""
        for attempt in range(self.attempts):
            self._keep_pace()
            pause = min(60.0, 2.0**attempt)
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    return self._read(response.read())
            except urllib.error.HTTPError as error:
                problem = self._message(error)
                if not (error.code in (429, 500, 502, 503, 504) or any(word in problem for word in _BUSY)):
                    raise FaceServiceError(self._refusal(error.code, problem)) from None
                pause = _retry_after(error) or pause
            except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
                problem = str(getattr(error, "reason", error))
            if attempt + 1 < self.attempts:
                self.sleep(pause)
        raise FaceServiceError(
            self._hide(
                f"Face++ at {self.url} did not answer after {self.attempts} attempts: {problem}. Try again later."
            )
        )

    def _read(self, data: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(data)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise FaceServiceError(f"{self.url} did not answer as Face++ does. Check the address.")
        if "error_message" in answer:
            raise FaceServiceError(self._refusal(200, str(answer["error_message"])))
        return answer

    def _message(self, error: urllib.error.HTTPError) -> str:
        try:
            answer = json.loads(error.read())
            return str(answer["error_message"])
        except (ValueError, KeyError, TypeError, OSError):
            return f"HTTP {error.code}"

    def _refusal(self, code: int, message: str) -> str:
        remedy = next((text for word, text in _REMEDIES.items() if word in message), "see the service's list of errors")
        return self._hide(f"Face++ refused the request (HTTP {code}, {message}): {remedy}.")

    def _hide(self, text: str) -> str:
        return text.replace(self.key, "***").replace(self.secret, "***")

    def _keep_pace(self) -> None:
        now = self.clock()
        if now < self._next:
            self.sleep(self._next - now)
            now = self._next
        self._next = now + 1 / self.per_second


def face_verification_score(
    client: FacePlusPlus,
    inputs: Sequence[Image] | NDArray[np.uint8],
    outputs: Sequence[Image] | NDArray[np.uint8],
) -> Stat:
    """FVS (section 3.6): mean and spread over pairs; a pair where the service sees no face counts as missing."""
    values = [client.compare(a, b) for a, b in zip(inputs, outputs, strict=True)]
    return Stat.of(float("nan") if value is None else value for value in values)


def _encode(image: Image) -> str:
    """As PNG, so that no compression is measured, or as JPEG where that is too large; small crops are enlarged."""
    import io

    from PIL import Image as Pillow

    picture = Pillow.fromarray(np.ascontiguousarray(image))
    if min(picture.size) < MIN_SIDE:
        factor = -(-MIN_SIDE // min(picture.size))
        picture = picture.resize((picture.width * factor, picture.height * factor), Pillow.Resampling.BICUBIC)
    for kind, options in (("PNG", {}), ("JPEG", {"quality": 95, "subsampling": 0})):
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        if buffer.tell() <= MAX_BYTES:
            break
    else:
        picture.thumbnail((1024, 1024), Pillow.Resampling.LANCZOS)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=92)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _retry_after(error: urllib.error.HTTPError) -> float | None:
    try:
        return min(60.0, max(0.0, float(error.headers.get("Retry-After", ""))))
    except ValueError:
        return None
