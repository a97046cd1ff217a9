"""The registry of weights: which files there are, whether they are here, and how they get here.

Weights are declared where they are needed (`BackendSpec.needs`, `DetectorSpec.needs`); this module gathers them. Every
file is pinned by its SHA-256. A file counts as there only after its hash was seen to be right; a stamp (hash, size and
modification time) remembers that, so that the next look costs no hashing and a file that changed is hashed again.

Nothing is downloaded unless `fetch` is called: an edit that lacks weights stops with a message that names the file,
its size and licence, and the commands that bring it here.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from exprtool import plugins
from exprtool.documents import parse_json
from exprtool.errors import MissingPackageError, ModelError, NotReadyError, UnknownNameError, WriteError
from exprtool.files import atomic_write, is_special, read_regular, write_bytes
from exprtool.types import BackendSpec, ClassifierSpec, DetectorSpec, Readiness, TrainerSpec, WeightFile
from exprtool.weights.download import PATIENCE, DownloadError, Patience, Progress, download, drop_partial, partial_path

HOME_VARIABLE = "EXPRTOOL_HOME"
COMMERCIAL_VARIABLE = "EXPRTOOL_COMMERCIAL_ONLY"
_MOST_OF_A_STAMP = 10_000


class State(StrEnum):
    """What is known about a file of weights in the cache."""

    READY = "ready"
    MISSING = "missing"
    PARTIAL = "partial"
    """A download has begun and was not finished; `fetch` goes on with it."""
    DAMAGED = "damaged"
    """There is a file of that name, but its contents are not the right ones."""


@dataclass(frozen=True)
class Check:
    """The state of one file of weights, with what the user should know about it."""

    weight: WeightFile
    state: State
    path: Path
    detail: str = ""


# ---------------------------------------------------------------------------------------------------------------------
# Where things lie and what there is


def cache_dir() -> Path:
    """The folder for everything that can be fetched again; EXPRTOOL_HOME overrides the platform's cache folder."""
    if home := os.environ.get(HOME_VARIABLE):
        return Path(home).expanduser().absolute()
    import platformdirs

    return platformdirs.user_cache_path("exprtool", appauthor=False)


def models_dir() -> Path:
    """The folder in the cache that holds the weights."""
    return cache_dir() / "models"


def location(weight: WeightFile) -> Path:
    """Where a file of weights belongs; raises `ModelError` for a file name that would leave the cache."""
    name = PurePosixPath(weight.file)
    if not name.parts or name.is_absolute() or ".." in name.parts or "\\" in weight.file or ":" in weight.file:
        raise ModelError(
            f"Weights {weight.name!r} want to be stored as {weight.file!r}, which is no plain file name; "
            "the plugin that declares them has to be corrected."
        )
    return models_dir().joinpath(*name.parts)


@dataclass(frozen=True)
class Catalogue:
    """Every file of weights that a registered plugin declares, who needs it, and what was left out."""

    weights: Mapping[str, WeightFile]
    needed_by: Mapping[str, tuple[str, ...]]
    """For every name of weights, the backends, detectors and classifiers that need them, as ``backend blendshape``."""
    problems: tuple[plugins.PluginProblem, ...]


def catalogue() -> Catalogue:
    """Gather the weights from all registered backends, detectors and classifiers; loads none of them.

    Several specs may need the same file. Two different files under one name cannot be told apart on the command line
    or in the cache: the second is left out and reported.
    """
    registry = plugins.registry()
    weights: dict[str, WeightFile] = {}
    needed_by: dict[str, list[str]] = {}
    problems: list[plugins.PluginProblem] = []
    owner_of_file: dict[str, WeightFile] = {}
    for kind, specs in (
        ("backend", registry.backends),
        ("detector", registry.detectors),
        ("classifier", registry.classifiers),
    ):
        for spec in specs.values():
            for weight in spec.needs:
                try:
                    location(weight)
                except ModelError as error:
                    problems.append(plugins.PluginProblem(registry.origin.get((kind, spec.name), kind), str(error)))
                    continue
                known = weights.get(weight.name) or owner_of_file.get(weight.file.casefold())
                if known is not None and (known.name, known.sha256) != (weight.name, weight.sha256):
                    problems.append(
                        plugins.PluginProblem(
                            registry.origin.get((kind, spec.name), kind),
                            f"declares weights {weight.name!r} ({weight.file}) that clash with {known.name!r} "
                            f"({known.file}); one of the two needs another name and file name.",
                        )
                    )
                    continue
                weights.setdefault(weight.name, weight)
                owner_of_file.setdefault(weight.file.casefold(), weight)
                needed_by.setdefault(weight.name, []).append(f"{kind} {spec.name}")
    return Catalogue(weights, {name: tuple(users) for name, users in needed_by.items()}, tuple(problems))


def all_weights() -> dict[str, WeightFile]:
    """Every known file of weights by name."""
    return dict(catalogue().weights)


def find(name: str) -> WeightFile:
    """The weights of that name (or with that file name); raises `UnknownNameError` listing the known names."""
    known = all_weights()
    if name in known:
        return known[name]
    for weight in known.values():
        if weight.file == name:
            return weight
    raise UnknownNameError("model", name, sorted(known))


# ---------------------------------------------------------------------------------------------------------------------
# Words for the user


def human_size(size: int) -> str:
    """Bytes in the unit that a person would choose (decimal, as download pages count)."""
    value = float(size)
    for unit in ("bytes", "kB", "MB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "bytes" or value >= 99.5 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def download_size(weight: WeightFile) -> int | None:
    """Bytes to download for the weights; None where they are packed from an archive of unknown size."""
    return weight.download_size or (None if weight.pack else weight.size)


def size_in_words(weight: WeightFile) -> str:
    """What has to be downloaded, and what is kept of it where that differs."""
    download, kept = download_size(weight), human_size(weight.size)
    if weight.pack is None:
        return kept
    return (
        f"{kept} packed from a larger download"
        if download is None
        else f"{human_size(download)}, of which {kept} are kept"
    )


def describe(weight: WeightFile) -> str:
    """One line: the file, what has to be downloaded, and under which licence."""
    size = size_in_words(weight)
    use = "" if weight.commercial else ", no commercial use"
    return f"{weight.name!r} ({PurePosixPath(weight.file).name}, {size}, licence: {weight.licence}{use})"


def how_to_get(weight: WeightFile) -> str:
    """The commands that bring the weights here, with and without a network."""
    by_hand = (
        f"without a network, bring the file from {weight.origin} and run "
        f"`exprtool models import {_wanted_name(weight)}`"
    )
    if not weight.urls:
        return by_hand[0].upper() + by_hand[1:] + "."
    return f"Run `exprtool models fetch {weight.name}`; {by_hand}."


def _wanted_name(weight: WeightFile) -> str:
    """What the file is called where a person would download it."""
    if weight.pack and weight.urls:
        return PurePosixPath(unquote(urlsplit(weight.urls[0]).path)).name or weight.file
    return PurePosixPath(weight.file).name


# ---------------------------------------------------------------------------------------------------------------------
# Licences


def commercial_only_from_environment() -> bool:
    """Whether EXPRTOOL_COMMERCIAL_ONLY asks to refuse weights that may not be used commercially."""
    return os.environ.get(COMMERCIAL_VARIABLE, "").strip().lower() not in ("", "0", "no", "false", "off")


class LicenceError(ModelError):
    """Weights that may not be used commercially, where only such are wanted that may."""


def check_licence(weights: WeightFile | Iterable[WeightFile], commercial_only: bool | None = None) -> None:
    """Raise `LicenceError` for weights whose licence forbids commercial use, where only commercial ones are wanted.

    ``commercial_only`` None asks the environment (EXPRTOOL_COMMERCIAL_ONLY).
    """
    if commercial_only is None:
        commercial_only = commercial_only_from_environment()
    for weight in (weights,) if isinstance(weights, WeightFile) else weights:
        if commercial_only and not weight.commercial:
            raise LicenceError(
                f"Weights {weight.name!r} are refused: their licence ({weight.licence}, {weight.origin}) forbids "
                "commercial use. Choose a backend or detector whose weights allow it (`exprtool models list`), or "
                f"leave out --commercial-only and {COMMERCIAL_VARIABLE}."
            )


# ---------------------------------------------------------------------------------------------------------------------
# Is it here, and is it whole?

_seen: dict[tuple[Path, str], tuple[int, int, bool]] = {}
"""What this process hashed, for caches in which no stamp can be written: (path, sha256) -> (size, mtime, right)."""


def sha256_of(path: Path, progress: Progress | None = None) -> str:
    """The SHA-256 of a file in hexadecimal."""
    digest, done, size = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            done += len(chunk)
            if progress:
                progress("checking", done, size)
    return digest.hexdigest()


def _stamp_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.verified")


def _stamp(path: Path, sha256: str) -> None:
    """Remember that the file was right as it is now. A cache that cannot be written is only slower, not wrong."""
    found = path.stat()
    _seen[path, sha256] = (found.st_size, found.st_mtime_ns, True)
    stamp = _stamp_path(path)
    content = {"sha256": sha256, "size": found.st_size, "mtime_ns": found.st_mtime_ns}
    with suppress(WriteError):
        write_bytes(stamp, json.dumps(content).encode())


def _is_stamped(path: Path, weight: WeightFile) -> bool:
    found = path.stat()
    try:
        stamp = parse_json(read_regular(_stamp_path(path), _MOST_OF_A_STAMP))
    except (OSError, ValueError):
        return False
    return stamp == {"sha256": weight.sha256, "size": found.st_size, "mtime_ns": found.st_mtime_ns}


def state(weight: WeightFile, *, rehash: bool = False, progress: Progress | None = None) -> Check:
    """What is there of a file of weights.

    Cheap where the stamp fits. A file without one (put there by hand, or changed since) is hashed once; ``rehash``
    hashes in any case.
    """
    path = location(weight)
    if not path.is_file():
        begun = partial_path(path)
        if begun.is_file():
            whole = download_size(weight)
            share = human_size(begun.stat().st_size) + (f" of {human_size(whole)}" if whole else "") + " are here"
            return Check(weight, State.PARTIAL, path, share)
        return Check(weight, State.MISSING, path)
    found = path.stat()
    if found.st_size != weight.size:
        return Check(weight, State.DAMAGED, path, f"{found.st_size} bytes instead of {weight.size}")
    if not rehash:
        if _is_stamped(path, weight):
            return Check(weight, State.READY, path)
        seen = _seen.get((path, weight.sha256))
        if seen and seen[:2] == (found.st_size, found.st_mtime_ns):
            return _hashed(weight, path, seen[2])
    try:
        right = sha256_of(path, progress) == weight.sha256
    except OSError as error:
        return Check(weight, State.DAMAGED, path, f"cannot be read: {error.strerror or error}")
    if right:
        _stamp(path, weight.sha256)
    else:
        _seen[path, weight.sha256] = (found.st_size, found.st_mtime_ns, False)
        _stamp_path(path).unlink(missing_ok=True)
    return _hashed(weight, path, right)


def _hashed(weight: WeightFile, path: Path, right: bool) -> Check:
    return (
        Check(weight, State.READY, path)
        if right
        else Check(weight, State.DAMAGED, path, "its SHA-256 is not the right one")
    )


def is_there(weight: WeightFile) -> bool:
    """Whether the weights are here and whole; does not hash again what was hashed before."""
    return state(weight).state is State.READY


def weight_path(weight: WeightFile, *, commercial_only: bool | None = None) -> Path:
    """The path of the weights, whose contents were seen to be right.

    Raises `NotReadyError` where they are missing, damaged or refused for their licence; the message names the file, its
    size, licence and origin, and the commands that bring it here. Never downloads.
    """
    check_licence(weight, commercial_only)
    check = state(weight)
    if check.state is State.READY:
        return check.path
    if check.state is State.DAMAGED:
        raise NotReadyError(_damaged(check))
    begun = f" ({check.detail})" if check.detail else ""
    raise NotReadyError(f"Weights {describe(weight)} are not here{begun}. {how_to_get(weight)}")


def _damaged(check: Check) -> str:
    return (
        f"Weights {describe(check.weight)} are damaged: {check.path} ({check.detail}). It will be replaced: "
        f"{_lower_first(how_to_get(check.weight))}"
    )


def refuse_damaged(spec: BackendSpec | DetectorSpec, commercial_only: bool | None = None) -> None:
    """Raise `ModelError` where weights of the spec are here but damaged.

    A backend whose weights are merely missing may be passed over: the user never fetched them. One that worked
    yesterday must not be replaced by another in silence. Weights that are refused for their licence do not count.
    """
    for weight in spec.needs:
        try:
            check_licence(weight, commercial_only)
        except LicenceError:
            continue
        if (check := state(weight)).state is State.DAMAGED:
            kind = "detector" if isinstance(spec, DetectorSpec) else "backend"
            raise ModelError(f"{_damaged(check)} Or name another {kind}; `exprtool {kind}s` lists them.")


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def readiness(
    spec: BackendSpec | DetectorSpec | ClassifierSpec | TrainerSpec, commercial_only: bool | None = None
) -> Readiness:
    """Whether what a plugin registered can be used now: its own word, then its weights and their licences.

    Loads nothing. A check of a plugin's that raises counts as not ready.
    """
    try:
        own = spec.readiness()
    except Exception as error:  # a stranger's code may raise anything
        return Readiness(False, f"its check failed: {type(error).__name__}: {error}", "tell the plugin's author")
    if not own.ready:
        return own
    needs = () if isinstance(spec, TrainerSpec) else spec.needs
    try:
        if isinstance(spec, DetectorSpec) and spec.needs_any:
            check_licence(sorted(needs, key=lambda weight: not weight.commercial)[:1], commercial_only)
            return own
        check_licence(needs, commercial_only)
        checks = [state(weight) for weight in needs]
    except ModelError as error:
        return Readiness(False, "weights are refused", str(error))
    lacking = [check for check in checks if check.state is not State.READY]
    if not lacking:
        return own
    names = " ".join(check.weight.name for check in lacking)
    reason = ", ".join(
        f"weights {check.weight.name} {'are damaged' if check.state is State.DAMAGED else 'are not here'}"
        for check in lacking
    )
    if all(check.weight.urls for check in lacking):
        sizes = " and ".join(size_in_words(check.weight) for check in lacking)
        return Readiness(False, reason, f"exprtool models fetch {names}  ({sizes})")
    return Readiness(False, reason, f"exprtool models import FILE  (from {lacking[0].weight.origin})")


# ---------------------------------------------------------------------------------------------------------------------
# Bringing files here


def fetch(
    weight: WeightFile,
    *,
    progress: Progress | None = None,
    commercial_only: bool | None = None,
    patience: Patience = PATIENCE,
) -> Path:
    """Download the weights unless they are here; returns their path.

    Goes on with an earlier download, tries the addresses in order, checks size and SHA-256 before the file gets its
    name, and lets one process at a time fetch a file: a second one waits and uses what the first brought. Raises
    `ModelError`; what had arrived is kept for the next try.
    """
    check_licence(weight, commercial_only)
    target = location(weight)
    if is_there(weight):
        return target
    with _alone(weight, target, progress):
        if is_there(weight):  # another process brought it while we waited
            return target
        _check_space(weight, target)
        try:
            download(
                weight.urls,
                target,
                download_size(weight),
                lambda part: _accept(weight, part, target, progress),
                progress=progress,
                patience=patience,
            )
        except DownloadError as error:
            raise ModelError(
                f"Weights {describe(weight)} could not be fetched:",
                *(f"  {reason}" for reason in error.reasons),
                _after_failure(weight),
            ) from None
        except (OSError, WriteError) as error:
            raise ModelError(_cannot_write(target, error)) from error
    return target


def _after_failure(weight: WeightFile) -> str:
    return (
        f"Try again later (it goes on where it stopped), or bring the file from {weight.origin} and run "
        f"`exprtool models import {_wanted_name(weight)}`."
    )


def _cannot_write(target: Path, error: OSError | WriteError) -> str:
    cause = error.__cause__ if isinstance(error, WriteError) else error
    reason = getattr(cause, "strerror", None) or error
    return (
        f"Cannot store weights as {target}: {reason}. Free or unlock that place, or set {HOME_VARIABLE} to a folder "
        "that can be written."
    )


def _check_space(weight: WeightFile, target: Path) -> None:
    begun = partial_path(target)
    there = begun.stat().st_size if begun.is_file() else 0
    wanted = max(0, (download_size(weight) or 0) - there) + (weight.size if weight.pack else 0)
    free = shutil.disk_usage(target.parent).free
    if wanted > free:
        raise ModelError(
            f"Weights {describe(weight)} need {human_size(wanted)} in {target.parent}, where {human_size(free)} are "
            f"free. Make room, or set {HOME_VARIABLE} to a folder on another disk."
        )


@contextmanager
def _alone(weight: WeightFile, target: Path, progress: Progress | None) -> Iterator[None]:
    """Hold the lock of one file of weights; the operating system lets go of it if this process dies."""
    import filelock

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(target.with_name(f".{target.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            if progress:
                progress("waiting", 0, download_size(weight) or 0)
            lock.acquire()
    except OSError as error:
        raise ModelError(_cannot_write(target, error)) from error
    try:
        yield
    finally:
        lock.release()


def _accept(weight: WeightFile, part: Path, target: Path, progress: Progress | None) -> None:
    """Check what was downloaded or copied (after packing it where that is needed) and give it its name."""
    if weight.pack is None:
        _check_hash(part, weight.sha256, weight.size, progress)
        _sync(part)
        part.replace(target)
    else:
        _check_archive(weight, part, progress)
        if progress:
            progress("packing", 0, weight.size)
        try:
            with atomic_write(target) as packed:
                weight.pack(part, packed)
                _check_hash(packed, weight.sha256, weight.size, progress)
        except (DownloadError, WriteError, MissingPackageError):
            raise
        except Exception as error:  # damaged archives raise all sorts of things
            raise DownloadError(f"it could not be unpacked ({type(error).__name__}: {error})", final=True) from error
    _stamp(target, weight.sha256)


def _check_archive(weight: WeightFile, archive: Path, progress: Progress | None) -> None:
    """Before anything is unpacked: is it the archive that was pinned, as far as that could be done?"""
    size = archive.stat().st_size
    if weight.download_size is not None and size != weight.download_size:
        raise DownloadError(f"it has {size} bytes instead of {weight.download_size}", final=True)
    if weight.download_sha256 is not None:
        _check_hash(archive, weight.download_sha256, size, progress)


def _check_hash(path: Path, sha256: str, size: int, progress: Progress | None) -> None:
    found = sha256_of(path, progress)
    if found != sha256 or path.stat().st_size != size:
        raise DownloadError(f"its SHA-256 is {found} instead of {sha256}", final=True)


def _sync(path: Path) -> None:
    """Have the bytes on the disk before the name: a crash must not leave a right name on wrong contents."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def import_files(
    sources: Sequence[Path], *, commercial_only: bool | None = None, progress: Progress | None = None
) -> list[Check]:
    """Take weights from the user's own files or folders (searched with all they hold); returns what was taken in.

    A file is recognised by its contents, whatever it is called. Raises `ModelError` for a file that is not among the
    known ones, and for a folder that holds none of them; files that came before it have then been taken in.
    """
    taken: list[Check] = []
    for source in sources:
        if source.is_dir():
            found = _import_folder(source, commercial_only, progress)
            if not found:
                raise ModelError(f"No file in {source} is one that exprtool knows.", *_known_files())
            taken += found
        else:
            taken.append(import_file(source, commercial_only=commercial_only, progress=progress))
    return taken


def import_file(source: Path, *, commercial_only: bool | None = None, progress: Progress | None = None) -> Check:
    """Take weights from one file of the user's; see `import_files`. The file itself is left as it is."""
    if is_special(source):
        raise ModelError(f"{source} is a pipe or a device and not a file: reading it might never end. Name a file.")
    try:
        size, digest = source.stat().st_size, sha256_of(source, progress)
    except OSError as error:
        raise ModelError(
            f"Cannot read {source}: {error.strerror or error}. Name a file or folder that is there."
        ) from None
    for weight in all_weights().values():
        if weight.sha256 == digest:
            return _take(source, weight, commercial_only, progress, finished=True)
    failed: list[str] = []
    for weight in _packed_from(source, size):
        try:
            return _take(source, weight, commercial_only, progress, finished=False)
        except (LicenceError, _NotTheRightFile) as error:
            failed.append(f"  as {weight.name}: {error}")
    raise ModelError(
        f"{source} is none of the files that exprtool knows (SHA-256 {digest}, {size} bytes); it may be another "
        "version or a broken download.",
        *failed,
        *_known_files(),
    )


class _NotTheRightFile(ModelError):
    """The contents are not those of the weights that were tried."""


def _packed_from(source: Path, size: int) -> list[WeightFile]:
    """The weights that might be packed from this file, the likeliest first; whether they are, their hash decides.

    Servers offer archives under other names than their addresses end in, so any of the right kind is tried.
    """

    def likeness(weight: WeightFile) -> int:
        wanted = _wanted_name(weight)
        kinds = {Path(wanted).suffix, Path(weight.file).suffix}  # what was packed in another way is packed anew
        return 4 * (size == weight.download_size) + 2 * (source.name == wanted) + (source.suffix in kinds)

    return sorted((weight for weight in all_weights().values() if weight.pack and likeness(weight)), key=likeness)[::-1]


def _import_folder(folder: Path, commercial_only: bool | None, progress: Progress | None) -> list[Check]:
    """Take every known file in a folder, each once. Only files of a fitting size are hashed."""
    taken: dict[str, Check] = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        size = path.stat().st_size
        candidates = [weight for weight in all_weights().values() if weight.size == size]
        digest = sha256_of(path, progress) if candidates else ""
        finished = next((weight for weight in candidates if weight.sha256 == digest), None)
        if finished:
            taken.setdefault(finished.name, _take(path, finished, commercial_only, progress, finished=True))
            continue
        for weight in _packed_from(path, size):
            with suppress(LicenceError, _NotTheRightFile):
                taken.setdefault(weight.name, _take(path, weight, commercial_only, progress, finished=False))
    return list(taken.values())


def _take(
    source: Path, weight: WeightFile, commercial_only: bool | None, progress: Progress | None, *, finished: bool
) -> Check:
    check_licence(weight, commercial_only)
    target = location(weight)
    if finished and is_there(weight):
        return Check(weight, State.READY, target, "was here already")
    with _alone(weight, target, progress):
        try:
            if finished:
                # hashed again as a copy: what counts is what lies in the cache
                copied = replace(weight, pack=shutil.copyfile, download_size=None, download_sha256=None)
                _accept(copied, source, target, progress)
            else:
                _accept(weight, source, target, progress)
        except DownloadError as error:
            raise _NotTheRightFile(str(error)) from error
        except (OSError, WriteError) as error:
            raise ModelError(_cannot_write(target, error)) from error
        drop_partial(target)
    return Check(weight, State.READY, target, f"from {source}")


def _known_files() -> list[str]:
    """Lines for a message."""
    lines = [f"  {_wanted_name(weight)}: {describe(weight)}, from {weight.origin}" for weight in all_weights().values()]
    return ["Known files:", *lines] if lines else ["No installed plugin needs a file of weights."]


def verify(
    weights: Iterable[WeightFile] | None = None, *, progress: Callable[[WeightFile, int, int], None] | None = None
) -> list[Check]:
    """Hash every file of weights anew, whatever the stamps say, and tell its state."""
    checks: list[Check] = []
    for weight in all_weights().values() if weights is None else weights:
        report: Progress | None = None
        if progress:
            report = partial(_report_of, progress, weight)
        checks.append(state(weight, rehash=True, progress=report))
    return checks


def _report_of(
    progress: Callable[[WeightFile, int, int], None], weight: WeightFile, _: str, done: int, of: int
) -> None:
    progress(weight, done, of)
