"""What clients need to be let in by caches that are closed to strangers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi

Reader = Mapping[str, str]
"""`username` and `password` of somebody who may read."""


@dataclass(frozen=True, slots=True)
class Trust:
    """What lets clients in, the same for all caches of a stack.

    Attributes:
        ca: the certificate of the authority to trust, PEM; None where the machine's own will do.
        reader: who asks, made a secret here; None where everybody may.
    """

    ca: pulumi.Input[str] | pulumi.Output[str | None] | None = None
    reader: pulumi.Input[Reader | None] = field(default=None, repr=False)

    def inputs(self) -> dict[str, Any]:
        """The same as properties of a dynamic resource."""
        reader: Any = self.reader
        return {"ca": self.ca, "reader": None if reader is None else pulumi.Output.secret(reader)}


OPEN = Trust()
