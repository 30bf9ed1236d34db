"""Dynamic resources for TLS and readers: certificate authorities, certificates, htpasswd files.

They contain random values, which are generated once and kept in the state.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pulumi
from pulumi import dynamic
from pulumi.output import contains_unknowns

from . import dynamic_provider

if TYPE_CHECKING:
    # Imported with cryptography, and only in the provider's process.
    from .certificate_authority import Issued

Properties = Mapping[str, Any]


class OwnAuthority(dynamic.Resource, module="caches", name="OwnAuthority"):
    """The certificate authorities of this stack alone, which clients trust.

    There is one, and in its last two years the next one as well, so that clients trust the next one
    long before it signs a certificate.
    """

    ca: pulumi.Output[str]
    """Their certificates, PEM, oldest first."""

    authorities: pulumi.Output[Sequence[Mapping[str, str]]]
    """`certificate` and `key` of each, PEM, oldest first; a secret."""

    def __init__(
        self, name: str, *, common_name: str, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """Declare an authority.

        Args:
            name: name of the resource.
            common_name: the authority's name, up to 64 characters.
            opts: options of the resource.
        """
        super().__init__(
            OwnAuthorityProvider(),
            name,
            {"commonName": common_name, "ca": None, "authorities": None},
            pulumi.ResourceOptions.merge(
                opts, pulumi.ResourceOptions(additional_secret_outputs=["authorities"])
            ),
        )


class OwnAuthorityProvider(dynamic.ResourceProvider):
    """Generates authorities. It contacts nothing, so it is never simulated."""

    serialize_as_secret_always = False

    def configure(self, req: dynamic.ConfigureRequest) -> None:
        """Prepare the provider's process."""
        dynamic_provider.prepare(req)

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """Replace authorities whose name changes, and introduce the next one in time."""
        is_renamed = olds["commonName"] != news["commonName"]
        return dynamic.DiffResult(
            changes=is_renamed or _authority().needs_next(list(_issued(olds)), datetime.now(UTC)),
            replaces=["commonName"] if is_renamed else [],
        )

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Generate the first authority."""
        return dynamic.CreateResult("authority", _with_next([], props))

    def update(self, _id: str, olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Generate the next authority, and keep those that have not expired."""
        return dynamic.UpdateResult(_with_next(list(_issued(olds)), news))


class OwnCertificate(dynamic.Resource, module="caches", name="OwnCertificate"):
    """A server's certificate, signed by an authority of the stack.

    `up` renews it in place when its names change or it expires soon. The authorities are a separate
    resource, so that a preview knows that clients keep trusting the same ones.
    """

    certificate: pulumi.Output[str]
    """The server's certificate, PEM."""

    key: pulumi.Output[str]
    """The server's private key, PEM; a secret."""

    def __init__(
        self,
        name: str,
        *,
        names: pulumi.Input[Sequence[str]],
        authority: OwnAuthority,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Declare a certificate.

        Args:
            name: name of the resource.
            names: DNS names and IPv4 addresses at which clients reach the server.
            authority: the authorities, one of which signs it.
            opts: options of the resource.
        """
        super().__init__(
            OwnCertificateProvider(),
            name,
            {
                "names": names,
                "authorities": authority.authorities,
                "certificate": None,
                "key": None,
            },
            pulumi.ResourceOptions.merge(
                opts, pulumi.ResourceOptions(additional_secret_outputs=["authorities", "key"])
            ),
        )


class OwnCertificateProvider(dynamic.ResourceProvider):
    """Generates certificates. It contacts nothing, so it is never simulated."""

    serialize_as_secret_always = False

    def configure(self, req: dynamic.ConfigureRequest) -> None:
        """Prepare the provider's process."""
        dynamic_provider.prepare(req)

    def check(self, _olds: Properties, news: Properties) -> dynamic.CheckResult:
        """Refuse invalid names before anything is touched."""
        authority, failures = _authority(), []
        if not contains_unknowns(news["names"]):
            try:
                authority.check_names(news["names"])
            except authority.CertificateError as error:
                failures = [dynamic.CheckFailure("names", str(error))]
        return dynamic.CheckResult(dict(news), failures)

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """Update in place when the names change or the certificate expires soon.

        A certificate whose authority is still trusted is kept when the next one is introduced.
        """
        is_changed = (
            olds["names"] != news["names"]
            or contains_unknowns(news["authorities"])
            or not _authority().is_signed_by_any(olds["certificate"], list(_issued(news)))
            or _authority().is_due(olds["certificate"], datetime.now(UTC))
        )
        return dynamic.DiffResult(changes=is_changed, replaces=[])

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Generate a certificate."""
        return dynamic.CreateResult("certificate", self._made(props))

    def update(self, _id: str, _olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Generate it again."""
        return dynamic.UpdateResult(self._made(news))

    def _made(self, props: Properties) -> dict[str, Any]:
        now = datetime.now(UTC)
        signer = _authority().signer(list(_issued(props)), now)
        server = _authority().issue_server(signer, props["names"], now)
        return {**props, "certificate": server.certificate, "key": server.key}


class PasswordFile(dynamic.Resource, module="caches", name="PasswordFile"):
    """The htpasswd file of the caches, which changes only when readers do."""

    content: pulumi.Output[str]
    """The file, with one line for each reader; a secret."""

    def __init__(
        self,
        name: str,
        *,
        readers: pulumi.Input[Mapping[str, pulumi.Input[str]]],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Declare an htpasswd file.

        Args:
            name: name of the resource.
            readers: the password of each reader, by user name; encrypted by Pulumi.
            opts: options of the resource.
        """
        super().__init__(
            PasswordFileProvider(),
            name,
            {"readers": pulumi.Output.secret(readers), "content": None},
            pulumi.ResourceOptions.merge(
                opts, pulumi.ResourceOptions(additional_secret_outputs=["content"])
            ),
        )


class PasswordFileProvider(dynamic.ResourceProvider):
    """Generates htpasswd files."""

    serialize_as_secret_always = False

    def configure(self, req: dynamic.ConfigureRequest) -> None:
        """Prepare the provider's process."""
        dynamic_provider.prepare(req)

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """Update in place when a reader or a password changes."""
        return dynamic.DiffResult(changes=olds["readers"] != news["readers"], replaces=[])

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Generate a file."""
        content = _authority().htpasswd(props["readers"])
        return dynamic.CreateResult("passwords", {**props, "content": content})

    def update(self, _id: str, olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Generate the lines of readers that are new or have another password."""
        content = _authority().htpasswd(news["readers"], olds["content"])
        return dynamic.UpdateResult({**news, "content": content})


def _with_next(authorities: "Sequence[Issued]", props: Properties) -> dict[str, Any]:
    made = _authority().with_next(authorities, props["commonName"], datetime.now(UTC))
    ca = "".join(one.certificate for one in made)
    return {**props, "ca": ca, "authorities": [asdict(one) for one in made]}


def _issued(props: Properties) -> "Iterator[Issued]":
    return (_authority().Issued(**one) for one in props["authorities"])


def _authority() -> ModuleType:
    """The module with cryptography, imported only in the provider's process for a fast start-up."""
    from . import certificate_authority  # noqa: PLC0415 - see above

    return certificate_authority
