"""Pasting patches into a photo so that nothing else in it changes, and the proof of that.

Where no patch has alpha above 0 the result holds the photo's own bits. Work and memory are proportional to the patches,
apart from the one copy of the photo.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from exprtool.errors import ExprtoolError, PluginError
from exprtool.types import FacePatch, FaceRegion, Image, IntBox

_ROUNDING = 1e-4  # filters in float32 leave [0, 1] by this little; it is far below one level of 255
_PIXELS_PER_STRIP = 1 << 18  # what is in work at a time stays within a processor's cache


def paste(image: Image, regions: Sequence[FaceRegion], patches: Sequence[FacePatch]) -> tuple[Image, NDArray[np.bool_]]:
    """Paste one patch per region into a copy of ``image`` (H, W, 3) uint8; the image itself is not written to.

    Returns the new image and the mask (H, W) of the pixels that differ from the old one, which lies within alpha > 0.
    Each patch asks for the change alpha * (patch - photo). Where patches overlap, a pixel takes per channel the
    strongest rise plus the strongest fall that any of them asks for: the order does not matter, a patch that leaves a
    pixel alone does not undo its neighbour's change, and two that ask for the same change do not double it.

    Raises `PluginError` where a patch does not have its region's size, the right type, or an alpha in [0, 1].
    """
    if len(regions) != len(patches):
        raise PluginError(f"Expected one patch per region: {len(regions)} regions, got {len(patches)} patches.")
    for region, patch in zip(regions, patches, strict=True):
        _check(image, region, patch)
    result = image.copy()
    changed = np.zeros(image.shape[:2], dtype=np.bool_)
    boxes = [_claimed_box(region, patch) for region, patch in zip(regions, patches, strict=True)]
    for index, box in enumerate(boxes):
        if box is None:
            continue
        near = [j for j, other in enumerate(boxes) if other is not None and _intersection(box, other) is not None]
        near.remove(index)
        x0, y0, x1, y1 = box
        rows = max(1, _PIXELS_PER_STRIP // (x1 - x0))
        for top in range(y0, y1, rows):
            strip = (x0, top, x1, min(top + rows, y1))
            _paste_strip(image, result, changed, strip, index, near, regions, patches)
    return result, changed


def claimed_pixels(
    size: tuple[int, int], regions: Sequence[FaceRegion], patches: Sequence[FacePatch]
) -> NDArray[np.bool_]:
    """The mask (H, W) of pixels for which some patch has alpha > 0; ``size`` is the photo's (H, W)."""
    claimed = np.zeros(size, dtype=np.bool_)
    for region, patch in zip(regions, patches, strict=True):
        x0, y0, x1, y1 = region.box
        claimed[y0:y1, x0:x1] |= patch.alpha > 0
    return claimed


def verify_outside(before: Image, after: Image, claimed: NDArray[np.bool_]) -> None:
    """Prove that ``after`` equals ``before`` bit for bit wherever ``claimed`` (H, W) is False.

    Arrays of any channel count and depth are compared as they are. Raises `ExprtoolError` that counts the pixels that
    differ and names the first one.
    """
    if before.shape != after.shape or before.dtype != after.dtype or claimed.shape != before.shape[:2]:
        raise ExprtoolError(
            f"Cannot compare: before is {before.shape} {before.dtype}, after {after.shape} {after.dtype}, "
            f"the mask {claimed.shape}; all three must belong to one picture."
        )
    different = before != after
    if different.ndim == 3:
        different = different.any(axis=2)
    strays = different & ~claimed
    count = int(np.count_nonzero(strays))
    if count:
        y, x = np.unravel_index(int(np.argmax(strays)), strays.shape)
        raise ExprtoolError(
            f"{count} pixels outside the edited area differ, the first at x={x}, y={y}. This is a fault of the "
            "program or of a plugin; please report it with the photo."
        )


def _paste_strip(
    image: Image,
    result: Image,
    changed: NDArray[np.bool_],
    strip: IntBox,
    index: int,
    near: Sequence[int],
    regions: Sequence[FaceRegion],
    patches: Sequence[FacePatch],
) -> None:
    x0, y0, x1, y1 = strip
    photo = image[y0:y1, x0:x1].astype(np.float32)  # (h, w, 3)
    change = _asked_change(photo, strip, strip, regions[index], patches[index])
    overlapping = [(j, common) for j in near if (common := _intersection(strip, regions[j].box)) is not None]
    if overlapping:
        rise, fall = np.maximum(change, 0), np.minimum(change, 0)
        for j, common in overlapping:
            rows, columns = _slices(common, strip)
            other = _asked_change(photo, strip, common, regions[j], patches[j])
            np.maximum(rise[rows, columns], other, out=rise[rows, columns])
            np.minimum(fall[rows, columns], other, out=fall[rows, columns])
        change = rise + fall
    new = np.rint(np.clip(photo + change, 0, 255)).astype(np.uint8)
    # A pixel that this patch does not claim is left to the patch that does, which computes the same sum there.
    rows, columns = _slices(strip, regions[index].box)
    claimed = patches[index].alpha[rows, columns] > 0
    new = np.where(claimed[..., np.newaxis], new, result[y0:y1, x0:x1])
    changed[y0:y1, x0:x1] |= claimed & (new != image[y0:y1, x0:x1]).any(axis=2)
    result[y0:y1, x0:x1] = new


def _asked_change(
    photo: NDArray[np.float32], strip: IntBox, common: IntBox, region: FaceRegion, patch: FacePatch
) -> NDArray[np.float32]:
    """alpha * (patch - photo) within ``common``; ``photo`` holds the pixels of ``strip``. (h, w, 3) of ``common``."""
    rows, columns = _slices(common, region.box)
    change = patch.pixels[rows, columns].astype(np.float32)
    change -= photo[_slices(common, strip)]
    change *= patch.alpha[rows, columns, np.newaxis]
    return change


def _slices(box: IntBox, frame: IntBox) -> tuple[slice, slice]:
    """The rows and columns of ``box`` in an array that shows ``frame``."""
    return slice(box[1] - frame[1], box[3] - frame[1]), slice(box[0] - frame[0], box[2] - frame[0])


def _intersection(a: IntBox, b: IntBox) -> IntBox | None:
    box = (max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    return box if box[0] < box[2] and box[1] < box[3] else None


def _claimed_box(region: FaceRegion, patch: FacePatch) -> IntBox | None:
    """The smallest box, in image coordinates, outside which the patch has no alpha."""
    claimed = patch.alpha > 0
    rows, columns = np.flatnonzero(claimed.any(axis=1)), np.flatnonzero(claimed.any(axis=0))
    if not len(rows):
        return None
    x0, y0 = region.box[:2]
    return int(x0 + columns[0]), int(y0 + rows[0]), int(x0 + columns[-1] + 1), int(y0 + rows[-1] + 1)


def _check(image: Image, region: FaceRegion, patch: FacePatch) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise PluginError(f"Expected an image (H, W, 3) uint8, got {image.shape} {image.dtype}.")
    x0, y0, x1, y1 = region.box
    if not (0 <= x0 < x1 <= image.shape[1] and 0 <= y0 < y1 <= image.shape[0]):
        raise PluginError(f"Expected a region within the image of {image.shape[:2]} (h, w), got the box {region.box}.")
    size = (y1 - y0, x1 - x0)
    alpha = patch.alpha
    problems: list[str] = []
    if patch.pixels.shape != (*size, 3) or patch.pixels.dtype != np.uint8:
        problems.append(f"pixels: expected {(*size, 3)} uint8, got {patch.pixels.shape} {patch.pixels.dtype}")
    if alpha.shape != size or alpha.dtype != np.float32:
        problems.append(f"alpha: expected {size} float32, got {alpha.shape} {alpha.dtype}")
    elif not (alpha.min() >= -_ROUNDING and alpha.max() <= 1 + _ROUNDING):  # also false for NaN
        problems.append(f"alpha: expected values in [0, 1], got {alpha.min()} to {alpha.max()}")
    if problems:
        raise PluginError(
            f"The backend's patch does not fit its region {region.box}: {'; '.join(problems)}. "
            "Report this to the author of the backend plugin, or choose another one with --backend."
        )
