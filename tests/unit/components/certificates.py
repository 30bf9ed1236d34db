"""Certificates that can be read, with their keys; each is made once in a run."""

from datetime import UTC, datetime
from functools import cache

from components.certificate_authority import Issued, issue_authority


@cache
def authority(name: str) -> Issued:
    """An authority of this name."""
    return issue_authority(name, datetime.now(UTC))


AUTHORITY = authority("any")
OTHER = authority("other")
