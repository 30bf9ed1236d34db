import asyncio
import json
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

import pulumi
from hypothesis import example, given, settings
from hypothesis import strategies as st

from components import credential_helper, hooks
from components.private_files import FilesInVolume, PrivateFile
from tests.unit.components import stack_graph
from tests.unit.components.stack_graph import CONTAINER, VOLUME, Declared, Graph, Secret

Files = Mapping[str, PrivateFile]


def anonymous() -> Files:
    return {"helper": credential_helper.anonymous()}


def with_password() -> Files:
    return {"helper": credential_helper.file("me", pulumi.Output.secret("hunter2"))}


def declare(files: Callable[[], Files] = anonymous) -> Graph:
    def program() -> None:
        labels = {"stack": "dev"}
        of_volume = {**labels, "made": "before"}
        FilesInVolume(
            "anonymous",
            volume="registry-dev-anonymous",
            image="sha256:0123",
            labels=labels,
            volume_labels=of_volume,
            files=files(),
        )

    return stack_graph.run(program)


def writer(graph: Graph) -> Declared:
    return graph.one(CONTAINER, "anonymous-writer")


def upload(graph: Graph) -> Any:
    (only,) = writer(graph).inputs["uploads"]
    return only


def answer(script: str) -> Any:
    """What the registry reads from the command, which it asks about one host."""
    asked = subprocess.run(
        ["sh", "-c", script, "helper", "get"],
        input=b"registry.test",
        capture_output=True,
        check=True,
    )
    assert asked.stderr == b""
    return json.loads(asked.stdout)


# In a volume


def test_files_are_a_volume_and_a_container_that_fills_it_and_never_runs() -> None:
    graph = declare()
    container = writer(graph)

    volume = graph.one(VOLUME, "anonymous-volume")
    assert {volume.parent, container.parent} == {"anonymous"}
    assert volume.inputs["name"] == "registry-dev-anonymous"
    assert container.inputs["volumes"] == [
        {"volumeName": "registry-dev-anonymous", "containerPath": "/credentials"}
    ]
    assert container.inputs["start"] is False
    assert container.inputs["mustRun"] is False
    assert container.inputs["networkMode"] == "none"
    assert container.inputs["logDriver"] == "none"


def test_every_file_is_there_under_its_name_and_with_its_permissions() -> None:
    graph = declare(lambda: {"one": PrivateFile("first"), "other": PrivateFile("second", 0o500)})

    assert writer(graph).inputs["uploads"] == [
        {"file": "/credentials/one", "content": "first", "permissions": "0444"},
        {"file": "/credentials/other", "content": "second", "permissions": "0500"},
    ]


def test_the_container_that_fills_the_volume_makes_way_for_its_successor() -> None:
    container = writer(declare())

    assert container.delete_before_replace
    assert container.before_create == (hooks.make_way,)


def test_volume_and_container_have_their_labels() -> None:
    graph = declare()

    labels = [{"label": "stack", "value": "dev"}]
    assert writer(graph).inputs["labels"] == labels
    assert graph.one(VOLUME, "anonymous-volume").inputs["labels"] == [
        *labels,
        {"label": "made", "value": "before"},
    ]


# The credential command


def test_every_user_can_read_and_run_the_command() -> None:
    assert upload(declare())["file"] == credential_helper.COMMAND
    assert upload(declare())["permissions"] == "0555"


def test_nobody_is_asked_for_anonymously_and_that_is_no_secret() -> None:
    script = upload(declare())["content"]

    assert answer(script) == {"Username": "", "Secret": ""}


def test_the_script_with_a_password_is_a_secret_as_a_whole() -> None:
    graph = declare(with_password)

    assert isinstance(upload(graph)["content"], Secret)
    assert answer(upload(graph)["content"].value) == {"Username": "me", "Secret": "hunter2"}


def test_the_password_is_in_nothing_but_the_script() -> None:
    graph = declare(with_password)

    script = upload(graph).pop("content")
    assert "hunter2" in script.value
    assert "hunter2" not in repr(graph)


def test_the_password_does_not_show_in_the_arguments() -> None:
    async def shown() -> str:
        return repr(with_password())

    assert "hunter2" not in asyncio.run(shown())


# A process cannot be given NUL; everything else can stand in a password.
TEXTS = st.text(min_size=1, max_size=40) | st.text("'\"\\$`%\n\r\t !{}", min_size=1, max_size=20)


@settings(max_examples=60)
@given(username=TEXTS, password=TEXTS)
@example(username="o'brien", password="'; rm -rf / #")  # noqa: S106
@example(username="%s%d", password="\\n\\0 $HOME `id` $(id)")  # noqa: S106
@example(username="me", password="\x00")  # noqa: S106
def test_the_registry_gets_just_the_user_name_and_password(username: str, password: str) -> None:
    async def script() -> str:
        content = credential_helper.file(username, pulumi.Output.secret(password)).content
        return await pulumi.Output.from_input(content).future() or ""

    assert answer(asyncio.run(script())) == {"Username": username, "Secret": password}


def test_the_command_reads_all_that_it_is_asked() -> None:
    script = upload(declare())["content"]

    with subprocess.Popen(
        ["sh", "-c", script, "helper", "get"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as asked:
        assert asked.stdin is not None
        # More than a pipe holds: this breaks if nobody reads it.
        asked.stdin.write(b"x" * 1_000_000)
        asked.stdin.close()
        assert asked.wait() == 0
