"""What a profile may say about one output, and which kinds fit which formats."""

from __future__ import annotations

import importlib.util
from typing import Annotated, Literal

from pydantic import Field, model_validator

from watcher import templates
from watcher.strict import Place, Strict

Backdrop = Annotated[str, Field(pattern=r"^(#[0-9a-fA-F]{6}( #[0-9a-fA-F]{6})?|blur)$")]
WHITE = "#ffffff"


class Output(Strict):
    """One file written for each photo. docs/outputs.md has the table of kinds and formats."""

    kind: Literal["cutout", "matte", "composite", "trimap", "foreground"] = Field(
        description="cutout: colours and alpha; matte: alpha as grey; composite: over a background; "
        "trimap: 0, 128, 255; foreground: colours without alpha"
    )
    suffix: str = Field(
        "",
        pattern=r"^[^/\x00-\x1f]{0,64}$",
        description="added to the photo's name; its ending chooses the format",
    )
    name: str | None = Field(
        None, max_length=160, description="instead of suffix: a template that begins with {stem}"
    )
    depth: Literal["auto", 8, 16] = Field(
        "auto", description="bits a channel; auto: the photo's own, and 8 for a matte"
    )
    alpha: Literal["straight", "premultiplied"] = Field(
        "straight", description="of a TIFF cutout: unassociated or associated alpha"
    )
    background: Backdrop = Field(
        WHITE,
        description="under a composite: #rrggbb in sRGB, '#top #bottom' (a gradient) or blur (the photo's own)",
    )
    picture: Place | None = Field(None, description="a picture under a composite, instead of background")
    blur: Annotated[float, Field(gt=0, le=20)] = Field(
        2.0, description="strength of `background: blur`, in percent of the photo's longer side"
    )
    band: Annotated[float, Field(ge=0, le=10)] = Field(
        0.3, description="how far a trimap's unknown reaches, in percent of the longer side"
    )
    pack: Literal["deflate", "lzw", "zstd", "none"] = Field("deflate", description="compression of a TIFF")
    compression: Annotated[int, Field(ge=0, le=3)] = Field(
        1, description="effort of all that is lossless: 0 fast .. 3 small"
    )
    lossless: bool = Field(True, description="WebP and JPEG XL: keep every pixel; off: as `quality` says")
    quality: Annotated[int, Field(ge=1, le=100)] = Field(92, description="quality of what is lossy")
    metadata: Literal["keep", "no_gps", "none"] = Field(
        "keep", description="EXIF, XMP and IPTC: all, all but the place, or nothing"
    )

    @property
    def format(self) -> str:
        """One of FORMATS, as the name's ending says."""
        ending = (self.name or self.suffix).rpartition(".")[2].lower()
        return {"jpg": "jpeg", "tif": "tiff"}.get(ending, ending)

    @property
    def shown(self) -> str:
        """The name for people, NAME being the photo's."""
        return "NAME" + (self.name.removeprefix(templates.STEM) if self.name else self.suffix)

    @model_validator(mode="after")
    def _is_named_once(self) -> Output:
        if (self.name is None) == (not self.suffix):
            raise ValueError("needs a suffix or a name, and not both")
        if self.name is not None and (problem := templates.problem_in(self.name)):
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _format_fits_kind(self) -> Output:
        allowed = FORMATS[self.kind]
        if self.format not in allowed or "." not in (self.name or self.suffix):
            endings = " or ".join("." + name for name in allowed)
            raise ValueError(f"suffix of a {self.kind} must end in {endings}")
        if self.depth == 16 and (self.kind == "trimap" or self.format in EIGHT_BITS):
            raise ValueError(f"a {self.kind} as {self.format} has 8 bits a channel")
        if self.alpha == "premultiplied" and (self.kind != "cutout" or self.format != "tiff"):
            raise ValueError(
                f"a {self.kind} as {self.format} cannot have premultiplied alpha: only a cutout as tif can"
            )
        if self.picture is not None and self.background != WHITE:
            raise ValueError("has a background and a picture, of which only one can lie under the person")
        if self.format == "jxl" and importlib.util.find_spec("pylibjxl") is None:
            raise ValueError(
                "pylibjxl is not installed, which this needs: pip install 'hotmatte[codecs]' "
                "(in Hotmatte's own environment)"
            )
        return self


EIGHT_BITS = ("jpeg", "webp", "avif")
_COLOURS = ("png", "tiff", "webp", "jxl", "avif")
FORMATS = {
    "cutout": (*_COLOURS, "psd", "psb"),
    "matte": ("png", "tiff", "jxl"),
    "composite": (*_COLOURS, "jpeg"),
    "trimap": ("png", "tiff"),
    "foreground": (*_COLOURS, "jpeg"),
}
