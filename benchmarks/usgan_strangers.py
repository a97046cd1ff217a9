"""What US-GAN's weights do to forty people whom no training saw, beside the other backends.

    python benchmarks/usgan_strangers.py --list > strangers.txt    # whom to leave out of every training
    python benchmarks/usgan_strangers.py edit usgan default blendshape usgan:runs/start --out OUT
    python benchmarks/usgan_strangers.py table --out OUT [--classifier model.onnx]

The people, by a fixed rule: those of the London set whose number ends in 0 or 5, and of the FairFace people that
`benchmarks/default_truth.py` holds out the first by name, forty in all. Every backend edits the whole photo; what is
measured is the crop on which US-GAN was trained, 128 pixels, cut out in the same place.

`edit` keeps the crops in OUT, a file and a sheet for each backend. `table` prints, as means over people and
expressions:

  change     mean difference to the input in grey levels; 0 for the untouched photo: nothing done shows as nothing
  acd, plain the squared distance of embeddings (eq. 9), and the plain one
  same       share that dlib takes for the same person (plain distance below 0.6)
  to render  mean difference in grey levels to what `blendshape` renders, which US-GAN began by learning from
  sharp      variance of the Laplacian where the picture changed, against that of `blendshape` there
  shown      share in which the classifier sees the wanted expression, where one is given
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
from default_truth import EXPRESSIONS, SHARED, SIDE, Subject, edited, held_out
from numpy.typing import NDArray

from exprtool import plugins
from exprtool.errors import ExprtoolError
from exprtool.faces.align import US_GAN_TEMPLATE, crop, crop_from_image, transform
from exprtool.faces.detect import find_faces
from exprtool.faces.detectors import DlibDetector
from exprtool.faces.landmarks import refine68
from exprtool.faces.select import region_of
from exprtool.files import atomic_write, write_bytes
from exprtool.images import read_image
from exprtool.measures import OnnxClassifier, expression_accuracy, identity
from exprtool.types import Backend, FaceRefusal
from exprtool_training.sheet import write_sheet

PEOPLE = 40
ROWS = 10  # people per sheet
CHANGED = 8.0
"""Grey levels from which a pixel counts as changed where sharpness is compared."""


def strangers(faces: Path) -> list[Path]:
    london, fairface = held_out(faces)
    return [*london, *fairface][:PEOPLE]


def load(name: str) -> Backend:
    spec = plugins.registry().backend(name.partition(":")[0])
    argument = name.partition(":")[2]
    return spec.load_from("cpu", argument) if argument and spec.load_from else spec.load("cpu")


def file_of(out: Path, name: str) -> Path:
    return out / f"{name.replace(':', '-').replace('/', '_')}.npz"


def edit(names: list[str], paths: list[Path], out: Path) -> None:
    """Crops (N, 6, S, S, 3) of each backend's edits, the inputs' crops and landmarks in them, and who was refused."""
    cv2.setNumThreads(1)
    detector, backends = DlibDetector.load("cpu", None), {name: load(name) for name in names}
    shape = (len(paths), len(EXPRESSIONS), SIDE, SIDE, 3)
    outputs = {name: np.zeros(shape, np.uint8) for name in names}
    edited_by = {name: np.zeros(len(paths), bool) for name in names}
    inputs, landmarks = np.zeros((len(paths), SIDE, SIDE, 3), np.uint8), np.full((len(paths), 68, 2), np.nan)
    for i, path in enumerate(paths):
        image = read_image(path).rgb
        face = refine68(image, max(find_faces(image, detector).faces, key=lambda each: each.size), robust=True)
        matrix, region = crop_from_image(face, SIDE, US_GAN_TEMPLATE), region_of(image, face)
        inputs[i] = crop(image, matrix, SIDE)
        assert face.landmarks68 is not None  # refine68 finds them
        landmarks[i] = transform(matrix, face.landmarks68)
        subject = Subject(path, image, region)
        for name, backend in backends.items():
            (prepared,) = backend.prepare([region])
            if isinstance(prepared, FaceRefusal):
                print(f"{path.name}: {name}: {prepared.reason}", flush=True)
                continue
            try:
                for k, expression in enumerate(EXPRESSIONS):
                    outputs[name][i, k] = crop(edited(backend, prepared, subject, expression), matrix, SIDE)
            except (ExprtoolError, SystemExit) as error:
                print(f"{path.name}: {name}: {error}", flush=True)
                continue
            edited_by[name][i] = True
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        target = file_of(out, name)
        with atomic_write(target) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file, inputs=inputs, landmarks=landmarks, outputs=outputs[name], edited=edited_by[name],
                people=[path.name for path in paths], name=name,
            )  # fmt: skip
        done = np.flatnonzero(edited_by[name])
        for start in range(0, len(done), ROWS):
            rows = done[start : start + ROWS]
            sheet = target.with_name(f"{target.stem}-{start // ROWS}.png")
            write_sheet(sheet, inputs[rows], outputs[name][rows], EXPRESSIONS)


def laplacian(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    grey = images.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    return np.stack([cv2.Laplacian(each, cv2.CV_64F) for each in grey])


def table(out: Path, classifier: Path | None) -> list[dict[str, object]]:
    kept = [dict(np.load(path)) for path in sorted(out.glob("*.npz"))]
    teacher = next((each for each in kept if str(each["name"]) == "blendshape"), None)
    everywhere = np.logical_and.reduce([each["edited"] for each in kept])  # the same people for all
    judge = OnnxClassifier(classifier) if classifier else None
    wanted = list(EXPRESSIONS) * int(everywhere.sum())
    rows: list[dict[str, object]] = []
    inputs, landmarks = (kept[0][name][everywhere].repeat(len(EXPRESSIONS), 0) for name in ("inputs", "landmarks"))
    rendered = teacher["outputs"][everywhere].reshape(-1, SIDE, SIDE, 3) if teacher is not None else None
    untouched = {"name": "untouched", "outputs": inputs, "edited": kept[0]["edited"]}
    for each in [untouched, *kept]:
        outputs = each["outputs"]
        if outputs.ndim == 5:
            outputs = outputs[everywhere].reshape(-1, SIDE, SIDE, 3)
        difference = np.abs(outputs.astype(np.float64) - inputs).mean(-1)
        squared = identity(inputs, outputs, landmarks).squared
        plain = np.sqrt(squared)
        row: dict[str, object] = {
            "backend": str(each["name"]), "people": int(everywhere.sum()), "edited": int(each["edited"].sum()),
            "change": float(difference.mean()), "acd": float(np.nanmean(squared)),
            "plain": float(np.nanmean(plain)), "same": float(np.nanmean(plain < 0.6)),
        }  # fmt: skip
        if rendered is not None:
            row["to_render"] = float(np.abs(outputs.astype(np.float64) - rendered).mean())
            changed = np.abs(rendered.astype(np.float64) - inputs).mean(-1) > CHANGED
            row["sharp"] = float(laplacian(outputs)[changed].var() / laplacian(rendered)[changed].var())
        if judge is not None:
            found = expression_accuracy(judge, judge.labels, outputs, wanted)
            row["shown"] = found.share
            row["shown_by_expression"] = {
                name: expression_accuracy(
                    judge, judge.labels, outputs[k :: len(EXPRESSIONS)], [name] * len(wanted[::6])
                ).share
                for k, name in enumerate(EXPRESSIONS)
            }
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["edit", "table"])
    parser.add_argument("backends", nargs="*")
    parser.add_argument("--list", action="store_true", help="print the file names of the people and stop")
    parser.add_argument("--faces", type=Path, default=SHARED / "faces")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--classifier", type=Path)
    options = parser.parse_args()
    if options.list:
        print("\n".join(path.name for path in strangers(options.faces)))
        return
    if options.part is None or options.out is None:
        parser.error("say edit or table, and --out")
    if options.part == "edit":
        edit(options.backends, strangers(options.faces), options.out)
        return
    rows = table(options.out, options.classifier)
    write_bytes(options.out / "table.json", json.dumps(rows, indent=1).encode())
    for row in rows:
        print(
            "  ".join(
                f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
            )
        )


if __name__ == "__main__":
    main()
