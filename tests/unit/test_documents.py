"""Every command in the documents is run by a test or marked, and every link works."""

import re
from pathlib import Path
from textwrap import dedent
from urllib.parse import urlsplit

import pytest

from tests.support import documents
from tests.support.documents import ROOT, Block, Document, NotRun, RunBy

DOCUMENTS = documents.all_documents()

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda one: one.name)


def written(folder: Path, text: str) -> Document:
    path = folder / "page.md"
    path.write_text(dedent(text))
    return Document(path)


# The documents of this repository


@each_document
def test_every_block_of_commands_is_run_or_marked(document: Document) -> None:
    assert list(document.unclear()) == []


@each_document
def test_the_file_in_a_mark_runs_the_commands(document: Document) -> None:
    for block in document.blocks():
        if isinstance(block.mark, RunBy):
            text = (ROOT / block.mark.file).read_text()
            missing = [words for words in block.mark.words if words not in text]
            assert missing == [], f"{document.name}:{block.line}: not in {block.mark.file}"


@each_document
def test_commands_write_only_into_the_checkout(document: Document) -> None:
    for block in document.blocks():
        writes = re.search(r"(-o|--output|>|tee|sudo)\s*/\S*", block.script)
        assert block.mark or not writes, f"{document.name}:{block.line}: {block.script}"


@each_document
def test_every_link_has_a_target(document: Document) -> None:
    for link in document.links():
        if urlsplit(link).scheme:
            assert urlsplit(link).scheme in {"http", "https"}, link
            assert urlsplit(link).hostname, link
            continue
        path, anchor = documents.target(document.path, link)
        assert path.is_relative_to(ROOT), f"{link} is outside the repository"
        assert path.exists(), f"{link} does not exist"
        if anchor:
            assert anchor in Document(path).anchors(), f"{link}: no such heading"


def test_every_page_can_be_reached_from_the_readme() -> None:
    by_path = {document.path: document for document in DOCUMENTS}
    reached, left = set(), [ROOT / "README.md"]
    while left:
        page = left.pop()
        if page.is_dir():  # GitHub lists its files
            left.extend(page.glob("*.md"))
        elif page in by_path and page not in reached:
            reached.add(page)
            left.extend(documents.target(page, link)[0] for link in by_path[page].links())

    pages = {document.path for document in DOCUMENTS if ROOT / "docs" in document.path.parents}
    assert pages - reached == set()


# The parser


def test_commands_are_parsed_with_their_marks(tmp_path: Path) -> None:
    page = written(
        tmp_path,
        """\
        ```sh
        make up      # a comment
        ```

        1. In a list:

           <!-- not run: needs a Mac -->
           ```console
           $ brew install \\
               this
           it says something
           $ ls
           ```

        <!-- run by: .ci/run: make check, make test -->

        ```sh
        make test
        ```

        ```yaml
        not: a command
        ```
        """,
    )

    assert page.blocks() == [
        Block(1, "make up      # a comment\n", None),
        Block(8, "brew install \\\n    this\nls\n", NotRun("needs a Mac")),
        Block(17, "make test\n", RunBy(".ci/run", ["make check", "make test"])),
    ]
    assert list(page.unclear()) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Run:\n\n    make up\n", "an indented block"),
        ("```\nmake up\n```\n", "a block in no language"),
        ("```bash\nmake up\n```\n", "a block in bash"),
        ("<!-- not run: -->\n```sh\nmake up\n```\n", "not the mark"),
        ("<!-- run by: .ci/run -->\n```sh\nmake up\n```\n", "not the mark"),
        ("<!-- not run: needs a Mac -->\n\nText.\n\n```sh\nmake up\n```\n", "not the mark"),
    ],
)
def test_blocks_that_no_test_would_run_are_errors(tmp_path: Path, text: str, said: str) -> None:
    (found,) = written(tmp_path, text).unclear()

    assert said in found


def test_a_comment_before_a_mark_is_an_error(tmp_path: Path) -> None:
    page = written(tmp_path, "<!-- x -->\n<!-- not run: needs a Mac -->\n```sh\nmake up\n```\n")

    assert [block.mark for block in page.blocks()] == [NotRun("needs a Mac")]
    assert len(list(page.unclear())) == 1


def test_anchors_match_github(tmp_path: Path) -> None:
    page = written(tmp_path, "# What `up` does, in 2 steps\n\n## The same_1\n\n## The same_1\n")

    assert page.anchors() == {"what-up-does-in-2-steps", "the-same_1", "the-same_1-1"}


def test_all_kinds_of_links_are_found(tmp_path: Path) -> None:
    page = written(
        tmp_path,
        """\
        | a [table](t.md#x) |
        | --- |
        | ![picture](p.png) |

        And a [reference], and <https://example.org/>.

        [reference]: r.md
        """,
    )

    assert sorted(page.links()) == ["https://example.org/", "p.png", "r.md", "t.md#x"]


def test_a_link_is_relative_to_its_page() -> None:
    page = ROOT / "docs" / "page.md"

    assert documents.target(page, "../README.md#use-it") == (ROOT / "README.md", "use-it")
    assert documents.target(page, "#here") == (page, "here")
