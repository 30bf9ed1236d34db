"""The Pulumi program: reads the settings, declares the components, exports what they offer."""

import signal
from pathlib import Path

import pulumi

from components import engine, mirrors, settings, talos_cluster
from components.registry_cache import RegistryCache, RegistryCacheArgs
from components.talos_cluster import TalosCluster, TalosClusterArgs

# When something has failed, Pulumi interrupts the program. Python would add a traceback of what it
# was waiting for to the error that people are looking for.
signal.signal(signal.SIGINT, signal.SIG_DFL)

try:
    stack = settings.load()
    facts = engine.discover(stack.stack)
    folder = Path(__file__).resolve().parent / ".state" / "clusters" / stack.stack
    settings.refuse(stack.stack, talos_cluster.mistakes(stack.clusters, facts, folder))
except (settings.SettingsError, engine.EngineError) as error:
    raise pulumi.RunError(str(error)) from None

offered = mirrors.of_stack(stack.mirrors_from) if stack.mirrors_from else mirrors.Mirrors()
if stack.caches:
    args = RegistryCacheArgs(stack.stack, stack.caches, stack.passwords, facts)
    cache = RegistryCache("caches", args)
    offered = mirrors.of_cache(cache)
    pulumi.export("mirrors", cache.mirrors)
    pulumi.export("caches", cache.caches)
    pulumi.export("talosctlFlags", cache.talosctl_flags)
if stack.clusters:
    clusters = {
        name: TalosCluster(name, TalosClusterArgs(one, offered, folder))
        for name, one in stack.clusters.items()
    }
    pulumi.export("clusters", {name: made.described() for name, made in clusters.items()})
