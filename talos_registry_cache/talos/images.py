"""The images that a cluster needs, as talosctl lists them."""

from talos_registry_cache.talos import process
from talos_registry_cache.talos.errors import TalosError, UnsupportedError
from talos_registry_cache.talos.versions import Talosctl, Version, in_words

ANSWERS_WITHIN_S = 30.0


def of_kubernetes(talosctl: Talosctl, kubernetes_version: str | None = None) -> tuple[str, ...]:
    """The images that the nodes of a cluster pull: Kubernetes', etcd's, the network's.

    The image of the nodes themselves is not among them: see `command_line.node_image`. Up to
    1.11 the installer is, which virtual machines pull.

    Args:
        talosctl: who is asked.
        kubernetes_version: the version of Kubernetes, where it is not talosctl's default.

    Returns:
        References, in talosctl's order.

    Raises:
        UnsupportedError: this talosctl has no such list.
        CommandError: it failed.
        TalosError: what it printed is no list of images.
    """
    command = [talosctl.path, *_list_words(talosctl.version)]
    if kubernetes_version is not None:
        since = Version(1, 13)
        if talosctl.version < since:
            raise UnsupportedError(
                f"talosctl {talosctl.version} lists the images of its own Kubernetes version only; "
                f"versions that list those of another: {in_words(since)}"
            )
        command += ["--k8s-version", f"v{kubernetes_version.removeprefix('v')}"]
    printed = process.capture(command, within_s=ANSWERS_WITHIN_S)
    references = tuple(line.strip() for line in printed.splitlines() if line.strip())
    wrong = [reference for reference in references if not _is_reference(reference)]
    if wrong or not references:
        raise TalosError(f"{talosctl.path} printed {(wrong or ['nothing'])[0]!r} for an image")
    return references


def _list_words(version: Version) -> tuple[str, ...]:
    """The command has had three names (cmd/talosctl/cmd/talos/images.go, later image.go)."""
    since = Version(0, 7)
    if version < since:
        raise UnsupportedError(
            f"talosctl {version} lists no images; versions that do: {in_words(since)}"
        )
    if version < Version(1, 6):
        return ("images",)
    return ("image", "default") if version < Version(1, 12) else ("image", "k8s-bundle")


def _is_reference(text: str) -> bool:
    return not set(text) & set(" \t'\"") and ":" in text and "/" in text
