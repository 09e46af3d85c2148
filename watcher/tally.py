"""What a lane of the dispatcher holds, has done and waits for; written by its thread, read by any."""

from __future__ import annotations

from dataclasses import dataclass, field

from watcher.domain import Job

# Stands for all folders of a lane, where something is said of each.
ENGINE = "*engine"
# Retiring a photo takes less, but for a large one over a slow line.
STUCK_S = 10.0


@dataclass(frozen=True, slots=True)
class Pause:
    """Why a folder (or the engine) waits, and until when (monotonic)."""

    reason: str
    remedy: str
    until: float
    times: int


CROWDED = Pause(
    "many photos that are done wait to be retired: the file system is slow, or does not answer",
    "See to the share of the archive, or of the hot folder; work goes on by itself.",
    0.0,
    0,
)


@dataclass(frozen=True, slots=True)
class LaneStatus:
    """What a lane is doing; `since` is monotonic. `shut`: why some sub-folders of a folder wait, by its name."""

    folders: tuple[str, ...]
    running: tuple[tuple[Job, float], ...]
    pauses: dict[str, Pause]
    done: int
    quarantined: int
    shut: dict[str, list[Pause]] = field(default_factory=dict)


@dataclass(slots=True)
class Tally:
    """`running`: jobs and since when (monotonic); `ending`: those done with but for their files."""

    done: int = 0
    quarantined: int = 0
    running: dict[Job, float] = field(default_factory=dict)
    ending: dict[Job, float] = field(default_factory=dict)

    def held(self) -> list[Job]:
        return [*self.running, *self.ending]

    def since(self) -> tuple[tuple[Job, float], ...]:
        """All that is held, the oldest first."""
        held = self.running.copy() | self.ending.copy()
        return tuple(sorted(held.items(), key=lambda item: item[1]))

    def let_go(self, job: Job) -> None:
        self.running.pop(job, None)
        self.ending.pop(job, None)

    def crowded(self, many: int) -> list[str]:
        """Folders that hold `many` jobs which are ending: their share is slow, or hangs."""
        ending = [job.source.folder for job in list(self.ending)]
        return [name for name in set(ending) if ending.count(name) >= many]

    def stuck(self, many: int, now: float) -> list[str]:
        """Those of them where nothing has ended for a while."""
        old = {job.source.folder for job, since in self.ending.copy().items() if now - since > STUCK_S}
        return [name for name in self.crowded(many) if name in old]
