"""Pulumi and its plugins: the machine's own if it is recent enough, else built from source."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from toolchain import golang
from toolchain.paths import BIN, PULUMI_HOME, ROOT, STATE, virtualenv_bin
from toolchain.report import SetupError, run, say, step

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

# The first version with the Stash resource, which the components use.
OLDEST_CLI = (3, 208)
# What to do on a machine without Pulumi.
CHOICE, CHOICES = "PULUMI", ("build", "stop")
INSTALLER_HOST = "get.pulumi.com"
INSTALL = f"curl -fsSL https://{INSTALLER_HOST} | sh"
CONNECT_TIMEOUT_S = 3


def ensure() -> None:
    """Build the Pulumi CLI, its language host and the Docker plugin if the machine has none.

    Raises:
        SetupError: the user prefers to install Pulumi.
    """
    if not is_built():
        problem = why_not_used()
        if not problem and _ensure_docker_plugin():
            return
        _choose(problem or "its Docker plugin cannot be installed")
    _build()


def is_built() -> bool:
    """Whether this checkout has built a Pulumi."""
    return (BIN / CLI.name).exists()


def why_not_used() -> str:
    """Return why the machine's own Pulumi cannot be used; empty if it can."""
    cli = shutil.which(CLI.name)
    if cli is None or not shutil.which(LANGUAGE_HOST.name):
        return "Pulumi is not installed"
    found = re.match(r"v(\d+)\.(\d+)", run([cli, "version"]))
    if found is None or (int(found[1]), int(found[2])) < OLDEST_CLI:
        return f"{cli} is older than {'.'.join(map(str, OLDEST_CLI))}"
    return ""


def environment(docker_host: str) -> dict[str, str]:
    """Return this process's environment, with the variables that Pulumi needs.

    Unless the user has set a backend and a passphrase, the state is kept in the checkout, and its
    secrets are encrypted with a generated passphrase.
    """
    env = dict(os.environ)
    env["PATH"] = os.pathsep.join([str(virtualenv_bin()), str(BIN), env.get("PATH", "")])
    env["DOCKER_HOST"] = docker_host
    env["PULUMI_SKIP_UPDATE_CHECK"] = "true"
    if is_built():
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


def _choose(problem: str) -> None:
    """Let the user install Pulumi instead of building it.

    Without a terminal, or without access to its installer, it is built.
    """
    choice = os.environ.get(CHOICE, "")
    if choice not in {"", *CHOICES}:
        raise SetupError(f"{CHOICE}: found {choice!r}; allowed: {', '.join(CHOICES)}")
    say(f"{problem}. To install it in a minute: {INSTALL}")
    if not choice and sys.stdin.isatty() and _reaches_installer():
        say(f"`make` can build it instead, which takes minutes ({CHOICE}=build).")
        choice = "build" if input("Build it? [y/N] ").strip().lower() in {"y", "yes"} else "stop"
    if choice == "stop":
        raise SetupError(f"install Pulumi, or build it: {CHOICE}=build make up")


def _reaches_installer() -> bool:
    try:
        socket.create_connection((INSTALLER_HOST, 443), CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _ensure_docker_plugin() -> bool:
    """Install the Docker plugin into the machine's own Pulumi, and return whether it is there."""
    version = _docker_plugin_version()
    home = Path(os.environ.get("PULUMI_HOME", Path.home() / ".pulumi"))
    if (home / "plugins" / f"resource-docker-v{version}").is_dir():
        return True
    with step(f"docker plugin {version}"):
        command = [CLI.name, "plugin", "install", "resource", "docker", version]
        installed = subprocess.run(command, capture_output=True, check=False)
    return installed.returncode == 0


def _build() -> None:
    golang.ensure(CLI)
    golang.ensure(LANGUAGE_HOST)
    _copy_script(LANGUAGE_HOST, "python/cmd/pulumi-language-python-exec")
    _copy_script(CLI, "python/dist/pulumi-resource-pulumi-python")
    # If it were on PATH, Pulumi would warn about it at every run.
    plugins = PULUMI_HOME / "plugins"
    golang.ensure(DOCKER_PLUGIN, plugins / f"resource-docker-v{_docker_plugin_version()}")


def _copy_script(program: golang.Program, path: str) -> None:
    """Copy a script of the Pulumi SDK next to the CLI, which looks for it there."""
    script = BIN / Path(path).name
    if not script.exists():
        shutil.copyfile(golang.module_folder(program, SDK_MODULE) / path, script)
        script.chmod(0o755)


def _docker_plugin_version() -> str:
    """Return the version of the plugin, which is that of the pinned pulumi-docker."""
    pinned = re.search(
        r"^pulumi-docker==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE
    )
    if pinned is None:
        raise LookupError("requirements.txt does not pin pulumi-docker")
    return pinned[1]
