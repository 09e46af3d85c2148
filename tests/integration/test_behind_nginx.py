"""The page and the API behind a real nginx with TLS, by the site that is delivered: nothing but names and places is changed."""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from daemonrig import CHECKOUT, DaemonRig, jpeg
from playwright.sync_api import Browser, Page, expect, sync_playwright
from rigs.brokers import free_port
from rigs.secured import Authority
from webrig import WebRig

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
SITE = CHECKOUT / "deploy" / "nginx" / "hotmatte.conf"
AROUND = """daemon off; master_process off; pid {root}/pid; error_log {root}/error.log;
events {{}}
http {{
access_log off;
client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;
fastcgi_temp_path {root}/fastcgi; uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;
{site}
}}
"""


class Studio(WebRig):
    """The service on a Unix socket, a daemon beside it, and nginx before it. `url` is the socket's, `front` nginx's."""

    def __init__(self, root: Path, authority: Authority) -> None:
        self.socket, self.trust = root / "socket", ssl.create_default_context(cafile=str(authority.pem))
        web = {"listen": f"unix:{self.socket}", "keys": "always", "hosts": ["127.0.0.1"], "max_upload_mb": 2}
        super().__init__(DaemonRig(root / "daemon", card="tiny"), web)
        self.front = f"https://127.0.0.1:{self._configure(root, authority)}"
        self.known = ""  # a key that is never revoked

    def _configure(self, root: Path, authority: Authority) -> int:
        port, (cert, key) = free_port(), authority.sign("front")
        site = SITE.read_text(encoding="utf-8")
        for theirs, ours in (
            ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
            ("server_name mattes.example", "server_name 127.0.0.1"),
            ("/etc/ssl/certs/mattes.example.pem", str(cert)),
            ("/etc/ssl/private/mattes.example.key", str(key)),
            ("proxy_pass http://127.0.0.1:8410", f"proxy_pass http://unix:{self.socket}"),
        ):
            assert site.count(f"{theirs};") == 1, theirs
            site = site.replace(f"{theirs};", f"{ours};")
        (root / "nginx.conf").write_text(AROUND.format(root=root, site=site), encoding="utf-8")
        return port

    def through(self, *, address: str = "127.0.0.1", **headers: str) -> httpx.Client:
        """A visitor from `address`."""
        way = httpx.HTTPTransport(verify=self.trust, local_address=address)
        return httpx.Client(base_url=self.front, transport=way, headers=headers, timeout=60)

    def client(self, **headers: str) -> httpx.Client:
        way = httpx.HTTPTransport(uds=str(self.socket))
        return httpx.Client(base_url="http://127.0.0.1", transport=way, headers=headers, timeout=60)

    def key(self, name: str) -> str:
        words = ("keys", "add", name, "--scope", "read", "--scope", "upload", "--scope", "operate")
        return self.daemon.hotmatte(*words).stdout.strip()


@contextmanager
def _running(root: Path) -> Iterator[Studio]:
    studio = Studio(root, Authority(root, "studio"))
    front = None
    try:
        studio.daemon.start()
        studio.known = studio.key("known")
        studio.start()
        with (root / "out").open("wb") as out:
            command = [
                str(NGINX),
                "-p",
                str(root),
                "-c",
                str(root / "nginx.conf"),
                "-e",
                str(root / "early.log"),
            ]
            front = subprocess.Popen(command, stdout=out, stderr=out)
        studio.until(lambda: _answers(studio))
        yield studio
    finally:
        if front is not None:
            front.kill()
            front.wait()
        studio.close()
        studio.daemon.close()


@pytest.fixture(scope="module")
def studio(
    tmp_path_factory: pytest.TempPathFactory, real_part: Callable[[str, object, str], None]
) -> Iterator[Studio]:
    real_part("nginx", NGINX, "apt install nginx")
    with _running(tmp_path_factory.mktemp("nginx")) as studio:
        yield studio


@pytest.fixture
def own(tmp_path: Path, real_part: Callable[[str, object, str], None]) -> Iterator[Studio]:
    """For one test alone, which may stop it."""
    real_part("nginx", NGINX, "apt install nginx")
    with _running(tmp_path) as studio:
        yield studio


def _answers(studio: Studio) -> bool:
    try:
        with studio.through() as client:
            return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def page(own: Studio, real_part: Callable[[str, object, str], None]) -> Iterator[Page]:
    """The overview, logged in with a key of its own, `shortlived`."""
    real_part("Chromium", CHROMIUM, "apt install chromium")
    with sync_playwright() as playwright:
        browser: Browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_context(ignore_https_errors=True).new_page()
        page.set_default_timeout(30_000)
        expect.set_options(timeout=30_000)
        page.goto(f"{own.front}/login")
        page.fill("input[name=key]", own.key("shortlived"))
        page.keyboard.press("Enter")
        page.wait_for_url(f"{own.front}/")
        yield page
        browser.close()


def test_a_photo_goes_through_and_its_links_lead_back(studio: Studio) -> None:
    with studio.through(**{"X-Api-Key": studio.known}) as client:
        # Larger than nginx lets through unless told otherwise.
        padded = jpeg(1) + b"\0" * 1_500_000
        assert client.post("/v1/jobs", content=padded).status_code == 202
        done = client.post("/v1/jobs", content=jpeg(2), params={"wait": 30})
        assert done.json()["state"] == "done"
        assert client.get(done.json()["files"][0]["href"]).content
        assert client.get(done.headers["Location"]).json()["job"] == done.json()["job"]
        large = client.post("/v1/jobs", content=b"\0" * 3_000_000)
        assert (large.status_code, large.json()["errors"][0]["code"]) == (413, "file_too_large")


def test_redirects_and_the_session_stay_on_https(studio: Studio) -> None:
    with studio.through(Origin=studio.front) as client:
        key = studio.known
        cookie = client.post("/login", data={"key": key}).headers["Set-Cookie"]
        assert "; Secure" in cookie
        assert client.get("/v1/jobs/").headers["Location"] == f"{studio.front}/v1/jobs"


def test_events_arrive_one_by_one_and_end_with_the_key(studio: Studio) -> None:
    key = studio.key("listener")
    with studio.through(**{"X-Api-Key": key}) as client, client.stream("GET", "/v1/events") as stream:
        lines = stream.iter_lines()
        assert next(lines) == "retry: 2000"
        client.post("/v1/jobs", content=jpeg(3))
        ended = next(line for line in lines if line.startswith('data: {"'))
        assert '"state": "done"' in ended
        assert studio.daemon.hotmatte("keys", "revoke", "listener").returncode == 0
        with studio.through(**{"X-Api-Key": studio.known}) as other:
            unheard = other.post("/v1/jobs", content=jpeg(4), params={"wait": 30}).json()["job"]
        assert not [line for line in lines if re.search(rf'"job": {unheard}\b', line)]


def test_wrong_keys_of_a_stranger_keep_nobody_else_out(studio: Studio) -> None:
    with studio.through(address="127.0.0.66") as stranger, studio.through(address="127.0.0.7") as guest:
        for _ in range(20):
            stranger.post("/login", data={"key": "hm_0_0"})
        # Whatever the stranger says of where it comes from.
        lying = {"X-Forwarded-For": "127.0.0.7"}
        assert stranger.post("/login", data={"key": "hm_0_0"}, headers=lying).status_code == 429
        assert guest.post("/login", data={"key": studio.known}).status_code == 303


def test_an_open_page_says_that_it_is_old_and_is_live_again_by_itself(own: Studio, page: Page) -> None:
    state, note = page.locator("[data-folder=in] .state"), page.locator("#stale")
    expect(state).to_have_text("watching")
    expect(note).to_be_hidden()
    with page.expect_response(lambda answer: answer.url.endswith("/v1/events") and answer.status == 502):
        assert own.stop() == 0
    expect(note).to_contain_text("The service answers 502. What is shown is from")
    # Alone a browser would not ask for events again after that.
    with page.expect_response(lambda answer: answer.url.endswith("/v1/events") and answer.status == 200):
        own.start()
    expect(note).to_be_hidden()
    assert own.daemon.hotmatte("pause", "in").returncode == 0
    expect(state).to_have_text("paused")
    button = page.get_by_role("article", name="in").get_by_role("button", name="Resume in")
    expect(button).to_be_visible()
    assert own.daemon.hotmatte("keys", "revoke", "shortlived").returncode == 0
    button.click()
    expect(note).to_contain_text("You are not logged in any more")
    note.get_by_role("link", name="Log in").click()
    page.wait_for_url(f"{own.front}/login")
