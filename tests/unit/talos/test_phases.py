"""The phases of a cluster's boot."""

from talos_registry_cache.talos.phases import SHOWN_EVERY_S, Phases

# What talosctl 1.13.0 printed for a real cluster, and how long each line took to come.
PRINTED = (
    ("generating PKI and tokens", 0.0),
    ('creating state directory in "/state/demo"', 0.5),
    ("creating network demo", 0.1),
    ("creating controlplane nodes", 0.2),
    ("creating worker nodes", 1.0),
    ("waiting for Talos API (to bootstrap the cluster)", 1.0),
    ("bootstrapping cluster", 7.0),
    ("waiting for etcd to be healthy: ...", 1.0),
    ("waiting for etcd to be healthy: 1 error occurred:", 1.0),
    ('    * 10.5.0.2: service "etcd" not in expected state "Running"', 0.0),
    ("waiting for etcd to be healthy: OK", 5.0),
    ("waiting for kubelet to be healthy: ...", 0.5),
    ("waiting for kubelet to be healthy: OK", 0.5),
    ("waiting for all k8s nodes to report: ...", 1.5),
    ("waiting for coredns to report ready: OK", 4.0),
)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_each_phase_is_one_line_with_its_duration() -> None:
    shown: list[str] = []
    clock = Clock()
    phases = Phases(shown.append, clock)

    for line, after in PRINTED:
        clock.now += after
        phases.line(line)
    phases.finish("ready")

    assert shown == [
        "network: 0.2 s; next: nodes",
        "nodes: 10.0 s; next: etcd",
        "etcd: 6.5 s; next: kubelet",
        "kubelet: 2.0 s; next: Kubernetes",
        "Kubernetes: 4.0 s",
        "ready after 23.3 s",
    ]


def test_a_warning_is_shown_as_it_is() -> None:
    shown: list[str] = []
    phases = Phases(shown.append, Clock())
    phases.line("creating network demo")
    phases.line("warning: kernel module br_netfilter is not loaded")
    assert shown == ["warning: kernel module br_netfilter is not loaded"]


def test_a_panic_is_not_shown() -> None:
    shown: list[str] = []
    phases = Phases(shown.append, Clock())
    for line in ("panic: invalid IP", "goroutine 1 [running]:", "main.main()", "\tmain.go:16"):
        phases.line(line)
    assert shown == []


def test_a_check_that_takes_long_is_shown_from_time_to_time() -> None:
    shown: list[str] = []
    clock = Clock()
    phases = Phases(shown.append, clock)
    for number in range(5):
        phases.line(f"waiting for coredns to report ready: attempt {number}")
        clock.now += SHOWN_EVERY_S / 2
    assert shown == [
        "waiting for coredns to report ready: attempt 2",
        "waiting for coredns to report ready: attempt 4",
    ]
