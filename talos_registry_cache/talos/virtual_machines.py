"""Clusters of the qemu and firecracker provisioners: finding and removing them."""

import hashlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from talos_registry_cache.talos import process
from talos_registry_cache.talos.cluster_files import ClusterFiles
from talos_registry_cache.talos.errors import CommandError, TalosError
from talos_registry_cache.talos.nodes import Found, Node, role

ROOT_WITHIN_S = 30.0

# talosctl's background processes are its hidden commands: qemu-launch, loadbalancer-launch,
# dhcpd-launch, dnsd-launch and so on (cmd/talosctl/cmd/mgmt).
BACKGROUND = "-launch"


def find(files: ClusterFiles) -> Found | None:
    """Read the cluster from talosctl's state file; None if there is no state folder.

    talosctl writes the file when all virtual machines have been started.

    Raises:
        TalosError: the file cannot be read.
    """
    file = state_file(files)
    try:
        state = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Found(nodes=[]) if _folder(files).exists() else None
    except (OSError, yaml.YAMLError) as error:
        raise TalosError(f"cannot read {file}: {error}") from error
    try:
        return _found(state["clusterinfo"], files)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise TalosError(f"{file} is not a state file of talosctl: {error!r}") from error


def state_file(files: ClusterFiles) -> Path:
    """The file in which talosctl keeps the state of a cluster."""
    return _folder(files) / "state.yaml"


def remove_remains(files: ClusterFiles) -> None:
    """Remove what `talosctl cluster destroy` leaves, as it refuses a half-created cluster.

    Kills background processes, and removes the network bridge and the state folder.

    Raises:
        TalosError: this needs root, and sudo is not allowed.
    """
    for pid in _background(files):
        _as_root("kill", f"-{signal.SIGKILL.value}", str(pid))
    if Path("/sys/class/net", bridge(files.name)).exists():
        _as_root("ip", "link", "delete", bridge(files.name))
    if _folder(files).exists():
        _as_root("rm", "-rf", "--", str(_folder(files)))


def bridge(cluster: str) -> str:
    """The name of a cluster's network bridge (pkg/provision/providers/vm/network_linux.go)."""
    return f"talos{hashlib.sha256(cluster.encode()).hexdigest()[:8]}"


def sudo_refuses() -> bool:
    """Whether this process is not root, and sudo would ask for a password."""
    if os.geteuid() == 0:
        return False
    try:
        process.capture(["sudo", "--non-interactive", "true"], within_s=ROOT_WITHIN_S)
    except CommandError:
        return True
    return False


def _found(info: Mapping[str, Any], files: ClusterFiles) -> Found:
    nodes = (_node(node, files) for node in info["nodes"])
    by_name = sorted(nodes, key=lambda node: node.name)
    return Found(by_name, info.get("kubernetesendpoint") or None)


def _node(node: Mapping[str, Any], files: ClusterFiles) -> Node:
    # Up to 0.8 a node had a public and a private address.
    addresses: Sequence[str] = node.get("ips") or [node.get("privateip") or ""]
    pid = _pid(_folder(files) / f"{node['name']}.pid")
    runs = pid is not None and process.command_line_of(pid)
    return Node(
        name=node["name"],
        role=_role(node["type"]),
        address=addresses[0],
        status="running" if runs else "stopped",
    )


def _role(found: str | int) -> str:
    """The role, from its name or, in old versions, its number."""
    numbers = {1: "init", 2: "controlplane", 3: "worker"}
    return role(numbers.get(found, "") if isinstance(found, int) else found)


def _folder(files: ClusterFiles) -> Path:
    return files.state / files.name


def _background(files: ClusterFiles) -> Iterator[int]:
    for file in sorted(_folder(files).rglob("*.pid")):
        pid = _pid(file)
        # The ID may have been reused by another process.
        if pid is not None and BACKGROUND in process.command_line_of(pid):
            yield pid


def _pid(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _as_root(*command: str) -> None:
    sudo = () if os.geteuid() == 0 else ("sudo", "--non-interactive")
    argv = [*sudo, *command]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=ROOT_WITHIN_S)
    if done.returncode:
        raise TalosError(f"`{' '.join(argv)}` failed; run it yourself: {done.stderr.strip()}")
