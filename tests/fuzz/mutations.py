"""Small healthy photos and clips, and what a bad disk, a broken download or a person who means harm makes of them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

PORTRAIT = Path(__file__).resolve().parents[2] / "examples" / "astronaut.jpg"
_NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF)
"""Lengths and offsets at which readers go wrong."""


def portrait(side: int = 224) -> Image.Image:
    """A face that every detector finds, ``side`` pixels square."""
    with Image.open(PORTRAIT) as photo:
        width = min(photo.size)
        return photo.convert("RGB").crop((0, 0, width, width)).resize((side, side), Image.Resampling.LANCZOS)


def photos() -> dict[str, bytes]:
    """A healthy photo for each format and way of packing, by file name."""
    face, exif = portrait(), Image.Exif()
    exif[0x010E], exif[0x0112] = "a portrait", 1
    ways: dict[str, dict[str, object]] = {
        "baseline.jpg": {"quality": 85, "exif": exif},
        "progressive.jpg": {"quality": 85, "progressive": True, "exif": exif},
        "plain.png": {"exif": exif},
        "photo.webp": {"quality": 80, "exif": exif},
        "lossless.webp": {"lossless": True},
        "lzw.tif": {"compression": "tiff_lzw"},
        "deflate.tif": {"compression": "tiff_adobe_deflate"},
        "raw.tif": {},
        "photo.bmp": {},
        "photo.gif": {},
        "photo.avif": {"quality": 70},
    }
    made = {}
    for name, way in ways.items():
        kind = {"jpg": "JPEG", "tif": "TIFF"}.get(name.rpartition(".")[2], name.rpartition(".")[2].upper())
        file = io.BytesIO()
        face.save(file, kind, **way)
        made[name] = file.getvalue()
    return made


def clips(folder: Path, frames: int = 6) -> dict[str, bytes]:
    """A healthy clip of a few frames for each container and codec that this build of FFmpeg writes, by file name."""
    import av

    face = np.asarray(portrait(176))
    made = {}
    for name, codec, form in (
        ("avc.mp4", "libx264", "yuv420p"), ("matroska.mkv", "libx264", "yuv420p"), ("part2.mov", "mpeg4", "yuv420p"),
        ("vp9.webm", "libvpx-vp9", "yuv420p"), ("stream.ts", "libx264", "yuv420p"), ("motion.avi", "mjpeg", "yuvj420p"),
    ):  # fmt: skip
        with av.open(str(folder / name), "w") as out:
            stream = out.add_stream(codec, rate=10)
            stream.width, stream.height, stream.pix_fmt = 176, 176, form  # type: ignore[attr-defined]
            for number in range(frames):
                frame = av.VideoFrame.from_ndarray(np.roll(face, 2 * number, axis=1), format="rgb24")
                out.mux(stream.encode(frame))  # type: ignore[attr-defined]
            out.mux(stream.encode())  # type: ignore[attr-defined]
        made[name] = (folder / name).read_bytes()
    return made


def mutated(healthy: dict[str, bytes], count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """``count`` files that are each healthy but for one to four changes; the same for the same seed."""
    for number in range(count):
        random = np.random.default_rng((seed, number))
        name = list(healthy)[number % len(healthy)]
        data = bytearray(healthy[name])
        for _ in range(int(random.integers(1, 5))):
            _CHANGES[int(random.integers(len(_CHANGES)))](data, random)
        stem, _, suffix = name.rpartition(".")
        yield f"{number:05}-{stem}.{suffix}", bytes(data)


def _place(data: bytearray, random: np.random.Generator) -> int:
    """A place in the file: half of the time in its head, where sizes and offsets stand."""
    reach = min(len(data), 400) if random.random() < 0.5 else len(data)
    return int(random.integers(max(1, reach)))


def _flip(data: bytearray, random: np.random.Generator) -> None:
    for _ in range(int(random.integers(1, 9))):
        if data:
            data[_place(data, random)] ^= 1 << int(random.integers(8))


def _number(data: bytearray, random: np.random.Generator) -> None:
    at, size = _place(data, random), int(random.choice([1, 2, 4]))
    value = int(random.choice(_NUMBERS)) & (256**size - 1)
    data[at : at + size] = value.to_bytes(size, "big" if random.random() < 0.5 else "little")


def _noise(data: bytearray, random: np.random.Generator) -> None:
    at, size = _place(data, random), int(random.integers(1, 200))
    data[at : at + size] = random.bytes(min(size, len(data) - at)) if at < len(data) else b""


def _cut(data: bytearray, random: np.random.Generator) -> None:
    del data[int(random.integers(len(data) + 1)) :]


def _remove(data: bytearray, random: np.random.Generator) -> None:
    at = _place(data, random)
    del data[at : at + int(random.integers(1, 500))]


def _repeat(data: bytearray, random: np.random.Generator) -> None:
    at = _place(data, random)
    data[at:at] = data[at : at + int(random.integers(1, 500))] * int(random.integers(1, 4))


_CHANGES = (_flip, _flip, _number, _number, _noise, _cut, _remove, _repeat)
