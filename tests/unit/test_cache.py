"""The cache of bytes on a real disk: bounded, whole or not at all, shared by processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from watcher.cache import BLOCK, Cache

MEGA = 1_000_000


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", most=MEGA)


def age(cache: Cache, key: str, seconds: float) -> None:
    """As if it had been used `seconds` ago."""
    status = (cache.folder / key).stat()
    os.utime(cache.folder / key, (status.st_atime - seconds, status.st_mtime - seconds))


def test_what_is_kept_is_found_and_nothing_else(cache):
    cache.keep("alpha-1", b"one")
    assert cache.find("alpha-1") == b"one"
    assert cache.find("alpha-2") is None
    assert Cache(cache.folder, most=MEGA).find("alpha-1") == b"one"


def test_a_later_entry_replaces_an_earlier_one(cache):
    cache.keep("url-1", b"old")
    cache.keep("url-1", b"new")
    assert cache.find("url-1") == b"new"
    assert cache.count().entries == 1


def test_the_least_recently_used_go_first(tmp_path):
    cache = Cache(tmp_path / "cache", most=10 * BLOCK)
    for number in range(10):
        cache.keep(f"alpha-{number}", b"x")
        age(cache, f"alpha-{number}", 1000 - number)
    assert cache.find("alpha-0") == b"x"  # the oldest, but just used
    cache.keep("alpha-10", b"x")
    left = {path.name for path in cache.folder.iterdir()}
    assert cache.count().size <= 9 * BLOCK
    assert {"alpha-0", "alpha-10"} <= left
    assert not {"alpha-1", "alpha-2"} & left


def test_the_bound_holds_for_what_other_processes_wrote(tmp_path):
    small, other = (Cache(tmp_path / "cache", most=size * BLOCK) for size in (5, 500))
    for number in range(20):
        other.keep(f"alpha-{number}", b"x")
    for number in range(20, 26):
        small.keep(f"alpha-{number}", b"x")
    assert small.count().size <= 5 * BLOCK


def test_what_is_larger_than_the_whole_cache_is_not_kept(tmp_path):
    cache = Cache(tmp_path / "cache", most=2 * BLOCK)
    cache.keep("alpha-1", b"small")
    cache.keep("alpha-2", b"x" * 3 * BLOCK)
    assert cache.find("alpha-2") is None
    assert cache.find("alpha-1") == b"small"


def test_nothing_is_kept_nor_found_where_it_is_off(tmp_path):
    Cache(tmp_path / "cache", most=MEGA).keep("alpha-1", b"one")
    off = Cache(tmp_path / "cache", most=0)
    off.keep("alpha-2", b"two")
    assert off.find("alpha-1") is off.find("alpha-2") is None
    assert off.count().entries == 1


@pytest.mark.parametrize("at", [0, 5, 20, 45, -1])
def test_a_damaged_entry_is_not_there(cache, at):
    cache.keep("alpha-1", b"something" * 10)
    path = cache.folder / "alpha-1"
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    assert cache.find("alpha-1") is None
    assert not path.exists()


@pytest.mark.parametrize("length", [0, 9, 42, 60])
def test_a_torn_entry_is_not_there(cache, length):
    cache.keep("alpha-1", b"something" * 10)
    os.truncate(cache.folder / "alpha-1", length)
    assert cache.find("alpha-1") is None


def test_clearing_says_what_there_was(cache):
    for number in range(3):
        cache.keep(f"alpha-{number}", b"x")
    assert cache.clear().entries == 3
    assert cache.find("alpha-1") is None
    assert cache.contents.entries == cache.count().entries == 0


def test_a_folder_that_may_not_be_written_costs_nothing_but_the_cache(tmp_path, permissions, caplog):
    (tmp_path / "cache").mkdir(mode=0o500)
    cache = Cache(tmp_path / "cache", most=MEGA)
    for number in range(3):
        cache.keep(f"alpha-{number}", b"x")
    assert cache.find("alpha-1") is None
    assert len([record for record in caplog.records if "nothing can be kept" in record.message]) == 1


def test_others_may_not_read_it(cache):
    cache.keep("alpha-1", b"x")
    assert cache.folder.stat().st_mode & 0o077 == 0


def test_many_threads_may_use_it(tmp_path):
    cache = Cache(tmp_path / "cache", most=20 * BLOCK)
    wrong = []

    def work(seed: int) -> None:
        for number in range(60):
            key = f"alpha-{(seed + number) % 30}"
            cache.keep(key, key.encode() * 50)
            found = cache.find(key)
            if found not in (None, key.encode() * 50):
                wrong.append(key)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert cache.count().size <= 21 * BLOCK


WRITER = """
import sys
from pathlib import Path
from watcher.cache import Cache
cache = Cache(Path(sys.argv[1]), most=10**9)
print("ready", flush=True)
while True:
    cache.keep("alpha-1", b"a" * 3_000_000)
    cache.keep("alpha-1", b"b" * 3_000_000)
"""


def test_a_writer_that_is_killed_leaves_a_whole_entry_and_nothing_beside_it(tmp_path):
    folder, torn = tmp_path / "cache", 0
    for _ in range(6):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        with writer, writer.stdout:
            writer.stdout.readline()
            while not list(folder.glob("alpha-*")):
                assert writer.poll() is None
            while not list(folder.glob(".*.tmp")):  # in the midst of writing, most of the time
                assert writer.poll() is None
            writer.send_signal(signal.SIGKILL)
        torn += len(list(folder.glob(".*.tmp")))
        cache = Cache(folder, most=10**9)
        assert cache.find("alpha-1") in (b"a" * 3_000_000, b"b" * 3_000_000)
        assert [path.name for path in folder.iterdir()] == ["alpha-1"]
    assert torn, "no kill came between two steps"
