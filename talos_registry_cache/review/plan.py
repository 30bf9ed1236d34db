"""Reads the events of a `pulumi preview` into changed resources."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from talos_registry_cache.review.model import Change, Fate, Operation, PropertyChange

if TYPE_CHECKING:
    # It takes a third of a second to import, and the events are only read here.
    from pulumi.automation.events import OpType, StepEventMetadata, StepEventStateMetadata

SECRET = "[secret]"  # noqa: S105 - shown in place of one
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"

CREDENTIALS = "talos-registry-cache:caches:CredentialHelper"
VOLUME = "docker:index/volume:Volume"
# The end of the name of a volume that a front shares with its registry. All of it is cached anew.
OF_FRONT = "-front"
CLUSTER = "pulumi-python:dynamic/clusters:LocalCluster"
CACHED_IMAGES = "pulumi-python:dynamic/images:CachedImages"
# Its lists whose order makes no difference.
UNORDERED = ("images", "platforms")
LOCKED = "locked"
_BOOKKEEPING = ("pulumi:pulumi:Stack", "pulumi:providers:")

# The key that marks a mapping as a special value, and its value for a secret.
_SIGNATURE = "4dabf18193072939515e22adb298388d"
_SECRET_SIGNATURE = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - the same in every state

_OPERATIONS = {
    "create": Operation.CREATE,
    "import": Operation.CREATE,
    "update": Operation.UPDATE,
    "replace": Operation.REPLACE,
    "create-replacement": Operation.REPLACE,
    "delete-replaced": Operation.REPLACE,
    "import-replacement": Operation.REPLACE,
    "delete": Operation.DELETE,
}


def changes(steps: "Iterable[StepEventMetadata]") -> list[Change]:
    """Return the changed resources, in the order of Pulumi's events."""
    found: dict[str, Change] = {}
    for step in steps:
        change = _change(step)
        if change and not change.type.startswith(_BOOKKEEPING):
            # A replacement takes several steps, and not all of them have the properties.
            known = found.get(step.urn)
            found[step.urn] = known if known and known.properties else change
    return list(found.values())


def is_complete(steps: "Iterable[StepEventMetadata]", summary: "Mapping[OpType, int]") -> bool:
    """Whether the events have all operations in Pulumi's summary.

    The Automation API drops an event that it cannot read, and only warns.
    """
    return Counter(step.op for step in steps) >= Counter(summary)


def differing(old: Any, new: Any, path: str = "") -> Iterator[PropertyChange]:
    """Yield the leaves at which two values differ, except Pulumi's own keys (`__…`)."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in (*old, *(key for key in new if key not in old)):
            if not str(key).startswith("__"):
                yield from differing(old.get(key), new.get(key), _below(path, str(key)))
    elif isinstance(old, list) and isinstance(new, list):
        for index in range(max(len(old), len(new))):
            yield from differing(_at(old, index), _at(new, index), f"{path}[{index}]")
    elif old != new:
        yield PropertyChange(path, old, new)


def _differing_inputs(
    kind: str, old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[PropertyChange]:
    unordered = UNORDERED if kind.endswith(CACHED_IMAGES) else ()
    for key in unordered:
        yield from _members(old.get(key) or [], new.get(key) or [], key)
    before, after = (
        {key: inner for key, inner in inputs.items() if key not in unordered}
        for inputs in (old, new)
    )
    yield from differing(before, after)


def _members(old: Any, new: Any, path: str) -> Iterator[PropertyChange]:
    """Yield what only one of two lists has: with indexes, all after an added one would differ."""
    if not (isinstance(old, list) and isinstance(new, list)):
        yield from differing(old, new, path)
        return
    yield from (PropertyChange(path, one, None) for one in old if one not in new)
    yield from (PropertyChange(path, None, one) for one in new if one not in old)


def _change(step: "StepEventMetadata") -> Change | None:
    old, new = step.old, step.new
    was_kept, is_kept = (bool(state and state.retain_on_delete) for state in (old, new))
    is_kept_differently = bool(old and new and was_kept != is_kept)
    operation = _OPERATIONS.get(step.op)
    if operation is None:
        if not is_kept_differently:
            return None
        # Pulumi reports a changed resource option as no change.
        operation = Operation.UPDATE
    *_, kind, name = step.urn.split("::", 3)
    properties: list[PropertyChange] = []
    if old and new:
        properties = [*_properties(step, kind, _inputs(old), _inputs(new))]
    if is_kept_differently:
        properties.append(PropertyChange("(kept when deleted)", was_kept, is_kept))
    on_engine = str(_inputs(old).get("name", ""))
    fate = _fate(operation, kind, name, is_kept=was_kept)
    return Change(name, kind, operation, properties, fate, on_engine)


def _properties(
    step: "StepEventMetadata", kind: str, old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[PropertyChange]:
    reasons = step.keys or []
    reported = list(step.detailed_diff or {})
    shown = set()
    for change in _reported(list(_differing_inputs(kind, old, new)), reported):
        shown.add(top(change.path))
        yield PropertyChange(change.path, change.old, change.new, top(change.path) in reasons)
    # A secret is hidden on both sides, and only the provider reports that it differs.
    for key in map(top, [*reported, *reasons]):
        if key not in shown and SECRET in {str(old.get(key)), str(new.get(key))}:
            shown.add(key)
            yield PropertyChange(key, SECRET, SECRET, key in reasons)


def _reported(found: Sequence[PropertyChange], reported: Sequence[str]) -> Iterator[PropertyChange]:
    """Yield the differences that the provider reports, or all of them if it reports none.

    The provider knows, for example, in which lists the order does not matter.
    """
    exact = [change for change in found if any(_overlap(change.path, path) for path in reported)]
    by_name = {top(path) for path in reported} - {top(change.path) for change in exact}
    for change in found:
        if not reported or change in exact or top(change.path) in by_name:
            yield change


def _fate(operation: Operation, kind: str, name: str, *, is_kept: bool) -> Fate:
    *parents, own = kind.split("$")
    is_storage = own == VOLUME and CREDENTIALS not in parents and not name.endswith(OF_FRONT)
    holds_data = own == CLUSTER or is_storage
    if not holds_data or operation not in {Operation.REPLACE, Operation.DELETE}:
        return Fate.NO_DATA
    return Fate.KEPT if is_kept else Fate.LOST


def _inputs(state: "StepEventStateMetadata | None") -> Mapping[str, Any]:
    inputs: Mapping[str, Any] = _without_secrets(state.inputs or {}) if state else {}
    return inputs


def _without_secrets(value: Any) -> Any:
    """Return a value with SECRET in place of each secret, which Pulumi has blinded already."""
    if isinstance(value, Mapping):
        if value.get(_SIGNATURE) == _SECRET_SIGNATURE:
            return SECRET
        return {key: _without_secrets(inner) for key, inner in value.items()}
    return [_without_secrets(inner) for inner in value] if isinstance(value, list) else value


def top(path: str) -> str:
    """The input that a path leads into."""
    return path.partition(".")[0].partition("[")[0]


def _overlap(path: str, other: str) -> bool:
    """Whether two paths are the same, or one leads to the other."""
    shorter, longer = sorted((path, other), key=len)
    return longer.startswith(shorter) and longer[len(shorter) :][:1] in {"", ".", "["}


def _below(path: str, key: str) -> str:
    if re.search(r'[."\[]', key):
        return f"{path}[{json.dumps(key)}]"
    return f"{path}.{key}" if path else key


def _at(values: list[Any], index: int) -> Any:
    return values[index] if index < len(values) else None
