"""Go programs are pinned by modules of their own, and built once per version."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.toolchain.fakes import Commands, programs
from toolchain import golang
from toolchain.golang import Program
from toolchain.paths import GO_MODULES
from toolchain.report import Count, SetupError

TOOL = Program(name="tool", package="example.test/tool/cmd", module="example.test/tool")


@pytest.mark.parametrize("file", sorted(GO_MODULES.glob("*/go.mod")), ids=lambda f: f.parent.name)
def test_oldest_supported_go_can_build_every_module(file: Path) -> None:
    needed = re.search(r"^go (\S+)$", file.read_text(), re.MULTILINE)

    assert needed is not None
    assert tuple(map(int, needed[1].split("."))) <= golang.OLDEST_GO


# Versions


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a module that requires `tool`."""
    monkeypatch.setattr(golang, "GO_MODULES", tmp_path / "go")
    monkeypatch.setattr(golang, "CACHE", tmp_path / "cache")
    folder = tmp_path / "go" / "tool"
    folder.mkdir(parents=True)
    (folder / "go.mod").write_text("module here\n\nrequire example.test/tool v1.2.3\n")
    (folder / "go.sum").write_text("example.test/tool v1.2.3 h1:abc=\n")
    return folder


@pytest.mark.parametrize(
    "text",
    [
        "require example.test/tool v1.2.3\n",
        "require (\n\texample.test/tool v1.2.3 // indirect\n)\n",
        "require example.test/tool/v2 v2.0.0\nrequire example.test/tool v1.2.3\n",
        "require (\n\texample.test/toolbox v4.0.0\n\texample.test/tool v1.2.3\n)\n",
        "replace example.test/tool v9.9.9 => ./here\n\nrequire example.test/tool v1.2.3\n",
    ],
)
def test_version_is_found_in_any_form_of_require(module: Path, text: str) -> None:
    (module / "go.mod").write_text(text)

    assert TOOL.version == "v1.2.3"


def test_module_that_is_not_required_is_an_error(module: Path) -> None:
    (module / "go.mod").write_text("require exampleztest/tool v1.2.3\n")

    with pytest.raises(LookupError, match=r"tool/go\.mod does not require example\.test/tool"):
        _ = TOOL.version


# Building


class FakeGo:
    """Replaces the Go command: writes a text in place of each program."""

    def __init__(self) -> None:
        self.builds: list[tuple[str, ...]] = []
        self.environments: list[Mapping[str, str]] = []
        self.works = True

    def __call__(
        self,
        *arguments: str,
        cwd: Path,
        environment: Mapping[str, str],
        compiled: Count | None = None,
    ) -> str:
        assert cwd == TOOL.folder
        if compiled is None:
            return "errors\nexample.test/tool/cmd\n"
        self.environments.append(environment)
        self.builds.append(arguments)
        Path(arguments[arguments.index("-o") + 1]).write_text("half of it")
        if not self.works:
            raise SetupError("the build failed")
        Path(arguments[arguments.index("-o") + 1]).write_text(f"build {len(self.builds)}")
        return ""


@pytest.fixture
def go(monkeypatch: pytest.MonkeyPatch) -> FakeGo:
    fake = FakeGo()
    monkeypatch.setattr(golang, "_go", fake)
    return fake


@pytest.mark.parametrize("changed", ["", "go.mod", "go.sum", "binary", "tags"])
def test_program_is_built_again_only_if_it_or_its_module_or_tags_change(
    module: Path, go: FakeGo, tmp_path: Path, changed: str
) -> None:
    binary = golang.ensure(TOOL, tmp_path / "bin")
    if changed == "binary":
        binary.unlink()
    elif changed.startswith("go"):
        with (module / changed).open("a") as opened:
            opened.write("\n// changed\n")
    program = replace(TOOL, tags="small") if changed == "tags" else TOOL

    assert golang.ensure(program, tmp_path / "bin") == binary == tmp_path / "bin" / "tool"

    assert len(go.builds) == (2 if changed else 1)
    assert binary.read_text() == f"build {len(go.builds)}"


@pytest.mark.usefixtures("module")
def test_failed_build_leaves_no_program_behind(go: FakeGo, tmp_path: Path) -> None:
    go.works = False
    with pytest.raises(SetupError, match="the build failed"):
        golang.ensure(TOOL, tmp_path / "bin")
    assert not (tmp_path / "bin" / "tool").exists()
    go.works = True
    program = replace(TOOL, version_symbol="here.version")

    assert golang.ensure(program, tmp_path / "bin").read_text() == "build 2"
    assert "-ldflags=-s -w -X here.version=v1.2.3" in go.builds[1]


@pytest.mark.usefixtures("module")
def test_the_environment_of_a_build_is_asked_for_only_if_it_is_needed(
    go: FakeGo, tmp_path: Path
) -> None:
    for needs in (lambda: {"CGO_ENABLED": "1"}, lambda: pytest.fail("the program is there")):
        golang.ensure(TOOL, tmp_path / "bin", needs)

    assert go.environments == [{"CGO_ENABLED": "1"}]


# The compiler


@pytest.mark.parametrize(
    ("version", "fits"),
    [("go1.26.5", True), ("go1.27", True), ("go2.0", True), ("go1.26.4", False), ("devel", False)],
)
@pytest.mark.usefixtures("module")
def test_machines_go_is_used_if_it_is_recent_enough(
    monkeypatch: pytest.MonkeyPatch, version: str, *, fits: bool
) -> None:
    commands = Commands(answers={"GOVERSION": f"{version}\n"})
    monkeypatch.setattr(golang, "run", commands)
    monkeypatch.setattr("shutil.which", programs("go"))

    compiler = golang._compiler()

    installed = any("--require-hashes" in line for line in commands.lines)
    assert (compiler == Path("/usr/bin/go")) is fits
    assert installed is not fits
