"""Names of caches on an engine and on a Swarm."""

import re


def of_caches(name_prefix: str | None, stack: str) -> str:
    """The prefix of the names of a stack's caches."""
    return name_prefix or f"registry-{stack}"


def registry_name(container: str) -> str:
    """The name of the registry's container behind the front of this name."""
    return f"{container}-registry"


def shared_volume_name(container: str) -> str:
    """The name of the volume that a front of this name shares with its registry."""
    return f"{container}-front"


def service_name(container: str) -> str:
    """The name of a container as a DNS label, which is what a Swarm allows."""
    return re.sub(r"[._]", "-", container)


def in_names(host: str) -> str:
    """A registry host for a name on an engine, which has no colon."""
    return host.replace(":", "_")
