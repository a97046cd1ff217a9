"""Telling that a picture was edited, and how: written into XMP, read back from it.

The kind of edit is said in IPTC's vocabulary (Iptc4xmpExt:DigitalSourceType), which other programs understand; the
details stand beside it under exprtool's own namespace. Formats without XMP get a JSON file next to the picture, films a
comment in their container. There is no time stamp in a record: the same edit of the same picture gives the same bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import exprtool
from exprtool.documents import parse_json
from exprtool.errors import ImageError
from exprtool.files import write_bytes
from exprtool.pictures import xmp as _xmp
from exprtool.plan import SIDECAR_SUFFIX
from exprtool.types import Edit

COMPOSITE_WITH_TRAINED_MODEL = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
COMPOSITE_SYNTHETIC = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeSynthetic"
_WHOLLY_GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_STRENGTH = {COMPOSITE_SYNTHETIC: 1, COMPOSITE_WITH_TRAINED_MODEL: 2, _WHOLLY_GENERATED: 3}
"""What a picture already declares is not taken back by a lesser edit after it."""

_IPTC_EXT, _IPTC_PREFIX = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/", "Iptc4xmpExt"
_OWN, _OWN_PREFIX = "urn:exprtool:provenance:1/", "exprtool"


@dataclass(frozen=True)
class Provenance:
    """One edit of a picture.

    ``weights`` are amounts of the named expressions, ``controls`` those of blendshapes, as in `exprtool.types.Edit`.
    ``trained`` tells whether a trained model made the new pixels. ``faces`` counts the edited faces.
    ``timeline`` is the text of an edit of a film that changes over time. ``removed`` names what the edit made untrue
    and was therefore left out, such as a C2PA manifest.
    """

    backend: str
    trained: bool
    weights: Mapping[str, float] = field(default_factory=dict)
    controls: Mapping[str, float] = field(default_factory=dict)
    strength: float = 1.0
    seed: int = 0
    faces: int | None = None
    timeline: str = ""
    removed: str = ""
    tool: str = "exprtool"
    version: str = exprtool.__version__

    @classmethod
    def of(cls, edit: Edit, backend: str, *, trained: bool, faces: int | None = None) -> Provenance:
        """The record of an edit that ``backend`` carried out."""
        return cls(backend, trained, dict(edit.weights), dict(edit.controls), edit.strength, edit.seed, faces)

    @property
    def digital_source_type(self) -> str:
        """The IPTC term for this edit, a URI."""
        return COMPOSITE_WITH_TRAINED_MODEL if self.trained else COMPOSITE_SYNTHETIC


@dataclass(frozen=True)
class Declaration:
    """What a picture says of itself: its digital source type, if any, and exprtool's records, oldest first."""

    digital_source_type: str | None = None
    edits: tuple[Provenance, ...] = ()


def stamp(packet: bytes | None, provenance: Provenance) -> bytes:
    """The XMP packet with one more record; whatever stood in ``packet`` before is kept.

    Raises `exprtool.pictures.xmp.DamagedXmp` for a packet that cannot be parsed; `exprtool.images.read_image` lets
    none through.
    """
    opened = _xmp.Packet(packet)
    declared = opened.value(_IPTC_EXT, "DigitalSourceType")
    ours = provenance.digital_source_type
    if _STRENGTH.get(declared or "", 0) <= _STRENGTH[ours]:
        opened.set(_IPTC_PREFIX, _IPTC_EXT, "DigitalSourceType", ours)
    rdf = opened.rdf.prefix or "rdf"
    earlier = opened.elements(_OWN, "Edits")
    if earlier:
        edits = earlier[0]
    else:
        description = opened.description_for(_OWN_PREFIX, _OWN)
        edits = _xmp.add_element(description, f"{_OWN_PREFIX}:Edits", _OWN)
    sequence = next(_xmp.children(edits, _xmp.RDF, "Seq"), None) or _xmp.add_element(edits, f"{rdf}:Seq", _xmp.RDF)
    item = _xmp.add_element(sequence, f"{rdf}:li", _xmp.RDF)
    item.setAttributeNS(_xmp.RDF, f"{rdf}:parseType", "Resource")
    for name, value in _fields(provenance).items():
        _xmp.add_text(item, f"{edits.prefix}:{name}", _OWN, value)  # another program may have renamed the prefix
    return opened.to_bytes()


def read_xmp(packet: bytes | None) -> Declaration:
    """What an XMP packet declares; raises `exprtool.pictures.xmp.DamagedXmp`."""
    if not packet:
        return Declaration()
    opened = _xmp.Packet(packet)
    edits = tuple(
        _from_fields({element.localName or "": _xmp.text_of(element) for element in _xmp.all_children(item)})
        for listing in opened.elements(_OWN, "Edits")
        for sequence in _xmp.children(listing, _xmp.RDF, "Seq")
        for item in _xmp.children(sequence, _xmp.RDF, "li")
    )
    return Declaration(opened.value(_IPTC_EXT, "DigitalSourceType"), edits)


def read(path: Path) -> Declaration:
    """What a picture or film, or the JSON file beside it, declares.

    Raises `ImageError` for one that cannot be read.
    """
    from exprtool.images import read_xmp_packet

    beside = sidecar_path(path)
    try:
        declaration = read_xmp(read_xmp_packet(path))
    except _xmp.DamagedXmp as error:
        raise ImageError(
            f"{path}: its XMP packet is damaged ({error}) and tells nothing; get another copy of the file."
        ) from error
    except ImageError:
        film = _read_film(path) if path.is_file() else None
        if film is None and not beside.is_file():
            raise
        declaration = film or Declaration()
    if declaration.edits or not beside.is_file():
        return declaration
    return _read_sidecar(beside)


_FILM_TAGS = ("comment", "description", "synopsis")
"""Where a film carries its records: in the first of these tags that holds nothing else."""
_RECORD_AT = "; record "


def film_tags(tags: Mapping[str, str], record: Provenance) -> dict[str, str]:
    """A film's tags with one more record; what stood in them before is kept, with earlier records.

    The record stands as words for people, with itself as JSON at the end. Where no tag is free it follows the comment.
    """
    text = (
        f"Facial expression edited with {record.tool} {record.version}; "
        f"DigitalSourceType {record.digital_source_type}{_RECORD_AT}{json.dumps(asdict(record), separators=(',', ':'))}"
    )
    named = {name.lower(): name for name in tags}
    for tag in _FILM_TAGS:
        name = named.get(tag, tag)
        before = tags.get(name, "")
        if not before or _RECORD_AT in before:
            break
    else:
        name = named[_FILM_TAGS[0]]
        before = tags[name]
    return {**tags, name: f"{before}\n{text}" if before else text}


def read_film_tags(tags: Mapping[str, str]) -> Declaration:
    """What `film_tags` wrote; an empty declaration for any other tags. Raises `ImageError` for a broken record."""
    texts = [text for name, text in tags.items() if name.lower() in _FILM_TAGS]
    declared: set[str] = set()
    edits: list[Provenance] = []
    for text in texts:
        declared.update(re.findall(r"DigitalSourceType (http://cv\.iptc\.org/[\w/]+)", text))
        for piece in text.split(_RECORD_AT)[1:]:
            try:
                edits.append(Provenance(**json.JSONDecoder().raw_decode(piece)[0]))
            except (ValueError, TypeError, RecursionError) as error:
                raise ImageError(f"the record in the film's tags is damaged: {error}; get another copy.") from error
    strongest = max(declared, key=lambda kind: (_STRENGTH.get(kind, 0), kind), default=None)
    return Declaration(strongest, tuple(edits))


def _read_film(path: Path) -> Declaration | None:
    """What a film's tags declare; None for what is not a film."""
    from exprtool.errors import VideoError
    from exprtool.videos.clip import opened

    try:
        with opened(path) as film:
            return read_film_tags(dict(film.metadata))
    except VideoError:
        return None


def sidecar_path(picture: Path) -> Path:
    """The JSON file that carries the records of a picture whose format has no room for them."""
    return picture.with_name(picture.name + SIDECAR_SUFFIX)


def write_sidecar(picture: Path, records: Sequence[Provenance]) -> Path:
    """Write the records of ``picture`` into the JSON file beside it; raises `WriteError`."""
    strongest = max((record.digital_source_type for record in records), key=_STRENGTH.__getitem__)
    content = {"digital_source_type": strongest, "edits": [asdict(record) for record in records]}
    target = sidecar_path(picture)
    write_bytes(target, (json.dumps(content, indent=2) + "\n").encode())
    return target


def _read_sidecar(path: Path) -> Declaration:
    try:
        content = parse_json(path.read_bytes())
        return Declaration(content["digital_source_type"], tuple(Provenance(**record) for record in content["edits"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ImageError(f"{path} is not a provenance file of exprtool: {error}. Delete it or restore it.") from error


def _fields(provenance: Provenance) -> dict[str, str]:
    """A record as simple XMP properties."""
    fields = {
        "Tool": provenance.tool,
        "Version": provenance.version,
        "Backend": provenance.backend,
        "Trained": "True" if provenance.trained else "False",
        "Expression": json.dumps(dict(provenance.weights)),
        "Controls": json.dumps(dict(provenance.controls)),
        "Strength": repr(float(provenance.strength)),
        "Seed": str(provenance.seed),
    }
    if provenance.faces is not None:
        fields["Faces"] = str(provenance.faces)
    if provenance.timeline:
        fields["Timeline"] = provenance.timeline
    if provenance.removed:
        fields["Removed"] = provenance.removed
    return fields


def _from_fields(fields: Mapping[str, str]) -> Provenance:
    """A record from its properties; raises `DamagedXmp` where they are not what `_fields` writes."""
    try:
        faces: Any = fields.get("Faces")
        return Provenance(
            backend=fields["Backend"],
            trained=fields["Trained"] == "True",
            weights={str(name): float(value) for name, value in parse_json(fields["Expression"]).items()},
            controls={str(name): float(value) for name, value in parse_json(fields["Controls"]).items()},
            strength=float(fields["Strength"]),
            seed=int(fields["Seed"]),
            faces=None if faces is None else int(faces),
            timeline=fields.get("Timeline", ""),
            removed=fields.get("Removed", ""),
            tool=fields["Tool"],
            version=fields["Version"],
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise _xmp.DamagedXmp(f"a record of exprtool in it is not complete: {error!r}") from error
