"""What is learned: the network, its running average and its optimizer; and where they lie in a checkpoint.

The parts of a checkpoint are ``net``, ``ema`` (the running average, which is what is used) and ``adam``.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from exprtool.documents import parse_json
from exprtool.errors import ModelError
from exprtool_default.card import METADATA_KEY, FlowCard, card_from_json
from exprtool_flow.augment import Batch
from exprtool_flow.config import FlowConfig
from exprtool_flow.imported import SUFFIX, fill_from_export
from exprtool_flow.motion import Motion
from exprtool_flow.networks import FlowNet, NetConfig, Reader
from exprtool_training.checkpoint import Parts, fill, find_checkpoint, read_metadata, read_part
from exprtool_training.moments import fill_moments, moments
from exprtool_training.schedule import ema_decay

NET_KEY = "exprtool_flow_net"


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

    def parts(self) -> Parts:
        adam = moments(self.adam, _learned(self.net))
        return {"net": self.net.state_dict(), "ema": self.average.state_dict(), "adam": adam}

    def restore(self, path: Path, step: int) -> None:
        """Take `parts` out of a checkpoint after ``step`` steps; `ModelError` where they do not fit."""
        fill(self.net, read_part(path, "net"), path)
        fill(self.average, read_part(path, "ema"), path)
        fill_moments(self.adam, _learned(self.net), read_part(path, "adam"), step, path)


def header(net: NetConfig, card: FlowCard) -> dict[str, str]:
    return {METADATA_KEY: card.to_json(), NET_KEY: json.dumps(asdict(net))}


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


def _learned(net: FlowNet) -> dict[str, nn.Parameter]:
    """The parameters that steps change: all but the reader's."""
    return {name: parameter for name, parameter in net.named_parameters() if parameter.requires_grad}
