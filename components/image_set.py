"""ImageSet: these images are in the caches, before any node asks for them."""

import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi

from talos_registry_cache.registry import files, reference
from talos_registry_cache.registry.errors import InvalidReferenceError
from talos_registry_cache.talos import command_line
from talos_registry_cache.talos import images as talos_images
from talos_registry_cache.talos.cluster_spec import ClusterSpec
from talos_registry_cache.talos.errors import TalosError

from .cached_images import CachedImages
from .registry_cache import RegistryCache
from .settings import Caches
from .settings.images import Images
from .settings.mistakes import Mistake
from .settings.secrets import S3Keys
from .settings.storage import S3Storage, Storage
from .talos_cluster import find_talosctl

LONGEST_SHOWN = 100
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class ImageSetArgs:
    """What an image set is made from.

    Attributes:
        images: the platform of each, by its canonical reference.
        cache: the caches that are to have them.
        storage: where these keep what they have.
        s3_keys: the keys of the object store, where it is one.
    """

    images: Mapping[str, str]
    cache: RegistryCache
    storage: Storage
    s3_keys: S3Keys | None


class ImageSet(pulumi.ComponentResource):
    """Images that are in the caches of a stack, each blob fetched from its upstream once.

    What a cache has lost is found by refresh and brought back by up. Destroying the set forgets
    it; what is cached stays.
    """

    digests: pulumi.Output[Mapping[str, str]]
    """The digest of each image, by its reference."""

    def __init__(
        self, name: str, args: ImageSetArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("talos-registry-cache:images:ImageSet", name, {}, opts)
        cached = CachedImages(
            name,
            images=args.images,
            caches=args.cache.caches,
            store=_store(args.storage),
            s3_keys=_s3_keys(args.s3_keys),
            trust=args.cache.trust,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[args.cache]),
        )
        self.digests = cached.digests
        self.register_outputs({"digests": self.digests})


@dataclass(frozen=True, slots=True)
class Resolved:
    """The images that settings ask for.

    Attributes:
        by_platform: the platform of each, by its canonical reference.
        mistakes: what is wrong with the settings on this machine.
    """

    by_platform: Mapping[str, str]
    mistakes: Sequence[Mistake]


def resolve(settings: Images | None, caches: Caches | None, folder: Path) -> Resolved:
    """Find out which images settings ask for: their list, their file and talosctl's list.

    Args:
        settings: the settings of the images.
        caches: the settings of the caches that are to have them.
        folder: where the stack file is.
    """
    if settings is None or caches is None:
        return Resolved({}, [])
    found = [*settings.references, *_in_file(settings, folder), *_of_talos(settings)]
    images = dict.fromkeys(text for text in found if isinstance(text, str))
    mistakes = [mistake for mistake in found if isinstance(mistake, Mistake)]
    mistakes += _without_cache(images, caches)
    if not found and settings.talos is None:
        allowed = "references, a file with some, or talos"
        mistakes.append(Mistake(("images",), f"found no image at all; allowed: {allowed}"))
    return Resolved(dict.fromkeys(images, _platform(settings)), mistakes)


def _store(settings: Storage) -> Mapping[str, Any] | None:
    if not isinstance(settings, S3Storage):
        return None
    return {
        "region": settings.region,
        "endpoint": settings.endpoint,
        "pathStyle": settings.path_style,
        "ca": settings.ca,
    }


def _s3_keys(keys: S3Keys | None) -> pulumi.Output[Mapping[str, str]] | None:
    if keys is None:
        return None
    access, secret = keys.access.get_secret_value(), keys.secret.get_secret_value()
    return pulumi.Output.secret({"access": access, "secret": secret})


def _platform(settings: Images) -> str:
    machine = platform.machine()
    return settings.platform or f"linux/{ARCHITECTURES.get(machine, machine)}"


def _in_file(settings: Images, folder: Path) -> Iterator[str | Mistake]:
    if settings.file is None:
        return
    path = ("images", "file")
    file = folder / settings.file
    try:
        lines = files.read_text(file, files.LIST_LIMIT, regular=True).splitlines()
    except (OSError, ValueError) as error:
        allowed = f"a file that can be read ({error})"
        yield Mistake(path, f"found {settings.file!r}; allowed: {allowed}")
        return
    for number, line in enumerate(lines, start=1):
        if text := line.partition("#")[0].strip():
            try:
                yield str(reference.parse(text))
            except InvalidReferenceError as error:
                found = f"found {text[:LONGEST_SHOWN]!r} in line {number} of {settings.file}"
                yield Mistake(path, f"{found}; allowed: an image reference ({error})")


def _of_talos(settings: Images) -> Iterator[str | Mistake]:
    wanted = settings.talos
    if wanted is None:
        return
    try:
        talosctl = find_talosctl(wanted.talosctl)
        if talosctl is None:
            return
        spec = ClusterSpec(name="images", talos_version=wanted.talos_version)
        texts = [
            *talos_images.of_kubernetes(talosctl, wanted.kubernetes_version),
            command_line.node_image(spec, talosctl.version),
        ]
        yield from (str(reference.parse(text)) for text in texts)
    except (TalosError, InvalidReferenceError) as error:
        yield Mistake(("images", "talos"), str(error))


def _without_cache(images: Iterable[str], caches: Caches) -> Iterator[Mistake]:
    for image in images:
        host = reference.parse(image).registry
        if host not in caches.upstreams:
            allowed = ", ".join(caches.upstreams)
            text = f"found {image}, and there is no cache of {host}; allowed: {allowed}"
            yield Mistake(("images",), text)
