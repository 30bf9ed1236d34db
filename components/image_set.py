"""ImageSet: images that are in the caches before any node pulls them."""

import platform
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pulumi

from talos_registry_cache.registry import declared_images, files, reference
from talos_registry_cache.registry.declared_images import SUFFIXES, Found
from talos_registry_cache.registry.errors import InvalidReferenceError, LockError
from talos_registry_cache.registry.reference import Reference
from talos_registry_cache.talos import images as talos_images
from talos_registry_cache.talos import versions
from talos_registry_cache.talos.errors import TalosError

from .cached_images import CachedImages
from .registry_cache import RegistryCache
from .settings import Caches
from .settings.images import Images
from .settings.mistakes import Mistake
from .talos_cluster import find_talosctl

if TYPE_CHECKING:
    from talos_registry_cache.registry.image_lock import ImageLock, LockedImage

LONGEST_SHOWN = 100
LOCK = ("images", "lock")
AGAIN = "allowed: what `cachectl lock` writes for this stack file"
MANIFESTS = f"a file, or a folder with files that end with {', '.join(sorted(SUFFIXES))}"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class ImageSetArgs:
    """The arguments of an image set.

    Attributes:
        images: their canonical references.
        platforms: the platforms of each image, or only `all`.
        cache: the caches.
        attachments: the attachments to cache with the images: none, signatures or all.
        locked: the digests of images and their attachments, by reference.
    """

    images: Sequence[str]
    platforms: Sequence[str]
    cache: RegistryCache
    attachments: str = "signatures"
    locked: Mapping[str, "LockedImage"] = field(default_factory=dict)


class ImageSet(pulumi.ComponentResource):
    """Images that are in the caches of a stack, each blob fetched from its upstream once.

    A refresh finds images that a cache has lost, and `up` restores them. Destroying the set leaves
    the caches as they are.
    """

    digests: pulumi.Output[Mapping[str, str]]
    """The digest of each image, by reference."""

    def __init__(
        self, name: str, args: ImageSetArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("talos-registry-cache:images:ImageSet", name, {}, opts)
        cached = CachedImages(
            name,
            images=args.images,
            platforms=args.platforms,
            cache=args.cache,
            attachments=args.attachments,
            locked=args.locked,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[args.cache]),
        )
        self.digests = cached.digests
        self.register_outputs({"digests": self.digests})


@dataclass(frozen=True, slots=True)
class Resolved:
    """The images that the settings list.

    Attributes:
        images: their canonical references, each once.
        platforms: the platforms of each image, or only `all`.
        mistakes: mistakes in the settings that this machine shows.
        attachments: which attachments to cache with the images.
        locked: the digests of images and their attachments, by reference.
    """

    images: Sequence[str]
    platforms: Sequence[str]
    mistakes: Sequence[Mistake]
    attachments: str = "signatures"
    locked: Mapping[str, "LockedImage"] = field(default_factory=dict)

    @property
    def pinned(self) -> Sequence[str]:
        """The locked images and attachments with their tags and digests."""
        return [
            f"{image.registry}/{repository}:{tag}@{digest}"
            for image, one in ((reference.parse(text), one) for text, one in self.locked.items())
            for (repository, tag), digest in one.tags(image).items()
        ]


def resolve(settings: Images | None, caches: Caches | None, folder: Path) -> Resolved:
    """Collect the images of the settings: their list, their files and talosctl's list.

    Args:
        settings: the settings of the images.
        caches: the settings of the caches.
        folder: the folder of the stack file.
    """
    if settings is None or caches is None:
        return Resolved([], [], [])
    found = [
        *settings.references,
        *_in_file(settings, folder),
        *_in_manifests(settings, folder),
        *_of_talos(settings),
    ]
    images = dict.fromkeys(image for image in found if isinstance(image, Reference))
    mistakes = [mistake for mistake in found if isinstance(mistake, Mistake)]
    if settings.lock is not None:
        try:
            lock = _read_lock(folder / settings.lock)
        except LockError as error:
            text = f"found {settings.lock!r}: {error}"
            return Resolved([], [], [*mistakes, Mistake(LOCK, text)])
        mistakes += _unlike(lock, settings, images)
        mistakes += _without_cache(map(reference.parse, lock.images), caches)
        return Resolved(list(lock.images), lock.platforms, mistakes, lock.attachments, lock.images)
    mistakes += _without_cache(images, caches)
    if not found and settings.talos is None:
        allowed = "references, a file or manifests with some, talos, or a lock"
        mistakes.append(Mistake(("images",), f"found no images; allowed: {allowed}"))
    texts = list(map(str, images))
    return Resolved(texts, _platforms(settings), mistakes, settings.attachments)


def _read_lock(path: Path) -> "ImageLock":
    # Few stacks have one, and the checks of its content take long to load.
    from talos_registry_cache.registry import image_lock  # noqa: PLC0415 - see above

    return image_lock.read(path)


def _unlike(
    lock: "ImageLock", settings: Images, images: Collection[Reference]
) -> Iterator[Mistake]:
    """How a lock differs from the other settings, which may be none at all."""
    if listed := set(map(str, images)):
        # Without talosctl, in a preview, some images are not known.
        is_complete = settings.talos is None or find_talosctl(settings.talos.talosctl) is not None
        lacks = listed - lock.images.keys()
        has = lock.images.keys() - listed if is_complete else set()
        for others, what in ((lacks, "which lacks"), (has, "which has, but this file does not,")):
            if others:
                more = f" and {len(others) - 1} more" if len(others) > 1 else ""
                text = f"found {settings.lock!r}, {what} {min(others)}{more}; {AGAIN}"
                yield Mistake(LOCK, text)
    own = settings.model_fields_set
    wanted = set(settings.platforms or ())
    if "platforms" in own and wanted and wanted != set(lock.platforms):
        found = f"found {', '.join(sorted(wanted))} beside a lock for {', '.join(lock.platforms)}"
        yield Mistake(("images", "platforms"), f"{found}; {AGAIN}")
    if "attachments" in own and settings.attachments != lock.attachments:
        found = f"found {settings.attachments} beside a lock with {lock.attachments}"
        yield Mistake(("images", "attachments"), f"{found}; {AGAIN}")


def _platforms(settings: Images) -> Sequence[str]:
    machine = platform.machine()
    return settings.platforms or [f"linux/{ARCHITECTURES.get(machine, machine)}"]


def _in_file(settings: Images, folder: Path) -> Iterator[Reference | Mistake]:
    if settings.file is None:
        return
    path = ("images", "file")
    file = folder / settings.file
    try:
        content = files.read_text(file, files.LIST_LIMIT, regular=True)
    except (OSError, ValueError) as error:
        allowed = f"a readable file ({error})"
        yield Mistake(path, f"found {settings.file!r}; allowed: {allowed}")
        return
    for number, text in reference.listed(content):
        try:
            yield reference.parse(text)
        except InvalidReferenceError as error:
            found = f"found {text[:LONGEST_SHOWN]!r} in line {number} of {settings.file}"
            yield Mistake(path, f"{found}; allowed: an image reference ({error})")


def _in_manifests(settings: Images, folder: Path) -> Iterator[Reference | Mistake]:
    for number, name in enumerate(settings.manifests):
        path = ("images", "manifests", number)
        try:
            manifests = declared_images.files(folder / name)
            if not manifests:
                yield Mistake(path, f"found {name!r}, a folder without any; allowed: {MANIFESTS}")
            for file in manifests:
                content = files.read_text(file, declared_images.SIZE_LIMIT, regular=True)
                # Not with the environment: a stack has the same images on every machine.
                for one in declared_images.find(content):
                    if isinstance(one, Found):
                        yield one.reference
                    else:
                        yield Mistake(path, f"{file.name}, {one}")
        except (OSError, ValueError) as error:
            yield Mistake(path, f"found {name!r}; allowed: {MANIFESTS} ({error})")


def _of_talos(settings: Images) -> Iterator[Reference | Mistake]:
    wanted = settings.talos
    if wanted is None:
        return
    try:
        talosctl = find_talosctl(wanted.talosctl)
        if talosctl is None:
            return
        texts = talos_images.of_cluster(
            talosctl,
            versions.parse(wanted.talos_version or ""),
            wanted.kubernetes_version,
            wanted.schematic,
        )
        yield from map(reference.parse, texts)
    except (TalosError, InvalidReferenceError) as error:
        yield Mistake(("images", "talos"), str(error))


def _without_cache(images: Iterable[Reference], caches: Caches) -> Iterator[Mistake]:
    for image in images:
        if image.registry not in caches.upstreams:
            allowed = ", ".join(caches.upstreams)
            text = f"found {image}, but there is no cache for {image.registry}; allowed: {allowed}"
            yield Mistake(("images",), text)
