"""A separate container engine that tests can restart.

It has its own host name, and its own network namespace, because it would otherwise change the
addresses and firewall rules of this machine's engine.
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
from tests.integration.support.upstream import FRONT_IMAGE, IMAGE, Pushed

START_WITHIN_S = 60
STOP_WITHIN_S = 300
LAYER_SIZE = 300_000
CONTROL_GROUPS = Path("/sys/fs/cgroup")

# With its own host name, it is a separate node of a Swarm.
AS_HOST = (
    "unshare", "--uts", "sh", "-c", 'echo "$0" > /proc/sys/kernel/hostname && exec "$@"',
)  # fmt: skip


class PrivateEngine:
    """An engine in a network namespace.

    Attributes:
        host: its address, as in DOCKER_HOST.
        enter: command prefix that enters its network namespace.
        machine: command prefix that enters it as well, with the engine's host name.
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
        self.machine = (*self.enter, *AS_HOST, namespace)
        self._namespace = namespace
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the engine and wait until it answers."""
        with (self._folder / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self.machine,
                    "dockerd",
                    "--host", self.host,
                    "--data-root", self._folder / "data",
                    "--exec-root", self._run_folder / "exec",
                    "--pidfile", self._run_folder / "docker.pid",
                    # Ignore the settings of this machine's engine.
                    "--config-file", self._settings,
                    *privileged_runtime.options(),
                    *self._options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )  # fmt: skip
        eventually(self._answers, within_s=START_WITHIN_S, what="the private engine answers")

    def stop(self) -> None:
        """Stop the engine as the service manager does: first its containers, then the engine."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(STOP_WITHIN_S)

    def kill(self) -> None:
        """Kill the engine, as a crash does."""
        assert self._process is not None
        self._process.kill()
        self._ended()

    def crash(self) -> None:
        """Kill the engine and everything on it, as a power failure does."""
        assert self._process is not None
        # Repeatedly, because processes may start others before they are killed.
        eventually(self._kill_all, within_s=STOP_WITHIN_S, what="nothing runs on the engine")
        self._ended()

    @contextmanager
    def client(self) -> Iterator[DockerClient]:
        """Open a client of the engine."""
        client = docker.DockerClient(self.host, timeout=300)
        try:
            yield client
        finally:
            client.close()

    @contextmanager
    def upstream(self, port: int) -> Iterator[Pushed]:
        """Run an upstream on the engine, and yield its only image."""
        with self.client() as client:
            container = client.containers.run(
                IMAGE,
                detach=True,
                ports={"5000/tcp": port},
                environment={"OTEL_TRACES_EXPORTER": "none"},
            )
            try:
                yield self.push(port, "team/app")
            finally:
                container.remove(force=True, v=True)

    def push(self, port: int, repository: str) -> Pushed:
        """Push a new image to an upstream.

        The upstream is reachable only in this network namespace, so the engine itself pushes.
        """
        docker = ["docker", "--host", self.host]
        archive = self._folder / "layer.tar"
        archive.write_bytes(images.archive("file", LAYER_SIZE))
        image = f"{host.LOOPBACK}:{port}/{repository}:1"
        processes.run(*docker, "import", archive, image)
        printed = eventually(
            lambda: self._push(image), within_s=START_WITHIN_S, what="the upstream answers"
        )
        processes.run(*docker, "image", "rm", image)
        digest = re.search(r"digest: (\S+)", printed)
        assert digest is not None, printed
        return Pushed(repository, "1", digest[1])

    def _push(self, image: str) -> str:
        try:
            return processes.run("docker", "--host", self.host, "push", image)
        except CommandFailedError:
            return ""

    def load(self, archive: Path) -> None:
        """Load an image that another engine has saved."""
        processes.run("docker", "--host", self.host, "load", "--input", archive)

    def close(self) -> None:
        """Remove everything, in any state of the engine."""
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
        # Its containerd dies too. If process 1 does not reap, as in some containers, the next start
        # takes the zombie for a running one.
        (self._run_folder / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            log = (self._folder / "dockerd.log").read_text()
            raise ChildProcessError(f"the private engine ended:\n{log[-3000:]}")
        # Not with a client: it leaves a socket open if no engine answers.
        version = ["docker", "--host", self.host, "version"]
        return processes.finish(version, within_s=START_WITHIN_S).returncode == 0


def why_impossible() -> str:
    """Why a private engine cannot run here; empty if it can."""
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
    """Run a private engine with the images of caches, and remove it at the end.

    Args:
        folder: directory of its files.
        options: more options of dockerd.
    """
    with (
        network.namespace(f"it-{secrets.token_hex(4)}") as namespace,
        running_in(namespace, folder, options) as engine,
    ):
        yield engine


@contextmanager
def running_in(
    namespace: str, folder: Path, options: Sequence[str | Path] = ()
) -> Iterator[PrivateEngine]:
    """Run a private engine as `running` does, in a network namespace of the caller."""
    with installed(folder, namespace, options) as engine:
        archive = folder / "image.tar"
        save(archive, IMAGE, FRONT_IMAGE)
        engine.start()
        engine.load(archive)
        archive.unlink()
        yield engine


@contextmanager
def installed(
    folder: Path, namespace: str, options: Sequence[str | Path] = ()
) -> Iterator[PrivateEngine]:
    """Prepare a private engine without starting it, and remove it at the end.

    Args:
        folder: directory of its files.
        namespace: its network namespace, and its host name.
        options: more options of dockerd.
    """
    # The path of a socket has a length limit, which a test's temporary folder may exceed.
    run_folder = Path("/run") / namespace
    run_folder.mkdir(mode=0o700)
    engine = PrivateEngine(folder, run_folder, namespace, options)
    try:
        yield engine
    finally:
        engine.close()


def save(archive: Path, *images: str) -> None:
    """Save images of this machine's engine to a file."""
    engine = os.environ["DOCKER_HOST"]
    processes.run("docker", "--host", engine, "save", "--output", archive, *images)


def _unmount(folder: Path) -> None:
    """Unmount leftovers of a killed engine, the innermost first."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted(mounts, reverse=True):
        if folder in Path(mount).parents:
            processes.run("umount", "--lazy", mount)


def _remove_control_groups(container: str) -> None:
    """Remove the cgroups (v1 or v2) of a killed container."""
    for pattern in (f"docker/{container}", f"*/docker/{container}"):
        for group in CONTROL_GROUPS.glob(pattern):
            for folder, _, _ in os.walk(group, topdown=False):
                Path(folder).rmdir()
