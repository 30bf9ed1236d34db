"""cachectl mirrors: other tools use the same caches."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from talos_registry_cache.cli import mirror_formats as formats
from talos_registry_cache.cli import options, output, stack
from talos_registry_cache.cli.errors import UsageError
from talos_registry_cache.cli.mirror_formats import Format
from talos_registry_cache.talos import machine_config, versions
from talos_registry_cache.talos.mirror import Mirror


def mirrors(
    *,
    form: Annotated[
        Format, typer.Option("--format", "-f", help="Whose configuration.")
    ] = Format.TALOS,
    folder: output.Folder = None,
    talos_version: Annotated[
        str | None,
        typer.Option(
            metavar="VERSION", help="For nodes of this version of Talos; newest if left out."
        ),
    ] = None,
    username: options.Username = None,
    upstreams: options.Upstreams = None,
    stack_name: options.StackName = None,
) -> None:
    """Print the configuration with which another tool pulls through the caches.

    talos: a patch, for `talosctl … --config-patch @FILE`. containerd: a hosts.toml for each
    registry, below containerd's config_path. docker: a daemon.json; Docker mirrors Docker Hub only.
    k3d: a file for `k3d cluster create --registry-config`. kind: a file for `kind create cluster
    --config` and a folder that it mounts, so it needs `--output`.

    Caches with TLS are trusted by the certificate of their authority, which is written too. With
    `--username`, what is written has the password, and only its owner can read it. Docker sends no
    password to a mirror: log in and pull by the cache's own address.

    Addresses are those that nodes in containers reach, and this machine as well.

    Exit codes: 0 printed or written, 1 it could not be written, 2 wrong usage.
    """
    reader = options.reader(username)
    with stack.engine() as client:
        caches = stack.find(client, stack_name).only(upstreams or [])
    offered = {
        registry: Mirror(cache.mirror, cache.ca, *(reader or ()))
        for registry, cache in caches.items()
        if cache.mirror
    }
    files = _files(form, offered, folder, talos_version)
    output.put(files, folder, is_private=reader is not None)


def _files(
    form: Format, offered: Mapping[str, Mirror], folder: Path | None, talos_version: str | None
) -> Mapping[str, str]:
    match form:
        case Format.TALOS:
            return formats.talos(offered, legacy=_is_legacy(talos_version))
        case Format.CONTAINERD:
            return formats.containerd(offered)
        case Format.DOCKER:
            return formats.docker(offered)
        case Format.K3D:
            return formats.k3d(offered)
        case Format.KIND:
            if folder is None:
                raise UsageError("kind mounts a folder with files: say where by --output FOLDER")
            return formats.kind(offered, folder.absolute())


def _is_legacy(talos_version: str | None) -> bool:
    if talos_version is None:
        return False
    version = versions.parse(talos_version)
    if version is None:
        raise UsageError(f"{talos_version!r} is no version; allowed: such as v1.13.0 or 1.13")
    return machine_config.form_for(version) is machine_config.MirrorForm.LEGACY
