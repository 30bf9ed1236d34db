"""Errors and exit codes of commands."""

from enum import IntEnum

from talos_registry_cache.errors import ReportedError


class ExitCode(IntEnum):
    """Exit codes.

    Attributes:
        OK: success.
        FAILED: failure.
        USAGE: wrong usage; nothing was changed.
        NOT_ALL_THERE: the command ran, and something is missing, damaged or unhealthy.
        INTERRUPTED: Ctrl-C or SIGTERM.
    """

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_ALL_THERE = 3
    INTERRUPTED = 130


class CachectlError(ReportedError):
    """A failure that the user can fix; the message says what was found and what to do."""


class UsageError(CachectlError):
    """The command line is wrong; the message says what is allowed."""
