"""A team's stack survives updates, lost nodes, and a slow or unavailable store."""

import functools
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from pulumi.automation import CommandError

from components.settings import front
from talos_registry_cache.registry import served_certificate
from tests.integration.support import http_pull, images, processes, team
from tests.integration.support.ageing import age_certificate
from tests.integration.support.containerd import Containerd
from tests.integration.support.polling import eventually
from tests.integration.support.pulling import pulling
from tests.integration.support.swarm import Host
from tests.integration.support.team import READER, REGISTRY, Team

BLOBS = 1 + len(images.LAYER_SIZES)
CLIENTS_OF_NODE = 8
SERVES_WITHIN_S = 90
SLOW_S = 0.1
SLOW_LINK_MBIT = 10


def test_an_update_of_the_fronts_runs_node_by_node_and_no_pull_fails(
    ours: Team, containerd: Containerd
) -> None:
    image = ours.bed.upstream.push_index()
    ours.pull(ours.bed.manager, image)
    hosts, registries = ours.hosts_folder(), ours.service()["Version"]
    ours.stack.configure({**ours.stack.settings(), "front": {"tagFreshness": "1s"}})

    with pulling(lambda: containerd.pull_by(REGISTRY, image, hosts)) as pulls:
        changes = ours.stack.up()

    assert changes.get("update") == 1
    assert ours.service()["Version"] == registries
    assert pulls.failures == []
    assert pulls.done > 2


def test_an_update_of_the_registries_fails_no_pull_even_from_one_node(ours: Team) -> None:
    ours.stack.configure({**ours.stack.settings(), "logs": {"level": "debug"}})

    with pulling(functools.partial(_pull_a_new_image, ours)) as pulls:
        changes = ours.stack.up()

    assert changes.get("update") == 1
    assert "REGISTRY_LOG_LEVEL=debug" in _environment(ours)
    assert pulls.failures == []
    assert pulls.done > 2


@pytest.mark.parametrize("service", ["fronts", "registries"])
def test_a_node_heals_after_a_container_was_killed(ours: Team, service: str) -> None:
    image = ours.bed.upstream.push_index()
    node = ours.bed.hosts[-1]
    ours.pull(node, image)
    name: str = getattr(ours, service)
    killed = ours.containers(node, name)

    processes.run("docker", "--host", node.engine.host, "kill", *killed)

    eventually(
        lambda: ours.containers(node, name) not in ([], killed),
        within_s=SERVES_WITHIN_S,
        what="another one runs",
    )
    eventually(lambda: _serves(ours, node), within_s=SERVES_WITHIN_S, what="it serves again")
    assert ours.pull(node, image).digest == image.digest
    assert ours.pull(node, ours.bed.upstream.push_index()).blobs


def test_a_new_reader_is_added_node_by_node_and_no_pull_of_others_fails(
    ours: Team, containerd: Containerd
) -> None:
    image = ours.bed.upstream.push_index()
    ours.pull(ours.bed.manager, image)
    hosts = ours.hosts_folder()
    ours.stack.set_secret("readers.newcomer", "welcome")

    with pulling(lambda: containerd.pull_by(REGISTRY, image, hosts)) as pulls:
        ours.stack.up()

    assert pulls.failures == []
    assert pulls.done > 2
    with ours.client() as http:
        for host in ours.bed.hosts:
            url = f"{team.endpoint(host)}/v2/"
            assert http.get(url, auth=("newcomer", "welcome")).status_code == 200
            assert http.get(url, auth=(READER, ours.password)).status_code == 200


def test_a_certificate_is_renewed_node_by_node_and_no_pull_fails(
    ours: Team, containerd: Containerd
) -> None:
    image, ca = ours.bed.upstream.push_index(), ours.stack.outputs()["ca"]
    ours.pull(ours.bed.manager, image)
    hosts = ours.hosts_folder()
    age_certificate(ours.stack, days_left=29)

    with pulling(lambda: containerd.pull_by(REGISTRY, image, hosts)) as pulls:
        ours.stack.up()

    assert pulls.failures == []
    assert pulls.done > 2
    assert ours.stack.outputs()["ca"] == ca
    for host in ours.bed.hosts:
        expiry = served_certificate.expires(team.endpoint(host))
        assert expiry is not None
        assert expiry - datetime.now(UTC) > timedelta(days=360)


def test_a_failed_update_is_reported_and_rolled_back(ours: Team) -> None:
    image, ca = ours.bed.upstream.push_index(), ours.stack.outputs()["ca"]
    right, wrong = ours.stack.settings(), ours.stack.settings()
    certificate, key = _weak_certificate()
    wrong["tls"] = {"kind": "given", "certificate": certificate}
    ours.stack.configure(wrong)
    ours.stack.set_secret("tlsKey", key)
    with pytest.raises(CommandError, match="was not updated and is"):
        ours.stack.up()

    eventually(lambda: _serves(ours, ours.bed.manager, ca), within_s=60, what="it is as before")
    with ours.client(ca) as http:
        assert http_pull.pull(team.endpoint(ours.bed.manager), image, http).digest == image.digest
    ours.stack.configure(right)
    ours.stack.pulumi("config", "rm", "tlsKey")
    ours.stack.up()
    assert ours.pull(ours.bed.hosts[-1], image).digest == image.digest


def test_no_pull_fails_while_an_update_of_the_registries_is_rolled_back(ours: Team) -> None:
    right = ours.stack.settings()
    ours.stack.configure({**right, "image": front.DEFAULT_IMAGE})

    with (
        pulling(functools.partial(_pull_a_new_image, ours)) as pulls,
        pytest.raises(CommandError, match="was not updated and is"),
    ):
        ours.stack.up()

    assert pulls.failures == []
    ours.stack.configure(right)
    ours.stack.up()


def test_no_pull_fails_while_a_node_is_lost_and_it_returns_by_itself(
    ours: Team, containerd: Containerd
) -> None:
    image = ours.bed.upstream.push_index()
    ours.settled(ours.pull(ours.bed.manager, image))
    hosts, lost = ours.hosts_folder(), ours.bed.hosts[-1]
    asked = len(ours.gate.blobs_served())

    with pulling(lambda: containerd.pull_by(REGISTRY, image, hosts)) as pulls:
        lost.lose()
        try:
            eventually(lambda: pulls.done > 4, within_s=60, what="pulls go on")
        finally:
            lost.back()
        eventually(lambda: _serves(ours, lost), within_s=SERVES_WITHIN_S, what="it serves again")

    assert pulls.failures == []
    assert len(ours.gate.blobs_served()) == asked
    assert ours.pull(lost, image).digest == image.digest


def test_nodes_use_the_upstream_while_the_store_is_away(ours: Team, containerd: Containerd) -> None:
    stored, new = ours.bed.upstream.push_index(), ours.bed.upstream.push_index()
    node = ours.bed.manager
    ours.settled(ours.pull(node, stored))
    hosts = ours.hosts_folder(then=ours.bed.upstream.url)

    ours.bed.store.stop()
    try:
        with pytest.raises(httpx2.HTTPStatusError, match="500"):
            ours.pull(node, new)
        for image in (stored, new):
            # A node falls back to the registry itself.
            assert containerd.pull_by(REGISTRY, image, hosts) == image.digest
    finally:
        ours.bed.store.start()

    asked = len(ours.gate.blobs_served())
    assert ours.pull(node, stored).digest == stored.digest
    assert len(ours.gate.blobs_served()) == asked
    assert ours.pull(node, new).digest == new.digest


def test_a_slow_store_serves_whole_images(ours: Team) -> None:
    image = ours.bed.upstream.push_index()

    with ours.bed.store.slow(SLOW_S):
        cold = ours.pull(ours.bed.manager, image)
        warm = ours.pull(ours.bed.hosts[-1], image)

    assert cold == warm
    assert cold.digest == image.digest


def test_a_cache_that_was_killed_during_a_fetch_serves_no_partial_blobs(ours: Team) -> None:
    image = ours.bed.upstream.push_index()
    node = ours.bed.hosts[-1]
    ours.bed.upstream.limit(SLOW_LINK_MBIT)
    try:
        with ThreadPoolExecutor(1) as pool:
            pull = pool.submit(ours.pull, node, image)
            eventually(
                lambda: any("/_uploads/" in key for key in ours.bed.store.objects()),
                within_s=30,
                what="an upload has begun",
            )
            with node.engine.client() as engine:
                for container in engine.containers.list():
                    container.kill()
            with pytest.raises(httpx2.HTTPError):
                pull.result()
    finally:
        ours.bed.upstream.limit(10_000)
    eventually(lambda: _serves(ours, node), within_s=SERVES_WITHIN_S, what="it is started again")

    assert ours.pull(node, image).digest == image.digest


def test_each_node_fetches_a_blob_at_most_once_however_many_clients_pull(ours: Team) -> None:
    image = ours.bed.upstream.push_index()
    before = len(ours.gate.blobs_served())
    clients = [*ours.bed.hosts] * CLIENTS_OF_NODE

    with ThreadPoolExecutor(len(clients)) as pool:
        pulled = list(pool.map(lambda host: ours.pull(host, image), clients))

    assert {one.digest for one in pulled} == {image.digest}
    assert BLOBS <= len(ours.gate.blobs_served()) - before <= BLOBS * len(ours.bed.hosts)


def _pull_a_new_image(ours: Team) -> None:
    """Pull an image for which a front has to ask its registry."""
    ours.pull(ours.bed.manager, ours.bed.upstream.push_index())


def _serves(ours: Team, host: Host, ca: str = "") -> bool:
    try:
        with ours.client(ca) as http:
            return http.get(f"{team.endpoint(host)}/v2/").is_success
    except httpx2.TransportError:
        return False


def _environment(ours: Team) -> list[str]:
    return list(ours.service()["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"])


def _weak_certificate() -> tuple[str, str]:
    """A certificate and its key, which is too short for nginx."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "caches")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1)
    ).sign(key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return made.public_bytes(serialization.Encoding.PEM).decode(), private.decode()
