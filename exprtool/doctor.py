"""What this installation consists of, what of it works, and what to do about the rest.

Everything is looked at as it is here and now: modules are imported (in a process of their own, because a library that
does not fit the processor ends the one that loads it), codecs are asked for, a file is written to the cache.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Literal

import exprtool
from exprtool import devices, plugins
from exprtool.errors import ModelError
from exprtool.extras import install_command
from exprtool.faces.dlib_files import LANDMARKS_68, LANDMARKS_68_LICENCE
from exprtool.weights import catalogue as models

_PROBE_SECONDS = 120
_LEAST_FREE = 1_000_000_000


class Level(StrEnum):
    """How bad it is: ``broken`` is something that exprtool cannot do without."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    BROKEN = "broken"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; ``remedy`` says what to do where something is to be done."""

    section: str
    name: str
    value: str
    level: Level = Level.OK
    remedy: str = ""


def examine() -> Iterator[Finding]:
    """Look at everything, section by section; may take some seconds, because it imports the heavy libraries."""
    yield from _versions()
    yield from _devices()
    yield from _plugins()
    yield from _models()
    yield from _codecs()
    yield from _places()


# ---------------------------------------------------------------------------------------------------------------------
# Versions

# What a package is imported as, where that is not its own name; None: it only carries files and is not imported.
_MODULES: dict[str, str | None] = {
    "dlib-bin": "dlib",
    "face-recognition-models": None,
    "lightning-fabric": "lightning_fabric",
    "onnxruntime-gpu": "onnxruntime",
    "opencv-python": "cv2",
    "pillow": "PIL",
    "pillow-heif": "pillow_heif",
}
# Packages that bring the same module; any of them will do, two of them overwrite each other's files.
_INTERCHANGEABLE = (
    ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino"),
    ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"),
    ("dlib-bin", "dlib"),
)
_EXTRAS = ("torch", "heic", "classifier")


@dataclass(frozen=True)
class _Requirement:
    name: str
    least: str
    extra: str | None


def _requirements() -> list[_Requirement]:
    """What the installed package asks for, from its own metadata: there is no second list to keep in step."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    wanted: dict[str, _Requirement] = {}
    for line in metadata.requires("exprtool") or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            extra = None
        else:
            extra = next((extra for extra in _EXTRAS if requirement.marker.evaluate({"extra": extra})), "")
        name = canonicalize_name(requirement.name)
        if extra != "" and name not in wanted:
            wanted[name] = _Requirement(name, str(requirement.specifier), extra)
    return list(wanted.values())


def _versions() -> Iterator[Finding]:
    section = "Versions"
    yield Finding(section, "exprtool", f"{exprtool.__version__} ({Path(exprtool.__file__).parent})")
    yield Finding(section, "Python", f"{platform.python_version()} ({sys.executable})")
    yield Finding(section, "system", f"{platform.system()} {platform.release()} on {platform.machine()}")
    wanted = _requirements()
    installed = {requirement.name: _installed(requirement.name) for requirement in wanted}
    modules = {name: _MODULES.get(name, name) for name, found in installed.items() if found}
    troubles = _import_all([module for module in modules.values() if module])
    for requirement in wanted:
        yield _package(requirement, installed[requirement.name], troubles.get(modules.get(requirement.name) or "", ""))
    for alternatives in _INTERCHANGEABLE:
        several = [name for name in alternatives if _version(name)]
        if len(several) > 1:
            yield Finding(
                section,
                " and ".join(several),
                "bring the same module and overwrite each other's files",
                Level.WARNING,
                f"pip uninstall {' '.join(several)}, then install the one that you want",
            )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _installed(name: str) -> tuple[str, str] | None:
    """The (package, version) that serves as ``name``, if any."""
    alternatives = next((names for names in _INTERCHANGEABLE if name in names), (name,))
    for candidate in sorted(alternatives, key=lambda other: other != name):
        if version := _version(candidate):
            return candidate, version
    return None


def _package(requirement: _Requirement, found: tuple[str, str] | None, trouble: str) -> Finding:
    section, name = "Versions", requirement.name
    install = install_command(requirement.extra) if requirement.extra else f"pip install '{name}{requirement.least}'"
    if found is None:
        if requirement.extra:
            return Finding(section, name, f"not installed (extra [{requirement.extra}])", Level.NOTE, install)
        return Finding(section, name, "not installed", Level.BROKEN, install)
    package, version = found
    shown = version if package == name else f"{version} ({package})"
    if trouble:
        level = Level.WARNING if requirement.extra else Level.BROKEN
        return Finding(
            section, name, f"{shown}, cannot be imported: {trouble}", level, _import_remedy(name, package, trouble)
        )
    from packaging.specifiers import SpecifierSet

    if package == name and not SpecifierSet(requirement.least).contains(version, prereleases=True):
        return Finding(
            section,
            name,
            f"{shown}, but {requirement.least} is asked for",
            Level.WARNING,
            f"pip install '{name}{requirement.least}'",
        )
    return Finding(section, name, shown)


def _import_remedy(name: str, package: str, trouble: str) -> str:
    if missing := re.search(r"(lib(?:GL|EGL|gthread|glib|xcb|SM|Xext|Xrender)[\w.+-]*)\.so", trouble):
        return f"install the system library {missing[1]}, or use opencv-python-headless in place of {package}"
    return f"pip install --force-reinstall --no-deps {package}"


_PROBE = """
import importlib, json, sys
for name in sys.argv[1:]:
    print(json.dumps([name, None]), flush=True)
    try:
        importlib.import_module(name)
        trouble = ""
    except BaseException as error:
        trouble = f"{type(error).__name__}: {error}".strip().split(chr(10))[0][:300]
    print(json.dumps([name, trouble]), flush=True)
"""


def _import_all(modules: Sequence[str]) -> dict[str, str]:
    """Import modules in another process; returns those that failed, with the reason.

    Where one takes the process down, the others are tried in a new one.
    """
    troubles: dict[str, str] = {}
    left = list(modules)
    while left:
        try:
            done = subprocess.run(
                # -P: else a file of the current folder that is called like a package would be run in its place
                [sys.executable, "-P", "-c", _PROBE, *left],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=_PROBE_SECONDS,
            )
            output, ending = done.stdout, f"ends the process (exit status {done.returncode})"
        except subprocess.TimeoutExpired as error:
            output, ending = error.stdout or b"", f"takes more than {_PROBE_SECONDS} s"
        begun = ""
        for line in output.decode("utf-8", "replace").splitlines():
            try:
                name, trouble = json.loads(line)
            except (ValueError, TypeError):  # a library that prints when it is imported
                continue
            begun = name if trouble is None else ""
            if trouble:
                troubles[name] = trouble
            if trouble is not None:
                left.remove(name)
        if not begun:
            break
        troubles[begun] = ending
        left.remove(begun)
    return troubles


# ---------------------------------------------------------------------------------------------------------------------
# Devices


def _devices() -> Iterator[Finding]:
    section = "Devices"
    yield Finding(section, "CPU", f"{devices.usable_cpus()} of {os.cpu_count()} cores may be used")
    signs = devices.nvidia_signs()
    yield Finding(section, "NVIDIA card", f"seems to be there ({', '.join(signs)})" if signs else "none seen")
    try:
        import onnxruntime

        providers = ", ".join(name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers())
        best = devices.resolve_device("auto")
    except Exception as error:  # an installation may be broken in any way; that is what this command is for
        yield Finding(
            section,
            "ONNX Runtime",
            f"does not work: {error}",
            Level.BROKEN,
            "pip install --force-reinstall onnxruntime",
        )
    else:
        yield Finding(section, "ONNX Runtime", f"providers: {providers}")
        yield _auto("--device auto", best)
    if _version("torch") is None:
        return
    try:
        import torch

        cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "ROCm" if torch.version.hip else "CPU build"
        yield Finding(section, "PyTorch", f"{build}, cards: {', '.join(cards) or 'none'}")
        yield _auto("--device auto with PyTorch", devices.resolve_device("auto", runtime="torch"))
    except Exception as error:  # as above
        yield Finding(
            section,
            "PyTorch",
            f"does not work: {error}",
            Level.WARNING,
            "install PyTorch anew, see https://pytorch.org",
        )


def _auto(name: str, device: devices.Device) -> Finding:
    if device.note is None:
        return Finding("Devices", name, f"takes {device}")
    reason, _, remedy = device.note.partition(". ")
    return Finding("Devices", name, f"takes {device}: {reason}", Level.WARNING, remedy)


# ---------------------------------------------------------------------------------------------------------------------
# Plugins and what they bring


def _plugins() -> Iterator[Finding]:
    registry = plugins.registry()
    packages = plugins.packages()
    for problem in (*registry.problems, *models.catalogue().problems):
        package = packages.get(problem.plugin, problem.plugin)
        ours = package.split()[0] == "exprtool"
        remedy = "install exprtool anew" if ours else f"update or uninstall {package.split()[0]}, and tell its author"
        yield Finding(
            "Plugins", f"{problem.plugin} ({package})", problem.reason, Level.BROKEN if ours else Level.WARNING, remedy
        )
    for name in sorted(set(registry.origin.values())):
        brought = ", ".join(f"{kind} {what}" for (kind, what), origin in registry.origin.items() if origin == name)
        yield Finding("Plugins", name, f"{brought}; from {packages.get(name, 'this process')}")
    for kind, specs in (
        ("backend", registry.backends),
        ("detector", registry.detectors),
        ("classifier", registry.classifiers),
        ("trainer", registry.trainers),
    ):
        readiness = {name: models.readiness(spec) for name, spec in specs.items()}
        for name, ready in readiness.items():
            if ready.ready:
                yield Finding("Ready", f"{kind} {name}", "ready")
            else:
                yield Finding("Ready", f"{kind} {name}", f"not ready: {ready.reason}", Level.NOTE, ready.remedy)
        if kind in ("backend", "detector") and not any(ready.ready for ready in readiness.values()):
            remedies = "; ".join(ready.remedy for ready in readiness.values() if ready.remedy)
            yield Finding("Ready", f"any {kind}", "none is ready, so nothing can be edited", Level.BROKEN, remedies)


def _models() -> Iterator[Finding]:
    section = "Models"
    found = models.catalogue().weights
    if not found:
        yield Finding(section, "all", "no installed plugin needs any")
    for weight in sorted(found.values(), key=lambda weight: weight.name):
        try:
            check = models.state(weight)
        except ModelError as error:
            yield Finding(section, weight.name, str(error), Level.WARNING)
            continue
        licence = weight.licence + ("" if weight.commercial else ", no commercial use")
        value = f"{check.state}, {models.size_in_words(weight)}, {licence}"
        value += f" ({check.detail})" if check.detail else ""
        if check.state is models.State.READY:
            yield Finding(section, weight.name, value)
        elif check.state is models.State.DAMAGED:
            yield Finding(section, weight.name, value, Level.BROKEN, models.how_to_get(weight))
        else:
            yield Finding(section, weight.name, value, Level.NOTE, models.how_to_get(weight))


# ---------------------------------------------------------------------------------------------------------------------
# Codecs and places


def _codecs() -> Iterator[Finding]:
    section = "Codecs"
    try:
        from PIL import features
    except ImportError as error:
        yield Finding(
            section, "Pillow", f"cannot be imported: {error}", Level.BROKEN, "pip install --force-reinstall pillow"
        )
    else:
        anew = "pip install --force-reinstall pillow, from a wheel and not built here"
        for feature, name, level in (
            ("jpg", "JPEG", Level.BROKEN),
            ("zlib", "PNG", Level.BROKEN),
            ("webp", "WebP", Level.WARNING),
            ("avif", "AVIF", Level.WARNING),
            ("libtiff", "compressed TIFF", Level.WARNING),
            ("littlecms2", "colour profiles", Level.WARNING),
            ("freetype2", "lettering", Level.WARNING),
        ):
            if features.check(feature):
                yield Finding(section, name, f"ok ({features.version(feature) or 'built in'})")
            else:
                yield Finding(section, name, "missing from this Pillow", level, anew)
    heif = _version("pillow-heif")
    if heif:
        yield Finding(section, "HEIC", f"ok (pillow-heif {heif})")
    else:
        yield Finding(section, "HEIC", "not installed", Level.NOTE, install_command("heic"))
    yield from _video_codecs()


def _video_codecs() -> Iterator[Finding]:
    section = "Codecs"
    try:
        import av
    except ImportError as error:
        yield Finding(section, "PyAV", f"cannot be imported: {error}", Level.BROKEN, "pip install --force-reinstall av")
        return

    def has(name: str, mode: Literal["r", "w"]) -> bool:
        try:
            av.Codec(name, mode)
        except ValueError:  # UnknownCodecError
            return False
        return True

    for name, decoders, encoders, level in (
        ("H.264", ("h264",), ("libx264", "h264"), Level.BROKEN),
        ("H.265", ("hevc",), ("libx265", "hevc"), Level.WARNING),
        ("AV1", ("libdav1d", "av1"), ("libsvtav1", "libaom-av1"), Level.NOTE),
        ("VP9", ("vp9",), ("libvpx-vp9",), Level.NOTE),
        ("AAC", ("aac",), ("aac",), Level.WARNING),
    ):
        reads = any(has(decoder, "r") for decoder in decoders)
        encoder = next((encoder for encoder in encoders if has(encoder, "w")), None)
        value = f"{'read' if reads else 'not read'}, {f'written ({encoder})' if encoder else 'not written'}"
        if reads and encoder:
            yield Finding(section, name, value)
        else:
            yield Finding(
                section, name, value, level, "pip install --force-reinstall av, from a wheel and not built here"
            )


def _places() -> Iterator[Finding]:
    section = "Places"
    cache = models.cache_dir()
    if trouble := _cannot_write(cache):
        remedy = f"make it writable, or set {models.HOME_VARIABLE} to a folder that is"
        yield Finding(section, "cache", f"{cache}: {trouble}", Level.BROKEN, remedy)
    else:
        yield Finding(section, "cache", f"{cache}, can be written")
    for name, folder in (
        ("disk of the cache", _existing(cache)),
        ("disk for temporary files", Path(tempfile.gettempdir())),
    ):
        try:
            free = shutil.disk_usage(folder).free
        except OSError as error:
            yield Finding(section, name, f"{folder}: {error.strerror or error}", Level.WARNING)
            continue
        few = free < _LEAST_FREE
        yield Finding(
            section,
            name,
            f"{models.human_size(free)} free",
            Level.WARNING if few else Level.OK,
            "make room" if few else "",
        )
    if models.commercial_only_from_environment():
        yield Finding(
            section,
            models.COMMERCIAL_VARIABLE,
            f"is set, but no face can be measured without {LANDMARKS_68} ({LANDMARKS_68_LICENCE})",
            Level.BROKEN,
            "unset it where your use is not commercial",
        )


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next((path for path in (folder, *folder.parents) if path.is_dir()), Path(folder.anchor))


def _cannot_write(folder: Path) -> str:
    """Why nothing can be written there ("" if it can); makes no folder that is not there yet."""
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)) as file:
            file.write(b"exprtool")
    except OSError as error:
        return error.strerror or str(error)
    if folder.exists() and not folder.is_dir():
        return "is not a folder"
    return ""
