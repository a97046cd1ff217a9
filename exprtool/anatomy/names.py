"""Names of the controls: ICT-FaceKit's shapes, ARKit's names, and stems that stand for a left and a right half.

Imports nothing heavy, so that listing the backend's controls costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from exprtool.errors import UnknownNameError

_PAIRS = (
    "browDown", "browInnerUp", "browOuterUp", "cheekPuff", "cheekRaiser", "cheekSquint",
    "eyeBlink", "eyeLookDown", "eyeLookIn", "eyeLookOut", "eyeLookUp", "eyeSquint", "eyeWide",
    "mouthDimple", "mouthFrown", "mouthLowerDown", "mouthPress", "mouthSmile", "mouthStretch", "mouthUpperUp",
    "noseSneer",
)  # fmt: skip
_SINGLES = (
    "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose", "mouthFunnel", "mouthLeft", "mouthPucker",
    "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
)  # fmt: skip
_OWN_PAIRS = ("corrugator",)
"""Shapes of our own, in the model's terms; see `exprtool_blendshape.model`."""

SHAPES: Mapping[str, str] = {
    **{f"{stem}_{side[0]}": f"{stem}{side}" for stem in _PAIRS for side in ("Left", "Right")},
    **{name: name for name in _SINGLES},
}
"""Control by the name of ICT-FaceKit's shape. Its pupil shapes move nothing that is drawn and are left out."""

CONTROLS: tuple[str, ...] = tuple(
    sorted([*SHAPES.values(), *(f"{stem}{side}" for stem in _OWN_PAIRS for side in ("Left", "Right"))])
)
"""Every control, sorted."""

STEMS: tuple[str, ...] = tuple(sorted((*_PAIRS, *_OWN_PAIRS)))
"""Names that stand for a left and a right control together (``browInnerUp``, ``mouthSmile``)."""


def expand(weights: Mapping[str, float]) -> dict[str, float]:
    """Write weights over controls and stems as weights over controls alone; a name given twice adds up.

    Raises `UnknownNameError` for a name that is neither.
    """
    out: dict[str, float] = {}
    for name, amount in weights.items():
        if name in _KNOWN:
            names: tuple[str, ...] = (name,)
        elif name in STEMS:
            names = (f"{name}Left", f"{name}Right")
        else:
            raise UnknownNameError("control", name, sorted((*CONTROLS, *STEMS)))
        for each in names:
            out[each] = out.get(each, 0.0) + float(amount)
    return out


def mirrored(name: str) -> str:
    """The control on the other side of the face; the same name for one in the middle."""
    if name in ("jawLeft", "jawRight", "mouthLeft", "mouthRight"):
        return name[:-4] + "Right" if name.endswith("Left") else name[:-5] + "Left"
    if name.endswith("Left"):
        return name[:-4] + "Right"
    return name[:-5] + "Left" if name.endswith("Right") else name


_KNOWN = frozenset(CONTROLS)
