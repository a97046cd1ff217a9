"""The HTML of a report: one page, its styles and script within it, every name in it escaped.

File names, messages and weights come from outside. They enter the page through `text` and `address` alone, and the
page's content security policy lets no script run but its own.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any
from urllib.parse import quote

STATUS_WORDS = {
    "edited": "edited",
    "no_face": "no face",
    "refused": "left alone",
    "failed": "failed",
    "skipped": "skipped",
}
_COLOURED_STAGES = 5
_LAZY = 'loading="lazy" decoding="async" draggable="false"'
_ENLARGE = (
    '<svg viewBox="0 0 20 20" width="20" height="20" fill="none" stroke="currentColor" stroke-width="2" '
    'stroke-linecap="round" aria-hidden="true"><path d="M3 8V3h5M17 8V3h-5M3 12v5h5M17 12v5h-5"/></svg>'
)


def text(value: Any) -> str:
    """Any text for the inside of an element or a quoted attribute; undecodable bytes of file names become marks."""
    return escape(str(value).encode("utf-8", "replace").decode("utf-8"), quote=True)


def address(path: str) -> str:
    """A relative path (forward slashes) as a link that cannot be taken for a scheme or leave its attribute."""
    return "./" + quote(path, safe="/", errors="surrogateescape")


def page(
    title: str, subtitle: str, counts: Mapping[str, int], failures: Iterable[Mapping[str, Any]],
    seconds: Mapping[str, float], entries: Iterable[Mapping[str, Any]],
) -> Iterator[str]:  # fmt: skip
    """The whole page in pieces, so that it never has to be in memory at once.

    ``counts`` are the entries by status, ``seconds`` the time by stage; ``failures`` and ``entries`` are records as
    `exprtool.reports.gallery` writes them, in order.
    """
    shell = files("exprtool.reports").joinpath("report.html").read_text("utf-8")
    script = files("exprtool.reports").joinpath("report.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    shell = shell.replace("<!--script-hash-->", digest).replace("<!--script-->", script)
    above, rest = shell.split("<!--summary-->")
    between, rest = rest.split("<!--tools-->")
    before_entries, below = rest.split("<!--entries-->")
    yield above.replace("<!--title-->", text(title))
    yield f'<p class="sub">{text(subtitle)}</p>\n<div class="panels">\n'
    if any(counts.get(status) for status in ("failed", "no_face", "refused")):
        yield from _failures(failures)
    if seconds:
        yield _seconds(seconds)
    yield "</div>" + between + _tools(counts) + before_entries
    for entry in entries:
        yield article(entry)
    yield below


def _failures(failures: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    yield '<section class="panel failures"><h2>Not edited</h2><ul tabindex="0" aria-label="Not edited">\n'
    for entry in failures:
        label = f" · {text(entry['label'])}" if entry["label"] else ""
        yield (
            f'<li><a href="#{_anchor(entry)}">{text(entry["input"])}</a>{label} {_badge(entry["status"])}'
            f'<span class="why">{text(entry["error"] or "")}</span></li>\n'
        )
    yield "</ul></section>\n"


def _seconds(seconds: Mapping[str, float]) -> str:
    """Where the time went, as a bar and in figures. Stages run side by side, so the sum is not the time that passed."""
    return (
        '<section class="panel"><h2>Time by stage</h2>'
        f'{_stages(seconds)}<p class="note">{duration(sum(seconds.values()))} of work in all; photos are worked on '
        "side by side, so less time may have passed.</p></section>\n"
    )


def _stages(seconds: Mapping[str, float]) -> str:
    total = sum(seconds.values()) or 1.0
    bar = "".join(
        f'<i class="s{min(i, _COLOURED_STAGES)}" style="flex-basis:{100 * amount / total:.2f}%"></i>'
        for i, amount in enumerate(seconds.values())
    )
    legend = "".join(
        f'<li><i class="s{min(i, _COLOURED_STAGES)}"></i>{text(stage)} <b>{duration(amount)}</b> '
        f"<span>{100 * amount / total:.0f} %</span></li>"
        for i, (stage, amount) in enumerate(seconds.items())
    )
    return f'<div class="bar" aria-hidden="true">{bar}</div><ul class="legend">{legend}</ul>'


def duration(seconds: float) -> str:
    """Seconds as a person would say them."""
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 99.95:
        return f"{seconds:.1f} s" if seconds >= 9.995 else f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _tools(counts: Mapping[str, int]) -> str:
    buttons = [("all", "All", sum(counts.values()))]
    buttons += [
        (status, word.capitalize(), counts[status]) for status, word in STATUS_WORDS.items() if counts.get(status)
    ]
    filters = "".join(
        f'<button type="button" data-filter="{key}" aria-pressed="{str(key == "all").lower()}">'
        f"{word} <b>{count}</b></button>"
        for key, word, count in buttons
    )
    return (
        f'<div class="tools" role="group" aria-label="Filter">{filters}'
        '<input type="search" id="search" placeholder="Find a file or expression" '
        'aria-label="Find a file or expression">'
        '<output id="shown" aria-live="polite"></output>'
        '<label><input type="checkbox" id="boxes"> Show faces</label></div>'
    )


# ---------------------------------------------------------------------------------------------------------------------
# One entry


def article(entry: Mapping[str, Any]) -> str:
    """One photo: the comparison, its name and state, and what can be unfolded below."""
    name, label, status = entry["input"], entry["label"], entry["status"]
    label_badge = f'<span class="badge">{text(label)}</span>' if label else ""
    words = text(f"{name} {label} {entry['output'] or ''}".lower())
    error = f'<p class="error">{text(entry["error"])}</p>' if entry["error"] else ""
    notes = "".join(f'<p class="note">{text(note)}</p>' for note in entry["notes"])
    return (
        f'<article id="{_anchor(entry)}" data-status="{text(status)}" data-name="{words}">\n{_picture(entry)}'
        f'<div class="text"><div class="name"><h3>{text(name)}</h3><div>{label_badge}{_badge(status)}</div></div>'
        f"{error}{_output(entry)}{notes}{_faces(entry['faces'])}{_timings(entry['timings'])}</div></article>\n"
    )


def _anchor(entry: Mapping[str, Any]) -> str:
    return f"e{int(entry['number'])}"


def _badge(status: str) -> str:
    return f'<span class="badge {text(status)}">{text(STATUS_WORDS.get(status, status))}</span>'


def _picture(entry: Mapping[str, Any]) -> str:
    before, after = entry["before"], entry["after"]
    if not before and not after:
        reason = "Was already there" if entry["status"] == "skipped" else "No picture"
        return f'<div class="stage"><p class="blank">{reason}</p></div>'
    height, width = entry["preview_size"]
    boxes = _boxes(entry)
    name = text(entry["input"])
    if before and after:
        inside = _compare(before, after, (height, width), name, boxes)
    else:
        alone = before or after
        inside = (
            f'<figure class="single" style="--ratio:{width / height:.5f}">'
            f'<img src="{address(alone)}" alt="{name}" width="{width}" height="{height}" {_LAZY}>{boxes}</figure>'
        )
    enlarge = f'<button type="button" class="enlarge" aria-label="Enlarge {name}" title="Enlarge">{_ENLARGE}</button>'
    return f'<div class="stage">{inside}{enlarge}</div>{_closeups(entry)}'


def _compare(before: str, after: str, size: Sequence[int], name: str, over: str = "") -> str:
    """Two pictures of one size (h, w) with a slider between them; ``name`` and ``over`` are HTML already.

    The slider is the browser's own, made invisible: it works by mouse, finger and keyboard, and with screen readers.
    """
    height, width = size
    attributes = f'width="{width}" height="{height}" {_LAZY}'
    return (
        f'<figure class="compare" style="--ratio:{width / height:.5f}">'
        f'<img src="{address(before)}" alt="{name}, before" {attributes}>'
        f'<img class="after" src="{address(after)}" alt="{name}, after" {attributes}>{over}'
        '<span class="line"></span><span class="tag l">before</span><span class="tag r">after</span>'
        f'<input type="range" min="0" max="100" value="50" step="1" aria-label="Before and after of {name}" '
        'aria-valuetext="50 % before, 50 % after"></figure>'
    )


def _closeups(entry: Mapping[str, Any]) -> str:
    closeups = entry["closeups"]
    if not closeups:
        return ""
    name, figures = text(entry["input"]), []
    for closeup in closeups:
        number = text(closeup["face"])
        figure = _compare(closeup["before"], closeup["after"], closeup["size"], f"face {number} in {name}")
        figures.append(f"<li>{figure}<b>{number}</b></li>")
    return f'<ul class="closeups" aria-label="Faces, enlarged">{"".join(figures)}</ul>'


def _boxes(entry: Mapping[str, Any]) -> str:
    """The faces' boxes over the picture. Their numbers are HTML, because text in a stretched SVG is stretched too."""
    size = entry["size"]
    faces = [face for face in entry["faces"] if face.get("box")]
    if not size or not faces:
        return ""
    height, width = size
    rectangles, labels = [], []
    for place, face in enumerate(faces, start=1):
        x0, y0, x1, y1 = (float(value) for value in face["box"])
        kind = "" if face.get("edited") else ' class="refused"'
        rectangles.append(f'<rect{kind} x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}"/>')
        top = max(100 * y0 / height, 4.0)
        labels.append(
            f'<b{kind} style="left:{100 * max(x0, 0) / width:.2f}%;top:{top:.2f}%">{text(face.get("index", place))}</b>'
        )
    return (
        f'<svg class="boxes" viewBox="0 0 {width} {height}" preserveAspectRatio="none" aria-hidden="true">'
        f'{"".join(rectangles)}</svg><div class="boxlabels" aria-hidden="true">{"".join(labels)}</div>'
    )


def _output(entry: Mapping[str, Any]) -> str:
    if not entry["output"]:
        return ""
    shown = text(entry["output"])
    link = entry["output_link"]
    if link:
        shown = f'<a href="{address(link)}">{shown}</a>'
    return f'<p class="note">→ {shown}</p>'


def _faces(faces: Sequence[Mapping[str, Any]]) -> str:
    if not faces:
        return ""
    edited = sum(bool(face.get("edited")) for face in faces)
    count = "1 face" if len(faces) == 1 else f"{len(faces)} faces"
    items = "".join(_face(place, face) for place, face in enumerate(faces, start=1))
    return f'<details><summary>{count}, {edited} edited</summary><ol class="faces">{items}</ol></details>'


def _face(place: int, face: Mapping[str, Any]) -> str:
    facts = []
    if face.get("size") is not None:
        facts.append(f"{float(face['size']):.0f} px")
    if face.get("score") is not None:
        facts.append(f"score {float(face['score']):.2f}")
    if face.get("roll"):
        facts.append(f"turned {float(face['roll']):.0f}°")
    facts += [str(face[key]) for key in ("detector", "backend") if face.get(key)]
    if face.get("strength") not in (None, 1, 1.0):
        facts.append(f"strength {face['strength']:g}")
    reason = f'<div class="kept">left as it is: {text(face["reason"])}</div>' if face.get("reason") else ""
    notes = "".join(f"<div>{text(note)}</div>" for note in face.get("notes") or ())
    weights = {**(face.get("weights") or {}), **(face.get("controls") or {})}
    rows = "".join(
        f'<span>{text(name)}</span><meter min="0" max="1.5" value="{abs(float(amount)):g}"></meter>'
        f"<span>{float(amount):g}</span>"
        for name, amount in weights.items()
    )
    shown = f'<div class="weights">{rows}</div>' if rows else ""
    more = "".join(
        f"<dt>{text(key)}</dt><dd>{text(_short(value))}</dd>" for key, value in (face.get("details") or {}).items()
    )
    more = f'<details><summary>Details</summary><dl class="more">{more}</dl></details>' if more else ""
    return (
        f'<li><b>{text(face.get("index", place))}</b> <span class="facts">{text(" · ".join(facts))}</span>'
        f"{reason}{shown}{notes}{more}</li>"
    )


def _short(value: Any) -> str:
    """A detail of a backend's in one line; numbers to four digits, long collections cut."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        parts = [f"{key} {_short(item)}" for key, item in value.items()]
    elif isinstance(value, list | tuple):
        parts = [_short(item) for item in value]
    else:
        return str(value)[:400]
    return ", ".join(parts[:40]) + (" …" if parts[40:] else "")


def _timings(timings: Mapping[str, float]) -> str:
    if not timings:
        return ""
    return f"<details><summary>{duration(sum(timings.values()))} of work</summary>{_stages(timings)}</details>"
