"""Forward frames between two devices with a delay, where the kernel has no netem.

A separate program, because it runs in the namespace of the devices:
`slow_wire.py <device> <device> <seconds>`. It prints a line when it starts to forward.
"""

import selectors
import socket
import sys
import time
from collections import deque

# From linux/if_packet.h. The header before each frame passes offloaded checksums and segmentation
# on to the other device.
SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 15, 23
ETH_P_ALL = 3
# From asm-generic/socket.h: a buffer above the system's limit, which root may set.
SO_RCVBUFFORCE = 33
FRAME_AT_MOST = 1 << 17
BUFFER = 1 << 24


def main(first: str, second: str, delay_s: float) -> None:
    """Forward frames between two devices until killed."""
    ends = (_open(first), _open(second))
    waiting: deque[tuple[float, socket.socket, bytes]] = deque()
    with selectors.DefaultSelector() as selector:
        for end, other in (ends, ends[::-1]):
            selector.register(end, selectors.EVENT_READ, other)
        print("forwarding", flush=True)  # noqa: T201 - the parent process waits for this
        while True:
            timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
            for key, _ in selector.select(timeout):
                assert isinstance(key.fileobj, socket.socket)
                frame = key.fileobj.recv(FRAME_AT_MOST)
                waiting.append((time.monotonic() + delay_s, key.data, frame))
            while waiting and waiting[0][0] <= time.monotonic():
                _, target, frame = waiting.popleft()
                target.send(frame)


def _open(device: str) -> socket.socket:
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    end.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    end.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    end.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    end.bind((device, ETH_P_ALL))
    return end


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
