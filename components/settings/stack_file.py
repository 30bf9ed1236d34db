"""The settings of a stack, and the rules across its caches, clusters, images and secrets."""

from collections.abc import Iterator
from ipaddress import IPv4Network
from itertools import combinations
from typing import Annotated

from pydantic import Field
from pydantic.alias_generators import to_camel

from .access import GivenTls
from .caches import AN_UPSTREAM, Caches
from .clusters import Cluster
from .images import Images
from .mistakes import Mistake, Path, in_yaml
from .model import EACH, Context, Rules, needed, right
from .secrets import VIA, S3Keys, Secrets, command
from .storage import S3Storage
from .upstream import Upstream
from .values import ClusterName, Name, NullIsEmpty


class StackSettings(Secrets):
    """The settings of a stack: the keys of its stack file, with the secrets."""

    caches: Caches | None = Field(default=None, description="The caches of the stack")
    clusters: Annotated[dict[ClusterName, Annotated[Cluster, NullIsEmpty]], EACH] = Field(
        default={}, description="The local Talos clusters of the stack, by name"
    )
    images: Images | None = Field(
        default=None, description="Images to pull through the caches before clusters are created"
    )
    mirrors_from: Name | None = Field(
        default=None,
        description="Name of the stack whose caches the clusters use, instead of caches of its own",
    )

    @property
    def secrets(self) -> Secrets:
        """The secrets alone."""
        return Secrets(**{name: getattr(self, name) for name in Secrets.model_fields})

    def rules(self, context: Context) -> Rules:
        """The rules across the keys of a stack file."""
        return (
            *super().rules(context),
            self._has_caches_or_clusters(),
            self._has_one_source_of_mirrors(),
            self._networks_do_not_overlap(),
            self._mirrors_are_cached(),
            self._usernames_have_passwords(),
            self._username_at_parent_caches_has_password(),
            self._object_store_has_keys(),
            self._certificate_has_its_key(),
            self._readers_come_over_tls(),
        )

    def _has_caches_or_clusters(self) -> Iterator[Mistake]:
        if self.caches is not None:
            return
        if "clusters" not in self.model_fields_set:
            yield Mistake(("caches", "upstreams"), f"found none; allowed: {AN_UPSTREAM}")
        elif self.images is not None:
            yield Mistake(("images",), "found without caches; allowed: only with caches")

    def _has_one_source_of_mirrors(self) -> Iterator[Mistake]:
        if self.caches is not None and self.mirrors_from is not None:
            text = "found beside caches; allowed: only in a stack without caches of its own"
            yield Mistake(("mirrorsFrom",), text)

    def _networks_do_not_overlap(self) -> Iterator[Mistake]:
        networks = {name: IPv4Network(cidr) for name, cidr in right(self.clusters, "cidr").items()}
        for (first, one), (second, other) in combinations(networks.items(), 2):
            if one.overlaps(other):
                text = f"found {other}, which overlaps {one} of {first}"
                allowed = "a network of its own, such as 10.6.0.0/24"
                yield Mistake(("clusters", second, "cidr"), f"{text}; allowed: {allowed}")

    def _mirrors_are_cached(self) -> Iterator[Mistake]:
        if self.caches is None:
            return
        upstreams = self.caches.upstreams
        for name, mirrors in right(self.clusters, "mirrors").items():
            for host in mirrors.keys() - upstreams.keys():
                text = f"found, but this stack does not cache it; allowed: {', '.join(upstreams)}"
                yield Mistake(("clusters", name, "mirrors", host), text)

    def _usernames_have_passwords(self) -> Iterator[Mistake]:
        upstreams = self.caches.upstreams if self.caches else {}
        # A setting that is wrong is there all the same.
        found = {
            (host, key)
            for host, upstream in upstreams.items()
            for key in ("username", "password_command", "credentials")
            if isinstance(upstream, Upstream) and getattr(upstream, key, "") is not None
        }
        named = {host for host, key in found if key == "username"}
        elsewhere = {host: key for host, key in found if key != "username"}
        for host in elsewhere.keys() & self.passwords.keys():
            text = (
                f"found beside {to_camel(elsewhere[host])} of this upstream; allowed: one of both"
            )
            yield Mistake(("passwords", host), text)
        for host in {*named, *self.passwords} - elsewhere.keys() - {VIA}:
            yield from _both(
                ("caches", "upstreams", host, "username"),
                ("passwords", host),
                has_setting=host in named,
                has_secret=host in self.passwords,
            )

    def _username_at_parent_caches_has_password(self) -> Iterator[Mistake]:
        via = self.caches.via if self.caches else None
        yield from _both(
            ("caches", "via", "username"),
            ("passwords", VIA),
            has_setting=via is not None and via.username is not None,
            has_secret=VIA in self.passwords,
        )

    def _object_store_has_keys(self) -> Iterator[Mistake]:
        is_store = self.caches is not None and isinstance(self.caches.storage, S3Storage)
        if not is_store and self.s3_keys is not None:
            text = "found, but caches.storage.kind is not s3; allowed: only for s3"
            yield Mistake(("s3Keys",), text)
        if is_store and self.s3_keys is None:
            for field in S3Keys.model_fields.values():
                yield Mistake(("s3Keys", str(field.alias)), f"found none; allowed: {needed(field)}")

    def _certificate_has_its_key(self) -> Iterator[Mistake]:
        tls = self.caches.tls if self.caches else None
        key = self.tls_key
        yield from _both(
            ("caches", "tls", "certificate"),
            ("tlsKey",),
            has_setting=isinstance(tls, GivenTls),
            has_secret=key is not None,
        )
        if isinstance(tls, GivenTls) and key is not None:
            # Few stacks have a certificate, and cryptography takes long to load.
            from . import certificates  # noqa: PLC0415 - see above

            if not certificates.is_key_of(key.get_secret_value(), tls.certificate):
                text = "found the key of another certificate; allowed: that of "
                yield Mistake(("tlsKey",), f"{text}caches.tls.certificate")

    def _readers_come_over_tls(self) -> Iterator[Mistake]:
        if self.readers and (self.caches is None or self.caches.tls is None):
            text = "found without caches.tls, so that passwords would be sent in the clear"
            yield Mistake(("readers",), f"{text}; allowed: only with caches.tls")


def _both(setting: Path, secret: Path, *, has_setting: bool, has_secret: bool) -> Iterator[Mistake]:
    """A setting that needs a secret has one, and no secret comes without its setting."""
    name = in_yaml(setting)
    if has_setting and not has_secret:
        text = f"found none; allowed: the one for {name}, set with {command(secret)}"
        yield Mistake(secret, text)
    if has_secret and not has_setting:
        yield Mistake(secret, f"found without {name}; allowed: only with it")
