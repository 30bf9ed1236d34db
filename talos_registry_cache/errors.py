"""The base class of errors that users see."""


class ReportedError(Exception):
    """A failure that the user can fix: programs print its message instead of a traceback."""
