"""A cache on a workstation whose storage is an object store."""

import secrets
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from docker import DockerClient

from talos_registry_cache.cli.errors import ExitCode
from tests.integration.support import gate, host, http_pull, network, object_store
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.object_store import ObjectStore
from tests.integration.support.stack import stack, upstreams
from tests.integration.support.upstream import Upstream

HUB = "docker.io"
CLIENTS = 4

pytestmark = pytest.mark.skipif(
    bool(why := network.why_impossible() or object_store.why_impossible()), reason=why
)


def test_a_cache_without_a_volume_shares_fetches_and_serves_without_its_upstream(
    tmp_path: Path, engine: DockerClient, upstream: Upstream
) -> None:
    with (
        network.switch(f"it-{secrets.token_hex(3)}") as switch,
        network.namespace(f"{switch.name}-s3") as namespace,
        object_store.installed(tmp_path / "store", switch.join(namespace)) as store,
        gate.guarding(upstream, "none") as before_upstream,
    ):
        store.start()
        settings = {"upstreams": upstreams(before_upstream.url, HUB), "storage": _storage(store)}
        with stack(tmp_path, engine, settings) as made:
            made.set_secret("s3Keys.accessKey", store.access_key)
            made.set_secret("s3Keys.secretKey", store.secret_key)
            made.up()
            assert set(made.preview()) == {"same"}
            image = upstream.push_index()
            endpoint = made.outputs()["caches"][HUB]["endpoint"]

            with ThreadPoolExecutor(CLIENTS) as clients:
                pulls = [clients.submit(http_pull.pull, endpoint, image) for _ in range(CLIENTS)]
            [pulled] = {pull.result() for pull in pulls}
            copies = Counter(request for request in before_upstream.served if "/blobs/" in request)
            cachectl = Cachectl(made.name, tmp_path)
            cachectl.env["AWS_ACCESS_KEY_ID"] = store.access_key
            cachectl.env["AWS_SECRET_ACCESS_KEY"] = store.secret_key
            assert cachectl("warm", image.name).code == ExitCode.OK

            [listed] = cachectl("list", "--json").result[HUB]

            assert pulled.digest == image.digest
            assert listed["digest"] == image.digest
            assert listed["platforms"] == [f"linux/{host.architecture()}"]
            assert listed["size"] > pulled.size
            fetches = [f"GET /v2/{image.repository}/blobs/{blob}" for blob in pulled.blobs]
            assert [copies[fetch] for fetch in fetches] == [1] * len(fetches)
            with before_upstream.silent():
                assert http_pull.pull(endpoint, image) == pulled
                assert cachectl("verify", image.name).code == ExitCode.OK
            made.destroy()
            held = store.objects()
            assert all(any(blob.split(":")[1] in key for key in held) for blob in pulled.blobs)


def _storage(store: ObjectStore) -> dict[str, str]:
    place = {"bucket": store.bucket, "region": store.region, "endpoint": store.endpoint}
    return {"kind": "s3", **place}
