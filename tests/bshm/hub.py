"""The ModelScope hub on loopback, as far as `snapshot_download` of old and new SDKs asks for it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

MODEL = "damo/cv_unet_image-matting"


class Hub:
    """One model. `cuts` holds, for each download to come, after how many bytes the line breaks."""

    def __init__(self, files: dict[str, bytes], *, tags: tuple[str, ...] = ("v1.0.1",)) -> None:
        self.files = files
        self.tags = tags
        self.cuts: list[int] = []
        self.asked: list[str] = []
        self.ranges: list[str] = []
        self.lies = False
        self.url = ""

    def listing(self) -> dict[str, object]:
        return {"Files": [self._entry(name, content) for name, content in self.files.items()]}

    def _entry(self, name: str, content: bytes) -> dict[str, object]:
        return {
            "Name": name.rpartition("/")[2],
            "Path": name,
            "Type": "blob",
            "Size": len(content),
            "Sha256": hashlib.sha256(content).hexdigest(),
            "Revision": "5f3c1d2a9b8e7f60514233241506978877665544",
            "CommittedDate": 1660000000,
            "Mode": "33188",
            "IsLFS": len(content) > 1000,
        }

    def revisions(self) -> dict[str, object]:
        named = [{"Revision": tag, "CreatedAt": 1660000000} for tag in self.tags]
        return {"RevisionMap": {"Branches": [{"Revision": "master", "CreatedAt": 1660000000}], "Tags": named}}


def _answer_of(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            hub.asked.append(f"{self.command} {self.path}")
            url = urlsplit(self.path)
            base = f"/api/v1/models/{MODEL}"
            known = {"Revision": ["master"]} | parse_qs(url.query)
            if known["Revision"][0] not in ("master", *hub.tags):
                self._json({"Code": 10010205001, "Message": "no such revision", "Success": False}, 404)
            elif url.path == base:
                self._json(self._whole({"Name": MODEL.partition("/")[2], "Path": "damo", "Id": 1}))
            elif url.path == f"{base}/revisions":
                self._json(self._whole(hub.revisions()))
            elif url.path == f"{base}/repo/files":
                self._json(self._whole(hub.listing()))
            elif url.path == f"{base}/repo" and known.get("FilePath", [""])[0] in hub.files:
                self._content(hub.files[known["FilePath"][0]])
            else:
                self._json({"Code": 10010200001, "Message": "not found", "Success": False}, 404)

        def _whole(self, content: object) -> dict[str, object]:
            return {"Code": 200, "Data": content, "Message": "success", "RequestId": "1", "Success": True}

        def _json(self, content: object, status: int = 200) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def _content(self, content: bytes) -> None:
            wanted = self.headers.get("Range")
            first, _, last = (wanted or "bytes=0-").removeprefix("bytes=").partition("-")
            start, end = int(first), int(last or len(content) - 1)
            if wanted:
                hub.ranges.append(wanted)
            body = content[start : end + 1]
            if hub.lies:
                body = bytes(len(body))
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{len(content)}")
            self.end_headers()
            if self.command == "HEAD":
                return
            cut = hub.cuts.pop(0) if hub.cuts else len(body)
            self.wfile.write(body[:cut])
            self.close_connection = cut < len(body)

    return Answer


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """`hub` on a free port of loopback; its address is then `hub.url`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _answer_of(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
