"""Declares the caches of a stack file, and finds their parts."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pulumi
import pytest

from components import engine, settings
from components.engine import EngineFacts
from components.registry_cache import RegistryCache
from components.registry_cache_args import RegistryCacheArgs
from components.settings import StackSettings
from tests.unit.components import stack_graph
from tests.unit.components.fake_engine import FakeEngine
from tests.unit.components.parsed_settings import caches_of
from tests.unit.components.stack_graph import CONTAINER, Graph

GATEWAY = "172.17.0.1"

S3_KEYS = {"accessKey": "an-access-key", "secretKey": "a-secret-key"}
ON_SWARM: Mapping[str, Any] = {
    "upstreams": {"docker.io": None, "quay.io": None},
    "placement": {"kind": "swarm"},
    "storage": {"kind": "s3", "bucket": "caches"},
    "mirrorHost": "caches.test",
    "publishOn": ["0.0.0.0"],
}


def cache_of(parsed: StackSettings) -> RegistryCache:
    """The component for a stack file; call it within a program."""
    return RegistryCache(
        "caches", RegistryCacheArgs(**dict(caches_of(parsed)), **dict(parsed.secrets))
    )


@contextmanager
def engine_with(facts: EngineFacts) -> Iterator[FakeEngine]:
    """An engine whose discovery returns these facts."""
    with pytest.MonkeyPatch.context() as patched:
        fake = FakeEngine().serve(patched)
        patched.setattr(engine, "discover", lambda _: facts)
        yield fake


def declare(
    caches: Mapping[str, Any],
    *,
    secrets: Mapping[str, Any] | None = None,
    facts: EngineFacts | None = None,
    stack: str = "dev",
    preview: bool = False,
) -> Graph:
    """Declare caches; the services of a Swarm run as soon as they are made."""
    parsed = settings.parse(stack, {"caches": caches, **(secrets or {})})

    def program() -> None:
        cache = cache_of(parsed)
        pulumi.export("caches", cache.caches)
        for name, value in cache.trust.inputs().items():
            pulumi.export(name, value)

    with engine_with(facts or EngineFacts(GATEWAY, {})) as fake:
        for host in caches_of(parsed).upstreams:
            for part in ("service", "registry"):
                made = stack_graph.service_id(f"{host}-{part}")
                fake.add_service(f"{host}-{part}", stack, ident=made).add_task()
        return stack_graph.run(program, stack=stack, preview=preview)


def on_swarm(*, preview: bool = False, **changed: Any) -> Graph:
    """Declare caches of a Swarm, over an object store unless another storage is asked for."""
    caches = {**ON_SWARM, **changed}
    secrets = {"s3Keys": S3_KEYS} if caches["storage"].get("kind") == "s3" else {}
    return declare(caches, secrets=secrets, preview=preview)


def environment(graph: Graph, host: str = "quay.io") -> dict[str, str]:
    """The environment of a cache's registry."""
    envs = graph.one(CONTAINER, f"{host}-registry").inputs["envs"]
    return dict(variable.split("=", 1) for variable in envs)


def files(graph: Graph, name: str = "anonymous") -> dict[str, Any]:
    """The contents of private files, by name."""
    uploads = graph.one(CONTAINER, f"{name}-writer").inputs["uploads"]
    return {one["file"].removeprefix("/credentials/"): one["content"] for one in uploads}
