"""A larger collection of photos and odd files, used where it is at hand; not part of the project.

Its `manifest.csv` says of each file what it is and what to expect of it.
"""

from __future__ import annotations

import os
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
COLLECTION = Path(os.environ.get("HOTMATTE_TEST_COLLECTION", CHECKOUT.parent / "shared" / "data"))
EXISTS = (COLLECTION / "manifest.csv").is_file()
REASON = f"no collection of photos at {COLLECTION} (HOTMATTE_TEST_COLLECTION names one)"
