"""Caches whose disk is full, of the registry or of its front."""

from pathlib import Path

import httpx2
import pytest
from docker import DockerClient
from docker.models.volumes import Volume

from tests.integration.support import host, http_pull, images
from tests.integration.support.processes import run
from tests.integration.support.stack import stack, upstreams
from tests.integration.support.upstream import Upstream

HUB = "docker.io"
LARGE = 40 << 20


@pytest.mark.parametrize("volume", ["", "-front"], ids=["registry", "front"])
def test_a_layer_that_does_not_fit_is_broken_off_and_takes_no_room(
    tmp_path: Path, engine: DockerClient, upstream: Upstream, volume: str
) -> None:
    with stack(tmp_path, engine, {"upstreams": upstreams(upstream.url, HUB)}) as made:
        disk = _small_disk(engine, f"registry-{made.name}-{HUB}{volume}")
        made.up()
        endpoint = made.outputs()["caches"][HUB]["endpoint"]
        large = upstream.push(images.oci_index(host.architecture(), sizes=(LARGE,)))

        for _ in range(2):
            with pytest.raises(httpx2.RemoteProtocolError):
                http_pull.pull(endpoint, large)
        small = upstream.push(images.oci_index(host.architecture(), sizes=(LARGE // 4,)))
        assert http_pull.pull(endpoint, small).digest == small.digest

        run("mount", "-o", "remount,size=200m", disk.attrs["Mountpoint"])
        assert http_pull.pull(endpoint, large).digest == large.digest


def _small_disk(engine: DockerClient, name: str) -> Volume:
    """A volume of 20 MB in memory, as long as a container uses it."""
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=20m,mode=1777"}
    return engine.volumes.create(name, driver_opts=options)
