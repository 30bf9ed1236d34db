"""Parse the commands, headings and links of the documents.

tests/integration/test_documents.py runs the commands in `sh` and `console` blocks. A mark, an HTML
comment directly before a block, excludes it. It gives the reason, or names what runs the commands:

    <!-- not run: needs a Mac -->
    <!-- run by: .ci/run: make check, make test -->

The second form names a file, and text in this file that runs the commands.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
SHELL, CONSOLE = "sh", "console"
# Other languages of code blocks.
OTHER = ("mermaid", "python", "yaml")
PROMPT = "$ "

MARK = re.compile(
    r"<!-- (?:not run: (?P<reason>\S.*)|run by: (?P<file>\S+): (?P<words>\S.*)) -->\s*"
)


@dataclass(frozen=True, slots=True)
class NotRun:
    """The mark of a block that no test runs, with the reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class RunBy:
    """The mark of a block whose commands another file runs.

    Attributes:
        file: path of that file in the repository.
        words: text in that file.
    """

    file: str
    words: Sequence[str]


@dataclass(frozen=True, slots=True)
class Block:
    """A block of commands.

    Attributes:
        line: its line number.
        script: the commands, as a user would type them.
        mark: its mark, or None.
    """

    line: int
    script: str
    mark: NotRun | RunBy | None


class Document:
    """A Markdown file of the repository."""

    def __init__(self, path: Path) -> None:
        """Parse the file."""
        self.path = path
        self._tokens = _parser().parse(path.read_text(encoding="utf-8"))

    @property
    def name(self) -> str:
        """Path in the repository."""
        return str(self.path.relative_to(ROOT))

    def blocks(self) -> Sequence[Block]:
        """The blocks of commands."""
        before = [None, *self._tokens]
        return [
            Block(_line(token), commands(token.info, token.content), _mark(previous))
            for previous, token in zip(before, self._tokens, strict=False)
            if token.type == "fence" and token.info in {SHELL, CONSOLE}
        ]

    def unclear(self) -> Iterator[str]:
        """Errors: blocks that no test would run, and comments that are not marks."""
        after = [*self._tokens[1:], None]
        for token, following in zip(self._tokens, after, strict=True):
            place = f"{self.path.name}:{_line(token)}"
            if token.type == "code_block":
                yield f"{place}: an indented block; allowed: a fenced block with a language"
            if token.type == "fence" and token.info not in {SHELL, CONSOLE, *OTHER}:
                allowed = ", ".join((SHELL, CONSOLE, *OTHER))
                yield f"{place}: a block in {token.info or 'no language'}; allowed: {allowed}"
            if token.type == "html_block" and not _marks(token, following):
                yield f"{place}: not the mark of a block of commands: {token.content.strip()}"

    def anchors(self) -> set[str]:
        """The anchors of its headings, as on GitHub."""
        return set(slugs(self._headings()))

    def links(self) -> Iterator[str]:
        """The targets of its links and pictures."""
        for token in self._inline():
            for name in ("href", "src"):
                if name in token.attrs:
                    yield str(token.attrs[name])

    def _headings(self) -> Iterator[str]:
        for opening, inline in zip(self._tokens, self._tokens[1:], strict=False):
            if opening.type == "heading_open":
                yield "".join(child.content for child in inline.children or ())

    def _inline(self) -> Iterator[Token]:
        for token in self._tokens:
            yield from token.children or ()


def all_documents() -> Sequence[Document]:
    """All documents of the repository."""
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return [Document(file) for file in sorted(files)]


def commands(language: str, content: str) -> str:
    """The commands of a block: all lines of `sh`, and the lines with a prompt of `console`."""
    if language == SHELL:
        return content
    typed = []
    goes_on = False
    for line in content.splitlines():
        if goes_on or line.startswith(PROMPT):
            typed.append(line if goes_on else line.removeprefix(PROMPT))
            goes_on = line.endswith("\\")
    return "\n".join(typed) + "\n"


def slugs(headings: Iterator[str]) -> Iterator[str]:
    """The anchors of headings: lower case, hyphens for spaces, no punctuation, numbered."""
    seen: dict[str, int] = {}
    for heading in headings:
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        number = seen.get(slug, 0)
        seen[slug] = number + 1
        yield f"{slug}-{number}" if number else slug


def target(document: Path, link: str) -> tuple[Path, str]:
    """The file or directory of a relative link, and its anchor."""
    parts = urlsplit(link)
    path = (document.parent / unquote(parts.path)).resolve() if parts.path else document
    return path, unquote(parts.fragment)


def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark").enable("table")


def _line(token: Token) -> int:
    return token.map[0] + 1 if token.map else 0


def _mark(before: Token | None) -> NotRun | RunBy | None:
    found = MARK.fullmatch(before.content) if before and before.type == "html_block" else None
    if found is None:
        return None
    if found["reason"]:
        return NotRun(found["reason"])
    return RunBy(found["file"], found["words"].split(", "))


def _marks(comment: Token, following: Token | None) -> bool:
    """Whether an HTML block is the mark of the next block."""
    return (
        _mark(comment) is not None
        and following is not None
        and following.type == "fence"
        and following.info in {SHELL, CONSOLE}
    )
