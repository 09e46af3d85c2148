"""Names of outputs made from templates, such as `{stem}_{width}x{height}.png`. Pure.

A template is `{stem}` and then what is added to it: so all results of a photo still share one
base, which is what publishing, numbering and sidecars rest on. No folder can be named.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from datetime import datetime

STEM = "{stem}"
FIELDS = ("folder", "profile", "model", "kind", "width", "height", "ext", "date")
# What a filled-in template may add to the photo's name, in bytes; the rest is the photo's.
MOST_BYTES = 96

_FIELD = re.compile(r"\{(?P<field>\w+)(?::(?P<shape>[^{}]*))?\}")
_DATE_SHAPE = re.compile(r"(?:%[YmdHMSyj]|[A-Za-z0-9 ._-])*")
_PLAIN = re.compile(r"[^A-Za-z0-9._-]")
_CAPTURED = re.compile(rb"(\d{4}):(\d\d):(\d\d) (\d\d):(\d\d):(\d\d)")
_LONGEST = {"width": "999999", "height": "999999", "ext": "x" * 8, "date": "", "kind": "foreground"}


def problem_in(template: str) -> str | None:
    """Why `template` cannot be used, or None."""
    if not template.startswith(STEM):
        return "a name must begin with {stem}, so that no two photos can meet in one file"
    rest = _FIELD.sub(_check_only, template.removeprefix(STEM))
    if "{" in rest or "}" in rest:
        known = ", ".join(f"{{{name}}}" for name in FIELDS)
        return f"a name may use {{stem}} once, at its beginning, and then {known}"
    for found in _FIELD.finditer(template.removeprefix(STEM)):
        shape = found["shape"]
        if shape is not None and (found["field"] != "date" or not _DATE_SHAPE.fullmatch(shape)):
            return f"{found[0]}: only a date takes a shape, of %Y %m %d %H %M %S %y %j, letters, digits and - _ ."
    if "/" in rest or "\\" in rest or any(ord(char) < 32 for char in rest):
        return "a name may not lead to another folder: use `tree` and one hot folder for each"
    return None


def _check_only(found: re.Match[str]) -> str:
    return "" if found["field"] in FIELDS else found[0]


def suffix(template: str, values: Mapping[str, str], taken: datetime) -> str:
    """What `template` adds to a photo's base name. `values`: all of FIELDS but `date`.

    Whatever a value holds, nothing comes out that could leave the folder. Raises ValueError
    where it is longer than MOST_BYTES.
    """

    def fill(found: re.Match[str]) -> str:
        if found["field"] == "date":
            return taken.strftime(found["shape"] or "%Y-%m-%d")
        return _PLAIN.sub("_", values[found["field"]])

    filled = _FIELD.sub(fill, template.removeprefix(STEM))
    if len(filled.encode()) > MOST_BYTES:
        raise ValueError(f"the name adds {filled!r} to the photo's; {MOST_BYTES} bytes are the limit")
    return filled


def longest(template: str, *, folder: str, profile: str, model: str) -> int:
    """Bytes that `template` may add for a photo of that folder, at most."""
    values = {**_LONGEST, "folder": folder, "profile": profile, "model": model}

    def fill(found: re.Match[str]) -> str:
        if found["field"] == "date":
            return datetime(2000, 12, 31, 23, 59, 59).strftime(found["shape"] or "%Y-%m-%d")
        return values[found["field"]]

    return len(_FIELD.sub(fill, template.removeprefix(STEM)).encode())


def taken_at(exif: bytes | None, mtime: float) -> datetime:
    """When the photo was taken, by its EXIF (tag 0x9003, local time); else when its file was written."""
    if exif is not None:
        for clock in _exif_dates(exif):
            try:
                return datetime(*(int(part) for part in clock.groups()))  # type: ignore[arg-type]
            except ValueError:
                continue  # "0000:00:00 00:00:00" of a camera that was never set
    return datetime.fromtimestamp(mtime)


def _exif_dates(exif: bytes) -> list[re.Match[bytes]]:
    """DateTimeOriginal, then DateTime, where an EXIF block has them."""
    order = "<" if exif[:2] == b"II" else ">"
    found: dict[int, re.Match[bytes]] = {}
    try:
        (main,) = struct.unpack_from(order + "I", exif, 4)
        places = [main]
        for place in places:
            (count,) = struct.unpack_from(order + "H", exif, place)
            for entry in range(place + 2, place + 2 + 12 * count, 12):
                tag, _, _, value = struct.unpack_from(order + "HHII", exif, entry)
                if tag == 0x8769 and len(places) == 1:
                    places.append(value)
                elif tag in (0x9003, 0x0132) and (clock := _CAPTURED.match(exif, value)):
                    found[tag] = clock
    except struct.error:
        pass
    return [found[tag] for tag in (0x9003, 0x0132) if tag in found]
