"""How much memory a worker has taken, of the host and of GPUs. Reads /proc and asks `nvidia-smi`.

Megabytes are 10^6 bytes throughout; `nvidia-smi` counts in MiB.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

_PATIENCE = 20.0


def host_peak_mb(pid: int) -> float | None:
    """The most of `pid` that was ever in memory at one time, shared pages in full (VmHWM of proc(5))."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return None


def gpu_mb_of(pid: int) -> float | None:
    """What `pid` holds on all GPUs together; None where the driver does not know it by this number.

    Drivers count processes outside containers, so that inside one `pid` may be unknown to them.
    """
    held = [used for owner, used in _rows("--query-compute-apps=pid,used_memory") if owner == str(pid)]
    return sum(held) if held else None


def gpu_mb_in_use() -> float | None:
    """What all processes together hold on all GPUs; None where nobody can tell."""
    held = [used for _, used in _rows("--query-gpu=index,memory.used")]
    return sum(held) if held else None


def _rows(query: str) -> Iterator[tuple[str, float]]:
    """(first column, second column in MB) of what `nvidia-smi` answers; none where it fails."""
    try:
        done = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader,nounits"],
            capture_output=True,
            timeout=_PATIENCE,
            check=True,
            text=True,
        )
    except (OSError, subprocess.SubprocessError):
        return
    for line in done.stdout.splitlines():
        key, _, mebibytes = (part.strip() for part in line.partition(","))
        # Some drivers say "[N/A]" of processes they cannot look into.
        if mebibytes.isdecimal():
            yield key, int(mebibytes) * 1024 * 1024 / 1e6
