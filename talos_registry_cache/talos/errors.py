"""What can go wrong with talosctl and its clusters."""


class TalosError(Exception):
    """Something that a person can put right; the message says what was found and what to do."""


class SpecError(TalosError):
    """What is wanted of a cluster makes no sense in any version of talosctl."""


class UnsupportedError(TalosError):
    """This version of talosctl cannot do what is wanted; the message names those that can."""


class TakenError(TalosError):
    """A name that is needed belongs to somebody else."""


class CommandError(TalosError):
    """A program could not be run, failed, took too long or was stopped."""
