"""A Pulumi that fits: the machine's own, else one built here, with its plugins."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from toolchain import golang
from toolchain.paths import BIN, PULUMI_HOME, ROOT, STATE, virtualenv_bin
from toolchain.report import run, say, step

SDK_MODULE = "github.com/pulumi/pulumi/sdk/v3"
CLI = golang.Program(
    name="pulumi",
    package="github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
    module="github.com/pulumi/pulumi/pkg/v3",
    version_symbol="github.com/pulumi/pulumi/sdk/v3/go/common/version.Version",
)
LANGUAGE_HOST = golang.Program(
    name="pulumi-language-python",
    package="github.com/pulumi/pulumi/sdk/v3/python/cmd/pulumi-language-python",
    module=SDK_MODULE,
)
DOCKER_PLUGIN = golang.Program(name="pulumi-resource-docker", package=".", tags="no_compose")

# Resource hooks, which the components use, came with 3.182.
OLDEST_CLI = (3, 182)


def ensure() -> None:
    """Make sure that there is a Pulumi CLI with its language host and docker plugin."""
    if not _machine_has_one():
        _build()


def environment(docker_host: str) -> dict[str, str]:
    """The environment that Pulumi runs in: this process's own, with what is not set yet.

    A backend or passphrase that the user has set stays; the state is otherwise kept in the
    checkout, its secrets under a passphrase that was made here.
    """
    env = dict(os.environ)
    env["PATH"] = os.pathsep.join([str(virtualenv_bin()), str(BIN), env.get("PATH", "")])
    env["DOCKER_HOST"] = docker_host
    env["PULUMI_SKIP_UPDATE_CHECK"] = "true"
    if (BIN / CLI.name).exists():
        env["PULUMI_HOME"] = str(PULUMI_HOME)
        env["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] = "true"
    if "PULUMI_BACKEND_URL" not in env:
        STATE.mkdir(exist_ok=True)
        env["PULUMI_BACKEND_URL"] = STATE.as_uri()
    if not {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & env.keys():
        env["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(_passphrase_file())
    return env


def _passphrase_file() -> Path:
    file = STATE / "passphrase"
    if not file.exists():
        STATE.mkdir(exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(os.urandom(32).hex().encode())
    return file


def _machine_has_one() -> bool:
    if (BIN / CLI.name).exists():
        return False
    cli = shutil.which("pulumi")
    if cli is None or not shutil.which("pulumi-language-python"):
        return False
    found = re.match(r"v(\d+)\.(\d+)", run([cli, "version"]))
    if found is None or (int(found[1]), int(found[2])) < OLDEST_CLI:
        say(f"    {cli} is older than {'.'.join(map(str, OLDEST_CLI))} and is left alone")
        return False
    return _has_docker_plugin(cli)


def _has_docker_plugin(cli: str) -> bool:
    version = _docker_plugin_version()
    home = Path(os.environ.get("PULUMI_HOME", Path.home() / ".pulumi"))
    if (home / "plugins" / f"resource-docker-v{version}").is_dir():
        return True
    with step(f"docker plugin {version}"):
        command = [cli, "plugin", "install", "resource", "docker", version]
        installed = subprocess.run(command, capture_output=True, check=False)
    return installed.returncode == 0


def _build() -> None:
    golang.ensure(CLI)
    golang.ensure(LANGUAGE_HOST)
    _copy_script(LANGUAGE_HOST, "python/cmd/pulumi-language-python-exec")
    _copy_script(CLI, "python/dist/pulumi-resource-pulumi-python")
    # Not on PATH, where Pulumi would warn of it at every run.
    plugins = PULUMI_HOME / "plugins"
    golang.ensure(DOCKER_PLUGIN, plugins / f"resource-docker-v{_docker_plugin_version()}")


def _copy_script(program: golang.Program, path: str) -> None:
    """Put a script of the Pulumi SDK beside the programs, where the CLI looks for it."""
    script = BIN / Path(path).name
    if not script.exists():
        shutil.copyfile(golang.module_folder(program, SDK_MODULE) / path, script)
        script.chmod(0o755)


def _docker_plugin_version() -> str:
    """The version that the locked pulumi-docker asks for."""
    pinned = re.search(
        r"^pulumi-docker==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE
    )
    if pinned is None:
        raise LookupError("requirements.txt does not pin pulumi-docker")
    return pinned[1]
