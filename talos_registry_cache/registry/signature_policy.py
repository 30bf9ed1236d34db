"""Policies of signatures: which images have to be signed, and with which keys.

A policy is a document `ImageVerificationConfig` of Talos, or a list of name patterns and key files:

    - image: ghcr.io/team/*
      key: team.pub
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from talos_registry_cache.registry import files
from talos_registry_cache.registry.errors import RegistryError
from talos_registry_cache.registry.reference import DOCKER_HUB, Reference

PublicKey = EllipticCurvePublicKey | RSAPublicKey | Ed25519PublicKey

ALLOWED_KEYS = "an ECDSA, RSA or Ed25519 key in PEM format, -----BEGIN PUBLIC KEY-----"
OWN_FIELDS = "a list of rules with image and key"
TALOS_FIELDS = (
    "a document ImageVerificationConfig with apiVersion v1alpha1 and rules, each with image and "
    f"one of publicKey.certificate, skip: true and deny: true; or {OWN_FIELDS}"
)
SHOWN_HEX = 12
# Other names of Docker Hub, which Talos replaces in patterns.
HUB_NAMES = {"index.docker.io", "registry-1.docker.io"}


class PolicyError(RegistryError, ValueError):
    """A policy is invalid; the message says where, and what is allowed."""


@dataclass(frozen=True, slots=True)
class Signer:
    """A public key.

    Attributes:
        key: the key.
        name: its file, if it has one, and its fingerprint.
    """

    key: PublicKey
    name: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of a policy.

    Attributes:
        pattern: the registry and repository that it is for; `*` stands for any text.
        demand: who has to have signed the image; or whether it is allowed or denied as it is.
    """

    pattern: str
    demand: Signer | Literal["skip", "deny"]

    def matches(self, image: Reference) -> bool:
        """Whether the rule is for an image, as Talos decides it."""
        domain, slash, rest = self.pattern.partition("/")
        domain = DOCKER_HUB if domain.lower() in HUB_NAMES else domain.lower()
        parts = map(re.escape, f"{domain}{slash}{rest}".split("*"))
        name = f"{image.registry.lower()}/{image.repository}"
        return re.fullmatch(".*".join(parts), name) is not None


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of a policy; the first one that matches an image applies."""

    rules: tuple[Rule, ...]

    def rule_for(self, image: Reference) -> Rule | None:
        """The rule for an image, or None: then any image is allowed."""
        return next((rule for rule in self.rules if rule.matches(image)), None)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, hide_input_in_errors=True)


class _PublicKey(_Model):
    certificate: str


class _TalosRule(_Model):
    """A rule as Talos has it (pkg/machinery/config/types/security/image_verification.go)."""

    image: Annotated[str, Field(min_length=1)]
    skip: bool = False
    deny: bool = False
    keyless: Mapping[str, str] | None = None
    public_key: _PublicKey | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.keyless:
            raise ValueError("found keyless, which only a transparency log can prove")
        if self.skip + self.deny + bool(self.public_key) != 1:
            raise ValueError("found none or several of publicKey, skip and deny")
        return self


class _TalosPolicy(_Model):
    api_version: Literal["v1alpha1"]
    kind: Literal["ImageVerificationConfig"]
    rules: list[_TalosRule]


class _OwnRule(_Model):
    image: Annotated[str, Field(min_length=1)]
    key: str


_OWN_POLICY = TypeAdapter(list[_OwnRule])


def read(path: Path) -> Policy:
    """Read a policy.

    Raises:
        PolicyError: it cannot be read, is invalid, or has no public key.
    """
    try:
        content = yaml.safe_load(_text(path))
    except (yaml.YAMLError, RecursionError):
        raise PolicyError(f"{path} is not YAML with one document") from None
    parse, allowed = (_own, OWN_FIELDS) if isinstance(content, list) else (_talos, TALOS_FIELDS)
    try:
        rules = parse(content, path)
    except ValidationError as error:
        raise PolicyError(f"{path}: {_first(error)}; allowed: {allowed}") from None
    if not any(isinstance(rule.demand, Signer) for rule in rules):
        raise PolicyError(f"{path} has no public key; allowed: at least one rule with a key")
    return Policy(rules)


def _own(content: object, path: Path) -> tuple[Rule, ...]:
    found = _OWN_POLICY.validate_python(content)
    return tuple(
        Rule(one.image, _signer(_text(path.parent / one.key), f"{path}: {one.key}", f"{one.key}, "))
        for one in found
    )


def _talos(content: object, path: Path) -> tuple[Rule, ...]:
    found = _TalosPolicy.model_validate(content)
    return tuple(_talos_rule(one, f"{path}: rules.{n}") for n, one in enumerate(found.rules))


def _talos_rule(rule: _TalosRule, where: str) -> Rule:
    if rule.public_key is None:
        return Rule(rule.image, "skip" if rule.skip else "deny")
    # The field's name and its documentation say certificate, but Talos reads a public key.
    where = f"{where}.publicKey.certificate"
    return Rule(rule.image, _signer(rule.public_key.certificate, where))


def _signer(pem: str, where: str, file: str = "") -> Signer:
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise PolicyError(f"{where} is not a public key; allowed: {ALLOWED_KEYS}") from None
    if not isinstance(key, PublicKey):
        raise PolicyError(f"{where} is another kind of public key; allowed: {ALLOWED_KEYS}")
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return Signer(key, f"{file}sha256:{digest.finalize().hex()[:SHOWN_HEX]}")


def _text(path: Path) -> str:
    try:
        return files.read_text(path, files.SMALL_LIMIT)
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path} cannot be read: {error}") from None


def _first(error: ValidationError) -> str:
    """The first problem of a policy, with its place."""
    problem = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, problem["loc"]))
    message = problem["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message
