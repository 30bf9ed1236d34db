import time
from pathlib import Path

import pytest

from talos_registry_cache.talos import versions
from talos_registry_cache.talos.versions import Generation, Version, VersionError
from tests.unit.talos import programs


def talosctl(path: Path, tag: str) -> str:
    return programs.that_prints(path, programs.VERSION_OUTPUT.format(tag=tag))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v1.11.5", Version(1, 11, 5)),
        ("1.12", Version(1, 12)),
        ("v1.13.0-rc.1", Version(1, 13, 0, "-rc.1")),
        ("v0.4.1-2-gabc-dirty", Version(0, 4, 1, "-2-gabc-dirty")),
        ("latest", None),
        ("v1", None),
        ("1.2.3.4", None),
        ("v1.11.5\n", None),
        ("", None),
    ],
)
def test_parse(text: str, expected: Version | None) -> None:
    assert versions.parse(text) == expected


def test_a_pre_release_counts_as_its_release() -> None:
    assert Version(1, 12, 0, "-alpha.0") == Version(1, 12)
    assert Version(1, 9) < Version(1, 12)


@pytest.mark.parametrize(
    ("version", "generation"),
    [
        (Version(0, 4), Generation.FIRECRACKER),
        (Version(0, 12, 9), Generation.FIRECRACKER),
        (Version(0, 13), Generation.CLASSIC),
        (Version(1, 11, 6), Generation.CLASSIC),
        (Version(1, 12, 0, "-beta.0"), Generation.SUBCOMMANDS),
        (Version(2, 0), Generation.SUBCOMMANDS),
    ],
)
def test_generations(version: Version, generation: Generation) -> None:
    assert version.generation is generation


@pytest.mark.parametrize("tag", ["v0.4.0", "v0.12.0", "v1.11.5", "v1.14.0-rc.1"])
def test_talosctl_is_found_on_path_or_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tag: str
) -> None:
    program = talosctl(tmp_path / "talosctl-old", tag)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")

    for name in (program, "talosctl-old"):
        found = versions.find(name)
        assert (found.path, str(found.version)) == (program, tag)


def test_a_missing_talosctl_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(VersionError, match=r"no program talosctl; install talosctl \(0.4 or later"):
        versions.find()


@pytest.mark.parametrize("program", ["n" * 300, "n" * 5000, f"/{'n' * 300}", "a\0b", "/a\0b"])
def test_names_that_cannot_be_a_path_are_errors(program: str) -> None:
    with pytest.raises(VersionError, match=r"cannot be a path|no program") as refused:
        versions.find(program)

    assert len(str(refused.value)) < 250


@pytest.mark.parametrize(
    ("content", "mode", "error"),
    [
        (b"", 0o644, "cannot be executed; make it executable"),
        (b"\x7fELF garbage", 0o755, "cannot tell its version: .*Exec format error"),
        (b"#!/bin/sh\necho no such command >&2; exit 3", 0o755, "exit code 3: no such command"),
        (b"#!/bin/sh\necho Tag: v0.3.2", 0o755, "is talosctl v0.3.2; allowed: 0.4 or later"),
    ],
    ids=["not executable", "not a program", "fails", "too old"],
)
def test_programs_that_cannot_be_used_are_errors(
    tmp_path: Path, content: bytes, mode: int, error: str
) -> None:
    program = tmp_path / "talosctl"
    program.write_bytes(content)
    program.chmod(mode)
    with pytest.raises(VersionError, match=error):
        versions.find(str(program))


@pytest.mark.parametrize("text", ["", "hello", "Tag:", "Tag: undefined", "\tTag: v1\n", "x" * 500])
def test_other_output_is_an_error(tmp_path: Path, text: str) -> None:
    program = programs.that_prints(tmp_path / "talosctl", text)
    with pytest.raises(VersionError, match=r"allowed: a line such as `Tag: v1.11.5`") as error:
        versions.find(program)
    assert len(str(error.value)) < 400


def test_a_program_that_does_not_answer_is_ended(tmp_path: Path) -> None:
    program = programs.shell(tmp_path / "talosctl", "sleep 60 & sleep 60")
    started = time.monotonic()
    with pytest.raises(VersionError, match=r"did not answer within 0.2 s"):
        versions.find(program, within_s=0.2)
    assert time.monotonic() - started < 50
