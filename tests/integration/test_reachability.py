"""`up` and `cachectl status` notice if nodes cannot reach the caches."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from docker import DockerClient
from pulumi.automation import CommandError

from tests.integration.support import private_engine, processes
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.private_engine import PrivateEngine
from tests.integration.support.stack import CacheStack, stack, upstreams

REGISTRIES = ("docker.io", "quay.io")
NOBODY = "http://192.0.2.1:5000"
DROP = ("INPUT", "!", "--in-interface", "lo", "--jump", "DROP")


@dataclass(frozen=True, slots=True)
class Site:
    """A private engine, and a stack on it that is not up yet."""

    engine: PrivateEngine
    stack: CacheStack
    cachectl: Cachectl

    def iptables(self, *arguments: str) -> None:
        """Change the firewall of the engine's machine."""
        processes.run(*self.engine.enter, "iptables", "--wait", *arguments)


@pytest.fixture
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """A private engine with the options of the test."""
    if reason := private_engine.why_impossible():
        pytest.skip(reason)
    with running(tmp_path, getattr(request, "param", ())) as made:
        yield made


@contextmanager
def running(folder: Path, options: Sequence[str]) -> Iterator[Site]:
    with (
        private_engine.running(folder, options) as engine,
        engine.client() as client,
        declared(folder / "stacks", engine, client) as made,
    ):
        cachectl = Cachectl(made.name, folder, engine.enter, engine_host=engine.host)
        yield Site(engine, made, cachectl)


@contextmanager
def declared(folder: Path, engine: PrivateEngine, client: DockerClient) -> Iterator[CacheStack]:
    settings = {"upstreams": upstreams(NOBODY, *REGISTRIES)}
    with stack(folder, client, settings, engine_host=engine.host, enter=engine.enter) as made:
        yield made


def test_up_fails_while_a_firewall_drops_what_nodes_send_and_then_goes_on(site: Site) -> None:
    site.iptables("--insert", *DROP)
    with pytest.raises(CommandError) as failed:
        site.stack.up()

    assert "quay.io at http://172.17.0.1:" in str(failed.value)
    # Pulumi indents the lines of an error.
    assert "no answer within 5 s\n" in str(failed.value)
    assert "Likely cause: a firewall drops packets" in str(failed.value)
    assert site.stack.healthy() == {*REGISTRIES}
    status = site.cachectl("status", "--json")
    assert status.code == 3
    assert {cache["mirrorReachable"] for cache in status.result.values()} == {False}
    assert "Likely cause: a firewall drops packets" in status.err
    assert "cannot reach it" in site.cachectl("status").out

    site.iptables("--delete", *DROP)
    before = site.stack.ids()
    assert site.stack.up().get("create") == 1
    assert site.stack.ids() == before
    status = site.cachectl("status", "--json")
    assert status.code == 0
    assert {cache["mirrorReachable"] for cache in status.result.values()} == {True}
    assert "create" not in site.stack.up()


@pytest.mark.parametrize("site", [("--userland-proxy=false",)], indirect=True)
def test_up_fails_if_the_engine_isolates_the_nodes_from_the_caches(site: Site) -> None:
    with pytest.raises(CommandError, match="`userland-proxy: false`"):
        site.stack.up()

    assert site.cachectl("status").code == 3
