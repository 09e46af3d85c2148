"""What a stranger, another web site and a lying name server can do: nothing."""

from __future__ import annotations

import re
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from daemonrig import DaemonRig, jpeg
from webrig import WebRig

from watcher.domain import Source, Stamp
from watcher.exits import CONFIG, IO


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebRig]:
    """On loopback and open, no daemon beside it: most of this needs none."""
    daemon = DaemonRig(tmp_path_factory.mktemp("open"), folders={"in": {}, "other": {}})
    settings = {"fetch_urls": True, "hosts": ["studio.example"], "max_waiting": 4, "requests_per_minute": 100}
    rig = WebRig(daemon, settings)
    try:
        rig.start()
        yield rig
    finally:
        rig.close()


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebRig]:
    """The same behind keys."""
    daemon = DaemonRig(tmp_path_factory.mktemp("locked"))
    rig = WebRig(daemon, {"keys": "always"})
    try:
        rig.key = daemon.hotmatte("keys", "add", "studio").stdout.strip()  # type: ignore[attr-defined]
        rig.start()
        yield rig
    finally:
        rig.close()


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["errors"][0]["code"]


# --- Other web sites -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "[", "", "localhost.evil.example:80"]
)
def test_a_name_made_to_point_here_is_not_ours(web: WebRig, host: str) -> None:
    with web.client(Host=host) as client:
        for answer in (client.get("/v1/jobs"), client.get("/"), client.post("/v1/jobs", content=jpeg(1))):
            assert answer.status_code in (400, 421)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:99", "[::1]:8410", "studio.example"])
def test_our_own_names_are_ours(web: WebRig, host: str) -> None:
    with web.client(Host=host) as client:
        assert client.get("/v1/jobs").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://["},
    ],
)
def test_another_site_cannot_make_a_browser_do_anything(web: WebRig, headers: dict[str, str]) -> None:
    with web.client(**headers) as client:
        for path in (
            "/v1/folders/in/pause",
            "/folder/pause/in",
            "/v1/jobs",
            "/login",
            "/logout",
            "/v1.0/removebg",
        ):
            assert code(client.post(path)) == (403, "foreign_site"), path


def test_the_page_itself_and_programs_may(web: WebRig) -> None:
    origin = web.url
    for headers in ({"Origin": origin}, {"Sec-Fetch-Site": "same-origin", "Origin": origin}, {}):
        with web.client(**headers) as client:
            assert client.post("/v1/folders/other/pause").status_code == 200
            assert client.post("/v1/folders/other/resume").status_code == 200


def test_every_answer_says_what_a_browser_may_do_with_it(web: WebRig) -> None:
    with web.client() as client:
        for path in ("/", "/v1/jobs", "/nowhere", "/static/page.js", "/healthz"):
            headers = client.get(path).headers
            policy = headers["content-security-policy"]
            assert "unsafe" not in policy
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert "access-control-allow-origin" not in headers
        html = client.get("/").text
        assert not re.search(r"<script(?![^>]*src=)|\son\w+=|\sstyle=", html)
        assert not re.search(r"(src|href)=\"(https?:)?//", html)


def test_a_form_leads_back_to_our_own_pages_only(web: WebRig) -> None:
    with web.client() as client:
        for back in (
            "https://evil.example/",
            "//evil.example",
            "/\\evil.example",
            "javascript:alert(1)",
            "//[",
        ):
            answer = client.post("/folder/resume/other", data={"back": back})
            assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_paths_do_not_lead_out(web: WebRig) -> None:
    with web.client() as client:
        for path in (
            "/static/../../setup.cfg",
            "/static/%2e%2e/page.py",
            "/static//etc/passwd",
            "/part/../base",
        ):
            assert client.get(path).status_code in (404, 405)


@pytest.mark.parametrize("charset", ["undefined", "punycode", "idna", "nonsense", "utf-7"])
def test_a_form_in_an_odd_charset_is_read_or_refused(web: WebRig, charset: str) -> None:
    body = (
        b'--X\r\nContent-Disposition: form-data; name="a..b\xff"\r\n\r\nc..d\xff\r\n'
        b'--X\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\nnone\r\n--X--\r\n'
    )
    kind = f"multipart/form-data; charset={charset}; boundary=X"
    with web.client(**{"Content-Type": kind}) as client:
        for path in ("/v1/jobs", "/v1.0/removebg", "/api/remove"):
            assert client.post(path, content=body).json()["errors"]
            assert client.post(path, content=body).status_code == 400


def test_the_case_of_a_content_type_does_not_matter(web: WebRig) -> None:
    body = b'--X\r\nContent-Disposition: form-data; name="other"\r\n\r\nword\r\n--X--\r\n'
    with web.client(**{"Content-Type": "Multipart/Form-Data; boundary=X"}) as client:
        assert code(client.post("/v1/jobs", content=body)) == (400, "missing_source")
    with web.client(**{"Content-Type": "Application/JSON"}) as client:
        answer = client.post("/v1.0/removebg", content=b'{"image_file_b64": "!"}')
        assert code(answer) == (400, "failed_to_read_image")


# --- URLs ----------------------------------------------------------------------------------


def test_an_address_inside_the_network_is_not_fetched(web: WebRig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as secret, web.client() as client:
        port = secret.getsockname()[1]
        secret.settimeout(0.2)
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0x7f.1", "169.254.169.254", "[::1]"):
            answer = client.post("/v1.0/removebg", data={"image_url": f"http://{host}:{port}/a.jpg"})
            assert code(answer) == (400, "invalid_image_url"), host
        with pytest.raises(TimeoutError):
            secret.accept()
        for url in ("file:///etc/passwd", "ftp://example.org/a.jpg", "http://user:word@example.org/a.jpg"):
            assert code(client.post("/v1.0/removebg", data={"image_url": url})) == (400, "invalid_image_url")


# --- Limits --------------------------------------------------------------------------------


def test_a_full_queue_says_when_to_come_back(web: WebRig) -> None:
    """No daemon runs: nothing is taken out of it."""
    with web.client() as client:
        answers = [client.post("/v1/jobs", params={"folder": "in"}, content=jpeg(seed)) for seed in range(8)]
        assert [answer.status_code for answer in answers] == [202] * 4 + [429] * 4
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert code(answers[-1]) == (429, "rate_limit_exceeded")
        # One folder's queue is not another's.
        assert client.post("/v1/jobs", params={"folder": "other"}, content=jpeg(9)).status_code == 202
    assert len(list(web.daemon.hot("in").iterdir())) == 4


def test_whoever_asks_too_often_waits(web: WebRig) -> None:
    with web.client() as client:
        answers = (client.get("/v1/folders") for _ in range(2000))
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert int(refused.headers["retry-after"]) >= 1
        # The page and its pictures are not counted.
        assert client.get("/part/folders").status_code == 200


# --- Keys ----------------------------------------------------------------------------------


def test_lists_that_are_cut_say_of_how_many(web: WebRig) -> None:
    with web.daemon.journal() as journal, web.client() as client:
        for number in range(130):
            journal.admit(Source("other", f"{number}.jpg", Stamp(1, 1)))
        flagged = '{"flags": ["nothing_found"]}'
        for number, job in enumerate(journal.claim(["other"], limit=130, now=time.time(), lease=60)):
            if number < 101:
                journal.quarantine(job, "{}")
            else:
                journal.finish(job, flagged)
        assert "The latest 100 of 101." in client.get("/part/failures").text
        assert "The latest 24." in client.get("/review").text
        journal.mark_gone("other", ["0.jpg"])
        assert "The latest" not in client.get("/failures").text


def test_the_page_is_behind_a_login_and_a_revoked_key_ends_its_sessions(locked: WebRig) -> None:
    html = {"Accept": "text/html"}
    with locked.client() as client:
        assert client.get("/", headers=html).headers["location"] == "/login"
        assert client.post("/login", data={"key": "wrong"}).status_code == 403
        entered = client.post("/login", data={"key": locked.key})  # type: ignore[attr-defined]
        assert entered.status_code == 303
        cookie = entered.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert client.get("/", headers=html).status_code == 200
        assert client.get("/v1/jobs").status_code == 200
        # A session is a browser's: it is asked where a request comes from.
        assert (
            client.post("/v1/folders/in/pause", headers={"Origin": "https://evil.example"}).status_code == 403
        )
        forged = client.cookies["hotmatte"].rpartition(".")[0] + "." + "0" * 64
        number = forged.partition(".")[0]
        for cookie in (forged, f"{forged}\xe9", f"{number}.{'9' * 5000}.{'0' * 64}"):
            with httpx.Client(
                headers=[(b"Cookie", f"hotmatte={cookie}".encode("latin-1"))], trust_env=False
            ) as forger:
                assert forger.get(f"{locked.url}/v1/jobs").status_code == 403
        assert locked.daemon.hotmatte("keys", "revoke", "studio").returncode == 0
        assert client.get("/v1/jobs").status_code == 403


def test_guessing_keys_is_slow(locked: WebRig) -> None:
    with locked.client() as client:
        statuses = [client.post("/login", data={"key": "x"}).status_code for _ in range(30)]
    assert 429 in statuses


def test_others_are_not_let_in_without_a_key(tmp_path: Path) -> None:
    daemon = DaemonRig(tmp_path / "wide", web={"listen": "0.0.0.0:0"})
    done = daemon.hotmatte("web")
    assert done.returncode == CONFIG
    assert "keys add" in done.stderr
    assert "which others can reach" in done.stderr
    daemon.settings["web"] = {"listen": "127.0.0.1:0", "keys": "always"}
    daemon.configure()
    done = daemon.hotmatte("web")
    assert done.returncode == CONFIG
    assert "web.keys is always, and there is no API key" in done.stderr, "nobody else can reach it"


def test_an_address_that_is_taken_is_said_so(web: WebRig) -> None:
    done = web.daemon.hotmatte("web", "--listen", web.url.removeprefix("http://"))
    assert done.returncode == IO
    assert "in use" in done.stderr


def test_a_unix_socket_is_for_this_user_and_replaces_a_dead_one(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    daemon = DaemonRig(tmp_path / "unix")
    rig = WebRig(daemon, {"listen": f"unix:{path}"})
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    child = subprocess.Popen(daemon.command("web"), env=daemon.environment(), cwd=daemon.root)
    rig.child = child
    transport = httpx.HTTPTransport(uds=str(path))
    try:
        rig.until(lambda: connects(path))
        with httpx.Client(transport=transport, base_url="http://localhost") as client:
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            assert client.get("/v1/folders").status_code == 200
        assert rig.stop() == 0
        assert not path.exists()
    finally:
        rig.close()


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def test_without_its_packages_it_says_how_to_get_them(tmp_path: Path) -> None:
    daemon = DaemonRig(tmp_path / "bare")
    # As in an environment that has only what `make run` installs.
    (daemon.root / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'fastapi' else find(name, *rest)\n"
    )
    daemon.env["PYTHONPATH"] = str(daemon.root)
    done = daemon.hotmatte("web")
    assert done.returncode == 69
    assert "pip install 'hotmatte[web]'" in done.stderr
