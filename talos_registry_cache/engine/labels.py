"""The labels by which everything of a stack is found on the engine."""

from collections.abc import Mapping
from typing import Any

PROJECT = "talos-registry-cache"
STACK = f"{PROJECT}.stack"
UPSTREAM = f"{PROJECT}.upstream"
CA = f"{PROJECT}.ca"
"""The certificate of the authority that clients trust, PEM; a cache without TLS has none."""
MIRROR = f"{PROJECT}.mirror"
"""The URL at which clients reach a cache, whichever of its nodes answers."""

STATE = f"{PROJECT}.state"
"""Where Pulumi keeps the state that something was made from; see `owner`."""
GENERATION = f"{PROJECT}.generation"
"""Which `up` has made something; another value replaces it."""

FILES = f"{PROJECT}.files"
"""A digest of the private files that a registry reads when it starts only."""


def of_stack(stack: str) -> Mapping[str, str]:
    """The labels that all resources of a stack carry."""
    return {STACK: stack}


def of_upstream(stack: str, host: str) -> Mapping[str, str]:
    """The labels that the resources of one upstream carry."""
    return {STACK: stack, UPSTREAM: host}


def inputs(labels: Mapping[str, Any]) -> list[Any]:
    """Labels in the form in which every resource of pulumi-docker takes its own type of them."""
    return [{"label": label, "value": value} for label, value in labels.items()]
