"""The three detectors: what each does with one image at its own scale.

Scale, rotation, 68 landmarks and false hits are the business of `exprtool.faces.detect`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import numpy as np

from exprtool.errors import ModelError, UsageError
from exprtool.faces import dlib_files
from exprtool.faces.align import crop
from exprtool.faces.landmarks import centred, five_of, roll_of
from exprtool.faces.packs import find_pack
from exprtool.types import Detector, Face, Image, Points


class DlibDetector(Detector):
    """dlib's HOG detector of upright frontal faces (Dalal and Triggs, with King's max-margin training).

    What it is not sure of is shown to dlib's CNN detector (King, arXiv 1502.00046), which is hard to deceive but takes
    seconds for a whole photo and so only sees small crops; and a small version of a photo in which nothing was found.
    """

    overview = 960
    smallest = 80.0
    sure = 0.6

    @classmethod
    def load(cls, device: str, argument: str | None) -> Self:
        if argument:
            raise UsageError(f"--detector dlib takes nothing after a colon, but got {argument!r}.")
        dlib_files.path_of(dlib_files.LANDMARKS_68)  # raises where something is missing
        return cls()

    def detect(self, image: Image) -> list[Face]:
        if min(image.shape[:2]) < 16:
            return []
        image = np.ascontiguousarray(image)
        boxes, scores, _ = dlib_files.frontal_detector().run(image, 0, _DLIB_FAINTEST)
        return [_dlib_face(image, box, score) for box, score in zip(boxes, scores, strict=True)]

    def confirms(self, image: Image, face: Face) -> bool:
        """Show the face, upright and about as small as the CNN can see, to the CNN."""
        pixels = np.ascontiguousarray(crop(image, centred(face.landmarks5, _CNN_FACE, _CNN_CROP), _CNN_CROP))
        middle = _CNN_CROP / 2
        return any(
            hit.confidence > _CNN_CONFIDENT
            and abs(hit.rect.center().x - middle) < 0.35 * _CNN_FACE
            and abs(hit.rect.center().y - middle) < 0.4 * _CNN_FACE
            and 0.6 < hit.rect.width() / _CNN_FACE < 1.8
            for hit in dlib_files.cnn_detector()(pixels, 0)
        )

    def detect_slowly(self, image: Image) -> list[Face]:
        if min(image.shape[:2]) < self.smallest:
            return []
        import cv2

        scale = min(1.0, _CNN_LONGER_SIDE / max(image.shape[:2]))
        small = image
        if scale < 1:
            small = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
        small = np.ascontiguousarray(small)
        hits = dlib_files.cnn_detector()(small, 0)
        # its confidence is on another scale than the HOG detector's, and above its threshold there is no doubt
        faces = [_dlib_face(small, hit.rect, self.sure) for hit in hits if hit.confidence > _CNN_CONFIDENT]
        return [_scaled(face, 1 / scale) for face in faces]


_DLIB_FAINTEST = -0.35
"""HOG scores down to here are looked at again. Further down there are many more mistakes than faces."""
_CNN_CONFIDENT = 0.5
"""On test photos true faces reach 0.8 to 1.1; what the HOG detector takes for a face by mistake gets nothing at all."""
_CNN_FACE, _CNN_CROP = 88, 128
_CNN_LONGER_SIDE = 640


def _dlib_face(image: Image, box: Any, score: float) -> Face:
    parts = dlib_files.predictor(68)(image, box).parts()
    points = np.array([(part.x, part.y) for part in parts], dtype=np.float64)
    bounds = (box.left(), box.top(), box.right(), box.bottom())
    return _face(bounds, float(score), five_of(points), "dlib")


def _scaled(face: Face, scale: float) -> Face:
    box = tuple((value + 0.5) * scale - 0.5 for value in face.box)
    return _face(box, face.score, (face.landmarks5 + 0.5) * scale - 0.5, face.detector)


class YuNetDetector(Detector):
    """YuNet (Wu, Peng and Yu 2023) on OpenCV."""

    overview = 640
    smallest = 28.0
    sure = 0.925

    def __init__(self, model: Path) -> None:
        self._model = model
        self._fixed = _fixed_size(model)
        self._of_this_thread = threading.local()
        self._network((320, 320))  # an unreadable model is to be known now

    @classmethod
    def load(cls, device: str, argument: str | None) -> Self:
        if argument:
            path = Path(argument).expanduser()
            if not path.is_file():
                raise ModelError(f"{path}: no such file. Give YuNet's model: --detector yunet:FILE.onnx.")
            return cls(path)
        from exprtool.faces.weights import YUNET
        from exprtool.weights import catalogue as models

        return cls(models.weight_path(YUNET))

    def _network(self, size: tuple[int, int]) -> Any:
        """The network for inputs of ``size`` (width, height); one per thread, as it keeps its input inside."""
        import cv2

        local = self._of_this_thread
        if not hasattr(local, "network"):
            level = cv2.utils.logging.getLogLevel()
            cv2.utils.logging.setLogLevel(
                cv2.utils.logging.LOG_LEVEL_ERROR
            )  # it warns of targets that nobody asked for
            try:
                local.network = cv2.FaceDetectorYN.create(str(self._model), "", self._fixed or size, 0.6, 0.3, 5000)
            except cv2.error as error:
                raise ModelError(f"{self._model}: OpenCV cannot read this as YuNet's model ({error.err}).") from error
            finally:
                cv2.utils.logging.setLogLevel(level)
        if self._fixed is None:
            local.network.setInputSize(size)
        return local.network

    def detect(self, image: Image) -> list[Face]:
        bgr = np.ascontiguousarray(image[..., ::-1])
        height, width = bgr.shape[:2]
        scale = 1.0
        if self._fixed:
            bgr, scale = _letterbox(bgr, self._fixed)
            height, width = bgr.shape[:2]
        _, rows = self._network((width, height)).detect(bgr)
        faces = []
        for row in [] if rows is None else np.asarray(rows, dtype=np.float64):
            x, y, w, h = row[:4] / scale
            faces.append(_face((x, y, x + w, y + h), float(row[14]), row[4:14].reshape(5, 2) / scale, "yunet"))
        return faces


class InsightFaceDetector(Detector):
    """SCRFD (Guo et al., ICLR 2022) of an InsightFace model pack."""

    overview = 640
    smallest = 28.0
    sure = 0.8

    def __init__(self, model: Path, device: str = "cpu") -> None:
        from insightface.model_zoo.scrfd import SCRFD

        from exprtool.devices import onnx_session

        session = onnx_session(model, device)
        if len(session.get_outputs()) not in (9, 15):  # scores, boxes and landmarks at three or five strides
            raise ModelError(f"{model}: this is not an InsightFace detector with landmarks (SCRFD or RetinaFace).")
        # Without a file name it runs every size in this one session instead of building one for each size.
        self._network = SCRFD(session=session, static_shape_sessions=False)
        self._fixed = _fixed_size(model)
        self._lock = threading.Lock()  # it caches anchors inside

    @classmethod
    def load(cls, device: str, argument: str | None) -> Self:
        return cls(_detector_of(find_pack(argument)), device)

    def detect(self, image: Image) -> list[Face]:
        bgr = np.ascontiguousarray(image[..., ::-1])
        scale = 1.0
        if self._fixed:
            bgr, scale = _letterbox(bgr, self._fixed)
        else:  # the coarsest stride wants multiples of 32
            bgr = _pad(bgr, 32)
        with self._lock:
            boxes, points = self._network.detect(bgr, input_size=bgr.shape[1::-1])
        assert points is not None, "the number of outputs was checked"
        return [
            _face(box[:4] / scale, float(box[4]), five / scale, "insightface")
            for box, five in zip(boxes.astype(np.float64), points.astype(np.float64), strict=True)
        ]


def _detector_of(pack: Path) -> Path:
    """The detector's file in a pack: what its manifest says, else the file named as InsightFace names detectors."""
    if pack.is_file():
        return pack
    from insightface.model_zoo.package_manifest import (
        has_model_package_manifest,
        load_model_package,
        verify_model_artifact,
    )

    if has_model_package_manifest(pack):
        try:
            return Path(verify_model_artifact(load_model_package(pack).task("detection")))
        except (KeyError, ValueError, TypeError, OSError, RuntimeError) as error:
            raise ModelError(
                f"{pack}: the model pack's manifest does not hold: {error}. Fetch the pack anew."
            ) from error
    files = sorted(pack.glob("*.onnx"))
    named = [file for file in files if file.name.startswith(("det_", "scrfd_", "retinaface_"))]
    if len(named) == 1 or len(files) == 1:
        return (named or files)[0]
    listing = ", ".join(file.name for file in named or files)
    raise ModelError(
        f"{pack}: cannot tell which file is the face detector ({listing}). Name it: insightface:FILE.onnx."
    )


def _fixed_size(model: Path) -> tuple[int, int] | None:
    """(width, height) that an ONNX model insists on, or None where its input size is free."""
    import onnx

    try:
        graph = onnx.load_model(str(model), load_external_data=False).graph
        height, width = (dimension.dim_value for dimension in graph.input[0].type.tensor_type.shape.dim[2:4])
    except Exception as error:  # protobuf's errors have no common base
        raise ModelError(
            f"{model}: not a readable ONNX model ({type(error).__name__}). Fetch or export it anew."
        ) from error
    return (width, height) if width > 0 and height > 0 else None


def _letterbox(image: Image, size: tuple[int, int]) -> tuple[Image, float]:
    """The image at the top left of a black one of ``size`` (width, height), and the scale that it was given."""
    import cv2

    height, width = image.shape[:2]
    scale = min(size[0] / width, size[1] / height)
    w, h = max(1, min(size[0], round(width * scale))), max(1, min(size[1], round(height * scale)))
    canvas = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    canvas[:h, :w] = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return canvas, scale


def _pad(image: Image, multiple: int) -> Image:
    """The image with black at its right and bottom, so that its sides are multiples."""
    height, width = image.shape[:2]
    return np.pad(image, ((0, -height % multiple), (0, -width % multiple), (0, 0)))


def _face(box: Iterable[float], score: float, landmarks5: Points, detector: str) -> Face:
    x0, y0, x1, y1 = (float(value) for value in box)
    return Face((x0, y0, x1, y1), score, landmarks5, roll=roll_of(landmarks5), detector=detector)
