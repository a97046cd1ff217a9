"""Time the blendshape backend against the prototype it grew from, alternately in one run.

    python benchmarks/blendshape.py [--photo PHOTO] [--side 1350] [--rounds 5]

Both get the same photo, scaled so that its shorter side has ``--side`` pixels, on the same thread settings. "Prepare"
is everything between a detected face and the first edit: the prototype's landmark prediction over nine jittered boxes
counts, and so does ours (`exprtool.faces.landmarks.refine68`); detection itself counts for neither. Figures are
medians; compare the ratios, not the seconds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import cv2  # noqa: E402 - the thread settings must come first
import numpy as np  # noqa: E402

SHARED = Path(__file__).resolve().parents[2] / "shared"
EXPRESSIONS = ("happy", "sad", "angry", "surprised", "disgusted", "afraid")


def timed(work: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    answer = work()
    return time.perf_counter() - start, answer


def prototype(bgr: np.ndarray) -> tuple[Any, Any]:
    """(prepare, edit) of the prototype, with its own face detection taken out of the time."""
    # its compiled functions are cached beside it unless they are told to go elsewhere
    os.environ.setdefault("NUMBA_CACHE_DIR", tempfile.mkdtemp())
    sys.path.insert(0, str(SHARED / "prototype"))
    core, edit = import_module("core"), import_module("edit")
    wrinkles = import_module("wrinkle").wrinkles
    found = core.det(cv2.cvtColor(cv2.resize(bgr, None, fx=0.5, fy=0.5), cv2.COLOR_BGR2RGB), 1)
    scale = 0.5 * max(bgr.shape[:2]) / 800  # the prototype detects in a copy of 800 px and scales up
    dlib: Any = import_module("dlib")
    boxes = dlib.rectangles()
    for box in found:
        boxes.append(dlib.rectangle(*(int(v / scale) for v in (box.left(), box.top(), box.right(), box.bottom()))))
    core.det = lambda *_: boxes
    return lambda: edit.prepare(bgr), lambda face, name: edit.edit(face, edit.EXPR[name], wr=wrinkles)


def ours(rgb: np.ndarray) -> tuple[Any, Any]:
    """(prepare, edit) of the backend, landmarks included."""
    from exprtool.choice import load_detector
    from exprtool.faces.detect import find_faces
    from exprtool.faces.landmarks import refine68
    from exprtool.faces.select import region_of
    from exprtool.types import Edit
    from exprtool_blendshape.backend import BlendshapeBackend
    from exprtool_blendshape.model import load_face_model

    backend = BlendshapeBackend(load_face_model(SHARED / "face-model" / "ict_facekit_light.npz"))
    face = max(find_faces(rgb, load_detector("dlib")[1]).faces, key=lambda each: each.size)

    def prepare() -> Any:
        return backend.prepare([region_of(rgb, refine68(rgb, face))])

    return prepare, lambda prepared, name: backend.generate(prepared, Edit({name: 1.0}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", type=Path, default=SHARED / "faces" / "london" / "neutral" / "009.jpg")
    parser.add_argument("--side", type=int, default=1350)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    bgr = cv2.imread(str(options.photo))
    if bgr is None:
        raise SystemExit(f"{options.photo} cannot be read.")
    scale = options.side / min(bgr.shape[:2])
    bgr = cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    contenders = {
        "exprtool": ours(np.ascontiguousarray(bgr[..., ::-1])),
        "prototype": prototype(bgr),
    }
    for prepare, edit in contenders.values():  # compile
        edit(prepare(), EXPRESSIONS[0])
    seconds: dict[tuple[str, str], list[float]] = {}
    for _ in range(options.rounds):
        faces = {}
        for name, (prepare, _) in contenders.items():
            spent, faces[name] = timed(prepare)
            seconds.setdefault((name, "prepare"), []).append(spent)
        for expression in EXPRESSIONS:
            for name, (_, edit) in contenders.items():
                spent, _ = timed(partial(edit, faces[name], expression))
                seconds.setdefault((name, "edit"), []).append(spent)
    print(f"photo {bgr.shape[1]} x {bgr.shape[0]}, {options.rounds} rounds, one thread, medians")
    for step in ("prepare", "edit"):
        mine, theirs = (statistics.median(seconds[name, step]) for name in ("exprtool", "prototype"))
        print(f"{step:8} exprtool {mine:.3f} s, prototype {theirs:.3f} s: {theirs / mine:.1f} times faster")


if __name__ == "__main__":
    main()
