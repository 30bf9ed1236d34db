"""What can go wrong between this machine and a registry."""

from http import HTTPStatus

_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}


class RegistryError(Exception):
    """What was asked for could not be had; the message says what, where and why."""

    retryable: bool = False
    """Whether the same request may succeed a little later."""

    retry_after_s: float | None = None
    """How long the registry asks to be left alone, in seconds, where it says so."""


class InvalidReferenceError(RegistryError, ValueError):
    """The text is no image reference."""


class PlatformError(RegistryError, ValueError):
    """The text is no platform, or an image does not exist for the platform."""


class EndpointError(RegistryError, ValueError):
    """There is no usable endpoint for an image."""


class AnswerError(RegistryError):
    """The registry answered with an error.

    Attributes:
        status: the HTTP status.
        retry_after_s: what its Retry-After header asks for, in seconds, or None.
    """

    def __init__(self, message: str, status: int, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s
        # Too many requests, and the registry's own failures; never a refusal or an absence.
        self.retryable = status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR

    @property
    def is_missing(self) -> bool:
        """Whether the registry says that it does not have it."""
        return self.status == HTTPStatus.NOT_FOUND


class UnreachableError(RegistryError):
    """The connection could not be made, broke, or stayed silent for too long."""

    retryable = True


class ContentError(RegistryError):
    """What came is not what was asked for: wrong digest, wrong size, not a manifest."""


class NotKeptError(RegistryError):
    """A cache passes a blob on and does not keep it."""
