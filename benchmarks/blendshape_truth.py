"""Does the blendshape backend do what it says? Measured on pairs of neutral and smiling photos of the same people.

    python benchmarks/blendshape_truth.py [PART ...] [--people N | --half 0|1] [--faces DIR] [--prototype DIR]

Parts (all by default):
  identity   the six expressions at strength 1 on neutral photos: squared distance of face embeddings to the person's
             own neutral (the paper's ACD), and how far the landmarks move, against the prototype's in the same run
  truth      happy on the neutral photo against the person's true smile (at strength 1, its brows alone, and at the
             best of four strengths), and neutral on the smiling photo against the true neutral: by how much closer
             than the untouched photo
  removal    the smile that a fresh fit still finds on smiling photos made sad or angry
  like       how the fitted weights of a reference correlate with those of the face that copied it

Distances between faces: landmarks of brows, eyes, lower nose and mouth after a similarity fit on eye corners and nose
bridge, mean over points, in distances between the eyes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exprtool.faces.align import similarity, transform
from exprtool.faces.detect import find_faces
from exprtool.faces.detectors import DlibDetector
from exprtool.faces.embed import embedding, squared_distance
from exprtool.faces.landmarks import refine68
from exprtool.faces.select import region_of
from exprtool.images import read_image
from exprtool.pixels.composite import paste
from exprtool.types import Edit, Face, FacePatch, FaceRefusal, FaceRegion, Image, Points
from exprtool_blendshape.backend import BlendshapeBackend
from exprtool_blendshape.fit import fit_face
from exprtool_blendshape.model import load_face_model

SHARED = Path(__file__).resolve().parents[2] / "shared"
EXPRESSIONS = ("happy", "sad", "angry", "surprised", "disgusted", "afraid")
STRENGTHS = (0.4, 0.6, 0.8, 1.0)
MEASURED = np.r_[17:27, 31:36, 36:48, 48:68]
BROWS = np.r_[17:27]
ANCHORS = np.array([27, 28, 29, 30, 36, 39, 42, 45])
VISIBLE = (
    "browDown", "browInnerUp", "browOuterUp", "eyeBlink", "eyeSquint", "eyeWide", "jawOpen", "mouthDimple",
    "mouthFrown", "mouthFunnel", "mouthLowerDown", "mouthPress", "mouthPucker", "mouthRollLower", "mouthRollUpper",
    "mouthShrugLower", "mouthShrugUpper", "mouthSmile", "mouthStretch", "mouthUpperUp", "noseSneer", "corrugator",
)  # fmt: skip
"""Controls that are compared in ``like``; halves are averaged."""


class Person:
    """One photo of one person: picture, region with landmarks, prepared face; made when first asked for."""

    def __init__(self, path: Path, bench: Bench) -> None:
        self.path, self._bench = path, bench
        self.image = read_image(path).rgb
        faces = find_faces(self.image, bench.detector).faces
        largest = max(faces, key=lambda face: face.size)
        self.region = region_of(self.image, refine68(self.image, largest, robust=True))
        self.landmarks = landmarks_of(self.region.face)
        (prepared,) = bench.backend.prepare([self.region])
        if isinstance(prepared, FaceRefusal):
            raise SystemExit(f"{path}: refused: {prepared.reason}")
        self.prepared = prepared

    def edited(self, edit: Edit) -> Image:
        (patch,) = self._bench.backend.generate([self.prepared], edit)
        if not isinstance(patch, FacePatch):
            raise SystemExit(f"{self.path}: refused: {patch.reason}")
        return paste(self.image, [self.region], [patch])[0]

    def found_again(self, image: Image) -> Face:
        """The face in an edited version of this photo, landmarks found anew."""
        return refine68(image, self.region.face, robust=True)

    def fitted_again(self, image: Image) -> dict[str, float]:
        """The expression that a fit from scratch finds in an edited version of this photo."""
        region = FaceRegion(self.found_again(image), self.region.box, self._bench.crop(image, self.region))
        return fit_face(region, model=self._bench.model).source


class Bench:
    """Backend, detector and photos."""

    def __init__(self, faces: Path, model: Path, people: Sequence[str]) -> None:
        self.model = load_face_model(model)
        self.backend = BlendshapeBackend(self.model)
        self.detector = DlibDetector.load("cpu", None)
        self.faces, self.people = faces, people

    @lru_cache(maxsize=6)  # noqa: B019 - one bench lives as long as the program
    def person(self, number: str, expression: str) -> Person:
        return Person(self.faces / expression / f"{number}.jpg", self)

    @staticmethod
    def crop(image: Image, region: FaceRegion) -> Image:
        x0, y0, x1, y1 = region.box
        return image[y0:y1, x0:x1]


def landmarks_of(face: Face) -> Points:
    assert face.landmarks68 is not None
    return face.landmarks68


def distance(face: Points, other: Points, points: NDArray[np.int_] = MEASURED) -> float:
    """Between two faces (68, 2); see the top of this file. In distances between the eyes of ``other``."""
    moved = transform(similarity(face[ANCHORS], other[ANCHORS]), face)
    eyes = np.linalg.norm(other[36:42].mean(0) - other[42:48].mean(0))
    return float(np.linalg.norm((moved - other)[points], axis=1).mean() / eyes)


def closer(pairs: Sequence[tuple[float, float]]) -> str:
    """(before, after) distances as a share: of the means, and the mean of the shares."""
    before, after = np.array(pairs).T
    return f"{1 - after.mean() / before.mean():6.1%} closer (mean of the shares {(1 - after / before).mean():.1%})"


class Prototype:
    """The throw-away prototype that this backend has to beat, run in this process."""

    def __init__(self, folder: Path) -> None:
        sys.path.insert(0, str(folder))
        import edit  # type: ignore[import-not-found]
        import wrinkle  # type: ignore[import-not-found]

        self._edit, self._wrinkles = edit, wrinkle.wrinkles
        self._prepared: dict[Path, Any] = {}

    def edited(self, person: Person, expression: str, strength: float = 1.0) -> Image:
        if person.path not in self._prepared:
            self._prepared = {person.path: self._edit.prepare(np.ascontiguousarray(person.image[..., ::-1]))}
        weights = {name: strength * weight for name, weight in self._edit.EXPR[expression].items()}
        picture, _, _ = self._edit.edit(self._prepared[person.path], weights, wr=self._wrinkles)
        return np.ascontiguousarray(picture[..., ::-1])


def identity(bench: Bench, prototype: Prototype | None) -> None:
    print("identity: squared distance of embeddings to the own neutral; motion in % of the distance between the eyes")
    names = ("ours", "prototype") if prototype else ("ours",)
    acd: dict[tuple[str, str], list[float]] = {}
    motion: dict[tuple[str, str], list[float]] = {}
    for number in bench.people:
        person = bench.person(number, "neutral")
        own = embedding(person.image, person.region.face)
        for expression in EXPRESSIONS:
            for name in names:
                if name == "ours":
                    picture = person.edited(Edit(weights={expression: 1.0}))
                else:
                    assert prototype
                    picture = prototype.edited(person, expression)
                face = person.found_again(picture)
                key = expression, name
                acd.setdefault(key, []).append(squared_distance(own, embedding(picture, face)))
                motion.setdefault(key, []).append(distance(landmarks_of(face), person.landmarks))
    for expression in EXPRESSIONS:
        line = f"  {expression:<10}"
        for name in names:
            distances = np.array(acd[expression, name])
            line += f" {name}: ACD {distances.mean():.3f} (max {distances.max():.3f}),"
            line += f" motion {np.mean(motion[expression, name]):6.2%};"
        if prototype:
            ratio = np.mean(motion[expression, "ours"]) / np.mean(motion[expression, "prototype"])
            line += f" ratio of motion {ratio:.2f}"
        print(line)
    all_ours = np.concatenate([acd[expression, "ours"] for expression in EXPRESSIONS])
    print(f"  {len(all_ours)} edits of ours, {int((all_ours > 0.36).sum())} over 0.36")


def truth(bench: Bench, prototype: Prototype | None) -> None:
    print("truth: distance to the person's true other photo")
    smiles: dict[str, list[tuple[float, float]]] = {}
    neutrals: list[tuple[float, float]] = []
    best: list[float] = []
    at_1: dict[str, list[tuple[float, float]]] = {"at strength 1": [], "at strength 1, brows": []}
    for number in bench.people:
        neutral, happy = bench.person(number, "neutral"), bench.person(number, "happy")
        before = distance(neutral.landmarks, happy.landmarks)

        def tried(
            edit: Callable[[float], Image], neutral: Person = neutral, happy: Person = happy
        ) -> tuple[NDArray[np.float64], Points]:
            faces = [landmarks_of(neutral.found_again(edit(strength))) for strength in STRENGTHS]
            return np.array([distance(face, happy.landmarks) for face in faces]), faces[-1]

        ours, smiling = tried(lambda s, p=neutral: p.edited(Edit(weights={"happy": 1.0}, strength=s)))
        at_1["at strength 1"].append((before, float(ours[-1])))
        brows = [distance(face, happy.landmarks, BROWS) for face in (neutral.landmarks, smiling)]
        at_1["at strength 1, brows"].append((brows[0], brows[1]))
        best.append(STRENGTHS[int(ours.argmin())])
        smiles.setdefault("ours", []).append((before, float(ours.min())))
        if prototype:
            theirs, _ = tried(lambda s, p=neutral: prototype.edited(p, "happy", s))
            smiles.setdefault("prototype", []).append((before, float(theirs.min())))
        before = distance(happy.landmarks, neutral.landmarks)
        after = landmarks_of(happy.found_again(happy.edited(Edit(weights={"neutral": 1.0}))))
        neutrals.append((before, distance(after, neutral.landmarks)))
    for name, pairs in at_1.items():
        print(f"  happy on neutral, ours {name}: {closer(pairs)}")
    for name, pairs in smiles.items():
        print(f"  happy on neutral, {name} at the best strength: {closer(pairs)}")
    print(f"  best strengths of ours: { ({s: best.count(s) for s in STRENGTHS}) }")
    print(f"  neutral on happy, ours: {closer(neutrals)}")


def removal(bench: Bench) -> None:
    print("removal: mouthSmile that a fresh fit finds, mean of left and right")
    rows = {"as it was": [], "sad": [], "angry": [], "neutral": []}
    for number in bench.people:
        person = bench.person(number, "happy")
        rows["as it was"].append(halves(person.prepared.fit.source, "mouthSmile"))
        for expression in ("sad", "angry", "neutral"):
            picture = person.edited(Edit(weights={expression: 1.0}))
            rows[expression].append(halves(person.fitted_again(picture), "mouthSmile"))
    for name, values in rows.items():
        print(f"  {name:<10} mean {np.mean(values):.3f}, max {np.max(values):.3f}")


def like(bench: Bench, pairs: int = 20) -> None:
    print("like: correlation of the fitted weights of the reference and of the face that copies it")
    people = list(bench.people)
    if len(people) < 2:
        print("  needs two people")
        return
    correlations = []
    for i in range(min(pairs, len(people))):
        reference, other = bench.person(people[i], "happy"), bench.person(people[(i + 1) % len(people)], "neutral")
        picture = other.edited(Edit(reference=reference.region))
        a, b = reference.prepared.fit.source, other.fitted_again(picture)
        correlations.append(np.corrcoef([halves(a, c) for c in VISIBLE], [halves(b, c) for c in VISIBLE])[0, 1])
    print(f"  mean {np.mean(correlations):.3f}, least {np.min(correlations):.3f} over {len(correlations)} pairs")


def halves(weights: dict[str, float], stem: str) -> float:
    return weights.get(stem, (weights.get(f"{stem}Left", 0.0) + weights.get(f"{stem}Right", 0.0)) / 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="identity, truth, removal, like; all by default")
    parser.add_argument("--people", type=int, help="only every so many-th person, this many in all")
    parser.add_argument("--half", type=int, choices=(0, 1), help="only the half tuned on (0) or the other one (1)")
    parser.add_argument("--faces", type=Path, default=SHARED / "faces" / "london")
    parser.add_argument("--model", type=Path, default=SHARED / "face-model" / "ict_facekit_light.npz")
    parser.add_argument("--prototype", type=Path, default=SHARED / "prototype")
    parser.add_argument("--no-prototype", action="store_true")
    options = parser.parse_args()
    people = sorted(path.stem for path in (options.faces / "neutral").glob("*.jpg"))
    if options.half is not None:
        people = people[options.half :: 2]
    if options.people:
        people = people[:: max(1, len(people) // options.people)][: options.people]
    bench = Bench(options.faces, options.model, people)
    known = {"identity": identity, "truth": truth, "removal": removal, "like": like}
    unknown = set(options.parts) - set(known)
    if unknown:
        parser.error(f"unknown part {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    wanted = options.parts or list(known)
    prototype = None if options.no_prototype else Prototype(options.prototype)
    print(f"{len(people)} people")
    for part in wanted:
        start = time.perf_counter()
        if part in ("identity", "truth"):
            known[part](bench, prototype)
        else:
            known[part](bench)
        print(f"  ({time.perf_counter() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
