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
AUTHORITY, CERTIFICATE, CLUSTER = "OwnAuthority", "OwnCertificate", "LocalCluster"


def age_certificate(stack: CacheStack, *, days_left: float) -> None:
    """Make the server certificate expire after that many days; its key stays."""

    def aged(outputs: dict[str, Any]) -> dict[str, Any]:
        signer = Issued(**outputs["authorities"][0])
        return {"certificate": _reissued(outputs["certificate"], signer.key, days_left)}

    _edit(stack, CERTIFICATE, aged)


def age_authority(stack: CacheStack, *, days_left: float) -> None:
    """Make the oldest CA expire after that many days; its key and signatures stay."""
    replaced: list[str] = []

    def aged(outputs: dict[str, Any]) -> dict[str, Any]:
        oldest, *others = (Issued(**one) for one in outputs["authorities"])
        old = Issued(_reissued(oldest.certificate, oldest.key, days_left), oldest.key)
        replaced.extend((oldest.certificate, old.certificate))
        return {
            "ca": "".join(one.certificate for one in (old, *others)),
            "authorities": [asdict(one) for one in (old, *others)],
        }

    _edit(stack, AUTHORITY, aged)
    # As if the nodes of clusters had been given this certificate.
    before, after = replaced
    _edit(stack, CLUSTER, lambda outputs: {"ca": outputs["ca"].replace(before, after)})


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
    """Change outputs of the resources of a type in a stack's state."""
    state = json.loads(stack.pulumi("stack", "export", "--show-secrets"))
    for resource in state["deployment"]["resources"]:
        if resource["type"].endswith(f":{kind}"):
            outputs = resource["outputs"]
            for name, value in change({key: _plain(one) for key, one in outputs.items()}).items():
                outputs[name] = _like(outputs[name], value)
    file = Path(stack.folder, "aged.json")
    file.write_text(json.dumps(state))
    stack.pulumi("stack", "import", "--file", str(file))
    file.unlink()


def _plain(value: Any) -> Any:
    is_secret = isinstance(value, dict) and SECRET in value
    return json.loads(value["plaintext"]) if is_secret else value


def _like(before: Any, value: Any) -> Any:
    """A value, as a secret if it was one before."""
    is_secret = isinstance(before, dict) and SECRET in before
    return before | {"plaintext": json.dumps(value)} if is_secret else value
