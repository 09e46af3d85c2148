"""Contact sheets of a real daemon and of `hotmatte matte`."""

from __future__ import annotations

import os
from datetime import date

from daemonrig import jpeg


def test_the_daemon_keeps_the_sheet_of_the_day(rig):
    daemon = rig(folders={"in": {"contact_sheet": True, "source": "archive"}}, retry={"max_attempts": 1})
    daemon.start()
    (daemon.hot() / "a.jpg").write_bytes(jpeg(1))
    (daemon.hot() / "b.jpg").write_bytes(b"no photo")
    daemon.wait_done("a.jpg")
    daemon.wait_quarantined("b.jpg")
    place = daemon.out() / f"contact-sheet-in-{date.today()}.html"
    daemon.wait(lambda: place.exists() and "b.jpg" in place.read_text(), timeout=40)
    assert "../../archive/in/a.jpg" in place.read_text()
    assert daemon.stop() == 0


def test_a_sheet_is_written_by_hand_without_a_daemon(rig, tmp_path):
    daemon = rig()
    daemon.hot().mkdir(parents=True)
    (daemon.hot() / "a.jpg").write_bytes(jpeg(1))
    empty = daemon.hotmatte("sheet")
    assert empty.returncode == 65
    assert "in has no results of" in empty.stderr
    assert daemon.hotmatte("matte", str(daemon.hot()), "-d", str(tmp_path / "results")).returncode == 0
    done = daemon.hotmatte("sheet", str(tmp_path / "results"), "-o", str(tmp_path / "s.html"))
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 's.html'}\n")
    assert (tmp_path / "s.html").read_text().count("<img ") == 3
    refused = daemon.hotmatte("sheet", str(tmp_path / "results"), "-o", str(tmp_path / "results"))
    assert refused.returncode == 65, "a folder in its place is no bug of ours"
    assert "is no contact sheet of ours" in refused.stderr
    wrong = daemon.hotmatte("sheet", "nowhere")
    assert wrong.returncode == 78
    assert "no hot folder is called 'nowhere'" in wrong.stderr


def test_who_names_no_folder_of_several_or_no_day_is_told_what_to_write(rig):
    daemon = rig(folders={"in": {}, "other": {}})
    which = daemon.hotmatte("sheet")
    assert which.returncode == 78
    assert "Say which by its name, such as `hotmatte sheet in`." in which.stderr
    wrong = daemon.hotmatte("sheet", "in", "--day", "2026-13-25")
    assert wrong.returncode == 64
    assert "'2026-13-25' is no day; write it as 2026-11-25" in wrong.stderr


def test_a_place_that_is_no_utf8_is_written_and_told_escaped(rig, tmp_path):
    daemon = rig()
    daemon.hot().mkdir(parents=True)
    (daemon.hot() / "a.jpg").write_bytes(jpeg(1))
    assert daemon.hotmatte("matte", str(daemon.hot()), "-d", str(tmp_path / "results")).returncode == 0
    odd = tmp_path / os.fsdecode(b"s\xff.html")
    done = daemon.hotmatte("sheet", str(tmp_path / "results"), "-o", str(odd))
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/s\\xff.html\n")
    assert odd.exists()
