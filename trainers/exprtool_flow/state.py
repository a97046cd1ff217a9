"""The whole state of a run on disk, and back: network, running average, AdamW's moments, and where the run stands.

One safetensors file; the best checkpoint holds the running average alone. What a step draws and the learning rate are
pure functions of seed and step, so nothing else needs keeping.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from exprtool.documents import parse_json
from exprtool.errors import ModelError, TrainingError
from exprtool.settings import from_plain, to_plain
from exprtool_default.card import METADATA_KEY, FlowCard, card_from_json
from exprtool_flow.augment import Batch
from exprtool_flow.config import FlowConfig
from exprtool_flow.imported import SUFFIX, fill_from_export
from exprtool_flow.motion import Motion
from exprtool_flow.networks import FlowNet, NetConfig, Reader
from exprtool_gan.schedule import ema_decay
from exprtool_usgan.checkpoint import CHECKPOINTS, LAST, fill, find_checkpoint, read_metadata, read_part, save

NET_KEY, PROGRESS_KEY = "exprtool_flow_net", "exprtool_flow_training"
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Progress:
    """Where a run stands: steps done, fingerprint of its data, PSNR of the best checkpoint, seconds worked."""

    step: int
    data: str
    best: float | None = None
    seconds: float = 0.0


class Learner:
    """The network, its running average and its optimizer."""

    def __init__(self, net: NetConfig, config: FlowConfig, device: torch.device) -> None:
        with torch.random.fork_rng(devices=[]):  # the same first weights on every device
            torch.manual_seed(config.seed)
            # Channels last: convolutions on a CPU take an eighth less time.
            whole = FlowNet(net).to(device)
            self.net = whole.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]  # not in stubs
        self.net.encoder.reader.requires_grad_(False)
        self.average = copy.deepcopy(self.net).eval().requires_grad_(False)
        self.adam = torch.optim.AdamW(
            _learned(self.net).values(), lr=config.lr, betas=(0.9, 0.99), weight_decay=config.weight_decay
        )
        self.device, self._decay = device, config.ema

    def begin_with(self, motion: Motion, reader: Reader) -> None:
        """Take over how faces move in general, and how to read them."""
        for net in (self.net, self.average):
            net.decoder.begin_with(motion)
            net.encoder.reader.load_state_dict(reader.state_dict())

    def begin_from(self, path: Path, batch: Callable[[int], Batch], count: int) -> None:
        """Take over what another run, a folder or a checkpoint, has learned, or what an exported network knows; for
        that ``count`` batches of pairs are looked at. Raises `ModelError` where its network is another one."""
        if path.suffix.lower() == SUFFIX:
            fill_from_export(self.average, path, batch, count)
            self.net.load_state_dict(self.average.state_dict())
            return
        path = find_checkpoint(path)
        tensors = read_part(path, "ema")
        for net in (self.net, self.average):
            fill(net, tensors, path)

    def set_rate(self, rate: float) -> None:
        for group in self.adam.param_groups:
            group["lr"] = rate

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Move the running average, after ``step`` steps before this one; counts and statistics go along."""
        decay = ema_decay(step, self._decay)
        for mine, theirs in zip(self.average.state_dict().values(), self.net.state_dict().values(), strict=True):
            if mine.dtype.is_floating_point:
                mine.lerp_(theirs, 1 - decay)
            else:
                mine.copy_(theirs)


def save_training(path: Path, learner: Learner, card: FlowCard, config: FlowConfig, progress: Progress) -> None:
    """Write the state atomically. `TrainingError`, and the old file stays, where a weight is not finite."""
    _check_finite(learner.net, progress.step, path)
    parts = {"net": learner.net.state_dict(), "ema": learner.average.state_dict(), "adam": _moments(learner)}
    training = json.dumps({"progress": asdict(progress), "config": to_plain(config)})
    save(path, parts, {**_header(learner.net.config, replace(card, step=progress.step)), PROGRESS_KEY: training})


def save_average(path: Path, learner: Learner, card: FlowCard, step: int) -> None:
    """Write the running average alone: what is needed to use the network, or to export it."""
    _check_finite(learner.average, step, path)
    save(path, {"ema": learner.average.state_dict()}, _header(learner.net.config, replace(card, step=step)))


def load_training(path: Path, learner: Learner) -> Progress:
    """Put a saved state into a learner of the same architecture. Raises `ModelError` where it does not fit."""
    progress, _ = _read_training(path)
    fill(learner.net, read_part(path, "net"), path)
    fill(learner.average, read_part(path, "ema"), path)
    moments = read_part(path, "adam")
    for name, parameter in _learned(learner.net).items() if progress.step else ():
        state = learner.adam.state[parameter]
        state["step"] = torch.tensor(float(progress.step))
        for moment in _MOMENTS:
            tensor = moments.get(f"{name}.{moment}")
            if tensor is None or tensor.shape != parameter.shape:
                raise ModelError(f"{path} lacks the optimizer's {moment} of {name}. Start a new run.")
            state[moment] = torch.empty_like(parameter, requires_grad=False).copy_(tensor)
    return progress


def load_average(path: Path) -> tuple[FlowNet, FlowCard]:
    """The network of a run's folder (the best one, else the last) or of a file, ready for use, with its card."""
    path = find_checkpoint(path)
    metadata = read_metadata(path)
    if METADATA_KEY not in metadata or NET_KEY not in metadata:
        raise ModelError(f"{path} holds no flow network. Give the folder of a run of `exprtool train --trainer flow`.")
    values = parse_json(metadata[NET_KEY])
    net = FlowNet(NetConfig(**{**values, "widths": tuple(values["widths"])}))
    fill(net, read_part(path, "ema"), path)
    return net.eval().requires_grad_(False), card_from_json(metadata[METADATA_KEY], str(path))


def is_flow(path: Path) -> bool:
    """Whether a run's folder or file is one of ours. Raises `ModelError` where it holds no checkpoint at all."""
    return NET_KEY in read_metadata(find_checkpoint(path))


def stored_config(folder: Path) -> FlowConfig:
    """The settings of the run in a folder, from its last checkpoint. Raises `TrainingError` where there is none."""
    last = folder / CHECKPOINTS / LAST
    if not last.is_file():
        raise TrainingError(
            f"{folder} holds no checkpoint to resume from ({CHECKPOINTS}/{LAST}). Start the run without --resume, or "
            "name the folder of one that has saved."
        )
    _, plain = _read_training(last)
    return FlowConfig(**from_plain(FlowConfig, plain, str(last)))


def _read_training(path: Path) -> tuple[Progress, dict[str, Any]]:
    text = read_metadata(path).get(PROGRESS_KEY)
    if text is None:
        raise TrainingError(f"{path} holds no training state of a flow network, so no run can go on from it.")
    training = parse_json(text)
    return Progress(**training["progress"]), dict(training["config"])


def _header(net: NetConfig, card: FlowCard) -> dict[str, str]:
    return {METADATA_KEY: card.to_json(), NET_KEY: json.dumps(asdict(net))}


def _learned(net: FlowNet) -> dict[str, nn.Parameter]:
    """The parameters that steps change: all but the reader's."""
    return {name: parameter for name, parameter in net.named_parameters() if parameter.requires_grad}


def _moments(learner: Learner) -> Mapping[str, Tensor]:
    return {
        f"{name}.{moment}": learner.adam.state[parameter][moment]
        for name, parameter in _learned(learner.net).items()
        if parameter in learner.adam.state
        for moment in _MOMENTS
    }


def _check_finite(net: FlowNet, step: int, path: Path) -> None:
    for name, tensor in net.state_dict().items():
        if not tensor.isfinite().all():
            raise TrainingError(
                f"After step {step} the weight {name} is not finite; nothing was saved, and {path.parent} holds the "
                "last good checkpoint. Resume from it, or start anew with a lower --lr."
            )
