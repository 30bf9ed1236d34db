"""The images of a cluster, as talosctl lists them."""

from talos_registry_cache.talos import command_line, process
from talos_registry_cache.talos.errors import TalosError, UnsupportedError
from talos_registry_cache.talos.versions import Talosctl, Version, version_range

ANSWERS_WITHIN_S = 30.0

# Of images.Factory and images.DefaultInstallerImageSchematic in pkg/images: no extensions.
FACTORY = "factory.talos.dev"
DEFAULT_SCHEMATIC = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba"
INSTALLER_FROM_FACTORY = Version(1, 14)
SCHEMATIC = r"[0-9a-f]{64}"
"""What the ID of a schematic matches."""


def of_cluster(
    talosctl: Talosctl,
    talos: Version | None,
    kubernetes_version: str | None = None,
    schematic: str = DEFAULT_SCHEMATIC,
) -> tuple[str, ...]:
    """All images of a cluster: those of Kubernetes, of docker nodes, and the installer.

    Args:
        talosctl: the talosctl to run.
        talos: the version of Talos on the nodes; talosctl's own if it is None.
        kubernetes_version: the version of Kubernetes; talosctl's default if it is None.
        schematic: the ID of the installer's schematic, from Talos 1.14 on.

    Returns:
        References.

    Raises:
        UnsupportedError: this talosctl cannot list them.
        CommandError: it failed.
        TalosError: it printed something else.
    """
    listed = of_kubernetes(talosctl, kubernetes_version)
    version = talos or talosctl.version
    more = (command_line.default_image(version), installer(version, schematic))
    return (*listed, *filter(None, more))


def of_kubernetes(talosctl: Talosctl, kubernetes_version: str | None = None) -> tuple[str, ...]:
    """The images that the nodes of a cluster pull: Kubernetes, etcd and the network.

    The list lacks the image of docker nodes (see `command_line.node_image`), and up to 1.11 it has
    the installer, which virtual machines pull.

    Args:
        talosctl: the talosctl to run.
        kubernetes_version: the version of Kubernetes; talosctl's default if it is None.

    Returns:
        References, in talosctl's order.

    Raises:
        UnsupportedError: this talosctl cannot list them.
        CommandError: it failed.
        TalosError: it printed something else.
    """
    command = [talosctl.path, *_list_words(talosctl.version)]
    if kubernetes_version is not None:
        since = Version(1, 13)
        if talosctl.version < since:
            raise UnsupportedError(
                f"talosctl {talosctl.version} lists images of its default Kubernetes only; "
                f"allowed for other versions: talosctl {version_range(since)}"
            )
        command += ["--k8s-version", f"v{kubernetes_version.removeprefix('v')}"]
    printed = process.capture(command, within_s=ANSWERS_WITHIN_S)
    references = tuple(line.strip() for line in printed.splitlines() if line.strip())
    wrong = [reference for reference in references if not _is_reference(reference)]
    if wrong or not references:
        raise TalosError(
            f"{talosctl.path} printed {(wrong or ['nothing'])[0]!r}; allowed: image references"
        )
    return references


def installer(talos: Version, schematic: str = DEFAULT_SCHEMATIC) -> str | None:
    """The installer of virtual machines, which no list of talosctl has from 1.12 on.

    From 1.14 on, it is that of the Image Factory (cmd/talosctl/cmd/talos/image.go and
    pkg/images/images.go of v1.14.0).

    Args:
        talos: the version of Talos.
        schematic: the ID of its schematic, which names its system extensions.

    Returns:
        Its reference; None before 1.14.
    """
    if talos < INSTALLER_FROM_FACTORY:
        return None
    return f"{FACTORY}/metal-installer/{schematic}:{talos}"


def _list_words(version: Version) -> tuple[str, ...]:
    """The command has had three names (cmd/talosctl/cmd/talos/images.go, later image.go)."""
    since = Version(0, 7)
    if version < since:
        raise UnsupportedError(
            f"talosctl {version} cannot list images; allowed: talosctl {version_range(since)}"
        )
    if version < Version(1, 6):
        return ("images",)
    return ("image", "default") if version < Version(1, 12) else ("image", "k8s-bundle")


def _is_reference(text: str) -> bool:
    return not set(text) & set(" \t'\"") and ":" in text and "/" in text
