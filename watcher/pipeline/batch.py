"""Who travels together? A pure grouping of frames: no clock, no threads."""

from __future__ import annotations

from watcher.domain import Frame

Bucket = tuple[int, int]


class Batcher:
    """Groups frames whose proxies have the same shape; a suspect always travels alone.

    `max_delay` (seconds) bounds how long the first of a group waits for company.
    """

    def __init__(self, max_batch: int, max_delay: float) -> None:
        self._max_batch = max_batch
        self._max_delay = max_delay
        self._waiting: dict[Bucket, tuple[float, list[Frame]]] = {}

    @property
    def alone(self) -> bool:
        """Whether nobody ever waits for company."""
        return self._max_batch == 1

    def add(self, frame: Frame, now: float) -> list[Frame]:
        """The batch that `frame` completes, or an empty list while it waits for company."""
        if frame.job.suspect or self._max_batch == 1:
            return [frame]
        bucket = frame.proxy.shape[0], frame.proxy.shape[1]
        _, group = self._waiting.setdefault(bucket, (now, []))
        group.append(frame)
        if len(group) < self._max_batch:
            return []
        del self._waiting[bucket]
        return group

    def pop_overdue(self, now: float) -> list[list[Frame]]:
        """The groups whose first frame has waited long enough."""
        overdue = [bucket for bucket, (since, _) in self._waiting.items() if since + self._max_delay <= now]
        return [self._waiting.pop(bucket)[1] for bucket in overdue]

    def next_deadline(self) -> float | None:
        """When `pop_overdue` will have something, None while nobody waits."""
        return min((since + self._max_delay for since, _ in self._waiting.values()), default=None)
