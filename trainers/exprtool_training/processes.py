"""One process or many: who I am, and what all of us must agree on. Lightning Fabric starts and connects them.

Every process runs the same loop on its slice of the same global batch and averages gradients with the others, so that
the weights stay equal everywhere and equal to those of one process with the whole batch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from exprtool.devices import resolve_device
from exprtool.errors import TrainingError, UsageError
from exprtool.extras import install_command
from exprtool_training.config import RunConfig, TorchConfig

if TYPE_CHECKING:
    import torch
    from lightning_fabric import Fabric
    from torch import Tensor


class Alone:
    """A run in this process only. ``device`` is None where nothing is computed by PyTorch."""

    rank, size = 0, 1

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = device

    @property
    def device(self) -> torch.device:
        """Where to compute; only for runs that use PyTorch."""
        assert self._device is not None
        return self._device

    def __str__(self) -> str:
        """The device by name, and how many processes share the work."""
        if self._device is None:
            return "the processor"
        name = str(self._device)
        if self._device.type == "cuda":
            import torch

            name = torch.cuda.get_device_name(self._device)
        return name + (f" x {self.size} processes" if self.size > 1 else "")

    @property
    def leads(self) -> bool:
        """Whether this process writes and shows; one does."""
        return self.rank == 0

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over all processes, in place."""

    def any(self, flag: bool) -> bool:
        """Whether any process raises the flag."""
        return flag

    def wait(self) -> None:
        """Go on when everybody is here."""


class Together(Alone):
    """A run over several processes, on one machine or many."""

    def __init__(self, fabric: Fabric) -> None:
        super().__init__(fabric.device)
        self._fabric = fabric
        self.rank, self.size = fabric.global_rank, fabric.world_size
        self._flat: dict[int, Tensor] = {}

    def average(self, tensors: Sequence[Tensor]) -> None:
        import torch

        total = sum(tensor.numel() for tensor in tensors)
        if total not in self._flat:  # one buffer and one message for all gradients of a network
            self._flat[total] = torch.empty(total, device=self.device)
        flat = self._flat[total]
        parts = flat.split([tensor.numel() for tensor in tensors])
        for part, tensor in zip(parts, tensors, strict=True):
            part.copy_(tensor.reshape(-1))
        self._fabric.all_reduce(flat, reduce_op="mean")
        for part, tensor in zip(parts, tensors, strict=True):
            tensor.copy_(part.view(tensor.shape))

    def any(self, flag: bool) -> bool:
        import torch

        raised = torch.tensor(float(flag), device=self.device)
        self._fabric.all_reduce(raised, reduce_op="sum")
        return bool(raised.item())

    def wait(self) -> None:
        self._fabric.barrier()


def join(config: RunConfig) -> Alone:
    """Connect to the other processes that the configuration speaks of, starting them where no launcher has.

    Raises `DeviceError` where the device cannot be used, `UsageError` where a launcher started another number of
    processes than the configuration asks for, `TrainingError` where the package for it is missing.
    """
    if not isinstance(config, TorchConfig):
        return Alone()
    import torch

    wanted = config.devices * config.nodes
    launched = int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", "1")) or 1)
    if wanted == 1:
        if int(os.environ.get("WORLD_SIZE", "1") or 1) > 1:
            raise UsageError(
                f"The launcher started {launched} processes, but the run is configured for one: "
                f"give --devices {launched} (per machine) and --nodes (machines)."
            )
        return Alone(torch.device(str(resolve_device(config.device, runtime="torch"))))
    if "WORLD_SIZE" in os.environ and launched != wanted:
        raise UsageError(
            f"The launcher started {launched} processes, but --devices {config.devices} x --nodes {config.nodes} is "
            f"{wanted}: make them equal."
        )
    try:
        from lightning_fabric import Fabric
    except ImportError:
        raise TrainingError(
            f"Training with several processes needs Lightning Fabric: {install_command('torch')}"
        ) from None
    device = resolve_device(config.device, runtime="torch")
    if device.index is not None:
        raise UsageError(f"--device {device} names one card; with --devices {config.devices} write --device cuda.")
    strategy: Any = "ddp"
    fabric = Fabric(accelerator=device.kind, devices=config.devices, num_nodes=config.nodes, strategy=strategy)
    fabric.launch()
    return Together(fabric)
