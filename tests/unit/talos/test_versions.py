import time
from pathlib import Path

import pytest

from talos_registry_cache.talos import versions
from talos_registry_cache.talos.versions import Generation, Talosctl, Version, VersionError
from tests.unit.talos import programs


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
def test_reading_a_version(text: str, expected: Version | None) -> None:
    assert versions.parse(text) == expected


@pytest.mark.parametrize("text", ["v1.11.5", "v1.13.0-rc.1", "v0.4.0"])
def test_a_version_is_written_as_it_is_read(text: str) -> None:
    assert str(versions.parse(text)) == text


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
def test_talosctl_says_its_version(tmp_path: Path, tag: str) -> None:
    program = programs.that_prints(tmp_path / "talosctl", programs.VERSION_OUTPUT.format(tag=tag))

    found = versions.find(program)

    assert found.path == program
    assert str(found.version) == tag


def test_talosctl_is_found_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = programs.that_prints(
        tmp_path / "talosctl-old", programs.VERSION_OUTPUT.format(tag="v0.12.0")
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")

    assert versions.find("talosctl-old") == Talosctl(program, Version(0, 12))


def test_no_talosctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(VersionError, match=r"no program talosctl; install talosctl \(0.4 or later"):
        versions.find()


@pytest.mark.parametrize("program", ["n" * 300, "n" * 5000, f"/{'n' * 300}", "a\0b", "/a\0b"])
def test_what_can_be_no_path(program: str) -> None:
    with pytest.raises(VersionError, match=r"allowed: the path of talosctl|no program") as refused:
        versions.find(program)

    assert len(str(refused.value)) < 250


def test_one_that_cannot_be_executed(tmp_path: Path) -> None:
    program = tmp_path / "talosctl"
    program.write_text("")
    with pytest.raises(VersionError, match="cannot be executed; make it executable"):
        versions.find(str(program))


def test_one_that_is_no_program(tmp_path: Path) -> None:
    program = tmp_path / "talosctl"
    program.write_bytes(b"\x7fELF garbage")
    program.chmod(0o755)
    with pytest.raises(VersionError, match=r"does not tell its version: .*Exec format error"):
        versions.find(str(program))


@pytest.mark.parametrize("text", ["", "hello", "Tag:", "Tag: undefined", "\tTag: v1\n", "x" * 500])
def test_one_that_prints_something_else(tmp_path: Path, text: str) -> None:
    program = programs.that_prints(tmp_path / "talosctl", text)
    with pytest.raises(VersionError, match=r"expected a line such as `Tag: v1.11.5`") as error:
        versions.find(program)
    assert len(str(error.value)) < 400


def test_one_that_fails(tmp_path: Path) -> None:
    program = programs.shell(tmp_path / "talosctl", "echo no such command >&2; exit 3")
    with pytest.raises(VersionError, match="failed with exit code 3: no such command"):
        versions.find(program)


def test_one_that_is_too_old(tmp_path: Path) -> None:
    program = programs.that_prints(
        tmp_path / "talosctl", programs.VERSION_OUTPUT.format(tag="v0.3.2")
    )
    with pytest.raises(VersionError, match=r"is talosctl v0.3.2; allowed: 0.4 or later"):
        versions.find(program)


def test_one_that_does_not_answer(tmp_path: Path) -> None:
    program = programs.shell(tmp_path / "talosctl", "sleep 60 & sleep 60")
    started = time.monotonic()
    with pytest.raises(VersionError, match=r"did not answer within 0.2 s"):
        versions.find(program, within_s=0.2)
    assert time.monotonic() - started < 50
