"""A containerd of the tests' own, which pulls through mirrors as a Talos node does."""

import secrets
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from talos_registry_cache.talos.machine_config import hosts_toml
from talos_registry_cache.talos.mirror import Mirror
from tests.integration.support import host, processes
from tests.integration.support.polling import PATIENCE, eventually
from tests.integration.support.processes import CommandFailedError
from tests.integration.support.upstream import Pushed

START_WITHIN_S = 30
PULL_WITHIN_S = 60

CONFIG = """\
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{socket}"
"""


class Containerd:
    """A containerd that runs, and its command line."""

    def __init__(self, folder: Path, socket: Path, enter: Sequence[str]) -> None:
        self._folder = folder
        self._socket = socket
        self._enter = enter

    def pull(self, registry: str, image: Pushed, mirrors: Mapping[str, str]) -> str:
        """Pull an image of a registry through its mirror; the digest that it then has.

        It is removed again with its content, so that the next pull starts from nothing.

        Raises:
            CommandFailedError: it could not be pulled.
        """
        return self.pull_by(registry, image, self._hosts(mirrors))

    def pull_by(self, registry: str, image: Pushed, hosts: Path) -> str:
        """The same by a folder with a `hosts.toml` for each registry."""
        reference = f"{registry}/{image.name}"
        try:
            self._ctr(
                "images", "pull",
                "--hosts-dir", str(hosts),
                "--platform", f"linux/{host.architecture()}",
                "--snapshotter", "native",
                reference,
            )  # fmt: skip
            return self._digest(reference)
        finally:
            self._forget(reference)

    def fetch(self, reference: str, hosts: Path) -> None:
        """Fetch the content of an image, whatever its platform, and unpack nothing.

        Raises:
            CommandFailedError: it could not be fetched.
        """
        self._ctr("content", "fetch", "--all-platforms", "--hosts-dir", str(hosts), reference)

    def answers(self) -> bool:
        """Whether it takes commands."""
        try:
            self._ctr("version")
        except CommandFailedError:
            return False
        return True

    def _digest(self, reference: str) -> str:
        (row,) = self._ctr("images", "list", f"name=={reference}").splitlines()[1:]
        return next(field for field in row.split() if field.startswith("sha256:"))

    def _forget(self, reference: str) -> None:
        self._ctr("images", "remove", "--sync", reference)
        # What a pull that failed has left is collected as well.
        for digest in self._ctr("content", "list", "--quiet").split():
            self._ctr("content", "remove", digest)

    def _hosts(self, mirrors: Mapping[str, str]) -> Path:
        hosts = self._folder / f"hosts-{secrets.token_hex(4)}"
        found = {host: Mirror(url) for host, url in mirrors.items()}
        for name, content in hosts_toml(found, skip_fallback=False).items():
            (hosts / name).parent.mkdir(parents=True)
            (hosts / name).write_text(content)
        return hosts

    def _ctr(self, *arguments: str) -> str:
        # Not containerd but its command line is who pulls.
        ctr = (*self._enter, "ctr", "--address", str(self._socket))
        return processes.run(*ctr, *arguments, within_s=PULL_WITHIN_S)


@contextmanager
def running(folder: Path, enter: Sequence[str] = ()) -> Iterator[Containerd]:
    """Run a containerd that has nothing in common with the machine's own.

    Args:
        folder: where it keeps its files.
        enter: what a command line begins with to run in the network namespace of the mirrors.
    """
    # A socket's path is short by law, and a test's temporary folder is not.
    socket = Path("/run") / f"it-containerd-{secrets.token_hex(4)}.sock"
    config = folder / "config.toml"
    config.write_text(CONFIG.format(folder=folder, socket=socket))
    containerd = Containerd(folder, socket, enter)
    with (folder / "containerd.log").open("wb") as log:
        server = subprocess.Popen(
            ["containerd", "--config", config],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        eventually(containerd.answers, within_s=START_WITHIN_S, what="containerd answers")
        yield containerd
    finally:
        server.terminate()
        try:
            server.wait(PATIENCE * START_WITHIN_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        for left in (socket, socket.with_name(f"{socket.name}.ttrpc")):
            left.unlink(missing_ok=True)
