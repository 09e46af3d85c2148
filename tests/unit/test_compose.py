"""What a client of remove.bg asks for, on a cutout whose every pixel is known."""

from __future__ import annotations

import io
import math
import zipfile

import numpy as np
import pytest
from PIL import Image, ImageCms

from watcher.web.compose import Composed, compose
from watcher.web.refusal import Refused
from watcher.web.wanted import SIZES, Wanted, wanted

# A red block on nothing: left 40, top 20, right 60, bottom 80.
BLOCK = (40, 20, 60, 80)


@pytest.fixture
def cutout() -> Image.Image:
    image = Image.new("RGBA", (200, 100), (0, 0, 255, 0))
    image.paste((255, 0, 0, 255), BLOCK)
    return image


def opened(composed: Composed) -> Image.Image:
    image = Image.open(io.BytesIO(composed.content))
    assert image.size == (composed.width, composed.height)
    return image


def asked(**fields: str) -> Wanted:
    return wanted({"size": "auto", "format": "png", **fields})


def test_nothing_asked_for_changes_nothing(cutout: Image.Image) -> None:
    composed = compose(cutout, asked())
    assert composed.foreground == BLOCK
    assert opened(composed).tobytes() == cutout.tobytes()


@pytest.mark.parametrize(("size", "most"), [(name, most) for name, most in SIZES.items() if most])
def test_a_size_is_never_exceeded_and_shape_is_kept(size: str, most: float) -> None:
    unit = math.ceil(math.sqrt(1.1 * most * 1e6 / 6))
    photo = Image.new("RGBA", (3 * unit, 2 * unit), (9, 9, 9, 255))
    composed = compose(photo, wanted({"size": size, "format": "jpg"}))
    assert most * 0.98e6 < composed.width * composed.height <= most * 1e6
    assert composed.width / composed.height == pytest.approx(1.5, rel=0.01)


def test_a_smaller_picture_grows_no_fringe(cutout: Image.Image) -> None:
    big = cutout.resize((2000, 1000), Image.Resampling.NEAREST)
    small = opened(compose(big, wanted({"size": "preview", "format": "png"})))
    assert small.width < 2000
    # Wherever there is something, it is red: the blue under the clear pixels has not leaked in.
    red, green, blue, alpha = np.moveaxis(np.asarray(small), -1, 0)
    seen = alpha >= 8
    assert seen.any()
    assert red[seen].min() > 240
    assert max(green[seen].max(), blue[seen].max()) < 8


def test_a_crop_is_the_subject_with_its_margins(cutout: Image.Image) -> None:
    tight = compose(cutout, asked(crop="true"))
    assert opened(tight).size == (20, 60)
    assert tight.foreground == (0, 0, 20, 60)
    wide = compose(cutout, asked(crop="true", crop_margin="10% 5px 30px 50%"))
    assert opened(wide).size == (20 + 5 + 10, 60 + 6 + 30)
    assert wide.foreground == (10, 6, 30, 66)
    # Beyond the photo's border there is nothing.
    assert opened(wide).getpixel((0, 95)) == (0, 0, 0, 0)


def test_a_scaled_subject_is_centred_unless_told_otherwise(cutout: Image.Image) -> None:
    half = compose(cutout, asked(scale="50%"))
    left, top, right, bottom = half.foreground
    assert (bottom - top, right - left) == (50, 17)
    assert (top, 100 - bottom) == (25, 25)
    corner = compose(cutout, asked(scale="50%", position="0% 100%"))
    assert corner.foreground[0] == 0
    assert corner.foreground[3] == 100
    moved = compose(cutout, asked(position="100%"))
    assert moved.foreground == (180, 40, 200, 100)
    assert compose(cutout, asked(position="original")).foreground == BLOCK


def test_only_the_region_of_interest_holds_foreground(cutout: Image.Image) -> None:
    assert compose(cutout, asked(roi="50px 0 100% 50%")).foreground == (50, 20, 60, 50)
    with pytest.raises(Refused) as refused:
        compose(cutout, asked(roi="50% 0% 100% 100%"))
    assert refused.value.code == "unknown_foreground"
    with pytest.raises(Refused) as refused:
        compose(cutout, asked(roi="300px 0% 400px 100%"))
    assert refused.value.code == "roi_region_empty"


def test_a_colour_and_a_picture_lie_behind(cutout: Image.Image) -> None:
    green = opened(compose(cutout, asked(bg_color="00ff00")))
    assert green.getpixel((0, 0)) == (0, 255, 0, 255)
    assert green.getpixel((50, 50)) == (255, 0, 0, 255)
    behind = Image.new("RGB", (10, 10), (1, 2, 3))
    assert opened(compose(cutout, asked(), behind=behind)).getpixel((0, 0)) == (1, 2, 3, 255)


def test_auto_is_a_jpeg_where_nothing_is_transparent(cutout: Image.Image) -> None:
    assert compose(cutout, asked(format="auto")).format == "png"
    assert compose(cutout, asked(format="auto", bg_color="white")).format == "jpg"
    assert compose(cutout, asked(format="auto", bg_color="ffffff80")).format == "png"
    white = opened(compose(cutout, asked(format="jpg")))
    assert white.getpixel((150, 50)) == (255, 255, 255)


def test_a_zip_holds_colour_and_alpha(cutout: Image.Image) -> None:
    composed = compose(cutout, asked(format="zip"))
    with zipfile.ZipFile(io.BytesIO(composed.content)) as archive:
        assert archive.namelist() == ["color.jpg", "alpha.png"]
        alpha = Image.open(archive.open("alpha.png"))
        assert alpha.getbbox() == BLOCK
        assert Image.open(archive.open("color.jpg")).mode == "RGB"


def test_alpha_alone_is_grey(cutout: Image.Image) -> None:
    matte = opened(compose(cutout, asked(channels="alpha", crop="true")))
    assert (matte.mode, matte.size) == ("L", (20, 60))


def test_another_colour_space_becomes_srgb(cutout: Image.Image) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    cutout.info["icc_profile"] = lab
    assert opened(compose(cutout, asked())).getpixel((50, 50)) == (255, 0, 0, 255)
    cutout.info["icc_profile"] = b"nonsense"
    assert opened(compose(cutout, asked())).getpixel((50, 50)) == (255, 0, 0, 255)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("size", ["huge", "4kk"]),
        ("format", ["bmp"]),
        ("channels", ["rgb"]),
        ("roi", ["1 2 3", "a b c d", "1px 2px 3px", "-1px 0 1px 1px", "10em 0 1px 1px"]),
        ("crop_margin", ["60%", "501px", "-1px", "1% 2% 3%", "5", "٣px"]),
        ("scale", ["5%", "101%", "50px", "half"]),
        ("position", ["left", "10px", "120%", "1% 2% 3%"]),
        ("bg_color", ["ff", "no colour", "#12345", "rgb(1,2)"]),
    ],
)
def test_each_wrong_parameter_has_its_code(field: str, values: list[str]) -> None:
    for value in values:
        with pytest.raises(Refused) as refused:
            wanted({field: value})
        assert (refused.value.status, refused.value.code) == (400, f"invalid_{field}"), value


def test_what_is_empty_or_unknown_is_ignored() -> None:
    assert wanted({"bg_color": "", "roi": " ", "semitransparency": "true", "add_shadow": "x"}) == Wanted()
    assert wanted({"bg_color": "f80"}).background == (255, 136, 0, 255)
    assert wanted({"format": "jpeg"}).format == "jpg"
