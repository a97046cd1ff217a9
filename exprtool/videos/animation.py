"""GIF and animated WebP, frame by frame: read with Pillow, written in one pass with memory for a single frame."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from exprtool.errors import VideoError
from exprtool.types import Image
from exprtool.videos.clip import ClipInfo
from exprtool.videos.picture import ArrayPicture
from exprtool.videos.reader import ClipFrame

MILLISECOND = Fraction(1, 1000)
_TRANSPARENT = 255
_PALETTE_SAMPLE = 20_000


def probe_animation(path: Path) -> ClipInfo:
    """What a GIF or WebP is. A still picture is refused: it belongs to ``exprtool edit`` or ``exprtool animate``."""
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    if not path.exists():
        raise VideoError(f"{path}: there is no such file. Check the path.")
    try:
        with Pillow.open(path) as image:
            frames = int(getattr(image, "n_frames", 1))
            width, height = image.size
            kind = str(image.format or "?")
            alpha = image.has_transparency_data
            loop = image.info.get("loop")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise VideoError(
            f"{path}: cannot be read as a GIF or WebP ({error}). The file is damaged or of another kind."
        ) from error
    if frames < 2:
        raise VideoError(
            f"{path}: is a still picture, not a clip. Use `exprtool edit`, or `exprtool animate` to move it."
        )
    return ClipInfo(
        path=path, container=kind.lower(), codec=kind.lower(), height=height, width=width,
        pix_fmt="rgba" if alpha else "rgb24", time_base=MILLISECOND, rate=None, frames=frames, duration=None,
        start=0.0, animation=True, streams=(f"video {kind.lower()}",), loop=1 if loop is None else int(loop),
    )  # fmt: skip


def read_animation(info: ClipInfo) -> Iterator[ClipFrame]:
    """Every composed frame with its time in milliseconds; frames that a damaged file lacks end it."""
    from PIL import Image as Pillow

    mode = "RGBA" if info.pix_fmt == "rgba" else "RGB"
    time = 0
    with Pillow.open(info.path) as image:
        for index in range(info.frames or 0):
            try:
                image.seek(index)
                image.load()
            except (EOFError, OSError, SyntaxError) as error:
                if index == 0:
                    raise VideoError(
                        f"{info.path}: its first frame does not decode ({error}). The file is damaged."
                    ) from error
                return
            duration = int(image.info.get("duration", 0))
            yield ClipFrame(index, time, duration, ArrayPicture(np.array(image.convert(mode))))
            time += max(duration, 1)


class GifWriter:
    """Write a GIF frame by frame.

    Each frame stores only the rectangle that changed, the pixels in it that did not change are transparent, and the
    palette is made for the others alone: up to 255 new colours per frame are stored exactly, more are reduced by
    median cut without dithering (dither patterns would crawl over a face that hardly moves). What an earlier frame
    could not show exactly is mended as soon as a frame has room for it, and else stands as it is: drawn anew with every
    palette it would shimmer. A clip that is itself transparent in places is stored frame by frame, whole.
    """

    def __init__(self, file: BinaryIO, height: int, width: int, loop: int = 0) -> None:
        self._file = file
        self._shown: NDArray[np.uint8] | None = None
        self._meant: NDArray[np.uint8] | None = None
        file.write(b"GIF89a" + struct.pack("<HHBBB", width, height, 0x70, 0, 0))
        if loop != 1:
            file.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<H", max(0, loop)) + b"\x00")

    def add(self, pixels: NDArray[np.uint8], centiseconds: int) -> None:
        """Append one frame, RGB (H, W, 3) or RGBA (H, W, 4), shown for so many hundredths of a second."""
        if pixels.shape[2] == 4 and bool((pixels[..., 3] < 128).any()):
            indices, palette = _indexed(pixels[..., :3], pixels[..., 3] >= 128)
            self._write(indices, palette, (0, 0), centiseconds, disposal=2)
            self._shown = self._meant = None
            return
        rgb = pixels[..., :3]
        changed = self._changed(rgb)
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        if rows.size == 0:  # nothing moved: a single transparent pixel carries the time
            y0, y1, x0, x1 = 0, 1, 0, 1
        else:
            y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        mask = changed[y0:y1, x0:x1]
        indices, palette = _indexed(rgb[y0:y1, x0:x1], mask)
        shown = np.zeros_like(rgb) if self._shown is None else self._shown
        shown[y0:y1, x0:x1][mask] = palette[indices[mask]]
        self._shown, self._meant = shown, rgb.copy()
        self._write(indices, palette, (x0, y0), centiseconds, disposal=1)

    def _changed(self, rgb: Image) -> NDArray[np.bool_]:
        """The pixels (H, W) to be drawn: those that are others than in the frame before, and those to be mended."""
        if self._shown is None or self._meant is None:
            return np.ones(rgb.shape[:2], bool)
        changed = np.any(rgb != self._meant, axis=2)
        wrong = np.any(rgb != self._shown, axis=2)
        fits = len(np.unique(_packed(rgb[wrong]))) <= _TRANSPARENT
        return wrong if fits else changed

    def _write(
        self,
        indices: NDArray[np.uint8],
        palette: NDArray[np.uint8],
        corner: tuple[int, int],
        centiseconds: int,
        disposal: int,
    ) -> None:
        from PIL import GifImagePlugin
        from PIL import Image as Pillow

        frame = Pillow.fromarray(np.ascontiguousarray(indices))
        frame.putpalette(palette.tobytes())
        blocks = GifImagePlugin.getdata(
            frame,
            corner,
            duration=min(centiseconds, 65535) * 10,
            transparency=_TRANSPARENT,
            disposal=disposal,
            include_color_table=True,
        )
        for block in blocks:
            self._file.write(block)

    def close(self) -> None:
        """Write the trailer; the file stays open."""
        self._file.write(b";")


def _packed(colours: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """One number per colour (n, 3)."""
    red, green, blue = (colours[:, k].astype(np.uint32) for k in range(3))
    return np.asarray(red << 16 | green << 8 | blue, np.uint32)


def _indexed(rgb: Image, mask: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Palette indices (h, w) of the masked pixels, `_TRANSPARENT` elsewhere, and the palette (256, 3)."""
    from PIL import Image as Pillow
    from scipy.spatial import KDTree

    indices = np.full(mask.shape, _TRANSPARENT, np.uint8)
    palette = np.zeros((256, 3), np.uint8)
    wanted = rgb[mask]  # (n, 3)
    if wanted.size == 0:
        return indices, palette
    packed = _packed(wanted)
    colours, inverse = np.unique(packed, return_inverse=True)
    if colours.size <= _TRANSPARENT:
        palette[: colours.size] = np.stack([colours >> 16, (colours >> 8) & 255, colours & 255], axis=1)
        indices[mask] = inverse.reshape(-1)
    else:
        # The palette is found on a sample and refined (k-means); each colour then takes its nearest entry, in cells of
        # four levels a side. This is 25 times as fast as refining on all pixels, and within 10 % of its error.
        sample = wanted[:: max(1, len(wanted) // _PALETTE_SAMPLE)]
        reduced = Pillow.fromarray(np.ascontiguousarray(sample[None])).quantize(
            _TRANSPARENT, Pillow.Quantize.MEDIANCUT, kmeans=1, dither=Pillow.Dither.NONE
        )
        table = np.array(reduced.getpalette(), np.uint8).reshape(-1, 3)[:_TRANSPARENT]
        palette[: len(table)] = table
        cells, inverse = np.unique(packed & 0xFCFCFC, return_inverse=True)
        centres = np.stack([cells >> 16, (cells >> 8) & 255, cells & 255], axis=1) + 1.5
        nearest = np.asarray(KDTree(table.astype(np.float64)).query(centres)[1])
        indices[mask] = nearest[inverse.reshape(-1)]
    return indices, palette


class AnimationWriter(Protocol):
    """Takes the frames of an animation one by one; their times were given when it was opened."""

    def add(self, pixels: NDArray[np.uint8]) -> None: ...


@contextmanager
def open_writer(
    kind: str,
    file: BinaryIO,
    height: int,
    width: int,
    times: Sequence[float],
    loop: int = 0,
    quality: float | None = None,
) -> Iterator[AnimationWriter]:
    """A writer for ``kind`` "gif" or "webp" of frames (H, W, 3 or 4) shown from ``times[i]`` to ``times[i + 1]`` (s).

    ``loop`` is how often it plays, 0 for ever. ``quality`` from 1 to 100 matters for WebP alone; 100 is lossless.
    """
    writer = (
        _TimedGif(file, height, width, times, loop)
        if kind == "gif"
        else _WebP(file, height, width, times, loop, quality)
    )
    yield writer
    writer.close()


def gif_durations(times: Sequence[float]) -> list[int]:
    """How long each frame is shown, in hundredths of a second, 0 for one that is left out.

    Rounding does not add up, and no frame is shorter than 2: browsers slow down anything faster than 50 per second.
    """
    ticks = [round(time * 100) for time in times]
    durations = [0] * (len(times) - 1)
    shown = 0
    for i in range(1, len(durations)):
        if ticks[i] - ticks[shown] >= 2:
            durations[shown] = ticks[i] - ticks[shown]
            shown = i
    if durations:
        durations[shown] = max(2, ticks[-1] - ticks[shown])
    return durations


class _TimedGif:
    def __init__(self, file: BinaryIO, height: int, width: int, times: Sequence[float], loop: int) -> None:
        self._writer = GifWriter(file, height, width, loop)
        self._durations = iter(gif_durations(times))

    def add(self, pixels: NDArray[np.uint8]) -> None:
        duration = next(self._durations)
        if duration:
            self._writer.add(pixels, duration)

    def close(self) -> None:
        self._writer.close()


class _WebP:
    """Animated WebP through libwebp: only compressed frames are kept in memory."""

    def __init__(
        self, file: BinaryIO, height: int, width: int, times: Sequence[float], loop: int, quality: float | None
    ) -> None:
        import av

        self._out = av.open(file, "w", format="webp", container_options={"loop": str(loop)})
        stream = self._out.add_stream("libwebp_anim", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "bgra"
        context = stream.codec_context
        context.time_base = MILLISECOND
        lossless = quality is not None and quality >= 100
        context.options = {"lossless": "1" if lossless else "0", "quality": f"{90 if quality is None else quality:g}"}
        self._stream: Any = stream
        self._times = times
        self._count = 0

    def add(self, pixels: NDArray[np.uint8]) -> None:
        from av import VideoFrame

        if pixels.shape[2] == 3:
            pixels = np.concatenate([pixels, np.full((*pixels.shape[:2], 1), 255, np.uint8)], axis=2)
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgba").reformat(format="bgra")
        begin, end = (round(1000 * self._times[self._count + k]) for k in (0, 1))
        frame.pts, frame.duration, frame.time_base = begin, end - begin, MILLISECOND
        self._out.mux(self._stream.encode(frame))
        self._count += 1

    def close(self) -> None:
        self._out.mux(self._stream.encode(None))
        self._out.close()
