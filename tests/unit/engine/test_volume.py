"""What is read from and written to a volume is complete, although engines may lose some."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from talos_registry_cache.engine.volume import MARK, TRIES, Volume, VolumeError

TAGS = "./team/app\n./team/tool\n"
WHOLE = f"{MARK}\n{TAGS}{MARK}\n"
OWNER = f"{MARK}\n65532 65532\n{MARK}\n"


class LosingContainer:
    """A container whose engine loses some of what commands print."""

    def __init__(self, answers: Sequence[str]) -> None:
        self.answers = [OWNER, *answers]
        self.users: list[str] = []

    def start(self) -> None:
        pass

    def exec_run(self, _command: list[str], user: str, **_: Any) -> tuple[int, bytes]:
        self.users.append(user)
        return 0, self.answers.pop(0).encode()


def asked(*answers: str) -> str:
    container: Any = LosingContainer(answers)
    return Volume(container).ask(["busybox", "find", "."])


def test_a_command_runs_as_the_owner_of_the_storage() -> None:
    container: Any = LosingContainer([WHOLE])

    assert Volume(container).ask(["busybox", "find", "."]) == TAGS
    assert container.users == ["0:0", "65532:65532"]


@pytest.mark.parametrize(
    "lost", ["", MARK, f"{MARK}\n", f"{MARK}\n./team/app\n", f"./team/tool\n{MARK}\n"]
)
def test_a_command_runs_again_a_few_times_if_output_is_lost(lost: str) -> None:
    assert asked(lost, WHOLE) == TAGS
    assert asked(f"{MARK}\n{MARK}\n") == "", "empty output is valid"
    with pytest.raises(VolumeError, match="the engine lost the output of find"):
        asked(*[lost] * TRIES)


class LocalContainer:
    """A container whose volume is a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = 0

    def start(self) -> None:
        pass

    def exec_run(self, command: list[str], **_: Any) -> tuple[int, bytes]:
        if "stat" in command:
            return 0, OWNER.encode()
        self.runs += 1
        words = [word.replace("busybox ", "") for word in command if word != "busybox"]
        ended = subprocess.run(words, cwd=self.folder, capture_output=True, check=False)
        return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    "texts",
    [
        {"a/b/link": "sha256:0", "a/c/link": "sha256:1"},
        {"a/empty": ""},
        {"a/large": "0123456789" * 30_000, "a/after": "%s\\n"},
        {"a/wide": "\N{EARTH GLOBE EUROPE-AFRICA}" * 290_000},
        {f"folder/{number}": "text" for number in range(500)},
    ],
    ids=["links", "empty", "large", "wide", "many"],
)
def test_files_are_written_whole_whatever_their_size(texts: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "empty").write_text("before")
    container: Any = LocalContainer(tmp_path)

    Volume(container).write(texts)

    assert {path: (tmp_path / path).read_text() for path in texts} == texts
    assert not list(tmp_path.rglob("*.new"))
    assert container.runs <= 2
