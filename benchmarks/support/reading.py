"""Clients that read what is cached as fast as they are served, each a process of its own."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO

from benchmarks.support import processor, reader
from benchmarks.support.processor import Busy
from benchmarks.support.session import CannotRunError

CLIENTS = "clients"


@dataclass(frozen=True, slots=True)
class Client:
    """A client of one cache.

    Attributes:
        url: the cache.
        paths: blobs that it holds, which are read one after the other, again and again.
        ca: certificate of the authority to trust.
        authorization: the header that lets it in.
    """

    url: str
    paths: Sequence[str]
    ca: str
    authorization: str


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast clients were served.

    Attributes:
        bytes_per_s: all of them together.
        busy: how busy the processor was, with the clients and with others.
    """

    bytes_per_s: float
    busy: Busy


def read(clients: Sequence[Client], seconds: float, serving: Mapping[str, Iterable[int]]) -> Rate:
    """Let clients read at the same time.

    Args:
        clients: the clients.
        seconds: for how long.
        serving: IDs of the processes that serve them, by the name of their group.

    Raises:
        CannotRunError: one could not read.
    """
    with ExitStack() as running:
        readers = [running.enter_context(_running(client)) for client in clients]
        for one in readers:
            one.hear()
        groups = {**serving, CLIENTS: [one.pid for one in readers]}
        before = processor.spent(groups)
        for one in readers:
            one.say(str(seconds))
        size = sum(int(one.hear()) for one in readers)
        after = processor.spent(groups)
    return Rate(size / seconds, processor.busy(before, after))


class _Reader:
    def __init__(self, process: subprocess.Popen[str], to: IO[str], by: IO[str]) -> None:
        self.pid = process.pid
        self._process, self._to, self._by = process, to, by

    def say(self, line: str) -> None:
        print(line, file=self._to, flush=True)

    def hear(self) -> str:
        if line := self._by.readline():
            return line.strip()
        self._process.wait()
        raise CannotRunError(f"a client ended with {self._process.returncode}, see above")


@contextmanager
def _running(client: Client) -> Iterator[_Reader]:
    with subprocess.Popen(
        [sys.executable, reader.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdin is not None  # noqa: S101 - both are pipes
            assert process.stdout is not None  # noqa: S101
            started = _Reader(process, process.stdin, process.stdout)
            started.say(json.dumps(dataclasses.asdict(client)))
            yield started
        finally:
            process.kill()
