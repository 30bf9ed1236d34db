"""The preview of a change: the base branch's stacks are brought up, and the change is held to them.

Base and head run from one and the same path, one after the other, so that no difference comes from
where they are.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from talos_registry_cache.review import checkouts, isolation, plan
from talos_registry_cache.review.checkouts import Difference
from talos_registry_cache.review.commands import SIMULATE, Commands, Done, cleaned_up
from talos_registry_cache.review.errors import ReviewError
from talos_registry_cache.review.isolation import Isolation
from talos_registry_cache.review.plan import Change

T = TypeVar("T")

# Each starts a Pulumi, a Python and a plugin, which share what CPUs there are.
AT_ONCE = 2
LAST_LINES = 40
WARNING = (
    "==> this runs the program of the change: as you, with your files and engine in its reach\n"
    "    if you do not trust its author, use a throw-away machine: docs/pull-requests.md"
)
# An engine that is no Swarm would have to become one, and that is not undone by a clean-up.
ON_SWARM = (
    "Its caches run on a Swarm, and this engine is left as it is. "
    "`pulumi preview` by one of the Swarm's managers shows what would change."
)

_CUSTOMARY_PORTS = """
import json
from talos_registry_cache.registry.catalogue import CATALOGUE
print(json.dumps({host: known.port for host, known in CATALOGUE.items() if known.port}))
"""
_PORTS = TypeAdapter(dict[str, int])


@dataclass(frozen=True, slots=True)
class StackPreview:
    """What a change would do to one stack.

    Attributes:
        stack: its name.
        changes: what would happen to its resources.
        failure: why that could not be found out, in words; None where it could.
        notes: what else there is to know.
        diff: the same as Pulumi prints it.
        is_compared: whether it was held to the base at all.
    """

    stack: str
    changes: Sequence[Change] = ()
    failure: str | None = None
    notes: Sequence[str] = ()
    diff: str = ""
    is_compared: bool = True


@dataclass(frozen=True, slots=True)
class Preview:
    """What a change would do.

    Attributes:
        branch: the branch that it is compared with, as it was named.
        base: the commit of it where the change starts.
        stacks: what it would do to each stack that it can affect.
        notes: what else there is to know.
    """

    branch: str
    base: str
    stacks: Sequence[StackPreview]
    notes: Sequence[str] = ()

    @property
    def has_failed(self) -> bool:
        """Whether something could not be found out."""
        return any(stack.failure is not None for stack in self.stacks)

    @property
    def changes(self) -> list[Change]:
        """What would happen to the resources of all stacks."""
        return [change for stack in self.stacks for change in stack.changes]

    @property
    def loses_data(self) -> bool:
        """Whether data would be lost."""
        return any(change.fate is plan.Fate.LOST for change in self.changes)


@dataclass(frozen=True, slots=True)
class _Version:
    """One of the two versions: its stack files, and the ports that its catalogue knows."""

    files: Mapping[str, str]
    customary_ports: Mapping[str, int]


def make(
    root: Path,
    branch: str,
    wanted: Sequence[str],
    say: Callable[[str], None],
    *,
    head: str | None = None,
) -> Preview:
    """Find out what a change would do to stacks that run the base branch.

    Args:
        root: the checkout.
        branch: the base branch, or a tag or commit.
        wanted: the stacks to look at; those that can be affected if there are none.
        say: tells a person what is being done.
        head: the change, a branch, tag or commit; None for the working tree.

    Raises:
        ReviewError: the checkout has no such commit, no such stack, or cannot be cleaned up after.
    """
    changed = checkouts.difference(root, branch, head)
    prefix = isolation.new_prefix()
    say(WARNING)
    say(f"==> what it makes on the engine is named {prefix}…, and removed at the end")
    with cleaned_up(root, prefix) as (folder, commands):
        program, later = folder / "program", folder / "head"
        checkouts.extract(root, changed.base, program)
        if changed.head is None:
            checkouts.copy(root, later)
        else:
            checkouts.extract(root, changed.head, later)
        before, after = _version(commands, program), _version(commands, later)
        stacks = _chosen(changed, before, after, wanted)
        apart = Isolation(prefix, _ports(before, after))
        run = _Run(folder, program, commands, apart, say)
        failures = run.bring_up(before, _with_sources(stacks, before, after))
        program.rename(folder / "base")
        later.rename(program)
        previews = run.compare(stacks, before, after, failures)
    return Preview(branch, changed.base, previews, _notes(changed))


class _Run:
    """One run, on its own state."""

    def __init__(
        self,
        folder: Path,
        program: Path,
        commands: Commands,
        apart: Isolation,
        say: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._program = program
        self._commands = commands
        self._apart = apart
        self._say = say

    def bring_up(self, base: _Version, stacks: Iterable[str]) -> Mapping[str, str]:
        """Bring up the stacks of the base; why not, by name, for those that did not come up."""
        there = [
            stack
            for stack in stacks
            if stack in base.files and not isolation.runs_on_swarm(base.files[stack])
        ]
        # Those that others take their mirrors from come first.
        first = [stack for stack in there if not isolation.mirrors_from(base.files[stack])]
        tried = [
            tried
            for group in (first, [stack for stack in there if stack not in first])
            for tried in _at_once(group, lambda stack: self._up(stack, base))
        ]
        return {stack: failure for stack, failure in tried if failure is not None}

    def compare(
        self, stacks: Iterable[str], base: _Version, head: _Version, failures: Mapping[str, str]
    ) -> list[StackPreview]:
        """Hold the head to what is up."""

        def one(stack: str) -> StackPreview:
            if stack not in head.files:
                return StackPreview(stack, notes=[_removed(stack)])
            if any(isolation.runs_on_swarm(one.files.get(stack, "")) for one in (base, head)):
                return StackPreview(stack, notes=[ON_SWARM], is_compared=False)
            found = self._compare(stack, head, is_new=stack not in base.files)
            if stack not in failures:
                return found
            of_base = f"The base does not come up, to compare with:\n{failures[stack]}"
            of_head = f"And the head fails:\n{found.failure}" if found.failure else ""
            return StackPreview(stack, failure=f"{of_base}\n\n{of_head}".strip())

        return [preview for _, preview in _at_once(stacks, one)]

    def _up(self, stack: str, base: _Version) -> str | None:
        self._init(stack)
        if isolation.needs_simulation(base.files[stack]) and not _can_simulate(self._program):
            return f"The base's program cannot simulate clusters and images ({SIMULATE})."
        self._say(f"==> {stack}: bring the base up")
        file = self._configure(stack, base, "base")
        up = ["up", "--yes", "--skip-preview", "--suppress-outputs", "--suppress-progress"]
        done = self._pulumi(stack, file, *up)
        return None if done.code == 0 else self._failure(done)

    def _compare(self, stack: str, head: _Version, *, is_new: bool) -> StackPreview:
        self._say(f"==> {stack}: preview the head")
        if is_new:
            self._init(stack)
        file = self._configure(stack, head, "head")
        with ThreadPoolExecutor(2) as threads:
            told = threads.submit(self._pulumi, stack, file, "preview", "--json", "--show-sames")
            shown = threads.submit(self._pulumi, stack, file, "preview", "--diff")
        done, diff = told.result(), self._restored(shown.result().stdout)
        if done.code != 0:
            return StackPreview(stack, failure=self._failure(done))
        notes = ["The base has no such stack: this is its first `up`."] if is_new else []
        return StackPreview(stack, plan.changes(self._restored(done.stdout)), None, notes, diff)

    def _init(self, stack: str) -> None:
        name = self._apart.stack(stack)
        done = self._commands.pulumi("stack", "init", "--no-select", name, cwd=self._program)
        if done.code != 0:
            raise ReviewError(self._failure(done))
        # It has what encrypts the stack's secrets, which both configurations need.
        self._salt_of(stack).parent.mkdir(exist_ok=True)
        (self._program / f"Pulumi.{name}.yaml").rename(self._salt_of(stack))

    def _salt_of(self, stack: str) -> Path:
        return self._folder / "salts" / f"{stack}.yaml"

    def _configure(self, stack: str, version: _Version, side: str) -> Path:
        """Write the configuration of a stack, set apart; the file."""
        isolated = self._apart.apply(stack, version.files[stack], version.customary_ports)
        file = self._folder / f"settings-{side}" / f"Pulumi.{self._apart.stack(stack)}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"{self._salt_of(stack).read_text()}{isolated.text}", encoding="utf-8")
        if isolated.secrets:
            pairs = [f"{path}={stand_in}" for path, stand_in in isolated.secrets.items()]
            arguments = [part for pair in pairs for part in ("--secret", pair)]
            done = self._pulumi(stack, file, "config", "set-all", "--path", *arguments)
            if done.code != 0:
                raise ReviewError(self._failure(done))
        return file

    def _pulumi(self, stack: str, file: Path, *arguments: str) -> Done:
        name = self._apart.stack(stack)
        return self._commands.pulumi(
            *arguments, "--stack", name, "--config-file", str(file), cwd=self._program
        )

    def _failure(self, done: Done) -> str:
        """What Pulumi said went wrong."""
        messages: list[str] = []
        with suppress(ValueError):
            messages = plan.errors(done.stdout)
        said = done.stdout.rpartition("Diagnostics:")[2] + done.stderr
        lines = said.strip().splitlines()[-LAST_LINES:]
        return self._restored("\n".join(messages or lines))

    def _restored(self, printed: str) -> str:
        return self._apart.restore(printed).replace(f"{self._program}/", "")


def _at_once(stacks: Iterable[str], do: Callable[[str], T]) -> list[tuple[str, T]]:
    names = list(stacks)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(zip(names, threads.map(do, names), strict=True))


def _version(commands: Commands, folder: Path) -> _Version:
    """What a version of the program has; one that does not import knows no ports."""
    done = commands.python(_CUSTOMARY_PORTS, cwd=folder)
    customary: Mapping[str, int] = {}
    with suppress(ValidationError):
        customary = _PORTS.validate_json(done.stdout)
    return _Version(checkouts.stack_files(folder), customary)


def _chosen(
    changed: Difference, base: _Version, head: _Version, wanted: Sequence[str]
) -> Sequence[str]:
    """The stacks to look at.

    Raises:
        ReviewError: one that is wanted is in neither version.
    """
    known = sorted({*base.files, *head.files})
    for stack in wanted:
        if stack not in known:
            raise ReviewError(
                f"there is no stack file Pulumi.{stack}.yaml; stacks: {', '.join(known)}"
            )

    def also_reads(stack: str) -> list[str]:
        texts = (version.files.get(stack, "") for version in (base, head))
        return [file for file in map(isolation.image_file, texts) if file]

    return wanted or checkouts.affected(changed, known, also_reads)


def _ports(base: _Version, head: _Version) -> Mapping[str, Mapping[int, int]]:
    """A free port for each port of each stack: the same in both versions."""
    texts = [*base.files.values(), *head.files.values()]
    ports = {
        stack: [
            port
            for version in (base, head)
            for port in isolation.ports_in(version.files.get(stack, ""), version.customary_ports)
        ]
        for stack in (*base.files, *head.files)
    }
    return isolation.choose_ports(texts, ports)


def _with_sources(stacks: Iterable[str], base: _Version, head: _Version) -> list[str]:
    """Stacks, and those that they take their mirrors from."""
    sources = [
        isolation.mirrors_from(version.files[stack])
        for stack in stacks
        for version in (base, head)
        if stack in version.files
    ]
    return list(dict.fromkeys([*filter(None, sources), *stacks]))


def _can_simulate(program: Path) -> bool:
    """Whether a version of the program knows how; one that does not would boot its clusters."""
    return any(SIMULATE in file.read_text() for file in program.glob("components/*.py"))


def _removed(stack: str) -> str:
    return (
        f"Pulumi.{stack}.yaml is removed. What runs of the stack stays as it is, and can no longer "
        f"be destroyed from here: run `STACK={stack} make down` before."
    )


def _notes(changed: Difference) -> list[str]:
    if checkouts.PACKAGES not in changed.files:
        return []
    whose = "the checkout that made this report"
    return [f"{checkouts.PACKAGES} differs; both versions ran with the packages of {whose}."]
