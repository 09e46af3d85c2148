"""The `hotmatte` command: parses, calls one command, turns what went wrong into one line.

Only the module of the command that is asked for is imported: `--help` must be quick.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from watcher import __version__

# Exit statuses that cannot be imported yet: see exits.py.
OK, USAGE, INTERRUPTED = 0, 64, 130

COMMANDS = {
    "run": "watch the hot folders until told to stop",
    "node": "work for the watchers of other hosts",
    "matte": "make mattes of photos or folders now, without a daemon",
    "submit": "copy photos into a hot folder",
    "status": "what the daemon is doing",
    "failed": "list the photos that failed, and why",
    "retry": "try failed photos again",
    "reload": "make the daemon read its configuration again",
    "rescan": "make the daemon list its folders and try paused ones now",
    "pause": "pause a hot folder by hand",
    "resume": "go on with a hot folder that was paused by hand",
    "accept": "accept what lies under a hot folder that went offline as another disk",
    "web": "serve the page, the API and the numbers",
    "notify": "send a test message to whoever is told what happens",
    "keys": "make, list and revoke API keys for the service",
    "backup": "copy the journal to a file, also while the daemon runs",
    "restore": "put such a copy back",
    "cache": "show or clear what need not be computed again",
    "models": "list, fetch and verify models",
    "sheet": "write a contact sheet of a day's photos as one HTML file",
    "evaluate": "compare mattes with the truth: SAD, MSE, Grad, Conn",
    "bench": "measure every model that is installed, beside published figures",
    "doctor": "look for what could go wrong on this machine",
    "check-config": "report every problem of a configuration file",
}

# Those that go on, or are started again, by themselves.
DAEMONS = ("run", "node", "web")

EPILOG = """\
to begin:
  hotmatte run                       watch ./hot, write mattes to ./mattes
  hotmatte matte photo.jpg -d out    one photo, now
  hotmatte status --watch            follow the work

The configuration is --config FILE, or $HOTMATTE_CONFIG, or ./hotmatte.yaml, or
/etc/hotmatte/hotmatte.yaml; without any, the embedded default is used.

exit status: 0 all went well, 64 wrong usage, 65 some photo failed, 69 no engine or no daemon,
70 a bug, 74 the disk or a share refused, 75 no answer in time, 78 wrong configuration.
"""


class Parser(argparse.ArgumentParser):
    """argparse exits with 2; sysexits says 64."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {message}\nSee `{self.prog} --help`.\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    # In NumPy and in OpenCV alike it starts threads on every core, in each of our processes; nothing here is large enough for them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    words = list(sys.argv[1:] if argv is None else argv)
    chosen = next((word for word in words if word in COMMANDS), None)
    if chosen in ("run", "web"):
        # To read the configuration again before it was read must not end it: daemon.py and serve.py hear of them when they can.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGUSR1})
    module = _module(chosen) if chosen else None
    args = _parser(chosen, module).parse_args(words)
    if module is None:
        _parser(None, None).print_help()
        return USAGE if words else OK
    return _guarded(module, args)


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"watcher.commands.{command.replace('-', '_')}")


def _parser(chosen: str | None, module: ModuleType | None) -> Parser:
    common = Parser(add_help=False)
    common.add_argument(
        "--config", type=Path, metavar="FILE", default=argparse.SUPPRESS, help="configuration file to use"
    )
    parser = Parser(
        prog="hotmatte",
        description="Watches hot folders and publishes portrait mattes.",
        epilog=EPILOG,
        parents=[common],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"hotmatte {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, help_ in COMMANDS.items():
        own = subparsers.add_parser(
            name,
            help=help_,
            parents=[common],
            description=(module.__doc__ if module and name == chosen else help_),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if module and name == chosen:
            module.configure(own)
    return parser


def _guarded(module: ModuleType, args: argparse.Namespace) -> int:
    from watcher import config
    from watcher.errors import ConfigError, WatcherError
    from watcher.exits import exit_status
    from watcher.wording import by_hand

    try:
        args.config = getattr(args, "config", None) or config.find()
        if getattr(module, "NEEDS_SETTINGS", True):
            status: int = module.run(args, config.load(args.config))
        else:
            status = module.run(args)
    except ConfigError as error:
        for problem in error.problems:
            print(f"hotmatte: {problem}", file=sys.stderr)
        print(f"hotmatte: {error.remedy}", file=sys.stderr)
        return exit_status(error)
    except WatcherError as error:
        remedy = error.remedy if args.command in DAEMONS else by_hand(error.remedy)
        print(f"hotmatte: {error}. {remedy}", file=sys.stderr)
        return exit_status(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # `hotmatte failed | head`: the reader has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except Exception as error:  # noqa: BLE001  (the end of the command)
        return _unexpected(error)
    return status


def _unexpected(error: Exception) -> int:
    """What no command expects: a place that this user may not enter, a disk that fails; or a bug."""
    from watcher.domain import printable
    from watcher.errors import HOST_ERRNOS, WatcherError
    from watcher.exits import BUG, IO

    if isinstance(error, OSError) and (isinstance(error, PermissionError) or error.errno in HOST_ERRNOS):
        where = (
            printable(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else "the disk"
        )
        remedy = "Run it as the user of the daemon (sudo -u hotmatte hotmatte ...), or give this user access."
        if not isinstance(error, PermissionError):
            remedy = "Restore access, then run it again."
        print(f"hotmatte: {where}: {error.strerror or error}. {remedy}", file=sys.stderr)
        return IO
    traceback.print_exception(error)
    print(f"hotmatte: unexpected error. {WatcherError.remedy}", file=sys.stderr)
    return BUG
