"""The images that a command line selects."""

from collections.abc import Collection, Iterable
from pathlib import Path

from talos_registry_cache.cli.errors import UsageError
from talos_registry_cache.registry import files, platforms, reference, signature_policy
from talos_registry_cache.registry.errors import RegistryError
from talos_registry_cache.registry.platforms import Platforms
from talos_registry_cache.registry.reference import Reference
from talos_registry_cache.registry.signature_policy import Policy
from talos_registry_cache.talos import images as talos_images
from talos_registry_cache.talos import versions
from talos_registry_cache.talos.versions import Version


def from_file(path: Path) -> tuple[Reference, ...]:
    """Read a list of images: one per line, `#` starts a comment.

    Raises:
        UsageError: it cannot be read, or a line is not an image reference.
    """
    try:
        text = files.read_text(path, files.LIST_LIMIT)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    return tuple(
        _reference(image, f"{path}, line {number}: ") for number, image in reference.listed(text)
    )


def from_talosctl(
    talos_version: str | None, kubernetes_version: str | None
) -> tuple[Reference, ...]:
    """The images that talosctl lists for a cluster.

    Args:
        talos_version: the version that talosctl must have, or None for any.
        kubernetes_version: the version of Kubernetes, or None for talosctl's default.

    Raises:
        UsageError: talosctl has another version.
        TalosError: talosctl is missing, or fails.
    """
    talosctl = versions.find()
    if talos_version is not None:
        wanted = version(talos_version)
        if (wanted.major, wanted.minor) != (talosctl.version.major, talosctl.version.minor):
            raise UsageError(
                f"{talosctl.path} is {talosctl.version} and lists the images of that version only; "
                f"put talosctl {talos_version} first on PATH"
            )
    return tuple(map(reference.parse, talos_images.of_kubernetes(talosctl, kubernetes_version)))


def gather(
    texts: Iterable[str],
    lists: Iterable[Path],
    talos_version: str | None,
    kubernetes_version: str | None,
) -> tuple[Reference, ...]:
    """All images that a command line selects, each once, in order.

    Raises:
        UsageError: one is not an image reference, or a list cannot be read.
        TalosError: talosctl cannot list them.
    """
    found = [_reference(text) for text in texts]
    for path in lists:
        found += from_file(path)
    if talos_version is not None or kubernetes_version is not None:
        found += from_talosctl(talos_version, kubernetes_version)
    return tuple(dict.fromkeys(found))


def platforms_of(texts: Collection[str]) -> Platforms:
    """Parse platforms, or `all`.

    Raises:
        UsageError: a text is not a platform.
    """
    try:
        return platforms.parse_all(texts)
    except RegistryError as error:
        raise UsageError(str(error)) from None


def policy(path: Path) -> Policy:
    """Read a policy of signatures.

    Raises:
        UsageError: it is invalid.
    """
    try:
        return signature_policy.read(path)
    except RegistryError as error:
        raise UsageError(str(error)) from None


def version(text: str) -> Version:
    """Parse a version of Talos.

    Raises:
        UsageError: the text is not a version.
    """
    found = versions.parse(text)
    if found is None:
        raise UsageError(f"{text!r} is not a version; allowed: for example v1.13.0 or 1.13")
    return found


def _reference(text: str, where: str = "") -> Reference:
    try:
        return reference.parse(text)
    except RegistryError as error:
        raise UsageError(f"{where}{error}") from None
