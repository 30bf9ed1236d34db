"""Commands of users in a copy of this repository, on an engine of their own."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import yaml
from docker import DockerClient

from tests.integration.support import host, nodes, private_engine, processes
from tests.integration.support.polling import PATIENCE
from tests.integration.support.private_engine import PrivateEngine
from tests.integration.support.stack import PROJECT, ROOT
from tests.integration.support.upstream import IMAGE

BLOCK_WITHIN_S = 150
# Longer than the start of the command on a busy machine.
FOLLOWED_FOR_S = 20
# Exit codes of `timeout`, and of a shell.
INTERRUPTED = (124, 130)
# What bash prints of the command that it runs, and errors, after which the command ends by itself.
NOT_THE_LOG = ("+ ", "cachectl: ")
TALOSCTL = "talosctl-1.11"
NODE_TAG = "v1.11.5"
IMAGES = ("library/alpine:latest", "team/tool:1")

PROJECT_LABEL = f"{PROJECT}.stack"

# The answer to every prompt.
TYPED = "a password\n"


@dataclass(frozen=True, slots=True)
class Machine:
    """A private engine, with an upstream that has the images of the documents."""

    engine: PrivateEngine
    client: DockerClient
    upstream_url: str

    def stop_upstream(self) -> None:
        """Stop the upstream: connections are refused."""
        for container in self.client.containers.list(filters={"ancestor": IMAGE}):
            if PROJECT_LABEL not in container.labels:
                container.stop(timeout=1)

    def run(
        self, script: str, checkout: Path, env: Mapping[str, str] = MappingProxyType({})
    ) -> tuple[int, str]:
        """Run commands in a checkout, and return exit code and output.

        A command that follows a log must be alone in its block, and is interrupted after it has
        shown a line, or after a while.
        """
        follows = re.search(r"\blogs\b.* (-f|--follow)\b", script)
        assert not follows or len(script.splitlines()) == 1, f"not alone: {script}"
        line = ["bash", "-e", "-x", "-c", script]
        environment = {**_environment(checkout, self.engine.host), **env}
        if follows:
            return self._follow(line, checkout, environment)
        done = subprocess.run(
            [*self.engine.enter, *line],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            input=TYPED,
            timeout=PATIENCE * BLOCK_WITHIN_S,
            cwd=checkout,
            env=environment,
        )
        return done.returncode, done.stdout

    def _follow(
        self, line: Sequence[str], checkout: Path, env: Mapping[str, str]
    ) -> tuple[int, str]:
        limit = ("timeout", "--signal=INT", str(FOLLOWED_FOR_S))
        with subprocess.Popen(
            [*self.engine.enter, *limit, *line],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=checkout,
            env=env,
        ) as running:
            assert running.stdout
            said = []
            for shown in running.stdout:
                said.append(shown)
                if not shown.startswith(NOT_THE_LOG):
                    running.send_signal(signal.SIGINT)
        code = running.returncode
        return (0 if code in INTERRUPTED else code), "".join(said)

    def clean(self) -> None:
        """Remove the resources that the commands created."""
        for container in self.client.containers.list(all=True, ignore_removed=True):
            if set(container.labels) & {PROJECT_LABEL, nodes.CLUSTER_LABEL}:
                container.remove(force=True, v=True)
        self.client.networks.prune()
        for volume in self.client.volumes.list(filters={"label": PROJECT_LABEL}):
            volume.remove(force=True)


@contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    """Run an engine and its upstream.

    Args:
        folder: an empty folder for their files.
    """
    engine_folder, node_folder = folder / "engine", folder / "node"
    for one in (engine_folder, node_folder):
        one.mkdir()
    with private_engine.running(engine_folder) as engine, engine.client() as client:
        port = host.free_port()
        with nodes.upstream(engine, port, node_folder, NODE_TAG) as pushed:
            registry = f"{host.LOOPBACK}:{port}"
            for image in IMAGES:
                _copy(engine, f"{registry}/{pushed.name}", f"{registry}/{image}")
            yield Machine(engine, client, f"http://{host.bridge_gateway(client)}:{port}")


@contextmanager
def checkout(on: Machine, folder: Path) -> Iterator[Path]:
    """Make a copy of this repository, adapted to a machine; its resources are removed at the end.

    Args:
        on: the machine.
        folder: an empty folder for the copy and the home folder of its user.
    """
    made = folder / "checkout"
    for name in _files():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, made / name)
    for file in made.glob("Pulumi.*.yaml"):
        _adapt(file, on.upstream_url)
    _lend_what_is_installed(made)
    yield made
    on.clean()


def _files() -> list[str]:
    """The files of a clone, including uncommitted files."""
    line = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    listed = processes.run(*line, cwd=ROOT).split("\0")
    return [name for name in listed if (ROOT / name).is_file()]


def _adapt(file: Path, upstream_url: str) -> None:
    """Replace all upstreams by that of the tests, and Talos nodes by stand-ins."""
    settings = yaml.safe_load(file.read_text())
    config = settings["config"]
    for upstream in config.get("caches", {}).get("upstreams", {}).values():
        upstream["remoteUrl"] = upstream_url
    for cluster in config.get("clusters", {}).values():
        cluster["talosctl"] = TALOSCTL
        cluster["extraArguments"] = ["--wait=false", "--with-init-node", "--skip-kubeconfig"]
    file.write_text(yaml.safe_dump(settings))


def _lend_what_is_installed(checkout: Path) -> None:
    """Link the tools and packages of this checkout, as if `make` had installed them."""
    (checkout / ".toolchain").symlink_to(ROOT / ".toolchain")
    venv = checkout / ".venv"
    processes.run(sys.executable, "-m", "venv", "--without-pip", venv)
    (packages,) = venv.glob("lib/python*/site-packages")
    (outer,) = Path(sys.prefix).glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text(f"{outer}\n")
    program = venv / "bin" / "cachectl"
    program.write_text(
        f"#!{venv}/bin/python\n"
        f"import sys\nsys.path.insert(0, {str(checkout)!r})\n"
        "from talos_registry_cache.cli.__main__ import main\nsys.exit(main())\n"
    )
    program.chmod(0o755)
    stamp = (
        "from toolchain import virtualenv as v\n"
        "for lock in (v.RUNTIME, v.DEVELOPMENT, v.PROJECT):\n"
        "    v._stamp(lock).write_text(v._wanted(lock))\n"
    )
    processes.run(venv / "bin" / "python", "-c", stamp, cwd=checkout)


def _environment(checkout: Path, engine_host: str) -> dict[str, str]:
    """The environment of a user who has installed the project, without that of the test run."""
    lent = {Path(sys.prefix, "bin").resolve(), (ROOT / ".toolchain" / "bin").resolve()}
    inherited = os.environ["PATH"].split(os.pathsep)
    path = [folder for folder in inherited if Path(folder).resolve() not in lent]
    home = checkout.parent / "home"
    home.mkdir(exist_ok=True)
    return {
        "PATH": os.pathsep.join([str(checkout / ".venv" / "bin"), *path]),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "DOCKER_HOST": engine_host,
        # The plugins are here if the machine has its own Pulumi.
        "PULUMI_HOME": os.environ.get("PULUMI_HOME", str(Path.home() / ".pulumi")),
    }


def _copy(engine: PrivateEngine, source: str, image: str) -> None:
    for arguments in (
        ("pull", source),
        ("tag", source, image),
        ("push", image),
        ("image", "rm", source, image),
    ):
        processes.run("docker", "--host", engine.host, *arguments)
