"""Where the files of one cluster are kept."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Places:
    """The files of one cluster, all below a folder that it shares with no other.

    talosctl removes the whole state root when it destroys a docker cluster, and adds to a
    talosconfig or kubeconfig that is there: so each cluster has its own of all three.

    Attributes:
        base: the folder of all clusters of a stack, an absolute path.
        name: the cluster's name.
    """

    base: Path
    name: str

    @property
    def folder(self) -> Path:
        """The cluster's own folder; that it is there says that the cluster is ours."""
        return self.base / self.name

    @property
    def state(self) -> Path:
        """The state root, where talosctl keeps a folder of the cluster's name."""
        return self.folder / "state"

    @property
    def talosconfig(self) -> Path:
        """The client configuration for Talos's API."""
        return self.folder / "talosconfig"

    @property
    def kubeconfig(self) -> Path:
        """The client configuration for Kubernetes; empty until the cluster has become ready."""
        return self.folder / "kubeconfig"

    @property
    def command(self) -> Path:
        """The command line that created the cluster; there is none until it has succeeded."""
        return self.folder / "command"

    @property
    def pid(self) -> Path:
        """The process that is creating or destroying the cluster."""
        return self.folder / "talosctl.pid"

    @property
    def log(self) -> Path:
        """What talosctl printed; beside the folder, since it outlives a failed creation."""
        return self.base / f"{self.name}.log"

    @property
    def destroy_log(self) -> Path:
        """What talosctl printed when it destroyed virtual machines; kept if it failed."""
        return self.base / f"{self.name}-destroy.log"

    def patch(self, name: str) -> Path:
        """A patch of the machine configuration."""
        return self.folder / name


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whatever was there before."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def make_private(folder: Path) -> None:
    """Make a folder that only its owner can enter, or make one such."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
