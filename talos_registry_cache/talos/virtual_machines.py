"""Clusters of the qemu and firecracker provisioners: what talosctl noted down, and what is left."""

import hashlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from talos_registry_cache.talos import process
from talos_registry_cache.talos.cluster_files import Places
from talos_registry_cache.talos.errors import CommandError, TalosError
from talos_registry_cache.talos.nodes import Found, Node, role

ROOT_WITHIN_S = 30.0
STATE_FILE = "state.yaml"

# Every process that talosctl leaves in the background is one of its hidden commands: qemu-launch,
# loadbalancer-launch, dhcpd-launch, dnsd-launch and so on (cmd/talosctl/cmd/mgmt).
BACKGROUND = "-launch"


def find(places: Places) -> Found | None:
    """What talosctl has noted down of a cluster; None where that is nothing.

    It is noted when all virtual machines have been started, as `state.yaml` of the state folder.

    Raises:
        TalosError: it cannot be read.
    """
    file = _folder(places) / STATE_FILE
    try:
        state = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Found(nodes=[]) if _folder(places).exists() else None
    except (OSError, yaml.YAMLError) as error:
        raise TalosError(f"cannot read {file}: {error}") from error
    try:
        return _found(state["clusterinfo"], places)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise TalosError(f"{file} is not what talosctl writes: {error!r}") from error


def remove_remains(places: Places) -> None:
    """Remove what talosctl's own destroy leaves, which refuses a cluster that is half created.

    Ends its processes in the background, and removes the network's bridge and the state folder.

    Raises:
        TalosError: something of it is root's, and we are not allowed to be root.
    """
    for pid in _background(places):
        _as_root("kill", f"-{signal.SIGKILL.value}", str(pid))
    if Path("/sys/class/net", bridge(places.name)).exists():
        _as_root("ip", "link", "delete", bridge(places.name))
    if _folder(places).exists():
        _as_root("rm", "-rf", "--", str(_folder(places)))


def bridge(cluster: str) -> str:
    """The name of the bridge of a cluster (pkg/provision/providers/vm/network_linux.go)."""
    return f"talos{hashlib.sha256(cluster.encode()).hexdigest()[:8]}"


def sudo_refuses() -> bool:
    """Whether we are not root and cannot be without being asked for a password."""
    if os.geteuid() == 0:
        return False
    try:
        process.capture(["sudo", "--non-interactive", "true"], within_s=ROOT_WITHIN_S)
    except CommandError:
        return True
    return False


def _found(info: Mapping[str, Any], places: Places) -> Found:
    nodes = (_node(node, places) for node in info["nodes"])
    by_name = sorted(nodes, key=lambda node: node.name)
    return Found(by_name, info.get("kubernetesendpoint") or None)


def _node(node: Mapping[str, Any], places: Places) -> Node:
    # Up to 0.8 a node had a public and a private address.
    addresses: Sequence[str] = node.get("ips") or [node.get("privateip") or ""]
    pid = _pid(_folder(places) / f"{node['name']}.pid")
    runs = pid is not None and process.command_line_of(pid)
    return Node(
        name=node["name"],
        role=_role(node["type"]),
        address=addresses[0],
        status="running" if runs else "stopped",
    )


def _role(found: str | int) -> str:
    """The role by its name, or its number in versions whose number has no name in YAML."""
    numbers = {1: "init", 2: "controlplane", 3: "worker"}
    return role(numbers.get(found, "") if isinstance(found, int) else found)


def _folder(places: Places) -> Path:
    return places.state / places.name


def _background(places: Places) -> Iterator[int]:
    for file in sorted(_folder(places).rglob("*.pid")):
        pid = _pid(file)
        # The number may be another process's by now.
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
        raise TalosError(f"`{' '.join(argv)}` failed, run it yourself: {done.stderr.strip()}")
