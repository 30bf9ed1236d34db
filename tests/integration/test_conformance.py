"""The OCI distribution specification's own tests of pulls, run against a cache."""

import os
import re
import shutil
from pathlib import Path

import pytest
from docker import DockerClient

from tests.integration.support import http_pull, processes
from tests.integration.support.stack import stack, upstreams
from tests.integration.support.upstream import Upstream

HUB = "docker.io"
PROGRAM = "oci-conformance"
OUTCOME = re.compile(r"OCI Conformance Test/([^:]+): (\w+)")
KNOWN = {
    # Nodes that get 404 from a mirror ask the upstream itself: see decision 35.
    "empty/referrers",
    # Distribution ignores the parameter `last` as a cache. No node lists tags.
    "read-only/tag-list",
}

pytestmark = pytest.mark.skipif(
    not shutil.which(PROGRAM), reason=f"{PROGRAM} is not on PATH: `make test` builds it"
)


def test_a_cache_passes_the_tests_of_pulls(
    tmp_path: Path, engine: DockerClient, upstream: Upstream
) -> None:
    with stack(tmp_path, engine, {"upstreams": upstreams(upstream.url, HUB)}) as made:
        made.up()
        endpoint = made.outputs()["caches"][HUB]["endpoint"]
        image = upstream.push_index()
        upstream.refer_to(image)
        blobs = http_pull.pull(endpoint, image).blobs
        read_only = {
            "OCI_REGISTRY": endpoint.removeprefix("http://"),
            "OCI_TLS": "disabled",
            "OCI_REPO1": image.repository,
            "OCI_API_PUSH": "false",
            "OCI_API_BLOBS_DELETE": "false",
            "OCI_API_MANIFESTS_DELETE": "false",
            "OCI_API_TAGS_DELETE": "false",
            "OCI_RO_DATA_TAGS": image.tag,
            "OCI_RO_DATA_MANIFESTS": image.digest,
            "OCI_RO_DATA_BLOBS": " ".join(blobs),
            "OCI_RO_DATA_REFERRERS": image.digest,
            "OCI_RESULTS_DIR": str(tmp_path / "results"),
        }

        done = processes.finish([PROGRAM], within_s=120, env=os.environ | read_only, cwd=tmp_path)

    outcomes = dict(OUTCOME.findall(done.stdout))
    assert outcomes["read-only/pull"] == outcomes["read-only/head"] == "Pass", done.stdout
    assert outcomes["read-only/referrers"] == "Pass", done.stdout
    failed = {test for test, outcome in outcomes.items() if outcome == "FAIL"}
    assert failed == KNOWN | {"empty", "read-only"}, done.stdout
