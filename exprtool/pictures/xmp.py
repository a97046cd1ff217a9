"""Reading and changing XMP packets without losing what stands in them (ISO 16684-1).

A packet is XML from a stranger: document type declarations, and with them every entity bomb, are refused before any
entity is expanded. Prefixes, order and unknown properties are kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any
from xml.dom import minidom
from xml.parsers import expat

from exprtool.pictures.copies import holds_picture

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
XMLNS = "http://www.w3.org/2000/xmlns/"
_XML = "http://www.w3.org/XML/1998/namespace"
_META = "adobe:ns:meta/"
_TIFF = "http://ns.adobe.com/tiff/1.0/"
_EXIF = "http://ns.adobe.com/exif/1.0/"
_XMP = "http://ns.adobe.com/xap/1.0/"
_GAIN_MAP = "http://ns.adobe.com/hdr-gain-map/1.0/"
_CONTAINER = "http://ns.google.com/photos/1.0/container/"
_ITEM = "http://ns.google.com/photos/1.0/container/item/"
_NOTE = "http://ns.adobe.com/xmp/note/"
_DUBLIN_CORE_TERMS = "http://purl.org/dc/terms/"
_EMPTY = f'<x:xmpmeta xmlns:x="{_META}"><rdf:RDF xmlns:rdf="{RDF}"/></x:xmpmeta>'
_DEEPEST = 100
"""Real packets nest about ten deep; the tree is walked by functions that call themselves."""
_MOST_ELEMENTS = 200_000
"""Real packets have up to some thousands; each takes about a kilobyte of memory."""
_BEGIN = b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
_END = b'\n<?xpacket end="w"?>'


class DamagedXmp(ValueError):
    """A packet that is not well-formed XML, holds no RDF, or declares a document type."""


class Packet:
    """One XMP packet, open for reading and changing."""

    def __init__(self, data: bytes | None = None) -> None:
        """Parse ``data``, or begin an empty packet; raises `DamagedXmp`."""
        text = _decode(data) if data and data.strip(b"\0 \t\r\n") else _EMPTY
        try:
            _check(text)
            self._document = minidom.parseString(text.encode())
        except (expat.ExpatError, ValueError) as error:
            raise DamagedXmp(str(error)) from error
        found = self._document.getElementsByTagNameNS(RDF, "RDF")
        if not found:
            raise DamagedXmp("it holds no rdf:RDF element")
        self.rdf: minidom.Element = found[0]

    def to_bytes(self) -> bytes:
        """The packet in UTF-8, wrapped for embedding, without padding."""
        return _BEGIN + self.document_bytes() + _END

    def document_bytes(self) -> bytes:
        """The document in UTF-8 without the wrapping, as an extension is kept."""
        root = self._document.documentElement
        assert root is not None
        return root.toxml().encode()

    def adopted(self, node: minidom.Element, *, deep: bool = True) -> minidom.Element:
        """A copy of a node of another packet for this one, with the prefixes that were declared around it.

        With ``deep`` False it has only the declarations and what it is about, no properties.
        """
        copy = self._document.importNode(node, deep)
        if not deep:
            for attribute in _attributes(copy):
                copy.removeAttributeNode(attribute)
        around: Any = node
        while isinstance(around, minidom.Element):
            for declared in _all_attributes(around):
                if declared.namespaceURI == XMLNS and not copy.hasAttribute(declared.name):
                    copy.setAttributeNS(XMLNS, declared.name, declared.value)
            around = around.parentNode
        return copy

    def descriptions(self) -> Iterator[minidom.Element]:
        """The top-level rdf:Description elements."""
        yield from children(self.rdf, RDF, "Description")

    def value(self, namespace: str, name: str) -> str | None:
        """A simple property, however it was written; None where it is missing."""
        for description in self.descriptions():
            if description.hasAttributeNS(namespace, name):
                return description.getAttributeNS(namespace, name)
            for element in children(description, namespace, name):
                return element.getAttributeNS(RDF, "resource") or text_of(element)
        return None

    def has(self, namespace: str, name: str) -> bool:
        return self.value(namespace, name) is not None

    def elements(self, namespace: str, name: str) -> list[minidom.Element]:
        """The elements of a property that is written as an element."""
        return [element for description in self.descriptions() for element in children(description, namespace, name)]

    def remove(self, namespace: str, name: str) -> None:
        for description in self.descriptions():
            if description.hasAttributeNS(namespace, name):
                description.removeAttributeNS(namespace, name)
            for element in list(children(description, namespace, name)):
                description.removeChild(element)

    def set(self, prefix: str, namespace: str, name: str, value: str) -> None:
        """Set a simple property, in place of what it was."""
        self.remove(namespace, name)
        add_text(self.description_for(prefix, namespace), f"{prefix}:{name}", namespace, value)

    def set_attribute(self, prefix: str, namespace: str, name: str, value: str) -> None:
        """Like `set`, for properties that some programs know only as attributes."""
        self.remove(namespace, name)
        self.description_for(prefix, namespace).setAttributeNS(namespace, f"{prefix}:{name}", value)

    def replace_value(self, namespace: str, name: str, value: str) -> None:
        """Change a simple property where it stands and as it is written; one that is missing stays missing."""
        for description in self.descriptions():
            if attribute := description.getAttributeNodeNS(namespace, name):
                attribute.value = value
            for element in children(description, namespace, name):
                for node in list(element.childNodes):
                    element.removeChild(node)
                element.appendChild(self._document.createTextNode(value))

    def description_for(self, prefix: str, namespace: str) -> minidom.Element:
        """A top-level rdf:Description in which ``prefix`` means ``namespace``; the last such one, or a new one."""
        for description in reversed(list(self.descriptions())):
            if description.getAttributeNS(XMLNS, prefix) == namespace:
                return description
        name = f"{self.rdf.prefix}:Description" if self.rdf.prefix else "Description"
        description = self._document.createElementNS(RDF, name)
        rdf_prefix = self.rdf.prefix or "rdf"
        if not self.rdf.prefix:  # attributes do not take part in a default namespace
            description.setAttributeNS(XMLNS, "xmlns:rdf", RDF)
        description.setAttributeNS(RDF, f"{rdf_prefix}:about", self._about())
        description.setAttributeNS(XMLNS, f"xmlns:{prefix}", namespace)
        self.rdf.appendChild(description)
        return description

    def _about(self) -> str:
        """All descriptions of a packet must be about the same thing."""
        return next((about for each in self.descriptions() if (about := each.getAttributeNS(RDF, "about"))), "")


def for_upright(data: bytes, size: tuple[int, int]) -> bytes:
    """The packet for a picture that was turned upright to ``size`` (h, w): orientation 1 and the sizes corrected."""
    packet = Packet(data)
    height, width = size
    packet.replace_value(_TIFF, "Orientation", "1")
    for namespace, name, value in (
        (_TIFF, "ImageWidth", width),
        (_TIFF, "ImageLength", height),
        (_EXIF, "PixelXDimension", width),
        (_EXIF, "PixelYDimension", height),
    ):
        packet.replace_value(namespace, name, str(value))
    return packet.to_bytes()


# -- what points at or holds other pictures ---------------------------------------------------------------------------


def without_attachments(data: bytes) -> bytes:
    """The packet without what points at data behind the picture: a film, a gain map.

    Phones append these to their photos, and a reader must not look for what did not outlive an edit.
    """
    packet = Packet(data)
    for namespace, names in _ATTACHMENTS.items():
        for name in names:
            packet.remove(namespace, name)
    return packet.to_bytes()


def has_attachments(data: bytes) -> bool:
    """Whether the packet points at data behind the picture."""
    packet = Packet(data)
    return any(packet.has(namespace, name) for namespace, names in _ATTACHMENTS.items() for name in names)


_ATTACHMENTS = {
    _CONTAINER: ("Directory",),
    _GAIN_MAP: ("Version",),
    "http://ns.google.com/photos/1.0/camera/": (
        "MotionPhoto",
        "MotionPhotoVersion",
        "MotionPhotoPresentationTimestampUs",
        "MicroVideo",
        "MicroVideoVersion",
        "MicroVideoOffset",
        "MicroVideoPresentationTimestampUs",
    ),
    # Google's dynamic depth: a directory of depth maps and originals behind the picture
    "http://ns.google.com/photos/dd/1.0/device/": ("Container", "Cameras", "Profiles", "Planes"),
}


def with_gain_map(data: bytes | None, length: int) -> bytes:
    """The packet that announces a gain map of ``length`` bytes right behind the picture (Ultra HDR, version 1.1)."""
    packet = Packet(without_attachments(data) if data else None)
    packet.set_attribute("hdrgm", _GAIN_MAP, "Version", "1.0")
    description = packet.description_for("Container", _CONTAINER)
    description.setAttributeNS(XMLNS, "xmlns:Item", _ITEM)
    rdf = packet.rdf.prefix or "rdf"
    directory = add_element(description, "Container:Directory", _CONTAINER)
    sequence = add_element(directory, f"{rdf}:Seq", RDF)
    for semantic, size in (("Primary", None), ("GainMap", length)):
        entry = add_element(sequence, f"{rdf}:li", RDF)
        entry.setAttributeNS(RDF, f"{rdf}:parseType", "Resource")
        item = add_element(entry, "Container:Item", _CONTAINER)
        item.setAttributeNS(_ITEM, "Item:Semantic", semantic)
        item.setAttributeNS(_ITEM, "Item:Mime", "image/jpeg")
        if size is not None:
            item.setAttributeNS(_ITEM, "Item:Length", str(size))
    return packet.to_bytes()


def names_gain_map(data: bytes) -> bool:
    """Whether the packet says something about a gain map: that there is one, or how it is to be applied."""
    return _GAIN_MAP.encode() in data and any(
        attribute.namespaceURI == _GAIN_MAP
        for description in Packet(data).descriptions()
        for attribute in _attributes(description)
    )


_COPIES = {
    "http://ns.google.com/photos/1.0/image/": "the original (GImage)",
    "http://ns.google.com/photos/1.0/depthmap/": "the depth map (GDepth)",
    "http://ns.google.com/photos/1.0/camera/depthmap/": "the depth map",
    "http://ns.google.com/photos/dd/1.0/depthmap/": "the depth map",
    "http://ns.google.com/photos/dd/1.0/image/": "the original",
}
"""Namespaces whose properties are, or describe, pictures inside the packet."""


def without_copies(data: bytes) -> tuple[bytes, list[str]]:
    """The packet without pictures in it, and what they are called.

    Left out are properties of namespaces that serve such pictures, thumbnails, and whatever else holds a picture in
    base64.
    """
    packet, names = Packet(data), []
    for description in list(packet.descriptions()):
        for attribute in _attributes(description):
            if name := _copy_in(attribute.namespaceURI, attribute.name, attribute.value):
                names.append(name)
                description.removeAttributeNode(attribute)
        for element in list(all_children(description)):
            if name := _copy_in(element.namespaceURI, element.nodeName, element.toxml()):
                names.append(name)
                description.removeChild(element)
    return (packet.to_bytes(), list(dict.fromkeys(names))) if names else (data, [])


def _copy_in(namespace: str | None, name: str, text: str) -> str | None:
    if namespace in _COPIES:
        return f"{_COPIES[namespace]} in its XMP"
    if namespace == _XMP and name.endswith(":Thumbnails"):
        return "the thumbnails in its XMP"
    return f"the picture in {name} of its XMP" if holds_picture(text.encode()) else None


def without_manifest_link(data: bytes) -> tuple[bytes, bool]:
    """The packet without its link to a C2PA manifest elsewhere (C2PA 2.1, section 11.5), and whether it had one."""
    packet = Packet(data)
    if not packet.has(_DUBLIN_CORE_TERMS, "provenance"):
        return data, False
    packet.remove(_DUBLIN_CORE_TERMS, "provenance")
    return packet.to_bytes(), True


# -- extended XMP: what does not fit into one segment of a JPEG (XMP specification, part 3, section 1.1.3.1) -----------


def extension_of(data: bytes) -> str | None:
    """The name (GUID) of the extension that the packet of a JPEG announces, or None."""
    return Packet(data).value(_NOTE, "HasExtendedXMP") if _NOTE.encode() in data else None


def joined(data: bytes, extension: bytes | None = b"") -> bytes:
    """The packet with its extension taken in, and no longer announced.

    Raises `DamagedXmp` where the extension is; None stands for one of which parts are missing.
    """
    packet = Packet(data)
    packet.remove(_NOTE, "HasExtendedXMP")
    if extension is None:
        raise DamagedXmp("parts of it are missing")
    if extension:
        for description in Packet(extension).descriptions():
            packet.rdf.appendChild(packet.adopted(description))
    return packet.to_bytes()


def split(data: bytes, room: int) -> tuple[bytes, bytes | None]:
    """The packet in at most ``room`` bytes, and an extension with the properties that did not fit, if there are any.

    The largest properties go into the extension, those that `_KEPT_AT_HAND` names last.
    """
    if len(data) <= room:
        return data, None
    packet, extension = Packet(data), Packet()
    movable: list[tuple[bool, int, minidom.Element, minidom.Attr | minidom.Element]] = []
    for description in packet.descriptions():
        for attribute in _attributes(description):
            kept = attribute.namespaceURI in _KEPT_AT_HAND
            movable.append((kept, -len(attribute.value.encode()), description, attribute))
        for element in all_children(description):
            size = len(element.toxml().encode())
            movable.append((element.namespaceURI in _KEPT_AT_HAND, -size, description, element))
    excess = len(data) + _ROOM_FOR_NOTE - room
    for _, size, description, node in sorted(movable, key=lambda entry: entry[:2]):
        if excess <= 0:
            break
        home = extension.adopted(description, deep=False)
        if isinstance(node, minidom.Attr):
            assert node.namespaceURI is not None
            home.setAttributeNS(node.namespaceURI, node.name, node.value)
            description.removeAttributeNode(node)
        else:
            home.appendChild(extension.adopted(node))
            description.removeChild(node)
        extension.rdf.appendChild(home)
        excess += size
    rest = extension.document_bytes()
    name = hashlib.md5(rest, usedforsecurity=False).hexdigest().upper()
    packet.set_attribute("xmpNote", _NOTE, "HasExtendedXMP", name)
    return packet.to_bytes(), rest


_ROOM_FOR_NOTE = 512
"""Bytes that announcing the extension may take, and white space that stays where properties were."""
_KEPT_AT_HAND = (_GAIN_MAP, _CONTAINER, "http://iptc.org/std/Iptc4xmpExt/2008-02-29/", "urn:exprtool:provenance:1/")
"""Namespaces that readers look for in the first packet only."""


def _attributes(description: minidom.Element) -> list[minidom.Attr]:
    """The properties that are written as attributes."""
    return [each for each in _all_attributes(description) if each.namespaceURI not in (None, XMLNS, RDF, _XML)]


def _all_attributes(element: minidom.Element) -> list[Any]:
    return list(element.attributes.values()) if element.attributes else []


def all_children(element: minidom.Element) -> Iterator[minidom.Element]:
    for node in element.childNodes:
        if isinstance(node, minidom.Element):
            yield node


def children(element: minidom.Element, namespace: str, name: str) -> Iterator[minidom.Element]:
    for child in all_children(element):
        if child.namespaceURI == namespace and child.localName == name:
            yield child


def text_of(element: minidom.Element) -> str:
    return "".join(node.data for node in element.childNodes if isinstance(node, minidom.Text)).strip()


def add_element(parent: minidom.Element, name: str, namespace: str) -> minidom.Element:
    assert parent.ownerDocument is not None
    element = parent.ownerDocument.createElementNS(namespace, name)
    parent.appendChild(element)
    return element


def add_text(parent: minidom.Element, name: str, namespace: str, value: str) -> minidom.Element:
    element = add_element(parent, name, namespace)
    assert parent.ownerDocument is not None
    element.appendChild(parent.ownerDocument.createTextNode(value))
    return element


def _decode(data: bytes) -> str:
    """The packet's text; it may be UTF-8, UTF-16 or UTF-32 (XMP part 1, section 7.3.2)."""
    encoding = next((name for start, name in _ENCODINGS if data.startswith(start)), "utf-8")
    unit = {"utf-8": 1, "utf-1": 2, "utf-3": 4}[encoding[:5]]
    try:
        text = data[: len(data) // unit * unit].decode(encoding)
    except UnicodeDecodeError as error:
        raise DamagedXmp(str(error)) from error
    text = text.strip("\0 \t\r\n\ufeff")
    if text.startswith("<?xml "):  # its encoding no longer holds: we parse UTF-8
        text = text[text.find("?>") + 2 :].lstrip()
    return text


# By byte order mark or by the first "<"; the longer ones first, since UTF-32 begins like UTF-16.
_ENCODINGS = (
    (b"\xff\xfe\0\0", "utf-32-le"),
    (b"\0\0\xfe\xff", "utf-32-be"),
    (b"<\0\0\0", "utf-32-le"),
    (b"\0\0\0<", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
    (b"<\0", "utf-16-le"),
    (b"\0<", "utf-16-be"),
)


def _check(text: str) -> None:
    """Refuse what would make the parser or the writer of the tree fail, before there is a tree."""
    depth = elements = 0

    def refuse(*_: object) -> None:
        raise DamagedXmp("it declares a document type, which XMP does not allow")

    def begin(*_: object) -> None:
        nonlocal depth, elements
        depth, elements = depth + 1, elements + 1
        if depth > _DEEPEST:
            raise DamagedXmp(f"its elements are nested more than {_DEEPEST} deep")
        if elements > _MOST_ELEMENTS:
            raise DamagedXmp(f"it has more than {_MOST_ELEMENTS} elements")

    def end(*_: object) -> None:
        nonlocal depth
        depth -= 1

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = begin
    parser.EndElementHandler = end
    parser.Parse(text.encode(), True)
