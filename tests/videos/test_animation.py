"""GIF and WebP: exact colours where they fit, exact times, and the course of an animated photo."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from exprtool.pictures.gif import GifWriter
from exprtool.pictures.moving import Course, frame_durations, frame_writer
from exprtool.pictures.photo import Photo
from exprtool.timeline import parse_timeline
from exprtool.types import Edit
from exprtool.videos.clip import probe
from exprtool.videos.from_photo import duration_of, frame_edits
from exprtool.videos.reader import read_frames


def frames(n: int = 5, colours: int = 40) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    table = random.integers(0, 256, (colours, 3), np.uint8)
    still = table[random.integers(0, colours, (48, 64))]
    made = []
    for i in range(n):
        frame = still.copy()
        frame[10:20, 5 * i : 5 * i + 10] = table[i]
        made.append(frame)
    return made


def read(data: bytes) -> tuple[list[np.ndarray], list[int]]:
    with Pillow.open(io.BytesIO(data)) as gif:
        pictures, times = [], []
        for i in range(gif.n_frames):  # type: ignore[attr-defined]
            gif.seek(i)
            pictures.append(np.array(gif.convert("RGB")))
            times.append(gif.info["duration"])
    return pictures, times


def test_colours_that_fit_a_palette_are_stored_exactly() -> None:
    file, wanted = io.BytesIO(), frames()
    with_noise = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
    writer = GifWriter(file, (48, 64))
    for frame in (*wanted, wanted[-1], with_noise):
        writer.add(frame, duration=80)
    writer.close()
    pictures, times = read(file.getvalue())
    assert times == [80] * 7
    for a, b in zip([*wanted, wanted[-1]], pictures, strict=False):
        assert np.array_equal(a, b)
    error = np.abs(pictures[-1].astype(int) - with_noise).mean()
    assert 0 < error < 25, "three thousand colours do not fit, but come near"


def test_what_stands_still_does_not_shimmer_and_is_mended_when_there_is_room() -> None:
    random = np.random.default_rng(2)
    photo = random.integers(0, 256, (48, 64, 3), np.uint8)
    shots = [photo.copy() for _ in range(4)]
    for i in (1, 2):
        shots[i][10:34, 10:34] = random.integers(0, 256, (24, 24, 3), np.uint8)
    plain = np.zeros_like(photo)
    file = io.BytesIO()
    writer = GifWriter(file, (48, 64))
    sizes = []
    for frame in (*shots, plain, plain):
        writer.add(frame, duration=80)
        sizes.append(file.tell())
    writer.close()
    pictures, _ = read(file.getvalue())
    still = np.ones((48, 64), bool)
    still[10:34, 10:34] = False
    for picture in pictures[1:4]:
        assert np.array_equal(picture[still], pictures[0][still])
    assert np.diff(sizes)[1] < 0.7 * sizes[0], "only what moves is stored again"
    assert not pictures[4].any() and not pictures[5].any()
    file = io.BytesIO()
    writer = GifWriter(file, (48, 64))
    few = photo.copy()
    few[:, 6:] = 7  # 289 colours: too many for one frame, and what it got wrong fits into the second
    for frame in (few, few, few):
        writer.add(frame, duration=80)
    writer.close()
    wrong = [int(np.any(picture != few, axis=2).sum()) for picture in read(file.getvalue())[0]]
    assert wrong[0] > wrong[-1] == 0


def test_gif_times_do_not_add_up_errors_and_are_never_too_short() -> None:
    times = [i * 1001 / 30000 for i in range(300)]
    durations = frame_durations("GIF", times)
    assert abs(sum(durations) / 1000 - times[-1]) < 0.01
    assert min(durations) >= 30
    fast = frame_durations("GIF", [i / 60 for i in range(121)])
    assert sum(fast) == 2000 and all(one == 0 or one >= 20 for one in fast)
    assert frame_durations("PNG", [0, 0.001, 0.5]) == [1, 499]


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_what_is_written_is_read_back_with_its_times(kind: str, tmp_path: Path) -> None:
    wanted = frames()
    path = tmp_path / f"a.{kind}"
    with path.open("wb") as file:
        course = Course(Photo.from_rgb(wanted[0]), len(wanted), 0, alpha=False)
        writer = frame_writer(file, kind.upper(), course, quality=100)
        for frame, duration in zip(wanted, (100, 200, 50, 150, 70_000), strict=True):
            writer.add(frame, duration)
        writer.close()
    info = probe(path)
    found = list(read_frames(info))
    assert [info.seconds(frame.pts) for frame in found] == pytest.approx([0, 0.1, 0.3, 0.35, 0.5])
    assert found[-1].duration == 70_000
    for a, b in zip(wanted, found, strict=True):
        assert b.picture is not None
        assert np.array_equal(b.picture.rgb(), a)


def test_transparent_pixels_stay_transparent() -> None:
    file = io.BytesIO()
    writer = GifWriter(file, (10, 12))
    for i in range(3):
        frame = np.full((10, 12, 4), 255, np.uint8)
        frame[:, i * 3 : i * 3 + 4, 3] = 0
        writer.add(frame[..., :3], frame[..., 3] > 0, duration=100, transparent_later=True)
    writer.close()
    with Pillow.open(io.BytesIO(file.getvalue())) as gif:
        for i in range(3):
            gif.seek(i)
            alpha = np.array(gif.convert("RGBA"))[..., 3]
            assert (alpha[:, i * 3 : i * 3 + 4] == 0).all() and (alpha == 0).sum() == 40


def test_an_animated_photo_begins_untouched_blinks_and_never_jumps() -> None:
    timeline = parse_timeline("happy@0.5s neutral@2s surprised@3s")
    times = [i / 25 for i in range(int(duration_of(timeline) * 25))]
    edits = frame_edits(timeline, Edit(strength=0.9), times)
    assert edits[0].weights == {} and edits[0].controls == {}
    closed = [edit.controls.get("eyeBlinkLeft", 0.0) * edit.strength for edit in edits]
    assert 0.8 < max(closed) <= 1.01
    assert sum(value > 0.05 for value in closed) < 0.25 * len(closed), "eyes are open most of the time"
    amounts = [edit.strength * edit.weights.get("happy", 0.0) for edit in edits]
    assert max(amounts) == pytest.approx(0.9, abs=0.06)
    assert np.abs(np.diff(amounts)).max() < 0.12
    held = [amount for amount, time in zip(amounts, times, strict=True) if 1.3 < time < 1.9]
    assert 0.001 < np.std(held) < 0.05, "a held expression drifts a little"
    still = frame_edits(timeline, Edit(), times, blinks=False, drift=False)
    assert not any(edit.controls for edit in still)


def test_the_same_seed_gives_the_same_course() -> None:
    timeline = parse_timeline("happy")
    times = [i / 25 for i in range(150)]
    first, again, other = (frame_edits(timeline, Edit(seed=seed), times) for seed in (1, 1, 2))
    assert first == again
    assert first != other
