"""Pictures that move: GIF, WebP and PNG, read and written frame by frame in bounded memory.

Frames are whole, composited pictures. Durations, repetitions, transparency and metadata are kept; unedited pixels keep
their bits in lossless formats. Frames are written as the smallest rectangle that changed.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from exprtool.errors import ImageError
from exprtool.files import atomic_write
from exprtool.pictures import containers
from exprtool.pictures.gif import GifWriter
from exprtool.pictures.photo import Photo
from exprtool.pictures.reading import decode_frames, read_first_frame
from exprtool.pictures.samples import Samples
from exprtool.pictures.writing import DEFAULT_QUALITY, LOSSLESS_WEBP, PNG_LEVEL, output_format, png_metadata
from exprtool.types import Image, IntBox

FORMATS = ("GIF", "WEBP", "PNG")


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


class _Writer(Protocol):
    def add(self, samples: Samples, edited: NDArray[np.bool_], duration: float) -> None: ...

    def close(self) -> None: ...


def _write(
    animation: Animation, edited: Iterable[Image], file: BinaryIO, kind: str, quality: int | None, xmp: bytes | None
) -> None:
    packet = animation.photo.xmp if xmp is None else xmp
    make = {"GIF": _GifFrames, "WEBP": _WebpFrames, "PNG": _PngFrames}[kind]
    with closing(make(file, animation, packet, quality)) as writer:
        count = 0
        originals = iter(animation)
        for rgb in edited:
            frame = next(originals, None)
            if frame is None or rgb.shape != frame.rgb.shape or rgb.dtype != np.uint8:
                expected = f"{animation.frames} frames of {animation.photo.rgb.shape} uint8"
                raise ImageError(f"{animation.name}: expected {expected}, got frame {count + 1} of {rgb.shape}.")
            changed = (rgb != frame.rgb).any(axis=2)
            writer.add(frame.photo.samples.edited(frame.rgb, rgb, changed), changed, frame.duration)
            count += 1
        if count != animation.frames:
            raise ImageError(f"{animation.name}: expected {animation.frames} frames, got {count}.")


class _GifFrames:
    def __init__(self, file: BinaryIO, animation: Animation, packet: bytes | None, quality: int | None) -> None:
        self._gif = GifWriter(file, animation.photo.size, loop=animation.loop, xmp=packet)
        self._transparent = animation.photo.samples.alpha

    def add(self, samples: Samples, edited: NDArray[np.bool_], duration: float) -> None:
        opaque = samples.values[..., -1] >= 128 if samples.alpha else None
        self._transparent |= opaque is not None and not opaque.all()
        self._gif.add(
            samples.in_8_bits().in_colour().rgb(),
            opaque,
            edited=edited,
            duration=duration,
            transparent_later=self._transparent,
        )

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


class _WebpFrames:
    """RIFF container of WebP: one ANMF chunk per frame, sizes filled in at the end (RFC 9649, section 2.7)."""

    def __init__(self, file: BinaryIO, animation: Animation, packet: bytes | None, quality: int | None) -> None:
        photo = animation.photo
        self._file, self._start = file, file.tell()
        self._lossless = photo.lossless and quality is None
        self._quality = quality or DEFAULT_QUALITY
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
        loop = 1 if animation.loop is None else min(animation.loop, 0xFFFF)
        file.write(self._chunk(b"ANIM", struct.pack("<IH", 0, loop)))

    def add(self, samples: Samples, edited: NDArray[np.bool_], duration: float) -> None:
        values = samples.in_8_bits().in_colour().values
        height, width = values.shape[:2]
        # A lossy frame differs from its predecessor everywhere, if only by a little.
        x0, y0, x1, y1 = self._difference.box(values) if self._lossless else (0, 0, width, height)
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


class _PngFrames:
    """Animated PNG: the first frame in IDAT, the others in fdAT (PNG 3rd edition, section 11.3.6)."""

    def __init__(self, file: BinaryIO, animation: Animation, packet: bytes | None, quality: int | None) -> None:
        self._file, self._animation, self._packet = file, animation, packet
        self._sequence, self._count = 0, 0
        self._difference = _Difference()
        self._alpha = animation.photo.samples.alpha or animation.photo.format != "PNG"

    def add(self, samples: Samples, edited: NDArray[np.bool_], duration: float) -> None:
        photo = self._animation.photo
        values = samples.in_8_bits().in_colour().values
        if self._alpha and values.shape[2] == 3:  # every frame has the header's one form
            values = np.concatenate([values, np.full((*values.shape[:2], 1), 255, dtype=np.uint8)], axis=2)
        x0, y0, x1, y1 = self._difference.box(values)
        buffer = io.BytesIO()
        picture = PillowImage.fromarray(np.ascontiguousarray(values[y0:y1, x0:x1]))
        picture.save(buffer, "PNG", compress_level=PNG_LEVEL)
        chunks = list(containers.png_chunks(buffer.getvalue()))
        if self._count == 0:
            self._file.write(containers.PNG_SIGNATURE + containers.png_chunk(*chunks[0]))
            frames = self._animation.frames - self._animation.still_first
            plays = 1 if self._animation.loop is None else self._animation.loop
            self._file.write(containers.png_chunk(b"acTL", struct.pack(">II", frames, plays)))
            for chunk in png_metadata(photo, self._packet):
                self._file.write(containers.png_chunk(*chunk))
        if not (self._count == 0 and self._animation.still_first):
            delay = struct.pack(">HH", min(round(duration), 0xFFFF), 1000)
            place = struct.pack(">IIIII", self._next(), x1 - x0, y1 - y0, x0, y0)
            self._file.write(containers.png_chunk(b"fcTL", place + delay + b"\0\0"))
        for kind, payload in chunks:
            if kind == b"IDAT" and self._count == 0:
                self._file.write(containers.png_chunk(b"IDAT", payload))
            elif kind == b"IDAT":
                self._file.write(containers.png_chunk(b"fdAT", struct.pack(">I", self._next()) + payload))
        if self._count == 0 and self._animation.still_first:
            self._difference = _Difference()  # what it shows is not part of the animation
        self._count += 1

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence - 1

    def close(self) -> None:
        self._file.write(containers.png_chunk(b"IEND", b""))
