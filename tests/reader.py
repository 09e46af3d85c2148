"""A client that reads every result the moment it has its final name, until stdin closes.

`python reader.py OUTPUT...` prints one JSON object: how often it looked, and all that it
must never have seen. What is promised: a file under a final name is whole; a sidecar is
valid JSON; and while a sidecar is there, so is every output it lists, with these very bytes.
"""

from __future__ import annotations

import hashlib
import json
import select
import sys
from pathlib import Path

import cv2
import numpy as np


class Reader:
    def __init__(self, outputs: list[Path]) -> None:
        self.outputs = outputs
        self.looks = {"files": 0, "sets": 0}
        self.violations: list[str] = []

    def look(self) -> None:
        for output in self.outputs:
            for path in output.rglob("*"):
                if path.name.startswith("."):
                    continue
                if path.name.endswith(".matte.json"):
                    self.read_set(output, path)
                elif path.suffix == ".png":
                    self.read_image(path)

    def read_image(self, path: Path) -> None:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return
        self.looks["files"] += 1
        # An end that is missing would be filled up by a lenient decoder.
        whole = content.endswith(b"\0\0\0\0IEND\xae\x42\x60\x82")
        if not whole or cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) is None:
            self.violations.append(f"{path} is not whole ({len(content)} bytes)")

    def read_set(self, output: Path, path: Path) -> None:
        before = self.content(path)
        if before is None:
            return
        try:
            sidecar = json.loads(before)
        except ValueError:
            self.violations.append(f"{path} is not JSON: {before[:80]!r}")
            return
        found = [self.content(output / item["path"]) for item in sidecar["outputs"]]
        if self.content(path) != before:
            return  # being replaced: nothing was promised
        self.looks["sets"] += 1
        for item, content in zip(sidecar["outputs"], found, strict=True):
            if content is None or hashlib.sha256(content).hexdigest() != item["sha256"]:
                what = "missing" if content is None else "another version"
                self.violations.append(f"{path} is there, but {item['path']} is {what}")

    def content(self, path: Path) -> bytes | None:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None


def main() -> None:
    reader = Reader([Path(word) for word in sys.argv[1:]])
    # A pause, so that it leaves the cores to the daemon; it ends as soon as stdin does.
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        reader.look()
    print(json.dumps({**reader.looks, "violations": reader.violations[:50]}))


if __name__ == "__main__":
    main()
