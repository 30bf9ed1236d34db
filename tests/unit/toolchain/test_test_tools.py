import pytest

from tests.unit.toolchain.fakes import Commands, programs
from toolchain import golang, test_tools
from toolchain.report import SetupError


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    fake = Commands()
    monkeypatch.setattr(test_tools, "run", fake)
    return fake


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    monkeypatch.setattr(golang, "ensure", lambda program: names.append(program.name))
    return names


def test_programs_that_only_the_tests_run_are_built(
    monkeypatch: pytest.MonkeyPatch, commands: Commands, built: list[str]
) -> None:
    monkeypatch.setattr("shutil.which", programs("ctr", "ip", "npm"))

    test_tools.ensure()

    assert built == [
        "registry",
        "talosctl-1.13",
        "talosctl-1.11",
        "actionlint",
        "minio",
        "prometheus",
        "pulumi-language-yaml",
        "pulumi-language-nodejs",
        "pulumi-sdk-nodejs",
    ]
    assert commands.lines == []


@pytest.mark.usefixtures("built")
def test_missing_tools_are_installed_where_they_can_be(
    monkeypatch: pytest.MonkeyPatch, commands: Commands
) -> None:
    monkeypatch.setattr("shutil.which", programs("apt-get", "ip", "npm"))
    monkeypatch.setattr("os.geteuid", lambda: 0)

    test_tools.ensure()

    assert commands.lines[0].startswith("apt-get update")
    assert commands.lines[1].endswith("--no-install-recommends containerd")


@pytest.mark.parametrize(("present", "user"), [(["apt-get"], 1000), ([], 0)])
def test_missing_tools_are_named_where_they_cannot_be_installed(
    monkeypatch: pytest.MonkeyPatch,
    commands: Commands,
    built: list[str],
    present: list[str],
    user: int,
) -> None:
    monkeypatch.setattr("shutil.which", programs(*present))
    monkeypatch.setattr("os.geteuid", lambda: user)

    with pytest.raises(SetupError, match="the tests need containerd, iproute2, npm: install them"):
        test_tools.ensure()

    assert commands.lines == built == []
