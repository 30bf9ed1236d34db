"""Missing test tools are installed if the machine allows it, and named otherwise."""

import pytest

from tests.unit.toolchain.fakes import Commands, programs
from toolchain import golang, test_tools
from toolchain.report import SetupError


@pytest.fixture(autouse=True)
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    fake = Commands()
    monkeypatch.setattr(test_tools, "run", fake)
    monkeypatch.setattr(golang, "ensure", lambda _: None)
    return fake


def test_only_missing_packages_are_installed(
    monkeypatch: pytest.MonkeyPatch, commands: Commands
) -> None:
    present = test_tools.PACKAGES.keys() - {"ctr"}
    monkeypatch.setattr("shutil.which", programs("apt-get", *present))
    monkeypatch.setattr("os.geteuid", lambda: 0)

    test_tools.ensure()

    assert commands.lines[-1].endswith("--no-install-recommends containerd")


@pytest.mark.parametrize(("present", "user"), [(["apt-get"], 1000), ([], 0)])
def test_packages_that_cannot_be_installed_are_named(
    monkeypatch: pytest.MonkeyPatch, commands: Commands, present: list[str], user: int
) -> None:
    monkeypatch.setattr("shutil.which", programs(*present))
    monkeypatch.setattr("os.geteuid", lambda: user)

    with pytest.raises(SetupError, match=r"the tests need these packages: containerd, iproute2"):
        test_tools.ensure()

    assert commands.lines == []
