"""Names made from templates: never out of the folder, never two photos in one file."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from watcher import templates
from watcher.config import Folder, Output, Profile, load
from watcher.domain import EngineAbout, Metadata
from watcher.errors import ConfigError, HostError, InputRejected
from watcher.pipeline import publish
from watcher.pipeline.finish import finish
from watcher.pipeline.naming import Names
from watcher.pipeline.recipe import Recipe

ABOUT = EngineAbout("modnet", "onnx", "onnxruntime", "cpu", None)
VALUES = {
    "folder": "shoot",
    "profile": "web",
    "model": "modnet",
    "kind": "cutout",
    "width": "96",
    "height": "128",
    "ext": "jpg",
}
NOON = datetime(2024, 5, 17, 12, 30, 5)


def named(name: str, kind: str = "matte") -> Output:
    return Output(kind=kind, name=name)


def test_every_field_is_filled_in():
    template = "{stem}_{folder}-{profile}-{model}-{kind}_{width}x{height}_{ext}_{date:%Y%m%d-%H%M%S}.png"
    assert templates.suffix(template, VALUES, NOON) == (
        "_shoot-web-modnet-cutout_96x128_jpg_20240517-123005.png"
    )
    assert templates.suffix("{stem}.{date}.png", VALUES, NOON) == ".2024-05-17.png"


@pytest.mark.parametrize(
    "name",
    [
        "a.png",
        "{width}{stem}.png",
        "../{stem}.png",
        "/etc/{stem}.png",
        "{stem}/../../x.png",
        "{stem}/x.png",
        "{stem}\\x.png",
        "{stem}\0.png",
        "{stem}\n.png",
        "{stem}{stem}.png",
        "{stem}{nothing}.png",
        "{stem}{width.__class__}.png",
        "{stem}{0}.png",
        "{stem}{width!r}.png",
        "{stem}{width:>9999999}.png",
        "{stem}{date:%Y/%m}.png",
        "{stem}{date:%c}.png",
        "{stem}{.png",
        "{stem}}.png",
        "{stem}.matte.json",
        "{stem}.png/",
        "{stem}",
        "",
    ],
)
def test_a_name_that_could_lead_elsewhere_or_nowhere_is_refused(name):
    with pytest.raises(ValidationError):
        named(name)


@given(
    st.fixed_dictionaries({key: st.text(max_size=12) for key in VALUES}),
    st.sampled_from(
        ["{stem}_{folder}{ext}.png", "{stem}.{profile}.{model}.tif", "{stem}{kind}{width}{height}.png"]
    ),
)
def test_no_value_leads_out_of_the_folder(values, template):
    filled = templates.suffix(template, values, NOON)
    assert Path("out", "a" + filled).parent == Path("out") and "/" not in filled and "\0" not in filled
    assert filled.isascii()


def test_an_output_has_a_suffix_or_a_name():
    for settings in ({}, {"suffix": ".png", "name": "{stem}.png"}):
        with pytest.raises(ValidationError, match="a suffix or a name"):
            Output(kind="matte", **settings)


def test_names_that_get_too_long_are_a_problem_of_the_configuration(tmp_path):
    file = tmp_path / "hotmatte.yaml"
    folder = "f" * 60
    file.write_text(
        f"folders: {{{folder}: {{path: in, output: out}}}}\n"
        "profiles:\n  portrait:\n    outputs:\n      - {kind: matte, name: '{stem}{folder}{folder}.png'}\n"
    )
    with pytest.raises(ConfigError, match="124 bytes to a photo's name; 96 are the limit"):
        load(file)


@pytest.mark.parametrize(
    ("exif", "expected"),
    [(None, datetime.fromtimestamp(86400)), (b"II*\0\x08\0\0\0", datetime.fromtimestamp(86400))],
)
def test_without_a_capture_date_a_photo_has_its_files(exif, expected):
    assert templates.taken_at(exif, 86400.0) == expected


def test_the_capture_date_comes_first_and_nonsense_does_not_count(make):
    from PIL import Image

    block = Image.Exif()
    block[0x0132] = "2023:01:02 03:04:05"
    block.get_ifd(0x8769)[0x9003] = "2024:05:17 12:30:05"
    assert templates.taken_at(block.tobytes()[6:], 0.0) == NOON
    block.get_ifd(0x8769)[0x9003] = "0000:00:00 00:00:00"
    assert templates.taken_at(block.tobytes()[6:], 0.0) == datetime(2023, 1, 2, 3, 4, 5)


# --- Published -----------------------------------------------------------------------------


def recipe_of(tmp_path: Path, *outputs: Output, **folder) -> Recipe:
    settings = Folder(path=tmp_path / "hot", output=tmp_path / "out", **folder)
    return Recipe("hot", settings, "web", Profile(outputs=outputs), lambda: ABOUT, Names())


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def disc() -> np.ndarray:
    y, x = np.mgrid[:64, :48].astype(np.float32)
    return np.clip((20 - np.hypot(x - 24, y - 32)) / 3 + 0.5, 0, 1)


def photo(width: int = 96) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (128, width, 3), dtype=np.uint8)


def test_results_have_their_filled_in_names_and_the_sidecar_says_so(frame_of, disc, tmp_path):
    recipe = recipe_of(tmp_path, named("{stem}_{width}x{height}_{ext}.png"), named("{stem}.{profile}.tif"))
    outcome = finish(frame_of(photo(), name="sub/a.JPG"), disc, recipe)
    assert names_in(tmp_path / "out" / "sub") == {"a_96x128_jpg.png", "a.web.tif", "a.matte.json"}
    told = json.loads(outcome.sidecar.read_bytes())
    assert [item["suffix"] for item in told["outputs"]] == ["_96x128_jpg.png", ".web.tif"]
    for item in told["outputs"]:
        assert (tmp_path / "out" / item["path"]).stat().st_size == item["size"]


def test_a_new_version_of_another_size_leaves_nothing_of_the_old_one(frame_of, disc, tmp_path):
    recipe = recipe_of(tmp_path, named("{stem}_{width}.png"))
    finish(frame_of(photo(96)), disc, recipe)
    outcome = finish(frame_of(photo(90), number=2), disc, recipe)
    assert names_in(tmp_path / "out") == {"a_90.png", "a.matte.json"}
    assert json.loads(outcome.sidecar.read_bytes())["supersedes"] == ["_96.png"]


def test_a_new_suffix_never_takes_another_photos_result(frame_of, disc, tmp_path):
    recipe = recipe_of(tmp_path, named("{stem}_{width}.png"))
    finish(frame_of(photo(96), name="a.jpg"), disc, recipe)
    plain = recipe_of(tmp_path, Output(kind="matte", suffix=".png"))
    finish(frame_of(photo(96), name="a_90.jpg"), disc, plain)
    theirs = (tmp_path / "out" / "a_90.png").read_bytes()
    finish(frame_of(photo(90), name="a.jpg", number=3), disc, recipe)
    assert (tmp_path / "out" / "a_90.png").read_bytes() == theirs
    assert "a_2_90.png" in names_in(tmp_path / "out")


def test_two_photos_of_one_name_get_two_names(frame_of, disc, tmp_path):
    recipe = recipe_of(tmp_path, named("{stem}_{width}.png"))
    finish(frame_of(photo(96), name="a.jpg"), disc, recipe)
    finish(frame_of(photo(90), name="a.tif"), disc, recipe)
    assert names_in(tmp_path / "out") == {"a_96.png", "a.matte.json", "a_2_90.png", "a_2.matte.json"}


def test_outputs_that_meet_in_one_name_are_that_photos_trouble(frame_of, disc, tmp_path):
    recipe = recipe_of(tmp_path, named("{stem}_{width}.png"), named("{stem}_{height}.png", "cutout"))
    finish(frame_of(photo(96), name="a.jpg"), disc, recipe)
    with pytest.raises(InputRejected, match=r"both be called NAME_128\.png"):
        finish(frame_of(photo(128), name="b.jpg"), disc, recipe)
    assert not any(name.startswith("b") for name in names_in(tmp_path / "out"))


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_publication_cut_short_is_finished_although_the_next_version_has_other_names(
    frame_of, disc, tmp_path, monkeypatch, steps
):
    recipe = recipe_of(tmp_path, named("{stem}_{width}.png"), named("{stem}_{width}.tif"))
    real, left = publish.rename, [steps]

    def failing(source, target):
        if left[0] == 0:
            raise OSError(5, "Input/output error")
        left[0] -= 1
        real(source, target)

    monkeypatch.setattr(publish, "rename", failing)
    with pytest.raises(HostError):
        finish(frame_of(photo(96)), disc, recipe)
    monkeypatch.undo()
    finish(frame_of(photo(90), number=2), disc, recipe)
    assert names_in(tmp_path / "out") == {"a_90.png", "a_90.tif", "a.matte.json"}


def test_another_photo_does_not_take_the_name_of_a_publication_cut_short(
    frame_of, disc, tmp_path, monkeypatch
):
    recipe = recipe_of(tmp_path, named("{stem}_{width}.png"))

    def failing(source, target):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(publish, "rename", failing)
    with pytest.raises(HostError):
        finish(frame_of(photo(96), name="a.jpg"), disc, recipe)
    monkeypatch.undo()
    finish(frame_of(photo(90), name="a.tif", number=2), disc, recipe)
    assert "a_2_90.png" in names_in(tmp_path / "out")
    finish(frame_of(photo(96), name="a.jpg"), disc, recipe)
    assert names_in(tmp_path / "out") == {"a_96.png", "a.matte.json", "a_2_90.png", "a_2.matte.json"}


def test_a_long_name_is_cut_alike_for_every_version(frame_of, disc, tmp_path):
    recipe = recipe_of(tmp_path, named("{stem}_{folder}_{profile}_{model}_{width}.png"))
    finish(frame_of(photo(96), name="x" * 240 + ".jpg"), disc, recipe)
    finish(frame_of(photo(100), name="x" * 240 + ".jpg", number=2), disc, recipe)
    assert len(names_in(tmp_path / "out")) == 2


def test_the_date_in_a_name_is_the_photos(frame_of, disc, tmp_path):
    from PIL import Image

    block = Image.Exif()
    block[0x0132] = "2023:01:02 03:04:05"
    frame = frame_of(photo(), metadata=Metadata(exif=block.tobytes()[6:]))
    recipe = recipe_of(tmp_path, named("{stem}_{date:%Y-%m-%d}.png"))
    finish(frame, disc, recipe)
    assert "a_2023-01-02.png" in names_in(tmp_path / "out")


def test_replacing_still_replaces(frame_of, disc, tmp_path):
    recipe = recipe_of(tmp_path, named("{stem}_{width}.png"), duplicates="replace")
    finish(frame_of(photo(96), name="a.jpg"), disc, recipe)
    finish(replace(frame_of(photo(90), name="a.tif")), disc, recipe)
    assert names_in(tmp_path / "out") == {"a_90.png", "a.matte.json"}
