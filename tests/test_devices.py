"""Devices: what was asked for is used or is an error, and an idle graphics card is not passed over in silence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from exprtool import devices
from exprtool.errors import DeviceError, ModelError, UnknownNameError
from exprtool.types import BackendSpec


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Forget what was found out about this machine: the tests pretend to be others."""
    caches = (devices.nvidia_signs, devices._torch_obstacle, devices._onnx_cuda_obstacle, devices._onnxruntime)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        if hasattr(cache, "cache_clear"):
            cache.cache_clear()


@pytest.fixture
def no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_seems_present", lambda kind: False)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with an NVIDIA card, as far as the system shows."""
    monkeypatch.setattr(devices, "_seems_present", lambda kind: kind == "cuda")


def pretend(monkeypatch: pytest.MonkeyPatch, listed: list[str], used: list[str] | Exception) -> None:
    """Have ONNX Runtime list some providers, and sessions end up with others, as it does when CUDA does not start."""
    import onnxruntime

    real = onnxruntime.InferenceSession

    def session(model, options, providers):
        if isinstance(used, Exception):
            raise used
        made = real(model, options, providers=["CPUExecutionProvider"])
        return SimpleNamespace(get_providers=lambda: used, run=made.run)

    fake = SimpleNamespace(
        get_available_providers=lambda: listed,
        InferenceSession=session,
        SessionOptions=onnxruntime.SessionOptions,
        GraphOptimizationLevel=onnxruntime.GraphOptimizationLevel,
        __version__=onnxruntime.__version__,
    )
    monkeypatch.setattr(devices, "_onnxruntime", lambda: fake)


CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def test_names_of_devices():
    assert str(devices.resolve_device("cpu")) == "cpu"
    assert str(devices.resolve_device(" CPU ")) == "cpu"
    for name in ("gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", ""):
        with pytest.raises(UnknownNameError, match="auto, cpu, cuda, cuda:N, mps"):
            devices.resolve_device(name)


def test_auto_without_a_card_is_the_cpu_and_says_nothing(no_card):
    assert devices.resolve_device("auto") == devices.Device("cpu")


@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_cuda_without_a_cuda_build_is_an_error_that_names_the_extra(monkeypatch, card, name):
    pretend(monkeypatch, [CPU], [CPU])
    with pytest.raises(DeviceError, match="onnxruntime-gpu") as caught:
        devices.resolve_device(name)
    assert f"--device {name}" in str(caught.value)


def test_auto_with_an_idle_card_says_so(monkeypatch, card):
    pretend(monkeypatch, [CPU], [CPU])
    device = devices.resolve_device("auto")
    assert str(device) == "cpu"
    assert device.note is not None
    assert "stays idle" in device.note
    assert "onnxruntime-gpu" in device.note


def test_a_provider_that_is_listed_but_does_not_start_is_not_taken_for_working(monkeypatch, card):
    """ONNX Runtime then makes a session for the CPU without an error."""
    pretend(monkeypatch, [CUDA, CPU], [CPU])
    with pytest.raises(DeviceError, match="cannot start CUDA card 0"):
        devices.resolve_device("cuda")
    assert "stays idle" in (devices.resolve_device("auto").note or "")
    devices._onnx_cuda_obstacle.cache_clear()
    pretend(monkeypatch, [CUDA, CPU], RuntimeError("CUDA failure 100: no CUDA-capable device"))
    with pytest.raises(DeviceError, match="no CUDA-capable device"):
        devices.resolve_device("cuda:0")


def test_a_card_that_works_is_taken(monkeypatch, card):
    pretend(monkeypatch, [CUDA, CPU], [CUDA, CPU])
    assert devices.resolve_device("auto") == devices.Device("cuda")
    assert str(devices.resolve_device("cuda:3")) == "cuda:3"


def test_a_session_that_ends_up_elsewhere_is_an_error(monkeypatch, card):
    pretend(monkeypatch, [CUDA, CPU], [CPU, CUDA])
    with pytest.raises(DeviceError, match="does not run on cuda but on CPUExecutionProvider"):
        devices.onnx_session(devices._TINY_MODEL, devices.Device("cuda"))


def test_what_a_backend_cannot_use_is_refused_by_its_name(card):
    spec = BackendSpec("slow", "CPU only.", load=lambda device: pytest.fail("loaded"))
    with pytest.raises(DeviceError, match=r"slow: .*only on cpu"):
        devices.device_for(spec, "cuda")
    assert devices.device_for(spec, "auto") == devices.Device("cpu")  # no card of use to it, so nothing to say


def test_torch_is_asked_for_backends_that_run_on_it(monkeypatch):
    torch = pytest.importorskip("torch")
    spec = BackendSpec(
        "net", "PyTorch.", load=lambda device: pytest.fail("loaded"), devices=("cpu", "cuda"), runtime="torch"
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert str(devices.device_for(spec, "auto")) == "cuda"
    assert str(devices.device_for(spec, "cuda:1")) == "cuda:1"
    with pytest.raises(DeviceError, match="cuda:0 to cuda:1"):
        devices.device_for(spec, "cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    devices._torch_obstacle.cache_clear()
    with pytest.raises(DeviceError):
        devices.device_for(spec, "cuda")


def test_a_session_computes_with_the_threads_it_may_use():
    session = devices.onnx_session(devices._TINY_MODEL, "cpu", threads=1)
    assert session.get_providers() == [CPU]
    (answer,) = session.run(None, {"x": np.array([-2.0], np.float32)})
    assert answer == [0.0]
    (answer,) = devices.onnx_session(devices._TINY_MODEL, "auto").run(None, {"x": np.array([2.0], np.float32)})
    assert answer == [2.0]
    assert devices.usable_cpus() >= 1


def test_models_that_do_not_open_say_which_and_what_to_do(tmp_path: Path):
    with pytest.raises(ModelError, match="no such model file"):
        devices.onnx_session(tmp_path / "none.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"broken\.onnx.*exprtool models verify"):
        devices.onnx_session(broken)
    with pytest.raises(ModelError, match="cannot open the model"):
        devices.onnx_session(b"not a model")


def test_opening_a_broken_model_prints_nothing():
    """ONNX Runtime writes its own account of what is raised anyway to the process's stderr."""
    script = (
        "from exprtool.devices import onnx_session, _TINY_MODEL\n"
        "from exprtool.errors import ModelError\n"
        "onnx_session(_TINY_MODEL)\n"
        "try: onnx_session(b'not a model')\n"
        "except ModelError: print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "refused\n"
    assert done.stderr == ""
