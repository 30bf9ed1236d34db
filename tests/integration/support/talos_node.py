"""A real Talos node in a container, as far as it boots without the images of Kubernetes."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration.support import host, processes
from tests.integration.support.polling import eventually
from tests.integration.support.private_engine import PrivateEngine
from toolchain import talos_node, talosctl

NAME = "real"
SUBNET, ADDRESS = "10.74.0.0/24", "10.74.0.2"
BOOTS_WITHIN_S = 120
ANSWERS_WITHIN_S = 60
TALOSCTL = talosctl.CURRENT.name
# Whole clusters have an older Talos; see toolchain/kubernetes_images.py.
MACHINED = talos_node.MACHINED_1_14
IMAGE = talos_node.image(MACHINED)
# Talos sets these for the whole machine.
SYSCTLS = (
    "fs/aio-max-nr", "fs/inotify/max_user_instances", "kernel/panic", "vm/overcommit_memory",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Node:
    """A running node.

    Attributes:
        engine: the engine that runs it.
        env: the environment of talosctl.
    """

    engine: PrivateEngine
    env: dict[str, str]

    def talosctl(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run talosctl against the node."""
        command = [*self.engine.enter, TALOSCTL, "--nodes", ADDRESS, *arguments]
        return processes.finish(command, within_s=ANSWERS_WITHIN_S, env=self.env)


def load_image(engine: PrivateEngine, registry: str = "ghcr.io") -> str:
    """Give an engine the image of the node, by its name in a registry; returns its reference."""
    image = IMAGE.replace("ghcr.io", registry)
    change = f'ENTRYPOINT ["{talos_node.ENTRYPOINT}"]'
    docker = ("docker", "--host", engine.host)
    layer = talos_node.layer_of(MACHINED)
    processes.run(*docker, "import", "--change", change, layer, image)
    return image


def push_image(engine: PrivateEngine, port: int) -> None:
    """Push the image of the node to a registry on loopback."""
    image = load_image(engine, f"{host.LOOPBACK}:{port}")
    for command in (("push", image), ("image", "rm", image)):
        processes.run("docker", "--host", engine.host, *command)


@contextmanager
def booted(engine: PrivateEngine, folder: Path, patch: Path) -> Iterator[Node]:
    """Boot a node, and wait until its API answers.

    Args:
        engine: the engine that runs it. Whoever has made the engine removes the node with it.
        folder: an empty folder for files of talosctl.
        patch: a patch of its machine configuration.
    """
    env = {
        **os.environ,
        "DOCKER_HOST": engine.host,
        "HOME": str(folder),
        "TALOSCONFIG": str(folder / "talosconfig"),
    }
    node = Node(engine, env)
    command: list[str | Path] = [
        *engine.enter, TALOSCTL, "cluster", "create", "docker",
        "--name", NAME, "--state", folder / "state", "--subnet", SUBNET, "--workers", "0",
        "--image", load_image(engine),
        "--talosconfig-destination", folder / "talosconfig", "--config-patch", f"@{patch}",
    ]  # fmt: skip
    log = folder / "create.log"
    with sysctls_kept(), log.open("w") as output:
        # It waits for Kubernetes, for ever.
        creation = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            eventually(
                lambda: _answers(node, creation, log),
                within_s=BOOTS_WITHIN_S,
                what="the node's API answers",
            )
            yield node
        finally:
            creation.kill()
            creation.wait()


def _answers(node: Node, creation: "subprocess.Popen[bytes]", log: Path) -> bool:
    assert creation.poll() is None, log.read_text()
    return node.talosctl("version").returncode == 0


@contextmanager
def sysctls_kept() -> Iterator[None]:
    """Restore the machine's sysctls that nodes set."""
    before = {name: Path("/proc/sys", name).read_text() for name in SYSCTLS}
    try:
        yield
    finally:
        for name, value in before.items():
            Path("/proc/sys", name).write_text(value)
