"""Warming the caches of a stack and proving what they hold, in the process of the provider."""

import asyncio
import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from docker import DockerClient

from talos_registry_cache.engine import cache_storage, lock, processes
from talos_registry_cache.engine.cache_storage import CacheStorage, InStore, InVolume
from talos_registry_cache.engine.throwaway_registry import ServingError
from talos_registry_cache.registry import layout, platforms, reference
from talos_registry_cache.registry.endpoints import Endpoint, Endpoints
from talos_registry_cache.registry.errors import RegistryError
from talos_registry_cache.registry.s3_location import S3Credentials, S3Location
from talos_registry_cache.registry.verify import verify
from talos_registry_cache.registry.warm import NotWarmed, Progress, Warmed, warm

from . import dynamic_provider

PROGRESS_EVERY_S = 2.0
MB = 1_000_000

Properties = Mapping[str, Any]


class NotAllCachedError(RegistryError):
    """Some of the images are not in the caches; the message says which, and why."""


def warmed(props: Properties) -> dict[str, Any]:
    """Warm the caches, and return the properties of the resource.

    Raises:
        NotAllCachedError: some images failed; those that did not are kept.
    """
    if dynamic_provider.is_simulated():
        return {**props, "digests": _made_up(props["images"]), "missing": {}}
    outcomes: list[Warmed | NotWarmed] = []
    # A blob that repositories share is linked through the storage, and fetched once.
    with _storages(props, _shared_registries(props), writable=True) as writable:
        for node, texts in _by_platform(props["images"]).items():
            outcomes += asyncio.run(
                warm(
                    texts,
                    _endpoints(props),
                    platforms.parse(node),
                    storages=writable,
                    on_progress=_Reporter(len(texts)),
                )
            )
    failed = [outcome for outcome in outcomes if isinstance(outcome, NotWarmed)]
    if failed:
        lines = "".join(f"\n  {one.text}: {'; '.join(map(str, one.errors))}" for one in failed)
        kept = len(outcomes) - len(failed)
        raise NotAllCachedError(
            f"{len(failed)} of {len(outcomes)} images are not cached; {kept} are, and stay:{lines}"
        )
    digests = {one.text: one.image.digest for one in outcomes if isinstance(one, Warmed)}
    return {**props, "digests": digests, "missing": {}}


def _made_up(images: Iterable[str]) -> Mapping[str, str]:
    """A digest of each image that no registry has, and that is the same every time."""
    return {text: f"sha256:{hashlib.sha256(text.encode()).hexdigest()}" for text in images}


def remove_damaged(props: Properties, images: Mapping[str, str]) -> None:
    """Remove what is damaged in the storages of images; a registry never writes over a blob.

    Args:
        props: the properties of the resource.
        images: those that `missing` has found.
    """
    with dynamic_provider.engine() as engine, _alone(engine, props):
        for host in _by_registry(images):
            held = _storage(engine, props, host)
            if damages := cache_storage.confirmed(held, list(layout.damages(held.read()))):
                with processes.forgetting(engine, props["caches"][host]["name"]):
                    cache_storage.remove_damaged(held, damages)


def missing(props: Properties) -> Mapping[str, str]:
    """Why images are not in the storage of their caches, by their references."""
    lost: dict[str, str] = {}
    for host, images in _by_registry(props["images"]).items():
        try:
            with _storages(props, [host], writable=False) as served:
                lost |= _unproved(images, served)
        except ServingError as error:
            # Its volume is gone, say: `up` makes it again, and has to find that it is empty.
            lost |= dict.fromkeys(images, str(error))
    return lost


def _unproved(images: Mapping[str, str], served: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for node, texts in _by_platform(images).items():
        for outcome in asyncio.run(verify(texts, served, platforms.parse(node))):
            if outcome.errors:
                yield outcome.text, "; ".join(map(str, outcome.errors))


@contextmanager
def _storages(
    props: Properties, registries: Iterable[str], *, writable: bool
) -> Iterator[Mapping[str, str]]:
    """The URL of a throw-away registry on the storage of each cache, by registry host."""
    with dynamic_provider.engine() as engine, _alone(engine, props), ExitStack() as running:
        yield {
            host: running.enter_context(_storage(engine, props, host).serving(writable=writable))
            for host in registries
        }


def _storage(engine: DockerClient, props: Properties, host: str) -> CacheStorage:
    """Where a cache keeps what it has: a volume, or a place in an object store."""
    cache = props["caches"][host]
    if location := props["s3Locations"].get(host):
        credentials = S3Credentials(**props["s3Credentials"])
        return InStore(engine, S3Location(**location), cache["image"], credentials)
    return InVolume(engine, cache["storage"], cache["image"])


def _alone(engine: DockerClient, props: Properties) -> AbstractContextManager[None]:
    """Hold the storages of the stack against `cachectl`, and against other runs."""
    waiting = f"waiting for another process that works on the caches of {props['stack']}"
    return lock.held(engine, props["stack"], lambda: print(waiting, flush=True))  # noqa: T201


def _endpoints(props: Properties) -> Endpoints:
    ca, reader = props.get("ca"), props.get("reader") or {}
    return {
        host: Endpoint(cache["endpoint"], ca, **reader) for host, cache in props["caches"].items()
    }


def _by_platform(images: Mapping[str, str]) -> Mapping[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for text, node in images.items():
        found[node].append(text)
    return found


def _by_registry(images: Mapping[str, str]) -> Mapping[str, dict[str, str]]:
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for text, node in images.items():
        found[reference.parse(text).registry][text] = node
    return found


def _shared_registries(props: Properties) -> Iterable[str]:
    """Registries of which several repositories are wanted, so that these may share blobs."""
    repositories = {
        (name.registry, name.repository) for name in map(reference.parse, props["images"])
    }
    counted = Counter(registry for registry, _ in repositories)
    return [registry for registry, count in counted.items() if count > 1]


class _Reporter:
    """Says now and then how far a warming is; what a provider prints, Pulumi shows."""

    def __init__(self, images: int) -> None:
        self._images = images
        self._started = self._said = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._said < PROGRESS_EVERY_S:
            return
        self._said = now
        rate = progress.fetched / MB / (now - self._started)
        print(  # noqa: T201
            f"{self._images} images: {progress.done / MB:.0f} of {progress.total / MB:.0f} MB "
            f"are cached ({rate:.0f} MB/s)",
            flush=True,
        )
