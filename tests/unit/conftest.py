"""Sources and frames for the tests of the pipeline; what is wrong with a configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from written import written

from watcher.config import load
from watcher.domain import Frame, Job, Metadata, Source, Stamp
from watcher.errors import ConfigError


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


@pytest.fixture
def problems(tmp_path: Path) -> Callable[[str], list[str]]:
    """The problems of a configuration, without the path in front: `3: folders.in.path: ...`."""

    def of(text: str) -> list[str]:
        file = written(tmp_path, text)
        with pytest.raises(ConfigError) as caught:
            load(file)
        assert all(problem.startswith(f"{file}:") for problem in caught.value.problems)
        return [problem.removeprefix(f"{file}:") for problem in caught.value.problems]

    return of
