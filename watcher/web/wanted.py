"""What a client of remove.bg's API asks for: its parameters, read strictly, each error with its code.

The contract is https://www.remove.bg/api as of version 1.0. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from PIL import ImageColor

from watcher.web.refusal import Refused

Colour = tuple[int, int, int, int]
Format = Literal["auto", "png", "jpg", "webp", "zip"]

# Megapixels; None: as large as it is.
SIZES: Mapping[str, float | None] = {
    "preview": 0.25,
    "small": 0.25,
    "regular": 0.25,
    "medium": 1.5,
    "hd": 4.0,
    "full": 25.0,
    "4k": 25.0,
    "50mp": 50.0,
    "auto": None,
}
FORMATS: tuple[Format, ...] = ("auto", "png", "jpg", "webp", "zip")
MOST_MARGIN_PX, MOST_MARGIN_SHARE = 500.0, 0.5
_LENGTH = re.compile(r"(-?\d+(?:\.\d+)?)(px|%)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Length:
    """Pixels, or a share of something."""

    value: float
    is_share: bool

    def of(self, whole: float) -> float:
        return self.value * whole if self.is_share else self.value


@dataclass(frozen=True, slots=True)
class Wanted:
    """`roi`: left, top, right, bottom; `margins`: top, right, bottom, left; `position`: shares of the room
    that is left. None: as the photo has it."""

    megapixels: float | None = 0.25
    format: Format = "auto"
    alpha_only: bool = False
    roi: tuple[Length, Length, Length, Length] | None = None
    crop: bool = False
    margins: tuple[Length, Length, Length, Length] | None = None
    scale: float | None = None
    position: tuple[float, float] | None = None
    background: Colour | None = None


def wanted(fields: Mapping[str, str]) -> Wanted:
    """Raises Refused (400). An empty field counts as one that is not there; unknown ones are ignored."""
    given = {name: value.strip() for name, value in fields.items() if value.strip()}
    scale = _scale(given.get("scale"))
    position = _position(given.get("position"))
    return Wanted(
        megapixels=SIZES[_choice(given, "size", tuple(SIZES), "preview")],
        format=_format(given),
        alpha_only=_choice(given, "channels", ("rgba", "alpha"), "rgba") == "alpha",
        roi=_roi(given.get("roi")),
        crop=_truth(given.get("crop")),
        margins=_margins(given.get("crop_margin")),
        scale=scale,
        position=(0.5, 0.5) if position is None and scale is not None else position,
        background=_colour(given.get("bg_color")),
    )


def _format(given: Mapping[str, str]) -> Format:
    named = _choice(given, "format", (*FORMATS, "jpeg"), "auto")
    return next((word for word in FORMATS if word == named), "jpg")


def _choice(given: Mapping[str, str], name: str, words: tuple[str, ...], otherwise: str) -> str:
    word = given.get(name, otherwise).lower()
    if word not in words:
        raise _invalid(name, f"It must be one of: {', '.join(words)}.")
    return word


def _truth(word: str | None) -> bool:
    return (word or "false").lower() in ("true", "1", "yes", "on")


def _roi(word: str | None) -> tuple[Length, Length, Length, Length] | None:
    if word is None:
        return None
    lengths = [_length(part, "roi") for part in word.split()]
    if len(lengths) != 4 or any(length.value < 0 for length in lengths):
        raise _invalid("roi", "It must be four lengths, such as `0% 10% 100% 90%`.")
    return (lengths[0], lengths[1], lengths[2], lengths[3])


def _margins(word: str | None) -> tuple[Length, Length, Length, Length] | None:
    """As in CSS: one, two (top and bottom, left and right) or four (top, right, bottom, left)."""
    if word is None:
        return None
    lengths = [_length(part, "crop_margin") for part in word.split()]
    if len(lengths) not in (1, 2, 4):
        raise _invalid("crop_margin", "It must be one, two or four lengths, such as `10%` or `30px`.")
    for length in lengths:
        most = MOST_MARGIN_SHARE if length.is_share else MOST_MARGIN_PX
        if not 0 <= length.value <= most:
            raise _invalid("crop_margin", "At most 50% or 500px.")
    top, right, bottom, left = (lengths * 4)[:4]
    return (top, right, bottom, left)


def _length(word: str, name: str) -> Length:
    # A bare zero needs no unit.
    match = _LENGTH.fullmatch(word.lower() if word != "0" else "0px")
    if match is None:
        raise _invalid(name, f"`{word[:20]}` is no length: give pixels (`30px`) or per cent (`10%`).")
    number, unit = float(match[1]), match[2]
    return Length(number / 100, True) if unit == "%" else Length(number, False)


def _scale(word: str | None) -> float | None:
    if word is None or word.lower() == "original":
        return None
    share = _length(word, "scale")
    if not share.is_share or not 0.1 <= share.value <= 1:
        raise _invalid("scale", "It must be `original` or from 10% to 100%.")
    return share.value


def _position(word: str | None) -> tuple[float, float] | None:
    if word is None or word.lower() == "original":
        return None
    if word.lower() == "center":
        return (0.5, 0.5)
    shares = [_length(part, "position") for part in word.split()]
    fits = len(shares) in (1, 2) and all(share.is_share and 0 <= share.value <= 1 for share in shares)
    if not fits:
        raise _invalid("position", "It must be `original`, `center`, or one or two shares from 0% to 100%.")
    return (shares[0].value, shares[-1].value)


def _colour(word: str | None) -> Colour | None:
    if word is None:
        return None
    hexadecimal = re.fullmatch(r"#?([0-9a-fA-F]{3,4}|[0-9a-fA-F]{6}|[0-9a-fA-F]{8})", word)
    try:
        red, green, blue, *alpha = ImageColor.getrgb(f"#{hexadecimal[1]}" if hexadecimal else word[:40])
    except ValueError as error:
        raise _invalid("bg_color", "Give a colour as `ff8800`, `ff880080`, or by its name.") from error
    return (red, green, blue, alpha[0] if alpha else 255)


def _invalid(name: str, detail: str) -> Refused:
    return Refused(400, f"invalid_{name}", f"Invalid {name} parameter given", detail=detail)
