"""remove.bg's contract, by the client people have installed and by requests of our own."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
import removebg.removebg
import requests
from daemonrig import DaemonRig, jpeg
from PIL import Image
from removebg import RemoveBg
from webrig import PHOTO, WebRig

NPM_SCRIPT = Path(__file__).parents[1] / "rigs" / "remove_bg_client.js"
NPM_CLIENT = "remove.bg@1.3.0"


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebRig]:
    daemon = DaemonRig(tmp_path_factory.mktemp("removebg"), folders={"api": {"source": "delete"}})
    rig = WebRig(daemon, {"keys": "always", "max_upload_mb": 2, "requests_per_minute": 400})
    try:
        words = daemon.hotmatte("keys", "add", "client", "--scope", "read", "--scope", "upload")
        rig.key = words.stdout.strip()  # type: ignore[attr-defined]
        daemon.start()
        rig.start()
        yield rig
    finally:
        rig.close()
        daemon.close()


@pytest.fixture
def client(web: WebRig) -> Iterator[httpx.Client]:
    with web.client(**{"X-Api-Key": web.key}) as client:  # type: ignore[attr-defined]
        yield client


def ask(client: httpx.Client, photo: bytes | None = None, **fields: str) -> httpx.Response:
    files = {"image_file": ("a.png", PHOTO.read_bytes() if photo is None else photo)}
    return client.post("/v1.0/removebg", data={"size": "auto", **fields}, files=files)


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["errors"][0]["code"]


# --- The real client -----------------------------------------------------------------------


@pytest.fixture
def real(web: WebRig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RemoveBg:
    monkeypatch.setattr(removebg.removebg, "API_ENDPOINT", f"{web.url}/v1.0/removebg")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return RemoveBg(web.key, str(tmp_path / "errors.log"))  # type: ignore[attr-defined]


def test_the_real_client_gets_its_cutout(real: RemoveBg, tmp_path: Path) -> None:
    photo = tmp_path / "me.png"
    photo.write_bytes(PHOTO.read_bytes())
    real.remove_background_from_img_file(str(photo), size="regular")
    with Image.open(tmp_path / "me.png_no_bg.png") as cutout:
        assert cutout.mode == "RGBA"
        assert cutout.width * cutout.height <= 250_000
    text = base64.b64encode(PHOTO.read_bytes()).decode()
    real.remove_background_from_base64_img(
        text, size="4k", new_file_name=str(tmp_path / "b.jpg"), bg_color="red"
    )
    with Image.open(tmp_path / "b.jpg") as flat:
        assert (flat.format, flat.size) == ("JPEG", (512, 512))


def test_the_real_client_sees_errors_as_it_knows_them(real: RemoveBg) -> None:
    with pytest.raises(requests.HTTPError, match="400"):
        real.remove_background_from_img_url("http://127.0.0.1/secret.jpg")


@pytest.fixture(scope="module")
def npm_client(tmp_path_factory: pytest.TempPathFactory, real_part: Callable[..., None]) -> Path:
    """A folder with the client of npm, as `npm install` leaves it."""
    folder = tmp_path_factory.mktemp("npm")
    npm = Path(sys.executable).with_name("npm")
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", NPM_CLIENT]
    # node brings authorities of its own; those of this machine count as they do for pip.
    trusted = {"NODE_EXTRA_CA_CERTS": "/etc/ssl/certs/ca-certificates.crt"}
    environ = {**trusted, **os.environ, "PATH": f"{npm.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=110, check=False
    )
    real_part("npm's registry", done.returncode == 0, done.stderr[-2000:])
    shutil.copy(NPM_SCRIPT, folder)
    return folder


def test_the_client_of_npm_gets_its_cutouts_and_errors_as_it_knows_them(
    web: WebRig, npm_client: Path, tmp_path: Path
) -> None:
    cutout = tmp_path / "cutout.png"
    done = subprocess.run(
        [Path(sys.executable).with_name("node"), NPM_SCRIPT.name, web.key, PHOTO, cutout],  # type: ignore[attr-defined]
        cwd=npm_client,
        env={"SERVICE": web.url, "NO_PROXY": "127.0.0.1", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    said = json.loads(done.stdout)
    with Image.open(cutout) as image:
        assert (image.mode, image.size) == ("RGBA", (512, 512))
    assert said["file"]["bytes"] == cutout.stat().st_size
    assert (said["file"]["resultWidth"], said["file"]["resultHeight"]) == ("512", "512")
    assert said["base64"]["bytes"] > 1000
    assert [error["code"] for error in said["url"]] == ["invalid_image_url"], said
    assert [error["code"] for error in said["key"]] == ["auth_failed"], said


# --- The contract --------------------------------------------------------------------------


def test_the_answer_is_the_published_cutout_with_its_headers(web: WebRig, client: httpx.Client) -> None:
    answer = ask(client, format="png")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    published = max(web.daemon.out("api").glob("*.cutout.png"), key=lambda path: path.stat().st_mtime_ns)
    with Image.open(io.BytesIO(answer.content)) as got, Image.open(published) as there:
        assert got.tobytes() == there.tobytes()
    told = {name: answer.headers[f"x-{name}"] for name in ("width", "height", "type", "credits-charged")}
    assert told == {"width": "512", "height": "512", "type": "person", "credits-charged": "0"}
    box = [int(answer.headers[f"x-foreground-{side}"]) for side in ("left", "top", "width", "height")]
    assert 0 < box[2] <= 512
    assert 0 < box[3] <= 512
    assert int(answer.headers["x-ratelimit-remaining"]) < int(answer.headers["x-ratelimit-limit"]) == 400


def test_json_comes_where_it_is_asked_for(client: httpx.Client) -> None:
    body = {"image_file_b64": base64.b64encode(jpeg(7)).decode(), "size": "auto", "crop": True}
    answer = client.post("/v1.0/removebg", json=body, headers={"Accept": "application/json"})
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    with Image.open(io.BytesIO(base64.b64decode(data["result_b64"]))) as cutout:
        assert cutout.size == (data["foreground_width"], data["foreground_height"])
    prefixed = {"image_file_b64": "data:image/jpeg;base64," + body["image_file_b64"]}
    assert client.post("/v1.0/removebg", data=prefixed).status_code == 200


def test_a_zip_and_a_background_picture(client: httpx.Client) -> None:
    answer = ask(client, format="zip")
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist() == ["color.jpg", "alpha.png"]
    files = {
        "image_file": ("a.png", PHOTO.read_bytes()),
        "bg_image_file": ("b.jpg", jpeg(3, width=64, height=64)),
    }
    flat = client.post("/v1.0/removebg", files=files, data={"size": "preview"})
    assert flat.headers["content-type"] == "image/jpeg"


def test_each_wrong_request_has_its_code(web: WebRig, client: httpx.Client) -> None:
    assert code(client.post("/v1.0/removebg", data={"size": "auto"})) == (400, "missing_source")
    assert code(client.post("/v1.0/removebg", json={})) == (400, "missing_source")
    assert code(
        client.post("/v1.0/removebg", content=b"{", headers={"Content-Type": "application/json"})
    ) == (
        400,
        "invalid_request",
    )
    assert code(ask(client, image_url="http://example.org/a.jpg")) == (400, "multiple_sources")
    assert code(ask(client, b"no photo")) == (400, "failed_to_read_image")
    assert code(ask(client, bg_color="nope")) == (400, "invalid_bg_color")
    assert code(ask(client, b"x" * 3_000_000)) == (413, "file_too_large")
    assert code(client.post("/v1.0/removebg", data={"image_url": "http://example.org/a.jpg"})) == (
        400,
        "invalid_image_url",
    )
    assert code(client.post("/v1.0/removebg", data={"image_file_b64": "%%%"})) == (
        400,
        "failed_to_read_image",
    )
    # A picture in which the engine finds nobody: the fake one sees light.
    assert code(ask(client, black())) == (400, "unknown_foreground")
    # Its head is that of a photo, and its body is not.
    torn = jpeg(9, width=64, height=64)
    assert code(ask(client, torn[: len(torn) // 2] + bytes(400) + b"\xff\xd9"))[1] in (
        "failed_to_read_image",
        "unknown_foreground",
    )


def black() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 64)).save(out, "PNG")
    return out.getvalue()


def test_the_account_is_free(client: httpx.Client) -> None:
    attributes = client.get("/v1.0/account").json()["data"]["attributes"]
    assert attributes["credits"]["total"] == 0
    assert attributes["api"]["sizes"] == "all"


@pytest.mark.parametrize("key", [None, "", "wrong", "hm_00000000_" + "0" * 64])
def test_without_a_key_nothing_is_answered(web: WebRig, key: str | None) -> None:
    with web.client(**({} if key is None else {"X-Api-Key": key})) as stranger:
        for answer in (
            ask(stranger),
            stranger.get("/v1.0/account"),
            stranger.get("/v1/jobs"),
            stranger.get("/metrics"),
            stranger.get("/v1/events"),
            stranger.post("/v1/folders/api/pause"),
        ):
            assert code(answer) == (403, "auth_failed")
        assert stranger.get("/healthz").status_code == 200


def test_a_proxy_may_ask_for_health_without_a_body(web: WebRig) -> None:
    with web.client() as proxy:
        for path in ("/healthz", "/readyz"):
            bare, full = proxy.head(path), proxy.get(path)
            assert (bare.status_code, bare.content) == (full.status_code, b"")


def test_a_key_may_do_what_its_scopes_say(web: WebRig, client: httpx.Client) -> None:
    assert code(client.post("/v1/folders/api/pause")) == (403, "not_permitted")
    assert code(client.get("/metrics")) == (403, "not_permitted")
    assert client.get("/v1/folders").status_code == 200
    with web.client(Authorization=f"Bearer {web.key}") as other:  # type: ignore[attr-defined]
        assert other.get("/v1/folders").status_code == 200


def test_an_answer_that_takes_too_long_is_collected_later(web: WebRig, client: httpx.Client) -> None:
    headers = {"Idempotency-Key": "later"}
    files = {"image_file": ("a.jpg", jpeg(77))}
    assert web.daemon.hotmatte("pause", "api").returncode == 0
    second = WebRig(web.daemon, {"keys": "always", "wait_s": 0.2}, log="second.log")
    try:
        second.start()
        with second.client(**{"X-Api-Key": web.key}) as impatient:  # type: ignore[attr-defined]
            answer = impatient.post("/v1.0/removebg", files=files, headers=headers)
            assert code(answer) == (503, "timeout")
            assert web.daemon.hotmatte("resume", "api").returncode == 0
            job = impatient.get(answer.headers["location"]).json()
            web.daemon.wait_done(job["file"], "api")
            assert impatient.post("/v1.0/removebg", files=files, headers=headers).status_code == 200
    finally:
        second.close()
        web.daemon.hotmatte("resume", "api")


def test_those_who_wait_with_a_background_do_not_fill_the_memory(web: WebRig, client: httpx.Client) -> None:
    """A few kilobytes of one colour are 27 megapixels each."""
    behind = io.BytesIO()
    Image.new("RGB", (5200, 5200), "teal").save(behind, "PNG")
    assert web.child is not None
    memory = psutil.Process(web.child.pid).memory_info
    fill = {"image_file": ("a.jpg", PHOTO.read_bytes()), "bg_image_file": ("b.png", behind.getvalue())}
    assert ask_with(client, fill).status_code == 200
    before = memory().rss
    assert web.daemon.hotmatte("pause", "api").returncode == 0
    try:
        with ThreadPoolExecutor(12) as crowd:
            answers = [crowd.submit(ask_with, client, fill) for _ in range(12)]
            web.until(lambda: web.daemon.counts().get("queued") == 12)
            # As pixels they would be a gigabyte.
            assert memory().rss - before < 400e6
            assert web.daemon.hotmatte("resume", "api").returncode == 0
            assert [answer.result().status_code for answer in answers] == [200] * 12
    finally:
        web.daemon.hotmatte("resume", "api")


def test_a_background_that_would_keep_its_decoder_busy_is_refused(client: httpx.Client) -> None:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 150, 100)).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    last = content.rindex(b"\xff\xda")
    behind = content[:-2] + content[last:-2] * 200 + b"\xff\xd9"
    before = client.get("/v1/jobs").json()["jobs"]
    answer = ask_with(client, {"image_file": ("a.jpg", jpeg(90)), "bg_image_file": ("b.jpg", behind)})
    assert code(answer) == (400, "failed_to_read_image")
    assert "100 scans" in answer.json()["errors"][0]["detail"]
    assert client.get("/v1/jobs").json()["jobs"] == before


def ask_with(client: httpx.Client, files: dict[str, tuple[str, bytes]]) -> httpx.Response:
    return client.post("/v1.0/removebg", data={"size": "preview"}, files=files)


# --- rembg ---------------------------------------------------------------------------------


def test_rembg_s_clients_are_answered_too(client: httpx.Client) -> None:
    files = {"file": ("a.png", PHOTO.read_bytes())}
    with Image.open(io.BytesIO(client.post("/api/remove", files=files).content)) as cutout:
        assert (cutout.mode, cutout.size) == ("RGBA", (512, 512))
    with Image.open(io.BytesIO(client.post("/api/remove?om=true", files=files).content)) as mask:
        assert mask.mode == "L"
    green = client.post("/api/remove", files=files, params={"bgc": "0,255,0,255"})
    with Image.open(io.BytesIO(green.content)) as flat:
        assert flat.getchannel("A").getextrema() == (255, 255)
    assert code(client.post("/api/remove", files=files, params={"bgc": "green"})) == (400, "invalid_bg_color")
