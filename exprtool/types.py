"""The few types that core, backends, detectors, classifiers and trainers exchange.

Conventions
-----------
* An image is RGB, ``uint8``, shape ``(H, W, 3)``. There is no BGR array anywhere behind the I/O modules.
* A point is ``(x, y)`` in pixels; ``(0, 0)`` is the centre of the top left pixel.
* A box is ``(x0, y0, x1, y1)``. Float boxes bound a face; integer boxes are half-open pixel ranges, so that
  ``image[y0:y1, x0:x1]`` is what they enclose.
* Sizes are ``(h, w)``. Matrices are named by direction: ``crop_from_image`` maps image points to crop points.
* "Left" and "right" in landmark and blendshape names are the person's own, as in iBUG 68 and ARKit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exprtool.extras import install_command

Image = NDArray[np.uint8]
"""RGB picture, shape (H, W, 3), uint8."""

Points = NDArray[np.float64]
"""Points (x, y) in pixels, shape (n, 2)."""

Box = tuple[float, float, float, float]
IntBox = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Face:
    """One face in one image. All coordinates are those of the whole, upright image.

    ``landmarks5`` holds the person's right eye, left eye, nose tip, right and left mouth corner, as seen from left to
    right in an upright photo. ``landmarks68`` is the iBUG/Multi-PIE layout, or None where nothing refined the five.
    ``roll`` is the in-plane rotation of the head in degrees, clockwise in the image.
    """

    box: Box
    score: float
    landmarks5: Points
    landmarks68: Points | None = None
    roll: float = 0.0
    detector: str = ""
    track: int | None = None

    @property
    def size(self) -> float:
        """Longer side of the box in pixels."""
        x0, y0, x1, y1 = self.box
        return max(x1 - x0, y1 - y0)

    @property
    def centre(self) -> tuple[float, float]:
        x0, y0, x1, y1 = self.box
        return (x0 + x1) / 2, (y0 + y1) / 2


@dataclass(frozen=True, eq=False)
class FaceRegion:
    """What a backend sees: a face and an axis-aligned rectangle of the photo's own pixels around it.

    ``box`` is the rectangle in image coordinates; ``pixels`` is a read-only view of it, never resampled. ``others``
    are the remaining faces of the photo that touch the rectangle, so that a backend can keep off them.
    ``track_state`` is whatever the backend's `begin_track` returned for this face's track (video), else None.
    ``image_size`` (h, w) is the photo's, where it is known: a border of the rectangle that is also the photo's needs
    no seam.
    """

    face: Face
    box: IntBox
    pixels: Image
    others: tuple[Face, ...] = ()
    track_state: Any = None
    image_size: tuple[int, int] | None = None

    def to_region(self, points: Points) -> Points:
        """Move points (n, 2) from image coordinates to this region's."""
        return np.asarray(points, dtype=np.float64) - np.array(self.box[:2], dtype=np.float64)

    @property
    def landmarks68(self) -> Points | None:
        """The 68 landmarks in the region's own coordinates, shape (68, 2)."""
        return None if self.face.landmarks68 is None else self.to_region(self.face.landmarks68)

    @property
    def landmarks5(self) -> Points:
        """The 5 landmarks in the region's own coordinates, shape (5, 2)."""
        return self.to_region(self.face.landmarks5)


@dataclass(frozen=True)
class Edit:
    """The wanted expression.

    ``weights`` are amounts of the named expressions (see `exprtool.expressions`), ``controls`` are blendshape weights
    added on top, named as in ARKit (``browInnerUp``, ``mouthSmileLeft``). ``strength`` in [0, 1.5] scales how far the
    face goes from what it wears to what is wanted; 0 changes nothing. ``reference`` is a face whose expression is to
    be copied in place of ``weights``. ``asymmetry`` (>= 0) is the standard deviation of the relative left/right
    difference, drawn from ``seed``. ``force`` asks a backend to do faces that it would rather leave alone.

    ``additive`` is set for video: the wanted expression is added to the face's own motion instead of replacing what it
    wears in each frame, so that a mouth that talks keeps talking. With w the wanted expression, f what the frame's face
    wears and r what the track's face wears at rest (from `Backend.begin_track`), the result is f + strength (w - r).
    A backend that knows no such coefficients may ignore it.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    controls: Mapping[str, float] = field(default_factory=dict)
    strength: float = 1.0
    reference: FaceRegion | None = None
    asymmetry: float = 0.0
    seed: int = 0
    force: bool = False
    additive: bool = False


@dataclass(frozen=True, eq=False)
class FacePatch:
    """A backend's answer for one region: new pixels and how much of them to take.

    ``pixels`` is (h, w, 3) uint8 and ``alpha`` (h, w) float32 in [0, 1], both exactly the region's size. Where alpha
    is 0 the photo keeps its own bits. ``flow`` is the optional backward flow, (h, w, 2) float32 in region pixels: the
    patch at p shows what the photo had at p + flow; ``painted`` (h, w) float32 in [0, 1] tells where it does not hold
    because something new was drawn. ``notes`` are short remarks for the report; ``details`` are JSON-ready figures
    (fitted weights, residual) that go into ``--json``.
    """

    pixels: Image
    alpha: NDArray[np.float32]
    flow: NDArray[np.float32] | None = None
    painted: NDArray[np.float32] | None = None
    notes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FaceRefusal:
    """A backend's answer where it leaves a face alone: the reason, in words for the user's report.

    ``settles`` is set where the photo is the reason and not the backend (a hand before the mouth): then no other
    backend is asked, which might only fail to notice.
    """

    reason: str
    settles: bool = False


class Backend(ABC):
    """Something that gives faces an expression.

    A simple backend implements `generate` alone and receives the regions themselves. One whose work splits into a
    part that does not depend on the edit overrides `prepare`, and receives in `generate` what it returned there:
    preparing once then serves many expressions.
    """

    def begin_track(self, samples: Sequence[FaceRegion]) -> Any:
        """Fit once what stays the same along a track in a video (identity, light); becomes `FaceRegion.track_state`.

        ``samples`` are regions of the same person from a few frames of the track.
        """
        return None

    def prepare(self, regions: Sequence[FaceRegion]) -> list[Any | FaceRefusal]:
        """Do the work that does not depend on the edit; one answer per region, in order."""
        return list(regions)

    def check(self, prepared: Sequence[Any], edit: Edit) -> list[FaceRefusal | None]:
        """Say beforehand which prepared faces `generate` would leave alone for this edit, and why (for the plan).

        What can be done only badly is refused here and in `generate`, unless ``edit.force``; `prepare` refuses only
        what cannot be done at all.
        """
        return [None] * len(prepared)

    def trace(self, prepared: Any) -> Any:
        """The little of a prepared face that its neighbours along a track need to be made steady; None for nothing."""
        return None

    def steadied(self, prepared: Any, traces: Sequence[tuple[float, Any]]) -> Any:
        """A prepared face of a track, freed of what shakes from frame to frame.

        ``traces`` holds (seconds from this frame, trace) of the frames around it in which the same face is followed
        without a break, earlier and later ones, itself at 0 among them.
        """
        return prepared

    @abstractmethod
    def generate(self, prepared: Sequence[Any], edit: Edit) -> list[FacePatch | FaceRefusal]:
        """Give each prepared face the expression; one answer per face, in order.

        Must not write into a region's pixels. Errors are `ExprtoolError` with a message for the user.
        """


class Detector(ABC):
    """Something that finds faces. Scale, rotation and 68-point refinement are the caller's (`exprtool.faces`).

    ``overview`` is the longer side to which large photos are reduced for the first look; ``smallest`` is the side of
    the smallest face, in pixels of the image it is given, that it finds reliably: it decides how large a photo must be
    made for the second look. A face whose score reaches ``sure`` is beyond doubt, and upright.
    """

    overview: int = 640
    smallest: float = 24.0
    sure: float = 0.0

    @abstractmethod
    def detect(self, image: Image) -> list[Face]:
        """Find the upright faces of an RGB image (H, W, 3) at its own scale, in any order."""

    def confirms(self, image: Image, face: Face) -> bool:
        """Look again, more closely, at a face whose score does not reach ``sure``; by default it is believed."""
        return True

    def detect_slowly(self, image: Image) -> list[Face]:
        """A more thorough search, for photos where nothing else was found; by default there is none."""
        return []


@dataclass(frozen=True)
class Readiness:
    """Whether something can be used now; if not, why and what to do about it (both for the user to read)."""

    ready: bool
    reason: str = ""
    remedy: str = ""


def _always_ready() -> Readiness:
    return Readiness(True)


class ExpressionClassifier(ABC):
    """Something that names the expression on a face crop. ``labels`` are what its scores mean, in order."""

    @property
    @abstractmethod
    def labels(self) -> tuple[str, ...]: ...

    @abstractmethod
    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.floating]:
        """Crops (N, S, S, 3) uint8 RGB -> scores (N, len(labels)), higher is more likely."""


def _opens_nothing(path: Path) -> bool:
    return False


def packages_ready(*names: str, extra: str = "torch") -> Readiness:
    """Whether packages that come with an extra of exprtool are installed; imports none of them."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        return Readiness(False, f"{' and '.join(missing)} not installed", install_command(extra))
    return Readiness(True)


@dataclass(frozen=True)
class WeightFile:
    """A file of weights that something needs: where it comes from, what it must contain, and what one may do with it.

    ``file`` is its name in the cache, ``sha256`` and ``size`` (bytes) are those of that file. ``urls`` are tried in
    order; ``origin`` is the page where a person would look for it. ``commercial`` is False where the licence forbids
    commercial use. Where upstream does not offer the file as such, ``pack`` makes it from the one that was downloaded:
    it receives (downloaded, target) paths, ``download_size`` is what has to be fetched, and ``download_sha256`` its
    hash. An archive whose hash is not known (servers make some anew for each request) is unpacked all the same, so
    ``pack`` must look at the sizes that it declares before it takes memory or disk for them.
    """

    name: str
    file: str
    sha256: str
    size: int
    licence: str
    commercial: bool
    origin: str
    urls: tuple[str, ...]
    summary: str = ""
    pack: Callable[[Path, Path], None] | None = None
    download_size: int | None = None
    download_sha256: str | None = None


@dataclass(frozen=True)
class BackendSpec:
    """What a plugin registers for one backend. Making and listing a spec loads nothing heavy.

    ``quality`` orders ``--backend auto``: the ready backend with the highest one is taken. ``controls`` are the
    blendshape names that it understands. ``needs`` are the weights that it cannot do without. ``trained`` tells
    provenance whether a trained model makes the pixels. ``load`` receives the device ("cpu", "cuda", "cuda:1", "mps");
    ``load_from`` also receives what the user wrote after a colon (``--backend onnx:model.onnx``), and is None where
    the backend takes nothing there. ``runtime`` ("onnxruntime" or "torch") is the library whose devices it runs on;
    ``argument_runs_on`` is the library and the devices of ``load_from`` where they are others.
    ``import_weights`` makes weights for this backend of a foreign file with one of the suffixes ``imports``
    (``exprtool models import``): it receives the path and the labels that the user gave, and returns the name for
    ``--backend`` and where the weights now lie. ``opens`` tells whether a file or folder is one of the backend's own
    (``exprtool evaluate --model PATH``).
    """

    name: str
    summary: str
    load: Callable[[str], Backend]
    expressions: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    resolution: str = "the photo's own"
    needs: tuple[WeightFile, ...] = ()
    devices: tuple[str, ...] = ("cpu",)
    runtime: str = "onnxruntime"
    quality: int = 0
    trained: bool = True
    reference: bool = False
    load_from: Callable[[str, str], Backend] | None = None
    argument_runs_on: tuple[str, tuple[str, ...]] | None = None
    opens: Callable[[Path], bool] | None = None
    imports: tuple[str, ...] = ()
    import_weights: Callable[[Path, tuple[str, ...]], tuple[str, Path]] | None = None
    readiness: Callable[[], Readiness] = _always_ready


@dataclass(frozen=True)
class DetectorSpec:
    """What a plugin registers for one detector; the fields mean the same as in `BackendSpec`.

    ``load`` receives the device and an optional path or pack name that the user gave after a colon
    (``--detector yunet:models/face.onnx``). With ``needs_any`` one of ``needs`` is enough, or something else that the
    plugin finds by itself (a pack that the user has); whether it is ready is then the plugin's own word.
    """

    name: str
    summary: str
    load: Callable[[str, str | None], Detector]
    needs: tuple[WeightFile, ...] = ()
    needs_any: bool = False
    devices: tuple[str, ...] = ("cpu",)
    quality: int = 0
    readiness: Callable[[], Readiness] = _always_ready


@dataclass(frozen=True)
class ClassifierSpec:
    """What a plugin registers for one classifier of expressions; the fields mean the same as in `BackendSpec`."""

    name: str
    summary: str
    load: Callable[[str], ExpressionClassifier]
    needs: tuple[WeightFile, ...] = ()
    devices: tuple[str, ...] = ("cpu", "cuda")
    quality: int = 0
    readiness: Callable[[], Readiness] = _always_ready


@dataclass(frozen=True)
class ExportWish:
    """How ``exprtool export`` wants a run written. A trainer refuses with `UsageError` what it does not know.

    ``kind``: "float32", "half" (weights stored as float16) or "int8". ``data`` are real crops or photos to compare on,
    ``crops`` how many; ``progress`` is called with (done, total, name) while they are prepared. ``weights``: "auto",
    "ema" (the running average) or "raw". ``licence`` goes into the card instead of the run's own.
    """

    kind: str = "float32"
    data: tuple[Path, ...] = ()
    crops: int = 64
    weights: str = "auto"
    licence: str | None = None
    overwrite: bool = False
    progress: Callable[[int, int, str], None] | None = None


@dataclass(frozen=True)
class Exported:
    """An exported file. ``text`` says in one line what it is, ``record`` in JSON-ready figures how well it agrees with
    what was trained, ``card`` is what it carries inside."""

    path: Path
    kind: str
    content: bytes
    text: str
    record: Mapping[str, Any]
    card: Mapping[str, Any]


@dataclass(frozen=True)
class Variant:
    """A model that a trainer can make for the paper's comparison (``exprtool reproduce``): a name for its tables, the
    settings in which it differs from the trainer's own, and the numbers of the paper's figures in which it stands."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    figures: tuple[int, ...] = ()


@dataclass(frozen=True)
class TrainerSpec:
    """What a plugin registers for one trainer.

    ``config`` returns the trainer's dataclass of hyperparameters (imported only then); every field becomes a flag of
    ``exprtool train`` and a key of its TOML file. ``run`` trains to the end of an instance of it, before the eyes of a
    watcher (None: its own screen); it raises KeyboardInterrupt where it was interrupted and can be resumed.

    ``opens`` tells whether a run's folder or a checkpoint is the trainer's own. Such a one is used by ``load``, which
    receives it and the device (``exprtool edit PHOTO --backend run:FOLDER``, ``exprtool evaluate --model FOLDER``),
    and written to one ONNX file by ``export``, which receives it, the file and an `ExportWish`. ``own_head`` returns
    the expression classifier that the training brought along, where it has one. ``variants`` are the models that it
    brings to ``exprtool reproduce``; the one of Fig. 2 is the method that the comparison is about.
    """

    name: str
    summary: str
    config: Callable[[], type]
    run: Callable[..., None]
    opens: Callable[[Path], bool] = _opens_nothing
    load: Callable[[Path, str], Backend] | None = None
    export: Callable[[Path, Path, ExportWish], Exported] | None = None
    own_head: Callable[[Path], Any] | None = None
    variants: tuple[Variant, ...] = ()
    readiness: Callable[[], Readiness] = _always_ready
