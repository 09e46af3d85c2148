"""What a file is that is no photo, in words for whoever dropped it. Pure."""

from __future__ import annotations

_EXPORT = "Export the photo again in a supported format and drop it again."
_STILL = "Export a still of it as JPEG, PNG or TIFF and drop that."
_DRAWING = "Export it as PNG or TIFF at the size you need and drop that."
_UNPACK = "Unpack it and drop the photos in it."

# Where, the bytes, what it is, what to do.
_SIGNS = (
    (0, b"%PDF", "this is a PDF (or an Illustrator file, which is one inside)", _DRAWING),
    (0, b"%!PS", "this is PostScript (EPS or an older Illustrator file)", _DRAWING),
    (0, b"\xc5\xd0\xd3\xc6", "this is an EPS file", _DRAWING),
    (0, b"\x06\x06\xed\xf5", "this is an InDesign document", _DRAWING),
    (0, b"gimp xcf", "this is a GIMP document", "Export it from GIMP as PNG or TIFF and drop that."),
    (0, b"KRITA", "this is a Krita document", _DRAWING),
    (0, b"\x1aE\xdf\xa3", "this is a video (Matroska or WebM)", _STILL),
    (8, b"AVI ", "this is a video (AVI)", _STILL),
    (8, b"WAVE", "this is a sound (WAV)", _EXPORT),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "this is a video (WMV)", _STILL),
    (0, b"\0\0\x01\xba", "this is a video (MPEG)", _STILL),
    (0, b"FLV\x01", "this is a video (Flash)", _STILL),
    (0, b"ID3", "this is a sound (MP3)", _EXPORT),
    (4, b"moov", "this is a video (QuickTime)", _STILL),
    (4, b"mdat", "this is a video (QuickTime)", _STILL),
    (4, b"wide", "this is a video (QuickTime)", _STILL),
    (0, b"PK\x03\x04", "this is a ZIP archive or an office document", _UNPACK),
    (0, b"Rar!", "this is a RAR archive", _UNPACK),
    (0, b"7z\xbc\xaf", "this is a 7-Zip archive", _UNPACK),
    (0, b"\x1f\x8b", "this is a gzip archive", _UNPACK),
    (0, b"\x76\x2f\x31\x01", "this is an OpenEXR picture, whose white has no fixed level", _EXPORT),
    (0, b"#?RADIANCE", "this is a Radiance HDR picture, whose white has no fixed level", _EXPORT),
    (0, b"II\xbc\x01", "this is a JPEG XR picture, which is not read here", _EXPORT),
    (0, b"\0\0\x01\0", "this is an icon", _EXPORT),
    (128, b"DICM", "this is a DICOM file", _EXPORT),
    (0, b"PF\n", "this is a picture of floating point numbers (PFM), whose white has no fixed level", _EXPORT),
    (0, b"Pf\n", "this is a picture of floating point numbers (PFM), whose white has no fixed level", _EXPORT),
    (0, b"\x7fELF", "this is a program", _EXPORT),
    (0, b"MZ", "this is a program", _EXPORT),
)  # fmt: skip


def named(content: bytes) -> tuple[str, str]:
    """What `content`, which no reader of ours takes, is, and what to do about it."""
    if not content:
        return "the file is empty", "Copy the file again; a new copy is picked up by itself."
    for at, sign, words, remedy in _SIGNS:
        if content[at : at + len(sign)] == sign:
            return words, remedy
    if content[4:8] == b"ftyp":
        return f"this is a video (MP4 or QuickTime, brand {_brand(content)})", _STILL
    start = content[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<svg")):
        if b"<svg" in start:
            return "this is a drawing (SVG), not a photo", _DRAWING
        return "this is a web page or an XML document, not a photo", _EXPORT
    if all(32 <= byte < 127 or byte in b"\t\r\n\f" for byte in content[:512]):
        return "this is a text file, not a photo", _EXPORT
    if not any(content[:4096]):
        words = "the file holds only zeros: its copy was probably interrupted"
        return words, "Copy the file again; a new copy is picked up by itself."
    return "this is not an image of any kind that can be read here", _EXPORT


def _brand(content: bytes) -> str:
    return "".join(chr(byte) if 32 < byte < 127 else "?" for byte in content[8:12])
