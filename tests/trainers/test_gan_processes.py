"""Several processes at the same global batch learn what one does; over gloo, as on a cluster without GPUs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")

from safetensors.torch import load_file  # noqa: E402

from exprtool.errors import DeviceError, UsageError  # noqa: E402
from exprtool.settings import to_toml  # noqa: E402
from exprtool_gan import toy  # noqa: E402
from exprtool_gan.config import TrainConfig  # noqa: E402
from exprtool_gan.loop import train  # noqa: E402
from exprtool_rivals.variants import StarGanConfig  # noqa: E402
from exprtool_training.data import PrepareOptions, ScanOptions, prepare  # noqa: E402
from exprtool_training.processes import join  # noqa: E402
from exprtool_usgan.checkpoint import read_card  # noqa: E402


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.parametrize(("kind", "steps"), [(TrainConfig, 6), (StarGanConfig, 2)])
def test_two_processes_learn_what_one_does(kind: type[TrainConfig], steps: int, tmp_path: Path):
    """Through the command line, which starts the second process itself. Through StarGAN's six blocks rounding (4e-6
    after two steps) grows a thousandfold every two steps, so that later ones compare nothing."""
    toy.write_set(tmp_path / "raw", range(10))
    prepare(
        [tmp_path / "raw"], tmp_path / "set", PrepareOptions(32, "centre", test_fraction=0.2), ScanOptions(), workers=1
    )
    config = kind(
        data=(tmp_path / "set",), out=tmp_path / "two", image_size=32, channels=4, d_channels=4, d_layers=3,
        steps=steps, batch_size=4, d_steps=2, crop="centre", device="cpu", devices=2, look_every=0,
        sample_every=steps // 2, log_every=2, tensorboard=False, lr=1e-3, precision="float32",
    )  # fmt: skip
    (tmp_path / "two.toml").write_text(to_toml(config, "two processes"))
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(),
        "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    command = [sys.executable, "-m", "exprtool", "train", "--trainer", kind.trainer]
    command += ["--config", str(tmp_path / "two.toml")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 processes" in done.stderr
    assert done.stderr.count(f"Done after {steps} steps") == 1  # one process speaks and writes
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train(kind(**{**vars(config), "out": tmp_path / "one", "devices": 1}))
    finally:
        torch.set_num_threads(threads)
    one = load_file(tmp_path / "one" / "checkpoints" / "last.safetensors")
    two = load_file(tmp_path / "two" / "checkpoints" / "last.safetensors")
    assert one.keys() == two.keys() and read_card(tmp_path / "two").step == steps
    start = _first_weights(config)
    allowed = 0.02 if steps > 2 else 1e-4
    for name in one:
        a, b = one[name], two[name]
        part, _, weight = name.partition(".")
        scale = (a - start[name]).norm() if part in ("generator", "discriminator") else a.norm()
        if part != "discriminator" and weight.startswith("main.0.weight"):
            # What a label's plane adds is nearly the same everywhere, and the norm after it takes that out: the true
            # gradient of these weights is about 0, and Adam makes full steps of whatever rounding leaves there.
            a, b = a[:, :3], b[:, :3]
        assert scale > 0, name
        assert (a - b).norm() <= allowed * scale, f"{name}: {(a - b).norm() / scale:.1%} of how far it moved"


def _first_weights(config: TrainConfig) -> dict[str, torch.Tensor]:
    from exprtool_gan.step import Learner

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        learner = Learner(config, 2, torch.device("cpu"), average=lambda gradients: None)
    return {**_named("generator", learner.generator), **_named("discriminator", learner.discriminator)}


def _named(part: str, net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {f"{part}.{name}": tensor for name, tensor in net.state_dict().items()}


def test_launchers_and_settings_must_agree(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UsageError, match="--devices 4"):
        join(TrainConfig(device="cpu"))
    with pytest.raises(UsageError, match="make them equal"):
        join(TrainConfig(device="cpu", devices=2))
    monkeypatch.delenv("WORLD_SIZE")
    with pytest.raises(DeviceError):
        join(TrainConfig(device="cuda:7", devices=2))
    alone = join(TrainConfig(device="cpu"))
    assert alone.leads and (alone.rank, alone.size) == (0, 1) and alone.any(True) and not alone.any(False)
