"""Temporary containers are removed when their process has ended."""

import subprocess
import sys
import time
from typing import Any

import pytest
from docker.errors import APIError

from talos_registry_cache.engine import running_process, temporary_container

DAY_S = 24 * 3600
ELSEWHERE = "another-machine 1 yesterday"


class Api:
    """An engine that has one container."""

    def __init__(self, labels: dict[str, str], age_s: float, error: str = "") -> None:
        self.error = error
        self.left = [{"Id": "1", "Labels": labels, "Created": int(time.time() - age_s)}]

    def containers(self, **_: Any) -> list[dict[str, Any]]:
        return list(self.left)

    def remove_container(self, _id: str, **_: Any) -> None:
        if self.error:
            raise APIError(self.error)
        self.left.clear()


class Engine:
    """Its client."""

    def __init__(self, api: Api) -> None:
        self.api = api


def stays(labels: dict[str, str], age_s: float) -> bool:
    api = Api(labels, age_s)
    engine: Any = Engine(api)
    temporary_container.remove_leftovers(engine)
    return bool(api.left)


def gone() -> str:
    """The identifier of a process that has ended."""
    program = "from talos_registry_cache.engine import running_process as us; print(us.own())"
    return subprocess.check_output([sys.executable, "-c", program], text=True).strip()


def test_the_container_of_an_ended_process_is_removed_at_once() -> None:
    assert not stays({temporary_container.PROCESS: gone()}, 0)


@pytest.mark.parametrize("age_s", [0, 2 * DAY_S])
def test_the_container_of_a_running_process_stays_however_old(age_s: float) -> None:
    assert stays({temporary_container.PROCESS: running_process.own()}, age_s)


@pytest.mark.parametrize("labels", [{}, {temporary_container.PROCESS: ELSEWHERE}])
def test_the_container_of_an_unknown_process_is_removed_after_a_day(labels: dict[str, str]) -> None:
    assert stays(labels, DAY_S - 60)
    assert not stays(labels, DAY_S + 60)


def test_a_container_that_cannot_be_removed_is_no_error() -> None:
    engine: Any = Engine(Api({temporary_container.PROCESS: gone()}, 0, "it is stuck"))

    temporary_container.remove_leftovers(engine)
    temporary_container.remove_own(engine)
