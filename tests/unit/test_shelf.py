"""What is kept beside weights: found again whole, or not at all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from watcher.worker.shelf import Shelf


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "a graph [1].onnx"
    path.write_bytes(b"weights")
    return path


def kept(model: Path) -> list[Path]:
    return [path for path in model.parent.iterdir() if path != model]


def test_what_was_kept_is_found_again_by_the_same_maker_for_the_same_weights(model: Path) -> None:
    assert Shelf(str(model), "maker 1").take() is None
    Shelf(str(model), "maker 1").put(b"made")
    assert Shelf(str(model), "maker 1").take() == b"made"
    assert Shelf(str(model), "maker 2").take() is None
    model.write_bytes(b"others")
    assert Shelf(str(model), "maker 1").take() is None


def test_whoever_has_verified_the_weights_may_say_what_they_are(model: Path) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    Shelf(str(model), "maker 1").put(b"made")
    assert Shelf(str(model), "maker 1", digest).take() == b"made"
    assert Shelf(str(model), "maker 1", "0" * 64).take() is None


def test_a_newer_one_replaces_what_nobody_asks_for_any_more_and_touches_nothing_else(model: Path) -> None:
    neighbour = model.with_name("a graph [1].onnx.mine")
    neighbour.write_bytes(b"mine")
    for maker in ("maker 1", "maker 2"):
        Shelf(str(model), maker).put(maker.encode())
    assert Shelf(str(model), "maker 2").take() == b"maker 2"
    assert len(kept(model)) == 2
    assert neighbour.read_bytes() == b"mine"


@pytest.mark.parametrize("length", [0, 3, 31, 35])
def test_a_part_of_it_is_as_good_as_nothing(model: Path, length: int) -> None:
    shelf = Shelf(str(model), "maker 1")
    shelf.put(b"made")
    (path,) = kept(model)
    path.write_bytes(path.read_bytes()[:length])
    assert shelf.take() is None
    shelf.put(b"made")
    assert shelf.take() == b"made"
    assert len(kept(model)) == 1


def test_where_nothing_can_be_written_nothing_is_kept(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError("read-only")

    shelf = Shelf(str(model), "maker 1")
    monkeypatch.setattr(os, "replace", refused)
    shelf.put(b"made")
    assert shelf.take() is None


def test_only_the_owner_may_write_what_is_computed_with(model: Path) -> None:
    Shelf(str(model), "maker 1").put(b"made")
    (path,) = kept(model)
    assert path.stat().st_mode & 0o077 == 0
