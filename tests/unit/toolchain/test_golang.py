import re
from pathlib import Path

import pytest

from tests.unit.toolchain.fakes import Commands, programs
from toolchain import golang, pulumi, registry_image, talosctl, test_tools
from toolchain.golang import Program
from toolchain.paths import GO_MODULES
from toolchain.report import SetupError

PROGRAMS = [
    pulumi.CLI,
    pulumi.LANGUAGE_HOST,
    pulumi.DOCKER_PLUGIN,
    registry_image.DEFAULT,
    registry_image.OLDER,
    talosctl.CURRENT,
    talosctl.CLASSIC,
    test_tools.ACTIONLINT,
    test_tools.MINIO,
    test_tools.PROMETHEUS,
    test_tools.YAML_HOST,
    test_tools.NODEJS_HOST,
    test_tools.NODEJS_SDK,
]
WITH_VERSION = [program for program in PROGRAMS if program.module]
TOOL = Program(name="tool", package="example.test/tool/cmd", module="example.test/tool")


def by_name(program: Program) -> str:
    return program.name


# The modules of the project


def test_every_module_folder_is_of_one_program() -> None:
    folders = sorted(path.parent.name for path in GO_MODULES.glob("*/go.mod"))

    assert folders == sorted(program.name for program in PROGRAMS)


@pytest.mark.parametrize("program", PROGRAMS, ids=by_name)
def test_every_module_is_pinned_by_checksums(program: Program) -> None:
    sums = (program.folder / "go.sum").read_text()

    assert re.search(r"^\S+ v\S+ h1:\S+=$", sums, re.MULTILINE)


@pytest.mark.parametrize("program", WITH_VERSION, ids=by_name)
def test_the_version_of_a_program_is_the_one_that_its_module_requires(program: Program) -> None:
    words = (program.folder / "go.mod").read_text().split()

    assert program.version == words[words.index(program.module) + 1]
    assert re.fullmatch(r"v\d+\.\d+\.\d+", program.version)


@pytest.mark.parametrize("program", [one for one in PROGRAMS if one.package != "."], ids=by_name)
def test_the_package_that_is_built_is_the_tool_of_its_module(program: Program) -> None:
    assert f"tool {program.package}\n" in (program.folder / "go.mod").read_text()


@pytest.mark.parametrize("program", PROGRAMS, ids=by_name)
def test_the_oldest_go_is_new_enough_for_every_module(program: Program) -> None:
    needed = re.search(r"^go (\d+)\.(\d+)", (program.folder / "go.mod").read_text(), re.MULTILINE)

    assert needed is not None
    assert (int(needed[1]), int(needed[2])) <= golang.OLDEST_GO


# How a version is found


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
def test_a_version_is_found_however_it_is_required(module: Path, text: str) -> None:
    (module / "go.mod").write_text(text)

    assert TOOL.version == "v1.2.3"


def test_a_module_that_is_not_required_is_an_error_that_names_the_file(module: Path) -> None:
    (module / "go.mod").write_text("require exampleztest/tool v1.2.3\n")

    with pytest.raises(LookupError, match=r"tool/go\.mod does not require example\.test/tool"):
        _ = TOOL.version


# Building


class FakeGo:
    """Takes the place of the Go command: writes what it is told to build."""

    def __init__(self) -> None:
        self.builds: list[tuple[str, ...]] = []
        self.works = True

    def __call__(self, *arguments: str, cwd: Path) -> str:
        assert cwd == TOOL.folder
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


@pytest.mark.usefixtures("module")
def test_a_program_is_built_once(go: FakeGo, tmp_path: Path) -> None:
    first = golang.ensure(TOOL, tmp_path / "bin")
    second = golang.ensure(TOOL, tmp_path / "bin")

    assert first == second == tmp_path / "bin" / "tool"
    assert first.read_text() == "build 1"
    assert len(go.builds) == 1


@pytest.mark.parametrize("file", ["go.mod", "go.sum"])
def test_a_program_is_built_again_when_what_pins_it_changes(
    module: Path, go: FakeGo, tmp_path: Path, file: str
) -> None:
    golang.ensure(TOOL, tmp_path / "bin")
    with (module / file).open("a") as opened:
        opened.write("\n// changed\n")

    golang.ensure(TOOL, tmp_path / "bin")

    assert len(go.builds) == 2


@pytest.mark.usefixtures("module")
def test_a_program_that_is_gone_is_built_again(go: FakeGo, tmp_path: Path) -> None:
    golang.ensure(TOOL, tmp_path / "bin").unlink()

    assert golang.ensure(TOOL, tmp_path / "bin").read_text() == "build 2"
    assert len(go.builds) == 2


@pytest.mark.usefixtures("module")
def test_a_failed_build_leaves_no_program_behind(go: FakeGo, tmp_path: Path) -> None:
    go.works = False
    with pytest.raises(SetupError, match="the build failed"):
        golang.ensure(TOOL, tmp_path / "bin")
    assert not (tmp_path / "bin" / "tool").exists()

    go.works = True

    assert golang.ensure(TOOL, tmp_path / "bin").read_text() == "build 2"


@pytest.mark.usefixtures("module")
def test_a_program_is_told_its_version(go: FakeGo, tmp_path: Path) -> None:
    program = Program(
        name="tool", package="p", module=TOOL.module, version_symbol="here.version", tags="small"
    )

    golang.ensure(program, tmp_path / "bin")

    assert "-ldflags=-s -w -X here.version=v1.2.3" in go.builds[0]
    assert "-tags=small" in go.builds[0]


# The compiler


@pytest.mark.parametrize(
    ("version", "fits"),
    [("go1.26.1", True), ("go1.27", True), ("go2.0", True), ("go1.25.9", False), ("devel", False)],
)
@pytest.mark.usefixtures("module")
def test_the_machine_s_go_is_used_if_it_is_new_enough(
    monkeypatch: pytest.MonkeyPatch, version: str, *, fits: bool
) -> None:
    commands = Commands(answers={"GOVERSION": f"{version}\n"})
    monkeypatch.setattr(golang, "run", commands)
    monkeypatch.setattr("shutil.which", programs("go"))

    compiler = golang._compiler()

    installed = any("--require-hashes" in line for line in commands.lines)
    assert (compiler == Path("/usr/bin/go")) is fits
    assert installed is not fits


def test_go_is_installed_from_its_python_package_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands = Commands()
    monkeypatch.setattr(golang, "run", commands)
    monkeypatch.setattr(golang, "CACHE", tmp_path)
    monkeypatch.setattr("shutil.which", programs())

    compiler = golang._compiler()
    compiler.parent.mkdir(parents=True)
    compiler.touch()

    assert golang._compiler() == compiler
    (install,) = commands.lines
    assert "--require-hashes" in install
    assert f"--target {tmp_path / 'go'}" in install


def test_go_builds_what_is_pinned_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: dict[str, str] = {}

    def run(command: list[str], *, cwd: Path, env: dict[str, str]) -> str:
        assert cwd == tmp_path
        seen.update(env)
        return " ".join(map(str, command))

    monkeypatch.setattr(golang, "run", run)
    monkeypatch.setattr(golang, "_compiler", lambda: Path("go"))
    monkeypatch.setenv("GOFLAGS", "-mod=mod")

    assert golang._go("version", cwd=tmp_path) == "go version"
    assert {name: seen[name] for name in ("CGO_ENABLED", "GOFLAGS", "GOWORK", "GOTOOLCHAIN")} == {
        "CGO_ENABLED": "0",
        "GOFLAGS": "",
        "GOWORK": "off",
        "GOTOOLCHAIN": "local",
    }
