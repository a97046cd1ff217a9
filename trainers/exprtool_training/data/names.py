"""What the file names of KDEF, RaFD and CFEE say about a picture.

Each data set has one parser, which is given a file's stem and answers None where the name is not one of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from exprtool.expressions import canonical

_KDEF = re.compile(r"([AB])([FM])(\d{2})(AF|AN|DI|HA|NE|SA|SU)(S|HL|HR|FL|FR)\Z", re.IGNORECASE)
_KDEF_ANGLES = {"S": 0, "HL": -45, "HR": 45, "FL": -90, "FR": 90}

_RAFD = re.compile(
    r"Rafd(000|045|090|135|180)_(\d{1,3})_([A-Za-z-]+)_(male|female|kid)_([a-z]+)_(left|frontal|right)\Z", re.IGNORECASE
)

_CFEE = re.compile(r"(\d{2})_(\d{3})(?:_(\d{2,6}))?\Z")
CFEE_CODES: Mapping[str, str] = MappingProxyType(
    {
        "01": "neutral",
        "02": "happy",
        "03": "sad",
        "04": "angry",
        "05": "surprised",
        "06": "disgusted",
        "07": "afraid",
    }
)
"""The basic expressions among CFEE's numbers; the others are compounds (happily surprised ...) and awe, hatred ..."""
CFEE_LAST = 26
FIRST_SESSION = "A"
"""KDEF shows every person in two sessions, A and B."""


@dataclass(frozen=True)
class Name:
    """What one file name says.

    ``expression`` is None where the picture shows none of the seven (``left_out`` then says which). ``angle`` is the
    head's yaw in degrees, 0 from the front, negative to the left of the picture's file name convention; ``gaze`` is
    "frontal", "left", "right" or "" where the data set does not tell. ``person`` is unique over all data sets.
    """

    dataset: str
    person: str
    expression: str | None
    angle: int = 0
    gaze: str = ""
    session: str = ""
    left_out: str = ""


def kdef(stem: str) -> Name | None:
    """KDEF: ``AF01ANS`` = session A, female, person 01, angry, straight [Lundqvist et al. 1998].

    The two sessions show the same people; women and men are numbered separately.
    """
    match = _KDEF.match(stem)
    if not match:
        return None
    session, sex, number, expression, angle = (part.upper() for part in match.groups())
    return Name("KDEF", f"kdef-{sex}{number}", canonical(expression), _KDEF_ANGLES[angle], "", session)


def rafd(stem: str) -> Name | None:
    """RaFD: ``Rafd090_01_Caucasian_female_angry_frontal`` = camera, person, group, sex, expression, gaze.

    Camera 090 is the frontal one, the others stand 45 degrees apart [Langner et al. 2010]. ``contemptuous`` is none
    of the seven.
    """
    match = _RAFD.match(stem)
    if not match:
        return None
    camera, number, _, _, word, gaze = match.groups()
    person, angle, gaze = f"rafd-{int(number):02d}", int(camera) - 90, gaze.lower()
    if word.lower() in ("contemptuous", "contempt"):
        return Name("RaFD", person, None, angle, gaze, left_out="contempt")
    return Name("RaFD", person, canonical(word), angle, gaze)


def cfee(stem: str, codes: Mapping[str, str] = CFEE_CODES) -> Name | None:
    """CFEE: ``02_339_3470`` = expression 02 (happy), person 339, frame [Du et al. 2014].

    ``codes`` tells which numbers are the basic expressions, should a release number them otherwise.
    """
    match = _CFEE.match(stem)
    if not match or not 1 <= int(match[1]) <= CFEE_LAST:
        return None
    code, person = match[1], f"cfee-{match[2]}"
    if code not in codes:
        return Name("CFEE", person, None, left_out="compound expressions")
    return Name("CFEE", person, codes[code])


def read_name(stem: str, cfee_codes: Mapping[str, str] = CFEE_CODES) -> Name | None:
    """Read a stem as KDEF, RaFD or CFEE name; None where it is none of these."""
    return kdef(stem) or rafd(stem) or cfee(stem, cfee_codes)
