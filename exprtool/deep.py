"""PNG and TIFF with 16 bits per sample, which Pillow reads and writes only in grey.

OpenCV and tifffile decode; PNG is encoded by OpenCV, TIFF here (one strip per 64 rows, horizontal predictor, Deflate;
TIFF 6.0 with Adobe's supplement 2), because neither library lets us say what else shall stand in the file.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin

from exprtool import containers, exif

Deep = NDArray[np.uint16]

_TIFF_ROWS = 64


def png_is_deep(data: bytes) -> bool:
    return data[24:25] == b"\x10"


def decode_png(data: bytes) -> Deep:
    """Samples (H, W, C) as they lie in the file; raises ValueError where OpenCV cannot decode it."""
    grey_with_alpha = data[25] == 4
    values = _decode_with_opencv(data)
    return np.ascontiguousarray(values[..., 2:]) if grey_with_alpha and values.shape[2] == 4 else values


def decode_tiff(data: bytes, *, planar: bool, grey_with_alpha: bool) -> Deep:
    """Samples (H, W, C) as they lie in the file, not turned; raises ValueError where no library can decode them."""
    if not planar and not grey_with_alpha:
        # OpenCV turns TIFF by itself, and only TIFF: without the tag the turning is ours for every format alike.
        return _decode_with_opencv(exif.for_upright(data, (0, 0)))
    import tifffile

    values = tifffile.imread(io.BytesIO(data), key=0)
    if values.dtype != np.uint16:
        raise ValueError(f"unexpected {values.dtype} samples")
    if values.ndim == 2:
        return values[..., np.newaxis]
    return np.ascontiguousarray(np.moveaxis(values, 0, 2) if planar else values)


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


def encode_tiff(values: Deep, tags: Mapping[int, Any], *, compressed: bool = True) -> bytes:
    """A little-endian TIFF of samples (H, W, C); ``tags`` are entries for its directory, as Pillow represents them."""
    height, width, channels = values.shape
    directory = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    for tag, value in tags.items():
        directory[tag] = value
        if isinstance(tags, TiffImagePlugin.ImageFileDirectory_v2) and tag in tags.tagtype:
            directory.tagtype[tag] = tags.tagtype[tag]
    strips = [_encode_strip(values[top : top + _TIFF_ROWS], compressed) for top in range(0, height, _TIFF_ROWS)]
    directory[256], directory[257] = width, height
    directory[258] = (16,) * channels
    directory[259] = 8 if compressed else 1
    directory[262] = 1 if channels < 3 else 2
    directory[277], directory[278] = channels, _TIFF_ROWS
    directory[284], directory[317], directory[339] = 1, 2 if compressed else 1, (1,) * channels
    if channels in (2, 4):
        directory[338] = (2,)  # unassociated alpha
    lengths = [len(strip) for strip in strips]
    directory.tagtype[273] = directory.tagtype[279] = 4
    directory[273] = tuple(
        int(offset) for offset in np.cumsum([0, *lengths[:-1]])
    )  # moved behind the directory by save
    directory[279] = tuple(lengths)
    buffer = io.BytesIO()
    directory.save(buffer)
    for strip in strips:
        buffer.write(strip)
    return buffer.getvalue()


def _encode_strip(strip: Deep, compressed: bool) -> bytes:
    if not compressed:
        return strip.astype("<u2").tobytes()
    predicted = strip.copy()
    predicted[:, 1:] -= strip[:, :-1]  # modulo 65536, as the predictor is defined
    return zlib.compress(predicted.astype("<u2").tobytes(), 6)


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


def _decode_with_opencv(data: bytes) -> Deep:
    import cv2

    cv2.utils.logging.setLogLevel(
        cv2.utils.logging.LOG_LEVEL_SILENT
    )  # its complaints go past Python to stderr; ours says what they mean
    values = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise ValueError("OpenCV could not decode it")
    if values.dtype != np.uint16:
        raise ValueError(f"OpenCV decoded it to {values.dtype}")
    deep = np.asarray(values, dtype=np.uint16)
    if deep.ndim == 2:
        return deep[..., np.newaxis]
    return np.ascontiguousarray(deep[..., [2, 1, 0, 3][: deep.shape[2]]])
