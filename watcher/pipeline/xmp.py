"""XMP packets: single statements changed or left out, and what IPTC says beside it. Pure.

Works on the text, not on a parsed tree: what is not meant stays as its writer wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.sax.saxutils import escape

# A stranger's packet may be megabytes of anything: every search here takes linear time.
_GPS_ATTRIBUTE = re.compile(rb"\s\w+:GPS\w*\s*=\s*(?:\"[^\"]*\"|'[^']*')")
_GPS_OPENED = re.compile(rb"<(\w+:GPS\w*)(?:\s[^<>]*)?/?>")
_ANY_GPS = re.compile(rb"[:<]GPS\w+")
_SIZE = r"({}(?:\s*=\s*[\"']|\s*>\s*))\d+"
_WIDTH = re.compile(_SIZE.format(r"(?:exif:PixelXDimension|tiff:ImageWidth)").encode())
_HEIGHT = re.compile(_SIZE.format(r"(?:exif:PixelYDimension|tiff:ImageLength)").encode())
_THUMBNAILS = re.compile(rb"<(xmp:Thumbnails)(?:\s[^<>]*)?/?>")


def fitted(packet: bytes, width: int, height: int) -> bytes:
    """`packet` with the upright image's dimensions and without thumbnails of the old background."""
    packet = _without(packet, _THUMBNAILS)
    packet = _WIDTH.sub(rb"\g<1>%d" % width, packet)
    return _HEIGHT.sub(rb"\g<1>%d" % height, packet)


def without_gps(packet: bytes) -> bytes | None:
    """`packet` without its GPS properties; None where some would be left."""
    left = _without(_GPS_ATTRIBUTE.sub(b"", packet), _GPS_OPENED)
    return None if _ANY_GPS.search(left) else left


def _without(packet: bytes, opened: re.Pattern[bytes]) -> bytes:
    """`packet` without the elements whose first tags match `opened`; group 1 is their name."""
    kept, at = [], 0
    while found := opened.search(packet, at):
        end = found.end()
        if not found[0].endswith(b"/>"):
            closing = packet.find(b"</" + found[1], end)
            end = packet.find(b">", closing) + 1
            if closing < 0 or end <= 0:
                break
        kept.append(packet[at : found.start()])
        at = end
    return b"".join([*kept, packet[at:]])


# IPTC-IIM record 2 and what the IPTC Photo Metadata Standard calls its counterpart in XMP.
_TEXTS = {
    15: "photoshop:Category",
    40: "photoshop:Instructions",
    85: "photoshop:AuthorsPosition",
    90: "photoshop:City",
    95: "photoshop:State",
    101: "photoshop:Country",
    103: "photoshop:TransmissionReference",
    105: "photoshop:Headline",
    110: "photoshop:Credit",
    115: "photoshop:Source",
    122: "photoshop:CaptionWriter",
}
_LANGUAGES = {5: "dc:title", 116: "dc:rights", 120: "dc:description"}
_LISTS = {25: ("dc:subject", "Bag"), 80: ("dc:creator", "Seq")}


def with_iptc(packet: bytes | None, fields: list[tuple[int, str]]) -> bytes | None:
    """`packet`, or a new one, and in it what IPTC `fields` (dataset of record 2, text) say of things that it does
    not speak of; None for nothing."""
    said = packet or b""
    parts = [words for name, words in _statements(fields) if name.encode() not in said]
    if not parts:
        return packet
    description = (
        '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"'
        f' xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/">{"".join(parts)}</rdf:Description>'
    ).encode()
    if packet is not None:
        before, end, after = packet.rpartition(b"</rdf:RDF>")
        return before + description + end + after if end else packet
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f"{description.decode()}</rdf:RDF></x:xmpmeta>"
        '<?xpacket end="w"?>'
    ).encode()


def _statements(fields: list[tuple[int, str]]) -> Iterator[tuple[str, str]]:
    """(property, element) of each that has a counterpart in XMP."""
    for key, text in fields:
        if key in _TEXTS:
            yield _TEXTS[key], f"<{_TEXTS[key]}>{escape(text)}</{_TEXTS[key]}>"
        if key in _LANGUAGES:
            name = _LANGUAGES[key]
            item = f'<rdf:li xml:lang="x-default">{escape(text)}</rdf:li>'
            yield name, f"<{name}><rdf:Alt>{item}</rdf:Alt></{name}>"
    for key, (name, kind) in _LISTS.items():
        if items := [f"<rdf:li>{escape(text)}</rdf:li>" for found, text in fields if found == key]:
            yield name, f"<{name}><rdf:{kind}>{''.join(items)}</rdf:{kind}></{name}>"
