"""Sources and frames for the tests of the pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from watcher.domain import Frame, Job, Metadata, Source, Stamp


@pytest.fixture
def job_of() -> Callable[..., Job]:
    def job(path: Path, *, root: Path | None = None, number: int = 1, folder: str = "hot") -> Job:
        relpath = str(path.relative_to(root or path.parent))
        return Job(number, Source(folder, relpath, Stamp.of(path.lstat())), 1, 1)

    return job


@pytest.fixture
def frame_of(tmp_path: Path) -> Callable[..., Frame]:
    """A frame around pixels; its source is a real file, so that its stamp can be checked."""

    def frame(pixels: np.ndarray, *, name: str = "a.jpg", number: int = 1, **more: object) -> Frame:
        path = tmp_path / "hot" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(b"the photo")
        source = Source("hot", name, Stamp.of(path.stat()))
        settings: dict[str, object] = {
            "opacity": None,
            "profile": None,
            "metadata": Metadata(),
            "proxy": np.zeros((8, 8, 3), np.uint8),
            "sha256": "0" * 64,
            "format": "JPEG",
            **more,
        }
        return Frame(job=Job(number, source, 1, 1), path=path, pixels=pixels, **settings)  # type: ignore[arg-type]

    return frame
