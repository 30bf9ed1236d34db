import os
import stat
from pathlib import Path

import pytest

from tests.unit.toolchain.fakes import Commands, Processes, programs
from toolchain import golang, pulumi
from toolchain.golang import Program

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


# The environment


def test_state_is_kept_in_the_checkout(checkout: Path) -> None:
    env = pulumi.environment(HOST)

    assert env["PULUMI_BACKEND_URL"] == (checkout / ".state").as_uri()
    assert (checkout / ".state").is_dir()


def test_a_backend_that_the_user_has_set_stays(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://my-bucket")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "mine")

    assert pulumi.environment(HOST)["PULUMI_BACKEND_URL"] == "s3://my-bucket"
    assert not (checkout / ".state").exists()


@pytest.mark.parametrize("name", ["PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"])
@pytest.mark.parametrize("value", ["mine", ""])
def test_a_passphrase_that_the_user_has_set_stays_even_an_empty_one(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    env = pulumi.environment(HOST)

    assert {key: env[key] for key in env if "PASSPHRASE" in key} == {name: value}
    assert not (checkout / ".state" / "passphrase").exists()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_passphrase_is_made_that_only_its_owner_can_read(umask: int) -> None:
    before = os.umask(umask)
    try:
        file = Path(pulumi.environment(HOST)["PULUMI_CONFIG_PASSPHRASE_FILE"])
    finally:
        os.umask(before)

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(bytes.fromhex(file.read_text())) == 32


def test_the_passphrase_is_the_same_at_every_run() -> None:
    first = Path(pulumi.environment(HOST)["PULUMI_CONFIG_PASSPHRASE_FILE"]).read_text()
    second = Path(pulumi.environment(HOST)["PULUMI_CONFIG_PASSPHRASE_FILE"]).read_text()

    assert first == second


def test_two_checkouts_have_two_passphrases(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = pulumi._passphrase_file().read_text()
    monkeypatch.setattr(pulumi, "STATE", checkout / "another")

    assert pulumi._passphrase_file().read_text() != here


def test_programs_of_the_checkout_come_first(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")

    env = pulumi.environment(HOST)

    assert env["PATH"] == os.pathsep.join([f"{checkout}/venv", f"{checkout}/bin", "/usr/bin"])
    assert env["DOCKER_HOST"] == HOST
    assert env["PULUMI_SKIP_UPDATE_CHECK"] == "true"


def test_the_machine_s_own_pulumi_keeps_its_home() -> None:
    env = pulumi.environment(HOST)

    assert "PULUMI_HOME" not in env
    assert "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION" not in env


def test_a_pulumi_that_was_built_here_has_a_home_here_and_downloads_nothing(
    checkout: Path,
) -> None:
    own_pulumi(checkout)

    env = pulumi.environment(HOST)

    assert env["PULUMI_HOME"] == str(checkout / "pulumi-home")
    assert env["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] == "true"


# Which Pulumi is used


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, checkout: Path) -> list[str]:
    """The programs that are built, instead of building them."""
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


def machine_has(
    monkeypatch: pytest.MonkeyPatch, *names: str, version: str = "v3.200.0", plugin: bool = True
) -> Processes:
    processes = Processes(code=0 if plugin else 1)
    monkeypatch.setattr("shutil.which", programs(*names))
    monkeypatch.setattr(pulumi, "run", Commands(answers={"version": version}))
    monkeypatch.setattr("subprocess.run", processes)
    return processes


BOTH = ("pulumi", "pulumi-language-python")
ALL_THREE = ["pulumi", "pulumi-language-python", "pulumi-resource-docker"]


@pytest.mark.parametrize("version", ["v3.182.0", "v3.200.1-alpha.2", "v4.0.0"])
def test_a_machine_s_pulumi_that_fits_is_used(
    monkeypatch: pytest.MonkeyPatch, built: list[str], version: str
) -> None:
    processes = machine_has(monkeypatch, *BOTH, version=version)

    pulumi.ensure()

    assert built == []
    assert processes.lines == [
        f"/usr/bin/pulumi plugin install resource docker {pulumi._docker_plugin_version()}"
    ]


def test_a_plugin_that_is_there_is_not_installed_again(
    monkeypatch: pytest.MonkeyPatch, built: list[str], checkout: Path
) -> None:
    processes = machine_has(monkeypatch, *BOTH)
    monkeypatch.setenv("PULUMI_HOME", str(checkout / "home"))
    plugin = f"resource-docker-v{pulumi._docker_plugin_version()}"
    (checkout / "home" / "plugins" / plugin).mkdir(parents=True)

    pulumi.ensure()

    assert built == processes.lines == []


@pytest.mark.parametrize(
    ("names", "version", "plugin"),
    [
        ((), "v3.200.0", True),
        (("pulumi",), "v3.200.0", True),
        (BOTH, "v3.181.9", True),
        (BOTH, "v2.999.0", True),
        (BOTH, "dev", True),
        (BOTH, "v3.200.0", False),
    ],
)
def test_otherwise_pulumi_is_built_here(
    monkeypatch: pytest.MonkeyPatch,
    built: list[str],
    names: tuple[str, ...],
    version: str,
    *,
    plugin: bool,
) -> None:
    machine_has(monkeypatch, *names, version=version, plugin=plugin)

    pulumi.ensure()

    assert built == ALL_THREE


def test_what_was_built_here_stays_in_use(
    monkeypatch: pytest.MonkeyPatch, built: list[str], checkout: Path
) -> None:
    own_pulumi(checkout)
    machine_has(monkeypatch, *BOTH)

    pulumi.ensure()

    assert built == ALL_THREE


def test_the_plugin_and_the_scripts_are_put_where_pulumi_looks(
    monkeypatch: pytest.MonkeyPatch, built: list[str], checkout: Path
) -> None:
    machine_has(monkeypatch)

    pulumi.ensure()

    plugin = f"resource-docker-v{pulumi._docker_plugin_version()}"
    assert (checkout / "pulumi-home" / "plugins" / plugin).is_dir()
    for script in ("pulumi-language-python-exec", "pulumi-resource-pulumi-python"):
        assert os.access(checkout / "bin" / script, os.X_OK)
    assert built == ALL_THREE


def test_an_older_pulumi_is_said_to_be_left_alone(
    monkeypatch: pytest.MonkeyPatch, built: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    machine_has(monkeypatch, *BOTH, version="v3.100.0")

    pulumi.ensure()

    assert "/usr/bin/pulumi is older than 3.182 and is left alone" in capsys.readouterr().err
    assert built == ALL_THREE


# The plugin's version


def test_the_plugin_is_of_the_version_of_its_locked_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lock = "pulumi==3.272.0 \\\n    --hash=sha256:0\npulumi-docker==5.2.0 \\\n    --hash=sha256:1\n"
    (tmp_path / "requirements.txt").write_text(lock)
    monkeypatch.setattr(pulumi, "ROOT", tmp_path)

    assert pulumi._docker_plugin_version() == "5.2.0"


def test_a_lock_without_the_plugin_s_package_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "requirements.txt").write_text("pulumi==3.272.0\n")
    monkeypatch.setattr(pulumi, "ROOT", tmp_path)

    with pytest.raises(LookupError, match="does not pin pulumi-docker"):
        pulumi._docker_plugin_version()
