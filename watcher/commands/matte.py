"""Make mattes of photos or whole folders now, without a daemon.

  hotmatte matte photo.jpg                    results in ./results
  hotmatte matte -i photo.jpg -d out          the same, as BSHM's script spells it
  hotmatte matte shoot/ -d out                every photo below shoot/, sub-folders kept
  hotmatte matte -i https://example.org/a.jpg a photo by URL; addresses inside this network are refused

The exit status is 0 if every photo worked and 65 if one did not; the photos stay as they are.
"""

from __future__ import annotations

import argparse
import itertools
import os
import secrets
import stat
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from watcher import log
from watcher.cache_settings import opened
from watcher.commands.shared import device
from watcher.config import Folder, Profile, Settings
from watcher.domain import Job, Outcome, Source, Stamp, printable
from watcher.download import download, is_url
from watcher.endings import IMAGES
from watcher.engine.card import card_folders, load_card
from watcher.errors import (
    Action,
    ConfigError,
    InputError,
    RetryPolicy,
    WatcherError,
    disposition,
)
from watcher.exits import OK, SOME_FAILED, USAGE
from watcher.intake.names import Rules
from watcher.intake.scan import walk
from watcher.kept_urls import KeptUrls
from watcher.wording import by_hand

if TYPE_CHECKING:  # imported by what needs it: `hotmatte matte --help` is to be quick
    from watcher.commands.progress import Bar
    from watcher.pipeline.recipe import Recipe
    from watcher.pipeline.runner import Runner


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="*", metavar="FILE|DIR", help="photos, or folders of photos")
    parser.add_argument("-i", "--input", action="append", default=[], metavar="FILE|DIR", help="the same")
    parser.add_argument(
        "-d", "--output_dir", type=Path, default=Path("results"), metavar="DIR", help="default: ./results"
    )
    parser.add_argument("--profile", metavar="NAME", help="a recipe of the configuration; default: the first")
    parser.add_argument("--model", metavar="NAME", help="another model than the profile's")
    parser.add_argument("--device", type=device, metavar="DEVICE", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--no-recursive", action="store_true", help="not the sub-folders of a folder")
    parser.add_argument("--fresh", action="store_true", help="compute also what the cache knows")
    parser.add_argument("--quiet", action="store_true", help="say only what failed")


@dataclass(frozen=True, slots=True)
class _Root:
    """A folder that photos are taken from; `name` is what results call it: its path, or a URL."""

    name: str
    folder: Folder
    relpaths: tuple[str, ...]


def run(args: argparse.Namespace, settings: Settings) -> int:
    log.set_up("text", "warning")
    if not args.inputs and not args.input:
        print("hotmatte matte: name photos, folders or URLs; see `hotmatte matte --help`", file=sys.stderr)
        return USAGE
    if args.output_dir.exists() and not args.output_dir.is_dir():
        where = printable(str(args.output_dir))
        print(f"hotmatte matte: {where} is no folder; name one for the results with -d", file=sys.stderr)
        return USAGE
    profile_name, profile = _profile(args, settings)
    with tempfile.TemporaryDirectory(prefix="hotmatte-") as aside:
        roots, missing = _roots(args, Path(aside), settings)
        for name, reason in missing:
            print(f"hotmatte: {printable(name)}: {reason}", file=sys.stderr)
        return _run(args, settings, (profile_name, profile), roots, bool(missing))


def _run(
    args: argparse.Namespace,
    settings: Settings,
    chosen: tuple[str, Profile],
    roots: list[_Root],
    incomplete: bool,
) -> int:
    from watcher.commands.progress import Bar

    name, profile = chosen
    total = sum(len(root.relpaths) for root in roots)
    if not total:
        print("hotmatte: there is no photo to work on", file=sys.stderr)
        return SOME_FAILED
    folders = {root.name: root.folder.model_copy(update={"profile": name}) for root in roots}
    own = settings.model_copy(update={"profiles": {name: profile}, "folders": folders})
    failed = _work(own, name, roots, Bar(total, quiet=args.quiet), fresh=args.fresh)
    return SOME_FAILED if failed or incomplete else OK


def _profile(args: argparse.Namespace, settings: Settings) -> tuple[str, Profile]:
    name = args.profile or next(iter(settings.profiles))
    if name not in settings.profiles:
        raise ConfigError(
            [f"no profile is called {name!r}"], remedy=f"There are: {', '.join(settings.profiles)}."
        )
    chosen = {key: value for key in ("model", "device") if (value := getattr(args, key))}
    return name, Profile.model_validate(settings.profiles[name].model_dump() | chosen)


def _roots(
    args: argparse.Namespace, aside: Path, settings: Settings
) -> tuple[list[_Root], list[tuple[str, str]]]:
    """What to work on by folder, and the names that lead nowhere, each with its reason.

    Photos by URL are put into folders below `aside`.
    """
    found: dict[tuple[str, Path], list[str]] = {}
    missing = []
    for name in [*args.inputs, *args.input]:
        if is_url(name):
            try:
                place, file = _fetch(name, aside, settings)
                found.setdefault(place, []).append(file)
            except InputError as error:
                missing.append((name, f"{error}. {error.remedy}"))
            continue
        path = Path(os.path.abspath(name))  # noqa: PTH100  (resolve() would follow links out of the folder)
        try:
            is_folder = stat.S_ISDIR(path.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            missing.append((name, "no such file or folder"))
        except OSError as error:
            missing.append((name, f"cannot be read: {error.strerror or error}"))
        else:
            if is_folder:
                found.setdefault((str(path), path), []).extend(_photos(_folder(path, args), path))
            else:
                found.setdefault((str(path.parent), path.parent), []).append(path.name)
    roots = [_Root(n, _folder(path, args), tuple(dict.fromkeys(names))) for (n, path), names in found.items()]
    return [root for root in roots if root.relpaths], missing


def _fetch(url: str, aside: Path, settings: Settings) -> tuple[tuple[str, Path], str]:
    """The photo behind `url` on disk; results name the whole URL as its folder."""
    fetched = download(url, kept=KeptUrls(opened(settings.cache, settings.models.cache)))
    folder = Path(tempfile.mkdtemp(dir=aside))
    (folder / fetched.name).write_bytes(fetched.content)
    return (url, folder), fetched.name


def _folder(path: Path, args: argparse.Namespace) -> Folder:
    return Folder(
        path=path,
        output=Path(os.path.abspath(args.output_dir)),  # noqa: PTH100
        recursive=not args.no_recursive,
        include=IMAGES,
        profile="matte",
    )


def _photos(folder: Folder, path: Path) -> Iterator[str]:
    """By name, so that two runs number duplicates alike. Results that lie among photos are none."""
    results = set(_results(path))
    photos = (relpath for relpath, _ in walk(str(path), Rules(folder)) if relpath not in results)
    yield from sorted(photos)


def _results(path: Path) -> Iterator[str]:
    """What the sidecars below `path` list, relative to it."""
    from watcher.pipeline.sidecar import SIDECAR, record_in

    for told in path.rglob(f"*{SIDECAR}"):
        with suppress(OSError):
            record = record_in(told.read_bytes())
            base = str(told.relative_to(path)).removesuffix(SIDECAR)
            yield from (base + output.suffix for output in record.outputs) if record else ()


def _work(settings: Settings, profile_name: str, roots: list[_Root], bar: Bar, *, fresh: bool) -> int:
    """Do it all; returns how many failed. Raises what ends the command as a whole."""
    from watcher.assembly import Engines
    from watcher.bounds import in_flight, pixel_budget
    from watcher.commands.models import pull_missing
    from watcher.pipeline.answers import Tally
    from watcher.pipeline.naming import Names
    from watcher.pipeline.recipe import Recipe
    from watcher.stages import about_of, answers_of, build_runner

    profile = settings.profiles[profile_name]
    card = load_card(profile.model, card_folders(settings.models.cards))
    if not settings.models.offline:
        pull_missing([card], settings)
    engines, names = Engines(), Names()
    try:
        engines.boot(settings)
        supervisor = engines.get(card, profile.device)
        recipes = {
            name: Recipe(name, folder, profile_name, profile, partial(about_of, supervisor), names)
            for name, folder in settings.folders.items()
        }
        budget = pixel_budget(settings)
        answers = (
            None
            if fresh
            else answers_of(card, supervisor, opened(settings.cache, settings.models.cache), Tally())
        )
        runner = build_runner(card, supervisor, recipes, settings, budget, answers=answers)
        try:
            with bar:
                batch = _Batch(runner, recipes, settings.retry.policy, bar)
                count = sum(len(root.relpaths) for root in roots)
                supervisor.heed(lambda: count - batch.begun)
                return batch.run(_jobs(roots), limit=in_flight(card, supervisor, settings))
        finally:
            runner.close()
    finally:
        engines.close()


def _jobs(roots: list[_Root]) -> Iterator[Job]:
    # A daemon may write into the same folder: its ids are small numbers.
    ids = itertools.count(10**11 + secrets.randbelow(8 * 10**11))
    for root in roots:
        for relpath in root.relpaths:
            path = root.folder.path / relpath
            try:
                stamp = Stamp.of(path.lstat())
            except OSError:
                stamp = Stamp(0, 0)  # gone since it was listed: decoding will say so
            yield Job(next(ids), Source(root.name, relpath, stamp), 1, 1)


class _Batch:
    """Keeps the runner busy with a list of jobs. Errors are met as the daemon meets them."""

    def __init__(self, runner: Runner, recipes: dict[str, Recipe], policy: RetryPolicy, bar: Bar) -> None:
        self._runner = runner
        self._recipes = recipes
        self._policy = policy
        self._bar = bar
        self.begun = 0
        self._failed = 0
        self._pending: dict[Future[Outcome], Job] = {}

    def run(self, jobs: Iterator[Job], *, limit: int) -> int:
        for job in jobs:
            self._pending[self._runner.submit(job)] = job
            self.begun += 1
            if len(self._pending) >= limit:
                self._collect()
        while self._pending:
            self._collect()
        return self._failed

    def _collect(self) -> None:
        done, _ = wait(self._pending, return_when=FIRST_COMPLETED)
        for result in done:
            job = self._pending.pop(result)
            if error := result.exception():
                self._fail(job, error)
            else:
                self._bar.done(printable(job.source.relpath), result.result())

    def _fail(self, job: Job, error: BaseException) -> None:
        from watcher.pipeline.finish import report
        from watcher.telling import failure_of

        if isinstance(error, WatcherError):
            error.remedy = by_hand(error.remedy)
        verdict = disposition(error, attempts=job.attempts, policy=self._policy)
        match verdict.action:
            # A file that nobody is writing does not get whole by waiting; an engine may recover.
            case Action.RETRY if not isinstance(error, InputError):
                again = Job(job.id, job.source, job.attempts + 1, job.fence)
                self._pending[self._runner.submit(again)] = again
                return
            case Action.PAUSE | Action.HALT:
                raise error
        self._failed += 1
        failure = failure_of(error)
        report(job, failure, self._recipes[job.source.folder])
        self._bar.failed(printable(job.source.relpath), failure)
