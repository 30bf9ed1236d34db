"""Which images a command is about."""

from collections.abc import Iterable
from pathlib import Path

from talos_registry_cache.cli.errors import UsageError
from talos_registry_cache.registry import files, platforms, reference
from talos_registry_cache.registry.errors import RegistryError
from talos_registry_cache.registry.platforms import Platform
from talos_registry_cache.registry.reference import Reference
from talos_registry_cache.talos import images as talos_images
from talos_registry_cache.talos import versions


def from_file(path: Path) -> tuple[Reference, ...]:
    """Read a list of images: one a line, `#` starts a comment.

    Raises:
        UsageError: it cannot be read, or a line is no image.
    """
    try:
        lines = files.read_text(path, files.LIST_LIMIT).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    found = []
    for number, line in enumerate(lines, start=1):
        # Not what stands behind a # in a word: none may be in a reference, so that it is refused.
        text = line.split(" #")[0].strip()
        if text and not text.startswith("#"):
            found.append(_reference(text, f"{path}, line {number}: "))
    return tuple(found)


def from_talosctl(
    talos_version: str | None, kubernetes_version: str | None
) -> tuple[Reference, ...]:
    """The images that talosctl lists for a cluster.

    Args:
        talos_version: the version that talosctl must have, or None.
        kubernetes_version: the version of Kubernetes, or None for talosctl's default.

    Raises:
        UsageError: talosctl is of another version.
        TalosError: it is not there, or cannot tell.
    """
    talosctl = versions.find()
    if talos_version is not None:
        wanted = versions.parse(talos_version)
        if wanted is None:
            raise UsageError(f"{talos_version!r} is no version; allowed: such as v1.13.0 or 1.13")
        if (wanted.major, wanted.minor) != (talosctl.version.major, talosctl.version.minor):
            raise UsageError(
                f"{talosctl.path} is {talosctl.version} and lists the images of that version only, "
                f"not of {talos_version}: put talosctl {talos_version} first on PATH"
            )
    return tuple(map(reference.parse, talos_images.of_kubernetes(talosctl, kubernetes_version)))


def gather(
    texts: Iterable[str],
    lists: Iterable[Path],
    talos_version: str | None,
    kubernetes_version: str | None,
) -> tuple[Reference, ...]:
    """All images that a command line names, each once, in order.

    Raises:
        UsageError: one is no image, or a list cannot be read.
        TalosError: talosctl cannot list them.
    """
    found = [_reference(text) for text in texts]
    for path in lists:
        found += from_file(path)
    if talos_version is not None or kubernetes_version is not None:
        found += from_talosctl(talos_version, kubernetes_version)
    return tuple(dict.fromkeys(found))


def platform(text: str) -> Platform:
    """A platform that a command line names.

    Raises:
        UsageError: it is none.
    """
    try:
        return platforms.parse(text)
    except RegistryError as error:
        raise UsageError(str(error)) from None


def _reference(text: str, where: str = "") -> Reference:
    try:
        return reference.parse(text)
    except RegistryError as error:
        raise UsageError(f"{where}{error}") from None
