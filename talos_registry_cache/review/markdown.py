"""The report of a preview, as it stands in a pull request."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from talos_registry_cache.review import plan
from talos_registry_cache.review.plan import Change, Fate, Operation, PropertyChange
from talos_registry_cache.review.preview import Preview, StackPreview

MARKER = "<!-- talos-registry-cache: preview of the change -->"
"""The first line, by which a comment that is to be edited is found."""

# GitHub takes 65,536 characters. Bytes are no fewer, and what passes reports on counts them.
LIMIT = 60_000
OPEN_ROWS = 12
OPEN_PROPERTIES = 6
LONGEST_VALUE = 120
LONGEST_FAILURE = 8_000
CUT_ROWS = (10_000, 200, 50, 20, 5, 0)

_MARKS = {Fate.NO_DATA: "", Fate.KEPT: "", Fate.LOST: "⚠️ "}
_ALL_OF_IT = "`make pr-preview` prints all of it"


def report(preview: Preview, limit: int = LIMIT) -> str:
    """The report, in Markdown.

    Args:
        preview: what would happen.
        limit: its greatest length in bytes. What does not fit is cut, the raw diffs first, and the
            report says so.
    """
    for rows in CUT_ROWS:
        bare = _assembled(preview, rows, 0)
        room = limit - _length(bare)
        if room >= 0:
            fitting = _assembled(preview, rows, room // max(1, len(_with_diff(preview))))
            return fitting if _length(fitting) <= limit else bare
    note = f"\n\n… cut here, at {limit} bytes; {_ALL_OF_IT}.\n"
    kept = bare.encode()[: max(0, limit - _length(note))].decode(errors="ignore")
    return f"{kept.rpartition(chr(10))[0]}{note}"[-limit:]


def verdict(preview: Preview) -> str:
    """The report in one line."""
    failed = [f"`{stack.stack}`" for stack in preview.stacks if stack.failure is not None]
    counted = Counter(change.operation for change in preview.changes)
    numbers = [f"{counted[kind]} to {kind.value}" for kind in Operation if counted[kind]]
    compared = _names(stack for stack in preview.stacks if stack.is_compared)
    left_out = _names(stack for stack in preview.stacks if not stack.is_compared)
    parts = []
    if failed:
        parts.append(f"The preview of {', '.join(failed)} failed")
    if preview.loses_data:
        parts.append("**Data would be lost**")
    if numbers:
        parts.append(", ".join(numbers))
    elif not failed:
        parts.append("Nothing changes")
    if not preview.stacks:
        return "Nothing changes: no stack reads what differs."
    names = f"compared: {compared or 'none'}{left_out and f'; not compared: {left_out}'}"
    return f"{'; '.join(parts)} ({names})."


def _names(stacks: Iterable[StackPreview]) -> str:
    return ", ".join(f"`{stack.stack}`" for stack in stacks)


def _assembled(preview: Preview, rows: int, diff_room: int) -> str:
    """The report with so many rows a table, and so many bytes of each raw diff."""
    alert = _alert(preview)
    blocks = [
        f"{MARKER}\n## What this change would do",
        verdict(preview),
        *([alert] if alert else []),
        *(block for stack in preview.stacks for block in _stack(stack, rows, diff_room)),
        *preview.notes,
        _footnote(preview),
    ]
    return "\n\n".join(blocks) + "\n"


def _alert(preview: Preview) -> str:
    lost = [
        f"> - `{stack.stack}`: {_described(change)} is {_past(change.operation)}"
        for stack in preview.stacks
        for change in stack.changes
        if change.fate is Fate.LOST
    ]
    shown = [
        *lost[:OPEN_ROWS],
        *([f"> - and {len(lost) - OPEN_ROWS} more"] * (len(lost) > OPEN_ROWS)),
    ]
    return "\n".join(["> [!CAUTION]", "> What these hold would be lost:", *shown]) if lost else ""


def _stack(stack: StackPreview, rows: int, diff_room: int) -> list[str]:
    counted = Counter(change.operation for change in stack.changes)
    numbers = ", ".join(f"{counted[kind]} to {kind.value}" for kind in Operation if counted[kind])
    if stack.failure is not None:
        state = "failed"
    elif not stack.is_compared:
        state = "not compared"
    else:
        state = numbers or "nothing changes"
    blocks = [f"### `{stack.stack}`: {state}", *stack.notes]
    if stack.failure is not None:
        blocks.append(_fenced(_cut(stack.failure, LONGEST_FAILURE)))
    if stack.changes:
        blocks.append(_table(stack.changes, rows))
    if stack.changes and stack.diff:
        blocks.append(_raw(stack.diff, diff_room))
    return blocks


def _table(changes: Sequence[Change], rows: int) -> str:
    # What loses data stands first, so that no cut can hide it.
    ordered = sorted(changes, key=lambda change: change.fate is not Fate.LOST)
    shown = ordered[:rows]
    lines = ["| resource | operation | what differs |", "| --- | --- | --- |", *map(_row, shown)]
    if len(shown) < len(changes):
        left = len(changes) - len(shown)
        lines.append(f"| … | | {left} more resources are cut; {_ALL_OF_IT} |")
    table = "\n".join(lines)
    return table if len(lines) <= OPEN_ROWS + 2 else _folded(f"{len(changes)} resources", table)


def _row(change: Change) -> str:
    what = {
        Fate.NO_DATA: "",
        Fate.KEPT: f"{_code(change.on_engine)} stays on the engine, and is no longer used",
        Fate.LOST: "**data loss**",
    }[change.fate]
    properties = [_property(one) for one in change.properties]
    shown, folded = properties[:OPEN_PROPERTIES], properties[OPEN_PROPERTIES:]
    cells = [*([what] if what else []), *shown]
    if folded:
        inner = "<br>".join(folded)
        cells.append(f"<details><summary>{len(folded)} more</summary>{inner}</details>")
    mark = _MARKS[change.fate]
    return f"| {_described(change)} | {mark}{change.operation.value} | {'<br>'.join(cells)} |"


def _described(change: Change) -> str:
    kind = change.type.rpartition(":")[2]
    return f"{kind} {_code(change.name)}"


def _property(change: PropertyChange) -> str:
    why = " (replaces)" if change.replaces else ""
    return f"{_code(change.path)}: {_value(change.old)} → {_value(change.new)}{why}"


def _value(value: Any) -> str:
    if value is None:
        return "nothing"
    if value == plan.UNKNOWN:
        return "known after `up`"
    if value == plan.SECRET:
        return plan.SECRET
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _code(text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…")


def _code(text: str) -> str:
    """A text as code within a table's cell, whatever is in it."""
    one_line = " ".join(text.split()) or " "
    # A pipe ends a cell even within code, unless it is escaped.
    escaped = one_line.replace("|", "\\|")
    ticks = "`" * (_longest_run(escaped) + 1)
    space = " " if escaped.startswith("`") or escaped.endswith("`") else ""
    return f"{ticks}{space}{escaped}{space}{ticks}"


def _raw(diff: str, room: int) -> str:
    summary = "the diff as Pulumi prints it"
    return _folded(summary, _fenced(_cut(diff.strip(), room), "diff"))


def _cut(text: str, room: int) -> str:
    """A text, or as many of its first lines as fit, and how many do not."""
    if _length(text) <= room:
        return text
    lines = text.splitlines()
    kept, used = 0, 0
    for line in lines:
        used += _length(line) + 1
        if used > room:
            break
        kept += 1
    return "\n".join(
        [*lines[:kept], f"… {len(lines) - kept} of {len(lines)} lines are cut; {_ALL_OF_IT}"]
    )


def _folded(summary: str, content: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{content}\n\n</details>"


def _fenced(text: str, language: str = "text") -> str:
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def _past(operation: Operation) -> str:
    return {Operation.REPLACE: "replaced", Operation.DELETE: "deleted"}.get(operation, "changed")


def _footnote(preview: Preview) -> str:
    return (
        f"<sub>Compared with `{preview.branch}` at {preview.base[:12]}, whose stacks were brought "
        "up for it. Clusters and image sets are simulated, without the nodes' image; a password is "
        "compared by its encrypted text.</sub>"
    )


def _with_diff(preview: Preview) -> list[StackPreview]:
    return [stack for stack in preview.stacks if stack.changes and stack.diff]


def _length(text: str) -> int:
    return len(text.encode())
