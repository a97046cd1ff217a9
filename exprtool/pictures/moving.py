"""Pictures that move: GIF, WebP and PNG, read and written frame by frame in bounded memory.

Frames are whole, composited pictures. Durations, repetitions, transparency and metadata are kept; unedited pixels keep
their bits in lossless formats. Frames are written as the smallest rectangle that changed.

Pillow decodes, and compresses the single frames. What stands around them is written here: Pillow (and imageio, whose
plugin for these formats is Pillow) keeps every frame in memory until the last one is there, and chooses palettes
without knowing which colours must stay.
"""

from __future__ import annotations

import io
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from exprtool.errors import ImageError
from exprtool.files import atomic_write
from exprtool.pictures import containers
from exprtool.pictures.gif import GifWriter
from exprtool.pictures.photo import Photo
from exprtool.pictures.reading import decode_frames, read_first_frame
from exprtool.pictures.writing import DEFAULT_QUALITY, LOSSLESS_WEBP, PNG_LEVEL, output_format, png_metadata
from exprtool.types import Image, IntBox

FORMATS = ("GIF", "WEBP", "PNG")
_GIF_UNIT = 10
"""Milliseconds in which GIF counts."""
_GIF_SHORTEST = 2
"""Browsers show a frame of less than 2 hundredths of a second for 10."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One whole frame: ``photo`` as `exprtool.images` would have it, shown for ``duration`` milliseconds."""

    photo: Photo
    duration: float

    @property
    def rgb(self) -> Image:
        return self.photo.rgb


@dataclass(frozen=True, eq=False)
class Animation:
    """An animated picture; iterating decodes its frames one by one, as often as wanted.

    ``photo`` is the first frame with the metadata of the whole, ``loop`` the number of repetitions (0: for ever, None:
    played once). ``still_first`` says that the first frame is only shown by programs that cannot play the rest (PNG).
    """

    data: bytes
    photo: Photo
    frames: int
    loop: int | None
    still_first: bool = False

    @property
    def name(self) -> str:
        return self.photo.name

    def __iter__(self) -> Iterator[Frame]:
        for photo, duration in decode_frames(self.data, self.photo):
            yield Frame(photo, duration)


def read_animation(source: Path | str | bytes, *, name: str | None = None) -> Animation:
    """Open an animated GIF, WebP or PNG; a still one counts as one frame. Raises `ImageError` as `read_image` does."""
    first = read_first_frame(source, name=name)
    photo = first.photo
    if photo.format not in FORMATS:
        raise ImageError(
            f"{photo.name}: moving {photo.format} pictures cannot be written; convert it to GIF, WebP or PNG first."
        )
    return Animation(first.data, photo, first.frames, first.loop, first.still_first)


def write_animation(
    animation: Animation,
    edited: Iterable[Image],
    target: Path | None,
    *,
    format: str | None = None,
    quality: int | None = None,
    xmp: bytes | None = None,
) -> bytes | None:
    """Write the frames ``edited``, one (H, W, 3) uint8 for every frame of ``animation`` and in its order.

    The iterable is consumed one by one. The other arguments are those of `exprtool.images.write_image`; formats are
    GIF, WebP and PNG. Raises `ImageError` where the number or size of frames differs, `WriteError` as there.
    """
    kind = output_format(animation.photo, target, format)
    if kind not in FORMATS:
        raise ImageError(f"{animation.name}: {kind} cannot hold an animation; choose --format gif, webp or png.")
    if target is None:
        buffer = io.BytesIO()
        _write(animation, edited, buffer, kind, quality, xmp)
        return buffer.getvalue()
    with atomic_write(target) as temporary, temporary.open("wb") as file:
        _write(animation, edited, file, kind, quality, xmp)
    return None


@dataclass(frozen=True, eq=False)
class Course:
    """How a moving picture plays, and what stands around its frames.

    ``photo`` gives size and metadata, and says by ``lossless`` how a WebP without ``quality`` is compressed; ``alpha``
    says that frames may be transparent. ``frames`` counts those that will be written; the rest is as in `Animation`.
    """

    photo: Photo
    frames: int
    loop: int | None
    alpha: bool
    still_first: bool = False


class FrameWriter(ABC):
    """Takes the frames of a moving picture one by one."""

    @abstractmethod
    def add(self, values: NDArray[np.uint8], duration: float, edited: NDArray[np.bool_] | None = None) -> None:
        """Append a frame, RGB (H, W, 3) or RGBA (H, W, 4), shown for ``duration`` milliseconds.

        ``edited`` (H, W) marks pixels whose colours may be approximated where a palette does not suffice.
        """

    @abstractmethod
    def close(self) -> None:
        """Write what stands behind the frames; the file stays open."""


def frame_writer(
    file: BinaryIO, kind: str, course: Course, *, xmp: bytes | None = None, quality: float | None = None
) -> FrameWriter:
    """A writer of one of the `FORMATS` into an open, seekable file. ``quality`` (1 to 100, lossless) is WebP's."""
    if kind == "GIF":
        return _GifFrames(file, course, xmp)
    if kind == "WEBP":
        return _WebpFrames(file, course, xmp, quality)
    return _PngFrames(file, course, xmp)


def frame_durations(kind: str, times: Sequence[float]) -> list[int]:
    """For how many milliseconds each frame is shown that begins at ``times[i]`` and ends at ``times[i + 1]`` (s).

    Rounding does not add up. In a GIF no frame is shorter than 20 ms; one that would be is left out, with duration 0.
    """
    unit = _GIF_UNIT if kind == "GIF" else 1
    ticks = [round(time * 1000 / unit) for time in times]
    shortest = _GIF_SHORTEST if kind == "GIF" else 0
    durations = [0] * (len(times) - 1)
    shown = 0
    for i in range(1, len(durations)):
        if ticks[i] - ticks[shown] >= shortest:
            durations[shown] = (ticks[i] - ticks[shown]) * unit
            shown = i
    if durations:
        durations[shown] = max(shortest, ticks[-1] - ticks[shown]) * unit
    return durations


def _write(
    animation: Animation, edited: Iterable[Image], file: BinaryIO, kind: str, quality: int | None, xmp: bytes | None
) -> None:
    photo = animation.photo
    alpha = photo.samples.alpha or (kind == "PNG" and photo.format != "PNG")
    course = Course(photo, animation.frames, animation.loop, alpha, animation.still_first)
    packet = photo.xmp if xmp is None else xmp
    with closing(frame_writer(file, kind, course, xmp=packet, quality=quality)) as writer:
        count = 0
        originals = iter(animation)
        for rgb in edited:
            frame = next(originals, None)
            if frame is None or rgb.shape != frame.rgb.shape or rgb.dtype != np.uint8:
                expected = f"{animation.frames} frames of {animation.photo.rgb.shape} uint8"
                raise ImageError(f"{animation.name}: expected {expected}, got frame {count + 1} of {rgb.shape}.")
            changed = (rgb != frame.rgb).any(axis=2)
            samples = frame.photo.samples.edited(frame.rgb, rgb, changed).in_8_bits().in_colour()
            writer.add(np.asarray(samples.values, np.uint8), frame.duration, changed)
            count += 1
        if count != animation.frames:
            raise ImageError(f"{animation.name}: expected {animation.frames} frames, got {count}.")


class _GifFrames(FrameWriter):
    def __init__(self, file: BinaryIO, course: Course, packet: bytes | None) -> None:
        self._gif = GifWriter(file, course.photo.size, loop=course.loop, xmp=packet)
        self._transparent = course.alpha

    def add(self, values: NDArray[np.uint8], duration: float, edited: NDArray[np.bool_] | None = None) -> None:
        opaque = values[..., 3] >= 128 if values.shape[2] == 4 else None
        self._transparent |= opaque is not None and not opaque.all()
        self._gif.add(values[..., :3], opaque, edited=edited, duration=duration, transparent_later=self._transparent)

    def close(self) -> None:
        self._gif.close()


class _Difference:
    """The rectangle in which a frame differs from the one before it."""

    def __init__(self) -> None:
        self._last: NDArray[np.generic] | None = None

    def box(self, values: NDArray[np.generic]) -> IntBox:
        """The smallest box with even corners (WebP places frames so) around what changed; the whole first frame."""
        last, self._last = self._last, values.copy()
        height, width = values.shape[:2]
        if last is None or last.shape != values.shape:
            return 0, 0, width, height
        changed = (values != last).any(axis=2)
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        if not len(rows):
            return 0, 0, 1, 1
        return int(columns[0]) & ~1, int(rows[0]) & ~1, int(columns[-1]) + 1, int(rows[-1]) + 1


class _WebpFrames(FrameWriter):
    """RIFF container of WebP: one ANMF chunk per frame, sizes filled in at the end (RFC 9649, section 2.7)."""

    def __init__(self, file: BinaryIO, course: Course, packet: bytes | None, quality: float | None) -> None:
        photo = course.photo
        self._file, self._start = file, file.tell()
        self._lossless = quality >= 100 if quality is not None else photo.lossless
        self._quality = DEFAULT_QUALITY if quality is None else round(quality)
        self._difference = _Difference()
        self._tail = (self._chunk(b"EXIF", photo.exif) if photo.exif else b"") + (
            self._chunk(b"XMP ", packet) if packet else b""
        )
        profile = photo.icc if not photo.samples.grey else None
        flags = 0x12 | (0x20 if profile else 0) | (0x08 if photo.exif else 0) | (0x04 if packet else 0)
        height, width = photo.size
        file.write(b"RIFF\0\0\0\0WEBP")
        file.write(self._chunk(b"VP8X", struct.pack("<I", flags) + _three(width - 1) + _three(height - 1)))
        if profile:
            file.write(self._chunk(b"ICCP", profile))
        loop = 1 if course.loop is None else min(course.loop, 0xFFFF)
        file.write(self._chunk(b"ANIM", struct.pack("<IH", 0, loop)))

    def add(self, values: NDArray[np.uint8], duration: float, edited: NDArray[np.bool_] | None = None) -> None:
        x0, y0, x1, y1 = self._difference.box(values)
        picture = PillowImage.fromarray(np.ascontiguousarray(values[y0:y1, x0:x1]))
        buffer = io.BytesIO()
        if self._lossless:
            picture.save(buffer, "WEBP", **LOSSLESS_WEBP)
        else:
            picture.save(buffer, "WEBP", quality=self._quality, exact=True)
        place = _three(x0 // 2) + _three(y0 // 2) + _three(x1 - x0 - 1) + _three(y1 - y0 - 1)
        header = place + _three(min(round(duration), 0xFFFFFF)) + b"\x02"  # replaces what is under it
        self._file.write(self._chunk(b"ANMF", header + _webp_picture(buffer.getvalue())))

    def close(self) -> None:
        self._file.write(self._tail)
        end = self._file.tell()
        self._file.seek(self._start + 4)
        self._file.write(struct.pack("<I", end - self._start - 8))
        self._file.seek(end)

    @staticmethod
    def _chunk(kind: bytes, payload: bytes) -> bytes:
        return kind + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) % 2)


def _three(number: int) -> bytes:
    return number.to_bytes(3, "little")


def _webp_picture(data: bytes) -> bytes:
    """The chunks of a still WebP that hold its picture."""
    position, kept = 12, b""
    while position + 8 <= len(data):
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        end = position + 8 + length + length % 2
        if data[position : position + 4] in (b"ALPH", b"VP8 ", b"VP8L"):
            kept += data[position:end]
        position = end
    return kept


class _PngFrames(FrameWriter):
    """Animated PNG: the first frame in IDAT, the others in fdAT (PNG 3rd edition, section 11.3.6)."""

    def __init__(self, file: BinaryIO, course: Course, packet: bytes | None) -> None:
        self._file, self._course, self._packet = file, course, packet
        self._sequence, self._count = 0, 0
        self._difference = _Difference()

    def add(self, values: NDArray[np.uint8], duration: float, edited: NDArray[np.bool_] | None = None) -> None:
        course = self._course
        if course.alpha and values.shape[2] == 3:  # every frame has the header's one form
            values = np.concatenate([values, np.full((*values.shape[:2], 1), 255, dtype=np.uint8)], axis=2)
        x0, y0, x1, y1 = self._difference.box(values)
        buffer = io.BytesIO()
        picture = PillowImage.fromarray(np.ascontiguousarray(values[y0:y1, x0:x1]))
        picture.save(buffer, "PNG", compress_level=PNG_LEVEL)
        chunks = list(containers.png_chunks(buffer.getvalue()))
        if self._count == 0:
            self._file.write(containers.PNG_SIGNATURE + containers.png_chunk(*chunks[0]))
            frames = course.frames - course.still_first
            plays = 1 if course.loop is None else course.loop
            self._file.write(containers.png_chunk(b"acTL", struct.pack(">II", frames, plays)))
            for chunk in png_metadata(course.photo, self._packet):
                self._file.write(containers.png_chunk(*chunk))
        if not (self._count == 0 and course.still_first):
            unit = next((one for one in (1000, 100, 10) if duration * one / 1000 <= 0xFFFF), 1)  # ticks per second
            delay = struct.pack(">HH", min(round(duration * unit / 1000), 0xFFFF), unit)
            place = struct.pack(">IIIII", self._next(), x1 - x0, y1 - y0, x0, y0)
            self._file.write(containers.png_chunk(b"fcTL", place + delay + b"\0\0"))
        for kind, payload in chunks:
            if kind == b"IDAT" and self._count == 0:
                self._file.write(containers.png_chunk(b"IDAT", payload))
            elif kind == b"IDAT":
                self._file.write(containers.png_chunk(b"fdAT", struct.pack(">I", self._next()) + payload))
        if self._count == 0 and course.still_first:
            self._difference = _Difference()  # what it shows is not part of the animation
        self._count += 1

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence - 1

    def close(self) -> None:
        self._file.write(containers.png_chunk(b"IEND", b""))
