"""Labels of a stack's resources on the engine."""

from collections.abc import Mapping
from typing import Any

PROJECT = "talos-registry-cache"
STACK = f"{PROJECT}.stack"
UPSTREAM = f"{PROJECT}.upstream"
CA = f"{PROJECT}.ca"
"""The CA certificate (PEM) that clients of a cache trust; absent without TLS."""
AUTHORITIES = f"{PROJECT}.authorities"
"""On a registry: CAs (PEM) that it trusts for its upstream, in addition to those in its image."""
MIRROR = f"{PROJECT}.mirror"
"""The URL at which clients reach a cache, on whichever node it runs."""
REGISTRY = f"{PROJECT}.registry"
"""On a front: the name of the container that runs the registry behind it."""
LOCAL = f"{PROJECT}.local"
"""On the front of the local registry: the URL at which this machine pushes."""
WILDCARD = f"{PROJECT}.wildcard"
"""On the wildcard mirror: its URL for nodes."""

STATE = f"{PROJECT}.state"
"""Where Pulumi keeps the state of the stack; see `components.state_owner`."""
GENERATION = f"{PROJECT}.generation"
"""The `up` that created the resource; another value replaces it."""

FILES = f"{PROJECT}.files"
"""A digest of the private files that a registry reads only when it starts."""


def of_stack(stack: str) -> Mapping[str, str]:
    """The labels of every resource of a stack."""
    return {STACK: stack}


def of_upstream(stack: str, host: str) -> Mapping[str, str]:
    """The labels of the resources of one upstream."""
    return {STACK: stack, UPSTREAM: host}


def inputs(labels: Mapping[str, Any]) -> list[Any]:
    """Labels as the resources of pulumi-docker take them."""
    return [{"label": label, "value": value} for label, value in labels.items()]
