"""Certificate authorities for tests, created once per run."""

from datetime import UTC, datetime
from functools import cache

from components.certificate_authority import Issued, issue_authority


@cache
def authority(name: str) -> Issued:
    """The CA with this name."""
    return issue_authority(name, datetime.now(UTC))


AUTHORITY = authority("any")
OTHER = authority("other")
