"""A real Talos 1.14 node boots offline, and demands signatures of what it pulls from the caches."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.integration.support import host, private_engine, talos_node
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.cosign import OLD_FORMAT, Cosign
from tests.integration.support.private_engine import PrivateEngine
from tests.integration.support.stack import stack, upstreams
from tests.integration.support.talos_node import Node

HUB = "docker.io"
OK, NOT_ALL_THERE = 0, 3
FORMATS: dict[str, tuple[str, ...]] = {"bundle": (), "sig": OLD_FORMAT}
# The images, and why a node with the policy refuses them.
ACCEPTED = [f"team/signed-{name}" for name in FORMATS]
CACHED_ALONE = [f"team/cached-without-{name}" for name in FORMATS]
NO_SIGNATURE = "no valid signature found: bundle tag not found\nlegacy signature tag not found"
REFUSED = {
    "team/unsigned": NO_SIGNATURE,
    "team/signed-by-another-bundle": "no valid bundle referrer: ",
    "team/signed-by-another-sig": "no valid legacy signature: ",
    **dict.fromkeys(CACHED_ALONE, NO_SIGNATURE),
}
# No rule is about this one.
FREE = "free/unsigned"
IMAGES = (*ACCEPTED, *REFUSED, FREE)


@dataclass(frozen=True, slots=True)
class Site:
    """A node with a policy, and the caches that it pulls through. Their upstream is gone.

    Attributes:
        node: the node.
        cachectl: cachectl for the caches.
        policy: the policy, a part of the node's machine configuration.
    """

    node: Node
    cachectl: Cachectl
    policy: Path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if reason := private_engine.why_impossible():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("caches")
    with (
        private_engine.running(tmp_path_factory.mktemp("engine")) as engine,
        engine.client() as client,
    ):
        gateway, port = host.bridge_gateway(client), host.free_port()
        settings = {
            "mirrorHost": gateway,
            "storage": {"onDestroy": "delete"},
            "upstreams": upstreams(f"http://{gateway}:{port}", HUB),
        }
        with stack(folder, client, settings, engine_host=engine.host, enter=engine.enter) as caches:
            cachectl = Cachectl(caches.name, folder, engine.enter, engine_host=engine.host)
            with engine.upstream(port):
                _push_and_sign(engine, port, folder)
                references = [_image(name) for name in IMAGES if name not in CACHED_ALONE]
                caches.configure({"references": references}, "images")
                caches.up()
                alone = cachectl("warm", *map(_image, CACHED_ALONE), "--attachments", "none")
                assert alone.code == OK, alone.err
            policy = _policy(folder)
            patch = _patch(cachectl, policy, folder)
            with talos_node.booted(engine, tmp_path_factory.mktemp("node"), patch) as node:
                yield Site(node, cachectl, policy)


def _image(name: str) -> str:
    """An image, by the name that a pod would have for it."""
    return f"{HUB}/{name}:1"


def _patch(cachectl: Cachectl, policy: Path, folder: Path) -> Path:
    """Write a patch with the mirrors that `cachectl mirrors` prints, and the policy."""
    # Without network, each signature that a mirror does not have would take a minute.
    mirrors = cachectl("mirrors", "--talos-version", "1.14", "--skip-fallback").out
    patch = folder / "patch.yaml"
    patch.write_text(f"{mirrors}---\n{policy.read_text()}")
    return patch


def _push_and_sign(engine: PrivateEngine, port: int, folder: Path) -> None:
    """Push all images to the upstream, and sign them."""
    ours, theirs = (Cosign(folder, name, engine.enter) for name in ("ours", "theirs"))
    images = {name: engine.push(port, name) for name in IMAGES}
    for key in (ours, theirs):
        key.make_key()
    address = f"{host.LOOPBACK}:{port}"
    for name, options in FORMATS.items():
        ours.sign(address, images[f"team/signed-{name}"], *options)
        ours.sign(address, images[f"team/cached-without-{name}"], *options)
        theirs.sign(address, images[f"team/signed-by-another-{name}"], *options)


def _policy(folder: Path) -> Path:
    """Write a policy that demands a signature with our key."""
    key = Cosign(folder, "ours").public_key.read_text()
    rule = {"image": f"{HUB}/team/*", "publicKey": {"certificate": key}}
    document = {"apiVersion": "v1alpha1", "kind": "ImageVerificationConfig", "rules": [rule]}
    policy = folder / "policy.yaml"
    policy.write_text(yaml.safe_dump(document))
    return policy


@pytest.mark.parametrize("name", [*ACCEPTED, FREE])
def test_a_node_pulls_what_its_policy_accepts(site: Site, name: str) -> None:
    image = _image(name)

    pulled = site.node.talosctl("image", "pull", image)
    proved = site.cachectl("verify", image, "--policy", site.policy)

    assert pulled.returncode == 0, pulled.stderr
    assert image in site.node.talosctl("image", "list").stdout
    assert proved.code == OK, proved.err


@pytest.mark.parametrize(("name", "reason"), REFUSED.items(), ids=REFUSED)
def test_a_node_refuses_what_has_no_signature_with_the_key(
    site: Site, name: str, reason: str
) -> None:
    image = _image(name)

    pulled = site.node.talosctl("image", "pull", image)
    stored = site.cachectl("verify", image)
    proved = site.cachectl("verify", image, "--policy", site.policy)

    assert pulled.returncode != 0
    assert "desc = image verification failed: " in pulled.stderr
    assert reason in pulled.stderr
    assert image not in site.node.talosctl("image", "list").stdout
    assert (stored.code, proved.code) == (OK, NOT_ALL_THERE), stored.err + proved.err
