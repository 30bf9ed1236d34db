"""Pulumi's language host for packages in Python, as far as components need it.

The toolchain builds its host from the last Go module that has it, which is of 2023: it runs
programs, but no packages. Released CLIs bring a host that does both.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

import grpc  # type: ignore[import-untyped]
from pulumi.runtime.proto import language_pb2, language_pb2_grpc, plugin_pb2

NAME = "pulumi-language-python"
LOOKS_EVERY_S = 1


def install(folder: Path) -> None:
    """Put the host into a folder, which is to be the first on PATH."""
    host = folder / NAME
    host.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" $PPID\n')
    host.chmod(0o755)


class Host(language_pb2_grpc.LanguageRuntimeServicer):
    """Runs packages in the environment of the tests, which has their dependencies."""

    def Handshake(self, *_: Any) -> Any:  # noqa: N802 - Pulumi's name
        return language_pb2.LanguageHandshakeResponse()

    def GetPluginInfo(self, *_: Any) -> Any:  # noqa: N802
        return plugin_pb2.PluginInfo(version="0.0.0")

    def InstallDependencies(self, *_: Any) -> Iterator[Any]:  # noqa: N802
        yield language_pb2.InstallDependenciesResponse()

    def RunPlugin(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        """Start a package, and hand on what it prints, until Pulumi wants it no more."""
        running = subprocess.Popen(
            [sys.executable, request.info.program_directory, *request.args],
            cwd=request.pwd,
            env=dict(variable.split("=", 1) for variable in request.env) or None,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        context.add_callback(running.terminate)
        printed: SimpleQueue[Any] = SimpleQueue()
        with ThreadPoolExecutor() as readers:
            for name in ("stdout", "stderr"):
                readers.submit(_read, getattr(running, name), name, printed)
            open_streams = 2
            while open_streams:
                response = printed.get()
                open_streams -= response is None
                if response is not None:
                    yield response
        yield language_pb2.RunPluginResponse(exitcode=running.wait())


def _read(stream: IO[bytes], name: str, printed: SimpleQueue[Any]) -> None:
    while chunk := stream.read1(1 << 16):  # type: ignore[attr-defined]
        printed.put(language_pb2.RunPluginResponse(**{name: chunk}))
    printed.put(None)


def _serve(server: grpc.Server, pulumi: int) -> None:
    """Serve until Pulumi interrupts, or has been killed: then it is no longer the parent."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)  # noqa: T201 - where Pulumi reads it
    while os.getppid() == pulumi and not ended.wait(LOOKS_EVERY_S):
        pass
    # Cancelled calls end their packages.
    server.stop(grace=None).wait()


if __name__ == "__main__":
    made = grpc.server(ThreadPoolExecutor(16))
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(Host(), made)
    _serve(made, pulumi=int(sys.argv[1]))
