"""What `pulumi up` makes of an engine that has nothing of the stack."""

import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from docker import DockerClient
from docker.models.containers import Container

from tests.integration.support import belongings, bridged_host, host, processes
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import IMAGE, Upstream

REGISTRIES = ("docker.io", "registry.example")


@pytest.fixture(scope="module")
def up(
    tmp_path_factory: pytest.TempPathFactory, engine: DockerClient, upstream: Upstream
) -> Iterator[CacheStack]:
    settings = {
        "upstreams": upstreams(upstream.url, *REGISTRIES),
        "logs": {"maxSize": "2m", "maxFiles": 4},
        "memoryLimit": "128m",
    }
    with stack(tmp_path_factory.mktemp("up"), engine, settings) as made:
        made.up()
        yield made


@pytest.fixture(scope="module")
def caches(up: CacheStack, engine: DockerClient) -> Mapping[str, Container]:
    return belongings.caches(engine, up.name)


@pytest.fixture(params=REGISTRIES)
def inspected(caches: Mapping[str, Container], request: pytest.FixtureRequest) -> dict[str, Any]:
    """What `docker inspect` says of each of the caches in turn."""
    attributes: dict[str, Any] = caches[request.param].attrs
    return attributes


def test_all_caches_are_healthy_at_the_end(caches: Mapping[str, Container]) -> None:
    assert {
        registry: belongings.health(cache) for registry, cache in caches.items()
    } == dict.fromkeys(REGISTRIES, "healthy")


def test_ports_are_published_on_loopback_and_the_gateway_alone(
    inspected: Mapping[str, Any], engine: DockerClient
) -> None:
    bindings = inspected["NetworkSettings"]["Ports"]
    published = {key: bound for key, bound in bindings.items() if bound}
    assert list(published) == ["5000/tcp"]
    assert sorted(binding["HostIp"] for binding in published["5000/tcp"]) == sorted(
        [host.LOOPBACK, host.bridge_gateway(engine)]
    )


def test_no_other_address_of_this_machine_answers(
    inspected: Mapping[str, Any], engine: DockerClient
) -> None:
    port = int(inspected["NetworkSettings"]["Ports"]["5000/tcp"][0]["HostPort"])
    answering = {address for address in host.addresses() if host.accepts(address, port)}
    assert answering == {host.LOOPBACK, host.bridge_gateway(engine)}


def test_caches_have_no_capability_and_get_none(inspected: Mapping[str, Any]) -> None:
    assert inspected["HostConfig"]["CapDrop"] == ["ALL"]
    assert not inspected["HostConfig"]["CapAdd"]
    assert not inspected["HostConfig"]["Privileged"]
    assert "no-new-privileges" in inspected["HostConfig"]["SecurityOpt"]


def test_processes_run_without_root_and_capabilities(inspected: Mapping[str, Any]) -> None:
    status = processes.run("cat", f"/proc/{inspected['State']['Pid']}/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert "0" not in fields["Uid"].split()
    assert "0" not in fields["Gid"].split()
    assert {int(fields[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {0}
    assert fields["NoNewPrivs"].strip() == "1"


def test_root_file_system_is_read_only(caches: Mapping[str, Container]) -> None:
    for cache in caches.values():
        assert cache.attrs["HostConfig"]["ReadonlyRootfs"]
        code, printed = cache.exec_run(["sh", "-c", ": > /etc/written"], user="0")
        assert code != 0
        assert b"Read-only file system" in printed


def test_credential_command_is_mounted_read_only(inspected: Mapping[str, Any]) -> None:
    writable = {mount["Destination"]: mount["RW"] for mount in inspected["Mounts"]}
    assert writable == {"/var/lib/registry": True, "/credentials": False}


def test_caches_are_restarted_always(inspected: Mapping[str, Any]) -> None:
    assert inspected["HostConfig"]["RestartPolicy"]["Name"] == "always"


def test_logs_and_memory_are_bounded_as_set(inspected: Mapping[str, Any]) -> None:
    log = inspected["HostConfig"]["LogConfig"]
    assert log == {"Type": "json-file", "Config": {"max-size": "2m", "max-file": "4"}}
    assert inspected["HostConfig"]["Memory"] == 128 * 2**20


def test_caches_have_a_network_of_their_own(up: CacheStack, inspected: Mapping[str, Any]) -> None:
    assert list(inspected["NetworkSettings"]["Networks"]) == [up.prefix]
    assert up.belongings().networks == {up.prefix}


def test_names_say_stack_and_registry(up: CacheStack) -> None:
    made = up.belongings()
    expected = {f"{up.prefix}-{name}" for name in (*REGISTRIES, "anonymous")}
    assert made.containers == expected
    assert made.volumes == expected


def test_outputs_name_each_cache(up: CacheStack, engine: DockerClient) -> None:
    outputs = up.outputs()
    caches = belongings.caches(engine, up.name)
    gateway = host.bridge_gateway(engine)
    ports = {registry: belongings.port(cache) for registry, cache in caches.items()}
    assert outputs["mirrors"] == {name: f"http://{gateway}:{port}" for name, port in ports.items()}
    assert outputs["caches"] == {
        name: {
            "endpoint": f"http://{host.LOOPBACK}:{port}",
            "name": f"{up.prefix}-{name}",
            "storage": f"{up.prefix}-{name}",
            "image": IMAGE,
        }
        for name, port in ports.items()
    }
    assert outputs["talosctlFlags"].split() == [
        word
        for name, url in outputs["mirrors"].items()
        for word in ("--registry-mirror", f"{name}={url}")
    ]


def test_nodes_on_another_network_reach_the_mirrors(up: CacheStack, engine: DockerClient) -> None:
    network = f"it-nodes-{up.name}"
    nodes = engine.networks.create(network, driver="bridge")
    try:
        for url in up.outputs()["mirrors"].values():
            # It raises where wget ends with another code than 0.
            engine.containers.run(
                IMAGE,
                entrypoint=["wget", "-q", "-O", "/dev/null", f"{url}/v2/"],
                network=network,
                remove=True,
            )
    finally:
        nodes.remove()


@pytest.mark.skipif(os.geteuid() != 0, reason="a bridge and a network namespace need root")
def test_a_virtual_machine_behind_its_own_bridge_reaches_the_mirrors(up: CacheStack) -> None:
    with bridged_host.running() as on_it:
        for url in up.outputs()["mirrors"].values():
            fetch = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=60)"
            processes.run(*on_it, sys.executable, "-c", fetch, f"{url}/v2/")


def test_up_again_changes_nothing(up: CacheStack) -> None:
    assert set(up.preview()) == {"same"}
    assert set(up.up()) == {"same"}


def test_refresh_changes_nothing_and_neither_does_the_up_after_it(up: CacheStack) -> None:
    assert set(up.refresh()) == {"same"}
    assert set(up.up()) == {"same"}
