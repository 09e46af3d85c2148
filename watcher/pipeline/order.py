"""What a renderer is asked for, as plain values: they travel as parcel.py has it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from watcher.config import Profile
from watcher.domain import Frame, Job, Metadata, Source, Stamp
from watcher.pipeline.looks import Answer
from watcher.pipeline.render import Style


def values_of(frame: Frame, answer: Answer, style: Style) -> dict[str, Any]:
    """All that rendering looks at. What else a frame knows stays here."""
    source, metadata = frame.job.source, frame.metadata
    return {
        "pixels": frame.pixels,
        "opacity": frame.opacity,
        "proxy": frame.proxy,
        "alpha": answer.alpha,
        "disagree": answer.disagree,
        "icc": frame.profile,
        "exif": metadata.exif,
        "xmp": metadata.xmp,
        "iptc": metadata.iptc,
        "dpi": metadata.dpi,
        "relpath": source.relpath,
        "mtime_ns": str(source.stamp.mtime_ns),
        "folder": style.folder_name,
        "profile": style.profile_name,
        "recipe": _written(style.profile),
    }


def order_of(values: Mapping[str, Any]) -> tuple[Frame, Answer, Style]:
    """The same again."""
    stamp = Stamp(0, int(values["mtime_ns"]))
    frame = Frame(
        job=Job(0, Source(values["folder"], values["relpath"], stamp), attempts=1, fence=0),
        path=Path(),
        pixels=values["pixels"],
        opacity=values["opacity"],
        profile=values["icc"],
        metadata=Metadata(values["exif"], values["xmp"], values["dpi"], values["iptc"]),
        proxy=values["proxy"],
        sha256="",
        format="",
    )
    style = Style(values["folder"], values["profile"], _read(values["recipe"]))
    return frame, Answer(values["alpha"], values["disagree"]), style


@lru_cache(maxsize=64)
def _written(profile: Profile) -> bytes:
    return profile.model_dump_json().encode()


@lru_cache(maxsize=64)
def _read(written: bytes) -> Profile:
    return Profile.model_validate_json(written)
