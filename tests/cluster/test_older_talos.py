"""A real cluster of Talos 1.11, whose machine configuration has no RegistryMirrorConfig yet."""

from functools import partial
from pathlib import Path

import pytest
from docker.models.containers import Container

from tests.integration.support import belongings, host, kubernetes, processes
from tests.integration.support.kubernetes import CLUSTER, REGISTRIES, Site
from tests.integration.support.polling import eventually
from tests.integration.support.stack import upstreams

NAME = "older"
TALOSCTL = "talosctl-1.11"
LISTED_WITHIN_S = 30
PULLED_WITHIN_S = 180
ANNOUNCED_WITHIN_S = 60
# No cluster of these tests needs the first two. The pause image is that of a newer containerd.
# CoreDNS may wait for five minutes: the newer scheduler tries again only then if no node was there.
NOT_PULLED = ("/flannel:", "/installer:", "/pause:", "/coredns:")

pytestmark = pytest.mark.timeout(3 * kubernetes.UP_WITHIN_S)


def test_a_cluster_of_talos_1_11_pulls_through_legacy_mirrors_and_announces_the_local_registry(
    site: Site, tmp_path: Path
) -> None:
    listed = processes.run(TALOSCTL, "image", "default", within_s=LISTED_WITHIN_S).split()
    site.push_as(listed)
    registries = upstreams(site.upstream_url, *REGISTRIES, "gcr.io")
    local = {"port": host.free_port()}
    with kubernetes.stack(site, tmp_path, upstreams=registries, local=local) as caches:
        caches.configure({NAME: {**CLUSTER, "talosctl": TALOSCTL, "wait": "api"}}, "clusters")

        caches.up()

        for reference in listed:
            registry, _, rest = reference.partition("/")
            cache = belongings.caches(site.client, caches.name)[registry]
            asked = f"/v2/{rest.replace(':', '/manifests/')}?ns={registry}"
            if not any(part in reference for part in NOT_PULLED):
                eventually(
                    partial(_logs, cache, asked),
                    within_s=PULLED_WITHIN_S,
                    what=f"{asked} is in the log",
                )
        told = eventually(
            partial(kubernetes.announced, site, caches.clusters_folder / NAME / "kubeconfig"),
            within_s=ANNOUNCED_WITHIN_S,
            what="the local registry is announced",
        )
        assert told["host"] == f"localhost:{local['port']}"


def _logs(cache: Container, text: str) -> bool:
    return text in cache.logs().decode()
