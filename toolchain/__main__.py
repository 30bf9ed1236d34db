"""The command line that the Makefile calls."""

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence

from toolchain import engine, pulumi, registry_image, stack, test_tools, virtualenv
from toolchain.places import CACHE, ROOT, VENV
from toolchain.report import SetupError, say

ON_STACK = {"up": stack.up, "preview": stack.preview, "down": stack.down}
BUILD_OUTPUT = (VENV, CACHE, ROOT / "build")


def main(arguments: Sequence[str]) -> int:
    """Run one command; the exit code is that of what it ran, or 1 when setting up failed."""
    options, rest = _parser().parse_known_args(arguments)
    rest = [argument for argument in rest if argument != "--"]
    try:
        match options.command:
            case "packages":
                virtualenv.ensure(virtualenv.DEVELOPMENT)
                return 0
            case "run":
                env = _ready(virtualenv.DEVELOPMENT)
                return subprocess.run(rest, env=env, check=False).returncode
            case "test":
                env = _ready(virtualenv.DEVELOPMENT)
                test_tools.ensure()
                pytest = ["python", "-m", "pytest", *rest]
                return subprocess.run(pytest, cwd=ROOT, env=env, check=False).returncode
            case "clean":
                return _clean()
            case command:
                env = _ready(virtualenv.RUNTIME)
                return ON_STACK[command](options.stack, env, rest)
    except SetupError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


def _ready(lock: str) -> dict[str, str]:
    """Make sure of all that the stack needs, and return the environment to run it in."""
    started = time.monotonic()
    virtualenv.ensure(lock)
    host = engine.ensure()
    pulumi.ensure()
    registry_image.ensure(host)
    say(f"==> ready in {time.monotonic() - started:.1f} s (engine {host})")
    return pulumi.environment(host)


def _clean() -> int:
    """Remove what was installed and built; the state stays, since it says what is deployed."""
    for folder in BUILD_OUTPUT:
        if folder.exists():
            say(f"remove {folder}")
            shutil.rmtree(folder)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m toolchain", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    helps = {
        "up": "converge a stack",
        "preview": "show what `up` would do",
        "down": "destroy a stack; cached images are kept unless the stack says otherwise",
    }
    for name, text in helps.items():
        command = commands.add_parser(name, help=text)
        command.add_argument("stack", help="the stack, such as dev for Pulumi.dev.yaml")
    commands.add_parser("run", help="run a command, such as pulumi, where all of that is at hand")
    commands.add_parser("test", help="run the tests; what follows are pytest's arguments")
    commands.add_parser("packages", help="install the locked Python packages only")
    commands.add_parser("clean", help="remove what was installed and built, not the state")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
