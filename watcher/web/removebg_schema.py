"""How remove.bg's call is described in our OpenAPI: for generated clients, and for tests."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel

from watcher.web.wanted import FORMATS, SIZES


def _text(words: str, *choices: str) -> dict[str, Any]:
    field: dict[str, Any] = {"type": "string", "description": words}
    return {**field, "enum": list(choices)} if choices else field


_FIELDS: dict[str, Any] = {
    "image_url": _text("only where web.fetch_urls is on"),
    "image_file_b64": _text("base64, with or without a data: prefix"),
    "size": _text("largest size of the answer", *SIZES),
    "type": _text("accepted; the answer's type is always person"),
    "format": _text("zip: color.jpg and alpha.png", *FORMATS),
    "roi": _text("left top right bottom, in px or %"),
    "crop": {"type": "boolean"},
    "crop_margin": _text("one, two or four lengths in px or %"),
    "scale": _text("original, or 10% to 100%"),
    "position": _text("original, center, or one or two shares in %"),
    "channels": _text("alpha: the matte alone", "rgba", "alpha"),
    "bg_color": _text("hex digits or a name"),
    "bg_image_url": _text("only where web.fetch_urls is on"),
}
_FILE = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "properties": {"image_file": _FILE, "bg_image_file": _FILE, **_FIELDS}}
_PLAIN = {"type": "object", "properties": _FIELDS}

BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": _FORM},
            "application/x-www-form-urlencoded": {"schema": _PLAIN},
            "application/json": {"schema": _PLAIN},
        },
    }
}
REMBG_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "required": ["file"], "properties": {"file": _FILE}}
            }
        },
    }
}


class ResultFields(BaseModel):
    result_b64: str
    foreground_top: int
    foreground_left: int
    foreground_width: int
    foreground_height: int


class ResultBody(BaseModel):
    data: ResultFields


IMAGES: dict[str, Any] = {
    "description": "the picture, or JSON where `Accept` asks for it",
    "model": ResultBody,
    "content": {
        kind: {"schema": _FILE} for kind in ("image/png", "image/jpeg", "image/webp", "application/zip")
    },
}


class Credits(BaseModel):
    total: float = 0
    subscription: float = 0
    payg: float = 0
    enterprise: float = 0


class Calls(BaseModel):
    free_calls: int
    sizes: str = "all"


class Attributes(BaseModel):
    credits: Credits = Credits()
    api: Calls


class AccountFields(BaseModel):
    attributes: Attributes


class Account(BaseModel):
    data: AccountFields

    @classmethod
    def of(cls, calls: int) -> Self:
        return cls(data=AccountFields(attributes=Attributes(api=Calls(free_calls=calls))))
