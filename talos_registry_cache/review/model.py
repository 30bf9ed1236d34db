"""The result of a preview: the changes to each stack, and whether they lose data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from talos_registry_cache.errors import ReportedError
from talos_registry_cache.registry.image_lock import Difference


class ReviewError(ReportedError):
    """A mistake that the user can correct; the message says what was found and what to do."""


class Operation(Enum):
    """What happens to a resource; the value is the verb for it."""

    CREATE = "create"
    UPDATE = "update"
    REPLACE = "replace"
    DELETE = "delete"


class Fate(Enum):
    """What happens to the data of a resource that is replaced or deleted."""

    NO_DATA = "holds no data, or data that is created again"
    KEPT = "stays on the engine"
    LOST = "is lost"


@dataclass(frozen=True, slots=True)
class PropertyChange:
    """A changed property.

    Attributes:
        path: its path, such as `ports[0].external`.
        old: the value before, or None if it was not set.
        new: the value after, or None if it is no longer set.
        replaces: whether the change replaces the resource.
    """

    path: str
    old: Any
    new: Any
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """A changed resource.

    Attributes:
        name: its name in the program.
        type: its type, preceded by the types of its parents.
        operation: what happens to it.
        properties: the properties that change.
        fate: what happens to its data.
        on_engine: its name on the engine, or "" if it has none.
    """

    name: str
    type: str
    operation: Operation
    properties: Sequence[PropertyChange]
    fate: Fate
    on_engine: str = ""


@dataclass(frozen=True, slots=True)
class LockChange:
    """What the change does to the lock of a stack's images.

    Attributes:
        in_base: whether the base has a lock.
        in_head: whether the change has one.
        difference: the images that it adds, moves and removes.
        grown: bytes that other images need more, such as for another platform.
        mistakes: why the lock of the base or of the change is invalid; there is no difference then.
    """

    in_base: bool = True
    in_head: bool = True
    difference: Difference = field(default_factory=lambda: Difference({}, {}, {}))
    grown: int = 0
    mistakes: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes that a machine fetches at most."""
        return self.difference.size + self.grown


@dataclass(frozen=True, slots=True)
class StackPreview:
    """What the change would do to one stack.

    Attributes:
        stack: the stack's name.
        changes: its changed resources.
        failure: why the preview failed, or None if it succeeded.
        notes: remarks for the report, in Markdown.
        diff: the diff that Pulumi prints.
        is_compared: whether the stack was compared with the base at all.
        lock: what the change does to the lock of its images, or None if nothing.
    """

    stack: str
    changes: Sequence[Change] = ()
    failure: str | None = None
    notes: Sequence[str] = ()
    diff: str = ""
    is_compared: bool = True
    lock: LockChange | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """What the change would do to every affected stack.

    Attributes:
        branch: the base branch, as the user named it.
        base: the commit where the change left that branch.
        stacks: the preview of each affected stack.
        notes: remarks for the report, in Markdown.
    """

    branch: str
    base: str
    stacks: Sequence[StackPreview]
    notes: Sequence[str] = ()

    @property
    def has_failed(self) -> bool:
        """Whether the preview of a stack failed."""
        return any(stack.failure is not None for stack in self.stacks)

    @property
    def changes(self) -> list[Change]:
        """The changed resources of all stacks."""
        return [change for stack in self.stacks for change in stack.changes]

    @property
    def loses_data(self) -> bool:
        """Whether the change would lose data."""
        return any(change.fate is Fate.LOST for change in self.changes)
