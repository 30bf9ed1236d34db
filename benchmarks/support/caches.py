"""The caches that are compared: the guide's, and this project's with and without an image set."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.support.image_set import REGISTRIES
from benchmarks.support.pulumi_stack import Config, Stack
from benchmarks.support.site import Site
from benchmarks.support.upstream import wait_for

GUIDE, UNDECLARED, OURS = WAYS = (
    "the guide's way",
    "this project, undeclared",
    "this project, declared",
)

Endpoints = Mapping[str, str]
"""The URL of each registry's cache, by the registry's host."""


@contextmanager
def guide(site: Site, upstream: str) -> Iterator[Endpoints]:
    """The guide's caches: one `docker run` for each registry, with the upstream's URL only."""
    ports = dict(zip(REGISTRIES, site.free_ports(len(REGISTRIES)), strict=True))
    endpoints = {host: f"http://{site.address}:{port}" for host, port in ports.items()}
    with site.scope() as scope:
        for host, port in ports.items():
            container = scope.run(
                host,
                {5000: port},
                environment={"REGISTRY_PROXY_REMOTEURL": upstream},
                restart_policy={"Name": "always"},
            )
            wait_for(endpoints[host], container)
        yield endpoints


@dataclass(frozen=True, slots=True)
class Project:
    """This project's caches: a stack of its Pulumi program.

    Attributes:
        stack: the stack.
        settings: its settings, without images.
    """

    stack: Stack
    settings: Config

    def up(self, images: Sequence[str]) -> Endpoints:
        """Create the caches and warm them with images."""
        declared = {"images": {"references": list(images)}} if images else {}
        self.stack.configure({**self.settings, **declared})
        self.stack.up()
        return self.endpoints()

    def endpoints(self) -> Endpoints:
        """The URLs of the caches, which are up."""
        return dict(self.stack.outputs()["mirrors"])


@contextmanager
def project(site: Site, upstream: str) -> Iterator[Project]:
    """A stack of this project that is not up yet."""
    ports = dict(zip(REGISTRIES, site.free_ports(len(REGISTRIES)), strict=True))
    upstreams = {host: {"port": port, "remoteUrl": upstream} for host, port in ports.items()}
    settings = {"caches": {"upstreams": upstreams, "storage": {"onDestroy": "delete"}}}
    with tempfile.TemporaryDirectory() as folder, site.stack_name() as name:
        stack = Stack(name, Path(folder) / "stack")
        stack.prepare(settings)
        yield Project(stack, settings)
