"""Errors of talosctl and its clusters."""

from talos_registry_cache.errors import ReportedError


class TalosError(ReportedError):
    """An error that the user can fix; the message says what was found and what to do."""


class SpecError(TalosError):
    """No version of talosctl can create the cluster."""


class UnsupportedError(TalosError):
    """This version of talosctl cannot do this; the message names the versions that can."""


class TakenError(TalosError):
    """A name is already in use."""


class CommandError(TalosError):
    """A program could not be run, failed, took too long or was stopped."""
