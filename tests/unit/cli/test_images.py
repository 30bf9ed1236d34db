"""cachectl images, which needs no engine."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from talos_registry_cache.cli.__main__ import app
from talos_registry_cache.cli.commands import images as command
from talos_registry_cache.cli.errors import ExitCode, UsageError
from talos_registry_cache.registry import declared_images

POD = "kind: Pod\nspec: {containers: [{image: nginx}, {image: 'quay.io/team/tool:1'}]}\n"


def images(*arguments: str | Path, given: str | None = None) -> Result:
    return CliRunner().invoke(app, ["images", *map(str, arguments)], input=given)


def refusal(*arguments: str | Path) -> str:
    done = images(*arguments)
    assert isinstance(done.exception, UsageError), done.output
    assert done.stdout == ""
    return str(done.exception)


def test_references_are_sorted_and_printed_once(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(POD)
    (tmp_path / "a.json").write_text(json.dumps({"image": "docker.io/library/nginx:latest"}))

    done = images(tmp_path, tmp_path / "b.yaml")

    assert done.exit_code == ExitCode.OK
    assert done.stdout == "docker.io/library/nginx:latest\nquay.io/team/tool:1\n"


def test_json_says_where_an_image_is_named(tmp_path: Path) -> None:
    file = tmp_path / "pod.yaml"
    file.write_text(f"a: 1\n---\n{POD}")

    done = images(file, "--json")

    assert json.loads(done.stdout)[1] == {
        "image": "quay.io/team/tool:1",
        "found": [{"file": str(file), "document": 2, "path": "spec.containers[1].image"}],
    }


@pytest.mark.parametrize("arguments", [["-"], []])
def test_standard_input_is_read(arguments: list[str]) -> None:
    done = images(*arguments, "--json", given=POD)

    assert [one["image"] for one in json.loads(done.stdout)] == [
        "docker.io/library/nginx:latest",
        "quay.io/team/tool:1",
    ]
    assert json.loads(done.stdout)[0]["found"][0]["file"] == "standard input"
    assert images(*arguments, given=": [").exit_code != ExitCode.OK


@pytest.mark.parametrize(
    ("arguments", "said"), [(["-"], "standard input is closed; allowed: "), ([], "no files: give")]
)
def test_a_closed_standard_input_is_refused(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.setattr(sys, "stdin", None)

    with pytest.raises(UsageError, match=said):
        command.images(arguments)


def test_folders_in_a_folder_are_read_if_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "pod.yml").write_text(POD)

    assert "has no manifests; allowed: files that end with .json, .yaml, .yml" in refusal(tmp_path)
    assert images("--recursive", tmp_path).stdout.count("\n") == 2


def test_a_field_without_an_image_is_named_and_the_others_are_printed(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text("a: {image: A}\nb: {image: nginx}\n")

    done = images(file)

    assert done.exit_code == ExitCode.NOT_ALL_THERE
    assert done.stdout == "docker.io/library/nginx:latest\n"
    assert done.stderr.startswith(f"{file}, document 1, a.image: 'A' is not an image reference")


def test_variables_of_compose_have_the_values_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text("services: {web: {image: 'nginx:${IMAGES_TAG:-1}'}}\n")

    monkeypatch.setenv("IMAGES_TAG", "2")

    assert images(file).stdout == "docker.io/library/nginx:2\n"


def test_one_wrong_file_means_that_nothing_is_printed(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(POD)

    bad.write_text("a: 1\nb: [\n")
    assert refusal(good, bad).startswith(f"{bad}, line 3: not YAML: ")
    bad.write_text("not a manifest")
    assert refusal(good, bad) == (
        f"{bad}, document 1 is a plain text, not a mapping or a list; allowed: YAML or JSON"
    )
    bad.write_bytes(b"\xff")
    assert f"{bad} cannot be read: " in refusal(good, bad)
    assert "cannot be read: " in refusal(good, tmp_path / "none.yaml")
    assert "cannot be read: " in refusal("a\0b")


def test_a_file_has_a_size_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "large.yaml"
    file.write_text("#" * 100)
    monkeypatch.setattr(declared_images, "SIZE_LIMIT", 99)

    assert refusal(file).endswith("it is larger than 99 bytes")


def test_without_images_nothing_is_printed(tmp_path: Path) -> None:
    file = tmp_path / "empty.yaml"
    file.write_text("")

    done = images(file)

    assert (done.exit_code, done.stdout, done.stderr) == (ExitCode.OK, "", "found no images\n")
