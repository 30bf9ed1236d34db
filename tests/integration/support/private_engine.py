"""A container engine of the tests' own, which can be restarted without disturbing anybody.

It has a network namespace to itself, or it would take the machine's own engine's addresses and
firewall rules, and a host name.
"""

import os
import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import docker
from docker import DockerClient

from tests.integration.support import host, images, network, privileged_runtime, processes
from tests.integration.support.polling import eventually
from tests.integration.support.processes import CommandFailedError
from tests.integration.support.upstream import IMAGE, Pushed

START_WITHIN_S = 60
STOP_WITHIN_S = 300
LAYER_SIZE = 300_000
CONTROL_GROUPS = Path("/sys/fs/cgroup")

# With a host name of its own, it is a node of its own in a swarm.
AS_HOST = (
    "unshare", "--uts", "sh", "-c", 'echo "$0" > /proc/sys/kernel/hostname && exec "$@"',
)  # fmt: skip


class PrivateEngine:
    """An engine that runs in a network namespace.

    Attributes:
        host: its address, in the form of DOCKER_HOST.
        enter: what a command line begins with that runs in its network namespace.
    """

    def __init__(
        self, folder: Path, run_folder: Path, namespace: str, options: Sequence[str | Path]
    ) -> None:
        self.host = f"unix://{run_folder}/docker.sock"
        self._folder = folder
        self._run_folder = run_folder
        self._options = options
        self._settings = folder / "daemon.json"
        self._settings.write_text("{}")
        self.enter = network.enter(namespace)
        self._namespace = namespace
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self._folder / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self.enter,
                    *AS_HOST, self._namespace,
                    "dockerd",
                    "--host", self.host,
                    "--data-root", self._folder / "data",
                    "--exec-root", self._run_folder / "exec",
                    "--pidfile", self._run_folder / "docker.pid",
                    # Not the machine's own settings.
                    "--config-file", self._settings,
                    *privileged_runtime.options(self._folder),
                    *self._options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )  # fmt: skip
        eventually(self._answers, within_s=START_WITHIN_S, what="the private engine answers")

    def stop(self) -> None:
        """Stop it as the service manager does: containers end, and the engine after them."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(STOP_WITHIN_S)

    def kill(self) -> None:
        """Kill it, as a crash does."""
        assert self._process is not None
        self._process.kill()
        self._ended()

    def crash(self) -> None:
        """Kill it with all that runs on it, as a host that loses its power."""
        assert self._process is not None
        # Again, for what one has started before it was killed.
        eventually(self._kill_all, within_s=STOP_WITHIN_S, what="nothing runs on the engine")
        self._ended()

    @contextmanager
    def client(self) -> Iterator[DockerClient]:
        """A new client of it."""
        client = docker.DockerClient(self.host, timeout=300)
        try:
            yield client
        finally:
            client.close()

    @contextmanager
    def upstream(self, port: int) -> Iterator[Pushed]:
        """Run an upstream on it for a while; the one image that it has.

        Nothing outside of its network namespace reaches it, so the engine itself pushes.
        """
        docker = ["docker", "--host", self.host]
        archive = self._folder / "layer.tar"
        archive.write_bytes(images.archive("file", LAYER_SIZE))
        image = f"{host.LOOPBACK}:{port}/team/app:1"
        with self.client() as client:
            container = client.containers.run(
                IMAGE,
                detach=True,
                ports={"5000/tcp": port},
                environment={"OTEL_TRACES_EXPORTER": "none"},
            )
            try:
                processes.run(*docker, "import", archive, image)
                printed = eventually(
                    lambda: self._push(image), within_s=START_WITHIN_S, what="the upstream answers"
                )
                processes.run(*docker, "image", "rm", image)
                digest = re.search(r"digest: (\S+)", printed)
                assert digest is not None, printed
                yield Pushed("team/app", "1", digest[1])
            finally:
                container.remove(force=True, v=True)

    def _push(self, image: str) -> str:
        try:
            return processes.run("docker", "--host", self.host, "push", image)
        except CommandFailedError:
            return ""

    def load(self, archive: Path) -> None:
        """Take over an image that another engine has saved."""
        processes.run("docker", "--host", self.host, "load", "--input", archive)

    def close(self) -> None:
        """Take away all that it has, whatever state it is in."""
        if self._process is not None:
            self.crash()
        containers = [path.name for path in self._folder.glob("data/containers/*")]
        for left in (self._folder, self._run_folder):
            _unmount(left)
            shutil.rmtree(left)
        for container in containers:
            _remove_control_groups(container)

    def _kill_all(self) -> bool:
        running = network.pids(self._namespace)
        for pid in running:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not running

    def _ended(self) -> None:
        assert self._process is not None
        self._process.wait(STOP_WITHIN_S)
        # Its containerd dies with it. Where process 1 does not reap, as in some containers, the
        # dead one is taken for a living one by the next start.
        (self._run_folder / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            log = (self._folder / "dockerd.log").read_text()
            raise ChildProcessError(f"the private engine ended:\n{log[-3000:]}")
        # Not by a client: one that finds no engine leaves a socket open.
        version = ["docker", "--host", self.host, "version"]
        return processes.finish(version, within_s=START_WITHIN_S).returncode == 0


def why_impossible() -> str:
    """Why no such engine can run here, or nothing."""
    if os.geteuid() != 0:
        return "a private engine needs root"
    missing = [
        tool for tool in ("dockerd", "nsenter", "unshare", "ip") if shutil.which(tool) is None
    ]
    if missing:
        return f"a private engine needs {', '.join(missing)}"
    try:
        with network.namespace(f"it-{secrets.token_hex(4)}"):
            return ""
    except CommandFailedError as error:
        return f"a private engine needs a network namespace: {error}"


@contextmanager
def running(folder: Path, options: Sequence[str | Path] = ()) -> Iterator[PrivateEngine]:
    """Run a private engine that has the registry image, and remove all of it at the end.

    Args:
        folder: where it keeps its files.
        options: more options of dockerd.
    """
    with (
        network.namespace(f"it-{secrets.token_hex(4)}") as namespace,
        installed(folder, namespace, options) as engine,
    ):
        archive = folder / "image.tar"
        save(IMAGE, archive)
        engine.start()
        engine.load(archive)
        archive.unlink()
        yield engine


@contextmanager
def installed(
    folder: Path, namespace: str, options: Sequence[str | Path] = ()
) -> Iterator[PrivateEngine]:
    """Prepare a private engine, which is not started, and remove all of it at the end.

    Args:
        folder: where it keeps its files.
        namespace: its network namespace, which becomes its host name.
        options: more options of dockerd.
    """
    # Paths of sockets are short by law, and a test's temporary folder is not.
    run_folder = Path("/run") / namespace
    run_folder.mkdir(mode=0o700)
    engine = PrivateEngine(folder, run_folder, namespace, options)
    try:
        yield engine
    finally:
        engine.close()


def save(image: str, archive: Path) -> None:
    """Write an image of the machine's own engine to a file."""
    engine = os.environ["DOCKER_HOST"]
    processes.run("docker", "--host", engine, "save", "--output", archive, image)


def _unmount(folder: Path) -> None:
    """Take away what an engine that was killed has left mounted, the innermost first."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted(mounts, reverse=True):
        if folder in Path(mount).parents:
            processes.run("umount", "--lazy", mount)


def _remove_control_groups(container: str) -> None:
    """Take away the control groups of a container that was killed, in either version of them."""
    for pattern in (f"docker/{container}", f"*/docker/{container}"):
        for group in CONTROL_GROUPS.glob(pattern):
            for folder, _, _ in os.walk(group, topdown=False):
                Path(folder).rmdir()
