"""A configuration in a file, for the tests of how it is read."""

from __future__ import annotations

import textwrap
from pathlib import Path

LEAST = "folders:\n  in:\n    path: in\n    output: out\n"


def written(tmp_path: Path, text: str = LEAST) -> Path:
    file = tmp_path / "hotmatte.yaml"
    file.write_text(textwrap.dedent(text), encoding="utf-8")
    return file
