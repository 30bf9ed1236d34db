"""The settings of retention: which images `up` removes."""

from collections.abc import Iterator

from pydantic import Field

from .mistakes import Mistake
from .model import Context, Model, Rules
from .values import DiskSize, Period, number_of_bytes, seconds


class Retention(Model):
    """Images that `up` removes from each cache, with the content that no other image needs.

    Images that the stack declares are never removed.
    """

    unused_for: Period | None = Field(
        default=None, description="Images not requested for this long are removed, such as 720h"
    )
    max_size: DiskSize | None = Field(
        default=None,
        description=(
            "The least recently requested images are removed down to this size for each cache, "
            "such as 20g; units are powers of 1000"
        ),
    )

    @property
    def unused_for_s(self) -> float | None:
        """The period in seconds."""
        return seconds(self.unused_for) if self.unused_for else None

    @property
    def max_bytes(self) -> int | None:
        """The size in bytes."""
        return number_of_bytes(self.max_size) if self.max_size else None

    def rules(self, context: Context) -> Rules:  # noqa: ARG002 - none of it is needed
        """There is a limit."""
        return (self._has_a_limit(),)

    def _has_a_limit(self) -> Iterator[Mistake]:
        if self.unused_for is None and self.max_size is None:
            yield Mistake((), "found no limit; allowed: unusedFor, maxSize or both")
