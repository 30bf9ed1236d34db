"""The registries that Talos and its workloads commonly pull from."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class KnownUpstream:
    """A well-known upstream registry.

    Attributes:
        remote_url: URL of its API, which for Docker Hub is not at its registry host.
        port: the usual host port of its cache, or None.
    """

    remote_url: str
    port: int | None = None


# Not public.ecr.aws and registry.istio.io, whose blobs distribution cannot cache (decision 42).
# Ports are those of the Talos guide (up to 1.11), which used 5001 for k8s.gcr.io and later for its
# successor; the others are this project's own.
CATALOGUE: Mapping[str, KnownUpstream] = MappingProxyType(
    {
        "docker.io": KnownUpstream("https://registry-1.docker.io", 5000),
        "registry.k8s.io": KnownUpstream("https://registry.k8s.io", 5001),
        "k8s.gcr.io": KnownUpstream("https://k8s.gcr.io", 5001),
        "quay.io": KnownUpstream("https://quay.io", 5002),
        "gcr.io": KnownUpstream("https://gcr.io", 5003),
        "ghcr.io": KnownUpstream("https://ghcr.io", 5004),
        "factory.talos.dev": KnownUpstream("https://factory.talos.dev", 5005),
        "mcr.microsoft.com": KnownUpstream("https://mcr.microsoft.com"),
        "nvcr.io": KnownUpstream("https://nvcr.io"),
        "registry.gitlab.com": KnownUpstream("https://registry.gitlab.com"),
    }
)
