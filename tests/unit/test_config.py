from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError
from written import LEAST, written

from watcher import config
from watcher.config import BUILT_IN, Folder, Profile, Settings, load
from watcher.errors import ConfigError

# --- What is read --------------------------------------------------------------------------


def test_the_least_configuration_gets_every_default(tmp_path: Path) -> None:
    settings = load(written(tmp_path))
    assert settings.folders["in"] == Folder(path=tmp_path / "in", output=tmp_path / "out")
    assert [output.suffix for output in settings.profiles["portrait"].outputs] == [
        ".cutout.png",
        ".matte.png",
    ]
    assert settings.state_dir == tmp_path / ".hotmatte"


def test_relative_paths_start_at_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    written(tmp_path, LEAST + "    archive: ../archive\nmodels:\n  cards: cards\n")
    monkeypatch.chdir(elsewhere)
    settings = load(Path("../hotmatte.yaml"))
    assert settings.folders["in"].path == tmp_path / "in"
    assert settings.folders["in"].archive == tmp_path.parent / "archive"
    assert settings.models.cards == tmp_path / "cards"


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    settings = load(written(tmp_path, "folders: {in: {path: ~/in, output: ~nobody-of-that-name/out}}"))
    assert settings.folders["in"].path == tmp_path / "home" / "in"
    assert settings.folders["in"].output == tmp_path / "~nobody-of-that-name" / "out"


def test_the_embedded_default_lies_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = load(None).folders["hot"]
    assert (folder.path, folder.output, folder.create) == (tmp_path / "hot", tmp_path / "mattes", True)


def test_anchors_and_merge_keys_are_understood(tmp_path: Path) -> None:
    text = """\
        folders:
          a: &usual {path: a, output: out, quiet_s: 7}
          b: {<<: *usual, path: b}
        """
    settings = load(written(tmp_path, text))
    assert settings.folders["b"].quiet_s == 7
    assert settings.folders["b"].path == tmp_path / "b"


def test_the_named_file_comes_before_the_local_one_and_that_before_the_system_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "etc" / "hotmatte.yaml"
    system.parent.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "SYSTEM_CONFIG", system)
    monkeypatch.delenv("HOTMATTE_CONFIG", raising=False)
    assert config.find() is None
    system.touch()
    assert config.find() == system
    written(tmp_path)
    assert config.find() == Path("hotmatte.yaml")
    monkeypatch.setenv("HOTMATTE_CONFIG", "/named/although/missing.yaml")
    assert config.find() == Path("/named/although/missing.yaml")


# --- Every problem, with its line ----------------------------------------------------------


def test_all_problems_are_reported_at_once_in_the_order_of_the_file(
    problems: Callable[[str], list[str]],
) -> None:
    text = """\
        folders:
          in:
            path: in
            output: in
            quiet_s: -1
          other:
            path: other
            output: in/results
            profile: landscape
        profiles:
          portrait:
            outputs:
              - kind: matte
                suffix: .matte.jpg
        treads: 3
        limits:
          threads: many
        """
    said = problems(text)
    assert [line.split(": ")[0:2] for line in said] == [
        ["5", "folders.in.quiet_s"],
        ["9", "folders.other.profile"],
        ["13", "profiles.portrait.outputs.0"],
        ["15", "treads"],
        ["17", "limits.threads"],
    ]
    assert "unknown setting" in said[3]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("folders: {in: {path: h, output: o, include: '*.jpg'}}", "must be a list"),
        ("folders: {in: {path: h, output: o, include: []}}", "must not be empty"),
        ("folders: {in: hot}", "must be a mapping of settings"),
        ("folders:", "folders: is empty: indent what belongs to it below it"),
        ("folders: {in: }", "folders.in: is empty: indent what belongs to it below it"),
        ("queue: {url: http://x}", "queue.url: must begin with redis://"),
        ("notify: {webhook: desk}", "notify.webhook: must begin with http://"),
        ("profiles: {p: {outputs: [{kind: matte, suffix: png}]}}", "suffix of a matte must end in .png or"),
        (
            "profiles: {p: {outputs: [{kind: matte, suffix: a/b.png}]}}",
            "must be up to 64 characters without /",
        ),
        ("folders: {'my shoot': {path: h, output: o}}", "letters, digits"),
        ("profiles: {portrait: {device: gpu}}", "must be auto, cpu, cuda or cuda:N"),
        ("limits: {max_in_flight: yes}", "limits.max_in_flight: must be a number; true, false"),
        ("folders: {in: {path: h, output: o, quiet_s: on}}", "quiet_s: must be a number; true"),
        ("retry: {max_attempts: false}", "retry.max_attempts: must be a number;"),
        ("limits: {max_in_flight: many}", "limits.max_in_flight: must be a number, not many"),
        ("limits: {max_file_mb: [3]}", "limits.max_file_mb: must be a number, not [3]"),
        ("web: {max_uploads: true}", "web.max_uploads: must be a number;"),
        (
            "profiles: {portrait: {outputs: [{kind: matte, suffix: .m.jpg, quality: true}]}}",
            "quality: must be a number; true, false",
        ),
    ],
)
def test_what_is_wrong_is_said_in_words_and_not_in_those_of_a_validator(
    problems: Callable[[str], list[str]], line: str, words: str
) -> None:
    said = "\n".join(problems(line))
    assert words in said
    assert "Input should" not in said
    assert "pattern" not in said


def test_a_wrong_folder_does_not_hide_the_overlaps_of_the_others(
    problems: Callable[[str], list[str]],
) -> None:
    text = """\
        folders:
          wrong: {path: 3, output: x}
          in: {path: in, output: in}
        """
    said = problems(text)
    assert len(said) == 2
    assert said[0].startswith("2: folders.wrong.path: ")
    assert said[1].startswith("3: folders.in.output: ")
    assert "results would become work" in said[1]


def test_a_key_given_twice_is_reported_where_it_stands_again(problems: Callable[[str], list[str]]) -> None:
    text = """\
        folders:
          in:
            path: in
            output: out
            path: elsewhere
          in:
            path: in
            output: out
        """
    assert problems(text) == [
        "5: folders.in.path: given twice, first in line 3",
        "6: folders.in: given twice, first in line 2",
    ]


def test_a_list_that_is_short_because_its_parts_are_wrong_is_one_problem(
    problems: Callable[[str], list[str]],
) -> None:
    said = problems(LEAST + "profiles:\n  portrait:\n    outputs:\n      - {kind: matt, suffix: .png}\n")
    assert len(said) == 1
    assert said[0].startswith("8: profiles.portrait.outputs.0.kind: ")


def test_an_empty_list_of_outputs_is_a_problem(problems: Callable[[str], list[str]]) -> None:
    said = problems(LEAST + "profiles:\n  portrait:\n    outputs: []\n")
    assert said == ["7: profiles.portrait.outputs: must not be empty"]


def test_outputs_that_would_overwrite_each_other_are_refused(problems: Callable[[str], list[str]]) -> None:
    outputs = "[{kind: matte, suffix: .PNG}, {kind: cutout, suffix: .png}]"
    (said,) = problems(LEAST + f"profiles: {{portrait: {{outputs: {outputs}}}}}\n")
    assert "would overwrite each other" in said


def test_an_output_may_not_be_named_like_a_sidecar(problems: Callable[[str], list[str]]) -> None:
    outputs = "[{kind: composite, suffix: .matte.json}]"
    (said,) = problems(LEAST + f"profiles: {{portrait: {{outputs: {outputs}}}}}\n")
    assert "must end in .png or " in said


def test_a_colour_that_yaml_took_for_a_comment_is_explained(problems: Callable[[str], list[str]]) -> None:
    text = """\
        profiles:
          portrait:
            outputs:
              - kind: composite
                suffix: .jpg
                background: #00ff00
        folders: {in: {path: in, output: out}}
        """
    (said,) = problems(text)
    assert said.startswith("6: profiles.portrait.outputs.0.background: ")
    assert "comment unless quoted" in said


def test_archive_without_a_folder_is_refused(problems: Callable[[str], list[str]]) -> None:
    assert problems(LEAST + "    source: archive\n") == [
        "2: folders.in: source: archive needs an `archive` folder"
    ]


def test_the_built_in_profiles_are_there_and_may_be_changed_in_parts(tmp_path: Path) -> None:
    text = LEAST + "profiles: {mine: {model: u2netp}, best: {refine_side: 768}, fast: {looks: doubt}}\n"
    profiles = load(written(tmp_path, text)).profiles
    assert list(profiles) == ["mine", "best", "fast", "portrait"]
    assert profiles["best"] == Profile(looks="all", refine_side=768)
    assert profiles["fast"] == BUILT_IN["portrait"] == Profile()
    assert profiles["mine"] == Profile(model="u2netp")


def test_a_wrong_setting_of_a_built_in_profile_is_named_where_it_stands(
    problems: Callable[[str], list[str]],
) -> None:
    assert problems(LEAST + "profiles:\n  best:\n    refine_side: tall\n")[0].startswith(
        "7: profiles.best.refine_side: "
    )


def test_an_unknown_profile_names_those_there_are(problems: Callable[[str], list[str]]) -> None:
    assert problems(LEAST + "    profile: hair\nprofiles: {soft: {}, sharp: {}}\n") == [
        "5: folders.in.profile: no profile 'hair' (there are: soft, sharp, portrait, best, fast)"
    ]


def test_a_nul_in_a_path_is_refused(problems: Callable[[str], list[str]]) -> None:
    assert problems('folders: {in: {path: "i\\0n", output: out}}\nstate_dir: "\\0"\n') == [
        "1: folders.in.path: no path can hold a NUL character",
        "2: state_dir: no path can hold a NUL character",
    ]


def test_a_path_that_is_empty_is_not_the_folder_of_the_configuration(
    problems: Callable[[str], list[str]],
) -> None:
    assert problems('folders: {in: {path: "", output: " ", quarantine: ""}}\nstate_dir: ""\n') == [
        "1: folders.in.path: must not be empty",
        "1: folders.in.output: must not be empty",
        "1: folders.in.quarantine: must not be empty",
        "2: state_dir: must not be empty",
    ]


# --- Files that are no configuration at all -------------------------------------------------


def test_an_empty_file_lacks_its_folders(problems: Callable[[str], list[str]]) -> None:
    assert problems("") == ["1: folders: must be set"]
    assert problems("# nothing\n") == ["1: folders: must be set"]


def numbers(model: type[BaseModel], schema: dict[str, Any]) -> Iterator[tuple[type[BaseModel], str]]:
    """Every setting that its schema calls a number, of a model and of those within it."""
    for name, field in model.model_fields.items():
        kinds = [schema["properties"][name], *schema["properties"][name].get("anyOf", ())]
        if any(kind.get("type") in ("integer", "number") for kind in kinds):
            yield model, name
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from numbers(part, part.model_json_schema())


NUMBERS = sorted(set(numbers(Settings, Settings.model_json_schema())), key=str)


@pytest.mark.parametrize(("model", "name"), NUMBERS, ids=[f"{m.__name__}.{n}" for m, n in NUMBERS])
def test_no_number_takes_true_for_one(model: type[BaseModel], name: str) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate({name: True})
    [item] = [item for item in caught.value.errors() if item["loc"] == (name,)]
    assert (item["type"], item["input"]) in (("int_parsing", "true"), ("float_parsing", "true"))


def test_the_numbers_of_every_section_are_among_them() -> None:
    models = {model.__name__ for model, _ in NUMBERS}
    assert {"Folder", "Profile", "Output", "Limits", "Retry", "Web", "Queue", "Notify", "Cache"} <= models


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("folders:\n  a:\n    path: hot\n   output: out\n", "4: not valid YAML: it is indented otherwise"),
        ("folders:\n\ta:\n", "2: not valid YAML: a tab"),
        ("folders:\n  a:\n    path: hot\n      output: out\n", "4: not valid YAML: a colon too many"),
        ("folders:\n  a: {path hot\n", "not valid YAML: "),
    ],
)
def test_what_is_no_yaml_is_said_in_the_words_of_who_wrote_it(
    problems: Callable[[str], list[str]], text: str, words: str
) -> None:
    [said] = problems(text)
    assert words in said


@pytest.mark.parametrize("name", ["2024", "yes", "no", "on", "1.5", "2026-01-31", "null"])
def test_a_hot_folder_may_have_a_name_that_yaml_takes_for_something_else(tmp_path: Path, name: str) -> None:
    settings = load(written(tmp_path, f"folders:\n  {name}: {{path: hot, output: out}}\n"))
    assert list(settings.folders) == [name]


@pytest.mark.parametrize("text", ["- a\n- b\n", "hello\n", "3\n"])
def test_what_is_not_a_mapping_is_refused(problems: Callable[[str], list[str]], text: str) -> None:
    assert problems(text) == ["1: configuration: must be a mapping of settings"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("folders:\n  in: [path\n", 3),
        ("a: b\n\tc: d\n", 2),
        ("a: !!python/object/apply:os.system [ls]\n", 1),
        ("a: 1\nb: \x07\n", 2),
        ("a: 1\n---\nb: 2\n", 2),
        ("a:\n  b: 2026-13-45\n", 2),
        ("? [a, b]\n: c\n", 1),
    ],
)
def test_what_is_not_safe_yaml_is_refused_with_its_line(
    problems: Callable[[str], list[str]], text: str, line: int
) -> None:
    (said,) = problems(text)
    assert said.startswith(f"{line}: not valid YAML: ")
    assert "\n" not in said


def test_yaml_that_nests_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nested too deeply"):
        load(written(tmp_path, "[" * 3000))


def test_yaml_that_contains_itself_is_refused(problems: Callable[[str], list[str]]) -> None:
    said = problems("folders: &a\n  in: *a\n")
    assert any("folders.in.path: must be set" in problem for problem in said)


def test_yaml_that_unfolds_to_billions_of_parts_is_answered_at_once(
    problems: Callable[[str], list[str]],
) -> None:
    levels = ["a0: &a0 [x, x]"]
    levels += [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 20)]
    said = problems("\n".join(levels))
    assert "20: a19: unknown setting" in said


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml: cannot be read: No such file"):
        load(tmp_path / "gone.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_a_file_that_is_not_utf_8_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "hotmatte.yaml"
    file.write_bytes(b"folders:\n  k\xfcche: {}\n")
    with pytest.raises(ConfigError, match=r"hotmatte\.yaml:2: is not text in UTF-8"):
        load(file)
