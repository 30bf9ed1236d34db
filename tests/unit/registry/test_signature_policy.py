from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, x448
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from talos_registry_cache.registry import signature_policy
from talos_registry_cache.registry.reference import parse
from talos_registry_cache.registry.signature_policy import PolicyError, Rule, Signer
from tests.support import signing

KEY = ec.generate_private_key(ec.SECP256R1())
PEM = signing.pem(KEY)
INDENTED = PEM.replace("\n", "\n        ")
TALOS = f"""\
apiVersion: v1alpha1
kind: ImageVerificationConfig
rules:
  - image: ghcr.io/team/public/*
    skip: true
  - image: ghcr.io/team/*
    publicKey:
      certificate: |-
        {INDENTED}
  - image: ghcr.io/*
    deny: true
"""


def read(folder: Path, text: str) -> signature_policy.Policy:
    file = folder / "policy.yaml"
    file.write_text(text)
    return signature_policy.read(file)


def demand(policy: signature_policy.Policy, image: str) -> str | None:
    rule = policy.rule_for(parse(image))
    if rule is None:
        return None
    return rule.demand.name if isinstance(rule.demand, Signer) else rule.demand


def test_the_first_rule_of_talos_policy_that_matches_applies(tmp_path: Path) -> None:
    policy = read(tmp_path, TALOS)

    assert demand(policy, "ghcr.io/team/public/app:1") == "skip"
    assert (demand(policy, "ghcr.io/team/app:1") or "").startswith("sha256:")
    assert demand(policy, "ghcr.io/other/app:1") == "deny"
    assert demand(policy, "docker.io/team/app:1") is None


def test_a_list_of_patterns_and_key_files_is_a_policy(tmp_path: Path) -> None:
    (tmp_path / "team.pub").write_text(PEM)

    policy = read(tmp_path, "- {image: 'ghcr.io/team/*', key: team.pub}")

    assert (demand(policy, "ghcr.io/team/app") or "").startswith("team.pub, sha256:")


@pytest.mark.parametrize(
    ("pattern", "image", "matches"),
    [
        ("docker.io/library/nginx", "nginx:1.27", True),
        ("docker.io/library/nginx", "nginx-extra", False),
        ("INDEX.docker.io/library/*", "nginx", True),
        ("registry-1.docker.io/*", "team/app", True),
        ("*", "quay.io/team/app", True),
        ("*/app", "quay.io/team/app", True),
        ("*/app", "quay.io/team/apps", False),
        ("quay.io/*/app*", "quay.io/team/x/application", True),
        ("quay.io/team/?pp", "quay.io/team/app", False),
        ("quay.io/team/[a]pp", "quay.io/team/app", False),
        ("QUAY.io/team/*", "quay.io/team/app", True),
        ("quay.io/Team/*", "quay.io/team/app", False),
    ],
)
def test_patterns_match_as_those_of_talos(pattern: str, image: str, *, matches: bool) -> None:
    assert Rule(pattern, "skip").matches(parse(image)) is matches


RULE = "apiVersion: v1alpha1\nkind: ImageVerificationConfig\nrules: [{image: '*', %s}]"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: [", "is not YAML"),
        ("a: 1\n---\nb: 2", "is not YAML with one document"),
        ("[" * 5000, "is not YAML"),
        ("", "Input should be"),
        ("just text", "Input should be"),
        ("[]", "has no public key; allowed: at least one rule with a key"),
        (RULE % "skip: true", "has no public key"),
        (RULE % "other: 1, skip: true", "rules.0.other: Extra inputs are not permitted"),
        (RULE % "keyless: {issuer: a, subject: b}", "rules.0: found keyless, which only"),
        (RULE % "skip: true, deny: true", "rules.0: found none or several of"),
        (RULE % "skip: false", "rules.0: found none or several of"),
        (RULE % "publicKey: {}", "rules.0.publicKey.certificate: Field required"),
        (RULE % "publicKey: {certificate: x}", "rules.0.publicKey.certificate is not a public key"),
        (RULE.replace("v1alpha1", "v1") % "skip: true", "apiVersion: Input should be 'v1alpha1'"),
        ("- {image: '*', key: absent.pub}", "absent.pub cannot be read"),
        ("- {image: '*', key: policy.yaml}", "policy.yaml is not a public key"),
        ("- {image: '*'}", "0.key: Field required"),
        ("- {image: '', key: a}", "0.image: String should have at least 1 character"),
    ],
)
def test_a_wrong_policy_is_refused_in_one_sentence(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(PolicyError) as caught:
        read(tmp_path, text)

    assert found in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    key = x448.X448PrivateKey.generate().public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "other.pub").write_bytes(pem)

    with pytest.raises(
        PolicyError, match=r"other\.pub is another kind of public key; allowed: an E"
    ):
        read(tmp_path, "- {image: '*', key: other.pub}")


def test_a_policy_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="absent cannot be read: "):
        signature_policy.read(tmp_path / "absent")
