"""RAW and JPEG of one shot: one work, decided once."""

from __future__ import annotations

import pytest

from watcher.domain import Stamp
from watcher.intake.pairs import Fate, Pairs

NOW = Stamp(10, 1_000_000_000_000)


class Folder:
    def __init__(
        self, *names: str, earlier: dict[str, Stamp] | None = None, failed: tuple[str, ...] = ()
    ) -> None:
        self.names = names
        self.failed = failed
        self.earlier = earlier or {}
        self.listed = 0

    def pairs(self, prefer: str) -> Pairs:
        return Pairs(
            prefer,
            wait_s=30.0,
            present=self.present,
            earlier=self.found,
            failed=lambda relpath: relpath in self.failed,
        )

    def present(self, folder: str) -> list[str]:
        self.listed += 1
        return [name.rpartition("/")[2] for name in self.names if name.rpartition("/")[0] == folder]

    def found(self, relpaths):
        return [(relpath, self.earlier[relpath]) for relpath in relpaths if relpath in self.earlier]


@pytest.mark.parametrize("name", ["IMG_1.CR2", "IMG_1.JPG", "IMG_1.png"])
def test_with_both_everything_is_work_and_nobody_is_asked(name):
    folder = Folder("IMG_1.CR2", "IMG_1.JPG")
    assert folder.pairs("both").fate(name, NOW, quiet_for=0) == (Fate.WORK, "")
    assert folder.listed == 0


@pytest.mark.parametrize(
    ("prefer", "work", "other"), [("jpeg", "IMG_1.JPG", "IMG_1.CR3"), ("raw", "IMG_1.CR3", "IMG_1.JPG")]
)
def test_the_preferred_half_is_work_at_once_and_the_other_its_companion(prefer, work, other):
    pairs = Folder("d/IMG_1.CR3", "d/IMG_1.JPG").pairs(prefer)
    assert pairs.fate(f"d/{work}", NOW, quiet_for=0) == (Fate.WORK, "")
    assert pairs.fate(f"d/{other}", NOW, quiet_for=0) == (Fate.COMPANION, f"d/{work}")


def test_names_may_differ_in_case_and_a_heif_counts_as_the_jpeg():
    assert Folder("img_1.heic").pairs("jpeg").fate("IMG_1.NEF", NOW, quiet_for=0) == (
        Fate.COMPANION,
        "img_1.heic",
    )


@pytest.mark.parametrize(
    ("names", "companions"),
    [
        # Each has a half of its own spelling: two shots, as a Linux folder may hold them.
        (
            ("IMG_1.CR2", "IMG_1.JPG", "img_1.cr2", "img_1.jpg"),
            {"IMG_1.CR2": "IMG_1.JPG", "img_1.cr2": "img_1.jpg"},
        ),
        # Whose JPEG it is says the spelling; the other one has none.
        (("IMG_1.CR2", "IMG_1.JPG", "img_1.cr2"), {"IMG_1.CR2": "IMG_1.JPG"}),
        (("IMG_1.CR2", "img_1.jpg"), {"IMG_1.CR2": "img_1.jpg"}),
        (("Img_1.Cr2", "iMG_1.jPG"), {"Img_1.Cr2": "iMG_1.jPG"}),
        (("caf\u00e9.cr2", "cafe\u0301.jpg"), {"caf\u00e9.cr2": "cafe\u0301.jpg"}),
    ],
)
def test_a_half_of_the_same_spelling_is_nearer_than_one_that_differs_in_case(names, companions):
    pairs = Folder(*names).pairs("jpeg")
    fates = {name: pairs.fate(name, NOW, quiet_for=99) for name in names if name.lower().endswith("cr2")}
    assert {name: other for name, (fate, other) in fates.items() if fate is Fate.COMPANION} == companions
    assert all(fate in (Fate.COMPANION, Fate.WORK) for fate, _ in fates.values())


@pytest.mark.parametrize("done", ["IMG_1.JPG", "img_1.jpg", "Img_1.JPG", "Img_1.jpg"])
def test_a_half_that_was_done_and_archived_may_have_been_spelled_otherwise(done):
    pairs = Folder(earlier={f"d/{done}": NOW}).pairs("jpeg")
    assert pairs.fate("d/Img_1.CR2", NOW, quiet_for=0) == (Fate.COMPANION, f"d/{done}")


def test_a_half_whose_other_half_failed_is_work():
    pairs = Folder("d/IMG_1.JPG", "d/IMG_1.CR2", failed=("d/IMG_1.JPG",)).pairs("jpeg")
    assert pairs.fate("d/IMG_1.CR2", NOW, quiet_for=0) == (Fate.WORK, "")


@pytest.mark.parametrize("name", ["IMG_2.JPG", "other/IMG_1.JPG", "IMG_1.png", "IMG_1.edit.JPG", "IMG_1.ARW"])
def test_another_name_folder_or_kind_is_no_half(name):
    assert Folder(name).pairs("jpeg").fate("IMG_1.CR2", NOW, quiet_for=29.9) == (Fate.WAIT, "")


def test_a_half_waits_for_the_other_and_then_is_work():
    pairs = Folder().pairs("jpeg")
    assert [pairs.fate("a.dng", NOW, quiet_for=quiet)[0] for quiet in (0, 29, 30, 99)] == [
        Fate.WAIT, Fate.WAIT, Fate.WORK, Fate.WORK
    ]  # fmt: skip


def test_a_half_that_was_done_and_archived_still_counts_if_it_is_of_the_same_shot():
    near, far = Stamp(1, NOW.mtime_ns - 2 * 10**9), Stamp(1, NOW.mtime_ns - 3600 * 10**9)
    same = Folder(earlier={"a.JPG": near}).pairs("jpeg")
    assert same.fate("a.CR2", NOW, quiet_for=0) == (Fate.COMPANION, "a.JPG")
    # Cameras begin again at 0001: a shot of another day must not swallow this one.
    assert Folder(earlier={"a.JPG": far}).pairs("jpeg").fate("a.CR2", NOW, quiet_for=99) == (Fate.WORK, "")


def test_a_thousand_pairs_take_one_listing():
    folder = Folder(*(f"{number}.JPG" for number in range(1000)))
    pairs = folder.pairs("jpeg")
    assert all(pairs.fate(f"{number}.CR2", NOW, quiet_for=0)[0] is Fate.COMPANION for number in range(1000))
    assert folder.listed == 1
    folder.names = ()
    pairs.look_anew()
    assert pairs.fate("1.CR2", NOW, quiet_for=0)[0] is Fate.WAIT
