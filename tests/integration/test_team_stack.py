"""The stack of a team: services of a Swarm over one object store."""

import functools
import json

import httpx2
import pytest

from tests.integration.support import images, processes, swarm_belongings, team
from tests.integration.support.polling import eventually
from tests.integration.support.swarm import Host
from tests.integration.support.team import READER, Team
from tests.integration.support.upstream import IMAGE

BLOBS = 1 + len(images.LAYER_SIZES)


@pytest.mark.modern_engine
def test_each_node_runs_the_cache_and_another_up_changes_nothing(ours: Team) -> None:
    assert set(ours.stack.preview()) == {"same"}
    assert set(ours.stack.refresh()) == {"same"}
    assert set(ours.stack.up()) == {"same"}
    for service in (ours.fronts, ours.registries):
        nodes = ours.docker("service", "ps", service, "--format", "{{.Node}} {{.CurrentState}}")
        assert sorted(line.split()[0] for line in nodes.splitlines()) == [
            host.name for host in ours.bed.hosts
        ]
        assert nodes.count("Running") == len(ours.bed.hosts)


def test_the_registries_can_be_reached_through_their_fronts_only(ours: Team) -> None:
    manager = ours.bed.manager.engine.host
    (registry,) = ours.containers(ours.bed.manager, ours.registries)
    shared = ["--network", f"container:{registry}", "--entrypoint", "/bin/sh"]

    listening = processes.run(
        "docker", "--host", manager, "run", "--rm", *shared, IMAGE, "-c",
        "busybox netstat -ltn",
    )  # fmt: skip

    # 5001 has the metrics. A line of a Swarm's DNS may be there as well, on loopback.
    ports = [line.split()[3] for line in listening.splitlines() if "LISTEN" in line]
    assert [port for port in ports if not port.startswith("127.")] == [":::5001"]
    assert "Ports" not in ours.service()["Endpoint"]["Spec"]


@pytest.mark.modern_engine
def test_a_blob_that_one_node_has_fetched_is_not_fetched_by_another(
    ours: Team,
) -> None:
    image = ours.bed.upstream.push_index()
    first, last = ours.bed.hosts[0], ours.bed.hosts[-1]
    before = len(ours.gate.blobs_served())

    cold = ours.pull(first, image)
    once = len(ours.gate.blobs_served()) - before
    ours.settled(cold)
    warm = ours.pull(last, image)

    assert cold == warm
    assert cold.digest == image.digest
    assert once == BLOBS
    assert len(ours.gate.blobs_served()) - before == BLOBS


@pytest.mark.modern_engine
def test_only_readers_with_the_ca_have_access(ours: Team) -> None:
    url = f"{team.endpoint(ours.bed.manager)}/v2/"
    with pytest.raises(httpx2.ConnectError, match="certificate verify failed"):
        httpx2.get(url, trust_env=False)
    with ours.client() as http:
        assert http.get(url).status_code == 200
        assert http.get(url, auth=None).status_code == 401
        assert http.get(url, auth=(READER, "wrong")).status_code == 401
        assert http.get(url, auth=("stranger", ours.password)).status_code == 401
    with pytest.raises(httpx2.HTTPError):
        httpx2.get(url.replace("https", "http"), trust_env=False).raise_for_status()


def test_swarm_and_state_show_no_secret(ours: Team) -> None:
    wanted = [
        ours.password,
        ours.bed.store.secret_key,
        ours.bed.store.access_key,
        "PRIVATE KEY",
    ]
    shown = [
        json.dumps(ours.service(ours.fronts)),
        json.dumps(ours.service(ours.registries)),
        ours.stack.export(),
        ours.stack.pulumi("stack", "output"),
    ]
    for host in ours.bed.hosts:
        with host.engine.client() as engine:
            shown += [json.dumps(container.attrs) for container in engine.containers.list()]
            shown += [container.logs().decode() for container in engine.containers.list()]

    assert len(shown) > len(ours.bed.hosts)
    for text in shown:
        assert not [secret for secret in wanted if secret in text]


@pytest.mark.modern_engine
def test_destroy_leaves_nothing_on_the_swarm_and_keeps_the_objects(ours: Team) -> None:
    image = ours.bed.upstream.push_index()
    kept = ours.settled(ours.pull(ours.bed.manager, image))

    ours.stack.destroy()

    assert swarm_belongings.of_stack(ours.bed.manager.engine.host, ours.stack.name) == {}
    for host in ours.bed.hosts:
        eventually(
            functools.partial(_has_no_container, host),
            within_s=30,
            what=f"{host.name} has no container",
        )
    assert ours.bed.store.objects() == kept
    ours.stack.up()
    asked = len(ours.gate.blobs_served())
    assert ours.pull(ours.bed.hosts[-1], image).digest == image.digest
    assert len(ours.gate.blobs_served()) == asked


def _has_no_container(host: Host) -> bool:
    with host.engine.client() as engine:
        return not engine.containers.list(all=True)
