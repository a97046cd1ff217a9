"""Which processor does the work, and the one place where ONNX Runtime sessions are made.

A device that was asked for by name is used or is an error. ``auto`` takes the best one that works, and says so when a
graphics card seems to be there and stays idle: nobody should find out after an hour that it all ran on the CPU.
"""

from __future__ import annotations

import contextlib
import io
import os
import platform
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from exprtool.errors import DeviceError, ModelError, UnknownNameError
from exprtool.extras import install_command
from exprtool.types import BackendSpec, DetectorSpec

if TYPE_CHECKING:
    import onnxruntime

Runtime = Literal["onnxruntime", "torch"]
KINDS = ("cpu", "cuda", "mps")
_CUDA_PROVIDER = "CUDAExecutionProvider"
_SPELLING = re.compile(r"(?:(auto|cpu|mps)|cuda(?::(\d{1,3}))?)\Z")

# y = relu(x) on one number, opset 13: enough to see whether a provider starts on this machine. That a provider is
# listed only means that the package was built with it; its libraries or the card may still be missing.
_TINY_MODEL = (
    b'\x08\x08:3\n\x0c\n\x01x\x12\x01y"\x04Relu\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)


@dataclass(frozen=True)
class Device:
    """A device that was seen to work. ``str(device)`` is what backends receive: "cpu", "cuda", "cuda:1", "mps".

    ``note`` is for the user to read where ``auto`` left a graphics card idle, else None.
    """

    kind: Literal["cpu", "cuda", "mps"]
    index: int | None = None
    note: str | None = None

    def __str__(self) -> str:
        return self.kind if self.index is None else f"{self.kind}:{self.index}"


def resolve_device(
    name: str = "auto", *, runtime: Runtime = "onnxruntime", supported: Sequence[str] = ("cpu", "cuda", "mps")
) -> Device:
    """The device that ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps`` stands for.

    ``runtime`` is the library that is to run on it, ``supported`` the kinds that the backend can use. Raises
    `UnknownNameError` for any other name, and `DeviceError`, with what to do, where a device that was asked for by
    name cannot be used. Under ``auto`` the answer may carry a note that a graphics card stays idle.
    """
    match = _SPELLING.match(name.strip().lower())
    if not match:
        raise UnknownNameError("device", name, ("auto", "cpu", "cuda", "cuda:N", "mps"))
    if match[1] == "auto":
        return _best(runtime, supported)
    kind: Any = match[1] or "cuda"
    index = int(match[2]) if match[2] else None
    if kind not in supported:
        raise DeviceError(
            f"--device {name}: this runs only on {', '.join(supported)}. Use --device {supported[0]} or --device auto."
        )
    if obstacle := _obstacle(kind, index, runtime):
        reason, remedy = obstacle
        raise DeviceError(f"--device {name} cannot be used: {reason}. {remedy} Or use --device cpu.")
    return Device(kind, index)


def device_for(spec: BackendSpec | DetectorSpec, name: str = "auto") -> Device:
    """`resolve_device` for what one backend or detector can use; the error then names it."""
    runtime: Any = getattr(spec, "runtime", "onnxruntime")
    try:
        return resolve_device(name, runtime=runtime, supported=spec.devices)
    except DeviceError as error:
        raise DeviceError(f"{spec.name}: {error}") from error


def _best(runtime: Runtime, supported: Sequence[str]) -> Device:
    idle: list[str] = []
    for kind in ("cuda", "mps"):
        if kind not in supported or not _seems_present(kind):
            continue
        obstacle = _obstacle(kind, None, runtime)
        if obstacle is None:
            return Device(kind)
        reason, remedy = obstacle
        idle.append(f"a graphics card seems to be there but stays idle ({reason}); running on the CPU. {remedy}")
    return Device("cpu", note=idle[0] if idle else None)


# ---------------------------------------------------------------------------------------------------------------------
# What is there


@cache
def nvidia_signs() -> tuple[str, ...]:
    """What makes one believe that this machine has an NVIDIA card; starts and imports nothing."""
    signs: list[str] = []
    nodes = sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*")) if os.name == "posix" else []
    signs += [f"/dev/{node}" for node in nodes]
    if Path("/proc/driver/nvidia/version").exists():
        signs.append("NVIDIA driver")
    if Path("/dev/dxg").exists():  # Windows Subsystem for Linux passes any card through this node
        if Path("/usr/lib/wsl/lib/libcuda.so.1").exists():
            signs.append("/dev/dxg")
    elif not nodes and shutil.which("nvidia-smi"):
        signs.append("nvidia-smi")
    return tuple(signs)


def _seems_present(kind: str) -> bool:
    if kind == "mps":
        return sys.platform == "darwin" and platform.machine() == "arm64"
    torch = sys.modules.get("torch")  # ask it only where it is loaded anyway: importing it takes seconds
    return bool(nvidia_signs()) or (torch is not None and bool(torch.cuda.is_available()))


def _obstacle(kind: str, index: int | None, runtime: Runtime) -> tuple[str, str] | None:
    """Why a device cannot be used with a runtime, as (reason, remedy in a sentence), or None if it can."""
    if kind == "cpu":
        return None
    if runtime == "torch":
        return _torch_obstacle(kind, index)
    if kind == "mps":
        return ("ONNX Runtime has no such device", "Choose a PyTorch backend for it (`exprtool backends`).")
    return _onnx_cuda_obstacle(index or 0)


@cache
def _torch_obstacle(kind: str, index: int | None) -> tuple[str, str] | None:
    if find_spec("torch") is None:
        return ("PyTorch is not installed", f"Install it with `{install_command('torch')}`.")
    import torch

    if kind == "mps":
        if torch.backends.mps.is_available():
            return None
        return ("this PyTorch has no Apple GPU", "It takes a Mac with Apple silicon and macOS 12.3 or later.")
    if not torch.cuda.is_available():
        if torch.version.cuda is None and torch.version.hip is None:
            return (
                "this PyTorch was built without CUDA",
                "Install the CUDA build of PyTorch, see https://pytorch.org.",
            )
        return ("PyTorch finds no CUDA card", "Check the card and its driver with `nvidia-smi`.")
    count = torch.cuda.device_count()
    if index is not None and index >= count:
        return (f"there are {count} CUDA cards, counted from 0", f"Use cuda:0 to cuda:{count - 1}.")
    return None


@cache
def _onnx_cuda_obstacle(index: int) -> tuple[str, str] | None:
    ort = _onnxruntime()
    if _CUDA_PROVIDER not in ort.get_available_providers():
        return (
            "the installed ONNX Runtime was built without CUDA",
            f"Run `pip uninstall onnxruntime`, then `{install_command('gpu')}`.",
        )
    try:
        session = ort.InferenceSession(_TINY_MODEL, _options(ort, 1), providers=_providers(f"cuda:{index}"))
    except Exception as error:  # the runtime raises its own C++ exceptions, and RuntimeError
        return (f"ONNX Runtime cannot start CUDA card {index}: {_first_line(error)}", _CHECK_CUDA)
    if session.get_providers()[0] != _CUDA_PROVIDER:
        return (f"ONNX Runtime cannot start CUDA card {index}", _CHECK_CUDA)
    return None


_CHECK_CUDA = (
    "Check the card with `nvidia-smi`, and that CUDA and cuDNN have the versions that this onnxruntime-gpu asks for."
)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")


# ---------------------------------------------------------------------------------------------------------------------
# ONNX Runtime


@cache
def _onnxruntime() -> Any:
    """The module, with its telemetry off, its own messages down to fatal ones, and CUDA's libraries found."""
    import onnxruntime as ort

    ort.set_default_logger_severity(4)  # what goes wrong is raised, or seen in get_providers()
    ort.disable_telemetry_events()
    if _CUDA_PROVIDER in ort.get_available_providers() and hasattr(ort, "preload_dlls"):
        # finds the CUDA and cuDNN libraries that came as Python packages; prints what it does not find
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(OSError):
            ort.preload_dlls()
    return ort


def _options(ort: Any, threads: int | None) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4
    # Left to itself ONNX Runtime counts the machine's cores, not those that this process was given (containers), and
    # complains where it cannot pin threads to them.
    options.intra_op_num_threads = threads or usable_cpus()
    options.inter_op_num_threads = 1
    # Threads that wait for the next run by spinning take the cores from whoever prepares it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _providers(device: str) -> list[Any]:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    index = int(device.partition(":")[2] or 0)
    # the exhaustive search for convolution algorithms, ONNX Runtime's default, costs seconds for every new batch size
    return [(_CUDA_PROVIDER, {"device_id": index, "cudnn_conv_algo_search": "HEURISTIC"}), "CPUExecutionProvider"]


def usable_cpus() -> int:
    """How many processors this process may run on, as far as the operating system tells (affinity, cgroup quota)."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # cgroup v2: "<microseconds of CPU> <per microseconds>" or "max ..."
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        if quota != "max":
            count = min(count, max(1, -(-int(quota) // int(period))))
    return count


def onnx_session(
    model: Path | bytes, device: str | Device = "cpu", threads: int | None = None
) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session for a model file or its bytes, on a device as `resolve_device` gives it.

    ``threads`` is the number of CPU threads within one operator, by default all that this process may use. Raises
    `ModelError` for a model that is missing or not readable, and `DeviceError` where the session would not run on
    the device: ONNX Runtime itself would go on with the CPU and not say so.
    """
    name = str(device)
    if name == "auto":
        name = str(resolve_device("auto"))
    elif not isinstance(device, Device):
        resolve_device(name)
    ort = _onnxruntime()
    what = "the model" if isinstance(model, bytes) else str(model)
    if isinstance(model, Path) and not model.is_file():
        raise ModelError(f"{model}: no such model file. `exprtool models list` shows which are here.")
    try:
        session = ort.InferenceSession(
            model if isinstance(model, bytes) else os.fspath(model), _options(ort, threads), providers=_providers(name)
        )
    except Exception as error:  # the runtime raises its own C++ exceptions, and RuntimeError
        raise ModelError(
            f"ONNX Runtime {ort.__version__} cannot open {what}: {_first_line(error)}. If it came from the cache, "
            "check it with `exprtool models verify`; if it is your own, export it anew."
        ) from error
    used = session.get_providers()[0]
    if used != _providers_names(name)[0]:
        raise DeviceError(f"{what} does not run on {name} but on {used}. {_CHECK_CUDA} Or use --device cpu.")
    return session


def _providers_names(device: str) -> list[str]:
    return [entry if isinstance(entry, str) else entry[0] for entry in _providers(device)]
