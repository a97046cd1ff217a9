"""InsightFace model packs on this machine: where they may lie and which there are. Nothing is ever downloaded here.

InsightFace's own loader downloads a pack that it does not find; exprtool therefore looks first and hands it a folder.
"""

from __future__ import annotations

from pathlib import Path

from exprtool.errors import ModelError, UnknownNameError
from exprtool.faces.weights import PACKS
from exprtool.types import WeightFile

# Best first, for a machine that has several; others follow by name.
_ORDER = ("antelopev2", "buffalo_l", "buffalo_m", "buffalo_s", "buffalo_sc")


def insightface_root() -> Path:
    """Where the insightface package itself keeps its packs."""
    return Path("~/.insightface/models").expanduser()


def installed_packs() -> dict[str, Path]:
    """The packs that are here, best first: name and path, a folder (InsightFace's own) or a detector file (ours)."""
    from exprtool.weights import catalogue as models

    found = {name: models.location(weight) for name, weight in PACKS.items() if models.is_there(weight)}
    root = insightface_root()
    if root.is_dir():
        found |= {folder.name: folder for folder in root.iterdir() if _is_pack(folder)}
    order = {name: i for i, name in enumerate(_ORDER)}
    return dict(sorted(found.items(), key=lambda item: (order.get(item[0], len(order)), item[0])))


def find_pack(wanted: str | None) -> Path:
    """The folder or detector file that a user means: a pack's name, its folder, a root with one pack, or an .onnx file.

    None means the best pack that is here. Raises `ModelError` where there is none, and where a path holds no model.
    """
    packs = installed_packs()
    if not wanted:
        if not packs:
            raise ModelError(
                f"No InsightFace model pack is here. {_how_to_get(PACKS['buffalo_sc'])} Or name a pack's folder: "
                "--detector insightface:FOLDER."
            )
        return next(iter(packs.values()))
    path = Path(wanted).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        return _in_folder(path)
    if wanted in packs:
        return packs[wanted]
    if wanted in PACKS:
        raise ModelError(f"The InsightFace model pack {wanted!r} is not here. {_how_to_get(PACKS[wanted])}")
    if "/" in wanted or "\\" in wanted or path.suffix:
        raise ModelError(f"{wanted}: no such folder or file. Give a folder that holds an InsightFace model pack.")
    raise UnknownNameError("InsightFace model pack", wanted, sorted({*packs, *PACKS}))


def _in_folder(path: Path) -> Path:
    """The pack in a folder: itself, or the only one below it (``ROOT`` or ``ROOT/models``, as InsightFace lays out)."""
    if _is_pack(path):
        return path
    below = [folder for place in (path, path / "models") if place.is_dir() for folder in sorted(place.iterdir())]
    packs = [folder for folder in below if _is_pack(folder)]
    if len(packs) == 1:
        return packs[0]
    if packs:
        names = ", ".join(str(folder) for folder in packs)
        raise ModelError(f"{path}: holds several model packs; name one of them: {names}.")
    raise ModelError(f"{path}: holds no InsightFace model pack (a folder with .onnx files).")


def _is_pack(folder: Path) -> bool:
    return folder.is_dir() and any(file.suffix == ".onnx" for file in folder.iterdir())


def _how_to_get(weight: WeightFile) -> str:
    from exprtool.weights import catalogue as models

    return models.how_to_get(weight)
