"""Registry mirrors in Talos's machine configuration and in containerd's."""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

import yaml

from talos_registry_cache.endpoint import ALL_REGISTRIES, Endpoint
from talos_registry_cache.talos.versions import Version


class MirrorForm(Enum):
    """The forms in which a machine configuration lists its mirrors."""

    LEGACY = "machine.registries.mirrors"
    DOCUMENT = "RegistryMirrorConfig"


ON_WORKSTATION = "localhost:"
LOCAL_REGISTRY = "local-registry-hosting"
TLS_DOCUMENT = "RegistryTLSConfig"
# From pkg/machinery/config/types of the tags before and after.
DOCUMENT_SINCE = Version(1, 12)
SKIP_FALLBACK_SINCE = Version(1, 9)


def form_for(talos: Version) -> MirrorForm:
    """The current form in this version of Talos, which still reads the older one."""
    return MirrorForm.LEGACY if talos < DOCUMENT_SINCE else MirrorForm.DOCUMENT


def mirror_patch(mirrors: Mapping[str, Endpoint], *, skip_fallback: bool, form: MirrorForm) -> str:
    """Write a patch of the machine configuration that adds mirrors, as YAML.

    Args:
        mirrors: the mirror of each registry host.
        skip_fallback: whether nodes never pull from a registry itself when its mirror fails. They
            always do if the registry has no mirror but `*`, which has not all registries.
        form: the form of the patch.
    """
    closed = {mirror.address: mirror for mirror in mirrors.values() if mirror.is_closed}
    if form is MirrorForm.DOCUMENT:
        documents = [_document(host, one, skip=skip_fallback) for host, one in mirrors.items()]
        documents += [more for address, one in closed.items() for more in _closed(address, one)]
        return yaml.safe_dump_all(documents, sort_keys=False)
    legacy = {
        host: _legacy(one, skip=_skips(host, skip=skip_fallback)) for host, one in mirrors.items()
    }
    registries: dict[str, Any] = {"mirrors": legacy}
    if closed:
        registries["config"] = {address: _legacy_closed(one) for address, one in closed.items()}
    return yaml.safe_dump({"machine": {"registries": registries}}, sort_keys=False)


def local_registry_patch(mirrors: Mapping[str, Endpoint]) -> str:
    """Write a patch for control planes that announces a registry on the workstation, as YAML.

    Tools for development read the ConfigMap: KEP-1755, "Communicating a local registry". Its
    registry has the same name on the nodes, because of the mirror. Pods reach it at the mirror.

    Args:
        mirrors: the mirror of each registry host.

    Returns:
        The patch; empty if no mirror is of a registry on localhost.
    """
    host = next((one for one in mirrors if one.startswith(ON_WORKSTATION)), None)
    if host is None:
        return ""
    hosting = {
        "host": host,
        "hostFromContainerRuntime": host,
        "hostFromClusterNetwork": mirrors[host].address,
    }
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": LOCAL_REGISTRY, "namespace": "kube-public"},
        "data": {"localRegistryHosting.v1": yaml.safe_dump(hosting, sort_keys=False)},
    }
    manifest = {"name": LOCAL_REGISTRY, "contents": yaml.safe_dump(config_map, sort_keys=False)}
    return yaml.safe_dump({"cluster": {"inlineManifests": [manifest]}}, sort_keys=False)


def trust_patch(mirrors: str) -> str:
    """The part of a patch by `mirror_patch` that has the CAs; empty if there are none."""
    documents = list(yaml.safe_load_all(mirrors))
    found = [one for one in documents if one.get("kind") == TLS_DOCUMENT]
    for one in documents:
        configs = one.get("machine", {}).get("registries", {}).get("config", {})
        tls = {host: {"tls": config["tls"]} for host, config in configs.items() if "tls" in config}
        found += [{"machine": {"registries": {"config": tls}}}] if tls else []
    return yaml.safe_dump_all(found, sort_keys=False) if found else ""


def hosts_toml(
    mirrors: Mapping[str, Endpoint], *, skip_fallback: bool, base: str = ""
) -> Mapping[str, str]:
    """The hosts.toml files that Talos writes below `/etc/cri/conf.d/hosts`.

    Plain containerd with the same files pulls as a node does. The files follow
    internal/pkg/containers/cri/containerd/hosts.go of Talos v1.13, except that a username and
    password are a header here. Talos puts them into the configuration of containerd's CRI plugin
    (containerd.go in the same folder), which other clients of containerd do not read.

    Args:
        mirrors: the mirror of each registry host; `*` is every other registry.
        skip_fallback: as in `mirror_patch`.
        base: the folder that the files are for; without it, certificates have relative paths.

    Returns:
        The content of each file, by its path below that folder.
    """
    files = {}
    for host, mirror in mirrors.items():
        folder = _folder(host)
        if mirror.ca:
            files[f"{folder}/{_ca_file(mirror)}"] = mirror.ca
        beside = f"{base}/{folder}/" if base else ""
        skip = _skips(host, skip=skip_fallback)
        files[f"{folder}/hosts.toml"] = _hosts_file(mirror, beside, skip=skip)
    return files


def _document(host: str, mirror: Endpoint, *, skip: bool) -> dict[str, Any]:
    endpoints = {"endpoints": [{"url": mirror.url}]}
    document = _named(MirrorForm.DOCUMENT.value, host) | endpoints
    return document | ({"skipFallback": True} if _skips(host, skip=skip) else {})


def _skips(host: str, *, skip: bool) -> bool:
    return skip and host != ALL_REGISTRIES


def _closed(address: str, mirror: Endpoint) -> Iterator[dict[str, Any]]:
    if mirror.ca:
        yield _named(TLS_DOCUMENT, address) | {"ca": mirror.ca}
    if mirror.username:
        yield _named("RegistryAuthConfig", address) | _credentials(mirror)


def _named(kind: str, name: str) -> dict[str, Any]:
    return {"apiVersion": "v1alpha1", "kind": kind, "name": name}


def _legacy(mirror: Endpoint, *, skip: bool) -> dict[str, Any]:
    return {"endpoints": [mirror.url]} | ({"skipFallback": True} if skip else {})


def _legacy_closed(mirror: Endpoint) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if mirror.ca:
        found["tls"] = {"ca": b64encode(mirror.ca.encode()).decode()}
    if mirror.username:
        found["auth"] = _credentials(mirror)
    return found


def _credentials(mirror: Endpoint) -> dict[str, Any]:
    return {"username": mirror.username, "password": mirror.password}


def _folder(host: str) -> str:
    if host == ALL_REGISTRIES:
        return "_default"
    name, colon, port = host.rpartition(":")
    return f"{name}_{port}_" if colon else host


def _ca_file(mirror: Endpoint) -> str:
    return f"{mirror.address}-ca.crt"


def _hosts_file(mirror: Endpoint, beside: str, *, skip: bool) -> str:
    keys = ["capabilities = ['pull', 'resolve']"]
    if mirror.ca:
        keys.append(f"ca = '{beside}{_ca_file(mirror)}'")
    header = f"Authorization = '{_basic(mirror)}'" if mirror.username else None
    if skip:
        # The mirror takes the place of the registry itself, so there is nothing to fall back to.
        lines = [f"server = '{mirror.url}'", *keys]
        lines += ["[header]", f"  {header}"] if header else []
    else:
        lines = ["[host]", f"  [host.'{mirror.url}']", *(f"    {key}" for key in keys)]
        lines += [f"    [host.'{mirror.url}'.header]", f"      {header}"] if header else []
    return "".join(f"{line}\n" for line in lines)


def _basic(mirror: Endpoint) -> str:
    return f"Basic {b64encode(f'{mirror.username}:{mirror.password}'.encode()).decode()}"
