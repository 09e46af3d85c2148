"""`python -m watcher` is `hotmatte`."""

import sys

from watcher.cli import main

sys.exit(main())
