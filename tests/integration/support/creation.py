"""The creation of a cluster by `pulumi up`, to interrupt it, and to see what it has left."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from docker import DockerClient

from tests.integration.support import nodes, sessions
from tests.integration.support.polling import eventually
from tests.integration.support.stack import CacheStack

REACHED_WITHIN_S = 120


@dataclass(frozen=True, slots=True)
class Creation:
    """A cluster that a stack declares.

    Attributes:
        caches: the stack.
        client: a client of its engine.
        name: the name of the cluster.
        volumes: the volumes on the engine before.
    """

    caches: CacheStack
    client: DockerClient
    name: str
    volumes: frozenset[str]

    @property
    def log(self) -> Path:
        """The log of the cluster."""
        return self.caches.clusters_folder / f"{self.name}.log"

    @property
    def left(self) -> list[str]:
        """What a creation that was undone has left, beside the log."""
        folder = self.caches.clusters_folder
        files = [path.name for path in folder.iterdir() if path != self.log]
        volumes = volumes_of(self.client) - self.volumes
        return [*nodes.left_of(self.client, self.name), *files, *volumes, *self._processes()]

    @contextmanager
    def up_until(self, line: str, output: Path) -> Iterator[Popen[bytes]]:
        """Run `pulumi up` in a session of its own until talosctl prints a line.

        Args:
            line: the beginning of the line.
            output: the file for the output of Pulumi.
        """
        self.log.unlink(missing_ok=True)
        up = self.caches.start_up(output)
        try:
            eventually(
                lambda: self.log.exists() and f"\n{line}" in self.log.read_text(),
                within_s=REACHED_WITHIN_S,
                what=f"talosctl prints `{line}`",
            )
            yield up
        finally:
            sessions.kill_rest(up.pid)
            up.wait()
            self.caches.cancel()

    def _processes(self) -> Iterator[str]:
        """The command lines of processes that work on the cluster."""
        mark = str(self.caches.clusters_folder)
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = path.read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if mark in line:
                yield line


def volumes_of(client: DockerClient) -> frozenset[str]:
    """The names of all volumes on an engine."""
    return frozenset(str(volume.name) for volume in client.volumes.list())
