"""What `pulumi up` creates on an engine that has nothing of the stack."""

import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from components import front
from tests.integration.support import belongings, host, network, processes
from tests.integration.support.network import PREFIX
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


@pytest.fixture(params=["front", "registry"])
def inspected(
    up: CacheStack, engine: DockerClient, request: pytest.FixtureRequest
) -> dict[str, Any]:
    """The result of `docker inspect` for each container of a cache in turn."""
    found = belongings.caches if request.param == "front" else belongings.registries
    attributes: dict[str, Any] = found(engine, up.name)[REGISTRIES[0]].attrs
    return attributes


def test_only_fronts_listen_and_only_on_loopback_and_the_gateway(
    up: CacheStack, engine: DockerClient
) -> None:
    behind = belongings.registries(engine, up.name)[REGISTRIES[0]]
    assert not any(behind.attrs["NetworkSettings"]["Ports"].values())
    inspected = belongings.caches(engine, up.name)[REGISTRIES[0]].attrs
    bindings = inspected["NetworkSettings"]["Ports"]
    published = {key: bound for key, bound in bindings.items() if bound}
    assert list(published) == ["5000/tcp"]
    port = int(published["5000/tcp"][0]["HostPort"])
    answering = {address for address in host.addresses() if host.accepts(address, port)}
    assert answering == {host.LOOPBACK, host.bridge_gateway(engine)}


def test_caches_run_without_root_and_capabilities(inspected: dict[str, Any]) -> None:
    status = processes.run("cat", f"/proc/{inspected['State']['Pid']}/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert "0" not in fields["Uid"].split()
    assert "0" not in fields["Gid"].split()
    assert {int(fields[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {0}
    assert fields["NoNewPrivs"].strip() == "1"
    assert not inspected["HostConfig"]["Privileged"]


def test_a_cache_writes_to_its_storage_alone(up: CacheStack, engine: DockerClient) -> None:
    for found in (belongings.caches, belongings.registries):
        container = found(engine, up.name)[REGISTRIES[0]]
        writable = {mount["Destination"]: mount["RW"] for mount in container.attrs["Mounts"]}
        assert writable == {
            "/var/lib/registry": True,
            front.SHARED_FOLDER: True,
            "/credentials": False,
        }
        code, printed = container.exec_run(["sh", "-c", ": > /etc/written"], user="0")
        assert code != 0
        assert b"Read-only file system" in printed


def test_the_engine_applies_limits_network_and_restart_policy(
    up: CacheStack, inspected: dict[str, Any]
) -> None:
    config = inspected["HostConfig"]
    log = {"Type": "json-file", "Config": {"max-size": "2m", "max-file": "4"}}
    assert (config["LogConfig"], config["Memory"]) == (log, 128 * 2**20)
    assert config["RestartPolicy"]["Name"] == "always"
    assert list(inspected["NetworkSettings"]["Networks"]) == [up.prefix]


def test_all_caches_are_healthy_and_named_in_the_outputs(
    up: CacheStack, engine: DockerClient
) -> None:
    outputs = up.outputs()
    gateway = host.bridge_gateway(engine)
    caches = belongings.caches(engine, up.name)
    ports = {registry: belongings.port(cache) for registry, cache in caches.items()}
    assert up.healthy() == set(REGISTRIES)
    assert up.belongings() == belongings.expected(up.prefix, *REGISTRIES)
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


def test_containers_on_another_network_reach_the_mirrors(
    up: CacheStack, engine: DockerClient
) -> None:
    nodes = engine.networks.create(f"it-nodes-{up.name}", driver="bridge")
    try:
        for url in up.outputs()["mirrors"].values():
            # Raises an error if wget fails.
            engine.containers.run(
                IMAGE,
                entrypoint=["wget", "-q", "-O", "/dev/null", f"{url}/v2/"],
                network=nodes.name,
                remove=True,
            )
    finally:
        nodes.remove()


@pytest.mark.skipif(os.geteuid() != 0, reason="a bridge and a network namespace need root")
def test_a_virtual_machine_behind_its_own_bridge_reaches_the_mirrors(up: CacheStack) -> None:
    """As talosctl sets up virtual machines."""
    name = secrets.token_hex(4)
    bridge, outer, subnet = f"itb{name}", f"itv{name}", network.free_subnet()
    with network.namespace(f"it-{name}") as machine:
        inside = ("-netns", machine)
        try:
            for line in (
                ("link", "add", bridge, "type", "bridge"),
                ("address", "add", f"{subnet}.1/{PREFIX}", "dev", bridge),
                ("link", "set", bridge, "up"),
                ("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", machine),
                ("link", "set", outer, "master", bridge, "up"),
                (*inside, "address", "add", f"{subnet}.2/{PREFIX}", "dev", "eth0"),
                (*inside, "link", "set", "eth0", "up"),
                (*inside, "route", "add", "default", "via", f"{subnet}.1"),
            ):
                processes.run("ip", *line)
            for url in up.outputs()["mirrors"].values():
                fetch = "import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=60)"
                enter = network.enter(machine)
                processes.run(*enter, sys.executable, "-c", fetch, f"{url}/v2/")
        finally:
            processes.finish(["ip", "link", "delete", bridge], within_s=10)


def test_another_up_and_a_refresh_change_nothing(up: CacheStack) -> None:
    assert set(up.preview()) == {"same"}
    assert set(up.up()) == {"same"}
    assert set(up.refresh()) == {"same"}
    assert set(up.up()) == {"same"}


def test_caches_come_up_if_pulumi_works_on_one_resource_at_a_time(
    tmp_path: Path, engine: DockerClient, upstream: Upstream
) -> None:
    settings = {"upstreams": upstreams(upstream.url, "docker.io", "quay.io")}
    with stack(tmp_path, engine, settings) as made:
        made.pulumi("up", "--yes", "--skip-preview", "--parallel", "1")

        assert made.healthy() == {"docker.io", "quay.io"}
