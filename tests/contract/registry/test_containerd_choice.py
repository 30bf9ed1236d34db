"""Which image of an index a node runs: the same for us and for the real containerd."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from talos_registry_cache.registry.client import RegistryClient
from talos_registry_cache.registry.errors import ContentError, PlatformError
from talos_registry_cache.registry.image import walk
from talos_registry_cache.registry.platforms import parse_all
from talos_registry_cache.registry.reference import parse
from tests.integration.support import containerd
from tests.integration.support import images as real
from tests.integration.support.containerd import Containerd
from tests.integration.support.processes import CommandFailedError
from tests.unit.registry.support import images
from tests.unit.registry.support.images import OCI_INDEX, OCI_MANIFEST, Blob, Built
from tests.unit.registry.support.tiny_registry import TinyRegistry, serving

pytestmark = pytest.mark.timeout(600)

AMD64, ARM64 = NODES = "linux/amd64", "linux/arm64"
UNKNOWN = "unknown/unknown"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    with containerd.running(tmp_path_factory.mktemp("containerd")) as running:
        yield running


@pytest.fixture(scope="module")
def registry() -> Iterator[TinyRegistry]:
    with serving(TinyRegistry()) as running:
        yield running


def image(architecture: str, **changed: Any) -> Built:
    """An image that can be unpacked, with a layer of its own."""
    made = real.docker_image(architecture, [100])
    content = json.loads(made.manifest.content) | changed
    manifest = Blob(json.dumps(content).encode(), made.manifest.media_type)
    return Built([manifest], [Blob(one.content, one.media_type) for one in made.blobs])


def index(*entries: tuple[str | dict[str, Any] | None, Built], **changed: Any) -> Built:
    described = [
        built.manifests[0].entry
        | changed
        | ({"platform": images.platform_entry(one) if isinstance(one, str) else one} if one else {})
        for one, built in entries
    ]
    content = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": described}
    return Built(
        [
            Blob(json.dumps(content).encode(), OCI_INDEX),
            *(manifest for _, built in entries for manifest in built.manifests),
        ],
        [blob for _, built in entries for blob in built.blobs],
    )


AMD, OTHER_AMD, ARM = image("amd64"), image("amd64"), image("arm64")
CHART = Built([Blob(b"{}", "application/vnd.example.chart")], [])
STATEMENT = images.image(Blob(b"a statement"), platform=UNKNOWN)
CONFUSED = Built([Blob(index((None, AMD)).manifests[0].content, OCI_MANIFEST)], [])


@pytest.mark.parametrize("wanted", NODES)
@pytest.mark.parametrize(
    "built",
    [
        index((AMD64, AMD), (ARM64, ARM)),
        index((UNKNOWN, STATEMENT), (AMD64, AMD), (AMD64, OTHER_AMD), annotations=None),
        index((None, AMD)),
        index((None, ARM), (None, AMD)),
        index((None, OTHER_AMD), (AMD64, AMD), (None, ARM)),
        index(("linux/arm64/v8", ARM), ("linux/amd64/v3", OTHER_AMD), ("linux/amd64/v1", AMD)),
        index(({"architecture": "x86_64", "os": ""}, AMD), ({"architecture": "aarch64"}, ARM)),
        index((AMD64, index((None, AMD))), (ARM64, index((AMD64, AMD)))),
        index((None, index((AMD64, AMD), (ARM64, ARM)))),
        index((None, index((None, index((None, ARM))))), (AMD64, OTHER_AMD)),
        index((AMD64, ARM)),
        index((AMD64, image("amd64", annotations=None)), (ARM64, ARM)),
        index((AMD64, CHART), (AMD64, AMD), (ARM64, ARM)),
        index((AMD64, CONFUSED), (ARM64, ARM)),
        index(),
    ],
    ids=[
        "two", "attestation", "no platform", "the first without", "the named one first",
        "variants", "aliases", "nested", "nested without", "deep", "wrong", "null", "chart",
        "confused", "empty",
    ],
)  # fmt: skip
def test_containerd_chooses_the_same(
    node: Containerd, registry: TinyRegistry, built: Built, wanted: str
) -> None:
    registry.hold("team/app", "1", built)

    chosen = ours(registry, wanted)

    assert chosen == containerds(node, registry, wanted)


def ours(registry: TinyRegistry, wanted: str) -> str | None:
    """The layer that we choose."""

    async def run() -> str:
        async with RegistryClient(registry.url) as client:
            found = await walk(client, parse("team/app:1"), parse_all([wanted]))
        [config, _] = found.blobs
        content = registry.blobs["team/app", config.digest].content
        [layer] = json.loads(content)["rootfs"]["diff_ids"]
        return str(layer)

    try:
        return asyncio.run(run())
    except (PlatformError, ContentError):
        return None


def containerds(node: Containerd, registry: TinyRegistry, wanted: str) -> str | None:
    """The layer that containerd unpacks."""
    reference = f"{registry.url.removeprefix('http://')}/team/app:1"
    try:
        return node.unpacked(reference, wanted)
    except CommandFailedError as error:
        if not re.search("not found|expected manifest", str(error)):
            raise
        return None
