"""Brings the base's stacks up and previews the change on them: `comparison FOLDER`.

It runs in the environment of `environment.create`, and so does everything it starts. Both versions
run from the same path, one after the other, so that the path makes no difference.
"""

import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pulumi import automation
from pulumi.automation.events import EngineEvent
from pydantic import TypeAdapter, ValidationError

from talos_registry_cache.review import checkouts, isolation, locks, plan
from talos_registry_cache.review.isolation import Isolation, StackFile
from talos_registry_cache.review.model import Change, LockChange, Preview, ReviewError, StackPreview
from talos_registry_cache.review.preview import JOB, PREVIEW, Job

T = TypeVar("T")

# Each stack runs Pulumi, Python and a plugin, which share the CPUs.
AT_ONCE = 2
LAST_LINES = 40
PROGRAM_ANSWERS_WITHIN_S = 60

ON_SWARM = (
    # Making the engine a Swarm could not be undone.
    "Its caches run on a Swarm, which this engine may not be part of. "
    "`pulumi preview` on a manager of that Swarm shows what would change."
)
NEW_STACK = "The base has no such stack: this is its first `up`."
REMOVED_STACK = (
    "Pulumi.{stack}.yaml is removed. The stack keeps running, and can no longer be destroyed from "
    "here: run `STACK={stack} make down` first."
)
OTHER_PACKAGES = (
    f"{checkouts.PACKAGES} differs; both versions ran with the packages of the checkout that made "
    "this report."
)

_PRINT_DEFAULT_PORTS = """
import json
from talos_registry_cache.registry.catalogue import CATALOGUE
print(json.dumps({host: known.port for host, known in CATALOGUE.items() if known.port}))
"""
_PORTS = TypeAdapter(dict[str, int])
_CHANGES = TypeAdapter(list[Change])


class _Comparison:
    """The comparison of two versions, on a state of its own."""

    def __init__(self, folder: Path, job: Job) -> None:
        self._folder = folder
        self._job = job
        self._base, self._head = (_stack_files(folder / side) for side in ("base", "head"))
        known = sorted({*self._base, *self._head})
        self._files = {
            stack: tuple(version.get(stack, StackFile()) for version in (self._base, self._head))
            for stack in known
        }
        ports = {
            stack: [*base.ports.values(), *head.ports.values()]
            for stack, (base, head) in self._files.items()
        }
        texts = [file.text for files in self._files.values() for file in files]
        self._isolation = Isolation(job.prefix, isolation.choose_ports(texts, ports))
        self._program = folder / "program"
        self._workspace = automation.LocalWorkspace(work_dir=str(self._program))
        self._created: dict[str, tuple[automation.Stack, str]] = {}

    def run(self) -> Preview:
        """Compare the affected stacks.

        Raises:
            ReviewError: a stack that the user named does not exist.
        """
        stacks = self._chosen()
        of_locks = {stack: self._change_of_lock(stack) for stack in stacks if stack in self._head}
        (self._folder / "base").rename(self._program)
        failures = self._bring_up(stacks)
        self._program.rename(self._folder / "base")
        (self._folder / "head").rename(self._program)
        previews = _each(stacks, lambda stack: self._compare(stack, failures.get(stack)))
        found = [replace(one, lock=of_locks.get(stack)) for stack, one in previews.items()]
        change = self._job.change
        notes = [OTHER_PACKAGES] if checkouts.PACKAGES in change.files else []
        return Preview(self._job.branch, change.base, found, notes)

    def _chosen(self) -> Sequence[str]:
        unknown = [stack for stack in self._job.stacks if stack not in self._files]
        if unknown:
            raise ReviewError(
                f"no stack file Pulumi.{unknown[0]}.yaml; stacks: {', '.join(self._files)}"
            )
        return self._job.stacks or [
            stack
            for stack, files in self._files.items()
            if self._job.change.affects(stack, *(path for file in files for path in file.reads))
        ]

    def _change_of_lock(self, stack: str) -> LockChange | None:
        base, head = (
            self._folder / side / file.lock if file.lock else None
            for side, file in zip(("base", "head"), self._files[stack], strict=True)
        )
        return locks.compare(base, head)

    def _bring_up(self, stacks: Iterable[str]) -> Mapping[str, str | None]:
        """Bring up the stacks that both versions have, and those they take their mirrors from.

        Returns:
            The reason for each stack that did not come up.
        """
        compared = [stack for stack in stacks if stack in self._head]
        sources = [file.mirrors_from for stack in compared for file in self._files[stack]]
        there = [
            stack
            for stack in dict.fromkeys([*filter(None, sources), *compared])
            if stack in self._base and not self._base[stack].runs_on_swarm
        ]
        # Last, because they wait, and a stack that waits takes the place of one that could run.
        there.sort(key=lambda stack: self._base[stack].mirrors_from is not None)
        running: dict[str, Future[str | None]] = {}
        with ThreadPoolExecutor(AT_ONCE) as threads:
            for stack in there:
                source = running.get(self._base[stack].mirrors_from or "")
                running[stack] = threads.submit(self._up, stack, after=source)
        return {stack: one.result() for stack, one in running.items()}

    def _up(self, stack: str, after: Future[str | None] | None) -> str | None:
        """Bring up a stack of the base after another; return the reason if it does not come up."""
        if after is not None:
            wait([after])
        _say(f"==> {stack}: bring the base up")
        events: list[EngineEvent] = []
        try:
            self._configured(stack, self._base[stack]).up(
                color="never", suppress_outputs=True, suppress_progress=True, on_event=events.append
            )
        except automation.CommandError as error:
            return self._restored(_reason(error, events))
        return None

    def _compare(self, stack: str, failure_of_base: str | None) -> StackPreview:
        if stack not in self._head:
            return StackPreview(stack, notes=[REMOVED_STACK.format(stack=stack)])
        if any(file.runs_on_swarm for file in self._files[stack]):
            return StackPreview(stack, notes=[ON_SWARM], is_compared=False)
        found = self._preview(stack)
        if failure_of_base is None:
            return found
        of_base = f"The base did not come up, so there is nothing to compare:\n{failure_of_base}"
        of_head = f"The change fails too:\n{found.failure}" if found.failure else ""
        return StackPreview(stack, failure=f"{of_base}\n\n{of_head}".strip())

    def _preview(self, stack: str) -> StackPreview:
        _say(f"==> {stack}: preview the change")
        events: list[EngineEvent] = []
        try:
            result = self._configured(stack, self._head[stack]).preview(
                color="never", diff=True, on_event=events.append
            )
        except (automation.CommandError, RuntimeError) as error:
            return StackPreview(stack, failure=self._restored(_reason(error, events)))
        steps = [event.resource_pre_event.metadata for event in events if event.resource_pre_event]
        if not plan.is_complete(steps, result.change_summary):
            return StackPreview(stack, failure="Pulumi's events do not match its summary.")
        changes = self._restored(_CHANGES.dump_json(plan.changes(steps)).decode())
        return StackPreview(
            stack,
            _CHANGES.validate_json(changes),
            notes=[] if stack in self._base else [NEW_STACK],
            diff=self._restored(result.stdout),
        )

    def _configured(self, stack: str, file: StackFile) -> automation.Stack:
        """Return the isolated stack with the configuration of a stack file."""
        name = self._isolation.name(stack)
        own = self._program / f"Pulumi.{name}.yaml"
        if stack not in self._created:
            created = automation.Stack.create(name, self._workspace)
            self._created[stack] = (created, own.read_text(encoding="utf-8"))
        # The salt that encrypts the stack's secrets, which both configurations need.
        made, salt = self._created[stack]
        text, stand_ins = self._isolation.apply(stack, file)
        own.write_text(f"{salt}{text}", encoding="utf-8")
        if stand_ins:
            made.set_all_config(
                {path: automation.ConfigValue(one, secret=True) for path, one in stand_ins.items()},
                path=True,
            )
        return made

    def _restored(self, printed: str) -> str:
        return self._isolation.restore(printed).replace(f"{self._program}/", "")


def _each(stacks: Iterable[str], do: Callable[[str], T]) -> dict[str, T]:
    """Call a function for each stack, several at once."""
    names = list(stacks)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return dict(zip(names, threads.map(do, names), strict=True))


def _stack_files(folder: Path) -> Mapping[str, StackFile]:
    """Read the stack files of a version; one that cannot be imported has no default ports."""
    default_ports: Mapping[str, int] = {}
    with suppress(ValidationError, subprocess.TimeoutExpired):
        printed = subprocess.run(
            [sys.executable, "-c", _PRINT_DEFAULT_PORTS],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=PROGRAM_ANSWERS_WITHIN_S,
        )
        default_ports = _PORTS.validate_json(printed.stdout)
    return {
        file.name.removeprefix("Pulumi.").removesuffix(".yaml"): StackFile(
            file.read_text(encoding="utf-8"), default_ports
        )
        for file in folder.glob("Pulumi.*.yaml")
    }


def _reason(error: Exception, events: Iterable[EngineEvent]) -> str:
    """Return the errors among Pulumi's events, or else the end of its output."""
    found = [event.diagnostic_event for event in events if event.diagnostic_event]
    errors = [one.message.strip() for one in found if one.severity == "error"]
    telling = [text for text in errors if not text.startswith("an unhandled error occurred")]
    return "\n".join(telling or errors or str(error).strip().splitlines()[-LAST_LINES:])


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def main(folder: Path) -> int:
    """Compare the versions in a folder, and print the preview as JSON; return the exit code."""
    job = JOB.validate_json((folder / "job.json").read_bytes())
    try:
        preview = _Comparison(folder, job).run()
    except (ReviewError, automation.CommandError, automation.InvalidVersionError, OSError) as error:
        _say(f"error: {error}")
        return 1
    sys.stdout.write(PREVIEW.dump_json(preview).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
