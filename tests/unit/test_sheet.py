"""Contact sheets: from sidecars to HTML, read back as a browser would."""

from __future__ import annotations

import base64
import json
import logging
import shutil
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pytest

from watcher.config import Folder
from watcher.errors import InputRejected
from watcher.intake.names import Rules
from watcher.pipeline import sheet, thumbnails
from watcher.pipeline.sheet import Scope
from watcher.pipeline.sheet_keeper import SheetKeeper

RED = (40, 60, 220)


class Page(HTMLParser):
    """What a browser would make of it: pictures, links, text, and every element there is."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.images, self.links, self.words, self.tags, self.attributes = [], [], [], [], []
        self._style = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        held = dict(attributes)
        self.tags.append(tag)
        self.attributes += list(held)
        self._style = tag == "style"
        if tag == "img":
            kind, _, body = held["src"].partition(";base64,")
            assert kind == "data:image/jpeg"
            picture = np.frombuffer(base64.b64decode(body), np.uint8)
            self.images.append((held["alt"], cv2.imdecode(picture, cv2.IMREAD_COLOR)))
        if tag == "a":
            self.links.append(held["href"])

    def handle_endtag(self, tag):
        self._style = False

    def handle_data(self, words):
        if not self._style:
            self.words.append(words.strip())

    @property
    def text(self):
        return " ".join(filter(None, self.words))


class Shoot:
    """A hot folder and what came out of it."""

    def __init__(self, root: Path) -> None:
        self.root, self.hot, self.out = root, root / "hot", root / "out"
        self.hot.mkdir()
        self.out.mkdir()
        self.count = 0
        self.today = date.today()  # a run of all tests may see midnight

    @property
    def scope(self) -> Scope:
        return Scope.of("hot", Folder(path=self.hot, output=self.out))

    def when(self) -> str:
        """One after the other, within today, wherever that is."""
        self.count += 1
        noon = datetime.combine(self.today, datetime.min.time()).astimezone() + timedelta(seconds=self.count)
        return noon.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")

    def done(self, name="a.jpg", *, flags=(), created=None, kinds=("cutout", "matte"), **changes):
        """A photo, red with a transparent right half in its results, and its sidecar."""
        picture = np.full((300, 600, 3), RED, np.uint8)
        stem = name.rpartition(".")[0]
        (self.hot / name).write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())
        alpha = np.zeros((300, 600), np.uint8)
        alpha[:, :300] = 255
        written = {"cutout": np.dstack([picture, alpha]), "matte": alpha, "composite": picture}
        outputs = []
        for kind in kinds:
            path = f"{stem}.{kind}.png"
            (self.out / path).write_bytes(cv2.imencode(".png", written[kind])[1].tobytes())
            outputs.append({"kind": kind, "path": path})
        told = {
            "source": {"folder": "hot", "path": name},
            "outputs": outputs,
            "coverage": 0.5,
            "review": {"flags": list(flags)},
            "created": created or self.when(),
            **changes,
        }
        (self.out / f"{stem}.matte.json").write_text(json.dumps(told))
        return told

    def failed(self, name="bad.jpg", reason="it is cut off"):
        (self.hot / name).write_bytes(b"bad")
        told = {
            "source": {"folder": "hot", "path": name},
            "reason": reason,
            "remedy": "Copy it again.",
            "created": self.when(),
        }
        (self.out / f"{name}.error.json").write_text(json.dumps(told))

    def sheet(self):
        paths = sheet.write(self.scope, self.today, self.scope.place(self.today))
        return [Page(path) for path in paths]


@pytest.fixture
def shoot(tmp_path):
    return Shoot(tmp_path)


def test_a_photo_is_shown_as_it_came_as_matte_and_as_cutout(shoot):
    shoot.done()
    (page,) = shoot.sheet()
    (source, matte, cutout) = [picture for _, picture in page.images]
    assert [alt for alt, _ in page.images] == ["source of a.jpg", "matte of a.jpg", "cutout of a.jpg"]
    assert {picture.shape for picture in (source, matte, cutout)} == {(120, 240, 3)}
    assert np.abs(source[60, 60].astype(int) - RED).max() < 12
    assert matte[60, 60].min() > 245
    assert matte[60, 200].max() < 10
    assert np.abs(cutout[60, 60].astype(int) - RED).max() < 12
    # Two greys in turn where nothing is.
    board = cutout[10:110, 130:230, 0].astype(int)
    assert board.min() < 215
    assert board.max() > 240
    assert "a.jpg" in page.text
    assert "50% person" in page.text


def test_links_lead_to_the_full_files_beside_it(shoot):
    shoot.done("über alles #1?.jpg")
    (page,) = shoot.sheet()
    assert len(page.links) == 5
    for link in page.links:
        assert link.startswith((".", "./"))
        assert (shoot.out / unquote(link)).resolve().is_file()


HOSTILE = "<img src=x onerror=alert(1)>&\"'\u202egpj.jpg"


def test_a_hostile_name_is_text_and_nothing_else(shoot):
    shoot.done(HOSTILE, flags=["<script>"])
    shoot.failed("b<b>.jpg", reason="</p><script>alert(2)</script>")
    (page,) = shoot.sheet()
    assert len(page.images) == 3
    assert "script" not in page.tags
    assert not [name for name in page.attributes if name.startswith("on")]
    assert "<img src=x onerror=alert(1)>" in page.text
    assert "</p><script>alert(2)</script>" in page.text
    assert "\u202e" not in page.text


def test_it_needs_nothing_but_itself(shoot):
    shoot.done()
    shoot.sheet()
    text = shoot.scope.place(shoot.today).read_text()
    assert "default-src 'none'; img-src data:" in text
    assert "http" not in text.replace("http-equiv", "")
    assert "url(" not in text


def test_flags_and_failures_stand_out(shoot):
    shoot.done(flags=["nothing_found"])
    shoot.failed()
    (page,) = shoot.sheet()
    assert "photos 1 to 2, 1 to look at, 1 failed" in page.text
    assert "nothing found" in page.text
    assert "bad.jpg" in page.text
    assert "it is cut off" in page.text
    assert "Copy it again." in page.text


def test_what_failed_is_not_read_again(shoot, monkeypatch):
    shoot.failed()
    opened = []
    monkeypatch.setattr(thumbnails, "small", opened.append)
    (page,) = shoot.sheet()
    assert opened == []
    assert page.images == []


@pytest.mark.parametrize(("kinds", "shown"), [(("cutout",), 3), (("matte",), 3), (("composite",), 2)])
def test_what_was_not_published_is_made_up_from_what_was(kinds, shown, shoot):
    shoot.done(kinds=kinds)
    (page,) = shoot.sheet()
    assert len(page.images) == shown


def test_a_photo_that_was_archived_is_found_there(shoot):
    shoot.done()
    archive = shoot.root / "archive"
    archive.mkdir()
    (shoot.hot / "a.jpg").rename(archive / "a.jpg")
    folder = Folder(path=shoot.hot, output=shoot.out, source="archive", archive=archive)
    scope = Scope.of("hot", folder)
    (path,) = sheet.write(scope, shoot.today, scope.place(shoot.today))
    assert Page(path).links[0] == "../archive/a.jpg"
    assert len(Page(path).images) == 3


def test_snapshots_of_the_share_show_nothing_again_and_closed_folders_stop_nothing(shoot, permissions):
    shoot.done()
    (shoot.out / "#snapshot" / "GMT-10.00").mkdir(parents=True)
    shutil.copy2(shoot.out / "a.matte.json", shoot.out / "#snapshot" / "GMT-10.00")
    (shoot.out / "private").mkdir(mode=0)
    try:
        (page,) = shoot.sheet()
    finally:
        (shoot.out / "private").chmod(0o755)
    assert [alt for alt, _ in page.images] == ["source of a.jpg", "matte of a.jpg", "cutout of a.jpg"]


def test_a_photo_that_is_gone_leaves_the_rest(shoot):
    shoot.done()
    (shoot.hot / "a.jpg").unlink()
    (page,) = shoot.sheet()
    assert len(page.images) == 2
    assert "no source to show" in page.text


def test_only_the_day_and_the_folder_are_shown(shoot):
    shoot.done("a.jpg")
    shoot.done("b.jpg", created="2020-01-02T12:00:00.000Z")
    shoot.done("c.jpg", source={"folder": "other", "path": "c.jpg"})
    (shoot.out / "d.matte.json").write_text("{")
    (shoot.out / "e.matte.json").write_text('{"created": 7, "source": []}')
    (page,) = shoot.sheet()
    assert "photos 1 to 1" in page.text
    assert sheet.write(shoot.scope, date(2020, 1, 3), shoot.scope.place(date(2020, 1, 3))) == []


@pytest.mark.parametrize("path", ["../secret.png", "/etc/hostname", "link.png", "a\0b"])
def test_a_sidecar_cannot_make_us_show_what_lies_elsewhere(path, shoot):
    cv2.imwrite(str(shoot.root / "secret.png"), np.full((9, 9), 200, np.uint8))
    (shoot.out / "link.png").symlink_to(shoot.root / "secret.png")
    shoot.done(outputs=[{"kind": "cutout", "path": path}], source={"folder": "hot", "path": path})
    (page,) = shoot.sheet()
    assert page.images == []


def test_a_long_day_has_pages_and_only_what_changed_is_written(shoot, monkeypatch):
    monkeypatch.setattr(sheet, "PER_PAGE", 3)
    for number in range(7):
        shoot.done(f"{number}.jpg")
    first, second, third = paths = sheet.write(shoot.scope, shoot.today, shoot.scope.place(shoot.today))
    assert [len(Page(path).images) for path in paths] == [9, 9, 3]
    assert Page(first).links[0] == f"./{second.name}"
    assert set(Page(second).links) & {f"./{first.name}", f"./{third.name}"} == {
        f"./{first.name}",
        f"./{third.name}",
    }
    stamps = [path.stat().st_mtime_ns for path in paths]
    shoot.done("7.jpg")
    sheet.write(shoot.scope, shoot.today, first)
    assert [path.stat().st_mtime_ns for path in paths[:2]] == stamps[:2]
    assert len(Page(third).images) == 6
    for number in (5, 6, 7):
        (shoot.out / f"{number}.matte.json").unlink()
    sheet.write(shoot.scope, shoot.today, first)
    assert not third.exists()
    assert [len(Page(path).images) for path in (first, second)] == [9, 6]


def test_what_a_page_showed_already_is_not_made_again(shoot, monkeypatch):
    shoot.done("a.jpg", flags=["nothing_found"])
    (before,) = shoot.sheet()
    shoot.done("b.jpg")
    opened, real = [], thumbnails.small
    monkeypatch.setattr(thumbnails, "small", lambda path: (opened.append(path.name), real(path))[1])
    (page,) = shoot.sheet()
    assert [alt for alt, _ in page.images][:3] == [alt for alt, _ in before.images]
    assert len(page.images) == 6
    assert "photos 1 to 2, 1 to look at" in page.text
    assert sorted(opened) == ["b.cutout.png", "b.jpg", "b.matte.png"]


def test_another_photo_of_the_same_name_is_not_opened(shoot):
    shoot.done("a.jpg", source={"folder": "hot", "path": "a.jpg", "size": 1, "mtime_ns": 1})
    (page,) = shoot.sheet()
    assert [alt for alt, _ in page.images] == ["matte of a.jpg", "cutout of a.jpg"]
    assert "no source to show" in page.text


def test_somebody_elses_file_is_not_overwritten(shoot):
    shoot.done()
    place = shoot.scope.place(shoot.today)
    place.write_text("my notes")
    with pytest.raises(InputRejected, match="no contact sheet of ours"):
        shoot.sheet()
    assert place.read_text() == "my notes"


def test_a_sheet_is_never_a_source(tmp_path):
    folder = Folder(path=tmp_path, output=tmp_path / "out", include=("*",))
    rules = Rules(folder)
    assert rules.wants("sheet.html")
    assert not rules.wants(Scope.of("hot", folder).place(date.today()).name)
    assert not rules.wants(f"contact-sheet-hot-{date.today()}.12.html")
    assert not rules.wants(f".contact-sheet-hot-{date.today()}.html.0.hotmatte.tmp")


@pytest.mark.parametrize("name", ["turned.jpg", "deep.png", "cmyk.jpg"])
def test_a_thumbnail_is_upright_and_in_plain_colours(name, tmp_path):
    from PIL import Image

    path = tmp_path / name
    if name == "turned.jpg":
        exif = Image.Exif()
        exif[274] = 6
        Image.new("RGB", (800, 400), (220, 60, 40)).save(path, exif=exif)
    elif name == "deep.png":
        cv2.imwrite(str(path), np.full((800, 400, 3), RED, np.uint16) * 257)
    else:
        Image.new("RGB", (400, 800), (220, 60, 40)).convert("CMYK").save(path)
    picture, opacity = thumbnails.small(path)
    assert picture.shape == (240, 120, 3)
    assert opacity is None
    assert np.abs(picture.mean(axis=(0, 1)) - (220, 60, 40)).max() < 40


@pytest.mark.parametrize("content", [b"", b"no picture", b"\xff\xd8\xff\xe0 torn"])
def test_what_is_no_picture_has_no_thumbnail(content, tmp_path):
    (tmp_path / "x.jpg").write_bytes(content)
    assert thumbnails.small(tmp_path / "x.jpg") is None
    assert thumbnails.small(tmp_path / "gone.jpg") is None
    assert thumbnails.small(tmp_path) is None


# --- The keeper ----------------------------------------------------------------------------


@pytest.fixture
def keeper(shoot):
    keeper = SheetKeeper({"hot": shoot.scope}, pause=0.2, rest=0)
    yield keeper
    keeper.stop()
    assert keeper.join(10)


def test_the_keeper_writes_what_was_done_before_and_since(shoot, keeper, eventually):
    shoot.done("a.jpg")
    keeper.start()
    place = shoot.scope.place(shoot.today)
    eventually(place.exists, timeout=30)
    shoot.done("b.jpg")
    keeper.note("hot")
    keeper.note("a folder that wants none")
    eventually(lambda: "b.jpg" in Page(place).text, timeout=30)


def test_a_sheet_that_cannot_be_written_is_a_warning_and_the_next_one_is_tried(
    shoot, keeper, eventually, caplog
):
    caplog.set_level(logging.WARNING, "hotmatte")
    shoot.done()
    place = shoot.scope.place(shoot.today)
    place.mkdir()
    keeper.start()
    eventually(lambda: "contact sheet not written" in caplog.text, timeout=30)
    place.rmdir()
    keeper.note("hot")
    eventually(place.is_file, timeout=30)


def test_without_a_folder_that_wants_one_there_is_no_thread():
    idle = SheetKeeper({})
    idle.start()
    idle.note("hot")
    idle.stop()
    assert idle.join(0)
