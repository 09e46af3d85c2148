"""Photographers without end: each writes, renames, overwrites and removes under names of its own.

What they did is known to the byte, so that afterwards every file can be asked what became of it.
"""

from __future__ import annotations

import itertools
import random
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from aftermath import Key, Versions
from daemonrig import DaemonRig, jpeg, sha256

# In a hot folder whose photos are taken away a name is only written to while nothing lies there: a
# program that has a photo open while it is archived goes on writing into the archive.
AREAS = ("", "day 1/", "day 2/a/")
NAMES = 6
TREES = 4
TREE_PHOTOS = 3


class Gate:
    """Keeps writers out of a hot folder that is away, and waits for those inside before it goes."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._open = True

    def enter(self) -> bool:
        with self._changed:
            self._inside += self._open
            return self._open

    def leave(self) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._open = False
            self._changed.wait_for(lambda: not self._inside)

    def open(self) -> None:
        with self._changed:
            self._open = True


class Writer:
    """One thread, with names that no other writer uses; `rate` actions a second on average."""

    def __init__(
        self, number: int, rig: DaemonRig, chance: random.Random, gates: dict[str, Gate], *, rate: float
    ) -> None:
        self._number = number
        self._rig = rig
        self._chance = chance
        self._gates = gates
        self._rate = rate
        self._over = threading.Event()
        self._seeds = itertools.count(number, 100)
        self._aside = rig.root / "aside" / str(number)
        self._aside.mkdir(parents=True)
        self.versions: Versions = {}
        self.history: Versions = {}  # what was removed included
        self.bad: set[Key] = set()
        self.removed: set[Key] = set()
        self.did: Counter[str] = Counter()
        self.failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"writer-{number}")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when the last file is whole."""
        self._over.set()
        self._thread.join()

    def check(self) -> None:
        """Raises what went wrong in the thread."""
        if self.failed is not None:
            raise self.failed

    def _run(self) -> None:
        try:
            while not self._over.wait(self._chance.uniform(0, 2 / self._rate)):
                self._act()
        except BaseException as error:
            self.failed = error

    def _act(self) -> None:
        folder = self._chance.choice(list(self._gates))
        if not self._gates[folder].enter():
            return
        try:
            action = self._chance.choices(list(ACTIONS), list(ACTIONS.values()))[0]
            self.did[action.__name__] += bool(action(self, folder))
        finally:
            self._gates[folder].leave()

    # --- What they do: True if they did ----------------------------------------------------

    def rename(self, folder: str) -> bool:
        """As rsync and careful programs: written aside, then given its name. New ones and overwrites."""
        key = self._name(folder)
        self._rename_in(key, self._photo(key))
        return True

    def copy(self, folder: str) -> bool:
        """By cp, onto what lies there or not."""
        key = self._name(folder)
        if self._taken(key):
            return False
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        source = self._aside / "copied.jpg"
        source.write_bytes(self._photo(key, large=self._chance.random() < 0.2))
        subprocess.run(["cp", source, path], check=True)
        return True

    def append(self, folder: str) -> bool:
        """Slowly, with breaks that are longer than the quiet period: half a file, for all to see."""
        key = self._name(folder)
        if self._taken(key):
            return False
        content = self._photo(key)
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        step = len(content) // self._chance.randint(2, 4) + 1
        with path.open("wb") as file:
            for start in range(0, len(content), step):
                file.write(content[start : start + step])
                file.flush()
                self._over.wait(self._chance.uniform(0.0, 0.6))
        return True

    def spoil(self, folder: str) -> bool:
        """Something that is no photo, or not a whole one, under a photo's name."""
        key = self._name(folder)
        whole = jpeg(next(self._seeds))
        content = self._chance.choice(
            [b"not a photo at all\n" * 9, whole[: len(whole) * 2 // 3], whole[:60] + bytes(200) + b"\xff\xd9"]
        )
        self._remember(key, content)
        self.bad.add(key)
        self._rename_in(key, content)
        return True

    def move_in(self, folder: str) -> bool:
        """A whole folder at once, by one rename."""
        shoot = f"shoot {self._number}-{self._chance.randrange(TREES)}"
        target = self._rig.hot(folder) / shoot
        if target.exists() and any(target.iterdir()):
            return False
        # Gathered where nobody looks, on the same disk, as synchronising programs do.
        tree = self._rig.hot(folder) / f".incoming-{self._number}"
        tree.mkdir()
        for number in range(TREE_PHOTOS):
            key = folder, f"{shoot}/tree_{number}.jpg"
            (tree / f"tree_{number}.jpg").write_bytes(self._photo(key))
        tree.rename(target)
        return True

    def remove(self, folder: str) -> bool:
        """Only where photos stay: elsewhere the daemon takes them away."""
        if folder != "keep":
            return False
        mine = [key for key in self.versions if key[0] == folder]
        for key in self._chance.sample(mine, min(len(mine), 2)):
            self._path(key).unlink()
            del self.versions[key]
            self.bad.discard(key)
            self.removed.add(key)
        return bool(mine)

    # --- How ------------------------------------------------------------------------------

    def _name(self, folder: str) -> Key:
        area = self._chance.choice(AREAS)
        return folder, f"{area}IMG_{self._number}{self._chance.randrange(NAMES):02d}.jpg"

    def _path(self, key: Key) -> Path:
        return self._rig.hot(key[0]) / key[1]

    def _taken(self, key: Key) -> bool:
        """Must this name not be written to in place now?"""
        return key[0] != "keep" and self._path(key).exists()

    def _photo(self, key: Key, *, large: bool = False) -> bytes:
        content = jpeg(next(self._seeds), width=640 if large else 16, height=480 if large else 16)
        self._remember(key, content)
        self.bad.discard(key)
        return content

    def _remember(self, key: Key, content: bytes) -> None:
        for record in (self.versions, self.history):
            record.setdefault(key, []).append(sha256(content))
        self.removed.discard(key)

    def _rename_in(self, key: Key, content: bytes) -> None:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        part.write_bytes(content)
        part.replace(path)

    def close(self) -> None:
        shutil.rmtree(self._aside)


ACTIONS: dict[Callable[[Writer, str], bool], int] = {
    Writer.rename: 8,
    Writer.copy: 6,
    Writer.append: 3,
    Writer.spoil: 2,
    Writer.move_in: 1,
    Writer.remove: 2,
}
