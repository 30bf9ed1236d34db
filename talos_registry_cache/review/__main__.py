"""The command line of the preview: `python -m talos_registry_cache.review --base main`."""

from pathlib import Path
from typing import Annotated

import typer

from talos_registry_cache.review import markdown, preview
from talos_registry_cache.review.errors import ReviewError

ROOT = Path(__file__).resolve().parents[2]

MADE, FAILED, CHANGES, DATA_LOSS = 0, 1, 2, 3


def exit_code(made: preview.Preview, *, allow_data_loss: bool, detailed: bool) -> int:
    """What the command ends with: the worst of what is true."""
    if made.has_failed:
        return FAILED
    if made.loses_data and not allow_data_loss:
        return DATA_LOSS
    return CHANGES if detailed and made.changes else MADE


def main(
    *,
    base: Annotated[str, typer.Option(help="Branch, tag or commit to compare with.")] = "main",
    head: Annotated[
        str | None,
        typer.Option(help="Branch, tag or commit of the change. Default: the working tree."),
    ] = None,
    stack: Annotated[
        list[str] | None,
        typer.Option(help="Stack to look at; may be repeated. Default: all that can be affected."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="File for the report. Default: standard output.")
    ] = None,
    allow_data_loss: Annotated[
        bool, typer.Option("--allow-data-loss", help="End with 0 although data would be lost.")
    ] = False,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="End with 2 if there are changes.")
    ] = False,
) -> None:
    """Report in Markdown what a change would do to stacks that run the base branch.

    With --head, this checkout makes the report, and takes nothing from the change but the program
    and the stack files that are compared.

    Ends with 0 when the report is made and no data would be lost, 3 when some would, 1 on failure.
    """
    try:
        made = preview.make(ROOT, base, stack or [], _say, head=head)
    except ReviewError as error:
        _say(f"error: {error}")
        raise typer.Exit(FAILED) from None
    if output:
        output.write_text(markdown.report(made), encoding="utf-8")
        _say(markdown.verdict(made))
    else:
        typer.echo(markdown.report(made), nl=False)
    raise typer.Exit(exit_code(made, allow_data_loss=allow_data_loss, detailed=detailed_exitcode))


def _say(line: str) -> None:
    typer.echo(line, err=True)


if __name__ == "__main__":
    typer.run(main)
