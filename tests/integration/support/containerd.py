"""A separate containerd that pulls through mirrors, as a Talos node does."""

import secrets
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from talos_registry_cache.endpoint import Endpoint
from talos_registry_cache.talos.machine_config import hosts_toml
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
    """A running containerd and its command line."""

    def __init__(self, folder: Path, socket: Path, enter: Sequence[str]) -> None:
        self._folder = folder
        self._socket = socket
        self._enter = enter

    def pull(self, registry: str, image: Pushed, mirrors: Mapping[str, str | Endpoint]) -> str:
        """Pull an image through the mirror of its registry, and return its digest.

        A mirror is a URL, or more if it requires a password or a CA.
        The image and its content are removed again, so that the next pull starts empty.

        Raises:
            CommandFailedError: the pull failed.
        """
        return self.pull_by(registry, image, self._hosts(mirrors))

    def pull_by(self, registry: str, image: Pushed, hosts: Path) -> str:
        """Pull as `pull` does, with a directory of `hosts.toml` files as the mirrors."""
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
        """Fetch the content of an image for all platforms, without unpacking it.

        Raises:
            CommandFailedError: the fetch failed.
        """
        self._ctr("content", "fetch", "--all-platforms", "--hosts-dir", str(hosts), reference)

    def unpacked(self, reference: str, platform: str) -> str:
        """Pull an image without TLS and unpack it for a platform; returns its chain ID.

        The image and its content are removed again.

        Raises:
            CommandFailedError: the pull failed, or the image has nothing for the platform.
        """
        try:
            said = self._ctr(
                "images", "pull", "--plain-http", "--print-chainid",
                "--platform", platform,
                "--snapshotter", "native",
                reference,
            )  # fmt: skip
        finally:
            self._forget(reference)
        return said.split("image chain ID: ")[1].split()[0]

    def answers(self) -> bool:
        """Whether containerd answers."""
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
        # This also removes the content of failed pulls.
        for digest in self._ctr("content", "list", "--quiet").split():
            self._ctr("content", "remove", digest)

    def _hosts(self, mirrors: Mapping[str, str | Endpoint]) -> Path:
        hosts = self._folder / f"hosts-{secrets.token_hex(4)}"
        found = {
            registry: mirror if isinstance(mirror, Endpoint) else Endpoint(mirror)
            for registry, mirror in mirrors.items()
        }
        for name, content in hosts_toml(found, skip_fallback=False, base=str(hosts)).items():
            (hosts / name).parent.mkdir(parents=True, exist_ok=True)
            (hosts / name).write_text(content)
        return hosts

    def _ctr(self, *arguments: str) -> str:
        # `ctr` itself pulls, not containerd.
        ctr = (*self._enter, "ctr", "--address", str(self._socket))
        return processes.run(*ctr, *arguments, within_s=PULL_WITHIN_S)


@contextmanager
def running(folder: Path, enter: Sequence[str] = ()) -> Iterator[Containerd]:
    """Run a containerd that shares nothing with the one of this machine.

    Args:
        folder: directory of its files.
        enter: command prefix that enters the network namespace of the mirrors.
    """
    # The path of a socket has a length limit, which a test's temporary folder may exceed.
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
