"""The entry point of `cachectl`."""

import os
import signal
import sys
from importlib import metadata
from types import FrameType
from typing import Annotated, NoReturn

import typer
from docker.errors import DockerException

from talos_registry_cache.cli import console
from talos_registry_cache.cli.commands.export import export
from talos_registry_cache.cli.commands.exporter import exporter
from talos_registry_cache.cli.commands.images import images
from talos_registry_cache.cli.commands.import_ import import_
from talos_registry_cache.cli.commands.list_ import list_
from talos_registry_cache.cli.commands.lock import lock
from talos_registry_cache.cli.commands.logs import logs
from talos_registry_cache.cli.commands.metrics import metrics
from talos_registry_cache.cli.commands.mirrors import mirrors
from talos_registry_cache.cli.commands.nodes import nodes
from talos_registry_cache.cli.commands.prune import prune
from talos_registry_cache.cli.commands.remove import remove
from talos_registry_cache.cli.commands.scrub import scrub
from talos_registry_cache.cli.commands.status import status
from talos_registry_cache.cli.commands.verify import verify
from talos_registry_cache.cli.commands.warm import warm
from talos_registry_cache.cli.commands.watch import watch
from talos_registry_cache.cli.errors import ExitCode, UsageError
from talos_registry_cache.errors import ReportedError

DISTRIBUTION = "talos-registry-cache"

app = typer.Typer(
    name="cachectl",
    help="Work with the registry caches of a stack: show, fill, verify, repair and carry them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = (
    status, nodes, list_, images, warm, lock, verify, scrub, prune, remove, export, import_,
    mirrors, logs, watch, metrics, exporter,
)  # fmt: skip
for command in COMMANDS:
    app.command(command.__name__.rstrip("_"))(command)


def _print_version(is_wanted: bool) -> None:  # noqa: FBT001 - typer's callback
    if is_wanted:
        typer.echo(f"cachectl {metadata.version(DISTRIBUTION)}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[  # noqa: FBT002 - a flag
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Options before a command."""


def main() -> None:
    """Run a command, and end the process with its exit code."""
    signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        _run()
    except KeyboardInterrupt:
        # A second one, while the first was handled.
        _end(ExitCode.INTERRUPTED)


def _run() -> None:
    try:
        app()
    except UsageError as error:
        code, message = ExitCode.USAGE, str(error)
    except ReportedError as error:
        code, message = ExitCode.FAILED, str(error)
    except (DockerException, OSError) as error:
        code, message = ExitCode.FAILED, f"the container engine or this machine: {error}"
    except SystemExit as ended:
        # Typer's own reaction to Ctrl-C.
        if ended.code != ExitCode.INTERRUPTED:
            raise
        # The impatient press Ctrl-C twice.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        console.say("cachectl: interrupted")
        _end(ExitCode.INTERRUPTED)
    console.say(f"cachectl: {message}")
    sys.exit(code)


def _end(code: ExitCode) -> NoReturn:
    """End at once, without waiting for threads that wait for an answer."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _as_interrupt(_signal: int, _frame: FrameType | None) -> None:
    """End as after Ctrl-C, so that temporary containers are removed."""
    # A second signal must not stop the clean-up.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As in a process that a script runs in the background.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.raise_signal(signal.SIGINT)


if __name__ == "__main__":
    main()
