"""What lies in the folders of attempts, and what of it counts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from test_fleet_messages import JOB

from watcher.fleet import stage
from watcher.fleet.messages import JobMessage, pack


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "stage" / "w" / "17"
    stage.open_job(folder)
    return folder


def made(place: Path, message: JobMessage = JOB, *, content: bytes = b"matte") -> Path:
    """An attempt with a whole set of one output."""
    attempt = stage.begin(place, message, "gpu1")
    (attempt / "a.matte.png").write_bytes(content)
    outputs = [{"suffix": ".matte.png", "size": len(content), "sha256": "0" * 64}]
    told = {"schema": 1, "source": {"folder": "in", "path": "a.jpg"}, "outputs": outputs}
    (attempt / "a.matte.json").write_text(json.dumps(told))
    return attempt


def test_a_whole_set_for_the_same_work_is_found_whichever_claim_it_was_made_for(place: Path) -> None:
    attempt = made(place, JOB.model_copy(update={"fence": 1}))
    found = stage.find(place, JOB)
    assert found is not None and found.place == attempt
    assert stage.cut_short(place) == 0


def test_a_set_for_another_version_profile_or_model_is_not_found(place: Path) -> None:
    made(place)
    for other in ({"mtime_ns": 1}, {"size": 1}, {"card": "b" * 64}, {"share": "e" * 32}):
        assert stage.find(place, JOB.model_copy(update=other)) is None


def test_what_is_not_whole_is_not_found_and_counts_as_cut_short(place: Path) -> None:
    no_sidecar, short, gone = made(place), made(place), made(place)
    (no_sidecar / "a.matte.json").unlink()
    (short / "a.matte.png").write_bytes(b"mat")
    (gone / "a.matte.png").unlink()
    assert stage.find(place, JOB) is None
    assert stage.cut_short(place) == 3


def test_a_link_is_not_a_result(place: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"matte")
    attempt = made(place)
    (attempt / "a.matte.png").unlink()
    (attempt / "a.matte.png").symlink_to(secret)
    assert stage.find(place, JOB) is None


def test_an_attempt_that_was_given_up_is_no_death(place: Path) -> None:
    stage.give_up(stage.begin(place, JOB, "gpu1"))
    assert stage.cut_short(place) == 0


def test_a_claim_of_another_version_or_a_torn_one_is_nobody_s(place: Path) -> None:
    attempt = made(place)
    for claim in (json.dumps({**json.loads(pack(JOB)), "protocol": 9}), pack(JOB)[:50], ""):
        (attempt / "claim.json").write_text(claim)
        assert stage.find(place, JOB) is None
        assert stage.cut_short(place) == 0


def test_what_nobody_waits_for_is_swept_and_what_is_wanted_stays(place: Path) -> None:
    other = place.with_name("18")
    stage.open_job(other)
    made(other)
    assert stage.sweep_jobs(place.parent, wanted=lambda job: job == 17) == 1
    assert stage.is_wanted(place) and not stage.is_wanted(other)
    old = place.parent.with_name("gone")
    stage.open_job(old / "1")
    os.utime(old, (0, 0))
    assert stage.sweep_watchers(place.parents[1], "w", before=1e9) == 1
    assert stage.is_wanted(place) and not old.exists()


def test_places_that_are_away_are_empty(tmp_path: Path) -> None:
    assert stage.find(tmp_path / "gone", JOB) is None
    assert stage.cut_short(tmp_path / "gone") == 0
    assert stage.sweep_jobs(tmp_path / "gone", wanted=lambda _: True) == 0
