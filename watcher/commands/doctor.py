"""Look for what could go wrong on this machine: each check is ok, warn or FAIL, with a remedy.

Run it as the user of the daemon: permissions, limits and caches are that user's. It writes
nothing but a probe file in each folder, which it removes, and changes nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import platform
import resource
import sys
from functools import partial
from pathlib import Path

from watcher.commands import doctor_engines, doctor_fleet, doctor_journal, doctor_places
from watcher.commands.findings import Finding, answered, exit_of, ok, warn
from watcher.config import Settings
from watcher.health import holder

NEEDS_SETTINGS = True


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON array")
    parser.add_argument(
        "--timeout",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="how long a folder or the broker may take to answer (10)",
    )


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Exit status: 0 without a FAIL, else 78, 69 or 74."""
    findings = []
    timeout = args.timeout
    fleet = doctor_fleet.fleet(settings, timeout=timeout)
    for group in (machine(), *places(settings, timeout=timeout), fleet, doctor_engines.engines(settings)):
        findings += group
        if not args.json:
            print("".join(f"{finding.lines()}\n" for finding in group), end="", flush=True)
    findings.append(daemon(settings))
    if args.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        print(findings[-1].lines())
    return exit_of(findings)


def places(settings: Settings, *, timeout: float) -> list[list[Finding]]:
    """Each folder by itself, so that one that hangs does not hide the others."""
    looks = [
        ("state_dir", partial(doctor_places.state, settings.state_dir)),
        ("journal", partial(doctor_journal.journal, settings)),
    ]
    for name, folder in settings.folders.items():
        looks.append((name, partial(doctor_places.hot_folder, name, folder)))
        looks.append((name, partial(doctor_places.results, name, folder)))
    limits = partial(doctor_places.inotify, settings.folders, budget=timeout / 2)
    return [answered(subject, look, timeout=timeout) for subject, look in [*looks, ("inotify", limits)]]


def machine() -> list[Finding]:
    """Python, umask, open files, systemd."""
    version = platform.python_version()
    return [ok("python", f"{version} at {sys.executable}"), _umask(), _open_files(), _systemd()]


def _umask() -> Finding:
    mask = os.umask(0o022)
    os.umask(mask)
    if mask & 0o055:
        words = f"{mask:03o}: others cannot read the results"
        return warn("umask", words, "Fine for one user; else UMask=0022 or 0002 in the service.")
    return ok("umask", f"{mask:03o}")


def _open_files() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 1024:
        return warn("open files", f"limited to {soft}", "ulimit -n 4096, or LimitNOFILE= in the service.")
    return ok("open files", f"limited to {soft}")


def _systemd() -> Finding:
    if importlib.util.find_spec("systemd") is not None:
        return ok("systemd-python", "is installed")
    if Path("/run/systemd/system").is_dir():
        remedy = "pip install 'hotmatte[systemd]' (needs gcc, pkg-config and libsystemd-dev)."
        return warn("systemd-python", "is not installed: not needed by hand, but as a service", remedy)
    return ok("systemd-python", "is not installed, and this machine does not run systemd")


def daemon(settings: Settings) -> Finding:
    pid = holder(settings.state_dir)
    return ok("daemon", f"runs as process {pid}" if pid is not None else "does not run")
