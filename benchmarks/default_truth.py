"""Does the embedded network do what the blendshape backend does, on people whom it never saw?

    python benchmarks/default_truth.py --list > held.txt      # whom to leave out: `data synth --leave-out held.txt`
    python benchmarks/default_truth.py --out OUT --model FILE [--people N]
    python benchmarks/default_truth.py --out OUT --referee SET # SET: made by `data synth` without these people

The people: those of the London set whose number ends in 0 or 5, and 200 of the FairFace set, drawn by a fixed seed.

  render    each expression at strength 1 by the network and by the blendshape backend on the same photo: PSNR of the
            128 pixel crops (beside the untouched photo's), the paper's ACD, how far eyes open and mouths widen by
            landmarks, share of what the render does
  removal   smiling photos made sad or angry: height of the mouth's corners, against the person's true neutral
  sharpness variance of the Laplacian inside the face, before and after, on large portraits, against the photo's own;
            beside it that of a 128 pixel picture pasted back
  referee   a classifier trained on the labelled crops of other people: how often it names the wanted expression in
            the network's edits and in the renders

Crops of all edits are kept in OUT as edits.npz and as sheets to look at.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from exprtool.expressions import EXPRESSIONS as SEVEN
from exprtool.faces.align import US_GAN_TEMPLATE, crop, crop_from_image, invert, similarity, transform
from exprtool.faces.detect import find_faces
from exprtool.faces.detectors import DlibDetector
from exprtool.faces.embed import embedding, squared_distance
from exprtool.faces.landmarks import refine68
from exprtool.faces.select import region_of
from exprtool.files import write_bytes
from exprtool.images import read_image
from exprtool.pixels.composite import paste
from exprtool.processes import over_items
from exprtool.types import Backend, Edit, FacePatch, FaceRefusal, FaceRegion, Image, Points
from exprtool_blendshape.backend import BlendshapeBackend
from exprtool_blendshape.model import load_face_model
from exprtool_default.backend import open_model
from exprtool_synth.canvas import SYNTH_TEMPLATE
from exprtool_training.sheet import write_sheet

SHARED = Path(__file__).resolve().parents[2] / "shared"
EXPRESSIONS = ("happy", "sad", "angry", "surprised", "disgusted", "afraid")
SEED, STRANGERS, SIDE = 20261122, 200, 128
ANCHORS = np.array([27, 28, 29, 30, 36, 39, 42, 45])
ROWS = 16  # people per sheet


def held_out(faces: Path) -> tuple[list[Path], list[Path]]:
    """Neutral photos of the London people and photos of strangers that no training may use."""
    london = sorted(path for path in (faces / "london" / "neutral").glob("*.jpg") if path.stem[-1] in "05")
    everybody = sorted((faces / "fairface").glob("*.jpg"), key=lambda path: path.name)
    drawn = np.random.default_rng(SEED).choice(len(everybody), STRANGERS, replace=False)
    return london, [everybody[i] for i in sorted(drawn)]


@dataclass(frozen=True, eq=False)
class Subject:
    """A photo with its face, landmarks found by the slow and steady way."""

    path: Path
    image: Image
    region: FaceRegion

    def crop(self, image: Image, side: int = SIDE) -> Image:
        return crop(image, crop_from_image(self.region.face, side, SYNTH_TEMPLATE), side)

    def tight(self, image: Image) -> Image:
        return crop(image, crop_from_image(self.region.face, SIDE, US_GAN_TEMPLATE), SIDE)

    def landmarks(self, image: Image) -> Points:
        found = refine68(image, self.region.face, robust=True).landmarks68
        assert found is not None
        return found


class Bench:
    def __init__(self, model: Path, face_model: Path) -> None:
        self.blendshape = BlendshapeBackend(load_face_model(face_model))
        self.network = open_model(model)
        self.detector = DlibDetector.load("cpu", None)

    def subject(self, path: Path) -> Subject | str:
        image = read_image(path).rgb
        faces = find_faces(image, self.detector).faces
        if not faces:
            return "no face"
        face = refine68(image, max(faces, key=lambda each: each.size), robust=True)
        return Subject(path, image, region_of(image, face))


def prepared(backend: Backend, subject: Subject) -> object | str:
    (face,) = backend.prepare([subject.region])
    if isinstance(face, FaceRefusal):
        return face.reason
    refusals = [backend.check([face], Edit({expression: 1.0}))[0] for expression in EXPRESSIONS]
    return next((refusal.reason for refusal in refusals if refusal), face)


def edited(backend: Backend, face: object, subject: Subject, expression: str) -> Image:
    (patch,) = backend.generate([face], Edit({expression: 1.0}))
    if not isinstance(patch, FacePatch):
        raise SystemExit(f"{subject.path}: {patch.reason}")
    return paste(subject.image, [subject.region], [patch])[0]


def psnr(one: Image, other: Image) -> float:
    return float(-10 * np.log10(max(1e-9, np.mean((one / 255.0 - other / 255.0) ** 2))))


def frame(points: Points) -> Points:
    """Landmarks (68, 2) in distances between the eyes, turned upright: x to the right, y down."""
    right, left = points[36:42].mean(0), points[42:48].mean(0)
    return transform(similarity(np.array([right, left]), np.array([[-0.5, 0.0], [0.5, 0.0]])), points)


def eye_opening(points: Points) -> float:
    p = frame(points)
    return float(np.mean([p[40, 1] - p[38, 1], p[41, 1] - p[37, 1], p[46, 1] - p[44, 1], p[47, 1] - p[43, 1]]))


def mouth_width(points: Points) -> float:
    p = frame(points)
    return float(np.linalg.norm(p[54] - p[48]))


def corner_height(points: Points, neutral: Points) -> float:
    """How much lower the mouth's corners are than in ``neutral`` of the same person, in distances between the eyes."""
    moved = frame(transform(similarity(points[ANCHORS], neutral[ANCHORS]), points))
    return float((moved - frame(neutral))[[48, 54], 1].mean())


@dataclass(frozen=True, eq=False)
class Compared:
    """One person: figures by expression, and crops (13, S, S, 3): the photo, then render and network for each."""

    figures: dict[str, dict[str, float]]
    crops: NDArray[np.uint8]


class Comparer:
    """Measures one photo after another; made once per process."""

    def __init__(self, model: Path, face_model: Path) -> None:
        cv2.setNumThreads(1)
        self.bench = Bench(model, face_model)

    def __call__(self, path: Path) -> Compared | str:
        bench, subject = self.bench, self.bench.subject(path)
        if isinstance(subject, str):
            return subject
        faces = {name: prepared(getattr(bench, name), subject) for name in ("blendshape", "network")}
        refused = [f"{name}: {face}" for name, face in faces.items() if isinstance(face, str)]
        if refused:
            return "; ".join(refused)
        before, own = subject.landmarks(subject.image), embedding(subject.image, subject.region.face)
        figures: dict[str, dict[str, float]] = {}
        kept = [subject.tight(subject.image)]
        for expression in EXPRESSIONS:
            true = edited(bench.blendshape, faces["blendshape"], subject, expression)
            ours = edited(bench.network, faces["network"], subject, expression)
            there, here = subject.landmarks(true), subject.landmarks(ours)
            face = refine68(ours, subject.region.face, robust=True)
            figures[expression] = {
                "psnr": psnr(subject.crop(ours), subject.crop(true)),
                "untouched": psnr(subject.crop(subject.image), subject.crop(true)),
                "acd": squared_distance(own, embedding(ours, face)),
                "eyes_render": eye_opening(there) - eye_opening(before),
                "eyes": eye_opening(here) - eye_opening(before),
                "width_render": mouth_width(there) - mouth_width(before),
                "width": mouth_width(here) - mouth_width(before),
            }
            kept += [subject.tight(true), subject.tight(ours)]
        return Compared(figures, np.stack(kept))


def render(model: Path, face_model: Path, paths: Sequence[Path], out: Path) -> dict[str, object]:
    found = dict(over_items({path: path for path in paths}, Comparer, (model, face_model)))
    left_out = {path.name: why for path in paths if isinstance(why := found[path], str)}
    names = [path.name for path in paths if path.name not in left_out]
    compared = [each for path in paths if isinstance(each := found[path], Compared)]
    rows = {expression: [each.figures[expression] for each in compared] for expression in EXPRESSIONS}
    crops = [each.crops for each in compared]
    _keep(out, names, np.stack(crops))
    table: dict[str, object] = {"people": len(names), "left_out": left_out}
    print(f"{len(names)} people, {len(left_out)} left out")
    for expression, values in rows.items():
        mean = {key: float(np.mean([value[key] for value in values])) for key in values[0]}
        most = max(value["acd"] for value in values)
        table[expression] = {**mean, "acd_max": most}
        print(
            f"  {expression:<10} {mean['psnr']:6.2f} dB (untouched {mean['untouched']:5.2f})   ACD {mean['acd']:.3f} "
            f"(max {most:.3f})   eyes {mean['eyes']:+.4f} of {mean['eyes_render']:+.4f} "
            f"({mean['eyes'] / mean['eyes_render']:4.0%})   mouth width {mean['width']:+.4f} of "
            f"{mean['width_render']:+.4f} ({mean['width'] / mean['width_render']:4.0%})"
        )
    table["psnr"] = float(np.mean([value["psnr"] for values in rows.values() for value in values]))
    table["untouched"] = float(np.mean([value["untouched"] for values in rows.values() for value in values]))
    print(f"  mean of all {table['psnr']:.2f} dB, untouched {table['untouched']:.2f}", flush=True)
    return table


def _keep(out: Path, names: Sequence[str], crops: NDArray[np.uint8]) -> None:
    """``crops`` (people, 13, S, S, 3): the photo, then render and network for each expression."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "edits.npz").open("wb") as file:
        np.savez(file, names=np.array(names), crops=crops)
    labels = [f"{expression} {who}" for expression in EXPRESSIONS for who in ("render", "net")]
    for number, start in enumerate(range(0, len(crops), ROWS)):
        part = crops[start : start + ROWS]
        write_sheet(out / f"sheet-{number:02}.png", part[:, 0], part[:, 1:], labels)


def removal(bench: Bench, faces: Path, numbers: Sequence[str]) -> dict[str, object]:
    found: dict[str, list[float]] = {"as it was": [], "sad": [], "angry": [], "neutral": []}
    for number in numbers:
        neutral, happy = (bench.subject(faces / "london" / kind / f"{number}.jpg") for kind in ("neutral", "happy"))
        if isinstance(neutral, str) or isinstance(happy, str):
            continue
        face = prepared(bench.network, happy)
        if isinstance(face, str):
            continue
        rest = neutral.landmarks(neutral.image)
        found["as it was"].append(corner_height(happy.landmarks(happy.image), rest))
        for expression in ("sad", "angry", "neutral"):
            picture = edited(bench.network, face, happy, expression)
            found[expression].append(corner_height(happy.landmarks(picture), rest))
    print("corners of the mouth below the true neutral, in distances between the eyes")
    for name, values in found.items():
        print(f"  {name:<10} {np.mean(values):+.4f} (least {np.min(values):+.4f}) over {len(values)}", flush=True)
    return {name: [round(value, 5) for value in values] for name, values in found.items()}


def sharpness(bench: Bench, photos: Sequence[Path], width: int = 1350) -> dict[str, object]:
    ratios: dict[str, list[tuple[float, float]]] = {expression: [] for expression in EXPRESSIONS}
    for path in photos:
        image = read_image(path).rgb
        scale = width / image.shape[1]
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        faces = find_faces(np.asarray(image, np.uint8), bench.detector).faces
        face = refine68(image, max(faces, key=lambda each: each.size), robust=True)
        subject = Subject(path, np.asarray(image, np.uint8), region_of(np.asarray(image, np.uint8), face))
        handle = prepared(bench.network, subject)
        if isinstance(handle, str):
            continue
        for expression in EXPRESSIONS:
            picture = edited(bench.network, handle, subject, expression)
            # Brows bound what landmarks enclose: where they rise or sink, the face before and after are both meant.
            inside = _enclosed(subject, face.landmarks68) | _enclosed(subject, subject.landmarks(picture))
            small = subject.crop(picture)
            back = invert(crop_from_image(face, SIDE, SYNTH_TEMPLATE))
            height, across = picture.shape[:2]
            pasted = cv2.warpAffine(small, back, (across, height), flags=cv2.INTER_CUBIC)
            before = _sharpness(subject.image, inside)
            ratios[expression].append(
                (_sharpness(picture, inside) / before, _sharpness(np.asarray(pasted, np.uint8), inside) / before)
            )
    print(f"variance of the Laplacian inside the face, share of the photo's, at {width} px")
    table: dict[str, object] = {}
    for expression, values in ratios.items():
        ours, pasted = np.array(values).T
        table[expression] = {"ours": ours.tolist(), "pasted": pasted.tolist()}
        print(
            f"  {expression:<10} {ours.mean():.3f} ({ours.min():.2f} to {ours.max():.2f}); "
            f"a {SIDE} px picture pasted back {pasted.mean():.3f}",
            flush=True,
        )
    return table


def _enclosed(subject: Subject, points: Points | None) -> NDArray[np.bool_]:
    assert points is not None
    mask = np.zeros(subject.image.shape[:2], np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(points.astype(np.int32)), 1)
    return mask > 0


def _sharpness(image: Image, inside: NDArray[np.bool_]) -> float:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_32F)[inside].var())


def referee(out: Path, folder: Path, epochs: int = 12) -> dict[str, object]:
    import torch
    from torch import nn

    torch.manual_seed(SEED)
    kinds = list(SEVEN)

    def small(pictures: NDArray[np.uint8]) -> torch.Tensor:
        half = np.stack([cv2.resize(each, (64, 64), interpolation=cv2.INTER_AREA) for each in pictures])
        x = torch.from_numpy(half).permute(0, 3, 1, 2).float() / 255
        return (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True)

    files = [(path, label) for label, kind in enumerate(kinds) for path in sorted((folder / "faces" / kind).glob("*"))]
    x = small(np.stack([read_image(path).rgb for path, _ in files]))
    y = torch.tensor([label for _, label in files])
    layers: list[nn.Module] = []
    for before, after in ((3, 24), (24, 48), (48, 96), (96, 128)):
        layers += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.4), nn.Linear(128 * 16, len(kinds)))
    adam = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=1e-3)
    random = torch.Generator().manual_seed(SEED)
    for epoch in range(epochs):
        for group in adam.param_groups:
            group["lr"] = 1e-3 * (1 - epoch / epochs)
        for rows in torch.randperm(len(x), generator=random).split(64):
            part = x[rows]
            part = part.flip(3) if torch.rand((), generator=random) < 0.5 else part
            loss = nn.functional.cross_entropy(net(part), y[rows], label_smoothing=0.05)
            adam.zero_grad()
            loss.backward()
            adam.step()
    net.eval()
    crops = np.load(out / "edits.npz", allow_pickle=False)["crops"]
    table: dict[str, object] = {"trained_on": len(x)}
    print(f"referee, trained on {len(x)} crops of other people: names the wanted expression")
    sums = np.zeros(2)
    for place, expression in enumerate(EXPRESSIONS):
        rates = []
        for who in (0, 1):
            with torch.no_grad():
                named = net(small(crops[:, 1 + 2 * place + who])).argmax(1)
            rates.append(float((named == kinds.index(expression)).float().mean()))
        sums += rates
        table[expression] = rates
        print(f"  {expression:<10} render {rates[0]:5.1%}   network {rates[1]:5.1%}")
    with torch.no_grad():
        calm = float((net(small(crops[:, 0])).argmax(1) == kinds.index("neutral")).float().mean())
    table["all"] = (sums / len(EXPRESSIONS)).tolist()
    print(f"  all        render {sums[0] / 6:5.1%}   network {sums[1] / 6:5.1%}   (photos called neutral {calm:.1%})")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="render, removal, sharpness; all by default")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--model", type=Path, help="a file written by `exprtool export` of a flow run")
    parser.add_argument("--faces", type=Path, default=SHARED / "faces")
    parser.add_argument("--face-model", type=Path, default=SHARED / "face-model" / "ict_facekit_light.npz")
    parser.add_argument("--people", type=int, help="so many of the strangers only")
    parser.add_argument("--referee", type=Path, metavar="SET")
    parser.add_argument("--list", action="store_true", help="print the file names of the people and stop")
    options = parser.parse_args()
    london, strangers = held_out(options.faces)
    if options.list:
        print("\n".join(path.name for path in (*london, *strangers)))
        return
    if not options.out:
        parser.error("--out is needed")
    out: Path = options.out
    if options.referee:
        _write(out / "referee.json", referee(out, options.referee))
        return
    if not options.model:
        parser.error("--model is needed")
    bench = lru_cache(lambda: Bench(options.model, options.face_model))
    strangers = strangers[: options.people] if options.people else strangers
    parts = {
        "render": lambda: render(options.model, options.face_model, [*london, *strangers], out),
        "removal": lambda: removal(bench(), options.faces, [path.stem for path in london]),
        "sharpness": lambda: sharpness(bench(), london),
    }
    if unknown := set(options.parts) - set(parts):
        parser.error(f"unknown part {', '.join(sorted(unknown))}; known: {', '.join(parts)}")
    for part in options.parts or parts:
        start = time.perf_counter()
        _write(out / f"{part}.json", parts[part]())
        print(f"  ({time.perf_counter() - start:.0f} s)", flush=True)


def _write(path: Path, table: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, json.dumps(table, indent=1).encode())


if __name__ == "__main__":
    main()
