"""Who may use the caches, and credentials the caches use for storage and parent caches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi

from . import front
from .certificate import OwnAuthority, OwnCertificate, PasswordFile
from .private_files import FOLDER, PrivateFile
from .registry_cache_args import RegistryCacheArgs, output
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
        front_files: the files that their fronts read, by name.
        environment: environment variables that tell the registry of these files.
        trust: what clients need.
    """

    files: Mapping[str, PrivateFile] = field(default_factory=dict)
    server_files: Mapping[str, PrivateFile] = field(default_factory=dict)
    front_files: Mapping[str, PrivateFile] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    trust: Trust = OPEN


def declare(args: RegistryCacheArgs, addresses: Sequence[str], parent: pulumi.Resource) -> Access:
    """Declare TLS and readers of the caches, and the credentials that the caches use.

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
    front_files = (
        front.files(args.fronts, server_files, readers=args.readers != {}) if args.fronts else {}
    )
    own_files, own_environment = _for_caches(args)
    return Access(
        files=files | own_files,
        server_files=server_files,
        front_files=front_files,
        environment=environment | own_environment,
        trust=Trust(ca, reader),
    )


def _for_caches(args: RegistryCacheArgs) -> tuple[dict[str, PrivateFile], dict[str, str]]:
    """Files and variables with the credentials and CAs for storage and parent caches."""
    files: dict[str, PrivateFile] = {}
    authorities: list[str] = []
    if isinstance(args.storage, S3Storage):
        assert args.s3_keys is not None  # noqa: S101 - the arguments were checked
        credentials = s3_credentials(output(args.s3_keys))
        files[KEYS_FILE] = PrivateFile(credentials.apply(lambda known: known.file))
        authorities += [args.storage.ca] if args.storage.ca else []
    if args.via and args.via.ca:
        authorities.append(args.via.ca)
    if not authorities:
        return files, {}
    files[AUTHORITIES_FILE] = PrivateFile("\n".join(authorities), is_read_once=True)
    # In addition to the image's own CAs, which are in a file: Go reads both.
    return files, {"SSL_CERT_DIR": FOLDER}


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
