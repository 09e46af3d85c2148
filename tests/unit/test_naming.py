"""Who gets which name, and that nobody loses one."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path

import pytest

from watcher.errors import InputRejected
from watcher.pipeline import publish
from watcher.pipeline.naming import Names, Owner, claimed, holder, place_of, report_of, shortened

SUFFIXES = (".cutout.png", ".matte.png")


@pytest.fixture
def names() -> Names:
    return Names()


def claim(names, relpath, output, *, tree="mirror", duplicates="number", suffixes=SUFFIXES, folder="hot"):
    return claimed(
        names, Owner(folder, relpath), output=output, tree=tree, suffixes=suffixes, duplicates=duplicates
    )


def record(relpath: str, outputs=(), folder: str = "hot") -> bytes:
    source = {"folder": folder, "path": relpath}
    if "\udcff" in relpath:
        source["path_bytes"] = os.fsencode(relpath).hex()
        source["path"] = "?"
    return json.dumps({"schema": 1, "source": source, "outputs": list(outputs)}).encode()


def finished(place, relpath: str, suffixes=SUFFIXES) -> None:
    place.folder.mkdir(parents=True, exist_ok=True)
    for suffix in suffixes:
        place.path(suffix).write_bytes(relpath.encode("utf-8", "surrogateescape"))
    place.sidecar.write_bytes(record(relpath, [written(place, suffix) for suffix in suffixes]))


def written(place, suffix: str) -> dict[str, object]:
    content = place.path(suffix).read_bytes()
    return {"suffix": suffix, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def run(names, relpath, output, **more) -> str:
    with claim(names, relpath, output, **more) as place:
        if not place.taken:
            finished(place, relpath)
        return str(place.sidecar.relative_to(output))


def test_sub_folders_are_mirrored_or_flattened(names, tmp_path):
    assert run(names, "x/y/a.jpg", tmp_path) == "x/y/a.matte.json"
    assert run(names, "x/y/b.jpg", tmp_path, tree="flatten") == "b.matte.json"


def test_two_photos_of_one_name_never_overwrite_each_other(names, tmp_path):
    assert run(names, "a.jpg", tmp_path) == "a.matte.json"
    assert run(names, "a.tif", tmp_path) == "a_2.matte.json"
    assert run(names, "a.png", tmp_path) == "a_3.matte.json"
    assert (tmp_path / "a.matte.png").read_bytes() == b"a.jpg"


@pytest.mark.parametrize("relpath", ["a.jpg", "a.tif", "b\udcff.jpg"])
def test_the_same_source_gets_the_same_name_again(names, tmp_path, relpath):
    run(names, "a.jpg", tmp_path)
    first = run(names, relpath, tmp_path)
    assert run(Names(), relpath, tmp_path) == first


def test_a_neighbours_removed_results_do_not_give_a_source_a_second_name(names, tmp_path):
    run(names, "a.jpg", tmp_path)
    assert run(names, "a.tif", tmp_path) == "a_2.matte.json"
    for path in tmp_path.glob("a.*"):
        path.unlink()
    assert run(names, "a.tif", tmp_path) == "a_2.matte.json"


def test_equal_names_from_two_hot_folders_are_two_owners(names, tmp_path):
    assert run(names, "a.jpg", tmp_path, folder="one") == "a.matte.json"
    finished_by_one = (tmp_path / "a.matte.json").read_bytes()
    assert json.loads(finished_by_one)["source"]["folder"] == "hot"  # `finished` writes "hot"
    assert run(names, "a.jpg", tmp_path, folder="two") == "a_2.matte.json"


@pytest.mark.parametrize("file", ["a.cutout.png", "a.matte.png", "a.matte.json"])
def test_a_users_own_file_is_never_overwritten(names, tmp_path, file):
    (tmp_path / file).write_bytes(b"mine")
    assert run(names, "a.jpg", tmp_path) == "a_2.matte.json"
    assert (tmp_path / file).read_bytes() == b"mine"


def test_a_dangling_link_under_our_name_is_somebodys(names, tmp_path):
    (tmp_path / "a.matte.png").symlink_to(tmp_path / "nowhere")
    assert run(names, "a.jpg", tmp_path) == "a_2.matte.json"


def test_replace_takes_the_name(names, tmp_path):
    run(names, "a.jpg", tmp_path)
    assert run(names, "a.tif", tmp_path, duplicates="replace") == "a.matte.json"
    assert (tmp_path / "a.matte.png").read_bytes() == b"a.tif"


def test_skip_leaves_the_name(names, tmp_path):
    run(names, "a.jpg", tmp_path)
    with claim(names, "a.tif", tmp_path, duplicates="skip") as place:
        assert place.taken
    with claim(names, "a.jpg", tmp_path, duplicates="skip") as place:
        assert not place.taken


def test_quarantine_names_the_other_photo(names, tmp_path):
    run(names, "b/a.jpg", tmp_path)
    with (
        pytest.raises(InputRejected, match=r"b/a\.jpg"),
        claim(names, "b/a.tif", tmp_path, duplicates="quarantine"),
    ):
        pass


def test_two_jobs_in_flight_get_different_names(names, tmp_path):
    with claim(names, "a.jpg", tmp_path) as one, claim(names, "a.tif", tmp_path) as other:
        assert {one.base, other.base} == {"a", "a_2"}


@pytest.mark.parametrize(
    ("one", "other"), [("A.jpg", "a.jpg"), ("u\u0308.jpg", "\u00fc.jpg"), ("ß.jpg", "SS.jpg")]
)
def test_names_that_some_client_cannot_tell_apart_are_not_in_flight_together(names, tmp_path, one, other):
    with claim(names, one, tmp_path) as first, claim(names, other, tmp_path) as second:
        assert second.base.endswith("_2") and not first.base.endswith("_2")


def test_outputs_that_meet_across_base_names_are_kept_apart(names, tmp_path):
    suffixes = (".png", ".cutout.png")
    with (
        claim(names, "a.jpg", tmp_path, suffixes=suffixes) as one,
        claim(names, "a.cutout.jpg", tmp_path, suffixes=suffixes) as other,
    ):
        assert (one.base, other.base) == ("a", "a.cutout_2")


@pytest.mark.parametrize(
    ("duplicates", "other"),
    [("number", "a.jpg"), ("replace", "a.tif"), ("skip", "a.tif"), ("quarantine", "a.jpg")],
)
def test_one_waits_where_both_need_the_very_name(names, tmp_path, eventually, duplicates, other):
    order: list[str] = []

    def second() -> None:
        with claim(names, other, tmp_path, duplicates=duplicates):
            order.append("second")

    thread = threading.Thread(target=second)
    with claim(names, "a.jpg", tmp_path, duplicates=duplicates) as place:
        thread.start()
        eventually(lambda: names._changed._waiters)  # type: ignore[attr-defined]
        finished(place, "a.jpg")
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_two_that_differ_in_case_only_keep_their_names_when_both_are_done_anew_at_once(
    names, tmp_path, eventually
):
    assert run(names, "a.jpg", tmp_path) == "a.matte.json"
    assert run(names, "A.jpg", tmp_path) == "A.matte.json"
    got: list[str] = []
    thread = threading.Thread(target=lambda: got.append(run(names, "A.jpg", tmp_path)))
    with claim(names, "a.jpg", tmp_path):
        thread.start()
        eventually(lambda: names._changed._waiters)
    thread.join(10)
    assert got == ["A.matte.json"]


def test_a_photo_for_which_no_name_is_left_is_refused_in_words(names, tmp_path, monkeypatch):
    monkeypatch.setattr("watcher.pipeline.naming._MOST", 3)
    assert [run(names, f"a.{ending}", tmp_path) for ending in ("jpg", "png")]
    with pytest.raises(InputRejected, match="2 results named a"), claim(names, "a.tif", tmp_path):
        pass


def test_an_error_gives_the_name_back(names, tmp_path):
    with pytest.raises(ZeroDivisionError), claim(names, "a.jpg", tmp_path):
        raise ZeroDivisionError
    with claim(names, "a.tif", tmp_path) as place:
        assert place.base == "a"


def test_many_threads_never_share_a_name(names, tmp_path):
    taken: list[str] = []
    together = threading.Barrier(8)

    def work(number: int) -> None:
        together.wait()
        taken.append(run(names, f"a.{number}", tmp_path))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(set(taken)) == 8


@pytest.mark.parametrize("stem", ["x" * 251, "人" * 83, "é" * 125, "\udcff" * 251])
def test_every_name_of_a_long_one_fits_temporaries_included(tmp_path, stem):
    folder, base = place_of(stem + ".jpg", output=tmp_path, tree="mirror", suffixes=(".s" * 32,))
    longest = publish.temporary_of(folder / (base + "_9999" + ".s" * 32), 999_999_999_999)
    assert len(os.fsencode(longest.name)) <= 255
    longest.write_bytes(b"")
    assert base[-9] == "~" and stem.startswith(base[:-9])


def test_long_names_that_differ_at_the_end_stay_different():
    assert shortened("x" * 300, "a/x", room=50) != shortened("x" * 300, "b/x", room=50)
    assert len(shortened("x" * 300, "a", room=50)) == 50


def test_a_short_name_is_kept_byte_by_byte(tmp_path):
    assert place_of("s/b\udcff. x.jpg", output=tmp_path, tree="mirror", suffixes=SUFFIXES) == (
        tmp_path / "s",
        "b\udcff. x",
    )


@pytest.mark.parametrize("relpath", ["../a.jpg", "/etc/a.jpg", "x/../../a.jpg", ""])
def test_no_name_leads_out_of_the_output_folder(tmp_path, relpath):
    with pytest.raises(InputRejected):
        place_of(relpath, output=tmp_path, tree="mirror", suffixes=SUFFIXES)


def test_outputs_of_a_publication_cut_short_are_ours(tmp_path):
    (tmp_path / "a.matte.png").write_bytes(b"x")
    (tmp_path / ".a.matte.json.7.hotmatte.tmp").write_bytes(record("a.jpg"))
    assert holder(tmp_path, "a", (*SUFFIXES, ".matte.json")) == Owner("hot", "a.jpg")


def test_reports_of_two_photos_do_not_overwrite_each_other(tmp_path: Path):
    (tmp_path / "a.error.json").write_bytes(record("a.tif"))
    assert report_of(tmp_path, "a", Owner("hot", "a.tif")).name == "a.error.json"
    assert report_of(tmp_path, "a", Owner("hot", "a.jpg")).name == "a_2.error.json"


def test_whoever_looks_while_a_neighbour_publishes_sees_its_owner_or_nobody(names, tmp_path, monkeypatch):
    """The sidecar goes, outputs are replaced, the sidecar comes: no moment of it belongs to a stranger."""
    monkeypatch.setattr(publish, "fsync", lambda _: None)
    outputs = [(suffix, b"x" * 10) for suffix in SUFFIXES]
    told = [{"suffix": s, "size": 10, "sha256": hashlib.sha256(b"x" * 10).hexdigest()} for s in SUFFIXES]
    over = threading.Event()

    def republish() -> None:
        for number in range(400):
            publish.publish_all(tmp_path, "a", outputs, sidecar=record("a.jpg", told), job_id=number + 1)
        over.set()

    thread = threading.Thread(target=republish)
    thread.start()
    seen = set()
    while not over.is_set():
        for vary in (False, True):
            seen.add(holder(tmp_path, "a", (*SUFFIXES, ".matte.json"), vary=vary))
    thread.join()
    assert seen <= {None, Owner("hot", "a.jpg")}
    assert Owner("hot", "a.jpg") in seen
