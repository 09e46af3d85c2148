"""The pixels of composites, trimaps and foregrounds, and what the web formats keep of them."""

from __future__ import annotations

import io
import re
from pathlib import Path

import imagecodecs
import numpy as np
import pillow_jxl  # noqa: F401  (Pillow reads JPEG XL by it)
import pylibjxl
import pytest
from PIL import Image, ImageCms
from pydantic import ValidationError

from watcher import templates
from watcher.config import BUILT_IN, load
from watcher.domain import Metadata
from watcher.errors import HostError, InputRejected
from watcher.outputs import FORMATS, Output
from watcher.pipeline import colour, encode
from watcher.pipeline.encode import backdrop, kinds
from watcher.pipeline.encode.webp import encode_webp
from watcher.pipeline.refine import Refined
from watcher.pipeline.scale import eight_bits

HEIGHT, WIDTH = 120, 90
DEPTHS = [np.uint8, np.uint16]


def top_of(image: np.ndarray) -> int:
    return int(np.iinfo(image.dtype).max)


def disc(dtype=np.uint8, *, soft: float = 6.0) -> np.ndarray:
    """HxW alpha of a soft disc."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    share = np.clip((32 - np.hypot(x - WIDTH / 2, y - HEIGHT / 2)) / soft + 0.5, 0, 1)
    return np.rint(share * np.iinfo(dtype).max).astype(dtype)


def scene(dtype=np.uint8) -> tuple[np.ndarray, np.ndarray]:
    """A red person before a green wall: the photo, and the cutout with the person's own colour."""
    alpha = disc(dtype)
    top = np.iinfo(dtype).max
    red, green = np.array([top, 0, 0]), np.array([0, top // 2, 0])
    share = alpha[..., None] / top
    photo = np.rint(red * share + green * (1 - share)).astype(dtype)
    colours = np.where(alpha[..., None] > 0, red, 0).astype(dtype)
    return photo, np.dstack([colours, alpha])


def composite(output: Output, dtype, frame_of, **more) -> np.ndarray:
    photo, cutout = scene(dtype)
    return kinds.pixels_of(output, Refined(cutout), frame_of(photo, **more))


def over(background: str = "#ffffff", **more) -> Output:
    return Output(kind="composite", suffix=".png", background=background, **more)


# --- Composites ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DEPTHS)
def test_a_gradient_goes_from_one_colour_to_the_other(dtype, frame_of):
    image = composite(over("#204060 #e0c0a0"), dtype, frame_of)
    scale = top_of(image) // 255
    corners = np.abs(image[[0, -1], 0].astype(int) // scale - [[0x20, 0x40, 0x60], [0xE0, 0xC0, 0xA0]])
    assert corners.max() <= 2
    column = image[:, 0, 0].astype(int)
    assert np.all(np.diff(column) > -2 * scale) and column[HEIGHT // 2] // scale == pytest.approx(0x80, abs=3)
    assert np.array_equal(image[HEIGHT // 2, WIDTH // 2], [top_of(image), 0, 0])


def test_a_shallow_gradient_has_no_bands(frame_of):
    cutout = np.zeros((512, 512, 4), np.uint8)
    image = backdrop.under(cutout, backdrop.gradient("#808080", "#888888", None))
    rows = image[..., 0].mean(axis=1)
    steps = np.abs(np.diff(rows))
    assert steps.max() < 0.5, "a band would be a step of one whole level"
    assert np.abs(rows - np.linspace(0x80, 0x88, 512)).max() < 0.2


@pytest.mark.parametrize("background", ["#136a48", "#136a48 #136a48"])
@pytest.mark.parametrize("psd", [False, True])
def test_a_background_behind_a_deep_photo_has_its_very_colour_in_a_wide_space(background, psd, frame_of):
    """8 bits of Adobe RGB cannot tell this green by three levels of sRGB."""
    photo, cutout = scene(np.uint16)
    frame = frame_of(photo, profile=colour.adobe_rgb())
    if psd:
        output = Output(kind="cutout", suffix=".psd", background=background)
        pixels = kinds.backdrop_of(output, frame, Refined(cutout))
    else:
        pixels = kinds.pixels_of(over(background), Refined(cutout), frame)
    shown = colour.deep_to_srgb(np.ascontiguousarray(pixels[:1, :1]), colour.adobe_rgb(), "rgb")
    assert np.abs(shown.ravel() / 257 - [0x13, 0x6A, 0x48]).max() < 0.5


def test_a_flat_background_stays_flat(frame_of):
    cutout = np.zeros((40, 40, 4), np.uint8)
    assert np.unique(backdrop.under(cutout, backdrop.gradient("#336699", "#336699", None))).tolist() == [
        0x33,
        0x66,
        0x99,
    ]


@pytest.mark.parametrize("dtype", DEPTHS)
@pytest.mark.parametrize("blur", [0.5, 3, 20])
def test_a_blurred_background_shows_nothing_of_the_person(dtype, blur, frame_of):
    output = over("blur", blur=blur)
    image = composite(output, dtype, frame_of).astype(float) / np.iinfo(dtype).max
    alpha = disc(dtype).astype(float) / np.iinfo(dtype).max
    behind = alpha == 0
    assert image[behind][:, 0].max() < 0.02, "red has bled into the wall"
    assert np.abs(image[behind][:, 1] - 0.5).max() < 0.02
    expected = alpha[..., None] * [1, 0, 0] + (1 - alpha[..., None]) * [0, 0.5, 0]
    assert np.abs(image - expected).max() < 0.03


def test_blurring_removes_texture_and_keeps_light(frame_of):
    photo = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    photo[::2] = 200
    cutout = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    image = kinds.pixels_of(over("blur", blur=5), Refined(cutout), frame_of(photo))
    assert image.std() < 3 and image.mean() == pytest.approx(100, abs=3)


def test_a_photo_full_of_person_has_some_background_all_the_same(frame_of):
    photo, cutout = scene()
    cutout[..., 3] = 255
    cutout[..., :3] = photo
    image = kinds.pixels_of(over("blur"), Refined(cutout), frame_of(photo))
    assert np.array_equal(image, photo)


@pytest.fixture
def wall(tmp_path, make):
    """A background picture, wider than the photo: red left, grey in the middle, blue right; with a profile."""
    pixels = np.full((60, 300, 3), 128, np.uint8)
    pixels[:, :60], pixels[:, -60:] = (255, 0, 0), (0, 0, 255)
    path = tmp_path / "wall.png"
    path.write_bytes(make.saved(pixels, "PNG", icc_profile=make.profile("RGB ", 2.2)))
    return path


@pytest.mark.parametrize("dtype", DEPTHS)
def test_a_picture_fills_the_photo_with_its_middle(dtype, wall, frame_of, make):
    icc = make.profile("RGB ", 2.2)
    image = composite(over(picture=wall), dtype, frame_of, profile=icc)
    assert np.array_equal(
        image[disc(dtype) == 0] // (top_of(image) // 255),
        np.full((1, 3), 128).repeat((disc(dtype) == 0).sum(), 0),
    )


def test_a_picture_is_brought_into_the_photos_colours(wall, frame_of, make):
    own = make.profile("RGB ", 2.2)
    for wanted in (None, make.profile("RGB ", 1.0)):
        image = composite(over(picture=wall), np.uint8, frame_of, profile=wanted)
        stored = image[disc() == 0][:1].reshape(1, 1, 3)
        seen = colour.proxy_to_srgb(stored, wanted)
        expected = colour.proxy_to_srgb(np.full((1, 1, 3), 128, np.uint8), own)
        assert np.abs(seen.astype(int) - expected).max() <= 2, wanted


@pytest.mark.parametrize("size", [(1, 1), (37, 411), (2000, 1500)])
def test_a_picture_of_any_size_covers_the_whole_photo(size, tmp_path, frame_of, make):
    path = tmp_path / "b.png"
    path.write_bytes(make.saved(np.full((*size, 3), 77, np.uint8), "PNG"))
    image = composite(over(picture=path), np.uint8, frame_of)
    assert np.unique(image[disc() == 0]).tolist() == [77]


def test_a_background_picture_that_is_missing_or_broken_is_the_machines_trouble(tmp_path, frame_of):
    with pytest.raises(
        HostError, match=r"background picture .*no\.png cannot be read: No such file"
    ) as missing:
        composite(over(picture=tmp_path / "no.png"), np.uint8, frame_of)
    assert "Put a picture there" in missing.value.remedy
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(HostError, match="text file"):
        composite(over(picture=tmp_path / "text.png"), np.uint8, frame_of)


def test_a_picture_is_found_beside_the_configuration(tmp_path):
    file = tmp_path / "hotmatte.yaml"
    file.write_text(
        "folders: {in: {path: in, output: out}}\n"
        "profiles: {portrait: {outputs: [{kind: composite, suffix: .jpg, picture: walls/oak.jpg}]}}\n"
    )
    assert load(file).profiles["portrait"].outputs[0].picture == tmp_path / "walls" / "oak.jpg"


# --- Trimap and foreground -----------------------------------------------------------------


@pytest.mark.parametrize("dtype", DEPTHS)
def test_a_trimap_is_sure_only_where_the_alpha_is(dtype):
    alpha = disc(dtype)
    share = alpha / np.iinfo(dtype).max
    found = kinds.trimap(alpha, 0)
    assert set(np.unique(found)) == {0, 128, 255} and found.dtype == np.uint8
    assert share[found == 0].max() < 0.03 and share[found == 255].min() > 0.97
    assert np.all(found[(share > 0.05) & (share < 0.95)] == 128)


def test_a_band_widens_the_unknown_and_nothing_else():
    narrow, wide = kinds.trimap(disc(), 0), kinds.trimap(disc(), 5)
    assert np.all(wide[narrow == 128] == 128) and (wide == 128).sum() > 1.5 * (narrow == 128).sum()
    kept = wide != 128
    assert np.array_equal(wide[kept], narrow[kept])


def test_a_hard_edge_has_a_band_too():
    hard = disc(soft=1e-6)
    found = kinds.trimap(hard, 3)
    assert set(np.unique(found)) == {0, 128, 255}


@pytest.mark.parametrize("value", [0, 255])
def test_nobody_and_nothing_but_somebody_have_no_unknown(value):
    assert np.unique(kinds.trimap(np.full((30, 20), value, np.uint8), 1)).tolist() == [value]


@pytest.mark.parametrize("dtype", DEPTHS)
def test_a_foreground_is_the_cutouts_colours_carried_outwards(dtype):
    _, cutout = scene(dtype)
    image = backdrop.extended(cutout)
    inside = cutout[..., 3] > 0
    assert np.array_equal(image[inside], cutout[inside][:, :3])
    outside = image[~inside].astype(float) / np.iinfo(dtype).max
    assert outside[:, 0].min() > 0.97 and outside[:, 1:].max() < 0.03, "red everywhere"


def test_an_empty_cutout_has_a_foreground_that_is_finite():
    assert backdrop.extended(np.zeros((30, 20, 4), np.uint8)).shape == (30, 20, 3)


def test_mixing_the_foreground_again_gives_the_composite(frame_of):
    """F a + (1 - a) B by anybody else's hand: the point of a foreground beside a matte."""
    _, cutout = scene()
    share = cutout[..., 3:] / 255
    mixed = backdrop.extended(cutout) * share + 255 * (1 - share)
    assert np.abs(mixed - kinds.composite(cutout, (255, 255, 255))).max() <= 0.51


# --- Depth ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DEPTHS)
@pytest.mark.parametrize("depth", ["auto", 8, 16])
@pytest.mark.parametrize("kind", ["cutout", "matte", "foreground"])
def test_every_output_is_as_deep_as_asked(kind, depth, dtype, frame_of):
    photo, cutout = scene(dtype)
    content = encode.encode(Output(kind=kind, suffix=".png", depth=depth), Refined(cutout), frame_of(photo))
    own = 8 if kind == "matte" else np.dtype(dtype).itemsize * 8
    assert content[24] == (own if depth == "auto" else depth)


@pytest.mark.parametrize("more", [{"suffix": ".png", "depth": 8}, {"suffix": ".webp"}])
def test_eight_bits_of_a_deep_photo_have_no_colours_where_alpha_rounds_to_none(more, frame_of):
    photo, cutout = scene(np.uint16)
    cutout[:40, :40] = 65535, 0, 0, 100
    content = encode.encode(Output(kind="cutout", **more), Refined(cutout), frame_of(photo))
    with Image.open(io.BytesIO(content)) as read:
        found = np.asarray(read)
    assert np.array_equal(found[..., 3], eight_bits(cutout[..., 3]))
    assert not found[found[..., 3] == 0].any()
    solid = found[..., 3] == 255
    assert np.array_equal(found[solid], eight_bits(cutout)[solid])


@pytest.mark.parametrize("more", [{"suffix": ".png", "depth": 8}, {"suffix": ".webp"}])
def test_a_gradient_behind_a_deep_photo_has_no_bands_in_eight_bits(more, frame_of):
    photo = np.zeros((512, 512, 3), np.uint16)
    nobody = Refined(np.zeros((512, 512, 4), np.uint16))
    output = Output(kind="composite", background="#808080 #888888", **more)
    with Image.open(io.BytesIO(encode.encode(output, nobody, frame_of(photo)))) as read:
        rows = np.asarray(read)[..., 0].mean(axis=1)
    assert np.abs(np.diff(rows)).max() < 0.5, "a band would be a step of one whole level"


def test_the_background_of_an_eight_bit_document_of_a_deep_photo_has_no_bands(frame_of):
    photo = np.zeros((512, 512, 3), np.uint16)
    output = Output(kind="cutout", suffix=".psd", depth=8, background="#808080 #888888")
    behind = kinds.backdrop_of(output, frame_of(photo), Refined(np.zeros((512, 512, 4), np.uint16)))
    assert behind.dtype == np.uint8
    assert np.abs(np.diff(behind[..., 0].mean(axis=1))).max() < 0.5


# --- WebP, AVIF, JPEG XL ---------------------------------------------------------------------


@pytest.mark.parametrize("compression", [0, 1, 2, 3])
def test_lossless_webp_keeps_every_pixel(compression, frame_of, make):
    photo, cutout = make.original(), np.dstack([make.original(), make.opacity()])
    output = Output(kind="cutout", suffix=".webp", compression=compression)
    icc = make.profile("RGB ", 2.2)
    content = encode.encode(output, Refined(cutout), frame_of(photo, profile=icc))
    with Image.open(io.BytesIO(content)) as read:
        assert np.array_equal(np.asarray(read), cutout), "colours under alpha 0 included"
        assert read.info["icc_profile"] == icc


@pytest.mark.parametrize("ending", [".webp", ".avif", ".jxl"])
def test_lossy_formats_get_smaller_with_quality_and_stay_close(ending, frame_of, make):
    photo, cutout = make.original(), np.dstack([make.original(), make.opacity()])
    sizes = []
    for quality in (95, 60):
        output = Output(kind="cutout", suffix=ending, lossless=False, quality=quality)
        content = encode.encode(output, Refined(cutout), frame_of(photo))
        sizes.append(len(content))
        read = decoded(content, ending)
        seen = cutout[..., 3] == 255
        assert np.abs(read[seen].astype(int) - cutout[seen]).mean() < 8
        assert np.abs(read[..., 3].astype(int) - cutout[..., 3]).mean() < 3
    assert sizes[1] < sizes[0]


def decoded(content: bytes, ending: str) -> np.ndarray:
    if ending == ".jxl":
        return imagecodecs.jpegxl_decode(content)
    with Image.open(io.BytesIO(content)) as read:
        return np.asarray(read)


@pytest.mark.parametrize("dtype", DEPTHS)
@pytest.mark.parametrize("kind", ["cutout", "matte", "composite"])
def test_lossless_jpeg_xl_keeps_every_pixel_and_depth(kind, dtype, frame_of):
    photo, cutout = scene(dtype)
    output = Output(kind=kind, suffix=".jxl", depth="auto" if kind != "matte" else 16)
    content = encode.encode(output, Refined(cutout), frame_of(photo, metadata=Metadata(xmp=b"<x/>")))
    read = imagecodecs.jpegxl_decode(content)
    assert read.dtype == (np.uint16 if kind == "matte" else dtype)
    assert np.array_equal(read, kinds.pixels_of(output, Refined(cutout), frame_of(photo)))


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("kind", ["cutout", "matte", "composite"])
def test_sixteen_bits_in_jpeg_xl_are_srgb_and_say_so(kind, lossless, frame_of):
    photo, cutout = scene(np.uint16)
    depth = 16 if kind == "matte" else "auto"
    output = Output(kind=kind, suffix=".jxl", depth=depth, lossless=lossless, quality=95)
    content = encode.encode(output, Refined(cutout), frame_of(photo))
    with Image.open(io.BytesIO(content)) as read:
        told = ImageCms.ImageCmsProfile(io.BytesIO(read.info["icc_profile"]))
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    if kind != "matte":
        ramp = Image.merge("RGB", [ramp] * 3)
    shown = ImageCms.profileToProfile(ramp, told, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert np.abs(np.asarray(shown)[..., 1].ravel() - np.arange(256.0)).max() <= 1
    expected = kinds.pixels_of(output, Refined(cutout), frame_of(photo)).astype(float)
    off = np.abs(imagecodecs.jpegxl_decode(content) - expected) / 65535
    seen = cutout[..., 3] == 65535 if kind == "cutout" else np.s_[:]
    assert off.max() == 0 if lossless else off[seen].mean() < 0.01, off[seen].mean()


def test_sixteen_bits_with_a_profile_become_eight_in_jpeg_xl_and_the_sidecar_says_so(frame_of, make):
    photo, cutout = scene(np.uint16)
    icc = make.profile("RGB ", 2.2)
    frame, output = frame_of(photo, profile=icc), Output(kind="cutout", suffix=".jxl")
    content = encode.encode(output, Refined(cutout), frame)
    read, told = pylibjxl.decode(content, metadata=True)
    assert told["icc"] == icc and read.dtype == np.uint8
    (words,) = encode.losses(output, frame)
    assert ".jxl" in words and "8 bits" in words
    assert encode.losses(Output(kind="cutout", suffix=".tif"), frame) == []


def test_what_is_too_long_for_a_jpeg_is_said_in_the_sidecar(frame_of):
    photo, _ = scene()
    frame = frame_of(photo, metadata=Metadata(exif=b"II*\0\x08\0\0\0" + bytes(70_000), xmp=b"x" * 70_000))
    words = encode.losses(Output(kind="composite", suffix=".jpg"), frame)
    assert len(words) == 2 and "EXIF" in words[0] and "XMP" in words[1]


def test_a_photo_too_large_for_webp_is_refused_with_words():
    image = np.zeros((1, 16384, 3), np.uint8)
    with pytest.raises(InputRejected, match="16383 pixels a side") as refused:
        encode_webp(image, Output(kind="cutout", suffix=".webp"), None, Metadata())
    assert "PNG or TIFF" in refused.value.remedy


# --- What may be asked for -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "cutout", "suffix": ".jpg"}, "must end in"),
        ({"kind": "matte", "suffix": ".webp"}, "must end in"),
        ({"kind": "composite", "suffix": ".psd"}, "must end in"),
        ({"kind": "cutout", "suffix": ".png", "alpha": "premultiplied"}, "only a cutout as tif"),
        ({"kind": "composite", "suffix": ".tif", "alpha": "premultiplied"}, "only a cutout as tif"),
        ({"kind": "composite", "suffix": ".jpg", "background": "blur", "picture": "a.jpg"}, "only one"),
        ({"kind": "cutout", "suffix": ".webp", "depth": 16}, "8 bits"),
        ({"kind": "trimap", "suffix": ".png", "depth": 16}, "8 bits"),
        ({"kind": "cutout", "suffix": ".png", "depth": 12}, "depth"),
        ({"kind": "composite", "suffix": ".png", "background": "#fff"}, "background"),
        ({"kind": "composite", "suffix": ".png", "background": "#ffffff blur"}, "background"),
        ({"kind": "composite", "suffix": ".png", "picture": "a\0b"}, "NUL"),
    ],
)
def test_what_cannot_be_is_refused_before_a_photo_comes(settings, words):
    with pytest.raises(ValidationError, match=words):
        Output(**settings)


def test_a_missing_codec_is_said_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValidationError, match=r"hotmatte\[codecs\]"):
        Output(kind="cutout", suffix=".jxl")
    Output(kind="cutout", suffix=".tif", pack="zstd")


@pytest.mark.parametrize(("kind", "format_"), [(kind, name) for kind in FORMATS for name in FORMATS[kind]])
@pytest.mark.parametrize("dtype", DEPTHS)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (HEIGHT, WIDTH)])
def test_every_kind_in_every_format_at_any_size(kind, format_, dtype, size, frame_of):
    photo, cutout = (part[: size[0], : size[1]].copy() for part in scene(dtype))
    output = Output(kind=kind, suffix=f".x.{format_}", background="blur")
    assert output.format == format_
    content = encode.encode(output, Refined(cutout), frame_of(photo))
    assert content == encode.encode(output, Refined(cutout), frame_of(photo)), "same input, same bytes"


def test_the_profiles_on_the_page_are_ones_there_can_be(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "outputs.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    file = tmp_path / "hotmatte.yaml"
    file.write_text("folders: {in: {path: in, output: out, profile: retoucher}}\n" + text)
    assert set(load(file).profiles) - set(BUILT_IN) == {"retoucher", "web_shop", "print_lab"}


def test_the_page_has_every_kind_with_its_formats_and_every_name_field():
    page = (Path(__file__).parents[2] / "docs" / "outputs.md").read_text(encoding="utf-8")
    endings = {"tiff": "tif", "jpeg": "jpg"}
    for kind, formats in FORMATS.items():
        (row,) = re.findall(rf"^\| `{kind}` \|.*\| ([a-z ]+) \|$", page, flags=re.MULTILINE)
        assert set(row.split()) == {endings.get(name, name) for name in formats}
    assert all(f"`{{{field}}}`" in page for field in templates.FIELDS)
