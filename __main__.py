"""The Pulumi program: reads the settings, declares the components, exports what they offer."""

import signal
from pathlib import Path

import pulumi

from components import (
    engine,
    image_set,
    mirrors,
    registry_cache,
    settings,
    talos_cluster,
)
from components.image_set import ImageSet, ImageSetArgs
from components.registry_cache import RegistryCache, RegistryCacheArgs
from components.talos_cluster import TalosCluster, TalosClusterArgs
from talos_registry_cache.engine import leftovers

ROOT = Path(__file__).resolve().parent

# When something has failed, Pulumi interrupts the program. Python would add a traceback of what it
# was waiting for to the error that people are looking for.
signal.signal(signal.SIGINT, signal.SIG_DFL)

try:
    stack = settings.load()
    facts = engine.discover(stack.stack, stack.caches.images if stack.caches else ())
    clusters_folder = ROOT / ".state" / "clusters" / stack.stack
    images = image_set.resolve(stack.images, stack.caches, ROOT)
    mistakes = [
        *registry_cache.mistakes(stack.caches, facts),
        *images.mistakes,
        *talos_cluster.mistakes(stack.clusters, facts, clusters_folder),
    ]
    settings.refuse(stack.stack, mistakes)
    if not pulumi.runtime.is_dry_run():
        leftovers.remove(engine.client(), stack.stack)
except (settings.SettingsError, engine.EngineError) as error:
    raise pulumi.RunError(str(error)) from None

offered = mirrors.of_stack(stack.mirrors_from) if stack.mirrors_from else mirrors.NONE
if stack.caches:
    cache = RegistryCache(
        "caches", RegistryCacheArgs(stack.stack, stack.caches, stack.secrets, facts)
    )
    offered = mirrors.of_cache(cache)
    pulumi.export("mirrors", cache.mirrors)
    pulumi.export("caches", cache.caches)
    pulumi.export("talosctlFlags", cache.talosctl_flags)
    for name, value in cache.trust.inputs().items():
        if value is not None:
            pulumi.export(name, value)
    if images.by_platform:
        cached = ImageSet(
            "images",
            ImageSetArgs(images.by_platform, cache, stack.caches.storage, stack.secrets.s3_keys),
        )
        offered = offered.once(cached)
        pulumi.export("images", cached.digests)
if stack.clusters:
    clusters = {
        name: TalosCluster(name, TalosClusterArgs(one, offered, clusters_folder))
        for name, one in stack.clusters.items()
    }
    pulumi.export("clusters", {name: made.described() for name, made in clusters.items()})
