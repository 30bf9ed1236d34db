"""The Pulumi program: reads the settings, declares the components, exports their outputs."""

import signal
from pathlib import Path

import pulumi

from components import engine, image_set, mirrors, registry_cache, settings, talos_cluster
from components.image_set import ImageSet, ImageSetArgs
from components.registry_cache import RegistryCache
from components.registry_cache_args import RegistryCacheArgs
from components.settings.mistakes import Mistake
from components.talos_cluster import TalosCluster, TalosClusterArgs
from talos_registry_cache.engine import leftovers
from talos_registry_cache.errors import ReportedError
from talos_registry_cache.registry import reference

ROOT = Path(__file__).resolve().parent
NAME = pulumi.get_stack()

# Pulumi interrupts the program when a resource fails. Without this, Python would print a traceback
# after the error.
signal.signal(signal.SIGINT, signal.SIG_DFL)

try:
    stack = settings.load()
    facts = engine.discover(NAME)
    clusters_folder = ROOT / ".state" / "clusters" / NAME
    images = image_set.resolve(stack.images, stack.caches, ROOT)
    in_caches = registry_cache.mistakes(stack.caches, facts) if stack.caches else ()
    mistakes = [
        *(Mistake(("caches", *mistake.path), mistake.text) for mistake in in_caches),
        *images.mistakes,
        *talos_cluster.mistakes(stack.clusters, facts, clusters_folder),
    ]
    settings.refuse(NAME, mistakes)
    if not pulumi.runtime.is_dry_run():
        leftovers.remove(engine.client(), NAME)
except ReportedError as error:
    raise pulumi.RunError(str(error)) from None

offered = mirrors.of_stack(stack.mirrors_from) if stack.mirrors_from else mirrors.NONE
if stack.caches:
    cache = RegistryCache(
        "caches",
        RegistryCacheArgs(
            **dict(stack.caches),
            **dict(stack.secrets),
            kept_images=[reference.parse(image) for image in images.images],
            pinned_images=[reference.parse(image) for image in images.pinned],
        ),
    )
    offered = mirrors.of_cache(cache)
    for name, value in cache.outputs().items():
        pulumi.export(name, value)
    if images.images:
        images_args = ImageSetArgs(
            images.images, images.platforms, cache, images.attachments, images.locked
        )
        cached = ImageSet("images", images_args)
        offered = offered.after_images(cached)
        pulumi.export("images", cached.digests)
if stack.clusters:
    clusters = {
        name: TalosCluster(name, TalosClusterArgs(one, offered, clusters_folder))
        for name, one in stack.clusters.items()
    }
    pulumi.export("clusters", {name: made.described() for name, made in clusters.items()})
