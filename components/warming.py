"""Warms the caches of a stack and verifies their content, in the dynamic provider's process."""

import asyncio
import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import chain
from typing import Any, TypeVar

from docker import DockerClient

from talos_registry_cache.endpoint import Endpoint
from talos_registry_cache.engine import cache_storage, processes, upstreams
from talos_registry_cache.engine.cache_storage import CacheStorage, InStore, InVolume
from talos_registry_cache.engine.temporary_registry import ServingError
from talos_registry_cache.registry import layout, platforms, reference
from talos_registry_cache.registry.attachments import Attachments
from talos_registry_cache.registry.client import Endpoints
from talos_registry_cache.registry.errors import RegistryError
from talos_registry_cache.registry.image_lock import LockedImage
from talos_registry_cache.registry.platforms import Platforms
from talos_registry_cache.registry.reference import Reference
from talos_registry_cache.registry.s3_location import S3Credentials, S3Location
from talos_registry_cache.registry.upstream import Remote
from talos_registry_cache.registry.verify import verify
from talos_registry_cache.registry.warm import NotWarmed, Progress, Warmed, indexes_of, warm

from . import dynamic_provider

PROGRESS_EVERY_S = 2.0
MB = 1_000_000

Properties = Mapping[str, Any]
Images = Sequence[Reference]

Url = TypeVar("Url", str, str | None)


class NotAllCachedError(RegistryError):
    """Some images are not in the caches; the message names each with the reason."""


def warmed(props: Properties) -> dict[str, Any]:
    """Warm the caches, and return the properties of the resource.

    Raises:
        NotAllCachedError: some images failed; the others are kept.
    """
    images, locked = _images(props), _locked(props)
    if dynamic_provider.is_simulated():
        digests = {str(image): _made_up_digest(image) for image in images}
        digests |= {str(image): one.digest for image, one in locked.items()}
        return {**props, "digests": digests, "missing": {}}
    with _temporary(props, _shared_registries(images), lambda one: one.mounting()) as mounting:
        outcomes = asyncio.run(
            warm(
                images,
                _endpoints(props),
                _platforms(props),
                attach=Attachments(props["attachments"]),
                locked=locked,
                storages={host: url for host, url in mounting.items() if url},
                remotes=_asked_for_referrers(props, [one for one in images if one not in locked]),
                on_progress=_Reporter(len(images)),
                on_problem=_say,
            )
        )
    _add_indexes(props, indexes_of(outcomes))
    failed = [outcome for outcome in outcomes if isinstance(outcome, NotWarmed)]
    if failed:
        lines = "".join(f"\n  {one.reference}: {'; '.join(map(str, one.errors))}" for one in failed)
        kept = len(outcomes) - len(failed)
        raise NotAllCachedError(
            f"{len(failed)} of {len(outcomes)} images are not cached; {kept} are, and stay:{lines}"
        )
    _keep_tags(props, locked)
    digests = {str(one.reference): one.image.digest for one in outcomes if isinstance(one, Warmed)}
    return {**props, "digests": digests, "missing": {}}


def _asked_for_referrers(props: Properties, images: Images) -> Mapping[str, Remote]:
    """The upstreams of images and their logins, by registry host; none without attachments."""
    if props["attachments"] == Attachments.NONE:
        return {}
    with dynamic_provider.engine() as engine:
        found = {
            host: upstreams.find(engine, props["caches"][host]["name"])
            for host in _by_registry(images)
        }
    return {host: remote for host, remote in found.items() if remote}


def _add_indexes(props: Properties, indexes: Mapping[str, Mapping[layout.Tag, bytes]]) -> None:
    """Add indexes of referrers to the storages of the caches, unless they are there."""
    if not indexes:
        return
    with dynamic_provider.engine() as engine, dynamic_provider.alone(engine, props["stack"]):
        for host, found in indexes.items():
            cache_storage.add_lacking(_storage(engine, props, host), found)


def _keep_tags(props: Properties, locked: Mapping[Reference, LockedImage]) -> None:
    """Point the tags of locked images to their digests in the storages as well.

    Exports and proofs read them there, and so do fronts that no longer have the pins.
    """
    if not locked:
        return
    with dynamic_provider.engine() as engine, dynamic_provider.alone(engine, props["stack"]):
        for host, images in _by_registry(list(locked)).items():
            tags = [locked[image].tags(image).items() for image in images]
            _storage(engine, props, host).tag(dict(chain.from_iterable(tags)))


def remove_damaged(props: Properties, lost: Iterable[str]) -> None:
    """Remove damaged content, since a registry never overwrites a blob.

    Args:
        props: the properties of the resource.
        lost: the images that `missing` has found; only the storages of their caches are read.
    """
    with dynamic_provider.engine() as engine, dynamic_provider.alone(engine, props["stack"]):
        for host in {reference.parse(text).registry for text in lost}:
            held = _storage(engine, props, host)
            if damages := cache_storage.confirmed(held, list(layout.damages(held.read()))):
                with processes.forgetting(engine, props["caches"][host]["name"]):
                    cache_storage.remove_damaged(held, damages)


def missing(props: Properties) -> Mapping[str, str]:
    """The images that the caches do not hold completely, each with the reason."""
    lost: dict[str, str] = {}
    for host, images in _by_registry(_images(props)).items():
        try:
            with _temporary(props, [host], lambda one: one.serving()) as served:
                lost |= _unproved(images, served, props)
        except ServingError as error:
            # Its volume may be gone. `up` creates it again, and has to find that it is empty.
            lost |= {str(image): str(error) for image in images}
    return lost


def _unproved(
    images: Images, served: Mapping[str, str], props: Properties
) -> Iterator[tuple[str, str]]:
    locked = _locked(props)
    for outcome in asyncio.run(verify(images, served, _platforms(props))):
        one = locked.get(outcome.reference)
        if outcome.errors:
            yield str(outcome.reference), "; ".join(map(str, outcome.errors))
        elif one and outcome.image and outcome.image.digest != one.digest:
            yield str(outcome.reference), f"its tag names {outcome.image.digest}"


@contextmanager
def _temporary(
    props: Properties,
    registries: Iterable[str],
    run: Callable[[CacheStorage], AbstractContextManager[Url]],
) -> Iterator[Mapping[str, Url]]:
    """The URL of a temporary registry on the storage of each cache, by registry host."""
    with (
        dynamic_provider.engine() as engine,
        dynamic_provider.alone(engine, props["stack"]),
        ExitStack() as running,
    ):
        yield {
            host: running.enter_context(run(_storage(engine, props, host))) for host in registries
        }


def _storage(engine: DockerClient, props: Properties, host: str) -> CacheStorage:
    """The storage of a cache."""
    cache = props["caches"][host]
    if location := props["s3Locations"].get(host):
        credentials = S3Credentials(**props["s3Credentials"])
        return InStore(engine, S3Location(**location), cache["image"], credentials)
    return InVolume(engine, cache["storage"], cache["image"])


def _endpoints(props: Properties) -> Endpoints:
    ca, reader = props.get("ca"), props.get("reader") or {}
    return {
        host: Endpoint(cache["endpoint"], ca, **reader) for host, cache in props["caches"].items()
    }


def _images(props: Properties) -> Images:
    return [reference.parse(text) for text in props["images"]]


def _locked(props: Properties) -> Mapping[Reference, LockedImage]:
    written = props.get("locked") or {}
    return {
        reference.parse(text): LockedImage(
            one["digest"], 0, one["attachments"], one.get("indexes", {})
        )
        for text, one in written.items()
    }


def _platforms(props: Properties) -> Platforms:
    # Before there were several platforms, the state had that of each image, by reference.
    return platforms.parse_all(props.get("platforms") or set(props["images"].values()))


def _made_up_digest(image: Reference) -> str:
    """A digest that no registry has, and that is the same in every simulation."""
    return f"sha256:{hashlib.sha256(str(image).encode()).hexdigest()}"


def _by_registry(images: Images) -> Mapping[str, Images]:
    found: defaultdict[str, list[Reference]] = defaultdict(list)
    for image in images:
        found[image.registry].append(image)
    return found


def _shared_registries(images: Images) -> Iterable[str]:
    """The registries with several repositories, which may share blobs."""
    repositories = {(image.registry, image.repository) for image in images}
    counted = Counter(registry for registry, _ in repositories)
    return [registry for registry, count in counted.items() if count > 1]


class _Reporter:
    """Prints progress now and then; Pulumi shows what a provider prints."""

    def __init__(self, images: int) -> None:
        self._images = images
        self._started = self._said = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._said < PROGRESS_EVERY_S:
            return
        self._said = now
        rate = progress.fetched / MB / (now - self._started)
        _say(
            f"{self._images} images: {progress.done / MB:.0f} of {progress.total / MB:.0f} MB "
            f"are cached ({rate:.0f} MB/s)"
        )


def _say(message: str) -> None:
    """Print a line, which Pulumi shows."""
    print(message, flush=True)  # noqa: T201
