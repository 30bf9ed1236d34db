"""What clients need to use caches that have TLS or readers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi

Reader = Mapping[str, str]
"""`username` and `password` of a user who may read."""


@dataclass(frozen=True, slots=True)
class Trust:
    """The CA to trust and the user to log in as, the same for all caches of a stack.

    Attributes:
        ca: certificate of the CA, PEM; None where clients know it already.
        reader: user that nodes log in as, encrypted by Pulumi; None where everyone may read.
    """

    ca: pulumi.Input[str] | pulumi.Output[str | None] | None = None
    reader: pulumi.Output[Any] | Reader | None = field(default=None, repr=False)

    def inputs(self) -> dict[str, Any]:
        """The same as properties of a dynamic resource."""
        return {
            "ca": self.ca,
            "reader": None if self.reader is None else pulumi.Output.secret(self.reader),
        }


OPEN = Trust()
