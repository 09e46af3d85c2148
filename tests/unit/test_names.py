from __future__ import annotations

import pytest

from watcher.config import Folder
from watcher.intake.names import Rules


def _rules(tmp_path, **settings):
    return Rules(Folder(path=tmp_path / "hot", output=settings.pop("output", tmp_path / "out"), **settings))


@pytest.mark.parametrize(
    "name",
    [
        "a.jpg",
        "A.JPG",
        "sub/deep/a.Tiff",
        "dots.in.name.v2.jpeg",
        "-leading-dash.jpg",
        "quote'd.jpg",
        "with space & (paren).jpg",
        "[1].png",
        "ünïcödé_人像.jpg",
        "caf\udce9.jpg",
        "line\nbreak.png",
        "~mine.jpg",
    ],
)
def test_a_photo_is_wanted_whatever_its_name_looks_like(tmp_path, name):
    assert _rules(tmp_path).wants(name)


IGNORED = """._x .DS_Store .AppleDouble .apdisk .Trashes .Spotlight-V100 .fseventsd .TemporaryItems .localized
Icon\r __MACOSX @eaDir @tmp #recycle #snapshot @Recycle .@__thumb .@upload_cache Thumbs.db ehthumbs.db desktop.ini
$RECYCLE.BIN ~$x ~x.tmp x.tmp x.temp x.part x.partial x.crdownload x.download x.filepart x.opdownload
.smbdelete1 .nfs00001 .fuse_hidden1 .~tmp~ .x.jpg.Ab3dEf .syncthing.x.jpg.tmp ~syncthing~x .stfolder .stversions
x.lock x.swp x.lrdata CaptureOne x.cos x.xmp x.ocTransferId123.part .dropbox.cache .hidden.jpg""".split(" ")
IGNORED = [name for line in IGNORED for name in line.split("\n")] + [
    "System Volume Information",
    "lost+found",
]
IGNORED += ["~snapshot", "@Recently-Snapshot"]


@pytest.mark.parametrize("name", IGNORED)
def test_what_servers_and_copiers_leave_lying_about_is_ignored_in_any_case(tmp_path, name):
    rules = _rules(tmp_path, include=["*"])
    for spelt in (name, name.upper(), name.lower()):
        assert not rules.wants(spelt)
        assert not rules.wants(f"sub/{spelt}")
        assert not rules.enters(spelt)
        assert not rules.wants(f"{spelt}/inner/a.jpg")


def test_the_built_in_names_can_be_had_back(tmp_path):
    rules = _rules(tmp_path, default_ignores=False)
    assert rules.wants(".hidden.jpg")
    assert rules.enters("@eaDir")


@pytest.mark.parametrize(
    "name", [".a.cutout.png.17.hotmatte.tmp", ".a.jpg.4711.submit.tmp", "a.matte.json", "sub/A.ERROR.JSON"]
)
def test_our_own_files_are_never_work(tmp_path, name):
    assert not _rules(tmp_path, default_ignores=False, include=["*"]).wants(name)


def test_only_included_patterns_are_wanted(tmp_path):
    rules = _rules(tmp_path, include=["IMG_*.jpg"])
    assert rules.wants("sub/img_1.JPG")
    assert not rules.wants("IMG_1.png")
    assert not rules.wants("xIMG_1.jpg")


def test_ignore_adds_names_of_files_and_of_folders_and_paths(tmp_path):
    rules = _rules(tmp_path, ignore=["*_draft.jpg", "old", "jobs/*/raw"])
    assert not rules.wants("a_Draft.jpg")
    assert not rules.wants("deep/Old/a.jpg")
    assert not rules.wants("jobs/7/raw/a.jpg")
    assert rules.wants("jobs/7/a.jpg")
    assert rules.wants("older/a.jpg")


def test_a_folder_that_is_not_recursive_has_no_sub_folders(tmp_path):
    rules = _rules(tmp_path, recursive=False)
    assert rules.wants("a.jpg")
    assert rules.enters("")
    assert not rules.enters("sub")
    assert not rules.wants("sub/a.jpg")


def test_the_folders_of_its_own_results_are_never_entered(tmp_path):
    hot = tmp_path / "hot"
    rules = _rules(
        tmp_path,
        output=hot / "mattes",
        archive=hot / "done" / "x",
        quarantine=hot / "failed",
        source="archive",
    )
    for name in ("mattes/a.png", "mattes/deep/a.png", "done/x/a.jpg", "failed/a.jpg"):
        assert not rules.wants(name)
    assert rules.wants("done/a.jpg")
    assert rules.wants("mattes2/a.jpg")
