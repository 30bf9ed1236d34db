"""Signatures of images as cosign stores them, made with keys of a test."""

import base64
import hashlib
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.unit.registry.support import images
from tests.unit.registry.support.images import Blob, Built

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
STATEMENT = "application/vnd.in-toto+json"


def pem(key: PrivateKey) -> str:
    """The public key of a key."""
    public = key.public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def sign(key: PrivateKey, content: bytes) -> str:
    """A signature, in base64."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        signature = key.sign(content, ec.ECDSA(SHA256()))
    elif isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(content, padding.PKCS1v15(), SHA256())
    else:
        signature = key.sign(content)
    return base64.b64encode(signature).decode()


def simple_signing(digest: str, *keys: PrivateKey) -> Built:
    """The content of cosign's tag `.sig`, with the signature of each key."""
    payload = {
        "critical": {
            "identity": {"docker-reference": ""},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        },
        "optional": None,
    }
    content = json.dumps(payload).encode()
    signatures = [{"dev.cosignproject.cosign/signature": sign(key, content)} for key in keys]
    return images.image(*(Blob(content, SIMPLE_SIGNING, {"annotations": s}) for s in signatures))


def statement(digest: str, key: PrivateKey) -> dict[str, Any]:
    """A sigstore bundle with a signed statement about a digest."""
    subject = {"name": "", "digest": {"sha256": digest.removeprefix("sha256:")}}
    payload = json.dumps(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [subject],
            "predicateType": "https://sigstore.dev/cosign/sign/v1",
            "predicate": {},
        }
    ).encode()
    encoded = b"DSSEv1 %d %b %d %b" % (len(STATEMENT), STATEMENT.encode(), len(payload), payload)
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": STATEMENT,
        "signatures": [{"sig": sign(key, encoded)}],
    }
    return {**_material(), "dsseEnvelope": envelope}


def message(manifest: bytes, key: PrivateKey) -> dict[str, Any]:
    """A sigstore bundle with a signature of a manifest itself."""
    digest = base64.b64encode(hashlib.sha256(manifest).digest()).decode()
    message_digest = {"algorithm": "SHA2_256", "digest": digest}
    signature = {"messageDigest": message_digest, "signature": sign(key, manifest)}
    return {**_material(), "messageSignature": signature}


def referrers(*bundles: dict[str, Any]) -> Built:
    """The index of referrers with sigstore bundles."""
    built = [images.image(Blob(json.dumps(bundle).encode(), BUNDLE)) for bundle in bundles]
    entries = [
        Blob(one.manifests[0].content, images.OCI_MANIFEST, {"artifactType": BUNDLE})
        for one in built
    ]
    index = images.index({}, *entries)
    return Built(
        [*index.manifests, *entries],
        [blob for one in built for blob in one.blobs],
    )


def _material() -> dict[str, Any]:
    return {"mediaType": BUNDLE, "verificationMaterial": {"publicKey": {"hint": ""}}}
