"""The configuration of other tools for the same caches."""

import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import PurePath

import yaml

from cachectl.errors import UsageError
from registry.reference import DOCKER_HUB
from talos.machine_config import MirrorForm, hosts_toml, mirror_patch

HOSTS_FOLDER = "certs.d"
IN_KIND = "/etc/containerd/certs.d"


class Format(StrEnum):
    """Whose configuration."""

    TALOS = "talos"
    CONTAINERD = "containerd"
    DOCKER = "docker"
    K3D = "k3d"
    KIND = "kind"


def talos(mirrors: Mapping[str, str], *, legacy: bool = False) -> Mapping[str, str]:
    """A patch of the machine configuration.

    Args:
        mirrors: the URL of each, by registry host.
        legacy: whether it is for Talos up to 1.11.
    """
    form = MirrorForm.LEGACY if legacy else MirrorForm.DOCUMENT
    return {"mirrors.yaml": mirror_patch(mirrors, skip_fallback=False, form=form)}


def containerd(mirrors: Mapping[str, str]) -> Mapping[str, str]:
    """Files for the folder that containerd's `config_path` and `ctr --hosts-dir` name."""
    files = hosts_toml(mirrors, skip_fallback=False)
    return {f"{HOSTS_FOLDER}/{host}/hosts.toml": content for host, content in files.items()}


def docker(mirrors: Mapping[str, str]) -> Mapping[str, str]:
    """A daemon.json. The Docker engine knows mirrors of Docker Hub only.

    Raises:
        UsageError: there is no cache of Docker Hub.
    """
    if DOCKER_HUB not in mirrors:
        raise UsageError(
            f"Docker mirrors {DOCKER_HUB} only, and there is no cache of it; "
            f"there are those of: {', '.join(mirrors) or 'none'}"
        )
    url = mirrors[DOCKER_HUB]
    # Loopback needs no leave to be asked without TLS, and any other address does.
    content = {
        "registry-mirrors": [url],
        "insecure-registries": [url.removeprefix("http://")],
    }
    return {"daemon.json": json.dumps(content, indent=2) + "\n"}


def k3d(mirrors: Mapping[str, str]) -> Mapping[str, str]:
    """A registries.yaml for `k3d cluster create --registry-config`: k3s's own format.

    Source: docs.k3s.io, "Private Registry Configuration", and k3d.io, "Using Image Registries".
    """
    content = {"mirrors": {host: {"endpoint": [url]} for host, url in mirrors.items()}}
    return {"registries.yaml": yaml.safe_dump(content, sort_keys=False)}


def kind(mirrors: Mapping[str, str], folder: PurePath) -> Mapping[str, str]:
    """A configuration for `kind create cluster --config`, and the folder that its node mounts.

    Source: kind.sigs.k8s.io, "Configuration" (extraMounts, containerdConfigPatches) and "Local
    Registry": containerd reads one folder for each registry below `config_path`.

    Args:
        mirrors: the URL of each, by registry host.
        folder: the absolute path at which the files will be.
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
    return {"kind.yaml": yaml.safe_dump(content, sort_keys=False), **containerd(mirrors)}
