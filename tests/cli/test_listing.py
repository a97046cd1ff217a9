"""``exprtool backends``, ``detectors`` and ``trainers``: complete for scripts, clear for people, loading nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from typer.testing import CliRunner

from exprtool import hookimpl, plugins
from exprtool.cli.main import app
from exprtool.types import BackendSpec, DetectorSpec, Readiness, TrainerSpec, WeightFile


def loaded(*_: object):
    pytest.fail("listing loaded it")


def weights(name: str) -> WeightFile:
    return WeightFile(name, f"{name}.onnx", "0" * 64, 12_300_000, "CC BY-NC 4.0", False, "https://example.org", ())


class Plugin:
    @hookimpl
    def register_backends(self, register):
        never = Readiness(False, "no such card", "buy one")
        register(
            BackendSpec(
                "zeta", "Says [bold]this[/bold] \x1b[31mred.", loaded, ("happy", "sad"), readiness=lambda: never
            )
        )
        register(
            BackendSpec("eta", "Needs.", loaded, controls=("a", "b", "c", "d"), needs=(weights("w"),), quality=10_000)
        )

    @hookimpl
    def register_detectors(self, register):
        register(DetectorSpec("choosy", "Any.", loaded, needs=(weights("v"), weights("u")), needs_any=True))

    @hookimpl
    def register_trainers(self, register):
        @dataclass
        class Config:
            steps: int = 1

        register(TrainerSpec("coach", "Trains.", lambda: Config, loaded))


@pytest.fixture(autouse=True)
def plugged_in():
    with plugins.plugged_in("mine", Plugin()):
        yield


def listing(command: str) -> dict[str, dict]:
    answer = CliRunner().invoke(app, [command, "--json"])
    assert answer.exit_code == 0, answer.output
    return {entry["name"]: entry for entry in json.loads(answer.stdout)}


def test_backends_tell_scripts_everything():
    entries = listing("backends")
    assert next(iter(entries)) == "eta"  # the best comes first
    eta = entries["eta"]
    assert not eta["ready"]
    assert "exprtool models import" in eta["remedy"]
    assert eta["controls"] == ["a", "b", "c", "d"]
    (need,) = eta["needs"]
    assert (need["name"], need["size"], need["commercial"], need["state"]) == ("w", 12_300_000, False, "missing")
    zeta = entries["zeta"]
    assert (zeta["expressions"], zeta["reason"], zeta["remedy"]) == (["happy", "sad"], "no such card", "buy one")
    assert (zeta["plugin"], zeta["package"]) == ("mine", None)
    assert entries["debug"]["package"].startswith("exprtool ")


def test_backends_tell_people_what_matters():
    text = CliRunner().invoke(app, ["backends"]).stdout
    for part in (
        "no such card → buy one",
        "expressions: happy, sad",
        "a, b, c … (4",
        "12.3 MB",
        "CC BY-NC 4.0, no commercial use",
    ):
        assert part in text
    assert "Says [bold]this[/bold]" in text  # brackets are no markup
    assert "\x1b" not in text  # and a plugin cannot steer the terminal


def test_detectors_and_trainers():
    choosy = listing("detectors")["choosy"]
    assert choosy["ready"]  # its own word counts where any of several weights will do
    assert choosy["needs_any"]
    assert "one of these weights: v" in CliRunner().invoke(app, ["detectors"]).stdout
    coach = listing("trainers")["coach"]
    assert coach["ready"]
    assert "needs" not in coach
    assert "Trains." in CliRunner().invoke(app, ["trainers"]).stdout
