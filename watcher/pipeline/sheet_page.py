"""One page of a contact sheet as HTML that needs nothing but itself. Pure: no file is looked at.

No script, nothing loaded: thumbnails are inside. Every name comes from strangers and is escaped.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import quote

# How a sheet of ours is known; the digest of what it shows follows.
MARK = '<meta name="hotmatte-contact-sheet" content="'


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture of an entry: `jpeg` bytes or None, and where it leads, relative to the sheet, or None."""

    what: str
    jpeg: bytes | None
    link: str | None


@dataclass(frozen=True, slots=True)
class Row:
    """One photo. `name` is printable; `files`: (label, link) of everything published for it."""

    name: str
    time: str
    pictures: Sequence[Shown]
    files: Sequence[tuple[str, str]] = ()
    flags: Sequence[str] = ()
    note: str = ""
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Heading:
    """What stands above: `first` is the number of the page's first photo, `of` how many the page has."""

    folder: str
    day: str
    first: int
    of: int
    earlier: str | None = None
    later: str | None = None


def page(heading: Heading, figures: Iterable[str], *, digest: str, flagged: int, failed: int) -> bytes:
    """The whole file, UTF-8; `figures` as `figure` makes them."""
    parts = [_head(heading, digest), _top(heading, flagged, failed)]
    parts += ["<main>\n", *figures, "</main>\n", _turn(heading), "</body></html>\n"]
    return "".join(parts).encode("utf-8", "replace")


def figures_in(content: bytes) -> dict[str, str]:
    """The figures of an earlier page, by their keys."""
    text = content.decode("utf-8", "replace")
    return {found["key"]: found[0] for found in _FIGURE.finditer(text)}


# In text and attributes every < is escaped, so that the end found is the end.
_FIGURE = re.compile(r'<figure class="\w+" data-key="(?P<key>[0-9a-f]{64})">.*?</figure>\n', re.DOTALL)


def link_to(path: str) -> str:
    """A relative path as an address; bytes that are no UTF-8 are kept."""
    quoted = quote(path.encode("utf-8", "surrogateescape"), safe="/")
    # `a:b.png` would be taken for an address with the scheme `a`.
    return quoted if quoted.startswith(".") else f"./{quoted}"


def _head(heading: Heading, digest: str) -> str:
    title = escape(f"{heading.folder}, {heading.day}")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'{MARK}{escape(digest)}">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style></head>\n<body>\n"
    )


def _top(heading: Heading, flagged: int, failed: int) -> str:
    last = heading.first + heading.of - 1
    counts = (f", {flagged} to look at" if flagged else "") + (f", {failed} failed" if failed else "")
    return (
        f"<header><h1>{escape(heading.folder)}</h1>"
        f"<p>{escape(heading.day)}, photos {heading.first} to {last}{counts}</p></header>\n{_turn(heading)}"
    )


def _turn(heading: Heading) -> str:
    ways = ((heading.earlier, "&larr; earlier"), (heading.later, "later &rarr;"))
    links = [f'<a href="{escape(to)}">{words}</a>' for to, words in ways if to]
    return f"<nav>{' '.join(links)}</nav>\n" if links else ""


def figure(row: Row, *, key: str) -> str:
    """One photo; `key`, 64 hex digits, says what it was made from."""
    kind = "failed" if row.reason else "review" if row.flags else "good"
    pictures = "".join(_picture(shown, row.name) for shown in row.pictures)
    badges = "".join(f'<b class="flag">{escape(flag.replace("_", " "))}</b> ' for flag in row.flags)
    return (
        f'<figure class="{kind}" data-key="{key}"><div class="trio">{pictures}</div>\n'
        f"<figcaption><strong>{escape(row.name)}</strong> {badges}<small>{escape(row.time)}"
        f"{escape(row.note)}</small>{''.join(_words(row))}{_files(row)}</figcaption></figure>\n"
    )


def _picture(shown: Shown, name: str) -> str:
    label = escape(f"{shown.what} of {name}")
    if shown.jpeg is None:
        inner = f'<span class="none">no {escape(shown.what)} to show</span>'
    else:
        encoded = base64.b64encode(shown.jpeg).decode("ascii")
        inner = f'<img alt="{label}" src="data:image/jpeg;base64,{encoded}">'
    return inner if shown.link is None else f'<a href="{escape(shown.link)}" title="{label}">{inner}</a>'


def _words(row: Row) -> Iterator[str]:
    if row.reason:
        yield f'<p class="reason"><b class="flag">failed</b> {escape(row.reason)}</p>'
    if row.remedy:
        yield f"<p>{escape(row.remedy)}</p>"


def _files(row: Row) -> str:
    if not row.files:
        return ""
    links = ", ".join(f'<a href="{escape(link)}">{escape(label)}</a>' for label, link in row.files)
    return f'<p class="files">{links}</p>'


_STYLE = """
:root{--ink:#1b1b1b;--soft:#666;--paper:#fff;--card:#f4f4f2;--line:#ddd;--flag:#9a5b00;--bad:#b00020}
@media(prefers-color-scheme:dark){:root{--ink:#e8e8e6;--soft:#a5a5a2;--paper:#161616;--card:#222;--line:#3a3a3a;
--flag:#ffb454;--bad:#ff7b86}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:110rem;background:var(--paper);color:var(--ink);
font:15px/1.4 system-ui,sans-serif}
header{display:flex;gap:1rem;align-items:baseline;flex-wrap:wrap}
h1{margin:0;font-size:1.4rem}
header p,small{color:var(--soft)}
nav{margin:.5rem 0;display:flex;gap:1.5rem}
a{color:inherit}
main{display:grid;grid-template-columns:repeat(auto-fill,minmax(26rem,1fr));gap:1rem}
figure{margin:0;padding:.6rem;background:var(--card);border:1px solid var(--line);border-radius:6px;
break-inside:avoid;min-width:0}
figure.review{border-color:var(--flag)}
figure.failed{border-color:var(--bad)}
.trio{display:grid;grid-template-columns:repeat(3,1fr);gap:.4rem;align-items:center}
.trio>*{min-width:0;display:block;text-align:center}
img{max-width:100%;max-height:240px;display:block;margin:0 auto}
.none{display:grid;place-items:center;min-height:6rem;border:1px dashed var(--line);color:var(--soft);
font-size:.8rem;padding:.3rem}
figcaption{margin-top:.5rem;overflow-wrap:anywhere}
figcaption p{margin:.2rem 0 0}
.flag{color:var(--flag);font-size:.85rem}
.reason,.reason .flag{color:var(--bad)}
.files{font-size:.8rem;color:var(--soft)}
@media(max-width:30rem){main{grid-template-columns:1fr}}
@media print{:root{--ink:#000;--soft:#444;--paper:#fff;--card:#fff;--line:#bbb;--flag:#7a4800;--bad:#900}
body{padding:0;font-size:9pt}main{grid-template-columns:1fr 1fr;gap:4mm}.files,nav{display:none}
img{max-height:45mm;-webkit-print-color-adjust:exact;print-color-adjust:exact}}
"""
