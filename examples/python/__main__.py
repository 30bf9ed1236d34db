"""A cache of quay.io, with the address at which Talos nodes reach it."""

import pulumi
from talos_registry_cache.components import RegistryCache, RegistryCacheArgs, Upstream

config = pulumi.Config()
caches = RegistryCache(
    "caches",
    RegistryCacheArgs(
        upstreams={
            "quay.io": Upstream(port=config.require_int("port"), remote_url="https://quay.io"),
        }
    ),
)
pulumi.export("mirrors", caches.mirrors)
pulumi.export("talosctlFlags", caches.talosctl_flags)
