import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from talos_registry_cache.registry.errors import SignatureError
from talos_registry_cache.registry.platforms import Platform
from talos_registry_cache.registry.reference import parse
from talos_registry_cache.registry.signature_policy import Policy, Rule, Signer
from talos_registry_cache.registry.verify import Verified, verify
from tests.support import signing
from tests.support.signing import PrivateKey
from tests.unit.registry.support import images
from tests.unit.registry.support.images import Blob, Built
from tests.unit.registry.support.tiny_registry import TinyRegistry

NODE = Platform("linux", "amd64")
IMAGE = images.image(Blob(b"a layer"))
INDEX = images.index({"linux/amd64": IMAGE})
KEY, OTHER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
TAG = INDEX.digest.replace(":", "-")


def run(registry: TinyRegistry, demand: Any = KEY, pattern: str = "docker.io/team/*") -> Verified:
    if not isinstance(demand, str):
        demand = Signer(demand.public_key(), "team.pub")
    policy = Policy((Rule(pattern, demand),))
    registry.hold("team/app", "1", INDEX)
    [outcome] = asyncio.run(
        verify([parse("team/app:1")], {"docker.io": registry.url}, (NODE,), policy=policy)
    )
    return outcome


def is_signed(registry: TinyRegistry, key: PrivateKey = KEY) -> bool:
    outcome = run(registry, key)
    assert all(isinstance(error, SignatureError) for error in outcome.errors), outcome.errors
    return not outcome.errors


@pytest.mark.parametrize(
    "key",
    [
        KEY,
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["P-256", "P-384", "RSA", "Ed25519"],
)
@pytest.mark.parametrize(
    ("tag", "signed_with"),
    [
        (f"{TAG}.sig", lambda key: signing.simple_signing(INDEX.digest, key)),
        (TAG, lambda key: signing.referrers(signing.statement(INDEX.digest, key))),
        (TAG, lambda key: signing.referrers(signing.message(INDEX.manifests[0].content, key))),
    ],
    ids=["simple signing", "statement", "message"],
)
def test_an_image_is_signed_by_its_key_and_not_by_another_one(
    registry: TinyRegistry, tag: str, key: PrivateKey, signed_with: Callable[[PrivateKey], Built]
) -> None:
    registry.hold("team/app", tag, signed_with(key))

    assert is_signed(registry, key)
    assert not is_signed(registry, OTHER)


def test_an_image_without_a_signature_is_named_with_the_key_and_the_rule(
    registry: TinyRegistry,
) -> None:
    outcome = run(registry)

    assert list(map(str, outcome.errors)) == [
        "not signed by team.pub, as the rule for docker.io/team/* demands: no signature"
    ]


def test_one_of_several_signatures_suffices(registry: TinyRegistry) -> None:
    """Signatures of the same text are layers with the same digest."""
    signatures = signing.simple_signing(INDEX.digest, OTHER, KEY)
    registry.hold("team/app", f"{TAG}.sig", signatures)

    assert is_signed(registry)
    assert is_signed(registry, OTHER)
    third = run(registry, ec.generate_private_key(ec.SECP256R1()))
    assert "2 signatures, none by this key" in str(third.errors[0])


def test_the_signature_of_another_image_does_not_count(registry: TinyRegistry) -> None:
    registry.hold("team/app", f"{TAG}.sig", signing.simple_signing(IMAGE.digest, KEY))
    assert not is_signed(registry)

    registry.hold("team/app", TAG, signing.referrers(signing.statement(IMAGE.digest, KEY)))
    assert not is_signed(registry)

    other = signing.message(IMAGE.manifests[0].content, KEY)
    registry.hold("team/app", TAG, signing.referrers(other))
    assert not is_signed(registry)


def test_with_a_bundle_a_signature_in_the_old_format_does_not_count(registry: TinyRegistry) -> None:
    registry.hold("team/app", f"{TAG}.sig", signing.simple_signing(INDEX.digest, KEY))
    bundle = signing.statement(INDEX.digest, OTHER)
    registry.hold("team/app", TAG, signing.referrers(bundle))

    assert not is_signed(registry)


def test_a_signature_of_the_platforms_manifest_alone_does_not_count(registry: TinyRegistry) -> None:
    """Nodes check the digest that the tag resolves to."""
    tag = IMAGE.digest.replace(":", "-")
    registry.hold("team/app", f"{tag}.sig", signing.simple_signing(IMAGE.digest, KEY))

    assert not is_signed(registry)


@pytest.mark.parametrize(
    "change",
    [
        lambda bundle: bundle.pop("verificationMaterial"),
        lambda bundle: bundle.update(verificationMaterial={"certificate": {"rawBytes": ""}}),
        lambda bundle: bundle.pop("dsseEnvelope"),
        lambda bundle: bundle["dsseEnvelope"].update(signatures=[]),
        lambda bundle: bundle["dsseEnvelope"].update(payload="e30="),
        lambda bundle: bundle["dsseEnvelope"].update(payload="?"),
        lambda bundle: bundle["dsseEnvelope"].update(payloadType="text/plain"),
    ],
)
def test_an_altered_bundle_does_not_count(
    registry: TinyRegistry, change: Callable[[dict[str, Any]], object]
) -> None:
    bundle = signing.statement(INDEX.digest, KEY)
    change(bundle)
    registry.hold("team/app", TAG, signing.referrers(bundle))

    assert not is_signed(registry)


def test_a_layer_that_is_no_signature_does_not_count(registry: TinyRegistry) -> None:
    registry.hold("team/app", f"{TAG}.sig", images.image(Blob(b"{}"), Blob(b"\xff")))
    assert not is_signed(registry)

    unsigned = json.dumps({"critical": {"image": {"docker-manifest-digest": INDEX.digest}}})
    registry.hold("team/app", f"{TAG}.sig", images.image(Blob(unsigned.encode())))
    assert not is_signed(registry)


def test_images_that_the_policy_denies_are_errors_and_others_need_no_signature(
    registry: TinyRegistry,
) -> None:
    assert list(map(str, run(registry, "deny").errors)) == [
        "denied by the rule for docker.io/team/*"
    ]
    assert run(registry, "skip").errors == ()
    assert run(registry, pattern="quay.io/*").errors == ()
