"""Where the threads of another process are, by py-spy: sampled from outside, the process is not stopped.

The kernel lets it look at processes of ours where `ptrace_scope` is 0, or for root.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

COMMAND = Path(sysconfig.get_path("scripts")) / "py-spy"
RATE = 500  # a second
_LONGEST_S = 3600

# The outermost call first, each as "function (file:line)".
Stack = tuple[str, ...]


@dataclass(slots=True)
class Samples:
    """How often each stack was found; empty until recording ends.

    `lost`: looks that found somebody, but a stack that changed while it was read; taken to be like the others.
    """

    stacks: dict[Stack, int] = field(default_factory=dict)
    lost: int = 0

    def seconds(self, wanted: Callable[[Stack], bool] = lambda _: True) -> float:
        """How long threads were in stacks that are `wanted`, added up over all of them."""
        found = sum(self.stacks.values())
        share = (found + self.lost) / found if found else 1.0
        return share * sum(count for stack, count in self.stacks.items() if wanted(stack)) / RATE


def runs(stack: Stack, function: str, file: str) -> bool:
    """Whether `function` of `file`, a name with its folder, is called anywhere in `stack`."""
    return any(call.startswith(f"{function} (") and f"/{file}:" in call for call in stack)


@contextmanager
def recording(pid: int, raw: Path, *, only_gil: bool) -> Iterator[Samples]:
    """Sample `pid` within the block: its threads that hold the GIL, or all. `raw`: where the samples go."""
    which = "--gil" if only_gil else "--idle"
    command = [str(COMMAND), "record", which, "--nonblocking", "--rate", str(RATE), "--format", "raw"]
    command += ["--output", str(raw), "--duration", str(_LONGEST_S), "--pid", str(pid)]
    samples = Samples()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as spy:
        assert spy.stdout is not None
        said = []
        for line in spy.stdout:
            said.append(line)
            if "Sampling process" in line:
                break
        else:
            raise RuntimeError(f"py-spy cannot look at process {pid}: {''.join(said)[-2000:]}")
        try:
            yield samples
        finally:
            spy.send_signal(signal.SIGINT)
            last, _ = spy.communicate(timeout=60)
    samples.stacks = _parsed(raw.read_text(encoding="utf-8"))
    samples.lost = _lost(last)


def _parsed(text: str) -> dict[Stack, int]:
    """Each line is a stack, its calls apart by `;`, and how often it was found."""
    found = {}
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        # A process that is not stopped may change while it is read: a name may be garbage, with a line end in it.
        if count.isdigit():
            found[tuple(stack.split(";"))] = int(count)
    return found


def _lost(words: str) -> int:
    """What py-spy says last: of how many looks nothing came."""
    lost = re.search(r"Errors: (\d+)", words)
    return int(lost[1]) if lost else 0
