"""PNG with 16 bits per sample, which Pillow reads and writes only in grey."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from exprtool.pictures import containers
from exprtool.pictures.tiff import decode_with_opencv

Deep = NDArray[np.uint16]


def png_is_deep(data: bytes) -> bool:
    return data[24:25] == b"\x10"


def decode_png(data: bytes) -> Deep:
    """Samples (H, W, C) as they lie in the file; raises ValueError where OpenCV cannot decode it."""
    grey_with_alpha = data[25] == 4
    values = decode_with_opencv(data)
    if values.dtype != np.uint16:
        raise ValueError(f"OpenCV decoded it to {values.dtype}")
    values = np.asarray(values, dtype=np.uint16)
    return np.ascontiguousarray(values[..., 2:]) if grey_with_alpha and values.shape[2] == 4 else values


def encode_png(values: Deep, level: int) -> bytes:
    """A PNG of samples (H, W, C) with nothing but the picture in it."""
    import cv2

    if values.shape[2] == 2:  # OpenCV has no grey with alpha
        return _encode_png_by_hand(values, level)
    swapped = values if values.shape[2] == 1 else values[..., [2, 1, 0, 3][: values.shape[2]]]
    done, buffer = cv2.imencode(".png", swapped, [cv2.IMWRITE_PNG_COMPRESSION, level])
    if not done:
        raise ValueError("OpenCV could not encode it")
    return buffer.tobytes()


def _encode_png_by_hand(values: Deep, level: int) -> bytes:
    height, width, _ = values.shape
    big_endian = values.astype(">u2").view(np.uint8).reshape(height, -1)
    filtered = np.zeros((height, big_endian.shape[1] + 1), dtype=np.uint8)
    filtered[:, 0] = 2  # filter "up": each row as the difference from the one above
    filtered[0, 1:] = big_endian[0]
    filtered[1:, 1:] = big_endian[1:] - big_endian[:-1]
    header = struct.pack(">IIBBBBB", width, height, 16, 4, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes(), level)), (b"IEND", b""))
    return containers.PNG_SIGNATURE + b"".join(containers.png_chunk(*chunk) for chunk in chunks)
