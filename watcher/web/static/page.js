// Keeps the parts of a page fresh, uploads photos, and moves the viewer. Everything else is plain HTML.
"use strict";

const one = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

function toast(words) {
  const note = document.createElement("p");
  note.className = "toast";
  note.textContent = words;
  one("#toasts").append(note);
  setTimeout(() => note.remove(), 6000);
}

async function complaint(answer) {
  try {
    const { errors } = await answer.json();
    return [errors[0].title, errors[0].detail].filter(Boolean).join(". ");
  } catch {
    return `The service answers ${answer.status}`;
  }
}

// --- Live parts ---------------------------------------------------------------------------

const shown = new Map();
let refreshing = false, again = false;

async function refresh() {
  if (refreshing) { again = true; return; }
  refreshing = true;
  try {
    await Promise.all([...all("[data-part]").map(refreshPart), ...all("[data-awaits]").map(refreshJob)]);
  } finally {
    refreshing = false;
    if (again) { again = false; setTimeout(refresh, 400); }
  }
}

// What is shown may be old: that is said, or a page without a service would look like a quiet day.
let fresh = new Date();

function stale(words, link) {
  const note = one("#stale");
  note.hidden = !words;
  if (!words) fresh = new Date();
  if (note.dataset.words === words) return;
  note.dataset.words = words;
  note.textContent = words && `${words} What is shown is from ${fresh.toLocaleTimeString()}. `;
  if (!link) return;
  const anchor = document.createElement("a");
  anchor.href = link;
  anchor.textContent = "Log in";
  note.append(anchor);
}

async function refreshPart(place) {
  const name = place.dataset.part;
  try {
    const answer = await fetch(`/part/${name}`, { headers: { "X-Page": location.pathname } });
    if (answer.status === 403) return stale("You are not logged in any more.", "/login");
    if (answer.status === 429) return;
    if (!answer.ok) return stale(`The service answers ${answer.status}.`);
    const html = await answer.text();
    stale("");
    // Nobody's open list or pressed button is taken away.
    const focus = document.activeElement;
    if (shown.get(name) === html || (focus && focus.tagName === "SELECT" && place.contains(focus))) return;
    shown.set(name, html);
    const id = focus && place.contains(focus) ? focus.id : "";
    place.innerHTML = html;
    if (id) document.getElementById(id)?.focus({ preventScroll: true });
  } catch { stale("The service cannot be reached."); }  // the next event asks again
}

// A photo that is not done yet has nothing to look at: once it is, the page is another one.
async function refreshJob(place) {
  try {
    const answer = await fetch(`/v1/jobs/${place.dataset.awaits}`);
    if (answer.status === 403) return stale("You are not logged in any more.", "/login");
    if (answer.status === 404) return stale("The photo was taken away before it was done.");
    if (answer.status === 429) return;
    if (!answer.ok) return stale(`The service answers ${answer.status}.`);
    const { state } = await answer.json();
    stale("");
    if (state !== place.dataset.state) location.reload();
  } catch { stale("The service cannot be reached."); }
}

function follow() {
  if (!one("[data-part], [data-awaits]")) return;
  let due = 0, stream = null;
  const soon = () => { if (!due) due = setTimeout(() => { due = 0; refresh(); }, 250); };
  const hush = () => { stream?.close(); stream = null; };
  const listen = () => {
    if (stream || document.hidden) return;
    stream = new EventSource("/v1/events");
    stream.addEventListener("change", soon);
    stream.addEventListener("error", ({ target }) => {
      soon();
      // A browser gives up where a proxy answers instead of the service, or nobody is logged in.
      if (target.readyState === EventSource.CLOSED && target === stream) { hush(); setTimeout(listen, 2000); }
    });
  };
  listen();
  // Ages grow although nothing happens; and a proxy may swallow the stream.
  setInterval(() => { if (!document.hidden) soon(); }, 30000);
  // Browsers open six connections to a host, for all tabs together: one that nobody sees must not hold any.
  addEventListener("visibilitychange", () => {
    if (document.hidden) return hush();
    listen();
    soon();
  });
  addEventListener("pagehide", hush);
  addEventListener("pageshow", listen);
}

addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.matches("[data-quick]")) return;
  event.preventDefault();
  const body = new URLSearchParams(new FormData(form));
  try {
    const answer = await fetch(form.action, { method: "POST", body, redirect: "manual", headers: { Accept: "application/json" } });
    if (!answer.ok && answer.type !== "opaqueredirect") toast(await complaint(answer));
  } catch { toast("The service cannot be reached"); }
  refresh();
});

// --- Behind the cutouts -------------------------------------------------------------------

function setBackdrop(kind, colour) {
  const root = document.documentElement;
  root.dataset.backdrop = kind;
  if (colour) root.style.setProperty("--own", colour);
  all("[data-backdrop].swatch").forEach((swatch) => swatch.setAttribute("aria-pressed", String(swatch.dataset.backdrop === kind)));
  all(".swatch.own").forEach((swatch) => swatch.classList.toggle("chosen", kind === "own"));
  try { localStorage.backdrop = JSON.stringify([kind, root.style.getPropertyValue("--own")]); } catch { /* private window */ }
}

function setUpBackdrops() {
  let kind = "checker", colour = "";
  try { [kind, colour] = JSON.parse(localStorage.backdrop); } catch { /* none kept */ }
  all("#colour").forEach((input) => {
    if (colour) input.value = colour;
    input.addEventListener("input", () => setBackdrop("own", input.value));
    input.addEventListener("click", () => setBackdrop("own", input.value));
  });
  setBackdrop(kind, colour);
  addEventListener("click", (event) => {
    const swatch = event.target.closest("button[data-backdrop]");
    if (swatch) setBackdrop(swatch.dataset.backdrop);
  });
}

// --- Uploads ------------------------------------------------------------------------------

const queue = [];
let sending = 0;
const AT_ONCE = 3;
// No service (of a proxy, too), no room, or a line that was still for too long.
const LATER = new Set([0, 408, 429, 502, 503, 504]);

function take(files, folder) {
  for (const file of files) {
    const row = document.createElement("div");
    row.className = "row";
    const name = document.createElement("span"), state = document.createElement("span"), bar = document.createElement("progress");
    name.className = "name";
    name.textContent = `${file.name} → ${folder}`;
    state.className = "dim";
    state.textContent = "waits";
    bar.max = 1;
    bar.value = 0;
    row.append(name, state, bar);
    one("#uploads").append(row);
    queue.push({ file, folder, row, state, bar, key: token(), tries: 0 });
  }
  pump();
}

function tell() {
  const left = queue.length + sending;
  one("#left").textContent = left ? `${left} ${left === 1 ? "photo is" : "photos are"} still on the way: leave this page open.` : "";
  one("#sent").hidden = !left && !one("#uploads .row");
}

// Not crypto.randomUUID: that is missing where the page is not served by TLS or loopback.
const token = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

function pump() {
  while (sending < AT_ONCE && queue.length) {
    sending += 1;
    const item = queue.shift();
    send(item).finally(() => { sending -= 1; pump(); });
  }
  tell();
}

async function send(item) {
  const { status, wait, words } = await post(item);
  if (status === 200 || status === 202) {
    item.state.textContent = "arrived";
    setTimeout(() => { item.row.remove(); tell(); }, 1500);
  } else if (status === 0 && !(await isReadable(item.file))) {
    failed(item, "It cannot be read: it was moved or changed, or is a folder. Choose the photos anew");
  } else if (LATER.has(status) && item.tries < 30) {
    // The key makes a second try of what did arrive harmless.
    item.tries += 1;
    item.state.textContent = status === 429 ? "waits for room" : `${words}. It is tried again`;
    await new Promise((done) => setTimeout(done, 1000 * Math.min(30, wait || item.tries)));
    return send(item);
  } else failed(item, words);
}

function failed(item, words) {
  item.row.classList.add("failed");
  item.state.textContent = words;
  item.bar.remove();
}

// By its first bytes. A slice of a file that is gone counts as read: it is an empty one.
async function isReadable(file) {
  const reader = file.stream().getReader();
  try {
    await reader.read();
    return true;
  } catch {
    return false;
  } finally {
    reader.cancel().catch(() => {});
  }
}

function post(item) {
  return new Promise((done) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/v1/jobs?folder=${encodeURIComponent(item.folder)}`);
    request.setRequestHeader("Idempotency-Key", item.key);
    request.setRequestHeader("Content-Type", item.file.type || "application/octet-stream");
    request.upload.onprogress = (event) => { if (event.lengthComputable) item.bar.value = event.loaded / event.total; };
    request.onloadend = () => {
      let words = request.status ? `The service answers ${request.status}` : "The service cannot be reached";
      try {
        const { code, title, detail } = JSON.parse(request.responseText).errors[0];
        words = [title, detail?.replace(/\.$/, "")].filter(Boolean).join(". ");
        if (code === "auth_failed") words = "You are not logged in any more. Log in, then choose the photos anew";
      } catch { /* no JSON */ }
      done({ status: request.status, wait: Number(request.getResponseHeader("Retry-After")), words });
    };
    item.state.textContent = "";
    request.send(item.file);
  });
}

function setUpUploads() {
  const zone = one("#dropzone");
  if (!zone) return;
  const chosen = ({ target }) => {
    if (!target.matches("[data-upload]")) return;
    take(target.files, target.dataset.upload);
    target.value = "";
  };
  addEventListener("change", chosen);
  // The folders may be drawn anew while somebody chooses: then only the old field, which is nowhere any more, is told.
  let choosing;
  addEventListener("click", ({ target }) => {
    if (target.matches("[data-upload]")) { choosing = target; choosing.onchange = chosen; }
  });
  addEventListener("beforeunload", (event) => {
    if (!queue.length && !sending) return;
    event.preventDefault();
    event.returnValue = true;  // for browsers before 2024
  });
  let depth = 0;
  const files = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
  const folderAt = (event) => event.target.closest?.("[data-folder]");
  const settle = () => {
    zone.hidden = depth === 0;
    document.body.classList.toggle("dropping", depth > 0);
    if (!depth) all(".over").forEach((card) => card.classList.remove("over"));
  };
  addEventListener("dragenter", (event) => { if (files(event)) { depth += 1; settle(); } });
  addEventListener("dragleave", (event) => { if (files(event)) { depth = event.relatedTarget ? Math.max(0, depth - 1) : 0; settle(); } });
  addEventListener("dragover", (event) => {
    if (!files(event)) return;
    event.preventDefault();
    all(".over").forEach((card) => card.classList.remove("over"));
    folderAt(event)?.classList.add("over");
  });
  addEventListener("drop", (event) => {
    if (!files(event)) return;
    event.preventDefault();
    depth = 0;
    settle();
    const cards = all("[data-folder]"), card = folderAt(event) || (cards.length === 1 ? cards[0] : null);
    if (card) take(event.dataTransfer.files, card.dataset.folder);
    else toast("Drop the photos on one of the hot folders");
  });
}

// --- The viewer ---------------------------------------------------------------------------

function setUpViewer() {
  const viewer = one("#viewer");
  if (!viewer) return;
  const screen = one("#screen"), layers = one("#layers"), zoom = one("#zoom"), split = one("#split");
  const show = (view) => {
    viewer.dataset.view = view;
    all("[data-show]").forEach((tab) => tab.setAttribute("aria-pressed", String(tab.dataset.show === view)));
  };
  const part = (value) => {
    if (!split) return;
    split.value = value;
    layers.style.setProperty("--split", `${Math.min(100, Math.max(0, value))}%`);
  };
  const setZoom = (on) => {
    viewer.classList.toggle("zoomed", on);
    zoom.setAttribute("aria-pressed", String(on));
    for (const layer of all(".layer")) {
      if (on && layer.dataset.full) { layer.src = layer.dataset.full; delete layer.dataset.full; }
      // One pixel of the photo is one of the screen.
      layer.style.width = on ? `${layer.getAttribute("width") / devicePixelRatio}px` : "";
    }
    if (on) screen.scrollTo((screen.scrollWidth - screen.clientWidth) / 2, (screen.scrollHeight - screen.clientHeight) / 3);
  };
  show(viewer.dataset.view);
  part(50);
  all("[data-show]").forEach((tab) => tab.addEventListener("click", () => show(tab.dataset.show)));
  zoom.addEventListener("click", () => setZoom(!viewer.classList.contains("zoomed")));
  split?.addEventListener("input", () => part(Number(split.value)));

  let held = null;
  screen.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    held = { x: event.clientX, y: event.clientY, left: screen.scrollLeft, top: screen.scrollTop };
    screen.setPointerCapture(event.pointerId);
    slide(event);
  });
  screen.addEventListener("pointermove", (event) => { if (held) slide(event); });
  for (const end of ["pointerup", "pointercancel"]) screen.addEventListener(end, () => { held = null; });
  function slide(event) {
    const zoomed = viewer.classList.contains("zoomed");
    if (zoomed && event.pointerType === "mouse") {
      screen.scrollTo(held.left - event.clientX + held.x, held.top - event.clientY + held.y);
    } else if (!zoomed && viewer.dataset.view === "compare") {
      const box = layers.getBoundingClientRect();
      part((100 * (event.clientX - box.left)) / box.width);
    }
  }

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
    const tabs = all("[data-show]"), number = Number(event.key);
    if (number >= 1 && number <= tabs.length) show(tabs[number - 1].dataset.show);
    else if (event.key === "z") setZoom(!viewer.classList.contains("zoomed"));
    else if (event.key === "b") cycle();
    else if (event.key === "ArrowLeft" && !viewer.classList.contains("zoomed")) one("#newer")?.click();
    else if (event.key === "ArrowRight" && !viewer.classList.contains("zoomed")) one("#older")?.click();
  });
  function cycle() {
    const kinds = ["checker", "white", "black", "own"], at = kinds.indexOf(document.documentElement.dataset.backdrop);
    setBackdrop(kinds[(at + 1) % kinds.length]);
  }
}

setUpBackdrops();
setUpUploads();
setUpViewer();
follow();
