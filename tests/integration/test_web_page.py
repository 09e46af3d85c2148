"""The page in a real Chromium: clicked, typed, dropped on, looked at."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from daemonrig import DaemonRig, drop, jpeg
from playwright.sync_api import Browser, Page, expect, sync_playwright
from webrig import PHOTO, WebRig

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
# As long as the name of a hot folder may be.
LONG = "weddings-and-portraits-of-the-second-studio-in-the-old-town.2026"
BROKEN = jpeg(1)[:40] + b"not a photo any more" * 20


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebRig]:
    folders = {"studio": {}, "other": {"profile": "plain"}, LONG: {"profile": "plain"}}
    profiles = {"portrait": {"model": "fake", "device": "cpu"}, "plain": {"model": "fake", "device": "cpu"}}
    daemon = DaemonRig(tmp_path_factory.mktemp("page"), folders=folders, profiles=profiles)
    rig = WebRig(daemon)
    try:
        daemon.start()
        rig.start()
        drop(daemon.hot("studio") / "astronaut.png", PHOTO.read_bytes())
        daemon.wait_done("astronaut.png", "studio")
        yield rig
    finally:
        rig.close()
        daemon.close()


@pytest.fixture(scope="module")
def browser(real_part: Callable[..., None]) -> Iterator[Browser]:
    real_part("Chromium", CHROMIUM, "apt install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def opened(browser: Browser, web: WebRig, complaints: list[str]) -> Iterator[Callable[..., Page]]:
    """Opens pages that must not complain: no error of a script, of the policy, or of a request."""
    contexts = []

    def watched(page: Page) -> Page:
        page.set_default_timeout(10_000)
        # A photo that is done anew takes its time beside other tests.
        expect.set_options(timeout=20_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None,
        )
        return page

    def open_(path: str, **context: Any) -> Page:
        contexts.append(browser.new_context(**context))
        page = watched(contexts[-1].new_page())
        page.goto(web.url + path)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert complaints == []


def test_a_photo_that_is_dropped_into_the_folder_appears_by_itself(
    web: WebRig, opened: Callable[..., Page]
) -> None:
    page = opened("/")
    expect(page.locator(".folder")).to_have_count(3)
    expect(page.locator("[data-folder=studio] .state")).to_have_text("watching")
    drop(web.daemon.hot("studio") / "fresh.jpg", jpeg(200, width=64, height=80))
    tile = page.locator(".tile", has_text="fresh.jpg")
    expect(tile).to_be_visible()
    # The picture is there, not only its frame.
    page.wait_for_function(
        "[...document.querySelectorAll('.tile .front')].every(image => image.complete && image.naturalWidth)"
    )


def test_photos_are_uploaded_by_choosing_them_and_by_dragging(
    web: WebRig, opened: Callable[..., Page], complaints: list[str], eventually: Callable[..., object]
) -> None:
    page = opened("/")
    before = web.daemon.counts()["done"]
    page.set_input_files("#add-studio", [{"name": "a.jpg", "mimeType": "image/jpeg", "buffer": jpeg(201)}])
    eventually(lambda: web.daemon.counts()["done"] == before + 1)
    drag = """async ([selector, bytes]) => {
        const file = new File([new Uint8Array(bytes)], "dragged.jpg", {type: "image/jpeg"});
        const transfer = new DataTransfer();
        transfer.items.add(file);
        const target = document.querySelector(selector);
        for (const kind of ["dragenter", "dragover", "drop"])
            target.dispatchEvent(new DragEvent(kind, {bubbles: true, cancelable: true, dataTransfer: transfer}));
    }"""
    page.evaluate(drag, ["[data-folder=other]", list(jpeg(202))])
    eventually(lambda: web.daemon.counts()["done"] == before + 2)
    expect(page.locator("[data-folder=other] .figures div", has_text="done")).to_contain_text("1")
    page.set_input_files("#add-studio", [{"name": "b.jpg", "mimeType": "image/jpeg", "buffer": b"no photo"}])
    expect(page.locator(".uploads .failed")).to_contain_text("not a photo")
    eventually(lambda: complaints)
    assert "400" in complaints.pop()


def test_photos_are_taken_although_the_folders_are_drawn_anew_while_somebody_chooses(
    web: WebRig, opened: Callable[..., Page], eventually: Callable[..., object]
) -> None:
    page = opened("/")
    old = page.locator("#add-other").element_handle()
    with page.expect_file_chooser() as choosing:
        page.locator("label[for=add-other]").click()
    drop(web.daemon.hot("other") / "meanwhile.jpg", jpeg(210))
    web.daemon.wait_done("meanwhile.jpg", "other")
    page.wait_for_function("field => !field.isConnected", arg=old)
    before = web.daemon.counts()["done"]
    choosing.value.set_files([{"name": "chosen.jpg", "mimeType": "image/jpeg", "buffer": jpeg(211)}])
    eventually(lambda: web.daemon.counts()["done"] == before + 1)


def test_whoever_leaves_while_photos_are_on_their_way_is_asked(
    web: WebRig, opened: Callable[..., Page], eventually: Callable[..., object]
) -> None:
    page = opened("/")
    before = web.daemon.counts()["done"]
    page.on("dialog", lambda dialog: dialog.dismiss())
    page.locator("h2", has_text="Hot folders").click()  # or no browser would ask
    page.route("**/v1/jobs?*", lambda route: None)  # nothing arrives
    photos = [
        {"name": f"IMG_{number}.jpg", "mimeType": "image/jpeg", "buffer": jpeg(300 + number)}
        for number in range(60)
    ]
    page.set_input_files("#add-studio", photos)
    expect(page.locator("#left")).to_contain_text("60 photos are still on the way")
    # What is below is not pushed out of reach.
    box = page.locator("#uploads").bounding_box()
    assert box is not None
    assert box["height"] <= 0.4 * page.viewport_size["height"] + 1  # type: ignore[index]
    # Waited for by the browser's driver, which hears of nothing while we sleep.
    with page.expect_event("dialog") as question:
        page.get_by_role("link", name="Timings").click()
    assert question.value.type == "beforeunload"
    assert page.url == web.url + "/"
    page.unroute("**/v1/jobs?*")
    eventually(lambda: web.daemon.counts()["done"] == before + 60)
    expect(page.locator("#sent")).to_be_hidden()


def test_a_photo_gets_through_although_a_proxy_has_no_service_for_a_moment(
    web: WebRig, opened: Callable[..., Page], complaints: list[str], eventually: Callable[..., object]
) -> None:
    page = opened("/")
    before = web.daemon.counts()["done"]
    page.route("**/v1/jobs?*", lambda route: route.fulfill(status=502, body="<h1>Bad Gateway</h1>"), times=1)
    page.set_input_files("#add-studio", [{"name": "c.jpg", "mimeType": "image/jpeg", "buffer": jpeg(214)}])
    expect(page.locator("#uploads")).to_contain_text("The service answers 502. It is tried again")
    eventually(lambda: web.daemon.counts()["done"] == before + 1)
    assert "502" in complaints.pop()


def test_what_cannot_be_read_any_more_is_said_so_at_once(
    opened: Callable[..., Page], tmp_path: Path, complaints: list[str], eventually: Callable[..., object]
) -> None:
    page = opened("/")
    photo = tmp_path / "moved.jpg"
    photo.write_bytes(jpeg(212))
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<input type=file id=elsewhere>')")
    page.set_input_files("#elsewhere", photo)
    photo.unlink()
    page.evaluate("take(document.getElementById('elsewhere').files, 'studio')")
    expect(page.locator(".uploads .failed")).to_contain_text("It cannot be read")
    eventually(lambda: complaints)
    assert "ERR_FILE_NOT_FOUND" in complaints.pop()


def test_a_dozen_tabs_are_open_and_each_answers(opened: Callable[..., Page]) -> None:
    first = opened("/")
    tabs = [first, *(first.context.new_page() for _ in range(11))]
    for tab in tabs:
        tab.goto(first.url)
        expect(tab.locator(".folder")).to_have_count(3)
        # Another one is in front of it now.
        tab.evaluate(HIDE, True)
    first.evaluate(HIDE, False)
    first.locator("#hold-other").click()
    expect(first.locator("[data-folder=other] .state")).to_have_text("paused")
    first.locator("#hold-other").click()
    expect(first.locator("[data-folder=other] .state")).to_have_text("watching")


HIDE = """hidden => {
  Object.defineProperty(document, 'hidden', {get: () => hidden, configurable: true});
  document.dispatchEvent(new Event('visibilitychange', {bubbles: true}));
}"""


def test_a_photo_that_waits_shows_its_end_by_itself(web: WebRig, opened: Callable[..., Page]) -> None:
    page = opened("/")
    page.locator("#hold-studio").click()
    expect(page.locator("#hold-studio")).to_have_text("Resume")
    drop(web.daemon.hot("studio") / "patient.jpg", jpeg(213))
    record = web.until(lambda: web.daemon.record("patient.jpg", "studio"))
    waiting = opened(f"/job/{record.job.id}")
    expect(waiting.locator(".facts h2").first).to_have_text("queued")
    page.locator("#hold-studio").click()
    expect(waiting.locator(".facts h2").first).to_have_text("done")
    expect(waiting.locator("#viewer")).to_be_visible()


def test_a_folder_is_paused_and_resumed_by_keyboard(web: WebRig, opened: Callable[..., Page]) -> None:
    page = opened("/")
    page.locator("#hold-studio").focus()
    page.keyboard.press("Enter")
    expect(page.locator("[data-folder=studio] .state")).to_have_text("paused")
    expect(page.locator("#hold-studio")).to_have_text("Resume")
    drop(web.daemon.hot("studio") / "held.jpg", jpeg(203))
    expect(page.locator("[data-folder=studio] .figures div", has_text="waiting")).to_contain_text("1")
    page.locator("#hold-studio").press("Enter")
    expect(page.locator("[data-folder=studio] .state")).to_have_text("watching")
    web.daemon.wait_done("held.jpg", "studio")


def test_a_failure_says_why_and_is_tried_again(
    web: WebRig, opened: Callable[..., Page], eventually: Callable[..., object]
) -> None:
    def ended(name: str) -> float | None:
        found = web.daemon.record(name, "studio")
        assert found is not None
        return found.ended_at

    drop(web.daemon.hot("studio") / "<b>broken</b>.jpg", BROKEN)
    record = web.daemon.wait_quarantined("<b>broken</b>.jpg", "studio")
    page = opened("/failures")
    row = page.locator(f"#f{record.job.id}")
    expect(row.locator(".name")).to_have_text("<b>broken</b>.jpg")
    expect(row.locator(".reason")).not_to_be_empty()
    row.locator("button").click()
    eventually(lambda: ended("<b>broken</b>.jpg") != record.ended_at)
    (web.daemon.hot("studio") / "<b>broken</b>.jpg").unlink()
    expect(row).to_have_count(0)


def test_a_flagged_matte_is_accepted_or_done_anew_elsewhere(web: WebRig, opened: Callable[..., Page]) -> None:
    for name, seed in (("flat.jpg", 204), ("flatter.jpg", 205)):
        drop(web.daemon.hot("studio") / name, jpeg(seed, width=40, height=40))
        web.daemon.wait_done(name, "studio")
    page = opened("/review")
    accepted, redone = (
        page.locator(".review", has_text="flat.jpg"),
        page.locator(".review", has_text="flatter.jpg"),
    )
    seen = opened("/")
    tile = seen.locator(".tile", has_text="flat.jpg")
    expect(tile).to_have_class("tile flagged")
    badge = seen.locator("#to-review .count")
    before = int(badge.text_content() or 0)
    accepted.get_by_role("button", name="Accept").click()
    expect(accepted).to_have_count(0)
    # Everywhere, at once.
    expect(badge).to_have_text(str(before - 1))
    expect(tile).to_have_class("tile")
    tile.click()
    expect(seen.get_by_role("button", name="Accept")).to_have_count(0)
    redone.get_by_role("combobox").select_option("other")
    redone.get_by_role("button", name="Redo there").click()
    expect(redone).to_have_count(0)
    web.daemon.wait_done("flatter.jpg", "other")
    assert (web.daemon.out("other") / "flatter.cutout.png").exists()
    assert (web.daemon.out("studio") / "flatter.cutout.png").exists()


def test_the_viewer_compares_zooms_and_walks(web: WebRig, opened: Callable[..., Page]) -> None:
    record = web.daemon.record("astronaut.png", "studio")
    assert record is not None
    page = opened(f"/job/{record.job.id}")
    layers = page.locator("#layers")
    box = layers.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] * 0.25, box["y"] + box["height"] / 2)
    assert page.locator("#split").input_value() == "25"
    page.locator("#split").fill("80")
    assert "80%" in str(layers.get_attribute("style"))
    page.keyboard.press("Tab")
    page.locator("#screen").focus()
    page.keyboard.press("3")
    expect(page.locator(".layer.matte")).to_be_visible()
    expect(page.locator(".layer.photo")).to_be_hidden()
    page.keyboard.press("z")
    expect(page.locator("#zoom")).to_have_attribute("aria-pressed", "true")
    matte = page.locator(".layer.matte").bounding_box()
    assert matte is not None
    assert (matte["width"], matte["height"]) == (512, 512)
    page.keyboard.press("z")
    for kind in ("white", "black", "own", "checker"):
        page.keyboard.press("b")
        assert page.evaluate("document.documentElement.dataset.backdrop") == kind
    with page.expect_download() as download:
        page.get_by_role("link", name="cutout").click()
    assert download.value.suggested_filename == "astronaut.cutout.png"
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(lambda url: not url.endswith(f"/job/{record.job.id}"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_wider_than_a_phone_or_too_faint_to_read(
    web: WebRig, opened: Callable[..., Page], scheme: str
) -> None:
    record = web.daemon.record("astronaut.png", "studio")
    assert record is not None
    page = opened(
        "/", viewport={"width": 360, "height": 740}, color_scheme=scheme, has_touch=True, is_mobile=True
    )
    for path in ("/", "/review", "/failures", "/timings", f"/job/{record.job.id}"):
        page.goto(web.url + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
        faint = page.evaluate(CONTRAST)
        assert faint == [], (path, faint)
    # What fingers press is large enough for them.
    page.goto(web.url)
    small = page.evaluate(
        "[...document.querySelectorAll('button, .button')].filter(b => b.offsetParent && b.offsetHeight < 40).map(b => b.outerHTML)"
    )
    assert small == []


# Text against what lies behind it, after WCAG 2.2 (1.4.3): at least 4.5, large text 3.
CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const level = (c) => { const s = c / 255; return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4; };
  const light = ([r, g, b]) => 0.2126 * level(r) + 0.7152 * level(g) + 0.0722 * level(b);
  const behind = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) layers.push(rgba(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((under, [r, g, b, a]) =>
      [r, g, b].map((c, i) => c * a / 255 + under[i] * (1 - a / 255)), [255, 255, 255]);
  };
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement, words = walker.currentNode.data.trim();
    if (!words || !node.offsetParent || node.closest('.hidden, .gone, .skip, script, svg')) continue;
    const style = getComputedStyle(node), [a, b] = [light(rgba(style.color)), light(behind(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) faint.push(`${words}: ${ratio.toFixed(2)}`);
  }
  return faint;
}"""


def test_the_page_works_without_scripts(web: WebRig, opened: Callable[..., Page]) -> None:
    page = opened("/", java_script_enabled=False)
    page.locator("#hold-other").click()
    expect(page.locator("[data-folder=other] .state")).to_have_text("paused")
    page.locator("#hold-other").click()
    expect(page.locator("#hold-other")).to_have_text("Pause")
