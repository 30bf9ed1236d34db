"""What Pulumi would do to a stack, read from `pulumi preview --json --show-sames`."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

SECRET = "[secret]"  # noqa: S105 - what Pulumi shows in place of one
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"

CREDENTIALS = "talos-registry-cache:caches:CredentialHelper"
VOLUME = "docker:index/volume:Volume"
CLUSTER = "pulumi-python:dynamic/clusters:LocalCluster"
_BOOKKEEPING = ("pulumi:pulumi:Stack", "pulumi:providers:")


class Operation(Enum):
    """What happens to a resource; the value is the word for it."""

    CREATE = "create"
    UPDATE = "update"
    REPLACE = "replace"
    DELETE = "delete"


class Fate(Enum):
    """What becomes of the data that a resource holds, where it is replaced or deleted."""

    NO_DATA = "it holds none, or none that is not made again"
    KEPT = "it stays on the engine"
    LOST = "it is lost"


@dataclass(frozen=True, slots=True)
class PropertyChange:
    """A property that differs.

    Attributes:
        path: where it is, such as `ports[0].external`.
        old: its value, or None where there was none.
        new: its value, or None where there is none any more.
        replaces: whether the resource is replaced because of it.
    """

    path: str
    old: Any
    new: Any
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to one resource.

    Attributes:
        name: its name in the program.
        type: its type, with those of the components around it.
        operation: what happens.
        properties: what differs.
        fate: what becomes of its data.
        on_engine: its name on the engine, where it has one.
    """

    name: str
    type: str
    operation: Operation
    properties: Sequence[PropertyChange]
    fate: Fate
    on_engine: str = ""


class _State(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    inputs: dict[str, Any] = {}
    retain_on_delete: bool = Field(default=False, alias="retainOnDelete")


class _Step(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    op: str
    urn: str
    old: _State | None = Field(default=None, alias="oldState")
    new: _State | None = Field(default=None, alias="newState")
    replace_reasons: list[str] | None = Field(default=None, alias="replaceReasons")
    detailed_diff: dict[str, Any] | None = Field(default=None, alias="detailedDiff")


class _Diagnostic(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    message: str
    severity: str


class _Preview(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    steps: list[_Step] = []
    diagnostics: list[_Diagnostic] = []


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


def changes(printed: str) -> list[Change]:
    """What would happen to each resource, in the order in which Pulumi tells it.

    Args:
        printed: the JSON that Pulumi has printed.
    """
    found: dict[str, Change] = {}
    for step in _Preview.model_validate_json(printed).steps:
        change = _change(step)
        if change and not step.urn.split("::")[2].startswith(_BOOKKEEPING):
            # A replacement is told in several steps, of which one has the properties.
            known = found.get(step.urn)
            found[step.urn] = known if known and known.properties else change
    return list(found.values())


def errors(printed: str) -> list[str]:
    """The errors that Pulumi has printed, without those that only say that there were some."""
    messages = [
        diagnostic.message.removeprefix("error: ").strip()
        for diagnostic in _Preview.model_validate_json(printed).diagnostics
        if diagnostic.severity == "error"
    ]
    telling = [text for text in messages if not text.startswith("an unhandled error occurred")]
    return telling or messages


def differing(old: Any, new: Any, path: str = "") -> Iterator[PropertyChange]:
    """The leaves at which two values differ; Pulumi's own keys (`__…`) are left out."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in (*old, *(key for key in new if key not in old)):
            if not str(key).startswith("__"):
                yield from differing(old.get(key), new.get(key), _below(path, str(key)))
    elif isinstance(old, list) and isinstance(new, list):
        for index in range(max(len(old), len(new))):
            yield from differing(_at(old, index), _at(new, index), f"{path}[{index}]")
    elif old != new:
        yield PropertyChange(path, old, new)


def _change(step: _Step) -> Change | None:
    old, new = step.old or _State(), step.new or _State()
    operation = _OPERATIONS.get(step.op)
    is_kept_differently = bool(
        step.old and step.new and old.retain_on_delete != new.retain_on_delete
    )
    if operation is None and not is_kept_differently:
        return None
    properties: list[PropertyChange] = []
    if step.old and step.new:
        properties = [*_properties(step, old, new)]
        if is_kept_differently:
            kept = PropertyChange("(kept when deleted)", old.retain_on_delete, new.retain_on_delete)
            properties.append(kept)
    kind, name = step.urn.split("::")[2], step.urn.split("::", 3)[3]
    # Pulumi takes a changed option for no change at all.
    happens = operation or Operation.UPDATE
    on_engine = str(old.inputs.get("name", ""))
    return Change(name, kind, happens, properties, _fate(happens, kind, old), on_engine)


def _properties(step: _Step, old: _State, new: _State) -> Iterator[PropertyChange]:
    reasons = set(step.replace_reasons or [])
    told = list(step.detailed_diff or {})
    shown = set()
    for change in _as_told([*differing(old.inputs, new.inputs)], told):
        shown.add(_top(change.path))
        replaces = _top(change.path) in reasons
        yield PropertyChange(change.path, change.old, change.new, replaces)
    # A secret that differs is hidden on both sides, and only the provider tells that it does.
    for path in [*told, *(step.replace_reasons or [])]:
        top = _top(path)
        if top not in shown and SECRET in {str(old.inputs.get(top)), str(new.inputs.get(top))}:
            shown.add(top)
            yield PropertyChange(top, SECRET, SECRET, top in reasons)


def _as_told(found: Sequence[PropertyChange], told: Sequence[str]) -> Iterator[PropertyChange]:
    """The differences that a provider counts as some; all of them where it does not tell.

    It knows, for one, in which lists the order means nothing.
    """
    exact = [change for change in found if any(_overlap(change.path, path) for path in told)]
    covered = {_top(change.path) for change in exact}
    by_name = {_top(path) for path in told} - covered
    for change in found:
        if not told or change in exact or _top(change.path) in by_name:
            yield change


def _fate(operation: Operation, kind: str, old: _State) -> Fate:
    own = kind.rpartition("$")[2]
    is_volume = own == VOLUME and CREDENTIALS not in kind.split("$")
    if operation not in {Operation.REPLACE, Operation.DELETE}:
        return Fate.NO_DATA
    if own != CLUSTER and not is_volume:
        return Fate.NO_DATA
    return Fate.KEPT if old.retain_on_delete else Fate.LOST


def _top(path: str) -> str:
    return path.partition(".")[0].partition("[")[0]


def _overlap(path: str, other: str) -> bool:
    """Whether one of two paths is the other, or leads to it."""
    shorter, longer = sorted((path, other), key=len)
    return longer.startswith(shorter) and longer[len(shorter) :][:1] in {"", ".", "["}


def _below(path: str, key: str) -> str:
    if re.search(r'[."\[]', key):
        return f"{path}[{json.dumps(key)}]"
    return f"{path}.{key}" if path else key


def _at(values: list[Any], index: int) -> Any:
    return values[index] if index < len(values) else None
