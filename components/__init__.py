"""Pulumi components: pull-through caches for registries, images in them, and Talos clusters."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .registry_cache import RegistryCache
    from .registry_cache_args import ArgumentsError, RegistryCacheArgs, S3KeysArgs
    from .settings.access import GivenTls, OwnTls, Via
    from .settings.caches import Logs
    from .settings.placement import EnginePlacement, SwarmPlacement
    from .settings.proxy import EnvironmentProxy, GivenProxy
    from .settings.retention import Retention
    from .settings.storage import S3Storage, VolumeStorage
    from .settings.upstream import Upstream

__all__ = [
    "ArgumentsError",
    "EnginePlacement",
    "EnvironmentProxy",
    "GivenProxy",
    "GivenTls",
    "Logs",
    "OwnTls",
    "RegistryCache",
    "RegistryCacheArgs",
    "Retention",
    "S3KeysArgs",
    "S3Storage",
    "SwarmPlacement",
    "Upstream",
    "Via",
    "VolumeStorage",
]

_MODULES = {
    ".registry_cache": ("RegistryCache",),
    ".registry_cache_args": ("ArgumentsError", "RegistryCacheArgs", "S3KeysArgs"),
    ".settings.access": ("GivenTls", "OwnTls", "Via"),
    ".settings.caches": ("Logs",),
    ".settings.placement": ("EnginePlacement", "SwarmPlacement"),
    ".settings.proxy": ("EnvironmentProxy", "GivenProxy"),
    ".settings.retention": ("Retention",),
    ".settings.storage": ("S3Storage", "VolumeStorage"),
    ".settings.upstream": ("Upstream",),
}


def __getattr__(name: str) -> Any:
    """A public name, imported only when it is used: providers start without the others."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(module, __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
