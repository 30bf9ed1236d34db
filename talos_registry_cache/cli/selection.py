"""The images that a command line selects."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from talos_registry_cache.cli.errors import UsageError
from talos_registry_cache.registry import files, platforms, reference, signature_policy
from talos_registry_cache.registry.errors import RegistryError
from talos_registry_cache.registry.platforms import Platforms
from talos_registry_cache.registry.reference import Reference
from talos_registry_cache.registry.signature_policy import Policy
from talos_registry_cache.talos import images as talos_images
from talos_registry_cache.talos import versions
from talos_registry_cache.talos.versions import Talosctl, Version


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


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster whose images a command line selects; none without a version.

    Attributes:
        talos_version: the version of Talos, or None for that of talosctl.
        kubernetes_version: the version of Kubernetes, or None for talosctl's default.
        schematic: the ID of the installer's schematic, or None for the one without extensions.
    """

    talos_version: str | None = None
    kubernetes_version: str | None = None
    schematic: str | None = None

    def images(self) -> tuple[Reference, ...]:
        """The images of the cluster, those of Kubernetes as talosctl lists them.

        Raises:
            UsageError: talosctl has another version, or an option is wrong.
            TalosError: talosctl is missing, or fails.
        """
        if self.schematic and not re.fullmatch(talos_images.SCHEMATIC, self.schematic):
            allowed = "64 hexadecimal digits"
            raise UsageError(f"{self.schematic!r} is not the ID of a schematic; allowed: {allowed}")
        if self.talos_version is None and self.kubernetes_version is None:
            if self.schematic:
                raise UsageError("--schematic needs --talos-version")
            return ()
        talosctl = versions.find()
        listed = talos_images.of_cluster(
            talosctl,
            self._talos(talosctl),
            self.kubernetes_version,
            self.schematic or talos_images.DEFAULT_SCHEMATIC,
        )
        return tuple(map(reference.parse, listed))

    def _talos(self, talosctl: Talosctl) -> Version:
        if self.talos_version is None:
            return talosctl.version
        wanted = version(self.talos_version)
        if (wanted.major, wanted.minor) != (talosctl.version.major, talosctl.version.minor):
            raise UsageError(
                f"{talosctl.path} is {talosctl.version} and lists the images of that version only; "
                f"put talosctl {self.talos_version} first on PATH"
            )
        has_patch = self.talos_version.count(".") > 1
        return wanted if has_patch else talosctl.version


NO_CLUSTER = Cluster()


def gather(
    texts: Iterable[str], lists: Iterable[Path], cluster: Cluster = NO_CLUSTER
) -> tuple[Reference, ...]:
    """All images that a command line selects, each once, in order.

    Raises:
        UsageError: one is not an image reference, or a list cannot be read.
        TalosError: talosctl cannot list them.
    """
    found = [_reference(text) for text in texts]
    for path in lists:
        found += from_file(path)
    found += cluster.images()
    return tuple(dict.fromkeys(found))


def repositories(texts: Iterable[str]) -> tuple[Reference, ...]:
    """Parse repositories, such as localhost:5010/app.

    Raises:
        UsageError: one is not a repository.
    """
    found = []
    for text in texts:
        image = _reference(text)
        repository = Reference(image.registry, image.repository, None, None)
        if image.digest or ":" in text.rpartition("/")[2]:
            raise UsageError(f"{text} is an image; allowed: a repository, such as {repository}")
        found.append(repository)
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
