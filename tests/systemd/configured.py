"""How the installed service is configured in these tests: on an engine that needs no weights."""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
# Makes hung and lost photos matter within a test's patience.
QUICK = {"quiet_s": 0.1, "create": True, "scan_interval_s": 60}
CARD = """\
name: {name}
title: Luminance, no matte at all
engine: fake
licence: {{weights: none, code: Apache-2.0, attribution: hotmatte, commercial: true, url: "https://example.org"}}
input: {{short_side: 64, multiple: 1, max_side: 512}}
max_batch: 1
max_batch_cpu: 1
warmup: [8, 8]
options: {{latency_s: {latency_s}}}
"""


def settings(hot: str = "/srv/hotmatte/hot", out: str = "/srv/hotmatte/mattes", **more: object) -> str:
    """A configuration on the fake engine."""
    return yaml.safe_dump(
        {
            "state_dir": "/var/lib/hotmatte",
            "folders": {"hot": {**QUICK, "path": hot, "output": out}},
            "profiles": {"portrait": {"model": "quick", "device": "cpu"}},
            "models": {"cards": "/etc/hotmatte/cards", "cache": "/var/cache/hotmatte/models"},
            # The photos of a test are often the same one: the engine is to be asked each time.
            "cache": {"size_mb": 0},
            **more,
        }
    )
