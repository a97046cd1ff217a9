"""Pictures from no data set, for the paper's out-of-dataset figures (2, 7, 8): collected from packages that ship them.

The paper took celebrities, paintings and avatars off the internet and names none of them. These here can be had again:
each belongs to a package that is named with its licence in ``outside.toml``. Nothing is downloaded; a Debian package
may be installed, or given as the ``.deb`` file that ``apt-get download`` fetches.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from exprtool.errors import DataError, ExprtoolError
from exprtool.files import write_bytes
from exprtool.images import read_image
from exprtool_training.data.prepare import encode_png

SOURCES = "SOURCES.md"
_LARGEST = 20 << 20  # bytes of one picture; the listed ones are below 0.2 MB


@dataclass(frozen=True)
class Listed:
    """One picture of the list: its package, its kind ("debian" or "python"), path inside, what it is, and licence."""

    package: str
    kind: str
    path: str
    what: str
    licence: str

    @property
    def name(self) -> str:
        return Path(self.path).name.split(".")[0]


@dataclass(frozen=True)
class Collected:
    """The pictures that were written, and for each package that is not here how to get it."""

    found: tuple[Listed, ...]
    missing: dict[str, str]


def listed() -> list[Listed]:
    """The list."""
    text = files("exprtool_training.data").joinpath("outside.toml").read_text("utf-8")
    return [
        Listed(source["package"], source["kind"], f"{source['folder']}/{one['file']}", one["what"], source["licence"])
        for source in tomllib.loads(text)["source"]
        for one in source["pictures"]
    ]


def collect(out: Path, debs: Sequence[Path] = (), root: Path = Path("/")) -> Collected:
    """Write the listed pictures that can be had into ``out`` as PNG files, with a list of what they are.

    ``debs`` are Debian package files to look into, ``root`` is where installed Debian packages lie. Raises `DataError`
    where nothing was found, and for a ``.deb`` that cannot be read.
    """
    wanted = listed()
    contents: dict[str, bytes] = {}
    for deb in debs:
        contents.update(_of_deb(deb, {one.path for one in wanted if one.kind == "debian"}))
    found: list[Listed] = []
    missing: dict[str, str] = {}
    for one in wanted:
        data = contents.get(one.path) or _installed(one, root)
        if data is None:
            missing[one.package] = (
                f"apt-get install {one.package}, or apt-get download {one.package} and --deb {one.package}_VERSION.deb"
                if one.kind == "debian"
                else f"pip install {one.package}"
            )
            continue
        try:
            picture = read_image(data, name=one.path).rgb
        except ExprtoolError as error:
            raise DataError(f"{one.path} of the package {one.package} is no picture: {error}") from error
        write_bytes(out / f"{one.name}.png", encode_png(picture))
        found.append(one)
    if not found:
        raise DataError("None of the packages is here: " + "; ".join(f"{name}: {how}" for name, how in missing.items()))
    lines = [f"| {one.name}.png | {one.what} | {one.package} | {one.licence} |" for one in found]
    text = "\n".join(["| file | what | package | licence |", "| --- | --- | --- | --- |", *lines]) + "\n"
    write_bytes(out / SOURCES, text.encode())
    return Collected(tuple(found), missing)


def _installed(one: Listed, root: Path) -> bytes | None:
    if one.kind == "debian":
        path = root / one.path
    else:
        module, _, rest = one.path.partition("/")
        spec = find_spec(module)
        if spec is None or not spec.submodule_search_locations:
            return None
        path = Path(next(iter(spec.submodule_search_locations))) / rest
    return path.read_bytes() if path.is_file() and path.stat().st_size <= _LARGEST else None


def _of_deb(deb: Path, paths: set[str]) -> Iterator[tuple[str, bytes]]:
    """The wanted files of a Debian package, by their paths in it; the package is read through once, as a stream."""
    tool = shutil.which("dpkg-deb")
    if tool is None:
        raise DataError(f"Looking into {deb} needs dpkg-deb. On another system than Debian take its files out by hand.")
    if not deb.is_file():
        raise DataError(f"{deb} does not exist. apt-get download puts the file into the current folder.")
    process = subprocess.Popen(
        [tool, "--fsys-tarfile", str(deb.resolve())], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                path = member.name.removeprefix("./")
                if (
                    path in paths
                    and member.isreg()
                    and member.size <= _LARGEST
                    and (file := archive.extractfile(member))
                ):
                    yield path, file.read()
    except tarfile.TarError as error:
        raise DataError(f"{deb} is no Debian package that can be read ({error}).") from error
    finally:
        process.stdout.close()
        process.kill()
        process.wait()
