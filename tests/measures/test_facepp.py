"""FVS against a server of our own that speaks as Face++ does: what is sent, what is retried, what is never shown."""

from __future__ import annotations

import base64
import io
import json
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from exprtool.errors import UsageError
from exprtool.measures.facepp import FacePlusPlus, FaceServiceError, face_verification_score

KEY, SECRET = "k3y-0f-the-user", "s3cret-of-the-user"


class Service:
    """Answers from a list of (status, body, headers) and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any, dict[str, str]]] = []
        self.requests: list[dict[str, str]] = []
        self.paths: list[str] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                service.requests.append({k: v[0] for k, v in urllib.parse.parse_qs(body).items()})
                service.paths.append(self.path)
                status, answer, headers = service.answers.pop(0)
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/facepp/v3/compare"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def say(self, answer: Any, status: int = 200, **headers: str) -> None:
        self.answers.append((status, answer, {name.replace("_", "-"): value for name, value in headers.items()}))


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.server.shutdown()
    service.server.server_close()


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleeps: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


def client(service: Service, clock: Clock, **options: Any) -> FacePlusPlus:
    return FacePlusPlus(KEY, SECRET, service.url, sleep=clock.sleep, clock=lambda: clock.now, **options)


def picture(value: int, side: int = 64) -> np.ndarray:
    image = np.full((side, side, 3), value, dtype=np.uint8)
    image[: side // 2, :, 0] = 255
    return image


def answer(confidence: float) -> dict[str, Any]:
    return {"confidence": confidence, "faces1": [{}], "faces2": [{}], "request_id": "x"}


def test_both_pictures_are_sent_unchanged_and_the_confidence_comes_back(service: Service) -> None:
    service.say(answer(94.19))
    a, b = picture(10), picture(200)
    assert client(service, Clock()).compare(a, b) == 94.19
    (request,) = service.requests
    assert (request["api_key"], request["api_secret"]) == (KEY, SECRET)
    sent = [np.asarray(Pillow.open(io.BytesIO(base64.b64decode(request[f"image_base64_{i}"])))) for i in (1, 2)]
    assert np.array_equal(sent[0], a) and np.array_equal(sent[1], b)
    assert KEY not in service.paths[0] and SECRET not in service.paths[0], "keys do not belong into addresses"


def test_small_crops_are_enlarged_as_the_service_wants(service: Service) -> None:
    service.say(answer(50))
    client(service, Clock()).compare(picture(1, 32), picture(2, 32))
    sent = Pillow.open(io.BytesIO(base64.b64decode(service.requests[0]["image_base64_1"])))
    assert min(sent.size) >= 48


def test_mean_and_spread_over_pairs_without_those_that_show_no_face(service: Service) -> None:
    service.say(answer(90))
    service.say({"faces1": [], "faces2": [{}]})
    service.say(answer(80))
    fvs = face_verification_score(client(service, Clock()), [picture(1)] * 3, [picture(2)] * 3)
    assert (fvs.mean, fvs.count, fvs.missing) == (85, 2, 1)
    assert fvs.sd == pytest.approx(50**0.5)


def test_requests_keep_the_pace_that_the_key_allows(service: Service) -> None:
    clock = Clock()
    for _ in range(3):
        service.say(answer(90))
    caller = client(service, clock, per_second=2)
    for _ in range(3):
        caller.compare(picture(1), picture(2))
    assert clock.sleeps == [0.5, 0.5]


def test_a_busy_service_is_asked_again_with_longer_and_longer_pauses(service: Service) -> None:
    clock = Clock()
    service.say({"error_message": "CONCURRENCY_LIMIT_EXCEEDED"}, 403)
    service.say({"error_message": "INTERNAL_ERROR"}, 500)
    service.say(b"<html>", 503, Retry_After="7")
    service.say(answer(91))
    assert client(service, clock, per_second=1e9).compare(picture(1), picture(2)) == 91
    assert [pause for pause in clock.sleeps if pause > 0.1] == [1, 2, 7]


def test_it_gives_up_after_the_last_attempt(service: Service) -> None:
    for _ in range(3):
        service.say({"error_message": "CONCURRENCY_LIMIT_EXCEEDED"}, 403)
    with pytest.raises(FaceServiceError, match="did not answer after 3 attempts: CONCURRENCY_LIMIT_EXCEEDED"):
        client(service, Clock(), attempts=3).compare(picture(1), picture(2))
    assert len(service.requests) == 3


def test_a_refused_key_is_not_tried_again_and_never_shown(service: Service) -> None:
    service.say({"error_message": f"AUTHENTICATION_ERROR: {KEY} {SECRET}"}, 401)
    caller = client(service, Clock())
    with pytest.raises(FaceServiceError) as caught:
        caller.compare(picture(1), picture(2))
    message = str(caught.value)
    assert "FACEPP_API_KEY" in message and KEY not in message and SECRET not in message
    assert KEY not in repr(caller) and SECRET not in repr(caller)
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    ("said", "says"),
    [(b"<html>hello</html>", "did not answer as Face"), ({"confidence": 400}, "expected 0 to 100"), ({}, "neither")],
)
def test_answers_that_make_no_sense_are_errors_not_scores(service: Service, said: Any, says: str) -> None:
    service.say(said)
    with pytest.raises(FaceServiceError, match=says):
        client(service, Clock()).compare(picture(1), picture(2))


def test_a_server_that_is_not_there(service: Service) -> None:
    clock = Clock()
    caller = FacePlusPlus(
        KEY, SECRET, "http://127.0.0.1:9/none", attempts=2, sleep=clock.sleep, clock=lambda: clock.now
    )
    with pytest.raises(FaceServiceError, match="did not answer after 2 attempts"):
        caller.compare(picture(1), picture(2))


def test_keys_come_from_the_environment_or_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FACEPP_API_KEY", raising=False)
    monkeypatch.delenv("FACEPP_API_SECRET", raising=False)
    with pytest.raises(UsageError, match="FACEPP_API_KEY"):
        FacePlusPlus.from_environment()
    monkeypatch.setenv("FACEPP_API_KEY", KEY)
    monkeypatch.setenv("FACEPP_API_SECRET", SECRET)
    assert FacePlusPlus.from_environment().key == KEY
    with pytest.raises(UsageError, match="https"):
        FacePlusPlus.from_environment(url="file:///etc/passwd")


def test_evaluate_measures_fvs_beside_acd_and_keeps_the_two_apart(
    service: Service, prepared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from exprtool.cli.main import app

    monkeypatch.setenv("FACEPP_API_KEY", KEY)
    monkeypatch.setenv("FACEPP_API_SECRET", SECRET)
    service.say(answer(90))
    service.say(answer(80))
    done = CliRunner().invoke(
        app,
        ["evaluate", "-m", "debug", "-d", str(prepared.folder), "--limit", "2", "-e", "sad", "--format", "json",
         "--fvs", "--facepp-url", service.url],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout)["evaluations"][0]["overall"]
    assert row["fvs"]["mean"] == 85 and row["local_verification"]["mean"] != 85
    assert len(service.requests) == 2
    assert KEY not in done.output and SECRET not in done.output
