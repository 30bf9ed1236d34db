"""Pulumi keeps its state in the checkout, and is built if the machine has none that fits."""

import os
import stat
from pathlib import Path

import pytest

from tests.unit.toolchain.fakes import Commands, Processes, programs
from toolchain import golang, pulumi
from toolchain.golang import Program
from toolchain.report import SetupError

HOST = "unix:///var/run/docker.sock"


@pytest.fixture(autouse=True)
def checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A fresh checkout, and a user who has set nothing."""
    monkeypatch.setattr(pulumi, "STATE", tmp_path / ".state")
    monkeypatch.setattr(pulumi, "BIN", tmp_path / "bin")
    monkeypatch.setattr(pulumi, "PULUMI_HOME", tmp_path / "pulumi-home")
    monkeypatch.setattr(pulumi, "virtualenv_bin", lambda: tmp_path / "venv")
    for name in [name for name in os.environ if name.startswith("PULUMI_")]:
        monkeypatch.delenv(name)
    return tmp_path


def own_pulumi(checkout: Path) -> None:
    (checkout / "bin").mkdir()
    (checkout / "bin" / "pulumi").touch()


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_state_and_a_private_passphrase_are_kept_in_the_checkout(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, umask: int
) -> None:
    before = os.umask(umask)
    try:
        first, again = pulumi.environment(HOST), pulumi.environment(HOST)
        monkeypatch.setattr(pulumi, "STATE", checkout / "another")
        another = pulumi.environment(HOST)
    finally:
        os.umask(before)

    assert first == again
    assert first["PULUMI_BACKEND_URL"] == (checkout / ".state").as_uri()
    here, there = (Path(env["PULUMI_CONFIG_PASSPHRASE_FILE"]) for env in (first, another))
    assert here.parent == checkout / ".state"
    assert stat.S_IMODE(here.stat().st_mode) == 0o600
    assert len(bytes.fromhex(here.read_text())) == 32
    assert here.read_text() != there.read_text()


@pytest.mark.parametrize("name", ["PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"])
@pytest.mark.parametrize("value", ["mine", ""])
def test_users_own_backend_and_passphrase_are_kept(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://my-bucket")
    monkeypatch.setenv(name, value)

    env = pulumi.environment(HOST)

    assert env["PULUMI_BACKEND_URL"] == "s3://my-bucket"
    assert {key: env[key] for key in env if "PASSPHRASE" in key} == {name: value}
    assert not (checkout / ".state").exists()


def test_programs_of_the_checkout_come_first_and_a_built_pulumi_downloads_nothing(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    assert "PULUMI_HOME" not in pulumi.environment(HOST)

    own_pulumi(checkout)
    env = pulumi.environment(HOST)

    assert env["PATH"] == os.pathsep.join([f"{checkout}/venv", f"{checkout}/bin", "/usr/bin"])
    assert env["DOCKER_HOST"] == HOST
    assert env["PULUMI_HOME"] == str(checkout / "pulumi-home")
    assert env["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] == "true"


# Which Pulumi is used


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, checkout: Path) -> list[str]:
    """Notes the programs instead of building them."""
    names: list[str] = []

    def ensure(program: Program, folder: Path = checkout / "bin") -> Path:
        names.append(program.name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / program.name

    sdk = checkout / "sdk"
    for script in ("cmd/pulumi-language-python-exec", "dist/pulumi-resource-pulumi-python"):
        (sdk / "python" / script).parent.mkdir(parents=True)
        (sdk / "python" / script).write_text("#!/bin/sh\n")
    monkeypatch.setattr(golang, "ensure", ensure)
    monkeypatch.setattr(golang, "module_folder", lambda *_: sdk)
    return names


BOTH = ("pulumi", "pulumi-language-python")
ALL_THREE = ["pulumi", "pulumi-language-python", "pulumi-resource-docker"]


@pytest.mark.parametrize(
    ("names", "version", "plugin", "is_used"),
    [
        (BOTH, "v3.208.0", True, True),
        (BOTH, "v4.0.0-alpha.2", True, True),
        (BOTH, "v3.207.9", True, False),
        (BOTH, "v2.999.0", True, False),
        (BOTH, "dev", True, False),
        (BOTH, "v3.250.0", False, False),
        (("pulumi",), "v3.250.0", True, False),
        ((), "v3.250.0", True, False),
    ],
)
def test_pulumi_is_built_unless_the_machines_is_recent_and_gets_the_plugin(
    monkeypatch: pytest.MonkeyPatch,
    built: list[str],
    checkout: Path,
    names: tuple[str, ...],
    version: str,
    *,
    plugin: bool,
    is_used: bool,
) -> None:
    processes = Processes(code=0 if plugin else 1)
    monkeypatch.setattr("shutil.which", programs(*names))
    monkeypatch.setattr(pulumi, "run", Commands(answers={"version": version}))
    monkeypatch.setattr("subprocess.run", processes)
    wanted = pulumi._docker_plugin_version()

    pulumi.ensure()

    if is_used:
        assert built == []
        assert processes.lines == [f"pulumi plugin install resource docker {wanted}"]
        return
    assert built == ALL_THREE
    assert (checkout / "pulumi-home" / "plugins" / f"resource-docker-v{wanted}").is_dir()
    for script in ("pulumi-language-python-exec", "pulumi-resource-pulumi-python"):
        assert os.access(checkout / "bin" / script, os.X_OK)


@pytest.mark.parametrize("is_built", [True, False])
def test_built_pulumi_and_an_installed_plugin_stay_in_use(
    monkeypatch: pytest.MonkeyPatch, built: list[str], checkout: Path, *, is_built: bool
) -> None:
    monkeypatch.setattr("shutil.which", programs(*BOTH))
    monkeypatch.setattr(pulumi, "run", Commands(answers={"version": "v3.250.0"}))
    monkeypatch.setenv("PULUMI_HOME", str(checkout / "home"))
    plugin = f"resource-docker-v{pulumi._docker_plugin_version()}"
    (checkout / "home" / "plugins" / plugin).mkdir(parents=True)
    if is_built:
        own_pulumi(checkout)

    pulumi.ensure()

    assert built == (ALL_THREE if is_built else [])


@pytest.mark.parametrize(
    ("choice", "typed", "is_terminal", "is_built"),
    [
        ("build", None, True, True),
        ("stop", None, True, False),
        ("stop", None, False, False),
        ("", None, False, True),
        ("", "y", True, True),
        ("", "", True, False),
    ],
)
@pytest.mark.usefixtures("checkout")
def test_a_user_can_install_pulumi_instead_of_building_it(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    built: list[str],
    choice: str,
    typed: str | None,
    *,
    is_terminal: bool,
    is_built: bool,
) -> None:
    monkeypatch.setattr("shutil.which", programs())
    monkeypatch.setattr("sys.stdin.isatty", lambda: is_terminal)
    monkeypatch.setattr(pulumi, "_reaches_installer", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: typed)
    monkeypatch.setenv("PULUMI", choice)

    if is_built:
        pulumi.ensure()
    else:
        with pytest.raises(SetupError, match="install Pulumi, or build it: PULUMI=build make up"):
            pulumi.ensure()

    assert bool(built) is is_built
    assert "Pulumi is not installed. To install it in a minute: curl " in capsys.readouterr().err


@pytest.mark.usefixtures("checkout", "built")
def test_another_choice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", programs())
    monkeypatch.setenv("PULUMI", "skip")

    with pytest.raises(SetupError, match="PULUMI: found 'skip'; allowed: build, stop"):
        pulumi.ensure()


def test_plugin_has_the_version_of_the_pinned_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lock = "pulumi==3.272.0 \\\n    --hash=sha256:0\npulumi-docker==5.2.0 \\\n    --hash=sha256:1\n"
    (tmp_path / "requirements.txt").write_text(lock)
    monkeypatch.setattr(pulumi, "ROOT", tmp_path)

    assert pulumi._docker_plugin_version() == "5.2.0"
