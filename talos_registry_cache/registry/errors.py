"""Errors of registries and their content."""

from http import HTTPStatus

from talos_registry_cache.errors import ReportedError

# What a cache says if its upstream answers HEAD for a blob without a length (distribution 3.1.2).
NO_LENGTH = "missing content-length header"
# With these, it passes on that its upstream refused HEAD for a blob whose manifest it had sent.
HEAD_REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
CANNOT_BE_CACHED = (
    "a cache needs an upstream that answers HEAD for blobs with their length, unlike "
    "public.ecr.aws and registry.istio.io: remove its cache from caches.upstreams"
)
_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}


class RegistryError(ReportedError):
    """A request failed; the message says which, where and why."""

    retryable: bool = False
    """Whether the request may succeed if it is tried again soon."""

    retry_after_s: float | None = None
    """Seconds to wait before trying again, if the registry asks for it."""


class InvalidReferenceError(RegistryError, ValueError):
    """A text is not an image reference."""


class NotYamlError(RegistryError, ValueError):
    """A file is neither YAML nor JSON; the message says where."""


class PlatformError(RegistryError, ValueError):
    """A text is not a platform, or an image does not exist for a platform."""


class EndpointError(RegistryError, ValueError):
    """An image has no endpoint, or an invalid one."""


class AnswerError(RegistryError):
    """The registry answered with an error.

    Attributes:
        status: the HTTP status.
        retry_after_s: seconds that its Retry-After header asks to wait, or None.
    """

    def __init__(self, message: str, status: int, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s
        # Rate limits and failures of the registry; not refusals, nor what does not exist.
        self.retryable = (
            status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR
        ) and NO_LENGTH not in message

    @property
    def is_missing(self) -> bool:
        """Whether the registry says that the content does not exist."""
        return self.status == HTTPStatus.NOT_FOUND


class UnreachableError(RegistryError):
    """A connection could not be opened, broke, or timed out."""

    retryable = True


class ContentError(RegistryError):
    """Received content is wrong, such as its digest, its size or its format."""


class NotKeptError(RegistryError):
    """A cache passes on a blob, but does not store it."""


class SignatureError(RegistryError):
    """An image is not signed as a policy demands."""


class LockError(RegistryError):
    """A file is not a lock of images."""
