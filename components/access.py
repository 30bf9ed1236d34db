"""Who may use the caches of a stack, and whom these trust."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi

from .certificate import OwnAuthority, OwnCertificate, PasswordFile
from .private_files import FOLDER, PrivateFile
from .settings import Caches, Secrets
from .settings.access import GivenTls, OwnTls
from .settings.storage import S3Storage
from .storage import KEYS_FILE, keys_file
from .trust import OPEN, Trust

CERTIFICATE_FILE = "server.crt"
KEY_FILE = "server.key"
PASSWORD_FILE = "readers"  # noqa: S105 - its name
AUTHORITIES_FILE = "authorities.crt"
REALM = "Registry caches"
NODES = "nodes"


@dataclass(frozen=True, slots=True)
class Access:
    """What all caches of a stack have in common, so that not everyone can use them.

    Attributes:
        files: the private files that each has.
        environment: what each registry has to be told of them.
        trust: what lets clients in.
    """

    files: Mapping[str, PrivateFile] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    trust: Trust = OPEN


def to_caches(
    stack: str, caches: Caches, secrets: Secrets, addresses: Sequence[str], parent: pulumi.Resource
) -> Access:
    """Who may use the caches of a stack.

    Args:
        stack: the stack's name.
        caches: their settings.
        secrets: the stack's secrets.
        addresses: the names and addresses at which clients reach them, whatever the settings say.
        parent: the resource that what is made for it belongs to.
    """
    child = pulumi.ResourceOptions(parent=parent)
    files: dict[str, PrivateFile] = {}
    environment: dict[str, str] = {}
    ca: pulumi.Output[str] | None = None
    match caches.tls:
        case OwnTls(names=names):
            authority = OwnAuthority(
                "authority", common_name=f"Registry caches of {stack}"[:64], opts=child
            )
            server = OwnCertificate(
                "certificate",
                names=sorted({*addresses, *names}),
                authority=authority,
                opts=child,
            )
            files |= _server_files(server.certificate, server.key)
            ca = authority.ca
        case GivenTls(certificate=certificate, ca=given):
            assert secrets.tls_key is not None  # noqa: S101 - else there were mistakes
            key = pulumi.Output.secret(secrets.tls_key.get_secret_value())
            files |= _server_files(certificate, key)
            ca = pulumi.Output.from_input(given) if given else None
    if caches.tls:
        environment |= {
            "REGISTRY_HTTP_TLS_CERTIFICATE": f"{FOLDER}/{CERTIFICATE_FILE}",
            "REGISTRY_HTTP_TLS_KEY": f"{FOLDER}/{KEY_FILE}",
        }
    if secrets.readers:
        readers = {name: one.get_secret_value() for name, one in secrets.readers.items()}
        made_file = PasswordFile("readers", readers=readers, opts=child)
        files[PASSWORD_FILE] = PrivateFile(made_file.content)
        environment |= {
            "REGISTRY_AUTH": "htpasswd",
            "REGISTRY_AUTH_HTPASSWD_REALM": REALM,
            "REGISTRY_AUTH_HTPASSWD_PATH": f"{FOLDER}/{PASSWORD_FILE}",
        }
    return Access(files, environment, Trust(ca, _reader(secrets)))


def of_caches(caches: Caches, secrets: Secrets) -> Access:
    """What the caches of a stack have to get at what they use themselves.

    Args:
        caches: their settings.
        secrets: the stack's secrets.
    """
    files: dict[str, PrivateFile] = {}
    authorities: list[str] = []
    if isinstance(caches.storage, S3Storage):
        assert secrets.s3_keys is not None  # noqa: S101 - else there were mistakes
        files[KEYS_FILE] = keys_file(secrets.s3_keys)
        authorities += [caches.storage.ca] if caches.storage.ca else []
    if caches.via and caches.via.ca:
        authorities.append(caches.via.ca)
    if not authorities:
        return Access(files)
    files[AUTHORITIES_FILE] = PrivateFile("\n".join(authorities), is_read_once=True)
    # Beside those of the image, which are in a file: Go reads both.
    return Access(files, {"SSL_CERT_DIR": FOLDER})


def _reader(secrets: Secrets) -> Mapping[str, str] | None:
    """Who nodes come as: a reader of this name, else the first one."""
    name = NODES if NODES in secrets.readers else min(secrets.readers, default=None)
    if name is None:
        return None
    return {"username": name, "password": secrets.readers[name].get_secret_value()}


def _server_files(
    certificate: pulumi.Input[str], key: pulumi.Input[str]
) -> Mapping[str, PrivateFile]:
    return {
        CERTIFICATE_FILE: PrivateFile(certificate, is_read_once=True),
        KEY_FILE: PrivateFile(key, is_read_once=True),
    }
