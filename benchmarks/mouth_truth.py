"""How close is a painted mouth to the real one, and how dark are the mouths that edits open?

  python benchmarks/mouth_truth.py truth [--out OUT]            # the 200 open mouths that were never trained on
  python benchmarks/mouth_truth.py dark --backend default       # surprised and afraid, beside real open mouths

truth  each held-out mouth (those 200 of the set whose file names' SHA-256 comes first) is cut out along its own
       outline and painted again: mean absolute difference in levels of 255 between the lips, when the network is
       told what the photo shows, and when it is told what an edit would tell; beside a flat fill with the mean colour
       of that very mouth, and beside the mean mouth colour of all. With --out a sheet: cut out, painted as told from
       the photo, painted as told from anatomy, real
dark   share of all painted pixels below the nose with L* < 20 (CIE 1976, sRGB, D65), for each expression at
       strength 1 on every twentieth portrait of the set of closed mouths; and the same share between the lips of
       real mouths as wide open
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from exprtool.faces.detect import find_faces
from exprtool.faces.detectors import DlibDetector
from exprtool.faces.landmarks import refine68
from exprtool.faces.select import region_of
from exprtool.files import write_bytes
from exprtool.images import read_image
from exprtool.types import Backend, Edit, FacePatch

SHARED = Path(__file__).resolve().parents[2] / "shared"
HELD_OUT, DARK, EVERY = 200, 20.0, 20
EXPRESSIONS = ("surprised", "afraid", "happy", "disgusted")
LEAST_OPEN = 6.0, 22.0
"""Height of an opening in mm, least and most, of the real mouths that edits are compared with."""


def lightness(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """L* (...,) in [0, 100] of sRGB pixels (..., 3)."""
    flat = np.ascontiguousarray(pixels.reshape(-1, 1, 3).astype(np.float32) / 255)
    return np.asarray(cv2.cvtColor(flat, cv2.COLOR_RGB2LAB)[..., 0].reshape(pixels.shape[:-1]), np.float32)


def truth(faces: Path, out: Path | None) -> dict[str, float]:
    from exprtool.anatomy import interior
    from exprtool.anatomy.mouth_crop import HEIGHT, WIDTH, told
    from exprtool_mouth.augment import PLAIN, example
    from exprtool_mouth.data import held_out, mouth_of

    painter = interior.MouthPainter(interior.MODEL)
    with np.load(faces / "fairface_open" / "landmarks.npz", allow_pickle=False) as file:
        names, marks = file["name"], file["landmarks"]
    chosen = held_out(names, HELD_OUT)
    # The set's own names decide, before any is left out as closed: nobody of these was ever trained on.
    off: dict[str, list[float]] = {"told from the photo": [], "told from anatomy": [], "flat, its own mean": []}
    tiles, reals = [], []
    for name, points in zip(names[chosen], marks[chosen], strict=True):
        mouths = _single(mouth_of(faces / "fairface_open" / str(name), points))
        if mouths is None:
            continue
        plain = example(mouths, 0, np.random.default_rng(0), PLAIN)
        real, whole, hole = (plain.target.transpose(1, 2, 0) + 1) * 127.5, plain.told[1], plain.told[0]
        edge = np.array([(WIDTH - 1) / 2, _edge(whole)])
        anatomy = told(whole, hole, interior.wish_of(whole, edge, _jaw(whole)))
        made = [painter.paint(real, each) for each in (plain.told, anatomy)]
        inside = whole > 0.5
        for key, picture in zip(off, (*made, np.broadcast_to(real[inside].mean(0), real.shape)), strict=True):
            off[key].append(float(np.abs(picture - real)[inside].mean()))
        reals.append(real[inside])
        blank = real * (1 - hole[..., None])
        tiles.append(np.concatenate([blank, *(blank + each * hole[..., None] for each in made), real]))
    mean = np.concatenate(reals).mean(0)
    table = {key: float(np.mean(values)) for key, values in off.items()}
    table["flat, the mean of all"] = float(np.mean([np.abs(each - mean).mean() for each in reals]))
    print(f"{len(reals)} of {HELD_OUT} held-out mouths (the others are closed): levels of 255 between the lips")
    for key, value in table.items():
        print(f"  {key:<24}{value:6.2f}")
    if out:
        rows = [np.concatenate(tiles[i : i + 10], axis=1) for i in range(0, len(tiles) - 9, 10)]
        assert rows[0].shape[0] == 4 * HEIGHT
        for number, row in enumerate(rows):
            picture = np.clip(row, 0, 255).astype(np.uint8)[:, :, ::-1]
            write_bytes(out / f"mouths-{number:02}.png", cv2.imencode(".png", picture)[1].tobytes())
    return table


def _single(row: tuple[Any, ...] | None) -> Any:
    from exprtool_mouth.data import Mouths

    return None if row is None else Mouths(*(np.array([value]) for value in row))


def _edge(whole: NDArray[np.float32]) -> float:
    """Where upper teeth end in an opening of which nothing is known: as far below the lip as in most smiles."""
    from exprtool.anatomy.mouth_crop import PER_MM, WIDTH

    rows = np.flatnonzero(whole[:, WIDTH // 2] > 0.5)
    return float(rows[0] + min(0.7 * len(rows), 11.5 * PER_MM)) if len(rows) else 0.0


def _jaw(whole: NDArray[np.float32]) -> float:
    from exprtool.anatomy.mouth_crop import PER_MM

    return max(0.0, float((whole > 0.5).sum(0).max()) / PER_MM - 12.0) / 31.0


def dark(faces: Path, name: str, expressions: Sequence[str]) -> dict[str, float]:
    backend, detector = _backend(name), DlibDetector.load("cpu", None)
    counted = {expression: np.zeros(2) for expression in expressions}
    for path in sorted((faces / "fairface").glob("*.jpg"))[::EVERY]:
        image = read_image(path).rgb
        found = find_faces(image, detector).faces
        if not found:
            continue
        region = region_of(image, refine68(image, max(found, key=lambda each: each.size), robust=True))
        (face,) = backend.prepare([region])
        for expression in expressions:
            (patch,) = backend.generate([face], Edit({expression: 1.0}))
            if not isinstance(patch, FacePatch) or patch.painted is None or region.landmarks68 is None:
                continue
            inside = patch.painted > 0.9
            inside[: int(region.landmarks68[33, 1])] = False
            counted[expression] += inside.sum(), (inside & (lightness(patch.pixels) < DARK)).sum()
    table = {expression: float(few / max(every, 1)) for expression, (every, few) in counted.items()}
    print(f"{name}: share of painted mouths with L* < {DARK:g}")
    for expression, share in table.items():
        print(f"  {expression:<12}{share:6.1%}")
    return table


def real_dark(faces: Path) -> float:
    """The same share between the lips of real mouths that are about as wide open."""
    from exprtool_mouth.data import outline_of

    every = few = 0
    with np.load(faces / "fairface_open" / "landmarks.npz", allow_pickle=False) as file:
        for name, points in zip(file["name"], file["landmarks"].astype(np.float64), strict=True):
            eyes = float(np.linalg.norm(points[42:48].mean(0) - points[36:42].mean(0))) / 63.0
            height = float(np.linalg.norm(points[[66, 67, 65]] - points[[62, 61, 63]], axis=1).mean()) / eyes
            if not LEAST_OPEN[0] <= height <= LEAST_OPEN[1]:
                continue
            image = read_image(faces / "fairface_open" / str(name)).rgb
            area = np.zeros(image.shape[:2], np.uint8)
            cv2.fillPoly(area, [np.rint(outline_of(points)).astype(np.int32)], 1)
            found = lightness(image[area > 0])
            every, few = every + found.size, few + int((found < DARK).sum())
    print(f"real mouths open by {LEAST_OPEN[0]:g} to {LEAST_OPEN[1]:g} mm: {few / max(every, 1):.1%}")
    return few / max(every, 1)


def _backend(name: str) -> Backend:
    if name == "default":
        from exprtool_default.backend import open_model
        from exprtool_default.plugin import MODEL

        return open_model(MODEL)
    from exprtool_blendshape.backend import BlendshapeBackend
    from exprtool_blendshape.model import load_face_model

    return BlendshapeBackend(load_face_model(SHARED / "face-model" / "ict_facekit_light.npz"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("truth", "dark", "real"))
    parser.add_argument("--faces", type=Path, default=SHARED / "faces")
    parser.add_argument("--backend", choices=("default", "blendshape"), default="default")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    if options.part == "truth":
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
        truth(options.faces, options.out)
    elif options.part == "dark":
        dark(options.faces, options.backend, EXPRESSIONS)
    else:
        real_dark(options.faces)


if __name__ == "__main__":
    main()
