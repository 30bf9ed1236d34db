import asyncio
import json
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

import pulumi
from hypothesis import example, given, settings
from hypothesis import strategies as st

from components import credential_helper, hooks
from components.logins import Login
from components.private_files import FilesInVolume, PrivateFile
from tests.unit.components import stack_graph
from tests.unit.components.stack_graph import CONTAINER, VOLUME, Declared, Graph, Secret

Files = Mapping[str, PrivateFile]


def anonymous() -> Files:
    return {"helper": credential_helper.anonymous()}


def with_password() -> Files:
    return {"helper": credential_helper.file(pulumi.Output.secret(Login("me", "hunter2")))}


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
    """The answer of the credential helper for a host."""
    asked = subprocess.run(
        ["sh", "-c", script, "helper", "get"],
        input=b"registry.test",
        capture_output=True,
        check=True,
    )
    assert asked.stderr == b""
    return json.loads(asked.stdout)


# In a volume


def test_a_container_that_never_runs_fills_the_volume() -> None:
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
    assert container.delete_before_replace
    assert container.before_create == (hooks.make_way,)
    labels = [{"label": "stack", "value": "dev"}]
    assert container.inputs["labels"] == labels
    assert volume.inputs["labels"] == [*labels, {"label": "made", "value": "before"}]


def test_every_file_has_its_name_content_and_permissions() -> None:
    graph = declare(lambda: {"one": PrivateFile("first"), "other": PrivateFile("second", 0o500)})

    assert writer(graph).inputs["uploads"] == [
        {"file": "/credentials/one", "content": "first", "permissions": "0444"},
        {"file": "/credentials/other", "content": "second", "permissions": "0500"},
    ]


# Credential helper


def test_the_anonymous_helper_is_executable_and_answers_with_no_credentials() -> None:
    helper = upload(declare())

    assert (helper["file"], helper["permissions"]) == (credential_helper.COMMAND, "0555")
    assert answer(helper["content"]) == {"Username": "", "Secret": ""}


def test_a_script_with_a_password_is_a_secret() -> None:
    graph = declare(with_password)

    script = upload(graph).pop("content")
    assert isinstance(script, Secret)
    assert answer(script.value) == {"Username": "me", "Secret": "hunter2"}
    assert "hunter2" not in repr(graph)


# Passwords may contain any character.
TEXTS = st.text(min_size=1, max_size=40) | st.text("'\"\\$`%\n\r\t !{}", min_size=1, max_size=20)


@settings(max_examples=60)
@given(username=TEXTS, password=TEXTS)
@example(username="o'brien", password="'; rm -rf / #")  # noqa: S106
@example(username="%s%d", password="\\n\\0 $HOME `id` $(id)")  # noqa: S106
@example(username="me", password="\x00")  # noqa: S106
def test_the_helper_answers_with_the_exact_user_name_and_password(
    username: str, password: str
) -> None:
    async def script() -> str:
        login = pulumi.Output.secret(Login(username, password))
        content = credential_helper.file(login).content
        return await pulumi.Output.from_input(content).future() or ""

    assert answer(asyncio.run(script())) == {"Username": username, "Secret": password}


def test_the_helper_reads_all_of_its_input() -> None:
    script = upload(declare())["content"]

    with subprocess.Popen(
        ["sh", "-c", script, "helper", "get"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as asked:
        assert asked.stdin is not None
        # More than a pipe holds: writing fails if nobody reads.
        asked.stdin.write(b"x" * 1_000_000)
        asked.stdin.close()
        assert asked.wait() == 0
