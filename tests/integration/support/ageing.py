"""Makes the certificates in a stack's state older, instead of waiting for years."""

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from components.certificate_authority import Issued
from tests.integration.support.stack import CacheStack

# How an export of a state marks a secret.
SECRET = "4dabf18193072939515e22adb298388d"  # noqa: S105 - a marker
AUTHORITY, CERTIFICATE = "OwnAuthority", "OwnCertificate"


def age_certificate(stack: CacheStack, *, days_left: float) -> None:
    """Make the server certificate expire after that many days; its key stays."""

    def aged(outputs: dict[str, Any]) -> dict[str, Any]:
        signer = Issued(**outputs["authorities"][0])
        return {"certificate": _reissued(outputs["certificate"], signer.key, days_left)}

    _edit(stack, CERTIFICATE, aged)


def age_authority(stack: CacheStack, *, days_left: float) -> None:
    """Make the oldest CA expire after that many days; its key and signatures stay."""

    def aged(outputs: dict[str, Any]) -> dict[str, Any]:
        oldest, *others = (Issued(**one) for one in outputs["authorities"])
        old = Issued(_reissued(oldest.certificate, oldest.key, days_left), oldest.key)
        return {
            "ca": "".join(one.certificate for one in (old, *others)),
            "authorities": [asdict(one) for one in (old, *others)],
        }

    _edit(stack, AUTHORITY, aged)


def _reissued(certificate: str, issuers_key: str, days_left: float) -> str:
    """The same certificate with another validity."""
    found = x509.load_pem_x509_certificate(certificate.encode())
    key = load_pem_private_key(issuers_key.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    lasts = found.not_valid_after_utc - found.not_valid_before_utc
    ends = datetime.now(UTC) + timedelta(days=days_left)
    builder = (
        x509.CertificateBuilder()
        .subject_name(found.subject)
        .issuer_name(found.issuer)
        .public_key(found.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(ends - lasts)
        .not_valid_after(ends)
    )
    for one in found.extensions:
        builder = builder.add_extension(one.value, one.critical)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def _edit(stack: CacheStack, kind: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change outputs of the resource of a type in a stack's state."""
    state = json.loads(stack.pulumi("stack", "export", "--show-secrets"))
    (resource,) = (
        one for one in state["deployment"]["resources"] if one["type"].endswith(f":{kind}")
    )
    outputs = resource["outputs"]
    plain = {
        name: json.loads(value["plaintext"])
        if isinstance(value, dict) and SECRET in value
        else value
        for name, value in outputs.items()
    }
    for name, value in change(plain).items():
        is_secret = isinstance(outputs[name], dict)
        outputs[name] = outputs[name] | {"plaintext": json.dumps(value)} if is_secret else value
    file = Path(stack.folder, "aged.json")
    file.write_text(json.dumps(state))
    stack.pulumi("stack", "import", "--file", str(file))
    file.unlink()
