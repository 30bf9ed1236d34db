"""The caches serve again after a restart of the engine, without their upstream."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.integration.support import belongings, docker_cli, host, private_engine
from tests.integration.support.polling import eventually
from tests.integration.support.private_engine import PrivateEngine
from tests.integration.support.stack import stack, upstreams
from tests.integration.support.upstream import Pushed

REGISTRIES = ("docker.io", "registry.example")
HEALTHY_WITHIN_S = 90

RESTARTS: dict[str, Callable[[PrivateEngine], None]] = {
    "stopped": PrivateEngine.stop,
    "killed": PrivateEngine.kill,
}


@dataclass(frozen=True, slots=True)
class Site:
    """A private engine with the caches of a stack, and a cached image."""

    engine: PrivateEngine
    stack_name: str
    endpoints: list[str]
    image: Pushed


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A stack on a private engine; its upstream was removed."""
    if reason := private_engine.why_impossible():
        pytest.skip(reason)
    with (
        private_engine.running(tmp_path_factory.mktemp("engine")) as engine,
        engine.client() as client,
    ):
        gateway, port = host.bridge_gateway(client), host.free_port()
        settings = {
            "mirrorHost": gateway,
            "upstreams": upstreams(f"http://{gateway}:{port}", *REGISTRIES),
        }
        folder = tmp_path_factory.mktemp("site")
        with stack(folder, client, settings, engine_host=engine.host) as made:
            with engine.upstream(port) as image:
                made.up()
                caches = made.outputs()["caches"]
                endpoints = [cache["endpoint"] for cache in caches.values()]
                for endpoint in endpoints:
                    docker_cli.pull(endpoint, image, engine_host=engine.host)
            yield Site(engine, made.name, endpoints, image)


@pytest.mark.parametrize("how", RESTARTS)
def test_caches_serve_after_the_engine_was_restarted(how: str, site: Site) -> None:
    RESTARTS[how](site.engine)
    site.engine.start()
    eventually(
        lambda: _healthy(site) == set(REGISTRIES),
        within_s=HEALTHY_WITHIN_S,
        what="the caches are healthy again",
    )
    for endpoint in site.endpoints:
        pulled = docker_cli.pull(endpoint, site.image, engine_host=site.engine.host)
        assert pulled == site.image.digest


def _healthy(site: Site) -> set[str]:
    with site.engine.client() as client:
        return {
            registry
            for registry, cache in belongings.caches(client, site.stack_name).items()
            if belongings.health(cache) == "healthy"
        }
