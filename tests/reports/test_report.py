"""The gallery: what is in the folder, and what a real browser makes of it."""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from exprtool.errors import UsageError
from exprtool.reports import page as report_page
from exprtool.reports.gallery import PREVIEW_SIDE, Report, ReportEntry

EVIL = '<img src=x onerror=document.title="pwned">"\'&.jpg'
FACES = [
    {
        "index": 1, "box": [300.0, 120.0, 420.0, 260.0], "score": 0.91, "size": 140.0, "roll": 3.0, "detector": "dlib",
        "edited": True, "reason": None, "backend": "blendshape", "weights": {"surprised": 0.8},
        "controls": {"browInnerUp": 0.2}, "strength": 0.7, "notes": ["teeth painted"], "details": {"residual": 1.23456},
    },
    {
        "index": 2, "box": [700.0, 100.0, 800.0, 220.0], "score": 0.55, "size": 120.0, "edited": False,
        "reason": "turned too far", "weights": None, "controls": None, "strength": None, "notes": [], "details": {},
    },
]  # fmt: skip
TIMINGS = {"decode": 0.05, "detect": 0.4, "generate": 0.6}


def photo(height: int = 600, width: int = 900, seed: int = 0) -> np.ndarray:
    """A smooth picture that is not square and differs with the seed."""
    y, x = np.mgrid[:height, :width]
    return np.stack([(x * 255 // width + 40 * seed) % 256, y * 255 // height, np.full_like(x, 128)], -1).astype(
        np.uint8
    )


def write(folder: Path, *entries: ReportEntry) -> Path:
    with Report(folder) as report:
        for entry in entries:
            report.add(entry)
    return folder / "index.html"


def sample(folder: Path) -> Path:
    """One of every kind."""
    before = photo()
    return write(
        folder,
        ReportEntry("holiday/a.jpg", "out/a.jpg", "surprised", "edited", None, FACES, TIMINGS, before, 255 - before),
        ReportEntry("b.jpg", None, "happy", "no_face", "no face found; tried three turns", before=photo(500, 300)),
        ReportEntry(EVIL, None, "happy", "failed", f"{EVIL}: the file ends too early", timings={"decode": 0.01}),
        ReportEntry("d.jpg", "out/d.jpg", "happy", "skipped", "the output is already there"),
    )


class Elements(HTMLParser):
    """Every start tag of a page with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


# ---------------------------------------------------------------------------------------------------------------------
# The folder


def test_the_page_needs_nothing_from_elsewhere(tmp_path):
    page = sample(tmp_path / "report")
    elements = Elements(page.read_text("utf-8"))
    for tag, attributes in elements.found:
        for name in ("src", "href", "action", "data"):
            value = attributes.get(name)
            if value and not value.startswith("#"):
                assert value.startswith("./"), (tag, value)
                assert (page.parent / unquote(value)).is_file(), value
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
    text = page.read_text("utf-8")
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\(", text)
    assert sorted(path.name for path in page.parent.iterdir()) == ["index.html", "pictures"]


def test_previews_are_small_upright_and_shown_by_their_own_ratio(tmp_path):
    page = write(tmp_path, ReportEntry("wide.jpg", "o.jpg", "sad", before=photo(500, 2000), after=photo(500, 2000, 1)))
    first, second = Elements(page.read_text("utf-8")).of("img")
    for image in (first, second):
        with Image.open(tmp_path / str(image["src"])) as opened:
            assert opened.size == (PREVIEW_SIDE, PREVIEW_SIDE // 4)
            assert (image["width"], image["height"]) == tuple(map(str, opened.size))
            shown = np.asarray(opened.convert("RGB"), int)
        assert image["loading"] == "lazy"
        wanted = photo(500, 2000, 0 if image is first else 1)
        assert abs(shown[200, 800] - wanted[250, 1000]).max() < 6


def test_pictures_come_from_files_too_and_keep_their_colour_profile(tmp_path):
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(photo()).save(tmp_path / "a.png", icc_profile=profile)
    page = write(tmp_path / "r", ReportEntry("a.png", before=tmp_path / "a.png", after=tmp_path / "a.png"))
    (first, _) = Elements(page.read_text("utf-8")).of("img")
    with Image.open(page.parent / str(first["src"])) as opened:
        assert opened.info["icc_profile"] == profile


def test_one_input_with_several_outputs_has_one_preview(tmp_path):
    entries = [
        ReportEntry("a.jpg", f"{n}.jpg", n, before=photo(), after=photo(seed=1)) for n in ("happy", "sad", "angry")
    ]
    write(tmp_path, *entries)
    assert len(list((tmp_path / "pictures").glob("*-before.jpg"))) == 1
    assert len(list((tmp_path / "pictures").glob("*-after.jpg"))) == 3


def test_small_edited_faces_get_close_ups_of_the_photos_own_pixels(tmp_path):
    before, after = photo(), photo()
    after[150:230, 320:400] = (255, 0, 0)
    page = write(tmp_path, ReportEntry("a.jpg", "b.jpg", "sad", faces=FACES, before=before, after=after))
    names = sorted(path.name for path in (tmp_path / "pictures").glob("*face*"))
    assert names == ["00001-face1-after.jpg", "00001-face1-before.jpg"]  # the second face was left alone
    with Image.open(tmp_path / "pictures" / names[0]) as opened:
        assert opened.size == (224, 224)  # 1.6 times the box, not enlarged
        assert np.asarray(opened)[112, 112].tolist()[0] > 230
    assert page.read_text("utf-8").count('class="closeups"') == 1


def test_links_to_outputs_are_relative_and_only_to_what_is_there(tmp_path):
    out = tmp_path / "photos out" / 'a "b" #1.jpg'
    out.parent.mkdir()
    out.write_bytes(b"x")
    page = write(tmp_path / "report", ReportEntry("a.jpg", str(out)), ReportEntry("b.jpg", str(tmp_path / "gone.jpg")))
    (link,) = [a for a in Elements(page.read_text("utf-8")).of("a") if not str(a["href"]).startswith("#")]
    assert (page.parent / unquote(str(link["href"]))).resolve() == out.resolve()
    assert str(tmp_path) not in str(link["href"])


def test_names_and_messages_are_text_and_nothing_else(tmp_path):
    nasty = dict(FACES[0], reason=EVIL, notes=[EVIL], backend=EVIL, details={EVIL: EVIL}, weights={EVIL: 1.0})
    entry = ReportEntry(
        EVIL,
        EVIL,
        "</script><script>alert(1)</script>",
        "edited",
        EVIL,
        [nasty],
        {EVIL: 1.0},
        photo(),
        photo(),
        notes=[EVIL],
    )
    failed = ReportEntry(EVIL, None, "x", "failed", EVIL)
    page = write(tmp_path, entry, failed)
    elements = Elements(page.read_text("utf-8"))
    assert len(elements.of("script")) == 1
    assert all(str(image["src"]).startswith("./pictures/") for image in elements.of("img"))
    assert not any("onerror" in attributes for _, attributes in elements.found)


def test_names_that_are_no_text_are_shown_with_marks(tmp_path):
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    page = write(tmp_path, ReportEntry(name, None, "sad", "failed", f"{name}: broken"))
    assert "caf?.jpg" in page.read_text("utf-8")


def test_an_earlier_report_is_replaced_and_nothing_of_others_is_touched(tmp_path):
    write(
        tmp_path,
        ReportEntry("a.jpg", before=photo(), after=photo()),
        ReportEntry("b.jpg", before=photo(), after=photo()),
    )
    (tmp_path / "pictures" / "mine.jpg").write_bytes(b"mine")
    (tmp_path / "notes.txt").write_text("mine")
    page = write(tmp_path, ReportEntry("c.jpg", before=photo(), after=photo()))
    assert "a.jpg" not in page.read_text("utf-8")
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [
        "00001-after.jpg",
        "00001-before.jpg",
        "mine.jpg",
    ]
    foreign = tmp_path / "site"
    foreign.mkdir()
    (foreign / "index.html").write_text("<p>my home page</p>")
    with pytest.raises(UsageError, match="left alone"):
        Report(foreign)
    assert (foreign / "index.html").read_text() == "<p>my home page</p>"


@pytest.mark.skipif(os.name != "posix", reason="links are POSIX's")
@pytest.mark.parametrize("planted", ["pictures", "index.html", "dangling index.html", "pictures of others"])
def test_links_and_pictures_of_others_are_refused_and_left_alone(tmp_path, planted):
    """In a folder that others may write to, what looks like a part of a report may lead anywhere."""
    theirs, folder = tmp_path / "theirs", tmp_path / "report"
    theirs.mkdir()
    folder.mkdir()
    (theirs / "00001-before.jpg").write_bytes(b"precious")
    if planted == "pictures":
        (folder / "pictures").symlink_to(theirs)
    elif planted == "pictures of others":
        theirs = theirs.rename(folder / "pictures")
    elif planted == "index.html":
        write(theirs)
        (folder / "index.html").symlink_to(theirs / "index.html")
    else:
        (folder / "index.html").symlink_to(theirs / "later.html")
    before = {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match="left alone"):
        Report(folder)
    assert {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()} == before


@pytest.mark.skipif(os.name != "posix", reason="links are POSIX's")
def test_entries_are_kept_where_no_link_can_be_planted(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / ".entries.jsonl").symlink_to(victim)
    write(folder, ReportEntry("a.jpg", before=photo(), after=photo()))
    assert victim.read_bytes() == b"precious" and (folder / ".entries.jsonl").is_symlink()


def test_a_report_that_was_killed_is_taken_up_by_the_next(tmp_path):
    killed = Report(tmp_path)
    killed.add(ReportEntry("a.jpg", before=photo(), after=photo()))
    assert "not finished" in (tmp_path / "index.html").read_text("utf-8")
    write(tmp_path, ReportEntry("b.jpg", None, "sad", "failed", "broken"))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["index.html", "pictures"]


def test_an_interrupted_run_has_a_page_of_what_was_done(tmp_path):
    with pytest.raises(KeyboardInterrupt), Report(tmp_path) as report:
        report.add(ReportEntry("a.jpg", before=photo(), after=photo()))
        raise KeyboardInterrupt
    assert "a.jpg" in (tmp_path / "index.html").read_text("utf-8")


def test_a_run_of_nothing_and_closing_twice(tmp_path):
    report = Report(tmp_path)
    page = report.close()
    assert report.close() == page
    assert "0 pictures" in page.read_text("utf-8")


def test_entries_do_not_pile_up_in_memory(tmp_path):
    """What stays in memory for each entry is a name at most; the records are on disk."""
    with Report(tmp_path) as report:
        sizes = []
        for number in range(400):
            report.add(ReportEntry(f"{number}.jpg", None, "sad", "failed", "x" * 1000, timings=TIMINGS))
            sizes.append(sum(len(repr(value)) for value in vars(report).values()))
        assert max(sizes[300:]) < min(sizes[:100]) + 200
    assert Elements((tmp_path / "index.html").read_text("utf-8")).of("article")[-1]["id"] == "e400"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0004, "0 ms"), (0.25, "250 ms"), (1.234, "1.23 s"), (12.34, "12.3 s"), (125, "2 min 5 s"), (7260, "2 h 1 min")],
)
def test_durations(seconds, said):
    assert report_page.duration(seconds) == said


# ---------------------------------------------------------------------------------------------------------------------
# In a browser


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Any:
    browser.get_log("browser")
    browser.get(sample(tmp_path / "report").as_uri())
    return browser


def shown(page: Any) -> list[str]:
    return page.execute_script("return [...document.querySelectorAll('article')].filter(a => !a.hidden).map(a => a.id)")


def find(page: Any, selector: str) -> Any:
    return page.find_element("css selector", selector)


def test_it_opens_from_disk_with_every_picture_and_no_complaint(page):
    page.execute_script("for (const image of document.images) image.loading = 'eager'")
    loaded = page.execute_async_script(
        "const done = arguments[0];"
        "const widths = [...document.images].map(image => image.decode().then(() => image.naturalWidth));"
        "Promise.all(widths).then(done, error => done(String(error)))"
    )
    assert len(loaded) == 5  # before, after, two close-ups, one without a face
    assert all(width > 0 for width in loaded)
    assert page.get_log("browser") == []
    assert page.title == "Expression edits"  # the evil file name did not get to run
    assert EVIL in find(page, "#e3 h3").text
    requests = page.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert all(name.startswith("file:") for name in requests)


def test_the_policy_lets_no_other_script_run(page):
    page.execute_script(
        "const script = document.createElement('script'); script.textContent = 'document.title = \"pwned\"';"
        "document.body.append(script);"
        "const image = document.createElement('div'); image.innerHTML = '<img src=x onerror=\"document.title=1\">';"
        "document.body.append(image);"
    )
    assert page.title == "Expression edits"
    assert any("Content Security Policy" in entry["message"] for entry in page.get_log("browser"))


def test_the_slider_moves_by_mouse_and_by_keyboard(page):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    slider = find(page, "#e1 .compare input")
    position = "return document.querySelector('#e1 .compare').style.getPropertyValue('--pos')"
    width = slider.size["width"]
    ActionChains(page).move_to_element_with_offset(slider, -width // 4, 0).click().perform()
    assert abs(float(page.execute_script(position).rstrip("%")) - 25) < 2
    slider.send_keys(Keys.HOME)
    assert page.execute_script(position) == "0%"
    slider.send_keys(Keys.ARROW_RIGHT)
    assert page.execute_script(position) == "1%"
    assert "99 % after" in str(slider.get_attribute("aria-valuetext"))
    assert EVIL not in str(slider.get_attribute("aria-label"))
    clip = page.execute_script("return getComputedStyle(document.querySelector('#e1 .after')).clipPath")
    assert "1%" in clip


def test_a_finger_drags_the_slider_and_scrolls_the_page(page):
    """Sideways belongs to the slider, up and down to the page."""
    assert (
        page.execute_script("return getComputedStyle(document.querySelector('.compare input')).touchAction") == "pan-y"
    )


def test_filter_and_search(page):
    assert shown(page) == ["e1", "e2", "e3", "e4"]
    find(page, "[data-filter=no_face]").click()
    assert shown(page) == ["e2"]
    assert "1 of 4" in find(page, "#shown").text
    find(page, "[data-filter=failed]").click()
    assert shown(page) == ["e3"]
    find(page, "[data-filter=all]").click()
    find(page, "#search").send_keys("HOLIDAY")
    assert shown(page) == ["e1"]
    find(page, "#search").send_keys("zzz")
    assert shown(page) == []
    assert find(page, "#none").is_displayed()
    find(page, ".failures a[href='#e3']").click()  # a link to what the filter hides shows it
    assert "e3" in shown(page)


def test_faces_are_drawn_where_they_are(page):
    boxes = "return [...document.querySelectorAll('#e1 .boxes rect')].map(r => r.getBoundingClientRect())"
    assert not find(page, "#e1 .boxes").is_displayed()
    find(page, "#boxes").click()
    frame = find(page, "#e1 .compare").rect
    for drawn, face in zip(page.execute_script(boxes), FACES, strict=True):
        x0, y0, x1, _ = face["box"]
        scale = frame["width"] / 900
        assert drawn["x"] - page.execute_script(
            "return document.querySelector('#e1 .compare').getBoundingClientRect().x"
        ) == pytest.approx(x0 * scale, abs=2)
        assert drawn["width"] == pytest.approx((x1 - x0) * scale, abs=3)
        assert y0 > 0
    page.execute_script("for (const part of document.querySelectorAll('#e1 details')) part.open = true")
    text = find(page, "#e1 .faces").text
    for part in (
        "140 px",
        "score 0.91",
        "blendshape",
        "strength 0.7",
        "browInnerUp",
        "teeth painted",
        "turned too far",
        "1.235",
    ):
        assert part in text


def test_the_large_view_opens_steps_and_closes_by_keyboard(page):
    from selenium.webdriver.common.keys import Keys

    find(page, "#e1 .enlarge").click()
    dialog = find(page, "dialog")
    assert dialog.is_displayed()
    assert find(page, "#large-name").text == "holiday/a.jpg"
    slider = find(page, "dialog .compare input")
    assert page.switch_to.active_element == slider
    slider.send_keys("a")
    assert (
        page.execute_script("return document.querySelector('dialog .compare').style.getPropertyValue('--pos')") == "0%"
    )
    slider.send_keys(Keys.PAGE_DOWN)
    assert find(page, "#large-name").text == "b.jpg"
    find(page, "dialog [data-do=next]").click()
    assert find(page, "#large-name").text == "holiday/a.jpg"  # the two without pictures are passed over
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not dialog.is_displayed()


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (360, "dark"), (1300, "light"), (1300, "dark")])
def test_it_fits_phone_and_desk_in_both_schemes(page, width, scheme):
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    page.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    try:
        assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        colours = (
            "const s = getComputedStyle(document.querySelector(arguments[0])); return [s.color, s.backgroundColor]"
        )
        for selector in ("body", "article", ".badge.edited", ".badge.no_face", ".badge.failed"):
            pair = page.execute_script(colours, selector)
            if selector == "article":
                pair[0] = page.execute_script(colours, "body")[0]
            ink, paper = (_luminance(colour) for colour in pair)
            assert (paper < 0.2) == (scheme == "dark")
            assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5  # WCAG 2.2, 1.4.3
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def _luminance(colour: str) -> float:
    """Relative luminance of "rgb(r, g, b)" (WCAG 2.2)."""
    parts = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in parts]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_the_command_writes_it(shared, tmp_path):
    from typer.testing import CliRunner

    from exprtool.cli.main import app

    (tmp_path / "text.jpg").write_text("not a picture")
    photos = [shared / "photos" / "Family1-Mom1.jpg", tmp_path / "text.jpg"]
    arguments = ["edit", *map(str, photos), "--expr", "happy", "--backend", "debug", "-o", str(tmp_path / "out")]
    answer = CliRunner().invoke(app, [*arguments, "--report", str(tmp_path / "report"), "--json"])
    assert answer.exit_code == 1
    records = [json.loads(line) for line in answer.stdout.splitlines()]
    articles = Elements((tmp_path / "report" / "index.html").read_text("utf-8")).of("article")
    assert (
        [article["data-status"] for article in articles]
        == [record["status"] for record in records]
        == ["edited", "failed"]
    )
