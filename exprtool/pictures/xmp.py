"""Reading and changing XMP packets without losing what stands in them (ISO 16684-1).

A packet is XML from a stranger: document type declarations, and with them every entity bomb, are refused before any
entity is expanded. Prefixes, order and unknown properties are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.dom import minidom
from xml.parsers import expat

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
XMLNS = "http://www.w3.org/2000/xmlns/"
_META = "adobe:ns:meta/"
_TIFF = "http://ns.adobe.com/tiff/1.0/"
_EXIF = "http://ns.adobe.com/exif/1.0/"
_XMP = "http://ns.adobe.com/xap/1.0/"
_EMPTY = f'<x:xmpmeta xmlns:x="{_META}"><rdf:RDF xmlns:rdf="{RDF}"/></x:xmpmeta>'
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
            _refuse_doctype(text)
            self._document = minidom.parseString(text.encode())
        except (expat.ExpatError, ValueError) as error:
            raise DamagedXmp(str(error)) from error
        found = self._document.getElementsByTagNameNS(RDF, "RDF")
        if not found:
            raise DamagedXmp("it holds no rdf:RDF element")
        self.rdf: minidom.Element = found[0]

    def to_bytes(self) -> bytes:
        """The packet in UTF-8, wrapped for embedding, without padding."""
        root = self._document.documentElement
        assert root is not None
        return _BEGIN + root.toxml().encode() + _END

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


def without_attachments(data: bytes) -> bytes:
    """The packet without what points at data behind the picture: a film, a gain map.

    Phones append these to their photos; they do not outlive an edit, and a reader must not look for them.
    """
    packet = Packet(data)
    for namespace, names in _ATTACHMENTS.items():
        for name in names:
            packet.remove(namespace, name)
    return packet.to_bytes()


def has_attachments(data: bytes) -> bool:
    """Whether the packet points at data behind the picture."""
    packet = Packet(data)
    return any(packet.value(namespace, name) is not None for namespace, names in _ATTACHMENTS.items() for name in names)


_ATTACHMENTS = {
    "http://ns.google.com/photos/1.0/container/": ("Directory",),
    "http://ns.adobe.com/hdr-gain-map/1.0/": ("Version",),
    "http://ns.google.com/photos/1.0/camera/": (
        "MotionPhoto",
        "MotionPhotoVersion",
        "MotionPhotoPresentationTimestampUs",
        "MicroVideo",
        "MicroVideoVersion",
        "MicroVideoOffset",
        "MicroVideoPresentationTimestampUs",
    ),
}


def without_thumbnails(data: bytes) -> bytes:
    """The packet without small copies of the picture, which would go on showing the old face."""
    packet = Packet(data)
    packet.remove(_XMP, "Thumbnails")
    return packet.to_bytes()


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


def _refuse_doctype(text: str) -> None:
    def refuse(*_: object) -> None:
        raise DamagedXmp("it declares a document type, which XMP does not allow")

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.Parse(text.encode(), True)
