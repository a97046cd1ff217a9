"""Moving pictures: frames, durations, repetitions and transparency come back, and unedited pixels keep their bits."""

from __future__ import annotations

import gc
import io
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from exprtool import images, provenance
from exprtool.errors import ImageError, WriteError
from exprtool.pictures import moving as animations
from exprtool.pictures.moving import Animation, read_animation, write_animation
from exprtool.provenance import Provenance, stamp

DURATIONS = [50, 60, 200, 80, 1000]
BOX = (slice(10, 40), slice(20, 70))


@pytest.fixture(scope="module")
def moving(shared: Path) -> list[Image.Image]:
    """Five frames (60, 100) of a real scene in which something moves."""
    with Image.open(shared / "videos" / "two_people_intel.gif") as clip:
        frames = []
        for number in range(0, 50, 10):
            clip.seek(number)
            frames.append(clip.convert("RGB").resize((100, 60)))
    return frames


def make(frames: list[Image.Image], format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    settings: dict[str, object] = {"save_all": True, "append_images": frames[1:], "duration": DURATIONS, "loop": 3}
    if format == "WEBP":
        settings |= {"lossless": True, "exact": True}
    frames[0].save(buffer, format, **(settings | options))
    return buffer.getvalue()


def edited(animation: Animation) -> Iterator[NDArray[np.uint8]]:
    for frame in animation:
        rgb = frame.rgb.copy()
        rgb[BOX] = rgb[BOX][:, ::-1]  # the same colours in other places
        yield rgb


def write(animation: Animation, frames: Iterator[NDArray[np.uint8]], format: str, **options: object) -> Animation:
    data = write_animation(animation, frames, None, format=format, **options)  # type: ignore[arg-type]
    assert data is not None
    return read_animation(data, name=f"written{images.suffix_of(format)}")


def rgba(photo: images.Photo) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(photo.samples.values).convert("RGBA"))


@pytest.mark.parametrize("target", animations.FORMATS)
@pytest.mark.parametrize("source", animations.FORMATS)
def test_edit_frame_by_frame(moving: list[Image.Image], source: str, target: str) -> None:
    frames = [frame.quantize(120).convert("RGB") for frame in moving]
    animation = read_animation(make(frames, source), name="clip")
    assert (animation.frames, animation.loop, animation.photo.format) == (5, 3, source)
    assert [frame.duration for frame in animation] == DURATIONS
    result = write(animation, edited(animation), target)
    assert (result.frames, result.loop, result.photo.format) == (5, 3, target)
    assert [frame.duration for frame in result] == DURATIONS
    for after, wanted in zip(result, edited(animation), strict=True):
        assert np.array_equal(after.rgb, wanted)


@pytest.mark.parametrize("format", animations.FORMATS)
def test_real_clip_without_edit_is_bit_identical(shared: Path, format: str) -> None:
    with Image.open(shared / "videos" / "two_people_intel.gif") as clip:
        frames = []
        for number in range(6):
            clip.seek(number)
            frames.append(clip.convert("RGB"))
    animation = read_animation(make(frames, "GIF", duration=80))
    result = write(animation, (frame.rgb for frame in animation), format)
    for before, after in zip(animation, result, strict=True):
        assert np.array_equal(before.rgb, after.rgb)


def test_gif_keeps_unedited_pixels_where_the_edit_brings_new_colours(moving: list[Image.Image]) -> None:
    animation = read_animation(make(moving, "GIF"))
    rng = np.random.default_rng(0)

    def recoloured() -> Iterator[NDArray[np.uint8]]:
        for frame in animation:
            rgb = frame.rgb.copy()
            rgb[BOX] = np.clip(rgb[BOX] + rng.integers(-9, 9, rgb[BOX].shape), 0, 255)
            yield rgb

    result = write(animation, recoloured(), "GIF")
    for before, after in zip(animation, result, strict=True):
        outside = np.ones(before.rgb.shape[:2], bool)
        outside[BOX] = False
        assert np.mean((before.rgb != after.rgb).any(axis=2)[outside]) < 0.01
        assert np.abs(before.rgb[outside].astype(int) - after.rgb[outside]).max() <= 40
        assert np.abs(before.rgb[BOX].astype(int) - after.rgb[BOX]).mean() < 15


@pytest.mark.parametrize("target", animations.FORMATS)
@pytest.mark.parametrize("source", animations.FORMATS)
def test_transparency_and_disposal(source: str, target: str) -> None:
    frames = []
    for step in range(5):
        values = np.zeros((40, 61, 4), np.uint8)
        values[5:20, 5 + 8 * step : 15 + 8 * step] = (250, 30 * step, 5, 255)
        frames.append(Image.fromarray(values))
    animation = read_animation(make(frames, source, **({} if source == "WEBP" else {"disposal": 2})))
    result = write(animation, (frame.rgb for frame in animation), target)
    for before, after, made in zip(animation, result, frames, strict=True):
        expected = np.asarray(made)
        for seen in (rgba(before.photo), rgba(after.photo)):
            assert np.array_equal(seen[..., 3], expected[..., 3])
            assert np.array_equal(seen[seen[..., 3] > 0], expected[expected[..., 3] > 0])


@pytest.mark.parametrize("format", animations.FORMATS)
def test_metadata_and_record_stay(moving: list[Image.Image], format: str) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    options: dict[str, object] = {} if format == "GIF" else {"icc_profile": profile, "exif": Image.Exif().tobytes()}
    animation = read_animation(make(moving, format, **options))
    record = Provenance("debug", False, {"happy": 1.0}, faces=2)
    result = write(animation, edited(animation), format, xmp=stamp(animation.photo.xmp, record))
    assert result.photo.icc == animation.photo.icc == (None if format == "GIF" else profile)
    assert provenance.read_xmp(result.photo.xmp).edits == (record,)


def test_played_once_stays_so(moving: list[Image.Image]) -> None:
    animation = read_animation(make(moving, "GIF", loop=None))
    assert animation.loop is None
    assert write(animation, edited(animation), "GIF").loop is None
    assert write(animation, edited(animation), "PNG").loop == 1


def test_png_with_a_still_for_old_programs(moving: list[Image.Image]) -> None:
    still = Image.new("RGB", (100, 60), (9, 99, 199))
    buffer = io.BytesIO()
    still.save(buffer, "PNG", save_all=True, append_images=moving, default_image=True, duration=70, loop=0)
    animation = read_animation(buffer.getvalue())
    assert animation.still_first and animation.frames == 6
    result = write(animation, (frame.rgb for frame in animation), "PNG")
    assert result.still_first and result.frames == 6
    for before, after in zip(animation, result, strict=True):
        assert np.array_equal(before.rgb, after.rgb)
    assert [frame.duration for frame in result][1:] == [70] * 5


def test_lossy_webp(moving: list[Image.Image]) -> None:
    animation = read_animation(make(moving, "WEBP", lossless=False, quality=90))
    assert not animation.photo.lossless
    result = write(animation, edited(animation), "WEBP")
    for after, wanted in zip(result, edited(animation), strict=True):
        assert np.abs(after.rgb.astype(int) - wanted).mean() < 4


def test_a_still_picture_is_one_frame(moving: list[Image.Image]) -> None:
    buffer = io.BytesIO()
    moving[0].save(buffer, "PNG")
    animation = read_animation(buffer.getvalue())
    assert animation.frames == 1 and len(list(animation)) == 1


def test_wrong_frames_are_refused_and_nothing_is_left(moving: list[Image.Image], tmp_path: Path) -> None:
    animation = read_animation(make(moving, "GIF"), name="clip.gif")
    frames = [frame.rgb for frame in animation]
    target = tmp_path / "out.gif"
    for wrong in (frames[:-1], [*frames, frames[0]], [frames[0][:-1]]):
        with pytest.raises(ImageError, match=r"clip\.gif: expected 5 frames"):
            write_animation(animation, wrong, target)
    with pytest.raises(ImageError, match="gif, webp or png"):
        write_animation(animation, frames, None, format="jpeg")
    with pytest.raises(WriteError):
        write_animation(animation, frames, tmp_path, format="gif")
    assert not any(tmp_path.iterdir())
    write_animation(animation, frames, target)
    assert read_animation(target).frames == 5


def test_memory_does_not_grow_with_the_number_of_frames(tmp_path: Path) -> None:
    """Python's and numpy's memory while 5 and 40 frames are written."""
    peaks = []
    for count in (5, 40):
        frames = [Image.fromarray(np.full((200, 300, 3), 5 * step, np.uint8)) for step in range(count)]
        data = make(frames, "PNG", duration=40)
        del frames
        animation = read_animation(data)
        gc.collect()
        tracemalloc.start()
        write_animation(animation, edited(animation), tmp_path / f"{count}.gif")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
