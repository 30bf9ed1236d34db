"""Dynamic resources for TLS and readers: a certificate authority, certificates, htpasswd files.

They contain random values, which are generated once and kept in the state.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

import pulumi
from pulumi import dynamic

from . import dynamic_provider

# `up` renews a certificate this long before it expires.
RENEWED_BEFORE = timedelta(days=30)

Properties = Mapping[str, Any]


class OwnAuthority(dynamic.Resource, module="caches", name="OwnAuthority"):
    """A certificate authority of this stack alone, which clients trust."""

    ca: pulumi.Output[str]
    """The CA certificate, PEM."""

    caKey: pulumi.Output[str]  # noqa: N815 - the name of the property
    """The CA's private key, PEM; a secret."""

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
            {"commonName": common_name, "ca": None, "caKey": None},
            pulumi.ResourceOptions.merge(
                opts, pulumi.ResourceOptions(additional_secret_outputs=["caKey"])
            ),
        )


class OwnAuthorityProvider(dynamic.ResourceProvider):
    """Generates authorities. It contacts nothing, so it is never simulated."""

    serialize_as_secret_always = False

    def configure(self, req: dynamic.ConfigureRequest) -> None:
        """Prepare the provider's process."""
        dynamic_provider.prepare(req, _authority().CertificateError)

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """Replace an authority whose name changes, and renew one that expires soon."""
        is_renamed = olds["commonName"] != news["commonName"]
        return dynamic.DiffResult(
            changes=is_renamed or _is_due(olds["ca"]),
            replaces=["commonName"] if is_renamed else [],
        )

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Generate an authority."""
        return dynamic.CreateResult("authority", self._made(props))

    def update(self, _id: str, _olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Generate it again."""
        return dynamic.UpdateResult(self._made(news))

    def _made(self, props: Properties) -> dict[str, Any]:
        made = _authority().issue_authority(props["commonName"], datetime.now(UTC))
        return {**props, "ca": made.certificate, "caKey": made.key}


class OwnCertificate(dynamic.Resource, module="caches", name="OwnCertificate"):
    """A server's certificate, signed by the stack's own authority.

    `up` renews it in place when its names change or it expires soon. The authority is a separate
    resource, so that a preview knows that clients keep trusting the same one.
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
            authority: the authority that signs it.
            opts: options of the resource.
        """
        inputs = {"names": names, "ca": authority.ca, "caKey": authority.caKey}
        super().__init__(
            OwnCertificateProvider(),
            name,
            {**inputs, "certificate": None, "key": None},
            pulumi.ResourceOptions.merge(
                opts, pulumi.ResourceOptions(additional_secret_outputs=["caKey", "key"])
            ),
        )


class OwnCertificateProvider(dynamic.ResourceProvider):
    """Generates certificates. It contacts nothing, so it is never simulated."""

    serialize_as_secret_always = False

    def configure(self, req: dynamic.ConfigureRequest) -> None:
        """Prepare the provider's process."""
        dynamic_provider.prepare(req, _authority().CertificateError)

    def check(self, _olds: Properties, news: Properties) -> dynamic.CheckResult:
        """Refuse invalid names before anything is touched."""
        authority, failures = _authority(), []
        if pulumi.runtime.rpc.UNKNOWN not in (news["names"], *news["names"]):
            try:
                authority.check_names(news["names"])
            except authority.CertificateError as error:
                failures = [dynamic.CheckFailure("names", str(error))]
        return dynamic.CheckResult(dict(news), failures)

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """Update in place when an input changes or the certificate expires soon."""
        is_changed = any(olds[key] != news[key] for key in ("names", "ca"))
        return dynamic.DiffResult(changes=is_changed or _is_due(olds["certificate"]), replaces=[])

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Generate a certificate."""
        return dynamic.CreateResult("certificate", self._made(props))

    def update(self, _id: str, _olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Generate it again."""
        return dynamic.UpdateResult(self._made(news))

    def _made(self, props: Properties) -> dict[str, Any]:
        authority = _authority().Issued(props["ca"], props["caKey"])
        server = _authority().issue_server(authority, props["names"], datetime.now(UTC))
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
        dynamic_provider.prepare(req, _authority().CertificateError)

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """Update in place when an input changes or the certificate expires soon."""
        return dynamic.DiffResult(changes=olds["readers"] != news["readers"], replaces=[])

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Generate a file."""
        content = _authority().htpasswd(props["readers"])
        return dynamic.CreateResult("passwords", {**props, "content": content})

    def update(self, _id: str, olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Generate the lines of readers that are new or have another password."""
        content = _authority().htpasswd(news["readers"], olds["content"])
        return dynamic.UpdateResult({**news, "content": content})


def _is_due(certificate: str) -> bool:
    ends: datetime = _authority().expires(certificate)
    return ends - datetime.now(UTC) < RENEWED_BEFORE


def _authority() -> ModuleType:
    """The module with cryptography, imported only in the provider's process for a fast start-up."""
    from . import certificate_authority  # noqa: PLC0415 - see above

    return certificate_authority
