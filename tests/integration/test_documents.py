"""Run the commands of each document as printed, from first to last."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.support import checkouts, private_engine, prometheus
from tests.integration.support.checkouts import Machine
from tests.support import documents
from tests.support.documents import Block, Document

# Commands to run before the commands of a document.
GIVEN = {
    "docs/cachectl.md": "make up\nprintf 'team/app:1\\nquay.io/team/tool:1\\n' > images.txt\n",
    "docs/images.md": "make up\n"
    "mkdir deploy\n"
    "echo '{image: alpine, tool: {image: \"quay.io/team/tool:1\"}}' > deploy/app.yaml\n"
    "cachectl images deploy > images.txt\ncachectl warm --images images.txt\n"
    "printf '  images: {file: images.txt}\n' >> Pulumi.dev.yaml\n",
    "docs/metrics.md": "make up\n",
}

RUNNABLE = [
    document
    for document in documents.all_documents()
    if any(block.mark is None for block in document.blocks())
]

pytestmark = pytest.mark.skipif(
    bool(private_engine.why_impossible()), reason=private_engine.why_impossible() or "possible"
)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with checkouts.machine(tmp_path_factory.mktemp("machine")) as made:
        folder = tmp_path_factory.mktemp("prometheus")
        prometheus.install(folder, made.engine.host, prometheus.OFFICIAL_IMAGE)
        yield made


@pytest.fixture
def checkout(machine: Machine, tmp_path: Path) -> Iterator[Path]:
    with checkouts.checkout(machine, tmp_path) as made:
        yield made


@pytest.mark.parametrize("document", RUNNABLE, ids=lambda one: one.name)
def test_the_commands_of_a_document_succeed(
    document: Document, machine: Machine, checkout: Path
) -> None:
    given = [Block(0, GIVEN[document.name], None)] if document.name in GIVEN else []
    for block in (*given, *document.blocks()):
        if block.mark is None:
            code, said = machine.run(block.script, checkout)
            assert code == 0, f"{document.name}:{block.line}: {code}\n{said}"
            assert "Traceback" not in said, said


def test_only_documents_that_are_run_have_commands_to_run_before() -> None:
    assert set(GIVEN) <= {document.name for document in RUNNABLE}
