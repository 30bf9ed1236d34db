"""A real cluster of Talos 1.11, whose machine configuration has no RegistryMirrorConfig yet."""

from pathlib import Path

import pytest

from tests.integration.support import belongings, kubernetes, processes
from tests.integration.support.kubernetes import CLUSTER, REGISTRIES, Site
from tests.integration.support.stack import upstreams

NAME = "older"
TALOSCTL = "talosctl-1.11"
LISTED_WITHIN_S = 30
# No cluster of these tests needs the first two. The pause image is that of a newer containerd.
NOT_PULLED = ("/flannel:", "/installer:", "/pause:")

pytestmark = pytest.mark.timeout(3 * kubernetes.UP_WITHIN_S)


def test_a_cluster_of_talos_1_11_becomes_healthy_through_its_mirrors(
    site: Site, tmp_path: Path
) -> None:
    listed = processes.run(TALOSCTL, "image", "default", within_s=LISTED_WITHIN_S).split()
    site.push_as(listed)
    registries = upstreams(site.upstream_url, *REGISTRIES, "gcr.io")
    with kubernetes.stack(site, tmp_path, upstreams=registries) as caches:
        caches.configure({NAME: {**CLUSTER, "talosctl": TALOSCTL}}, "clusters")

        caches.up()

        for reference in listed:
            registry, _, rest = reference.partition("/")
            log = belongings.caches(site.client, caches.name)[registry].logs().decode()
            if not any(part in reference for part in NOT_PULLED):
                assert f"/v2/{rest.replace(':', '/manifests/')}?ns={registry}" in log
