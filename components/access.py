"""Who may use the caches, whom the caches trust, and their credentials for the storage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi

from .certificate import OwnAuthority, OwnCertificate, PasswordFile
from .private_files import FOLDER, PrivateFile
from .registry_cache_args import RegistryCacheArgs, output
from .settings import Caches
from .settings.access import GivenTls, OwnTls
from .settings.storage import S3Storage
from .storage import KEYS_FILE, s3_credentials
from .trust import OPEN, Reader, Trust

SERVER_FILE = "server.pem"
PASSWORD_FILE = "readers"  # noqa: S105 - its name
AUTHORITIES_FILE = "authorities.crt"
REALM = "Registry caches"
NODES = "nodes"


@dataclass(frozen=True, slots=True)
class Access:
    """What all caches of a stack share.

    Attributes:
        files: their private files, by name.
        server_files: the file with certificate and key, for TLS.
        environment: environment variables that tell the registry of these files.
        trust: what clients need.
    """

    files: Mapping[str, PrivateFile] = field(default_factory=dict)
    server_files: Mapping[str, PrivateFile] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    trust: Trust = OPEN


def declare(args: RegistryCacheArgs, addresses: Sequence[str], parent: pulumi.Resource) -> Access:
    """Declare TLS and readers of the caches, and their credentials for the storage.

    Args:
        args: the arguments of the caches.
        addresses: names and addresses at which clients reach the caches, beside `tls.names`.
        parent: the parent of the resources that are declared here.
    """
    child = pulumi.ResourceOptions(parent=parent)
    files: dict[str, PrivateFile] = {}
    server_files: Mapping[str, PrivateFile] = {}
    environment: dict[str, str] = {}
    ca: pulumi.Output[str] | None = None
    match args.tls:
        case OwnTls(names=names):
            common_name = f"Registry caches of {pulumi.get_stack()}"[:64]
            authority = OwnAuthority("authority", common_name=common_name, opts=child)
            server = OwnCertificate(
                "certificate",
                names=sorted({*addresses, *names}),
                authority=authority,
                opts=child,
            )
            server_files = _server_files(server.certificate, server.key)
            ca = authority.ca
        case GivenTls(certificate=certificate, ca=given):
            server_files = _server_files(certificate, output(args.tls_key))
            ca = pulumi.Output.from_input(given) if given else None
    if server_files and args.fronts is None:
        files |= server_files
        environment |= {
            "REGISTRY_HTTP_TLS_CERTIFICATE": f"{FOLDER}/{SERVER_FILE}",
            "REGISTRY_HTTP_TLS_KEY": f"{FOLDER}/{SERVER_FILE}",
        }
    reader: pulumi.Output[Reader] | None = None
    # An output counts as one with readers: it decides which resources there are.
    if args.readers != {}:
        readers = output(args.readers)
        reader = readers.apply(_reader)
        htpasswd = PasswordFile("readers", readers=readers, opts=child)
        files[PASSWORD_FILE] = PrivateFile(htpasswd.content)
        environment |= {
            "REGISTRY_AUTH": "htpasswd",
            "REGISTRY_AUTH_HTPASSWD_REALM": REALM,
            "REGISTRY_AUTH_HTPASSWD_PATH": f"{FOLDER}/{PASSWORD_FILE}",
        }
    if args.s3_keys is not None:
        credentials = s3_credentials(output(args.s3_keys))
        files[KEYS_FILE] = PrivateFile(credentials.apply(lambda known: known.file))
    return Access(
        files=files,
        server_files=server_files,
        environment=environment,
        trust=Trust(ca, reader),
    )


def authorities(args: Caches, host: str | None = None) -> str:
    """CAs in PEM that a cache trusts in addition to the public CAs in its image; may be empty.

    Args:
        args: the settings of the caches.
        host: the registry host of the cache; None for the CAs that all caches trust.
    """
    given = [
        args.storage.ca if isinstance(args.storage, S3Storage) else None,
        args.proxy.ca if args.proxy else None,
    ]
    if host is not None:
        parent = args.via if args.via and host in args.via.mirrors else None
        given.append(parent.ca if parent else args.upstreams[host].ca)
    return "\n".join(filter(None, given))


def _reader(readers: Mapping[str, str]) -> Reader:
    """The user that nodes log in as: `nodes`, or else the first."""
    name = NODES if NODES in readers else min(readers)
    return {"username": name, "password": readers[name]}


def _server_files(
    certificate: pulumi.Input[str], key: pulumi.Input[str]
) -> Mapping[str, PrivateFile]:
    """Certificate and key in one file, so that a front never reads a key of another certificate.

    nginx reads it at each TLS handshake, so a renewed certificate replaces no front.
    """
    both = pulumi.Output.concat(certificate, "\n", key)
    return {SERVER_FILE: PrivateFile(both)}
