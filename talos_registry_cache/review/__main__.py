"""The command line of the preview: `python -m talos_registry_cache.review --base main`."""

from pathlib import Path
from typing import Annotated

import typer

from talos_registry_cache.engine import selection
from talos_registry_cache.errors import ReportedError
from talos_registry_cache.review import markdown, preview
from talos_registry_cache.review.model import Preview

ROOT = Path(__file__).resolve().parents[2]

SUCCESS, FAILED, CHANGES, DATA_LOSS = 0, 1, 2, 3


def exit_code(made: Preview, *, allow_data_loss: bool, detailed: bool) -> int:
    """Return the exit code: a failure outranks data loss, and data loss outranks changes."""
    if made.has_failed:
        return FAILED
    if made.loses_data and not allow_data_loss:
        return DATA_LOSS
    return CHANGES if detailed and made.changes else SUCCESS


def main(
    *,
    base: Annotated[str, typer.Option(help="Branch, tag or commit to compare with.")] = "main",
    head: Annotated[
        str | None,
        typer.Option(help="Branch, tag or commit of the change. Default: the working tree."),
    ] = None,
    stack: Annotated[
        list[str] | None,
        typer.Option(help="Stack to compare; may be repeated. Default: all affected stacks."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="File to write the report to, cut to fit into a comment. "
            "Default: the whole report on standard output."
        ),
    ] = None,
    allow_data_loss: Annotated[
        bool, typer.Option("--allow-data-loss", help="Exit with 0 even if data would be lost.")
    ] = False,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="Exit with 2 if there are changes.")
    ] = False,
) -> None:
    """Report in Markdown what a change would do to stacks that run the base branch.

    With --head, this checkout's own code makes the report, and only the program and the stack files
    are the change's.

    Exits with 0 if no data would be lost, 3 if some would, and 1 on failure.
    """
    try:
        selection.select().export()
        made = preview.make(ROOT, base, stack or [], _say, head=head)
    except ReportedError as error:
        _say(f"error: {error}")
        raise typer.Exit(FAILED) from None
    if output:
        output.write_text(markdown.report(made), encoding="utf-8")
        _say(markdown.verdict(made))
    else:
        typer.echo(markdown.report(made, limit=None), nl=False)
    raise typer.Exit(exit_code(made, allow_data_loss=allow_data_loss, detailed=detailed_exitcode))


def _say(line: str) -> None:
    typer.echo(line, err=True)


if __name__ == "__main__":
    typer.run(main)
