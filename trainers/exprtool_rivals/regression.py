# ruff: noqa: RUF009  (`setting` declares a field; it makes no value that instances would share)
"""Masked regression and pixel-based synthesis: fits in closed form, without PyTorch.

Masked regression (Khan et al., IJCV 2020, arXiv 2011.09104): windows of 3 x 3, each channel by itself, ridge 0.4,
pictures stretched to [0, 1] each, the answer stretched again. Pixel-based (Akram and Khan, ICPR 2020, arXiv
2010.14397), linear form: windows of one pixel; one fit for the three channels, which the abstract leaves open and the
authors' later code does. The answer is never more than what the window holds: mouths do not open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from exprtool.crop_backend import CropBackend
from exprtool.errors import DataError, ModelError, UsageError
from exprtool.faces.align import CropTemplate
from exprtool.model_card import CropCard, card_from_json
from exprtool.settings import setting
from exprtool.types import Exported, ExportWish
from exprtool_rivals.pairs import pairs_of
from exprtool_rivals.ridge import Sums, offsets, predict
from exprtool_training.checkpoint import Parts, find_checkpoint, read_metadata, read_part
from exprtool_training.config import INF
from exprtool_training.crops import SHEET_FACES, CropsConfig, described, in_words, load_crops
from exprtool_training.export import check_target, crop_model, crops_for, halve, needing_packages, write
from exprtool_training.method import Method, Sheet
from exprtool_training.processes import Alone
from exprtool_training.progress import Progress
from exprtool_training.watch import Look, Watcher

CARD_KEY, FIT_KEY = "exprtool_regression_card", "exprtool_regression"


@dataclass(frozen=True)
class MaskedConfig(CropsConfig):
    """A fit of masked regression."""

    trainer: ClassVar[str] = "masked-regression"

    out: Path = setting(Path("runs/masked-regression"), "Run", "Folder of the run.", changes=True)
    crop: Literal["aligned", "centre"] = setting(
        "aligned", "Data", "Eyes and mouth brought to fixed places, which the fit counts on, or the centred square."
    )
    source: str = setting("neutral", "Data", "The expression that is given; everything is learned from it.")
    window: int = setting(3, "Method", "Side of the window that a pixel is predicted from, odd.", span=(1, 9))
    ridge: float = setting(0.4, "Method", "The weight lambda of the squared weights.", span=(1e-9, INF))
    shared: bool = setting(False, "Method", "One fit for all three channels.")
    stretch: bool = setting(
        True, "Method", "Stretch the answer to the full range, as the authors do; else to the input's own."
    )
    batch_size: int = setting(25, "Training", "Pairs per step.", span=(1, INF))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window % 2 == 0:
            raise UsageError(f"--window must be odd, not {self.window}.")


@dataclass(frozen=True)
class PixelConfig(MaskedConfig):
    """A fit of pixel-based synthesis, linear form."""

    trainer: ClassVar[str] = "pixel-fes"

    out: Path = setting(Path("runs/pixel-fes"), "Run", "Folder of the run.", changes=True)
    window: int = setting(1, "Method", "Side of the window that a pixel is predicted from, odd.", span=(1, 9))
    shared: bool = setting(True, "Method", "One fit for all three channels.")


@dataclass(frozen=True, eq=False)
class Fit:
    """A fit for C expressions: ``weights`` (C, r^2 + 1, K, S, S) float32, K = 1 where the channels share them."""

    window: int
    stretch: bool
    weights: NDArray[np.float32]

    def picture(self, x: NDArray[np.float32], c: NDArray[np.float32]) -> NDArray[np.float32]:
        """Crops (N, 3, S, S) in [-1, 1] with one-hot labels (N, C) -> pictures (N, 3, S, S) in [-1, 1]."""
        low, high = _range(x)
        y = predict(self.weights[c.argmax(1)], (x - low) / (high - low), self.window)
        if self.stretch:
            least, most = _range(y)
            return (2 * (y - least) / (most - least) - 1).astype(np.float32)
        return np.clip(y * (high - low) + low, -1, 1).astype(np.float32)

    @property
    def parameters(self) -> int:
        """Weights of one expression that are not zero by the border."""
        return int(np.count_nonzero(self.weights, axis=(1, 2, 3, 4)).max())


class Regression(Method):
    """Takes pairs of one person in, and solves at the last step."""

    losses = ("untouched", "error")
    meanings: ClassVar[Mapping[str, str]] = {
        "untouched": "RMS difference of source and target, in [0, 1]",
        "error": "RMS difference of fit and target",
    }
    unit = "pairs"

    def __init__(self, config: MaskedConfig, world: Alone, watcher: Watcher) -> None:
        self.config = config
        self.prepared = prepared = load_crops(config, world, watcher.prepared)
        self.pairs = pairs_of(prepared, prepared.train, config.source)
        self.total = -(-len(self.pairs) // config.batch_size)
        self.data, self.manifest = prepared.manifest_hash, prepared.manifest
        channels, side = 1 if config.shared else 3, prepared.size
        self.sums = [Sums.empty(config.window, channels, side, side) for _ in self.pairs.labels]
        self.weights = np.zeros((len(self.sums), config.window**2 + 1, channels, side, side), np.float32)
        self.facts = (
            *in_words(config, prepared),
            f"{len(self.pairs):,} pairs from {config.source} to {', '.join(self.pairs.labels)}",
        )

    def step(self, step: int) -> NDArray[np.float64]:
        taken = np.arange(step * self.config.batch_size, min((step + 1) * self.config.batch_size, len(self.pairs)))
        squares = 0.0
        for label in np.unique(self.pairs.label[taken]):
            chosen = taken[self.pairs.label[taken] == label]
            source, target = (self._pictures(part[chosen]) for part in (self.pairs.source, self.pairs.target))
            self.sums[label].add(source, target)
            squares += float(((source - target) ** 2).mean((1, 2, 3)).sum()) / (3 if self.config.shared else 1)
        untouched = float(np.sqrt(squares / len(taken)))
        if step + 1 < self.total:
            return np.array([untouched])
        self.weights[:] = [sums.solve(self.config.ridge) for sums in self.sums]
        errors = [sums.error(weights) for sums, weights in zip(self.sums, self.weights.astype(float), strict=True)]
        return np.array([untouched, np.sqrt(np.mean(np.square(errors)))])

    def _pictures(self, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """Crops, each stretched to [0, 1]: (N, 3, S, S), or (3 N, 1, S, S) where the channels share a fit."""
        pictures = self.prepared.images[places].transpose(0, 3, 1, 2).astype(np.float64)
        low, high = _range(pictures)
        pictures = (pictures - low) / (high - low)
        return pictures.reshape(-1, 1, *pictures.shape[2:]) if self.config.shared else pictures

    def state(self) -> Parts:
        sums = {
            f"{label}.{entry.name}": getattr(of, entry.name)
            for label, of in zip(self.pairs.labels, self.sums, strict=True)
            for entry in fields(Sums)
            if entry.name != "window"
        }
        return {"sums": sums, "fit": {"weights": self.weights}}

    def restore(self, path: Path, progress: Progress) -> None:
        saved = read_part(path, "sums", "np")
        try:
            for label, sums in zip(self.pairs.labels, self.sums, strict=True):
                for entry in fields(Sums):
                    if entry.name != "window":
                        getattr(sums, entry.name)[...] = saved[f"{label}.{entry.name}"]
            self.weights[...] = read_part(path, "fit", "np")["weights"]
        except (KeyError, ValueError) as error:
            raise ModelError(
                f"{path} holds a fit of another shape ({error}). Start a new run in another --out."
            ) from None

    def product(self, step: int, look: Look | None) -> tuple[Parts, Mapping[str, str]]:
        return {"fit": {"weights": self.weights}}, self.header(step)

    def header(self, step: int) -> Mapping[str, str]:
        config = self.config
        data = described(config, self.prepared, pairs=len(self.pairs), source_expression=config.source)
        fit = Fit(config.window, config.stretch, self.weights)
        card = CropCard(
            self.pairs.labels, self.prepared.size, self.prepared.template, config.licence or "unknown", data,
            config.trainer, parameters=fit.parameters, step=step, residual_output="residual",
        )  # fmt: skip
        return {CARD_KEY: card.to_json(), FIT_KEY: f"{config.window} {int(config.stretch)}"}

    def sheet(self) -> Sheet | None:
        if not self.weights.any():
            return None
        fit = Fit(self.config.window, self.config.stretch, self.weights)
        start = self.prepared.labels == self.prepared.label_names.index(self.config.source)
        unseen = np.flatnonzero(start & self.prepared.is_test)
        sources = (unseen if len(unseen) else np.unique(self.pairs.source))[:SHEET_FACES]
        faces = np.asarray(self.prepared.images[sources])
        x = faces.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(127.5) - 1
        labels = np.eye(len(self.pairs.labels), dtype=np.float32)
        columns = [fit.picture(x, np.repeat(labels[[i]], len(x), 0)) for i in range(len(labels))]
        pixels = np.rint((np.stack(columns, 1) + 1) * 127.5).astype(np.uint8)  # (N, C, 3, S, S)
        return faces, pixels.transpose(0, 1, 3, 4, 2), self.pairs.labels


def open_fit(path: Path) -> tuple[Fit, CropCard]:
    """The fit of a run's folder or checkpoint, and its card; raises `ModelError`."""
    path = find_checkpoint(path)
    header = read_metadata(path)
    if FIT_KEY not in header or CARD_KEY not in header:
        raise ModelError(f"{path} holds no regression. Give a run of the trainer masked-regression or pixel-fes.")
    window, stretch = (int(part) for part in header[FIT_KEY].split())
    card = card_from_json(header[CARD_KEY], str(path))
    weights = read_part(path, "fit", "np").get("weights")
    shape = (len(card.labels), window**2 + 1, card.size, card.size)
    if weights is None or weights.ndim != 5 or (*weights.shape[:2], *weights.shape[3:]) != shape:
        raise ModelError(f"The weights in {path} are not those that its card describes. Take another copy of the file.")
    if not weights.any():
        raise ModelError(f"The fit in {path} is not solved yet. Finish it with `exprtool train --resume`.")
    return Fit(window, bool(stretch), weights), card


def load(path: Path, device: str) -> CropBackend:
    fit, card = open_fit(path)
    return CropBackend(card, lambda x, c: fit.picture(x, c) - x)


def export(run: Path, out: Path, wish: ExportWish) -> Exported:
    """Write the fit as ONNX, with its card inside."""
    if wish.kind == "int8" or wish.weights != "auto":
        raise UsageError("A regression is exported in float32 or with --half; it has no other weights.")
    check_target(out, wish)
    fit, card = open_fit(run)
    with needing_packages():
        model = _graph(fit, card)
    if wish.kind == "half":
        halve(model.graph)
    data = crops_for(wish, card)
    if data is not None and not _alike(data.template, card.template):
        raise DataError(
            f"The fit was made for crops with eyes and mouth at {card.template}, but the data has them at "
            f"{data.template}: a regression holds only where it was made. Prepare the data as for the training."
        )
    return write(model, card, fit.picture, out, wish, data)


def _alike(one: CropTemplate, other: CropTemplate) -> bool:
    """Whether two templates put eyes and mouth at the same places, within a window of 3 pixels of 128."""
    return bool(np.allclose(tuple(asdict(one).values()), tuple(asdict(other).values()), atol=1.5 / 128))


def _graph(fit: Fit, card: CropCard) -> Any:
    from onnx import helper, numpy_helper

    side, reach = card.size, fit.window // 2
    channels = fit.weights.shape[2]
    nodes: list[Any] = []
    constants: dict[str, Any] = {
        "weights": fit.weights.reshape(len(fit.weights), -1),
        "shape": np.array([-1, fit.window**2 + 1, channels, side, side]),
        "pads": np.array([0, 0, reach, reach, 0, 0, reach, reach]),
        "axes": np.array([2, 3]), "one": np.array([1]), "two": np.float32(2), "white": np.float32(1),
        "black": np.float32(-1),
    }  # fmt: skip

    def add(operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def stretched(x: str, name: str) -> tuple[str, str, str]:
        """The picture in [0, 1], its least value and its span."""
        low = add("ReduceMin", [x], f"{name}.low", axes=[1, 2, 3], keepdims=1)
        span = add("Sub", [add("ReduceMax", [x], f"{name}.high", axes=[1, 2, 3], keepdims=1), low], f"{name}.span")
        return add("Div", [add("Sub", [x, low], f"{name}.above"), span], f"{name}.unit"), low, span

    unit, low, span = stretched("image", "image")
    padded = add("Pad", [unit, "pads"], "padded")
    flat = add("MatMul", ["label", "weights"], "weights.flat")
    maps = add("Reshape", [flat, "shape"], "weights.maps")  # (N, r^2 + 1, K, S, S)
    names = [f"weight.{i}" for i in range(fit.window**2 + 1)]
    nodes.append(helper.make_node("Split", [maps], names, axis=1))
    total = add("Squeeze", [names[-1], "one"], "constant")
    for i, (dy, dx) in enumerate(offsets(fit.window)):
        constants[f"from.{i}"] = np.array([dy + reach, dx + reach])
        constants[f"to.{i}"] = np.array([dy + reach + side, dx + reach + side])
        seen = add("Slice", [padded, f"from.{i}", f"to.{i}", "axes"], f"seen.{i}")
        weight = add("Squeeze", [names[i], "one"], f"weight.{i}.map")
        total = add("Add", [total, add("Mul", [seen, weight], f"term.{i}")], f"sum.{i}")
    if fit.stretch:
        unit, *_ = stretched(total, "answer")
        answer = add("Add", [add("Mul", [unit, "two"], "doubled"), "black"], "answer")
    else:
        answer = add("Add", [add("Mul", [total, span], "spread"), low], "answer")
    add("Clip", [answer, "black", "white"], "output")
    add("Sub", ["output", "image"], "residual")
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    return crop_model(nodes, tensors, side, len(card.labels), ("output", "residual"))


def _range(pictures: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The least and the greatest value of each picture, (N, 1, 1, 1); a plain picture gets a span of 1."""
    low, high = (edge(pictures, axis=(1, 2, 3), keepdims=True) for edge in (np.min, np.max))
    return low, np.where(high > low, high, low + 1)
