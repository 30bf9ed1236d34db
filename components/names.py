"""The names that caches have on an engine and on a Swarm."""

import re


def of_caches(name_prefix: str | None, stack: str) -> str:
    """What the names of a stack's caches begin with."""
    return name_prefix or f"registry-{stack}"


def service_name(container: str) -> str:
    """The name that a container would have, as one label of a DNS name: what a Swarm allows."""
    return re.sub(r"[._]", "-", container)


def in_names(host: str) -> str:
    """A registry host in a name of the engine's, where a colon is not allowed."""
    return host.replace(":", "_")
