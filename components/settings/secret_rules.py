"""The rules between caches and the secrets that they need."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import SecretStr

from .access import GivenTls
from .caches import Caches, Upstream
from .mistakes import Mistake, Path, in_yaml
from .model import Rules, needed
from .secrets import VIA, S3Keys, command
from .storage import S3Storage


class HasSecrets(Protocol):
    """Secrets, or outputs that are not known yet."""

    @property
    def passwords(self) -> Any:
        """Passwords by registry host."""

    @property
    def readers(self) -> Any:
        """Passwords by user name."""

    @property
    def s3_keys(self) -> Any:
        """The keys of the object store."""

    @property
    def tls_key(self) -> Any:
        """The private key of the certificate."""


@dataclass(frozen=True, slots=True)
class _Check:
    find_caches: Callable[[], Caches | None]
    secrets: HasSecrets
    at: Path

    @property
    def caches(self) -> Caches | None:
        return self.find_caches()

    def usernames_have_passwords(self) -> Iterator[Mistake]:
        passwords = self.secrets.passwords
        if not isinstance(passwords, Mapping):
            return
        upstreams = self.caches.upstreams if self.caches else {}
        # A username that is wrong is one all the same.
        named = {
            host
            for host, upstream in upstreams.items()
            if isinstance(upstream, Upstream) and getattr(upstream, "username", "") is not None
        }
        for host in {*named, *passwords} - {VIA}:
            yield from self._both(
                ("upstreams", host, "username"),
                ("passwords", host),
                has_setting=host in named,
                has_secret=host in passwords,
            )

    def username_at_parent_caches_has_password(self) -> Iterator[Mistake]:
        passwords = self.secrets.passwords
        if not isinstance(passwords, Mapping):
            return
        via = self.caches.via if self.caches else None
        yield from self._both(
            ("via", "username"),
            ("passwords", VIA),
            has_setting=via is not None and via.username is not None,
            has_secret=VIA in passwords,
        )

    def object_store_has_keys(self) -> Iterator[Mistake]:
        keys = self.secrets.s3_keys
        is_store = self.caches is not None and isinstance(self.caches.storage, S3Storage)
        if not is_store and keys is not None:
            kind = in_yaml((*self.at, "storage", "kind"))
            yield Mistake(("s3Keys",), f"found, but {kind} is not s3; allowed: only for s3")
        if is_store and keys is None:
            for field in S3Keys.model_fields.values():
                yield Mistake(("s3Keys", str(field.alias)), f"found none; allowed: {needed(field)}")

    def certificate_has_its_key(self) -> Iterator[Mistake]:
        tls = self.caches.tls if self.caches else None
        key = self.secrets.tls_key
        certificate = ("tls", "certificate")
        yield from self._both(
            certificate,
            ("tlsKey",),
            has_setting=isinstance(tls, GivenTls),
            has_secret=key is not None,
        )
        if isinstance(tls, GivenTls) and isinstance(key, SecretStr):
            # Few stacks have a certificate, and cryptography takes long to load.
            from . import certificates  # noqa: PLC0415 - see above

            if not certificates.is_key_of(key.get_secret_value(), tls.certificate):
                allowed = f"that of {in_yaml((*self.at, *certificate))}"
                text = f"found the key of another certificate; allowed: {allowed}"
                yield Mistake(("tlsKey",), text)

    def readers_come_over_tls(self) -> Iterator[Mistake]:
        if self.secrets.readers != {} and (self.caches is None or self.caches.tls is None):
            tls = in_yaml((*self.at, "tls"))
            text = f"found without {tls}, so that passwords would be sent in the clear"
            yield Mistake(("readers",), f"{text}; allowed: only with {tls}")

    def _both(
        self, setting: Path, secret: Path, *, has_setting: bool, has_secret: bool
    ) -> Iterator[Mistake]:
        """A setting that needs a secret has one, and no secret comes without its setting."""
        name = in_yaml((*self.at, *setting))
        if has_setting and not has_secret:
            # Only a stack file has a key above the caches, and secrets that this command sets.
            how = f", set with {command(secret)}" if self.at else ""
            yield Mistake(secret, f"found none; allowed: the one for {name}{how}")
        if has_secret and not has_setting:
            yield Mistake(secret, f"found without {name}; allowed: only with it")


def secret_rules(
    find_caches: Callable[[], Caches | None], secrets: HasSecrets, at: Path
) -> Rules:
    """The rules between caches and their secrets.

    Args:
        find_caches: returns the settings of the caches; it ends with an AttributeError if they are
            wrong, and so does each rule that needs them.
        secrets: their secrets. An output is taken to hold what is needed.
        at: the path of the caches, from the place where the secrets are.
    """
    check = _Check(find_caches, secrets, at)
    return (
        check.usernames_have_passwords(),
        check.username_at_parent_caches_has_password(),
        check.object_store_has_keys(),
        check.certificate_has_its_key(),
        check.readers_come_over_tls(),
    )
