"""The report of a preview, in Markdown for a comment on the pull request."""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from talos_registry_cache import sizes
from talos_registry_cache.registry import reference
from talos_registry_cache.registry.image_lock import Difference
from talos_registry_cache.review import plan
from talos_registry_cache.review.model import (
    Change,
    Fate,
    LockChange,
    Operation,
    Preview,
    PropertyChange,
    StackPreview,
)

MARKER = "<!-- talos-registry-cache: preview of the change -->"
"""The first line, by which a workflow finds the comment to edit."""

# GitHub accepts 65,536 characters. The limit is in bytes, as some tools that post comments count.
LIMIT = 60_000
OPEN_ROWS = 12
OPEN_PROPERTIES = 6
MOST_OF_ONE_INPUT = 20
LONGEST_VALUE = 120
LONGEST_REASON = 400
LONGEST_FAILURE = 8_000
ROWS_TO_TRY = (10_000, 200, 50, 20, 5, 0)
WITHOUT_END = sys.maxsize

_FULL_REPORT = "`make pr-preview` prints the full report"


def report(preview: Preview, limit: int | None = LIMIT) -> str:
    """Return the report.

    Args:
        preview: the preview.
        limit: its maximum length in bytes. What does not fit is cut, Pulumi's diffs first, and the
            report says so. None for the whole report.
    """
    if limit is None:
        return _report(preview, WITHOUT_END, WITHOUT_END)
    for rows in ROWS_TO_TRY:
        bare = _report(preview, rows, 0)
        room = limit - _length(bare)
        if room >= 0:
            diffs = sum(1 for stack in preview.stacks if stack.changes and stack.diff)
            fitting = _report(preview, rows, room // max(1, diffs))
            return fitting if _length(fitting) <= limit else bare
    note = f"\n\n… cut at {limit} bytes; {_FULL_REPORT}.\n"
    kept = bare.encode()[: max(0, limit - _length(note))].decode(errors="ignore")
    return f"{kept.rpartition(chr(10))[0]}{note}"[-limit:]


def verdict(preview: Preview) -> str:
    """Return the report in one line."""
    if not preview.stacks:
        return "Nothing changes: no stack is affected."
    failed = [stack for stack in preview.stacks if stack.failure is not None]
    parts = []
    if failed:
        parts.append(f"The preview of {_names(failed)} failed")
    if preview.loses_data:
        parts.append("**Data would be lost**")
    if preview.changes:
        parts.append(_counted(preview.changes))
    elif not failed:
        parts.append("Nothing changes")
    compared = _names(stack for stack in preview.stacks if stack.is_compared) or "none"
    left_out = _names(stack for stack in preview.stacks if not stack.is_compared)
    names = f"compared: {compared}" + (f"; not compared: {left_out}" if left_out else "")
    return f"{'; '.join(parts)} ({names})."


def _names(stacks: Iterable[StackPreview]) -> str:
    return ", ".join(f"`{stack.stack}`" for stack in stacks)


def _counted(changes: Iterable[Change]) -> str:
    counted = Counter(change.operation for change in changes)
    return ", ".join(f"{counted[kind]} to {kind.value}" for kind in Operation if counted[kind])


def _report(preview: Preview, rows: int, room_of_text: int) -> str:
    """Return the report with a maximum number of rows per table and bytes per diff."""
    footnote = (
        f"Compared with `{preview.branch}` at {preview.base[:12]}, whose stacks were brought up "
        "for it. Clusters and image sets are simulated, without the nodes' image; passwords are "
        "compared in encrypted form."
    )
    blocks = [
        f"{MARKER}\n## What this change would do",
        verdict(preview),
        *_alert(preview),
        *(block for stack in preview.stacks for block in _stack(stack, rows, room_of_text)),
        *preview.notes,
        f"<sub>{footnote}</sub>",
    ]
    return "\n\n".join(blocks) + "\n"


def _alert(preview: Preview) -> list[str]:
    lost = [
        f"> - `{stack.stack}`: {_resource(change)} is {change.operation.value}d"
        for stack in preview.stacks
        for change in stack.changes
        if change.fate is Fate.LOST
    ]
    if not lost:
        return []
    more = [f"> - and {len(lost) - OPEN_ROWS} more"] if len(lost) > OPEN_ROWS else []
    return [
        "\n".join(["> [!CAUTION]", "> The data in these would be lost:", *lost[:OPEN_ROWS], *more])
    ]


def _stack(stack: StackPreview, rows: int, room_of_text: int) -> list[str]:
    if stack.failure is not None:
        state = "failed"
    elif not stack.is_compared:
        state = "not compared"
    else:
        state = _counted(stack.changes) or "nothing changes"
    blocks = [f"### `{stack.stack}`: {state}", *stack.notes]
    if stack.failure is not None:
        blocks.append(_fenced(_cut(stack.failure, max(LONGEST_FAILURE, room_of_text))))
    if stack.lock:
        blocks += _lock(stack.lock, rows)
    if stack.changes:
        blocks.append(_resources(stack.changes, rows))
    if stack.changes and stack.diff:
        diff = _fenced(_cut(stack.diff.strip(), room_of_text), "diff")
        blocks.append(_folded("Pulumi's own diff", diff))
    return blocks


def _lock(lock: LockChange, rows: int) -> list[str]:
    if not lock.in_head:
        return ["The change removes the lock of the images: tags no longer keep their digests."]
    blocks = [
        f"The lock of the {version} is invalid: {_shown(reason, LONGEST_REASON)}."
        for version, reason in lock.mistakes.items()
    ]
    if not lock.in_base:
        blocks.append("The lock is new: the base locks no images.")
    if lock.difference or lock.grown:
        blocks.append(_cost(lock))
    if lines := list(_images(lock.difference)):
        head = ["| image | change | digest | size |", "| --- | --- | --- | ---: |"]
        blocks.append(_table(head, lines, rows, "images"))
    return blocks


def _cost(lock: LockChange) -> str:
    found = lock.difference
    counted = {"moved": found.moved, "added": found.added, "removed": found.removed}
    kinds = [f"{len(images)} {kind}" for kind, images in counted.items() if images]
    what = f"Images in the lock: {', '.join(kinds) or 'the same'}."
    if not lock.size:
        return f"{what} Nothing is fetched for this change."
    more = f", {sizes.text(lock.grown)} of it for images that stay" if lock.grown else ""
    fetched = f"Every machine fetches at most {sizes.text(lock.size)} for this change{more}"
    return f"{what} {fetched}; layers that images share count for each."


def _images(found: Difference) -> Iterator[str]:
    # Moved tags come first: each is another image under a name that was there before.
    for name, (old, new) in found.moved.items():
        if old.digest == new.digest:
            yield _image(name, "attachments", _short(new.digest), new.size)
        else:
            yield _image(name, "moved", f"{_short(old.digest)} → {_short(new.digest)}", new.size)
    for change, images in (("added", found.added), ("removed", found.removed)):
        for name, one in images.items():
            yield _image(name, change, _short(one.digest), one.size)


def _image(name: str, change: str, digest: str, size: int) -> str:
    return f"| {_code(name)} | {change} | {digest} | {sizes.text(size)} |"


def _short(digest: str) -> str:
    return _code(reference.short(digest))


def _resources(changes: Sequence[Change], rows: int) -> str:
    # Data loss comes first, so that no cut can hide it.
    ordered = sorted(changes, key=lambda change: change.fate is not Fate.LOST)
    head = ["| resource | operation | changes |", "| --- | --- | --- |"]
    return _table(head, list(map(_row, ordered)), rows, "resources")


def _table(head: Sequence[str], lines: Sequence[str], rows: int, what: str) -> str:
    """A table of at most some rows, which is folded if it is long."""
    shown = [*head, *lines[:rows]]
    if len(lines) > rows:
        more = f"| … | | {len(lines) - rows} more {what} are cut; {_FULL_REPORT} |"
        shown.append(more + " |" * (head[0].count("|") - more.count("|")))
    table = "\n".join(shown)
    return table if len(shown) <= OPEN_ROWS + 2 else _folded(f"{len(lines)} {what}", table)


def _row(change: Change) -> str:
    mark, cells = "", []
    if change.fate is Fate.LOST:
        mark, cells = "⚠️ ", ["**data loss**"]
    elif change.fate is Fate.KEPT:
        cells = [f"{_code(change.on_engine)} stays on the engine, and is no longer used"]
    properties = list(_properties(change))
    cells += properties[:OPEN_PROPERTIES]
    if folded := properties[OPEN_PROPERTIES:]:
        inner = "<br>".join(folded)
        cells.append(f"<details><summary>{len(folded)} more</summary>{inner}</details>")
    return f"| {_resource(change)} | {mark}{change.operation.value} | {'<br>'.join(cells)} |"


def _resource(change: Change) -> str:
    return f"{change.type.rpartition(':')[2]} {_code(change.name)}"


def _properties(change: Change) -> Iterator[str]:
    """The changed properties, without those that are as many as the images in a lock."""
    numbers = Counter(plan.top(one.path) for one in change.properties)
    shown: Counter[str] = Counter()
    for one in change.properties:
        key = plan.top(one.path)
        shown[key] += 1
        if key == plan.LOCKED and change.type.endswith(plan.CACHED_IMAGES):
            if shown[key] == 1:
                yield f"{_code(key)}: see above"
        elif shown[key] <= MOST_OF_ONE_INPUT:
            yield _property(one)
        elif shown[key] == MOST_OF_ONE_INPUT + 1:
            yield f"{_code(key)}: {numbers[key] - MOST_OF_ONE_INPUT} more changes"


def _property(change: PropertyChange) -> str:
    why = " (replaces)" if change.replaces else ""
    old, new = change.old, change.new
    if _is_file(old) and _is_file(new):
        return f"{_code(change.path)}: {_lines(old, new)}{why}"
    return f"{_code(change.path)}: {_value(old)} → {_value(new)}{why}"


def _is_file(value: Any) -> bool:
    """Whether a value is a text of which only the beginning, often the same, would be shown."""
    return isinstance(value, str) and "\n" in value and len(value) > LONGEST_VALUE


def _lines(old: str, new: str) -> str:
    before, after = (Counter(text.splitlines()) for text in (old, new))
    gone, added = (before - after).total(), (after - before).total()
    return f"{gone} of {before.total()} lines removed, {added} added"


def _value(value: Any) -> str:
    if value is None:
        return "nothing"
    if value == plan.UNKNOWN:
        return "known after `up`"
    if value == plan.SECRET:
        return plan.SECRET
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _shown(text, LONGEST_VALUE)


def _shown(text: str, longest: int) -> str:
    return _code(text if len(text) <= longest else f"{text[: longest - 1]}…")


def _code(text: str) -> str:
    """Format any text as code in a cell of a table."""
    one_line = " ".join(text.split()) or " "
    # A pipe ends a cell even in code, unless it is escaped.
    escaped = one_line.replace("|", "\\|")
    ticks = "`" * (_longest_run(escaped) + 1)
    space = " " if escaped.startswith("`") or escaped.endswith("`") else ""
    return f"{ticks}{space}{escaped}{space}{ticks}"


def _cut(text: str, room: int) -> str:
    """Return a text, or the first lines that fit and the number of those that do not."""
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
        [*lines[:kept], f"… {len(lines) - kept} of {len(lines)} lines are cut; {_FULL_REPORT}"]
    )


def _folded(summary: str, content: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{content}\n\n</details>"


def _fenced(text: str, language: str = "text") -> str:
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def _length(text: str) -> int:
    return len(text.encode())
