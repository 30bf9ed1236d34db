"""Signatures that cosign makes, through real caches: warmed, proved and required by a policy."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from docker import DockerClient

from tests.integration.support import belongings, cosign, host
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.cosign import OLD_FORMAT, Cosign
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import Pushed, Upstream

HUB = "docker.io"
OK, USAGE, NOT_ALL_THERE = 0, 2, 3


@dataclass(frozen=True, slots=True)
class Signing:
    """A stack that is up, cachectl for it, and cosign with a key.

    Attributes:
        folder: the folder of the key.
        policy: a policy that demands a signature with this key for every image of Docker Hub.
    """

    stack: CacheStack
    cachectl: Cachectl
    upstream: Upstream
    folder: Path
    policy: Path

    def sign(self, image: Pushed, *options: str) -> None:
        """Sign an image in the upstream."""
        address = f"{self.upstream.address}:{self.upstream.port}"
        Cosign(self.folder).sign(address, image, *options)


@pytest.fixture(scope="module")
def signing(
    tmp_path_factory: pytest.TempPathFactory, engine: DockerClient, upstream: Upstream
) -> Iterator[Signing]:
    folder = tmp_path_factory.mktemp("signing")
    policy = folder / "policy.yaml"
    policy.write_text(f"- {{image: '{HUB}/*', key: cosign.pub}}")
    with stack(folder, engine, {"upstreams": upstreams(upstream.url, HUB)}) as made:
        made.up()
        Cosign(folder).make_key()
        yield Signing(made, Cachectl(made.name, folder), upstream, folder, policy)


@pytest.mark.parametrize("options", [(), OLD_FORMAT], ids=["bundle", "sig"])
def test_a_signed_image_is_proved_offline_until_its_signature_is_gone(
    signing: Signing, engine: DockerClient, upstream: Upstream, options: tuple[str, ...]
) -> None:
    image = upstream.push_index()
    signing.sign(image, *options)
    tag = cosign.tag(image, options)

    warmed = signing.cachectl("warm", image.name, "--json")
    assert warmed.result[0]["attachments"] == [tag]
    with upstream.away():
        proved = signing.cachectl("verify", image.name, "--policy", signing.policy, "--json")
        every = signing.cachectl("verify", "--json")
    assert proved.code == OK, proved.err
    assert proved.result[0]["attachments"] == [tag]
    # The tag of the signature is not an image of its own.
    assert not [one for one in every.result if "sha256-" in one["image"]]

    cosign.remove(belongings.registries(engine, signing.stack.name)[HUB], image, tag)
    unsigned = signing.cachectl("verify", image.name, "--policy", signing.policy)

    assert unsigned.code == NOT_ALL_THERE
    assert f"{HUB}/{image.name}: not signed by cosign.pub, sha256:" in unsigned.err
    assert signing.cachectl("verify", image.name).code == OK


def test_an_image_without_a_signature_is_named_and_a_rule_for_others_does_not_matter(
    signing: Signing, upstream: Upstream
) -> None:
    image = upstream.push_index()
    other = signing.folder / "other.yaml"
    other.write_text("- {image: 'quay.io/*', key: cosign.pub}")

    assert signing.cachectl("warm", image.name).code == OK
    refused = signing.cachectl("verify", image.name, "--policy", signing.policy)
    proved = signing.cachectl("verify", image.name, "--policy", other)

    assert refused.code == NOT_ALL_THERE
    assert f"{HUB}/{image.name}: not signed by cosign.pub" in refused.err
    assert proved.code == OK


def test_a_policy_without_keys_is_wrong_usage(signing: Signing) -> None:
    empty = signing.folder / "empty.yaml"
    empty.write_text("[]")

    refused = signing.cachectl("verify", "--policy", empty)

    assert refused.code == USAGE
    assert "has no public key; allowed: at least one rule with a key" in refused.err


@pytest.mark.parametrize("platform", [[], [f"--platform=linux/{host.architecture()}"]])
def test_signatures_are_exported_removed_and_imported_with_their_image(
    signing: Signing, upstream: Upstream, platform: list[str]
) -> None:
    image = upstream.push_index()
    signing.sign(image)
    signing.sign(image, *OLD_FORMAT)
    assert signing.cachectl("warm", image.name).code == OK
    archive, nothing = signing.folder / "images.tar.zst", signing.folder / "nothing.txt"
    nothing.write_text("")

    exported = signing.cachectl("export", archive, *platform, "--json")
    assert exported.code == OK, exported.err
    assert signing.cachectl("prune", "--keep", nothing, "--yes").code == OK
    emptied = signing.cachectl("verify", "--json")
    with upstream.away():
        imported = signing.cachectl("import", archive)
        proved = signing.cachectl("verify", image.name, "--policy", signing.policy, "--json")

    assert emptied.result == []
    assert imported.code == OK, imported.err
    assert "sha256-" not in imported.out
    assert proved.code == OK, proved.err
    tags = {cosign.tag(image), cosign.tag(image, OLD_FORMAT)}
    assert set(proved.result[0]["attachments"]) == tags
