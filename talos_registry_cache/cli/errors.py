"""What ends a command, and with which code."""

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended.

    Attributes:
        OK: as it should.
        FAILED: it could not be done.
        USAGE: it was asked for in a way that makes no sense; nothing was touched.
        NOT_ALL_THERE: it was done, and something is missing or damaged.
        INTERRUPTED: by Ctrl-C or SIGTERM.
    """

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_ALL_THERE = 3
    INTERRUPTED = 130


class CachectlError(Exception):
    """Something that a person can put right; the message says what was found and what to do."""


class UsageError(CachectlError):
    """The command line makes no sense; the message says what is allowed."""
