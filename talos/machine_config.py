"""The part of Talos's machine configuration that says where images are pulled from."""

from collections.abc import Mapping
from enum import Enum
from typing import Any

import yaml

from talos.versions import Version


class MirrorForm(Enum):
    """How a machine configuration names its mirrors."""

    LEGACY = "machine.registries.mirrors"
    DOCUMENT = "RegistryMirrorConfig"


# Both from pkg/machinery/config/types of the tags before and after.
DOCUMENT_SINCE = Version(1, 12)
SKIP_FALLBACK_SINCE = Version(1, 9)


def form_for(talos: Version) -> MirrorForm:
    """The form that this version of Talos wants; it still reads the older one."""
    return MirrorForm.LEGACY if talos < DOCUMENT_SINCE else MirrorForm.DOCUMENT


def mirror_patch(mirrors: Mapping[str, str], *, skip_fallback: bool, form: MirrorForm) -> str:
    """A patch of the machine configuration, in YAML, that adds mirrors.

    Args:
        mirrors: the URL of each, by registry host.
        skip_fallback: whether nodes leave the registry itself alone when its mirror fails.
        form: how it is written.
    """
    if form is MirrorForm.DOCUMENT:
        documents = [_document(host, url, skip=skip_fallback) for host, url in mirrors.items()]
        return yaml.safe_dump_all(documents, sort_keys=False)
    legacy = {host: _legacy(url, skip=skip_fallback) for host, url in mirrors.items()}
    return yaml.safe_dump({"machine": {"registries": {"mirrors": legacy}}}, sort_keys=False)


def hosts_toml(mirrors: Mapping[str, str], *, skip_fallback: bool) -> Mapping[str, str]:
    """What Talos makes of mirrors: the `hosts.toml` of each folder of `/etc/cri/conf.d/hosts`.

    containerd pulls by these files alone, so that one with the same files pulls as a node does.
    After internal/pkg/containers/cri/containerd/hosts.go of Talos v1.13.

    Args:
        mirrors: the URL of each, by registry host; `*` is every other registry.
        skip_fallback: as in `mirror_patch`.

    Returns:
        The content of each file, by the name of its folder.
    """
    return {_folder(host): _hosts_file(url, skip=skip_fallback) for host, url in mirrors.items()}


def _document(host: str, url: str, *, skip: bool) -> dict[str, Any]:
    document = {
        "apiVersion": "v1alpha1",
        "kind": MirrorForm.DOCUMENT.value,
        "name": host,
        "endpoints": [{"url": url}],
    }
    return document | ({"skipFallback": True} if skip else {})


def _legacy(url: str, *, skip: bool) -> dict[str, Any]:
    return {"endpoints": [url]} | ({"skipFallback": True} if skip else {})


def _folder(host: str) -> str:
    if host == "*":
        return "_default"
    name, colon, port = host.rpartition(":")
    return f"{name}_{port}_" if colon else host


def _hosts_file(url: str, *, skip: bool) -> str:
    if skip:
        # The only endpoint stands in for the registry itself, after which there is no other.
        return f"server = '{url}'\ncapabilities = ['pull', 'resolve']\n"
    return f"[host]\n  [host.'{url}']\n    capabilities = ['pull', 'resolve']\n"
