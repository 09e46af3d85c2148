"""Which of a photo's metadata an output carries, and in what form. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from watcher.domain import Frame, Metadata
from watcher.pipeline import exif, iptc, xmp

Policy = Literal["keep", "no_gps", "none"]
# Formats that have a place for IPTC, and for a resolution of their own.
_IPTC_HERE = ("png", "tiff", "jpeg", "psd", "psb")


def metadata_for(frame: Frame, policy: Policy, format_: str) -> Metadata:
    """What travels: dimensions of the upright image, no thumbnail, and the place only if wanted.

    A format without IPTC gets its fields as XMP where the photo's says nothing of them; one without
    a resolution gets that as EXIF.
    """
    told = frame.metadata
    if policy == "none":
        told = Metadata(dpi=told.dpi)
    if told.exif is not None:
        block = exif.fitted(told.exif, frame.width, frame.height)
        told = replace(told, exif=exif.without_gps(block) if policy == "no_gps" else block)
    if told.xmp is not None:
        packet = xmp.fitted(told.xmp, frame.width, frame.height)
        told = replace(told, xmp=xmp.without_gps(packet) if policy == "no_gps" else packet)
    return told if format_ in _IPTC_HERE else _folded(told)


def _folded(told: Metadata) -> Metadata:
    if told.iptc is not None:
        told = replace(told, xmp=xmp.with_iptc(told.xmp, iptc.fields_in(told.iptc)))
    if told.dpi is not None:
        block = (
            exif.of_resolution(told.dpi) if told.exif is None else exif.with_resolution(told.exif, told.dpi)
        )
        told = replace(told, exif=block)
    return told
