"""How many of the faces there each detector finds, how many things that are none, and how long it takes.

    python benchmarks/detect.py ../shared

The first table is the test photos, counted by eye. The second is groups of strangers: montages of faces in the wild,
at many sizes, on ordinary backgrounds. Faces smaller than `SMALLEST_USEFUL` are not looked for. A face counts as there
when both its eyes and its mouth are in the picture.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from exprtool import images, plugins
from exprtool.faces.detect import SMALLEST_USEFUL, find_faces
from exprtool.types import Detector, Image

# Counted by eye. In pexels_group a fifth person is cut off above the mouth, and in detection1 passers-by are far out of
# focus: these do not count.
FACES_THERE = {
    "Family1-Dad1.jpg": 1,
    "Family1-Mom1.jpg": 1,
    "Family2-Lady1.jpg": 1,
    "Family2-Man1.jpg": 1,
    "detection1.jpg": 1,
    "detection3.jpg": 1,
    "detection5.jpg": 3,
    "identification1.jpg": 4,
    "man2-person-group.jpg": 1,
    "no_face.jpg": 0,
    "pexels_angry.jpg": 1,
    "pexels_group.jpeg": 4,
    "pexels_neutral.jpeg": 1,
    "pexels_surprised.jpeg": 1,
    "test-image-person-group.jpg": 2,
    "woman1-person-group.jpg": 1,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="the folder of test photos, faces and models")
    parser.add_argument("--montages", type=int, default=8, help="how many groups of strangers to build (default 8)")
    parser.add_argument("--detectors", default="dlib,yunet,insightface")
    options = parser.parse_args()
    shared: Path = options.shared
    arguments = {
        "yunet": str(shared / "models" / "face_detection_yunet.onnx"),
        "insightface": str(shared / "models" / "insightface"),
    }
    detectors = {
        name: plugins.registry().detector(name).load("cpu", arguments.get(name))
        for name in options.detectors.split(",")
    }
    for detector in detectors.values():  # what is loaded at first use is not part of a photo's time
        find_faces(images.read_image(shared / "photos" / "Family1-Mom1.jpg").rgb, detector)
    photos = (
        (name, images.read_image(shared / "photos" / name).rgb, np.zeros((0, 2)), count)
        for name, count in FACES_THERE.items()
    )
    report("Photos", photos, detectors)
    report("Groups of strangers", montages(shared, options.montages), detectors)


def report(title: str, pictures: Iterator[tuple[str, Image, np.ndarray, int]], detectors: dict[str, Detector]) -> None:
    """One row per picture: faces found (and, with known centres, how many of them are none) and seconds."""
    table = Table(title=title)
    for heading in ("picture", "size", "there", *(part for name in detectors for part in (name, "s"))):
        table.add_column(heading, justify="left" if heading == "picture" else "right")
    totals = {name: np.zeros(3) for name in detectors}
    there_in_all = 0
    for name, image, centres, there in pictures:
        row = [name, f"{image.shape[1]} x {image.shape[0]}", str(there)]
        there_in_all += there
        for key, detector in detectors.items():
            start = time.perf_counter()
            faces = find_faces(image, detector).faces
            seconds = time.perf_counter() - start
            if len(centres):
                apart = [np.linalg.norm(centres - face.centre, axis=1).min() / face.size for face in faces]
                right = sum(distance < 0.5 for distance in apart)
            else:
                right = min(len(faces), there)
            wrong = len(faces) - right
            totals[key] += (right, wrong, seconds)
            row += [f"{right}" + (f" + {wrong} wrong" if wrong else ""), f"{seconds:.2f}"]
        table.add_row(*row)
    row = ["in all", "", str(there_in_all)]
    for right, wrong, seconds in totals.values():
        row += [f"{right:.0f}" + (f" + {wrong:.0f} wrong" if wrong else ""), f"{seconds:.1f}"]
    table.add_section()
    table.add_row(*row)
    console = Console(width=140)
    console.print(table)
    if {"dlib", "insightface"} <= totals.keys():
        ratio = totals["dlib"][0] / max(totals["insightface"][0], 1)
        console.print(f"dlib finds {ratio:.1%} of what SCRFD (insightface) finds.\n")


def montages(shared: Path, count: int) -> Iterator[tuple[str, Image, np.ndarray, int]]:
    """Groups of 12: faces in the wild, from 45 to 340 pixels, on a blurred background; and the centres."""
    import cv2

    rng = np.random.default_rng(2026)
    sources = sorted((shared / "faces" / "fairface").glob("*.jpg"))
    rng.shuffle(sources)
    sources = iter(sources)
    backgrounds = [shared / "photos" / name for name in ("test-image-person-group.jpg", "identification1.jpg")]
    for number in range(count):
        canvas = cv2.resize(images.read_image(backgrounds[number % 2]).rgb, (1600, 1080))
        canvas = np.asarray(cv2.GaussianBlur(canvas, (0, 0), 60), dtype=np.uint8)  # its own faces are gone
        centres = []
        for cell in range(12):
            # the face, forehead to chin, is about as tall as such a picture; as many small ones as large ones
            side = round(SMALLEST_USEFUL * float(np.exp(rng.uniform(0.2, np.log(340 / SMALLEST_USEFUL)))))
            picture = images.read_image(next(sources)).rgb
            how = cv2.INTER_AREA if side < picture.shape[0] else cv2.INTER_CUBIC
            picture = cv2.resize(picture, (side, side), interpolation=how)
            x = cell % 4 * 400 + round(float(rng.uniform(0, 400 - side)))
            y = cell // 4 * 360 + round(float(rng.uniform(0, 360 - side)))
            canvas[y : y + side, x : x + side] = picture
            centres.append((x + side / 2, y + side / 2))
        yield f"group {number + 1}", canvas, np.array(centres), len(centres)


if __name__ == "__main__":
    main()
