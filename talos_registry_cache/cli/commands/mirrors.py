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
from talos_registry_cache.talos.machine_config import SKIP_FALLBACK_SINCE, MirrorForm, form_for
from talos_registry_cache.talos.versions import Version, version_range


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
    skip_fallback: Annotated[
        bool,
        typer.Option(
            "--skip-fallback",
            help="Nodes never fall back to a registry. For talos, containerd and kind.",
        ),
    ] = False,
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

    With `--skip-fallback`, nodes without internet access do not wait for registries that they
    cannot reach. What the caches do not have does not exist for them.

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
    version = selection.version(talos_version) if talos_version else None
    files = _files(form, mirrors_by_host, folder, version, skip_fallback=skip_fallback)
    output.put(files, folder, is_private=reader is not None)


def _files(
    form: Format,
    mirrors_by_host: Mapping[str, Endpoint],
    folder: Path | None,
    version: Version | None,
    *,
    skip_fallback: bool,
) -> Mapping[str, str]:
    match form:
        case Format.TALOS:
            if skip_fallback and version and version < SKIP_FALLBACK_SINCE:
                allowed = f"Talos {version_range(SKIP_FALLBACK_SINCE)}"
                raise UsageError(f"--skip-fallback: found Talos {version}; allowed: {allowed}")
            talos_form = form_for(version) if version else MirrorForm.DOCUMENT
            return formats.talos(mirrors_by_host, talos_form, skip_fallback=skip_fallback)
        case Format.CONTAINERD:
            return formats.containerd(mirrors_by_host, skip_fallback=skip_fallback)
        case Format.KIND:
            if folder is None:
                raise UsageError("kind mounts a folder: give --output FOLDER")
            return formats.kind(mirrors_by_host, folder.absolute(), skip_fallback=skip_fallback)
        case _ if skip_fallback:
            raise UsageError(f"{form} has no --skip-fallback; allowed: talos, containerd, kind")
        case Format.DOCKER:
            return formats.docker(mirrors_by_host)
        case Format.K3D:
            return formats.k3d(mirrors_by_host)
