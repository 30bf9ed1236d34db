"""The phases in which a cluster boots, as `talosctl cluster create` prints them."""

import time
from collections.abc import Callable

# By the beginning of the first line of a phase (pkg/provision and pkg/cluster/check of Talos).
PHASES = {
    "creating network": "network",
    "creating controlplane nodes": "nodes",
    "creating master nodes": "nodes",
    "waiting for etcd": "etcd",
    "waiting for kubelet": "kubelet",
    "waiting for all k8s nodes": "Kubernetes",
    # Not from talosctl; see `waiting`.
    "waiting for the Kubernetes API": "Kubernetes API",
}
ROUTINE = ("waiting for ", "creating ", "generating ", "bootstrapping ", "validating ", " ", "\t")
# talosctl panics if a node ends at once.
PANIC = ("panic: ", "goroutine ", "github.com/", "main.")
SHOWN_EVERY_S = 10.0


class Phases:
    """Turns talosctl's output into a line for each phase, with its duration.

    A check that takes long is shown from time to time, and so is every line that is not routine,
    such as a warning.
    """

    def __init__(
        self, show: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start the clock.

        Args:
            show: called with each line for the user.
            clock: the time in seconds.
        """
        self._show = show
        self._clock = clock
        self._started = self._phase_started = self._shown = clock()
        self._phase = ""

    def line(self, line: str) -> None:
        """Take a line of output."""
        following = next((PHASES[begin] for begin in PHASES if line.startswith(begin)), self._phase)
        if following != self._phase:
            self._end_phase(f"; next: {following}")
            self._phase, self._phase_started = following, self._clock()
        elif (
            not line.startswith((*ROUTINE, *PANIC)) or self._clock() - self._shown >= SHOWN_EVERY_S
        ):
            self._say(line)

    def finish(self, reached: str) -> None:
        """Say what the cluster has reached, such as `ready`."""
        self._end_phase("")
        self._say(f"{reached} after {self._clock() - self._started:.1f} s")

    def _end_phase(self, following: str) -> None:
        if self._phase:
            took = self._clock() - self._phase_started
            self._say(f"{self._phase}: {took:.1f} s{following}")

    def _say(self, line: str) -> None:
        self._shown = self._clock()
        self._show(line)
