"""The files of one cluster."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ClusterFiles:
    """The paths of a cluster's files, in a folder that belongs to this cluster alone.

    talosctl removes the whole state root when it destroys a docker cluster, and adds to an existing
    talosconfig or kubeconfig. So every cluster has its own of all three.

    Attributes:
        base: the folder of all clusters of a stack, an absolute path.
        name: the cluster's name.
    """

    base: Path
    name: str

    @property
    def folder(self) -> Path:
        """The cluster's own folder. If it exists, this program created the cluster."""
        return self.base / self.name

    @property
    def state(self) -> Path:
        """The state root, where talosctl keeps a folder with the cluster's name."""
        return self.folder / "state"

    @property
    def talosconfig(self) -> Path:
        """The client configuration for the Talos API."""
        return self.folder / "talosconfig"

    @property
    def kubeconfig(self) -> Path:
        """The client configuration for Kubernetes; empty until the cluster is ready."""
        return self.folder / "kubeconfig"

    @property
    def command(self) -> Path:
        """The command line that created the cluster; missing until it has succeeded."""
        return self.folder / "command"

    @property
    def pid(self) -> Path:
        """The ID of the talosctl process that is creating or destroying the cluster."""
        return self.folder / "talosctl.pid"

    @property
    def log(self) -> Path:
        """The output of talosctl. It is outside the folder, to survive a failed creation."""
        return self.base / f"{self.name}.log"

    @property
    def destroy_log(self) -> Path:
        """The output of talosctl when it destroys virtual machines; kept only if it fails."""
        return self.base / f"{self.name}-destroy.log"

    def patch(self, name: str) -> Path:
        """A patch of the machine configuration."""
        return self.folder / name


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read; an existing file is replaced."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def make_private(folder: Path) -> None:
    """Create a folder that only its owner can enter, or restrict an existing one."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
