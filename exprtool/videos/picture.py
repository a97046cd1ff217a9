"""One decoded picture of a clip, in the samples it was decoded to.

The rule of the whole tool, that a pixel which the edit does not touch keeps its bits, is kept here for video: a clip's
own luma and chroma samples are never converted to RGB and back. A rectangle is *read* as RGB; after the edit the
*difference* of the two RGB rectangles is taken through the colour matrix and added to the samples. Where the difference
is zero so is what is added, whatever the bit depth.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exprtool.types import Image, IntBox
from exprtool.videos.orientation import Orientation

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

FULL_RANGE = 2
_PLANAR_YUV = re.compile(r"yuv(a)?(j)?(410|411|420|422|440|444)p(\d+le)?\Z|gray(\d+le)?\Z")
_PLANAR_RGB = re.compile(r"gbr(a)?p(\d+le)?\Z")
_PACKED_RGB = {"rgb24": (0, 1, 2, 3), "bgr24": (2, 1, 0, 3), "rgba": (0, 1, 2, 4), "bgra": (2, 1, 0, 4)}

# Formats whose samples only lie in another order; taking them apart loses nothing.
_LOSSLESS_PLANAR = {
    "nv12": "yuv420p", "nv21": "yuv420p", "nv16": "yuv422p", "nv24": "yuv444p", "nv42": "yuv444p",
    "yuyv422": "yuv422p", "uyvy422": "yuv422p", "yvyu422": "yuv422p", "nv20le": "yuv422p10le",
    "p010le": "yuv420p10le", "p012le": "yuv420p12le", "p016le": "yuv420p16le",
    "p210le": "yuv422p10le", "p212le": "yuv422p12le", "p216le": "yuv422p16le",
    "p410le": "yuv444p10le", "p412le": "yuv444p12le", "p416le": "yuv444p16le",
    "y210le": "yuv422p10le", "pal8": "rgba", "rgb0": "rgb24", "bgr0": "rgb24", "0rgb": "rgb24", "0bgr": "rgb24",
    "argb": "rgba", "abgr": "rgba", "monow": "gray", "monob": "gray",
}  # fmt: skip


def native(pix_fmt: str) -> bool:
    """Whether this module reads and writes the format as it is."""
    return bool(_PLANAR_YUV.match(pix_fmt) or _PLANAR_RGB.match(pix_fmt) or pix_fmt in _PACKED_RGB)


def working_format(pix_fmt: str) -> str:
    """The format in which pictures of a decoder's format are handled: itself, or the nearest that holds as much."""
    from av.video.format import VideoFormat

    if native(pix_fmt):
        return pix_fmt
    if pix_fmt in _LOSSLESS_PLANAR:
        return _LOSSLESS_PLANAR[pix_fmt]
    parts = VideoFormat(pix_fmt).components
    deep = max(part.bits for part in parts) > 8
    if VideoFormat(pix_fmt).is_rgb:
        return "gbrp16le" if deep else "rgba" if any(part.is_alpha for part in parts) else "rgb24"
    return "yuv444p16le" if deep else "yuv444p"


def luma_weights(colorspace: int, size: tuple[int, int]) -> tuple[float, float]:
    """(Kr, Kb) of ITU-T H.273 matrix coefficients; where a clip names none, by the custom: HD is BT.709, SD BT.601."""
    if colorspace in (1, 4, 5, 6, 7, 9, 10):
        return {
            1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114),
            7: (0.212, 0.087), 9: (0.2627, 0.0593), 10: (0.2627, 0.0593),
        }[colorspace]  # fmt: skip
    return (0.2126, 0.0722) if min(size) >= 720 else (0.299, 0.114)


def yuv_from_rgb(colorspace: int, size: tuple[int, int]) -> NDArray[np.float32]:
    """The 3x3 matrix from RGB in [0, 1] to Y in [0, 1] and Cb, Cr in [-0.5, 0.5]."""
    if colorspace == 8:  # YCgCo
        return np.array([[0.25, 0.5, 0.25], [-0.25, 0.5, -0.25], [0.5, 0.0, -0.5]], np.float32)
    red, blue = luma_weights(colorspace, size)
    luma = np.array([red, 1 - red - blue, blue])
    chroma_blue = (np.array([0, 0, 1]) - luma) / (2 * (1 - blue))
    chroma_red = (np.array([1, 0, 0]) - luma) / (2 * (1 - red))
    return np.stack([luma, chroma_blue, chroma_red]).astype(np.float32)


class Picture(ABC):
    """A picture that can be looked at and edited in upright coordinates. ``size`` is the upright (h, w)."""

    size: tuple[int, int]

    @abstractmethod
    def rgb(self) -> Image:
        """The whole picture, (H, W, 3); a fresh array."""

    @abstractmethod
    def luma(self) -> NDArray[np.uint8]:
        """Its brightness, (H, W) uint8, contiguous; what the tracker looks at."""

    @abstractmethod
    def read(self, box: IntBox) -> Image:
        """The pixels of an integer box within the picture, (h, w, 3); a fresh array."""

    @abstractmethod
    def write(self, box: IntBox, old: Image, new: Image) -> None:
        """Add what distinguishes ``new`` from ``old``, both (h, w, 3), to the samples of the box."""

    @abstractmethod
    def frame(self) -> VideoFrame:
        """The picture as a frame for an encoder, as it is stored (not upright)."""

    @abstractmethod
    def copy(self) -> Picture:
        """An independent copy."""

    @abstractmethod
    def beside(self, other: Picture) -> Picture:
        """A new picture twice as wide (upright): this one on the left, ``other`` on the right."""


class ArrayPicture(Picture):
    """A picture of an animation: RGB (H, W, 3) or RGBA (H, W, 4). ``edited`` (H, W) marks what was changed in it."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.pixels = pixels
        self.edited = np.zeros(pixels.shape[:2], np.bool_)
        self.size = pixels.shape[0], pixels.shape[1]

    def rgb(self) -> Image:
        return np.ascontiguousarray(self.pixels[..., :3]).copy()

    def luma(self) -> NDArray[np.uint8]:
        import cv2

        return np.asarray(cv2.cvtColor(np.ascontiguousarray(self.pixels[..., :3]), cv2.COLOR_RGB2GRAY), np.uint8)

    def read(self, box: IntBox) -> Image:
        x0, y0, x1, y1 = box
        return self.pixels[y0:y1, x0:x1, :3].copy()

    def write(self, box: IntBox, old: Image, new: Image) -> None:
        x0, y0, x1, y1 = box
        self.pixels[y0:y1, x0:x1, :3] = new
        self.edited[y0:y1, x0:x1] |= (old != new).any(axis=2)

    def frame(self) -> VideoFrame:
        from av import VideoFrame

        return VideoFrame.from_ndarray(
            np.ascontiguousarray(self.pixels), "rgba" if self.pixels.shape[2] == 4 else "rgb24"
        )

    def copy(self) -> ArrayPicture:
        same = ArrayPicture(self.pixels.copy())
        same.edited = self.edited.copy()
        return same

    def beside(self, other: Picture) -> ArrayPicture:
        right = other.pixels if isinstance(other, ArrayPicture) else other.rgb()
        channels = min(self.pixels.shape[2], right.shape[2])
        both = ArrayPicture(np.concatenate([self.pixels[..., :channels], right[..., :channels]], axis=1))
        if isinstance(other, ArrayPicture):
            both.edited = np.concatenate([self.edited, other.edited], axis=1)
        return both


class FramePicture(Picture):
    """A decoded frame in one of the `native` formats. Its planes are written in place, once made writable."""

    def __init__(self, frame: VideoFrame, orientation: Orientation, full_range: bool, colorspace: int) -> None:
        self._frame = frame
        self.orientation = orientation
        self.full_range = full_range
        self.colorspace = colorspace
        self.size = orientation.size(frame.height, frame.width)
        self._writable = False

    @cached_property
    def _bits(self) -> int:
        return max(part.bits for part in self._frame.format.components)

    @cached_property
    def _is_rgb(self) -> bool:
        return bool(self._frame.format.is_rgb)

    @cached_property
    def _matrix(self) -> NDArray[np.float32]:
        return yuv_from_rgb(self.colorspace, self.size)

    def _scales(self) -> tuple[float, float, float]:
        """(luma offset, luma scale, chroma scale): sample = offset + scale * value; H.273 equations 20 to 34."""
        unit = float(1 << (self._bits - 8))
        if self.full_range:
            top = (1 << self._bits) - 1.0
            return 0.0, top, top
        return 16 * unit, 219 * unit, 224 * unit

    def _plane(self, index: int) -> NDArray[Any]:
        """A plane's samples (h, w) or (h, w, channels) for packed RGB; a view into the frame."""
        plane = self._frame.planes[index]
        kind = np.dtype("<u2") if self._bits > 8 else np.dtype(np.uint8)
        rows = np.frombuffer(memoryview(plane), kind).reshape(plane.height, -1)
        if plane.line_size < 0:
            rows = rows[::-1]
        packed = _PACKED_RGB.get(self._frame.format.name)
        if packed:
            return rows[:, : plane.width * packed[3]].reshape(plane.height, plane.width, packed[3])
        return rows[:, : plane.width]

    def _planes_rgb(self) -> list[NDArray[Any]]:
        """Views of the red, green and blue samples of an RGB frame."""
        packed = _PACKED_RGB.get(self._frame.format.name)
        if packed:
            plane = self._plane(0)
            return [plane[..., channel] for channel in packed[:3]]
        green, blue, red = (self._plane(index) for index in range(3))
        return [red, green, blue]

    def _subsampling(self) -> tuple[int, int]:
        """How many luma samples one chroma sample spans, (vertically, horizontally)."""
        from av.video.format import VideoFormat

        name = self._frame.format.name
        wide = VideoFormat(name, 64, 64)
        return 64 // max(1, wide.chroma_height()), 64 // max(1, wide.chroma_width())

    def rgb(self) -> Image:
        height, width = self.size
        return self.read((0, 0, width, height))

    def luma(self) -> NDArray[np.uint8]:
        if self._is_rgb:
            red, green, blue = (plane.astype(np.float32) for plane in self._planes_rgb())
            luma = (0.299 * red + 0.587 * green + 0.114 * blue) / (1 << (self._bits - 8))
            stored = luma.astype(np.uint8)
        else:
            plane = self._plane(0)
            stored = plane if self._bits == 8 else (plane >> (self._bits - 8)).astype(np.uint8)
        return np.array(self.orientation.upright(stored), order="C")

    def read(self, box: IntBox) -> Image:
        x0, y0, x1, y1 = self.orientation.stored_box(box, self.size)
        if self._is_rgb:
            shift = self._bits - 8
            rgb = np.stack([(plane[y0:y1, x0:x1] >> shift).astype(np.uint8) for plane in self._planes_rgb()], -1)
        else:
            rgb = self._read_yuv(x0, y0, x1, y1)
        return np.array(self.orientation.upright(rgb), order="C")

    def _read_yuv(self, x0: int, y0: int, x1: int, y1: int) -> Image:
        import cv2

        offset, luma_scale, chroma_scale = self._scales()
        luma = (self._plane(0)[y0:y1, x0:x1].astype(np.float32) - offset) / luma_scale
        if len(self._frame.format.components) < 3:
            grey = np.clip(np.rint(luma * 255), 0, 255).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        down, across = self._subsampling()
        channels = [luma]
        # One chroma sample more on each side, so that the rectangle's border is interpolated as in the whole picture.
        cy0, cx0 = max(0, y0 // down - 1), max(0, x0 // across - 1)
        for index in (1, 2):
            plane = self._plane(index)
            cy1, cx1 = min(plane.shape[0], -(-y1 // down) + 1), min(plane.shape[1], -(-x1 // across) + 1)
            part = (plane[cy0:cy1, cx0:cx1].astype(np.float32) - (1 << (self._bits - 1))) / chroma_scale
            if (down, across) != (1, 1):
                size = part.shape[1] * across, part.shape[0] * down
                part = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_LINEAR), np.float32)
            top, left = y0 - cy0 * down, x0 - cx0 * across
            channels.append(part[top : top + y1 - y0, left : left + x1 - x0])
        rgb_from_yuv = np.linalg.inv(self._matrix.astype(np.float64)).astype(np.float32) * np.float32(255)
        rgb = cv2.transform(np.stack(channels, -1), rgb_from_yuv)
        return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)

    def write(self, box: IntBox, old: Image, new: Image) -> None:
        difference = self.orientation.stored(new.astype(np.int16) - old.astype(np.int16))
        changed = np.any(difference != 0, axis=2)
        if not changed.any():
            return
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        x0, y0, _, _ = self.orientation.stored_box(box, self.size)
        if not self._writable:
            self._frame.make_writable()
            self._writable = True
        part = difference[top:bottom, left:right]
        if self._is_rgb:
            shift = self._bits - 8
            for channel, plane in enumerate(self._planes_rgb()):
                _add(
                    plane,
                    int(y0 + top),
                    int(x0 + left),
                    part[..., channel].astype(np.float32) * (1 << shift),
                    self._bits,
                )
        else:
            self._write_yuv(int(y0 + top), int(x0 + left), part.astype(np.float32) / np.float32(255))

    def _write_yuv(self, y0: int, x0: int, difference: NDArray[np.float32]) -> None:
        _, luma_scale, chroma_scale = self._scales()
        yuv = difference @ self._matrix.T
        _add(self._plane(0), y0, x0, yuv[..., 0] * np.float32(luma_scale), self._bits)
        if len(self._frame.format.components) < 3:
            return
        down, across = self._subsampling()
        # Each chroma sample takes the mean over the luma samples that it spans; those outside the rectangle are zero.
        pad_top, pad_left = y0 % down, x0 % across
        height, width = yuv.shape[:2]
        pad_bottom, pad_right = -(pad_top + height) % down, -(pad_left + width) % across
        padded = np.pad(yuv[..., 1:], ((pad_top, pad_bottom), (pad_left, pad_right), (0, 0)))
        blocks = padded.reshape(padded.shape[0] // down, down, padded.shape[1] // across, across, 2)
        means = blocks.mean(axis=(1, 3)) * np.float32(chroma_scale)
        for index in (1, 2):
            _add(self._plane(index), y0 // down, x0 // across, means[..., index - 1], self._bits)

    def frame(self) -> VideoFrame:
        return self._frame

    def copy(self) -> FramePicture:
        return self._assemble([np.array(self._plane(index)) for index in range(len(self._frame.planes))])

    def beside(self, other: Picture) -> FramePicture:
        if not isinstance(other, FramePicture) or other._frame.format.name != self._frame.format.name:
            raise ValueError("both pictures must be of the same clip")
        planes = []
        for index in range(len(self._frame.planes)):
            both = [self.orientation.upright(part._plane(index)) for part in (self, other)]
            planes.append(self.orientation.stored(np.concatenate(both, axis=1)))
        return self._assemble(planes)

    def _assemble(self, planes: list[NDArray[Any]]) -> FramePicture:
        """A new frame of the same kind from these planes."""
        from av import VideoFrame

        height, width = planes[0].shape[:2]
        made = FramePicture(
            VideoFrame(width, height, self._frame.format.name), self.orientation, self.full_range, self.colorspace
        )
        for index, plane in enumerate(planes):
            target = made._plane(index)
            target[:] = plane[: target.shape[0], : target.shape[1]]  # two odd halves share a chroma sample
        for name in ("colorspace", "color_range", "color_trc", "color_primaries"):
            setattr(made._frame, name, getattr(self._frame, name))
        made._frame.pts, made._frame.time_base = self._frame.pts, self._frame.time_base
        made._frame.duration = self._frame.duration
        made._writable = True
        return made


def _add(plane: NDArray[Any], y: int, x: int, difference: NDArray[np.float32], bits: int) -> None:
    """Add a rounded difference (h, w) to a plane at (y, x), clipped to the samples' range."""
    target = plane[y : y + difference.shape[0], x : x + difference.shape[1]]
    step = np.rint(difference[: target.shape[0], : target.shape[1]]).astype(np.int32)
    target[:] = np.clip(target.astype(np.int32) + step, 0, (1 << bits) - 1).astype(target.dtype)
