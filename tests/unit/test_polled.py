"""Looking at folder times instead of files: on a real file system, against a whole listing."""

from __future__ import annotations

import os
import shutil
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from watcher.config import Folder
from watcher.intake.names import Rules
from watcher.intake.polled import STEP_NS, Polled
from watcher.intake.scan import walk

FOLDERS = ("a", "b", "a/in", "a/in/deep")


class Tree:
    """A hot folder and what is remembered of it. `later` makes every folder time look old."""

    def __init__(self, root, *, later: bool, keeps_times: bool = True, device: int | None = None):
        self.root = root
        self.rules = Rules(Folder(path=root, output=root.parent / "mattes"))
        self.polled = Polled(
            str(root),
            device=root.stat().st_dev if device is None else device,
            interval=5.0,
            keeps_times=keeps_times,
            clock=lambda: time.time_ns() + (10 * STEP_NS if later else 0),
        )

    def look_at_all(self):
        self.polled.files = dict(self.polled.whole(self.rules))
        self.polled.looked(0.0, whole=True, seconds=0.01, cpu=0.01)

    def look(self):
        """What the folder is believed to hold, after a look at folder times."""
        changed = self.polled.changed(1.0)
        before, part = self.polled.within(changed), self.polled.part(self.rules, changed)
        self.polled.replace(before, part, dict(part))
        return self.polled.files

    def truth(self):
        return dict(walk(str(self.root), self.rules))


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "hot"
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
        (root / folder / "old.jpg").write_bytes(b"x")
    return root


def after(folder, tick):
    """Let the file system's clock move on: within one step of it changes leave no trace."""
    seen = folder.stat().st_ctime_ns
    while True:
        tick.write_bytes(b"")
        if tick.stat().st_ctime_ns > seen:
            return


def test_folders_in_which_nothing_came_or_went_are_not_listed_again(root):
    tree = Tree(root, later=True)
    tree.look_at_all()
    assert tree.polled.changed(1.0) == []
    assert tree.look() == tree.truth()


def test_a_folder_that_changed_a_moment_ago_is_listed_again_in_any_case(root):
    tree = Tree(root, later=False)
    tree.look_at_all()
    assert set(tree.polled.changed(1.0)) == {"", *FOLDERS}


def test_only_folders_with_new_names_are_listed_again(root, tmp_path):
    tree = Tree(root, later=True)
    tree.look_at_all()
    after(root / "a" / "in", tmp_path / "tick")
    (root / "a" / "in" / "new.jpg").write_bytes(b"x")
    assert tree.polled.changed(1.0) == ["a/in"]
    assert tree.look() == tree.truth()
    assert "a/in/new.jpg" in tree.polled.files


def test_times_that_were_set_back_hide_nothing(root, tmp_path):
    tree = Tree(root, later=True)
    tree.look_at_all()
    old = (root / "b").stat()
    after(root / "b", tmp_path / "tick")
    (root / "b" / "new.jpg").write_bytes(b"x")
    os.utime(root / "b", ns=(old.st_atime_ns, old.st_mtime_ns))
    assert tree.polled.changed(1.0) == ["b"]


def test_a_file_that_is_written_over_is_seen_by_the_next_whole_listing(root, tmp_path):
    tree = Tree(root, later=True)
    tree.look_at_all()
    after(root / "a", tmp_path / "tick")
    with (root / "a" / "old.jpg").open("r+b") as file:
        file.write(b"longer than before")
    assert tree.look() != tree.truth()
    tree.look_at_all()
    assert tree.polled.files == tree.truth()


def test_without_folder_times_to_rely_on_everything_is_listed(root):
    tree = Tree(root, later=True, keeps_times=False)
    tree.look_at_all()
    assert tree.polled.changed(1.0) is None


def test_another_file_system_below_makes_everything_be_listed(root):
    tree = Tree(root, later=True, device=-1)
    tree.look_at_all()
    assert tree.polled.changed(1.0) is None


def test_a_look_that_takes_long_is_taken_less_often(root):
    polled = Tree(root, later=True).polled
    polled.looked(100.0, whole=True, seconds=0.4, cpu=0.4)
    assert polled.next_look == 105.0
    assert polled.changed(119.9) == []
    assert polled.changed(120.0) is None
    polled.looked(200.0, whole=False, seconds=0.5, cpu=0.2)
    assert polled.next_look == 210.0
    share = Tree(root, later=True, keeps_times=False).polled
    share.looked(100.0, whole=True, seconds=4.0, cpu=0.4)
    assert share.next_look == 140.0


STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "remove", "make", "clear", "move"]), st.sampled_from(FOLDERS)),
    max_size=12,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS, st.data())
def test_looks_at_folder_times_see_what_a_whole_listing_sees(tmp_path_factory, steps, data):
    root = tmp_path_factory.mktemp("tree") / "hot"
    root.mkdir()
    tree = Tree(root, later=False)
    tree.look_at_all()
    for number, (what, folder) in enumerate(steps):
        _change(root, what, folder, number)
        if data.draw(st.booleans()):
            assert tree.look() == tree.truth()
    assert tree.look() == tree.truth()
    shutil.rmtree(root.parent)


def _change(root, what, folder, number):
    place = root / folder
    if what == "make":
        place.mkdir(parents=True, exist_ok=True)
    elif not place.is_dir():
        return
    elif what == "write":
        (place / f"{number}.jpg").write_bytes(b"x")
    elif what == "remove":
        for path in place.glob("*.jpg"):
            path.unlink()
    elif what == "clear":
        shutil.rmtree(place)
    elif not (root / f"moved{number}").exists():
        place.rename(root / f"moved{number}")
