"""Builds the Debian package: a virtual environment for /opt/hotmatte with everything in it.

    /usr/bin/python3 deploy/debian/build.py dist

Needs no root and nothing but Python, dpkg-deb and a package index; what it builds needs no index.
The environment belongs to the interpreter that runs this, so build on the release that the package
is for: on Debian 12 it wants Python 3.11, on Debian 13 Python 3.13.
"""

import compileall
import configparser
import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "deploy"))

import bootstrap

HERE = CHECKOUT / "deploy" / "debian"
BUILD = CHECKOUT / "build" / "deb"
PREFIX = Path("/opt/hotmatte")
# Of the extras those that a server may want and that are small.
EXTRAS = ("systemd", "web", "queue")
# Never run here, and a fifth of all files.
TESTS = ("numba/tests", "numpy/*/tests", "numpy/tests", "llvmlite/tests", "sympy/**/tests", "mpmath/tests")
SCRIPTS = ("postinst", "prerm", "postrm")
# The example configuration with the places of a service.
CONFIGURED = {
    "$schema=hotmatte.schema.json": "$schema=/usr/share/hotmatte/hotmatte.schema.json",
    "#   cp config/hotmatte.yaml hotmatte.yaml     used by `hotmatte run` in this folder": (
        "#   systemctl edit hotmatte   where folders outside /srv, /mnt and /media are opened to it"
    ),
    "#   hotmatte reload                           put a change in force, no photo is lost": (
        "#   systemctl reload hotmatte                 put a change in force, no photo is lost"
    ),
    "\nstate_dir: .hotmatte\n": "\nstate_dir: /var/lib/hotmatte\n",
    "\n    path: hot\n": "\n    path: /srv/hotmatte/hot\n",
    "\n    output: mattes\n": "\n    output: /srv/hotmatte/mattes\n",
    "\n  cache: null\n": "\n  cache: /var/cache/hotmatte/models\n",
}


def main(argv):
    if len(argv) != 1:
        print(__doc__, file=sys.stderr)
        return 64
    if shutil.which("dpkg-deb") is None:
        return _stop("needs dpkg-deb (apt install dpkg-dev on another distribution)")
    missing = bootstrap._missing_for_systemd()
    if missing:
        return _stop(f"systemd-python cannot be compiled: {missing}. apt install {COMPILES}")
    try:
        print(build(Path(argv[0])))
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        return _stop(f"could not build the package: {error}")
    return 0


COMPILES = "gcc pkg-config libsystemd-dev python3-dev"


def _stop(words):
    print(f"hotmatte: {words}", file=sys.stderr)
    return 1


def build(folder):
    """The package, as `folder`/hotmatte_VERSION_ARCHITECTURE.deb."""
    shutil.rmtree(BUILD, ignore_errors=True)
    root = BUILD / "root"
    root.mkdir(parents=True)
    environment(root)
    files(root)
    control(root)
    folder.mkdir(parents=True, exist_ok=True)
    package = folder / f"hotmatte_{version()}_{architecture()}.deb"
    _open_to_all(root)
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zzstd", f"-z{_level()}", "--build", str(root), str(package)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    shutil.rmtree(BUILD)
    return package


def _level():
    """How hard to compress: a package that is thrown away again need not be small."""
    return os.environ.get("DEB_LEVEL", "9")


# --- /opt/hotmatte -------------------------------------------------------------------------


def environment(root):
    """The virtual environment, made where it is not going to be and told where it will."""
    target = root / PREFIX.relative_to("/")
    python = bootstrap.make(target)
    extras = ",".join(extra for extra in EXTRAS if extra in _extras())
    # What an earlier build left there would be taken for part of the package.
    shutil.rmtree(CHECKOUT / "build" / "lib", ignore_errors=True)
    pip = [str(python), *bootstrap.PIP]
    wanted = f"{CHECKOUT}[{extras}]"
    subprocess.run([*pip, "install", "--quiet", "--no-compile", "--prefer-binary", wanted], check=True)
    subprocess.run([*pip, "check"], check=True, stdout=subprocess.DEVNULL)

    packages = next(target.glob("lib/python3*/site-packages"))
    for pattern in TESTS:
        for tests in list(packages.glob(pattern)):
            shutil.rmtree(tests)
    for cache in list(target.rglob("__pycache__")):
        shutil.rmtree(cache)
    _move(target)
    # Nobody may write there later, so it is compiled now; the names in tracebacks are the final ones.
    compileall.compile_dir(packages, quiet=2, workers=0, stripdir=str(root), prependdir="/")
    # Several packages bring files that are for other versions of Python; what we need is checked.
    subprocess.run([str(target / "bin/python"), "-c", "import watcher.daemon, onnxruntime, MNN"], check=True)


def _extras():
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(CHECKOUT / "setup.cfg", encoding="utf-8")
    return set(parser["options.extras_require"])


def _move(target):
    """Scripts name their interpreter in full; see `venv` on why an environment does not move."""
    scripts = target / "bin"
    for path in list(scripts.iterdir()):
        if path.is_symlink():
            continue
        if path.name.startswith(("activate", "Activate")):
            path.unlink()
            continue
        content = path.read_text(encoding="utf-8")
        path.write_text(content.replace(str(target), str(PREFIX)), encoding="utf-8")
    settings = target / "pyvenv.cfg"
    lines = settings.read_text(encoding="utf-8").replace(str(target), str(PREFIX)).splitlines()
    settings.write_text("".join(f"{line}\n" for line in lines if not line.startswith("command")))
    # By its own path, not that of whoever built it: the base interpreter of the distribution.
    link = scripts / "python3"
    link.unlink()
    link.symlink_to(_interpreter())
    for name in ("python", f"python{sys.version_info.major}.{sys.version_info.minor}"):
        (scripts / name).unlink(missing_ok=True)
        (scripts / name).symlink_to("python3")
    for record in target.rglob("direct_url.json"):
        record.unlink()  # where it was built


def _interpreter():
    return f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"


# --- What lies elsewhere -------------------------------------------------------------------


def files(root):
    """Units, their companions, the configuration, documents."""
    for source, target in (
        ("deploy/sysusers.d", "usr/lib/sysusers.d"),
        ("deploy/tmpfiles.d", "usr/lib/tmpfiles.d"),
        ("deploy/sysctl.d", "usr/lib/sysctl.d"),
        ("deploy/systemd/examples", "usr/share/doc/hotmatte/examples"),
        ("docs", "usr/share/doc/hotmatte"),
    ):
        shutil.copytree(CHECKOUT / source, root / target, dirs_exist_ok=True)
    units = root / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    for unit in (CHECKOUT / "deploy/systemd").glob("*.service"):
        shutil.copy(unit, units)
    documents = root / "usr/share/doc/hotmatte"
    for name in ("README.md", "CHANGELOG.md"):
        shutil.copy(CHECKOUT / name, documents)
    shutil.copy(CHECKOUT / "LICENSE", documents / "copyright")
    shared = root / "usr/share/hotmatte"
    shared.mkdir()
    shutil.copy(CHECKOUT / "config/hotmatte.schema.json", shared)
    settings = root / "etc/hotmatte/hotmatte.yaml"
    settings.parent.mkdir(parents=True)
    settings.write_text(configuration(), encoding="utf-8")
    command = root / "usr/bin/hotmatte"
    command.parent.mkdir()
    command.symlink_to(PREFIX / "bin/hotmatte")


def configuration():
    """config/hotmatte.yaml for a service."""
    text = (CHECKOUT / "config/hotmatte.yaml").read_text(encoding="utf-8")
    for example, ours in CONFIGURED.items():
        if text.count(example) != 1:
            raise ValueError(f"config/hotmatte.yaml no longer says {example.strip()!r} once")
        text = text.replace(example, ours)
    return text


def control(root):
    """DEBIAN/: what dpkg is told."""
    folder = root / "DEBIAN"
    folder.mkdir()
    sums, size = [], 0
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink() and folder not in path.parents:
            sums.append(f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(root)}\n")
            size += path.stat().st_size
    (folder / "md5sums").write_text("".join(sums))
    (folder / "conffiles").write_text("/etc/hotmatte/hotmatte.yaml\n")
    major, minor = sys.version_info[:2]
    words = {
        "VERSION": version(),
        "ARCHITECTURE": architecture(),
        "SIZE": str(size // 1024),
        "PYTHON": f"python3 (>= {major}.{minor}), python3 (<< {major}.{minor + 1}), python{major}.{minor}",
    }
    text = (HERE / "control").read_text(encoding="utf-8")
    for word, value in words.items():
        text = text.replace(f"@{word}@", value)
    (folder / "control").write_text(text)
    for name in SCRIPTS:
        if (HERE / name).exists():
            shutil.copy(HERE / name, folder / name)
            (folder / name).chmod(0o755)


def version():
    """That of watcher/__init__.py; `+` and a number for a build that must be newer than the last one."""
    text = (CHECKOUT / "watcher/__init__.py").read_text(encoding="utf-8")
    found = re.search(r'__version__ = "([^"]+)"', text)
    if found is None:
        raise ValueError("watcher/__init__.py does not say the version")
    return found[1] + os.environ.get("DEB_REVISION", "")


def architecture():
    return subprocess.run(
        ["dpkg", "--print-architecture"], check=True, capture_output=True, text=True
    ).stdout.strip()


def _open_to_all(root):
    """Modes as everybody needs them, whatever the umask of the one who builds."""
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(0o755 if executable else 0o644)


if __name__ == "__main__":
    began = time.monotonic()
    status = main(sys.argv[1:])
    if not status:
        print(f"hotmatte: built in {time.monotonic() - began:.0f} s", file=sys.stderr)
    sys.exit(status)
