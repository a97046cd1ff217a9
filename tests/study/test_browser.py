"""The page in a real browser: answered, reloaded, sent, saved, and summed up to what was known before."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from exprtool.cli.main import app
from exprtool.study.serve import StudyServer

from .conftest import METHODS

ANSWER_ALL = """
const [plan, most] = arguments;
let given = 0;
while (!document.getElementById('trial').hidden && given < most) {
  const {trial, question} = document.body.dataset;
  document.querySelector(`[data-option="${plan[trial][question]}"]`).click();
  document.getElementById('next').click();
  given += 1;
}
return given;
"""


def plan_of(study, picks, *, attentive: bool = True) -> dict:
    """{trial: {question: blind name}} for picks(question, number of the face) -> method."""
    plan: dict[str, dict[str, str]] = {}
    for trial, shown in zip(study.key["trials"], study.made.for_page()["trials"], strict=True):
        if trial["options"] is None:
            wrong = next(option["id"] for option in shown["options"] if option["id"] != trial["check"])
            plan[trial["id"]] = dict.fromkeys(study.key["questions"], trial["check"] if attentive else wrong)
        else:
            blind = {method: name for name, method in trial["options"].items()}
            number = int(trial["item"][-2:])
            plan[trial["id"]] = {question: blind[picks(question, number)] for question in study.key["questions"]}
    return plan


def begin(browser, address: str, name: str) -> None:
    browser.get(address)
    browser.execute_script("localStorage.clear()")
    browser.get(address)
    enter(browser, name)


def enter(browser, name: str) -> None:
    browser.find_element("id", "name").send_keys(name)
    browser.find_element("css selector", "#begin button").click()


def until(browser, script: str, seconds: float = 10.0):
    end = time.monotonic() + seconds
    while not (answer := browser.execute_script(f"return {script}")):
        assert time.monotonic() < end, script
        time.sleep(0.02)
    return answer


def test_eighteen_faces_answered_by_five_raters_give_the_known_percentages(browser, study, tmp_path):
    """Realism: all agree, 9, 6, 3 and 0 of 18. Expression: always the first method. Identity: all disagree."""

    def picks(rater: int):
        def of(question: str, number: int) -> str:
            if question == "realism":
                return METHODS[0 if number < 9 else 1 if number < 15 else 2]
            return METHODS[0] if question == "expression" else METHODS[(number + rater) % 4]

        return of

    out = tmp_path / "answers"
    browser.get_log("browser")
    with StudyServer(study.page, out, port=0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        begin(browser, server.address, "Ann")
        for rater in range(5):  # the fifth clicks without looking
            if rater:
                browser.find_element("id", "another").click()
                enter(browser, "Ann")
            plan = plan_of(study, picks(rater), attentive=rater < 4)
            assert browser.execute_script(ANSWER_ALL, plan, 1000) == 60
            until(browser, "document.querySelector('#state.good') !== null")
        server.shutdown()
        thread.join()
    assert browser.get_log("browser") == []
    assert len(list(out.glob("*.json"))) == 5, "five raters of one name are five"
    done = CliRunner().invoke(app, ["study", "tally", str(out), "-k", str(study.key_file), "--json", "-q"])
    assert done.exit_code == 0, done.output
    got = json.loads(done.stdout)
    shares = {q["id"]: [round(100 * m["share"], 1) for m in q["methods"]] for q in got["questions"]}
    assert shares == {
        "realism": [50.0, 33.3, 16.7, 0.0],
        "expression": [100.0, 0.0, 0.0, 0.0],
        "identity": [25.0, 25.0, 25.0, 25.0],
    }
    assert got["raters_counted"] == 4 and [rater["counted"] for rater in got["raters"]].count(False) == 1
    agreement = {q["id"]: q["fleiss_kappa"] for q in got["questions"]}
    assert agreement["realism"] == 1 and agreement["expression"] is None
    assert agreement["identity"] == pytest.approx(-1 / 3)
    firsts = [json.loads(path.read_text())["answers"][0]["trial"] for path in out.glob("*.json")]
    assert len(set(firsts)) > 1, "raters see the faces in orders of their own"


def test_from_disk_a_reload_loses_nothing_and_the_file_holds_every_answer(browser, study, tmp_path):
    browser.get_log("browser")
    begin(browser, study.page.as_uri(), 'Zoë, "Z"')
    plan = plan_of(study, lambda question, number: METHODS[1])
    assert browser.execute_script(ANSWER_ALL, plan, 25) == 25
    where = browser.execute_script("return {...document.body.dataset}")
    order = browser.execute_script("return [...document.querySelectorAll('.option')].map(o => o.dataset.option)")
    browser.refresh()
    assert browser.execute_script("return {...document.body.dataset}") == where
    assert order == browser.execute_script(
        "return [...document.querySelectorAll('.option')].map(o => o.dataset.option)"
    )
    assert browser.execute_script(ANSWER_ALL, plan, 1000) == 35
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    browser.find_element("id", "save").click()
    end = time.monotonic() + 10
    while not (saved := list(tmp_path.glob("answers-zoe-z-*.csv"))):
        assert time.monotonic() < end, list(tmp_path.iterdir())
        time.sleep(0.02)
    assert browser.get_log("browser") == []
    requests = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert all(name.startswith(("data:", "blob:")) for name in requests)
    done = CliRunner().invoke(app, ["study", "tally", str(saved[0]), "-k", str(study.key_file), "--json", "-q"])
    got = json.loads(done.stdout)
    assert got["raters"][0]["name"] == 'Zoë, "Z"' and got["raters"][0]["answered"] == 60
    assert [m["picks"] for m in got["questions"][0]["methods"]] == [0, 18, 0, 0]


def test_the_keyboard_alone_is_enough_and_one_can_go_back(browser, study):
    from selenium.webdriver.common.keys import Keys

    begin(browser, study.page.as_uri(), "Kay")
    keys = browser.switch_to.active_element
    first = browser.execute_script("return document.body.dataset.trial")
    keys.send_keys("2")
    until(browser, "document.body.dataset.question === 'expression'")
    assert "sad" in browser.find_element("id", "question").text
    browser.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
    assert browser.execute_script("return document.body.dataset.question") == "realism"
    marked = browser.find_elements("css selector", ".option[aria-checked=true]")
    assert len(marked) == 1 and marked[0].text == "✓ 2"
    browser.switch_to.active_element.send_keys("4")
    until(browser, "document.body.dataset.question === 'expression'")
    browser.switch_to.active_element.send_keys("5")  # there is no fifth picture
    assert browser.execute_script("return document.body.dataset.trial") == first
    browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)  # nor a way past an open question
    assert browser.execute_script("return document.body.dataset.question") == "expression"
    answers = browser.execute_script("return JSON.parse(localStorage.getItem(Object.keys(localStorage)[0])).answers")
    assert [(a["question"], a["position"]) for a in answers.values()] == [("realism", 4)]


@pytest.mark.parametrize(("width", "height"), [(390, 780), (320, 568), (1300, 900)])
def test_it_fits_phones_and_desks_and_is_easy_to_hit(browser, study, width, height):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 800},
    )
    try:
        begin(browser, study.page.as_uri(), "Phone")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        sizes = browser.execute_script(
            "return [...document.querySelectorAll('#trial button')].map(b => b.getBoundingClientRect())"
            ".map(r => [r.width, r.height])"
        )
        assert min(w for w, _ in sizes) >= 44 and min(h for _, h in sizes) >= 44, (
            "the usual smallest target for a thumb"
        )
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_without_a_server_that_takes_answers_they_are_kept_and_can_be_saved(browser, study, tmp_path):
    """The page on a plain web server: sending fails, and says so."""
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Plain(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    (tmp_path / "index.html").write_bytes(Path(study.page).read_bytes())
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Plain, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        begin(browser, f"http://127.0.0.1:{server.server_address[1]}/", "Al")
        browser.execute_script(ANSWER_ALL, plan_of(study, lambda question, number: METHODS[2]), 1000)
        until(browser, "document.querySelector('#state.bad') !== null")
        assert browser.find_element("id", "again").is_displayed() and browser.find_element("id", "save").is_displayed()
        server.shutdown()
        thread.join()
    browser.get_log("browser")  # the refusals that were the point
