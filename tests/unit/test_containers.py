"""Rules for deploy/docker that no engine has to be there for."""

from __future__ import annotations

import configparser
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from watcher import cli, config
from watcher.engine.card import load_card

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy" / "docker"
IMAGES = ("cpu", "cuda", "bshm")
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs" / "containers.md").read_text(encoding="utf-8")

Instruction = tuple[str, str]


def instructions(image: str) -> list[Instruction]:
    """(word, rest) of each instruction of a Dockerfile, continued lines joined, comments left out."""
    text = (DOCKER / f"Dockerfile.{image}").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    found = []
    for line in filter(str.strip, joined.splitlines()):
        word, _, rest = line.strip().partition(" ")
        found.append((word, rest.strip()))
    return found


def last_stage(image: str) -> list[Instruction]:
    """The instructions that the image itself is made by."""
    every = instructions(image)
    start = max(number for number, (word, _) in enumerate(every) if word == "FROM")
    return every[start:]


def only(image: str, word: str) -> str:
    (rest,) = [rest for found, rest in last_stage(image) if found == word]
    return rest


def settings(image: str) -> config.Settings:
    return config.load(DOCKER / "config" / image / "hotmatte.yaml")


def env(image: str) -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\S+)", only(image, "ENV")))


def defaults(image: str) -> dict[str, str]:
    return dict(
        rest.partition("=")[::2] for word, rest in instructions(image) if word == "ARG" and "=" in rest
    )


def seconds(words: str) -> int:
    """`60s`, `10m` -> seconds."""
    return int(words[:-1]) * {"s": 1, "m": 60}[words[-1]]


# --- Images --------------------------------------------------------------------------------


def test_continued_lines_are_one_instruction() -> None:
    assert ("CMD", '["run", "--no-progress"]') in instructions("cpu")
    assert all("\\" not in rest for word, rest in instructions("cpu") if word == "RUN")
    assert {word for word, _ in instructions("bshm")} <= set(
        "ARG FROM RUN WORKDIR COPY LABEL ENV VOLUME USER STOPSIGNAL HEALTHCHECK ENTRYPOINT CMD".split()
    )


@pytest.mark.parametrize("image", IMAGES)
def test_every_base_has_a_tag_that_says_which(image: str) -> None:
    named = defaults(image)
    for base in [rest.split()[0] for word, rest in instructions(image) if word == "FROM"]:
        full = re.sub(r"\$\{(\w+)\}", lambda match: named[match[1]], base)
        assert re.fullmatch(r"[a-z/]+:\d+\.\d+[\w.-]*", full), full


@pytest.mark.parametrize("image", IMAGES)
def test_the_daemon_is_not_root_and_its_numbers_can_be_chosen(image: str) -> None:
    assert only(image, "USER") == "${HOTMATTE_UID}:${HOTMATTE_GID}"
    named = defaults(image)
    assert int(named["HOTMATTE_UID"]) > 0
    assert int(named["HOTMATTE_GID"]) > 0
    # Nothing after USER may need root again.
    words = [word for word, _ in last_stage(image)]
    assert "RUN" not in words[words.index("USER") :]


@pytest.mark.parametrize("image", IMAGES)
def test_a_signal_reaches_the_daemon(image: str) -> None:
    entry, command = json.loads(only(image, "ENTRYPOINT")), json.loads(only(image, "CMD"))
    assert entry == ["tini", "--", "hotmatte"]
    assert only(image, "STOPSIGNAL") == "SIGTERM"
    cli._parser(command[0], cli._module(command[0])).parse_args(command)
    (installs,) = [rest for word, rest in last_stage(image) if word == "RUN" and "apt-get install" in rest]
    assert "tini" in installs.split()


@pytest.mark.parametrize("image", IMAGES)
def test_health_is_what_status_says(image: str) -> None:
    options, _, command = only(image, "HEALTHCHECK").partition("CMD ")
    assert re.findall(r"--([a-z-]+)=", options) == ["interval", "timeout", "start-period", "retries"]
    shell = json.loads(command)
    assert shell[:2] == ["/bin/sh", "-c"]
    words = shell[2].partition(" |")[0].split()
    assert words[0] == "hotmatte"
    cli._parser(words[1], cli._module(words[1])).parse_args(words[1:])


@pytest.mark.parametrize("image", IMAGES)
def test_whatever_is_written_is_written_to_a_volume(image: str) -> None:
    volumes = {Path(place) for place in json.loads(only(image, "VOLUME"))}
    found, variables = settings(image), env(image)
    folder = found.folders["hot"]
    written = {folder.path, folder.output, found.state_dir, found.models.cache}
    written |= {Path(variables[name]) for name in ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "HOME")}
    if image != "cpu":
        written.add(Path(variables["CUDA_CACHE_PATH"]))
    known = [place for place in written if place is not None]
    assert {outer for outer in volumes if any(place.is_relative_to(outer) for place in known)} == volumes
    assert [place for place in known if not any(place.is_relative_to(outer) for outer in volumes)] == []


@pytest.mark.parametrize("image", IMAGES)
def test_what_an_image_copies_reaches_the_build(image: str) -> None:
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    kept = {Path(line[1:]) for line in rules if line.startswith("!")}
    assert all((ROOT / place).exists() for place in kept)
    for word, rest in instructions(image):
        source = Path(rest.split()[0])
        if word == "COPY" and not rest.startswith("--from") and source != Path():
            assert (ROOT / source).exists()
            assert any(source.is_relative_to(place) for place in kept)
    # What pip reads to build the package.
    assert {
        Path(name) for name in ("setup.cfg", "pyproject.toml", "README.md", "watcher", "config/models")
    } <= kept


def test_the_images_differ_in_what_they_must() -> None:
    """Three files, one service: what holds for one holds for all."""
    common = ("USER", "VOLUME", "WORKDIR", "STOPSIGNAL", "ENTRYPOINT", "CMD")
    for image in IMAGES[1:]:
        assert {word: only(image, word) for word in common} == {word: only("cpu", word) for word in common}
        assert env(image).items() > env("cpu").items()
        assert [rest for word, rest in last_stage(image) if "useradd" in rest] == [
            rest for word, rest in last_stage("cpu") if "useradd" in rest
        ]


def test_the_worker_of_bshm_has_the_pins_of_the_environment() -> None:
    listed = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    (pip,) = [item["pip"] for item in listed if isinstance(item, dict)]
    pins = dict(pin.split("==") for pin in pip)
    (line,) = [rest for word, rest in instructions("bshm") if word == "RUN" and "--find-links" in rest]
    ours = dict(re.findall(r"([a-z0-9]+)==([\d.]+)", line))
    assert set(ours) == {"numpy", "protobuf", "h5py", "gast"}
    assert ours == {name: pins[name] for name in ours}
    assert defaults("bshm")["TENSORFLOW"] == f"tensorflow-gpu=={pins['tensorflow-gpu']}+cu113"
    assert {"python=3.7", "pip>=24"} <= {item for item in listed if isinstance(item, str)}
    (create,) = [rest for word, rest in instructions("bshm") if word == "RUN" and " create " in rest]
    assert {"python=3.7", "'pip>=24'", "cudatoolkit=11.3", "cudnn=8.2"} <= set(create.split())


def test_the_worker_of_bshm_lies_where_its_card_looks() -> None:
    card = load_card("bshm", [ROOT / "config" / "models"])
    (copied,) = [rest.split()[-1] for word, rest in last_stage("bshm") if "--from=worker" in rest]
    assert card.python == Path(copied, "bin", "python")
    start = re.search(r"--start-period=(\w+)", only("bshm", "HEALTHCHECK"))
    assert start is not None
    assert seconds(start[1]) > card.boot_timeout_s


def test_the_onnx_runtime_for_gpus_is_not_older_than_the_one_for_cpus() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    least = re.search(r"onnxruntime>=(\d+)\.(\d+)", parser["options"]["install_requires"])
    ours = re.search(r"onnxruntime-gpu\[cuda,cudnn\]>=(\d+)\.(\d+)", defaults("cuda")["ONNXRUNTIME"])
    assert least is not None
    assert ours is not None
    assert tuple(map(int, ours.groups())) >= tuple(map(int, least.groups()))


# --- Configuration -------------------------------------------------------------------------


@pytest.mark.parametrize("image", IMAGES)
def test_the_configuration_of_an_image_is_one_the_daemon_takes(image: str) -> None:
    found = settings(image)
    (folder,) = found.folders.values()
    assert (folder.path, folder.output, folder.create) == (Path("/hot"), Path("/mattes"), False)
    profile = found.profile_of(folder)
    load_card(profile.model, [ROOT / "config" / "models"])
    # On a GPU `auto` would be slow in silence where the engine was not given one.
    assert profile.device == ("cpu" if image == "cpu" else "cuda")
    assert f"COPY deploy/docker/config/{image}/hotmatte.yaml {env(image)['HOTMATTE_CONFIG']}" in [
        " ".join(one) for one in last_stage(image)
    ]


# --- Compose -------------------------------------------------------------------------------


def services() -> Iterator[tuple[str, dict[str, Any]]]:
    yield from COMPOSE["services"].items()


def test_there_is_a_service_and_a_profile_for_each_image() -> None:
    assert {name: service["profiles"] for name, service in services()} == {name: [name] for name in IMAGES}
    for name, service in services():
        assert service["build"]["dockerfile"] == f"deploy/docker/Dockerfile.{name}"
        assert (DOCKER / service["build"]["context"]).resolve() == ROOT
        assert set(service["build"]["args"]) <= set(defaults(name))
        assert service["image"] == f"hotmatte:{name}"


@pytest.mark.parametrize("name", IMAGES)
def test_a_service_may_do_no_more_than_it_needs(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    (memory,) = service["tmpfs"]
    size = re.fullmatch(r"/tmp:mode=1777,size=(\d+)m", memory)
    # pip fetches the wheel with MODNet's weights through it: 42 MB, two copies at a time.
    assert size is not None
    assert int(size[1]) >= 128
    assert not service.keys() & {"privileged", "cap_add", "ports", "network_mode", "pid", "ipc"}
    uid, gid = (defaults(name)[word] for word in ("HOTMATTE_UID", "HOTMATTE_GID"))
    assert service["user"] == f"${{HOTMATTE_UID:-{uid}}}:${{HOTMATTE_GID:-{gid}}}"


@pytest.mark.parametrize("name", IMAGES)
def test_a_service_is_asked_for_its_health_as_its_image_is(name: str) -> None:
    asked = COMPOSE["services"][name]["healthcheck"]
    options, _, command = only(name, "HEALTHCHECK").partition("CMD ")
    assert asked["test"] == ["CMD", *json.loads(command)]
    wanted = dict(re.findall(r"--([a-z-]+)=(\w+)", options))
    assert {key.replace("-", "_"): value for key, value in wanted.items()} == {
        key: str(value) for key, value in asked.items() if key != "test"
    }


@pytest.mark.parametrize("name", IMAGES)
def test_a_service_has_time_to_drain_and_comes_back(name: str) -> None:
    service = COMPOSE["services"][name]
    assert seconds(service["stop_grace_period"]) > settings(name).limits.drain_timeout_s + 10
    assert (service["restart"], service["stop_signal"]) == ("unless-stopped", "SIGTERM")


@pytest.mark.parametrize("name", IMAGES)
def test_every_volume_of_an_image_is_mounted(name: str) -> None:
    mounts = {mount["target"]: mount for mount in COMPOSE["services"][name]["volumes"]}
    assert set(mounts) == {*json.loads(only(name, "VOLUME")), "/etc/hotmatte"}
    assert mounts["/etc/hotmatte"]["read_only"] is True
    assert f"./config/{name}" in mounts["/etc/hotmatte"]["source"]
    assert {m["source"] for m in mounts.values() if m["type"] == "volume"} == set(COMPOSE["volumes"])
    for mount in mounts.values():
        if mount["type"] == "bind":
            assert mount["bind"]["create_host_path"] is False
    for share in ("/hot", "/mattes"):
        assert mounts[share]["bind"]["propagation"] == "rslave"


def test_only_those_services_get_a_gpu_that_compute_on_one() -> None:
    reserved = {
        name: service["deploy"]["resources"]["reservations"]["devices"]
        for name, service in services()
        if "deploy" in service
    }
    assert reserved == {
        name: [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}] for name in ("cuda", "bshm")
    }


# --- Words ---------------------------------------------------------------------------------


def test_every_variable_of_compose_is_explained() -> None:
    text = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    used = set(re.findall(r"\$\{(\w+)", text))
    assert used
    assert {name for name in used if f"`{name}`" not in PAGE} == set()


def test_the_page_is_found_from_the_readme() -> None:
    assert "](docs/containers.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_page_names_every_file() -> None:
    files = sorted(path for path in DOCKER.rglob("*") if path.is_file() and not path.name.startswith("."))
    links = re.findall(r"\]\(([^)#:]+)", PAGE)
    named = {(ROOT / "docs" / link).resolve() for link in links}
    assert [path for path in files if not any(path.is_relative_to(place) for place in named)] == []
