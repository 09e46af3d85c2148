"""A photo without a result says why, wherever somebody looks for one: nothing was made of it, or not yet."""

from __future__ import annotations

from pathlib import Path

from daemonrig import DaemonRig, drop, jpeg
from webrig import WebRig


def test_what_was_skipped_or_passed_over_is_told_in_log_api_and_page(tmp_path: Path) -> None:
    daemon = DaemonRig(tmp_path / "skips", folders={"in": {"duplicates": "skip", "pairs": "jpeg"}})
    web = WebRig(daemon)
    try:
        daemon.start()
        web.start()
        drop(daemon.hot() / "a.jpg", jpeg(1))
        daemon.wait_done("a.jpg")
        drop(daemon.hot() / "a.png", jpeg(2))
        drop(daemon.hot() / "a.cr2", jpeg(3))
        skipped, passed = daemon.wait_done("a.png"), daemon.wait_done("a.cr2")
        assert "INFO skipped: a.matte.json is the result of another photo" in daemon.log()
        with web.client() as client:
            for record, words in (
                (skipped, "skipped: a.matte.json is the result of another photo"),
                (passed, "passed over: a.jpg is the half that is work"),
            ):
                told = client.get(f"/v1/jobs/{record.job.id}").json()
                assert (told["state"], told["reason"], told["files"]) == ("done", words, [])
                page = client.get(f"/job/{record.job.id}").text
                assert words in page
                assert "has been taken away" not in page
            assert client.get("/").text.count("no result of its own") == 2
    finally:
        web.close()
        daemon.close()


def test_what_has_not_all_arrived_says_what_it_waits_for(tmp_path: Path) -> None:
    daemon = DaemonRig(tmp_path / "waits", folders={"in": {}, "pairs": {"pairs": "jpeg"}, "empty": {}})
    web = WebRig(daemon)
    try:
        daemon.start()
        web.start()
        drop(daemon.hot() / "half.jpg", jpeg(1)[:-30])
        drop(daemon.hot("pairs") / "a.cr2", jpeg(3))
        drop(daemon.hot("empty") / "b.jpg", b"")
        expected = {
            "in": "half.jpg: its end is missing",
            "pairs": "a.cr2: it waits for the other half of its pair",
            "empty": "b.jpg: it is empty",
        }
        with web.client() as client:
            web.until(
                lambda: (
                    expected
                    == {
                        one["name"]: one["unsettled_why"]
                        for one in client.get("/v1/folders").json()["folders"]
                    }
                )
            )
            assert "1 arriving (half.jpg: its end is missing)" in client.get("/").text
        said = daemon.hotmatte("status").stdout
        assert ": its end is missing\n" in said
        assert ": it waits for the other half of its pair\n" in said
    finally:
        web.close()
        daemon.close()
