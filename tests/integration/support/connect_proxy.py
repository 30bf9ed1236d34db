"""An HTTP proxy that tunnels TLS connections (CONNECT) to hosts that only it knows."""

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.integration.support import host

TIMEOUT_S = 60
CHUNK = 65_536
Address = tuple[str, int]


class ConnectProxy(ThreadingHTTPServer):
    """The proxy.

    Attributes:
        url: its URL.
        asked: the hosts and ports that clients asked for, in order.
    """

    daemon_threads = True

    def __init__(self, address: str, hosts: Mapping[str, Address]) -> None:
        super().__init__((address, host.free_port()), _Handler)
        self.url = f"http://{address}:{self.server_port}"
        self.hosts = hosts
        self.asked: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    timeout = TIMEOUT_S
    server: ConnectProxy

    def do_CONNECT(self) -> None:
        self.server.asked.append(self.path)
        target = self.server.hosts.get(self.path)
        if target is None:
            return self.send_error(HTTPStatus.BAD_GATEWAY)
        with socket.create_connection(target, TIMEOUT_S) as there:
            self.send_response(HTTPStatus.OK)
            self.end_headers()
            back = threading.Thread(target=_pump, args=(there, self.connection))
            back.start()
            _pump(self.connection, there)
            back.join()
        return None

    def log_message(self, *_: object) -> None:
        """Log nothing; `asked` has the requests."""


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Forward all bytes, and then the end."""
    with suppress(OSError):
        while chunk := source.recv(CHUNK):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def running(address: str, hosts: Mapping[str, Address]) -> Iterator[ConnectProxy]:
    """Run a proxy.

    Args:
        address: the address of this machine to listen on.
        hosts: the servers that it reaches, by host and port as clients name them.
    """
    proxy = ConnectProxy(address, hosts)
    thread = threading.Thread(target=proxy.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join(TIMEOUT_S)
