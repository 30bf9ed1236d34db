"""Configuration that makes other tools pull through the caches."""

import json
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import PurePath
from typing import Any

import yaml

from talos_registry_cache.cli.errors import UsageError
from talos_registry_cache.endpoint import Endpoint
from talos_registry_cache.registry.reference import DOCKER_HUB
from talos_registry_cache.talos.machine_config import MirrorForm, hosts_toml, mirror_patch

HOSTS_FOLDER = "certs.d"
IN_KIND = "/etc/containerd/certs.d"
IN_K3D = "/etc/rancher/k3s/caches"

Mirrors = Mapping[str, Endpoint]
"""By registry host."""


class Format(StrEnum):
    """The tool to configure."""

    TALOS = "talos"
    CONTAINERD = "containerd"
    DOCKER = "docker"
    K3D = "k3d"
    KIND = "kind"


def talos(
    mirrors: Mirrors, form: MirrorForm = MirrorForm.DOCUMENT, *, skip_fallback: bool = False
) -> Mapping[str, str]:
    """A patch for the machine configuration of Talos, in the form for its version."""
    return {"mirrors.yaml": mirror_patch(mirrors, skip_fallback=skip_fallback, form=form)}


def containerd(mirrors: Mirrors, *, skip_fallback: bool = False) -> Mapping[str, str]:
    """Files for the folder of containerd's `config_path` or `ctr --hosts-dir`."""
    files = hosts_toml(mirrors, skip_fallback=skip_fallback)
    return {f"{HOSTS_FOLDER}/{path}": content for path, content in files.items()}


def docker(mirrors: Mirrors) -> Mapping[str, str]:
    """A daemon.json, and certificates for /etc/docker/certs.d. Docker mirrors Docker Hub only.

    Raises:
        UsageError: there is no cache for Docker Hub, or it needs a password: Docker sends none to
            a mirror (github.com/moby/moby, issue 30880).
    """
    if DOCKER_HUB not in mirrors:
        raise UsageError(
            f"Docker mirrors {DOCKER_HUB} only, and there is no cache for it; "
            f"there are caches for: {', '.join(mirrors) or 'none'}"
        )
    mirror = mirrors[DOCKER_HUB]
    if mirror.username:
        raise UsageError(
            "Docker sends no password to a mirror, and would bypass the cache; run this without "
            f"--username, then `docker login {mirror.address}` and "
            f"`docker pull {mirror.address}/library/alpine`"
        )
    content: dict[str, Any] = {"registry-mirrors": [mirror.url]}
    if mirror.ca is None:
        # Docker allows HTTP on loopback only.
        content["insecure-registries"] = [mirror.address]
    files = {"daemon.json": json.dumps(content, indent=2) + "\n"}
    for one in mirrors.values():
        if one.ca is not None:
            files[f"{HOSTS_FOLDER}/{one.address}/ca.crt"] = one.ca
    return files


def k3d(mirrors: Mirrors) -> Mapping[str, str]:
    """A registries.yaml for `k3d cluster create --registry-config`: k3s's own format.

    Source: docs.k3s.io, "Private Registry Configuration", and k3d.io, "Using Image Registries".
    """
    cas = {one.address: one.ca for one in mirrors.values() if one.ca is not None}
    names = {address: f"{number}.crt" for number, address in enumerate(cas, start=1)}
    content: dict[str, Any] = {
        "mirrors": {host: {"endpoint": [one.url]} for host, one in mirrors.items()}
    }
    configs = {
        one.address: dict(_k3s_config(one, names)) for one in mirrors.values() if one.is_closed
    }
    head = ""
    if configs:
        content["configs"] = configs
    if cas:
        head = f"# Nodes need the certificates: k3d cluster create --volume $PWD/ca:{IN_K3D}@all\n"
    return {
        "registries.yaml": head + yaml.safe_dump(content, sort_keys=False),
        **{f"ca/{names[address]}": ca for address, ca in cas.items()},
    }


def kind(mirrors: Mirrors, folder: PurePath, *, skip_fallback: bool = False) -> Mapping[str, str]:
    """A configuration for `kind create cluster --config`, and the folder that its nodes mount.

    Source: kind.sigs.k8s.io, "Configuration" (extraMounts, containerdConfigPatches) and "Local
    Registry": containerd reads one folder for each registry below `config_path`.

    Args:
        mirrors: the mirrors.
        folder: the absolute path of the folder that the files are written to.
        skip_fallback: whether nodes never fall back to a registry when its mirror fails.
    """
    patch = f'[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "{IN_KIND}"\n'
    mount = {
        "hostPath": str(folder / HOSTS_FOLDER),
        "containerPath": IN_KIND,
        "readOnly": True,
    }
    content = {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "containerdConfigPatches": [patch],
        "nodes": [{"role": "control-plane", "extraMounts": [mount]}],
    }
    return {
        "kind.yaml": yaml.safe_dump(content, sort_keys=False),
        **containerd(mirrors, skip_fallback=skip_fallback),
    }


def _k3s_config(mirror: Endpoint, names: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    if mirror.username:
        yield "auth", {"username": mirror.username, "password": mirror.password}
    if mirror.ca is not None:
        yield "tls", {"ca_file": f"{IN_K3D}/{names[mirror.address]}"}
