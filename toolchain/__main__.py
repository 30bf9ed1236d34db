"""The command line that the Makefile calls."""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from toolchain import (
    doctor,
    engine,
    golang,
    images,
    kubernetes_images,
    modern_engine,
    pulumi,
    release,
    stack,
    talos_vm,
    talosctl,
    test_tools,
    virtualenv,
)
from toolchain.paths import CACHE, ROOT, VENV
from toolchain.report import SetupError, run_in_foreground, say

LEAST_WORKERS = 3
SLOWEST = "--durations=10"
# The marks of tests that run on Docker Engine 29, by its image store.
ENGINE_TESTS = {"containerd": "modern_engine", "overlay2": "image_store"}
# They need Kubernetes, which takes long to build.
CLUSTER_TESTS = "tests/cluster"
OF_NEWEST_TALOSCTL = (
    "tests/contract/test_talosctl.py",
    "tests/integration/test_talos_image_cache.py",
)
BUILD_OUTPUT = (VENV, CACHE, ROOT / "build")


def main(arguments: Sequence[str]) -> int:
    """Run one command; return the exit code of the program it runs, or 1 if setting up fails."""
    ours, rest = _split(arguments)
    options = _parser().parse_args(ours)
    try:
        code: int = options.run(options, rest)
    except SetupError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _split(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Split the toolchain's own arguments from those after `--`, for the command that it runs."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at + 1 :]


def _on_stack(options: argparse.Namespace, rest: Sequence[str]) -> int:
    env = _ready(virtualenv.RUNTIME, [stack.file(options.stack)])
    commands = {
        "up": stack.up,
        "preview": stack.preview,
        "output": stack.output,
        "down": stack.down,
    }
    return commands[options.command](options.stack, env, rest)


def _doctor(options: argparse.Namespace, _: Sequence[str]) -> int:
    return doctor.report(stack.file(options.stack))


def _run(options: argparse.Namespace, command: Sequence[str]) -> int:
    env = _ready(virtualenv.DEVELOPMENT)
    if options.all_images:
        images.ensure_each(env["DOCKER_HOST"])
    if options.test_tools:
        test_tools.ensure()
    if options.kubernetes:
        kubernetes_images.ensure()
    return run_in_foreground(command, env=env)


def _test(_: argparse.Namespace, arguments: Sequence[str]) -> int:
    env = _ready(virtualenv.DEVELOPMENT, [stack.file(name) for name in ("guide", "talos")])
    test_tools.ensure()
    return _pytest([f"--ignore={CLUSTER_TESTS}", SLOWEST, *_workers()], arguments, env)


def _workers() -> Sequence[str]:
    # Tests mostly wait for other processes.
    return [f"--numprocesses={max(LEAST_WORKERS, os.cpu_count() or 1)}"]


def _engine_test(_: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Run marked integration tests on Docker Engine 29, once for each of its image stores."""
    env = _ready(virtualenv.DEVELOPMENT)
    test_tools.ensure()
    modern_engine.ensure()
    # Each file in one process: most have something to set up.
    options = ["--dist=loadfile", *_workers(), *arguments, "tests/integration"]
    codes = [
        run_in_foreground(
            ["python", "-m", "tests.integration.on_modern_engine", store, "-m", mark, *options],
            env=env,
            cwd=ROOT,
        )
        for store, mark in ENGINE_TESTS.items()
    ]
    return max(codes)


def _cluster_test(_: argparse.Namespace, arguments: Sequence[str]) -> int:
    env = _ready(virtualenv.DEVELOPMENT)
    test_tools.ensure()
    kubernetes_images.ensure()
    # Not for `make test`, since it takes three minutes.
    golang.ensure(talosctl.NEWEST)
    if talos_vm.why_impossible() == "":
        talos_vm.ensure()
    return _pytest([*OF_NEWEST_TALOSCTL, CLUSTER_TESTS], arguments, env)


def _pytest(options: Sequence[str], arguments: Sequence[str], env: dict[str, str]) -> int:
    return run_in_foreground(["python", "-m", "pytest", *options, *arguments], env=env, cwd=ROOT)


def _packages(_: argparse.Namespace, __: Sequence[str]) -> int:
    virtualenv.ensure(virtualenv.DEVELOPMENT)
    return 0


def _release_check(_: argparse.Namespace, __: Sequence[str]) -> int:
    """Print every obstacle to a release as it is found."""
    is_ready = True
    for finding in release.findings(ROOT):
        say(f"error: {finding}")
        is_ready = False
    if is_ready:
        wanted = release.version(ROOT)
        say(f"{wanted} can be released if `make test` passes: git tag {release.tag(wanted)}")
    return 0 if is_ready else 1


def _clean(_: argparse.Namespace, __: Sequence[str]) -> int:
    """Remove what was installed and built; keep the state, which records what is deployed."""
    for folder in BUILD_OUTPUT:
        if folder.exists():
            say(f"remove {folder}")
            shutil.rmtree(folder)
    return 0


def _ready(lock: str, stack_files: Sequence[Path] = ()) -> dict[str, str]:
    """Install whatever stacks need and is missing, and return the environment to run them in."""
    started = time.monotonic()
    virtualenv.ensure(lock)
    host = engine.ensure()
    engine.refuse_unsupported(host)
    pulumi.ensure()
    images.ensure(host, stack_files)
    talosctl.ensure("".join(file.read_text() for file in stack_files))
    say(f"==> ready in {time.monotonic() - started:.1f} s (engine {host})")
    return pulumi.environment(host)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m toolchain", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, run, text in (
        ("up", _on_stack, "converge a stack"),
        ("preview", _on_stack, "show what `up` would do"),
        ("output", _on_stack, "print the outputs of a stack, or one of them"),
        (
            "down",
            _on_stack,
            "destroy a stack; cached images are kept unless the stack says otherwise",
        ),
        ("doctor", _doctor, "report what `up` would install or build; changes nothing"),
        ("run", _run, "run a command, such as pulumi, in the prepared environment"),
        ("test", _test, "run the tests; arguments after -- go to pytest"),
        (
            "engine-test",
            _engine_test,
            "run marked tests on Docker Engine 29; arguments after -- go to pytest",
        ),
        (
            "cluster-test",
            _cluster_test,
            "boot whole Talos clusters; arguments after -- go to pytest",
        ),
        ("packages", _packages, "install the locked Python packages only"),
        ("release-check", _release_check, "check that this checkout can be released"),
        ("clean", _clean, "remove what was installed and built, but not the state"),
    ):
        command = commands.add_parser(name, help=text)
        command.set_defaults(run=run)
        if run in {_on_stack, _doctor}:
            command.add_argument("stack", help="the stack, such as dev for Pulumi.dev.yaml")
        if run is _run:
            all_images = "prepare the images of all stacks, not only the default one"
            command.add_argument("--all-images", action="store_true", help=all_images)
            tools = "prepare the test tools too"
            command.add_argument("--test-tools", action="store_true", help=tools)
            kubernetes = "prepare the images of whole clusters too"
            command.add_argument("--kubernetes", action="store_true", help=kubernetes)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
