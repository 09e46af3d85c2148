"""Makes a virtual environment with hotmatte in it, using nothing but Python's own library.

    python3 deploy/bootstrap.py .venv [EXTRA]

Debian and Ubuntu ship `venv` without `ensurepip` unless python3-venv is installed, and that
takes root. Where pip is missing its wheel is fetched from the package index, checked against
the sha256 the index states, and told to install itself.
"""

import configparser
import contextlib
import hashlib
import html.parser
import importlib.util
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
import tempfile
import urllib.error
import urllib.request
import venv
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

OLDEST = (3, 11)
PYPI = "https://pypi.org/simple"
# PEP 691 first, PEP 503 where an index is older.
ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
WHEEL = re.compile(r"pip-(\d+(?:\.\d+)*)-py3-none-any\.whl")
TIMEOUT = 60.0
PIP = ("-m", "pip", "--disable-pip-version-check")


def main(argv):
    if len(argv) not in (1, 2):
        print(__doc__, file=sys.stderr)
        return 64
    if sys.version_info < OLDEST:
        return _stop(f"Python {sys.version.split()[0]} is too old: hotmatte needs 3.11 or newer.")
    target, extra = Path(argv[0]), argv[1] if len(argv) == 2 else ""
    try:
        python = make(target)
        install(python, extra)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        return _stop(f"could not set up {target}: {error}")
    return 0


def _stop(words):
    print(f"hotmatte: {words}", file=sys.stderr)
    return 1


# --- The environment -----------------------------------------------------------------------


def make(target):
    """An environment at `target` with a pip that works; its interpreter. Keeps one that is fine."""
    python = target / "bin" / "python"
    if _has_pip(python):
        return python
    if target.exists() and any(target.iterdir()) and not (target / "pyvenv.cfg").exists():
        # It is about to be emptied.
        raise ValueError("it holds something else than a virtual environment")
    print(f"hotmatte: making {target} with Python {sys.version.split()[0]}", flush=True)
    if importlib.util.find_spec("ensurepip") is not None:
        # On Debian ensurepip may be there and its wheels not.
        with contextlib.suppress(subprocess.CalledProcessError):
            venv.create(target, clear=True, symlinks=True, with_pip=True)
        if _has_pip(python):
            return python
    venv.create(target, clear=True, symlinks=True, with_pip=False)
    fetch_pip(python)
    return python


def _has_pip(python):
    """Whether `python` is of our version and runs pip: a distribution upgrade leaves neither."""
    asks = f"import pip, sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    try:
        return subprocess.run([python, "-c", asks], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def install(python, extra):
    """This checkout, editable, and systemd-python where it can be compiled."""
    pip = [str(python), *PIP, "install", "--prefer-binary"]
    print("hotmatte: installing what it needs (about 250 MB the first time)", flush=True)
    subprocess.run([*pip, "--editable", f".[{extra}]" if extra else "."], check=True)
    missing = _missing_for_systemd()
    if missing:
        print(f"hotmatte: without systemd-python ({missing}): only a systemd service needs it")
    elif subprocess.run([*pip, "--quiet", "--editable", ".[systemd]"], check=False).returncode:
        print("hotmatte: without systemd-python (see above): only a systemd service needs it")


def _missing_for_systemd():
    """What keeps systemd-python from being compiled; empty if nothing does."""
    for tool in ("gcc", "pkg-config"):
        if shutil.which(tool) is None:
            return f"no {tool}"
    if subprocess.run(["pkg-config", "--exists", "libsystemd"], check=False).returncode:
        return "no libsystemd-dev"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "no Python.h: python3-dev"
    return ""


# --- pip, where Python came without ---------------------------------------------------------


def fetch_pip(python):
    """Let the newest pip of the index install itself into the environment of `python`."""
    index, context = index_url(), _tls()
    page = index.rstrip("/") + "/pip/"
    print(f"hotmatte: this Python has no ensurepip (python3-venv): fetching pip from {page}", flush=True)
    try:
        kind, body, base = _get(page, context)
        url, sha256 = newest(candidates(kind, body, base))
        _, wheel, _ = _get(url, context)
    except urllib.error.URLError as error:
        raise ValueError(
            f"{page}: {error.reason}. Install python3-venv (and ca-certificates), or set PIP_INDEX_URL, "
            "PIP_CERT and https_proxy as your network needs them"
        ) from error
    if hashlib.sha256(wheel).hexdigest() != sha256:
        raise ValueError(f"{url}: what came is not what the index promises (sha256)")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, unquote(url.rpartition("/")[2]))
        path.write_bytes(wheel)
        # A wheel is a zip file, and pip runs from inside one.
        subprocess.run([python, path / "pip", "install", "--no-index", "--quiet", path], check=True)


def _get(url, context):
    """(content type, body, final address) of `url`."""
    request = urllib.request.Request(url, headers={"Accept": ACCEPT, "User-Agent": "hotmatte-bootstrap"})
    with urllib.request.urlopen(request, timeout=TIMEOUT, context=context) as reply:
        return reply.headers.get_content_type(), reply.read(), reply.geturl()


def candidates(kind, body, base):
    """(file name, address, sha256 or None, needed Python) of each file on an index page."""
    if kind.endswith("json"):
        for file in json.loads(body)["files"]:
            if not file.get("yanked"):
                address = urljoin(base, file["url"])
                yield file["filename"], address, file["hashes"].get("sha256"), file.get("requires-python")
        return
    page = _Links()
    page.feed(body.decode("utf-8", "replace"))
    for link in page.found:
        address, fragment = urldefrag(urljoin(base, link["href"] or ""))
        algorithm, _, digest = fragment.partition("=")
        name = unquote(address.rpartition("/")[2])
        if "data-yanked" not in link:
            yield name, address, digest if algorithm == "sha256" else None, link.get("data-requires-python")


class _Links(html.parser.HTMLParser):
    """The attributes of each <a> that leads anywhere."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        if tag == "a" and dict(attrs).get("href"):
            self.found.append(dict(attrs))


def newest(files):
    """(address, sha256) of the newest released wheel for this Python. Raises ValueError."""
    best = max(
        (
            (tuple(int(part) for part in match[1].split(".")), address, sha256)
            for name, address, sha256, needs in files
            if (match := WHEEL.fullmatch(name)) and sha256 and _fits(needs)
        ),
        default=None,
    )
    if best is None:
        raise ValueError("the package index has no wheel of pip with a sha256: install python3-venv")
    return best[1], best[2]


def _fits(needs):
    """`>=3.9` and the like; other conditions have never been used by pip for what we run on."""
    least = re.search(r">=\s*(\d+)\.(\d+)", needs or "")
    return least is None or sys.version_info[:2] >= (int(least[1]), int(least[2]))


def index_url():
    return os.environ.get("PIP_INDEX_URL") or _pip_conf("index-url") or PYPI


def _tls():
    """Certificates as pip would take them: PIP_CERT, pip.conf, or what the system trusts."""
    cert = os.environ.get("PIP_CERT") or _pip_conf("cert") or os.environ.get("REQUESTS_CA_BUNDLE")
    if not cert:
        return ssl.create_default_context()
    if Path(cert).is_dir():
        return ssl.create_default_context(capath=cert)
    return ssl.create_default_context(cafile=cert)


def _pip_conf(key):
    """A setting from pip.conf: the named file, the user's, the machine's; the first that has it."""
    named = os.environ.get("PIP_CONFIG_FILE")
    home = Path.home()
    config_home = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    places = [config_home / "pip/pip.conf", home / ".pip/pip.conf", Path("/etc/pip.conf")]
    for path in [Path(named), *places] if named else places:
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue
        for section in ("install", "global"):
            if parser.has_option(section, key):
                return parser.get(section, key).strip()
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
