"""Signatures of images: whether the key of a policy has signed an image.

This follows what a Talos node does (internal/pkg/containers/image/verify, 1.14): it checks the
digest that the image's tag resolves to. It looks for sigstore bundles in the index of referrers,
and only if there are none, for signatures under cosign's tag `.sig`. One sound signature suffices.

cosign's signature is of a text that contains the digest (simple signing). A sigstore bundle has
either a signed statement about digests (in-toto, in a DSSE envelope), or a signature of the
manifest itself. Both formats are small, and the package `sigstore` cannot verify them with a public
key: it is made for certificates and a transparency log.
"""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from talos_registry_cache.registry import attachments
from talos_registry_cache.registry.attachments import Attachments
from talos_registry_cache.registry.client import RegistryClient
from talos_registry_cache.registry.errors import ContentError, SignatureError
from talos_registry_cache.registry.image import Image
from talos_registry_cache.registry.manifests import Descriptor
from talos_registry_cache.registry.signature_policy import Policy, PublicKey, Signer

SIGNATURE_ANNOTATION = "dev.cosignproject.cosign/signature"
# The limits of Talos.
SIZE_LIMIT = 1 << 20
LAYERS_LIMIT = 100


async def check(client: RegistryClient, image: Image, policy: Policy) -> None:
    """Check that an image is signed as a policy demands.

    Args:
        client: the registry that has the image and its attachments.
        image: the image.
        policy: the policy.

    Raises:
        SignatureError: it is not; the message says by whom it should be signed.
        RegistryError: a signature cannot be read.
    """
    rule = policy.rule_for(image.reference)
    if rule is None or rule.demand == "skip":
        return
    if rule.demand == "deny":
        raise SignatureError(f"denied by the rule for {rule.pattern}")
    problem = await _problem(client, image, rule.demand)
    if problem:
        raise SignatureError(
            f"not signed by {rule.demand.name}, as the rule for {rule.pattern} demands: {problem}"
        )


async def _problem(client: RegistryClient, image: Image, signer: Signer) -> str:
    """Why an image does not count as signed, or "" if it is signed."""
    repository = image.reference.repository
    referrers, legacy = attachments.tags(image.digest, Attachments.SIGNATURES)
    found = await attachments.layers(client, repository, referrers)
    signatures = [layer for layer in found if layer.media_type.startswith(attachments.BUNDLE)]
    parse: _Parse = _bundle
    if not signatures:
        signatures = list(await attachments.layers(client, repository, legacy))
        parse = _simple_signing
    manifest = (await client.manifest(repository, image.digest)).content
    for layer in signatures[:LAYERS_LIMIT]:
        content = await _read(client, repository, layer)
        signed = parse(layer, content, image.digest, manifest)
        if signed and _verifies(signer.key, signed):
            return ""
    return f"{len(signatures)} signatures, none by this key" if signatures else "no signature"


async def _read(client: RegistryClient, repository: str, layer: Descriptor) -> bytes:
    if layer.size > SIZE_LIMIT:
        raise ContentError(
            f"the signature {layer.digest} has {layer.size} bytes; allowed: at most {SIZE_LIMIT}"
        )
    content = bytearray()
    await client.read_blob(repository, layer, content.extend)
    return bytes(content)


@dataclass(frozen=True, slots=True)
class _Signed:
    """A signature and what it is of."""

    signature: bytes
    content: bytes


_Parse = Callable[[Descriptor, bytes, str, bytes], _Signed | None]
"""Finds the signature of a digest in a layer with some content; the last one is the manifest's."""


def _simple_signing(layer: Descriptor, content: bytes, digest: str, _: bytes) -> _Signed | None:
    """A signature of a digest in cosign's first format, or None if it is of something else."""
    try:
        payload = _Payload.model_validate_json(content)
        signature = base64.b64decode(layer.annotations[SIGNATURE_ANNOTATION], validate=True)
    except (ValidationError, KeyError, ValueError):
        return None
    is_of_image = payload.critical.image.docker_manifest_digest == digest
    return _Signed(signature, content) if is_of_image else None


def _bundle(_: Descriptor, content: bytes, digest: str, manifest: bytes) -> _Signed | None:
    """The signature of a digest in a sigstore bundle, or None if it is of something else."""
    try:
        bundle = _Bundle.model_validate_json(content)
        if bundle.message_signature:
            return _Signed(bundle.message_signature.signature, manifest)
        if bundle.dsse_envelope:
            return _statement(bundle.dsse_envelope, digest)
    except ValidationError:
        return None
    return None


def _statement(envelope: "_Envelope", digest: str) -> _Signed | None:
    statement = _Statement.model_validate_json(envelope.payload)
    if digest not in {f"sha256:{one.digest.get('sha256')}" for one in statement.subject}:
        return None
    kind = envelope.payload_type.encode()
    # The "pre-authentication encoding" of DSSE.
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(envelope.payload), envelope.payload)
    return _Signed(envelope.signatures[0].sig, signed)


def _verifies(key: PublicKey, signed: _Signed) -> bool:
    try:
        match key:
            case EllipticCurvePublicKey():
                key.verify(signed.signature, signed.content, ECDSA(SHA256()))
            case RSAPublicKey():
                key.verify(signed.signature, signed.content, PKCS1v15(), SHA256())
            case Ed25519PublicKey():
                key.verify(signed.signature, signed.content)
    except InvalidSignature:
        return False
    return True


class _Model(BaseModel):
    # Formats are extended over time, and what is signed is checked as a whole.
    model_config = ConfigDict(alias_generator=to_camel, val_json_bytes="base64")


class _PayloadImage(BaseModel):
    docker_manifest_digest: Annotated[str, Field(alias="docker-manifest-digest")]


class _Critical(BaseModel):
    image: _PayloadImage


class _Payload(BaseModel):
    """What cosign signs, a format of containers/image."""

    critical: _Critical


class _MessageSignature(_Model):
    signature: bytes


class _EnvelopeSignature(_Model):
    sig: bytes


class _Envelope(_Model):
    payload: bytes
    payload_type: Literal["application/vnd.in-toto+json"]
    signatures: Annotated[list[_EnvelopeSignature], Field(min_length=1, max_length=1)]


class _PublicKeyMaterial(_Model):
    public_key: dict[str, str]


class _Bundle(_Model):
    """A sigstore bundle that was signed with a key instead of a certificate, from version 0.3."""

    verification_material: _PublicKeyMaterial
    message_signature: _MessageSignature | None = None
    dsse_envelope: _Envelope | None = None


class _Subject(_Model):
    digest: Mapping[str, str]


class _Statement(_Model):
    subject: list[_Subject]
