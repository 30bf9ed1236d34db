"""CachedImages: the dynamic resource behind `ImageSet`, over the room registry/."""

import asyncio
import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pulumi
from pulumi import dynamic

from components import dynamic_provider
from registry import platforms, reference, throwaway
from registry.errors import RegistryError
from registry.verify import Verified, verify
from registry.warm import NotWarmed, Progress, Warmed, warm

PROGRESS_EVERY_S = 2.0
MB = 1_000_000

Properties = Mapping[str, Any]


class NotAllCachedError(RegistryError):
    """Some of the images are not in the caches; the message says which, and why."""


class CachedImages(dynamic.Resource, module="images", name="CachedImages"):
    """Images that are in their caches, as they are in Pulumi's state."""

    digests: pulumi.Output[Mapping[str, str]]
    """The digest of each image, by its reference."""

    def __init__(
        self,
        name: str,
        *,
        images: Mapping[str, str],
        caches: Mapping[str, Mapping[str, pulumi.Input[str]]],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Declare images.

        Args:
            name: name of the resource.
            images: the platform of each, by its reference.
            caches: endpoint, volume and image of each cache, by registry host.
            opts: options of the resource.
        """
        inputs = {"images": images, "caches": caches}
        outputs = dict.fromkeys(("digests", "missing"))
        super().__init__(CachedImagesProvider(), name, {**inputs, **outputs}, opts)


class CachedImagesProvider(dynamic.ResourceProvider):
    """Warms the caches, and looks whether all is still there."""

    serialize_as_secret_always = False

    def configure(self, req: dynamic.ConfigureRequest) -> None:
        """Prepare the provider's process."""
        dynamic_provider.prepare(req, RegistryError)

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """What has changed: nothing replaces, since forgetting an image drops nothing."""
        is_changed = any(olds.get(key) != news.get(key) for key in ("images", "caches"))
        return dynamic.DiffResult(changes=is_changed or bool(olds.get("missing")), replaces=[])

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Bring the images into the caches."""
        return dynamic.CreateResult("images", _warmed(props))

    def update(self, _id: str, _olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Bring in what was added, or what was lost."""
        return dynamic.UpdateResult(_warmed(news))

    def read(self, id_: str, props: Properties) -> dynamic.ReadResult:
        """Look in the storage of the caches whether all images are still there, and whole."""
        missing = {
            outcome.text: "; ".join(map(str, outcome.errors))
            for outcome in _verified(props)
            if outcome.errors
        }
        return dynamic.ReadResult(id_, {**props, "missing": missing})


def _warmed(props: Properties) -> dict[str, Any]:
    """Warm the caches, and return the properties of the resource.

    Raises:
        NotAllCachedError: some images failed; those that did not are kept.
    """
    if dynamic_provider.is_simulated():
        return {**props, "digests": _made_up(props["images"]), "missing": {}}
    outcomes: list[Warmed | NotWarmed] = []
    # A blob that repositories share is linked through the storage, and fetched once.
    with _storages(props, _shared_registries(props), writable=True) as storages:
        for node, texts in _by_platform(props).items():
            outcomes += asyncio.run(
                warm(
                    texts,
                    _endpoints(props),
                    platforms.parse(node),
                    storages=storages,
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


def _verified(props: Properties) -> Sequence[Verified]:
    outcomes: list[Verified] = []
    with _storages(props, _registries(props), writable=False) as storages:
        for node, texts in _by_platform(props).items():
            outcomes += asyncio.run(verify(texts, storages, platforms.parse(node)))
    return outcomes


@contextmanager
def _storages(
    props: Properties, registries: Iterable[str], *, writable: bool
) -> Iterator[Mapping[str, str]]:
    """The URL of a throw-away registry on the storage of each cache, by registry host."""
    with dynamic_provider.engine() as engine, ExitStack() as running:
        caches = {host: props["caches"][host] for host in registries}
        yield {
            host: running.enter_context(
                throwaway.serving(engine, cache["volume"], cache["image"], writable=writable)
            )
            for host, cache in caches.items()
        }


def _endpoints(props: Properties) -> Mapping[str, str]:
    return {host: cache["endpoint"] for host, cache in props["caches"].items()}


def _by_platform(props: Properties) -> Mapping[str, list[str]]:
    platforms_found: defaultdict[str, list[str]] = defaultdict(list)
    for text, node in props["images"].items():
        platforms_found[node].append(text)
    return platforms_found


def _registries(props: Properties) -> Iterable[str]:
    return {reference.parse(text).registry for text in props["images"]}


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
