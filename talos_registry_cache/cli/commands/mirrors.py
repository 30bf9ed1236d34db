"""cachectl mirrors: configure other tools to use the caches."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from talos_registry_cache.cli import mirror_formats as formats
from talos_registry_cache.cli import options, output, selection, stack
from talos_registry_cache.cli.errors import UsageError
from talos_registry_cache.cli.mirror_formats import Format
from talos_registry_cache.endpoint import ALL_REGISTRIES, Endpoint
from talos_registry_cache.talos.machine_config import form_for


def mirrors(
    *,
    form: Annotated[
        Format, typer.Option("--format", "-f", help="The tool to configure.")
    ] = Format.TALOS,
    folder: output.Folder = None,
    talos_version: Annotated[
        str | None,
        typer.Option(
            metavar="VERSION", help="The Talos version of the nodes. Default: the newest."
        ),
    ] = None,
    username: options.Username = None,
    upstreams: options.Upstreams = None,
    stack_name: options.StackName = None,
) -> None:
    """Print the configuration that makes another tool pull through the caches.

    - talos: a patch for `talosctl … --config-patch @FILE`.
    - containerd: a hosts.toml for each registry, below containerd's config_path.
    - docker: a daemon.json. Docker mirrors Docker Hub only.
    - k3d: a file for `k3d cluster create --registry-config`.
    - kind: a file for `kind create cluster --config` and a folder that it mounts; needs `--output`.

    For caches with TLS, the certificate of their authority is included. With `--username`, the
    files contain the password, and only their owner can read them. Docker sends no password to a
    mirror: log in, and pull from the cache's own address.

    If the stack has a wildcard mirror (`caches.wildcard`), it becomes the mirror of all registries
    without one of their own, unless upstreams are named. Docker knows no such mirror.

    The addresses can be reached from nodes in containers and from this machine.

    Exit codes: 0 success, 1 the files could not be written, 2 wrong usage.
    """
    reader = options.reader(username)
    with stack.opened(stack_name) as found:
        caches = found.only(upstreams or [])
        wildcard = None if upstreams or form is Format.DOCKER else found.wildcard()
    mirrors_by_host = {
        registry: Endpoint(cache.mirror, cache.ca, *(reader or ()))
        for registry, cache in caches.items()
        if cache.mirror
    }
    if wildcard:
        mirrors_by_host[ALL_REGISTRIES] = Endpoint(wildcard.mirror, wildcard.ca, *(reader or ()))
    files = _files(form, mirrors_by_host, folder, talos_version)
    output.put(files, folder, is_private=reader is not None)


def _files(
    form: Format,
    mirrors_by_host: Mapping[str, Endpoint],
    folder: Path | None,
    talos_version: str | None,
) -> Mapping[str, str]:
    match form:
        case Format.TALOS:
            if talos_version is None:
                return formats.talos(mirrors_by_host)
            return formats.talos(mirrors_by_host, form_for(selection.version(talos_version)))
        case Format.CONTAINERD:
            return formats.containerd(mirrors_by_host)
        case Format.DOCKER:
            return formats.docker(mirrors_by_host)
        case Format.K3D:
            return formats.k3d(mirrors_by_host)
        case Format.KIND:
            if folder is None:
                raise UsageError("kind mounts a folder: give --output FOLDER")
            return formats.kind(mirrors_by_host, folder.absolute())
