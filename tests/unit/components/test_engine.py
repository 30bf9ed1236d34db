import asyncio
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pulumi
import pytest
from docker.errors import DockerException

from components import dynamic_provider, engine, hooks
from components.dynamic_provider import EngineError
from components.engine import (
    EngineContainer,
    EngineNetwork,
    TakenError,
)
from components.hooks import NetworkHooks
from talos_registry_cache.engine import labels, ports
from tests.unit.components import stack_graph
from tests.unit.components.fake_engine import FakeEngine

OWN = "dev"
STRANGER = "other"
NOT_OURS = "192.0.2.1"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    return FakeEngine().serve(monkeypatch)


@contextmanager
def listening(address: str = "127.0.0.1") -> Iterator[int]:
    """A port of this machine with a listener."""
    with socket.socket() as server:
        server.bind((address, 0))
        server.listen()
        yield server.getsockname()[1]


def free_port() -> int:
    with listening() as port:
        return port


def hook_arguments(**inputs: Any) -> pulumi.ResourceHookArgs:
    own = [{"label": labels.STACK, "value": OWN}]
    return pulumi.ResourceHookArgs(
        urn="", id="", name="cache-resource", type="", new_inputs={"labels": own, **inputs}
    )


Hook = Callable[[pulumi.ResourceHookArgs], Coroutine[Any, Any, None]]


def before(hook: Hook, name: str, **inputs: Any) -> None:
    asyncio.run(hook(hook_arguments(name=name, **inputs)))


def published(port: int, address: str = "127.0.0.1") -> list[dict[str, Any]]:
    # Pulumi sends numbers as floats.
    return [{"ip": address, "external": float(port), "internal": 5000.0}]


# Discovery


IN_A_VIRTUAL_MACHINE = "host.docker.internal"


@pytest.mark.parametrize(
    ("bridge", "host"),
    [
        ([{"Subnet": "127.0.0.0/8", "Gateway": "127.0.0.7"}], "127.0.0.7"),
        ([{"Subnet": "127.0.0.0/16"}], "127.0.0.1"),
        ([{"Subnet": "fd00::/64", "Gateway": "fd00::1"}, {"Subnet": "127.0.0.0/8"}], "127.0.0.1"),
        ([{"Subnet": "192.0.2.0/24", "Gateway": NOT_OURS}], IN_A_VIRTUAL_MACHINE),
        ([{"Subnet": "192.0.2.0/24"}], IN_A_VIRTUAL_MACHINE),
        ([{"Subnet": "fd00::/64"}], IN_A_VIRTUAL_MACHINE),
        ([], IN_A_VIRTUAL_MACHINE),
        (None, IN_A_VIRTUAL_MACHINE),
    ],
)
def test_nodes_reach_this_machine_at_the_bridge_s_ipv4_gateway(
    fake: FakeEngine, bridge: list[dict[str, str]] | None, host: str
) -> None:
    fake.bridge = bridge

    assert engine.discover(OWN).mirror_host == host


def test_discovery_finds_the_published_addresses_in_the_engine_s_order(fake: FakeEngine) -> None:
    fake.add_container(
        "one",
        OWN,
        published=[("172.17.0.1", 5000), ("127.0.0.1", 5000)],
        networks=["caches"],
        volumes=["cached"],
    )
    fake.add_container("two", OWN, published=[("127.0.0.1", 5001)])
    fake.add_container("idle", OWN, running=False)
    fake.add_container("", OWN)  # as one that is being removed
    fake.volumes_here = {"cached": {labels.STACK: OWN}, "other": None}
    fake.add_container("not-ours", STRANGER, published=[("127.0.0.1", 5002)])

    facts = engine.discover(OWN)

    own = {labels.STACK: OWN}
    assert facts.stack == OWN
    assert facts.published == {
        "one": ["172.17.0.1", "127.0.0.1"],
        "two": ["127.0.0.1"],
        "idle": [],
    }
    assert facts.containers == {
        "one": EngineContainer("running", own, ["id-of-caches"], ["cached"]),
        "two": EngineContainer("running", own, [], []),
        "idle": EngineContainer("exited", own, [], []),
    }
    assert facts.volumes == {"cached": own, "other": {}}
    assert engine.discover(STRANGER).containers.keys() == {"not-ours"}


def test_discovery_finds_networks_with_their_labels_and_ipv4_subnets(fake: FakeEngine) -> None:
    fake.bridge = [{"Subnet": "fd00::/64"}, {"Subnet": "127.0.0.0/8"}]
    fake.add_network("caches", OWN, subnets=["10.5.0.0/24"])
    fake.add_network("host")

    assert engine.discover(OWN).networks == {
        "bridge": EngineNetwork("id-of-bridge", ["127.0.0.0/8"]),
        "caches": EngineNetwork("id-of-caches", ["10.5.0.0/24"], {labels.STACK: OWN}),
        "host": EngineNetwork("id-of-host", []),
    }


def test_each_run_queries_the_engine_once_and_has_its_own_generation(fake: FakeEngine) -> None:
    first, again = engine.discover(OWN), engine.discover(OWN)
    engine.discover.cache_clear()

    assert again is first
    assert first.generation
    assert engine.discover(OWN).generation != first.generation
    assert fake.containers_here == []


def test_a_simulated_run_has_no_generation(
    fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(dynamic_provider.SIMULATE, "1")

    assert engine.discover(OWN).generation == ""
    assert fake.containers_here == []


def test_an_engine_that_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise DockerException("connection refused")

    monkeypatch.setattr(engine, "client", refuse)

    with pytest.raises(EngineError, match="the container engine does not answer: connection"):
        engine.discover(OWN)


def test_the_engine_is_the_one_that_the_docker_provider_uses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str | None] = []
    monkeypatch.setattr(dynamic_provider, "connect", asked.append)
    for config in ({"docker:host": "tcp://192.0.2.1:2375"}, {}):
        # Uncached, so that other tests get their own client.
        stack_graph.run(engine.client.__wrapped__, config=config)

    assert asked == ["tcp://192.0.2.1:2375", None]


@pytest.mark.parametrize("host", ["tcp://192.0.2.1:2376", None])
def test_an_engine_on_another_machine_is_refused_before_it_is_asked(
    monkeypatch: pytest.MonkeyPatch, host: str | None
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://me@192.0.2.1")
    monkeypatch.delattr(dynamic_provider, "DockerClient")

    with pytest.raises(EngineError, match=r"192\.0\.2\.1.*, which is on another machine"):
        dynamic_provider.connect(host)


def test_podman_is_refused(fake: FakeEngine) -> None:
    fake.product = "Podman Engine"

    with pytest.raises(EngineError, match=r"found Podman 4\.3\.1 .*; allowed: Docker Engine"):
        engine.discover(OWN)


@pytest.mark.parametrize("is_rootless", [True, False])
def test_discovery_tells_whether_the_engine_is_rootless(
    fake: FakeEngine, *, is_rootless: bool
) -> None:
    fake.security_options = [*fake.security_options, *(["name=rootless"] if is_rootless else [])]

    assert engine.discover(OWN).is_rootless is is_rootless


# Before a container is created


def test_a_container_left_by_a_killed_run_is_removed(fake: FakeEngine) -> None:
    fake.add_container("cache", OWN)
    fake.add_container("stopped", OWN, running=False)

    before(hooks.make_way, "cache")
    before(hooks.make_way, "stopped")

    assert fake.containers_here == []


@pytest.mark.parametrize("owner", [STRANGER, None])
def test_the_container_of_someone_else_is_kept_and_reported(
    fake: FakeEngine, owner: str | None
) -> None:
    stranger = fake.add_container("cache", owner)

    with pytest.raises(TakenError, match="the container name cache is taken") as taken:
        before(hooks.make_way, "cache")

    assert "docker container rm cache" in str(taken.value)
    assert "caches.namePrefix" in str(taken.value)
    assert fake.containers_here == [stranger]


@pytest.mark.parametrize("other", ["registry-a-io", "registry-a.io-2", "my-registry-a.io"])
@pytest.mark.parametrize("owner", [OWN, STRANGER])
def test_containers_with_similar_names_are_kept(fake: FakeEngine, other: str, owner: str) -> None:
    similar = fake.add_container(other, owner)

    before(hooks.make_way, "registry-a.io")

    assert fake.containers_here == [similar]


def test_a_port_conflict_names_the_other_container(fake: FakeEngine) -> None:
    with listening() as port:
        fake.add_container("their-registry", published=[("127.0.0.1", port)])
        fake.add_container("their-database", published=[("127.0.0.1", port + 1)])

        with pytest.raises(TakenError) as taken:
            before(hooks.make_way, "cache", ports=published(port))

    assert str(taken.value) == (
        f"cache-resource: port {port} on 127.0.0.1 is taken by the container their-registry; "
        "free it, or set another port in caches.upstreams, caches.wildcard or caches.local"
    )


@pytest.mark.parametrize(
    ("is_starting", "address", "owner"),
    [
        (True, "127.0.0.1", "the container other"),
        (False, "127.0.0.1", "a process"),
        (False, "0.0.0.0", "a process"),
    ],
    ids=["starting container", "process", "process on all addresses"],
)
def test_a_taken_port_is_reported_with_its_owner(
    fake: FakeEngine, address: str, owner: str, *, is_starting: bool
) -> None:
    with listening(address) as port:
        on = [("127.0.0.1", port)] * is_starting
        fake.add_container("other", published=on, running=not is_starting)

        with pytest.raises(TakenError, match=rf"port {port} on 127\.0\.0\.1 is taken by {owner}"):
            before(hooks.make_way, "cache", ports=published(port))


def test_free_ports_and_ports_of_another_machine_are_accepted(fake: FakeEngine) -> None:
    with listening() as port:
        ports = published(port, NOT_OURS)
        before(hooks.make_way, "cache", ports=[*ports, *published(free_port())])

    assert fake.containers_here == []


def test_a_port_conflict_with_a_container_on_the_host_network_names_it(
    fake: FakeEngine,
) -> None:
    fake.add_container("other", network_mode="host", processes=[1 << 30])
    fake.add_container("shares-nothing", processes=[os.getpid()])
    fake.add_container("theirs", network_mode="host", processes=[1 << 30, os.getpid()])
    with (
        listening() as port,
        pytest.raises(TakenError, match="is taken by the container theirs;"),
    ):
        before(hooks.make_way, "cache", ports=published(port))


def test_every_published_address_is_checked(fake: FakeEngine) -> None:
    fake.add_container("idle")
    with listening("127.0.0.2") as port:
        ports = published(port) + published(port, "127.0.0.2")

        with pytest.raises(TakenError, match=r"on 127\.0\.0\.2 is taken"):
            before(hooks.make_way, "cache", ports=ports)


def test_a_leftover_container_is_removed_before_its_port_is_checked(
    fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.add_container("cache", OWN, published=[("127.0.0.1", 5000)])
    monkeypatch.setattr(ports, "can_bind", lambda *_: not fake.containers_here)
    monkeypatch.setattr(ports, "is_own_address", lambda _: True)

    before(hooks.make_way, "cache", ports=published(5000))


def test_a_name_conflict_is_reported_after_the_other_caches_could_start(
    fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "OTHERS_BEGIN_WITHIN_S", 0)
    fake.add_container("cache")
    monkeypatch.setattr(pulumi.runtime, "is_dry_run", lambda: False)

    async def refuse_beside_another() -> bool:
        created = asyncio.get_running_loop().create_future()
        other: Any = SimpleNamespace(id=pulumi.Output.from_input(created))
        hooks.expect("other", other)
        refusing = asyncio.ensure_future(hooks.make_way(hook_arguments(name="cache")))
        await asyncio.sleep(5 * hooks.NETWORK_POLL_S)
        was_early = refusing.done()
        created.set_result("an ID")
        with pytest.raises(TakenError):
            await refusing
        return was_early

    assert asyncio.run(refuse_beside_another()) is False


def test_hooks_run_while_the_default_thread_pool_is_busy(fake: FakeEngine) -> None:
    fake.add_container("cache", OWN)
    release = threading.Event()

    async def with_all_threads_taken() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(max_workers=1))
        taken = loop.run_in_executor(None, release.wait)
        try:
            async with asyncio.timeout(60):
                await hooks.make_way(hook_arguments(name="cache"))
        finally:
            release.set()
            await taken

    asyncio.run(with_all_threads_taken())

    assert fake.containers_here == []


# Networks


async def _waits(waiting: "asyncio.Future[Any]") -> bool:
    """Whether a future is still pending after several polls."""
    await asyncio.sleep(3 * hooks.NETWORK_POLL_S)
    return not waiting.done()


def test_containers_wait_only_until_the_engine_has_their_network(
    fake: FakeEngine,
) -> None:
    async def make_network_meanwhile() -> list[bool]:
        network = NetworkHooks("caches")
        waiting = asyncio.gather(
            *(network.before_container(hook_arguments(name=f"cache-{n}")) for n in range(50))
        )
        waited = [await _waits(waiting)]
        await network.before_network(hook_arguments(name="caches"))
        fake.add_network("my-caches", OWN)
        waited.append(await _waits(waiting))
        fake.add_network("caches", OWN)
        async with asyncio.timeout(5):
            await waiting
        return waited

    assert asyncio.run(make_network_meanwhile()) == [True, True]


def test_containers_do_not_join_a_network_that_may_be_replaced(fake: FakeEngine) -> None:
    fake.add_network("caches", OWN)

    async def nothing_of_it_is_known_yet() -> bool:
        waiting = asyncio.ensure_future(
            NetworkHooks("caches").before_container(hook_arguments(name="cache"))
        )
        waits = await _waits(waiting)
        waiting.cancel()
        return waits

    assert asyncio.run(nothing_of_it_is_known_yet())


def test_containers_do_not_wait_for_a_network_in_the_state(fake: FakeEngine) -> None:
    network = NetworkHooks("caches")

    class Network(pulumi.CustomResource):
        def __init__(self) -> None:
            super().__init__("docker:index/network:Network", "network", {"name": "caches"})

    async def wait() -> None:
        async with asyncio.timeout(5):
            await network.before_container(hook_arguments(name="cache"))

    stack_graph.run(lambda: network.watch(Network()))

    asyncio.run(wait())
    assert fake.networks_here == []


def test_waiting_for_a_network_times_out(fake: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "NETWORK_WITHIN_S", 0.05)

    with pytest.raises(EngineError, match=r"the network caches was not created within 0\.05 s"):
        before(NetworkHooks("caches").before_container, "cache")
    assert fake.networks_here == []


def test_containers_fail_if_their_network_was_refused(fake: FakeEngine) -> None:
    fake.add_network("caches", STRANGER)
    network = NetworkHooks("caches")
    with pytest.raises(TakenError):
        before(network.before_network, "caches")

    with pytest.raises(EngineError, match=r"the network caches was not created$"):
        before(network.before_container, "cache")


def test_a_leftover_network_is_replaced_and_its_containers_reconnected(
    fake: FakeEngine,
) -> None:
    stays, goes = fake.add_container("stays", OWN), fake.add_container("goes", OWN)
    left = fake.add_network("caches", OWN, containers=[stays.id, goes.id])
    network = NetworkHooks("caches")

    before(network.before_network, "caches")
    assert left not in fake.networks_here
    fake.containers_here.remove(goes)
    new = fake.add_network("caches", OWN)
    made = hook_arguments(name="caches")
    made.id = "id-of-caches"
    asyncio.run(network.after_network(made))

    assert new.containers == [stays.id]


def test_a_swarm_network_in_use_is_kept_and_reported(fake: FakeEngine) -> None:
    there = fake.add_network("caches", OWN, driver="overlay", containers=["of-another-node"])

    with pytest.raises(TakenError, match=r"the network caches is in use.* has active endpoints"):
        before(NetworkHooks("caches").before_network, "caches")

    assert fake.networks_here == [there]


@pytest.mark.parametrize("owner", [STRANGER, None])
def test_the_network_of_someone_else_is_kept_and_reported(
    fake: FakeEngine, owner: str | None
) -> None:
    stranger = fake.add_network("caches", owner)

    with pytest.raises(TakenError, match=r"the network name caches is taken.*docker network rm"):
        before(NetworkHooks("caches").before_network, "caches")

    assert fake.networks_here == [stranger]


@pytest.mark.parametrize("other", ["my-a.b", "a-b", "a.b-2"])
def test_networks_with_similar_names_are_kept(fake: FakeEngine, other: str) -> None:
    similar = fake.add_network(other, OWN)

    before(NetworkHooks("a.b").before_network, "a.b")

    assert fake.networks_here == [similar]
