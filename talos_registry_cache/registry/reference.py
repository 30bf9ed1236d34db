"""Image references.

The grammar is that of the distribution project's reference package, and short names are Docker's:
`nginx` is `docker.io/library/nginx:latest`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from talos_registry_cache.registry.errors import InvalidReferenceError

DOCKER_HUB = "docker.io"
NAME_LIMIT = 255
HOST_LIMIT = 253
HIGHEST_PORT = 65535
LONGEST_SHOWN = 120
SHORT_DIGEST = len("sha256:") + 12

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = re.compile(
    rf"(?P<host>{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::(?P<port>[0-9]{{1,5}}))?"
)
_HOST_SIGN = re.compile(r"[.:\[]")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """An image reference; `str()` gives the canonical form.

    Attributes:
        registry: the registry host, with its port if there is one.
        repository: the repository.
        tag: the tag, or None if there is only a digest.
        digest: the digest, or None.
    """

    registry: str
    repository: str
    tag: str | None
    digest: str | None

    def __str__(self) -> str:
        """REGISTRY/REPOSITORY[:TAG][@DIGEST]."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"

    @property
    def target(self) -> str:
        """The tag or digest to request; the digest if there is one, as in containerd."""
        return self.digest or self.tag or "latest"


def parse(text: str) -> Reference:
    """Parse an image reference.

    Args:
        text: `[HOST[:PORT]/]NAME[:TAG][@sha256:HEX]`.

    Raises:
        InvalidReferenceError: the text is not a reference; the message names the wrong part.
    """
    name, has_digest, digest = text.partition("@")
    # A colon after the last slash starts a tag; any other one, a port.
    slash = name.rfind("/")
    colon = name.find(":", slash + 1)
    path, tag = (name, None) if colon < 0 else (name[:colon], name[colon + 1 :])
    registry, repository = _split_registry(path)

    if not _is_host(registry):
        raise _refusal(text, "registry", registry, "HOST or HOST:PORT")
    if not _REPOSITORY.fullmatch(repository):
        allowed = "lowercase letters and digits, separated by '/', '.', '_', '__' or dashes"
        raise _refusal(text, "repository", repository, allowed)
    if len(repository) > NAME_LIMIT:
        raise _refusal(text, "repository", repository, f"at most {NAME_LIMIT} characters")
    if tag is not None and not _TAG.fullmatch(tag):
        allowed = "at most 128 letters, digits, '_', '.' and '-', not starting with '.' or '-'"
        raise _refusal(text, "tag", tag, allowed)
    if has_digest and not is_digest(digest):
        raise _refusal(text, "digest", digest, "sha256: and 64 lowercase hexadecimal digits")
    if not has_digest:
        return Reference(registry, repository, tag or "latest", None)
    return Reference(registry, repository, tag, digest)


def listed(text: str) -> Iterator[tuple[int, str]]:
    """Read a list of images: one per line; `#` at the start of a word starts a comment.

    Args:
        text: the content of the file.

    Yields:
        The number of each line that names an image, and its text before any comment.
    """
    for number, line in enumerate(text.splitlines(), start=1):
        if name := re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip():
            yield number, name


def short(digest: str) -> str:
    """The beginning of a digest, as people compare it: sha256: and 12 hexadecimal digits."""
    return digest[:SHORT_DIGEST]


def is_digest(text: str) -> bool:
    """Whether a text is a sha256 digest, the only kind in use."""
    return _DIGEST.fullmatch(text) is not None


def _is_host(registry: str) -> bool:
    found = _HOST.fullmatch(registry)
    if found is None:
        return False
    is_port = int(found["port"] or 0) <= HIGHEST_PORT
    return is_port and len(found["host"]) <= HOST_LIMIT


def _split_registry(path: str) -> tuple[str, str]:
    """Split a name as Docker does: a first part that looks like a host is the registry."""
    first, slash, rest = path.partition("/")
    is_host = slash and (first == "localhost" or first != first.lower() or _HOST_SIGN.search(first))
    registry, repository = (first, rest) if is_host else (DOCKER_HUB, path)
    if registry == "index.docker.io":
        registry = DOCKER_HUB
    if registry == DOCKER_HUB and repository and "/" not in repository:
        repository = f"library/{repository}"
    return registry, repository


def _refusal(text: str, part: str, found: str, allowed: str) -> InvalidReferenceError:
    return InvalidReferenceError(
        f"{_cut(text)} is not an image reference: its {part} is {_cut(found)}; allowed: {allowed}"
    )


def _cut(text: str) -> str:
    return repr(text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…")
