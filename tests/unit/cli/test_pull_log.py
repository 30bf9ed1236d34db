"""The log of a front."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talos_registry_cache.cli import pull_log
from talos_registry_cache.cli.pull_log import Pull

DIGEST = f"sha256:{'ab' * 32}"
LINE = (
    "10.5.0.2 - nodes [27/Nov/2026:18:30:00 +0000] "
    f'"GET /v2/library/busybox/blobs/{DIGEST}?ns=docker.io HTTP/1.1" 200 1234 "-" '
    '"containerd/v2.2.3" 0.012 shared'
)


def test_a_request_for_a_blob_is_parsed() -> None:
    assert pull_log.parse(LINE) == Pull(
        time=datetime(2026, 11, 27, 18, 30, tzinfo=UTC),
        client="10.5.0.2",
        method="GET",
        repository="library/busybox",
        kind="blobs",
        target=DIGEST,
        status=200,
        size=1234,
        seconds=0.012,
        result="shared",
        agent="containerd/v2.2.3",
    )


@pytest.mark.parametrize(
    "line",
    [
        "",
        "2026/11/27 19:05:24 [emerg] 1#1: open() failed (2: No such file or directory)",
        LINE.replace(f"library/busybox/blobs/{DIGEST}", ""),
        LINE.replace("27/Nov/2026", "99/Nov/2026"),
        LINE.removesuffix(" shared"),
        LINE.replace("shared", "unknown"),
    ],
    ids=["nothing", "an error", "no blob", "no date", "a registry's", "an unknown result"],
)
def test_any_other_line_is_none(line: str) -> None:
    assert pull_log.parse(line) is None


def as_nginx_logs(text: str) -> str:
    """A value as nginx writes it: quotes, backslashes and all but printable ASCII in hex."""
    return "".join(
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\' else f"\\x{byte:02X}"
        for byte in text.encode(errors="surrogatepass")
    )


@given(agent=st.text(), tag=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", fullmatch=True))
def test_no_client_can_break_a_line_with_its_user_agent(agent: str, tag: str) -> None:
    line = LINE.replace("containerd/v2.2.3", as_nginx_logs(agent)).replace(
        f"blobs/{DIGEST}", f"manifests/{tag}"
    )

    pull = pull_log.parse(line)

    assert pull is not None
    assert (pull.agent, pull.kind, pull.target) == (as_nginx_logs(agent), "manifests", tag)


@given(st.text())
def test_any_text_is_parsed_or_none(text: str) -> None:
    assert pull_log.parse(text) is None or text.endswith(("hit", "shared", "stale", "miss", "-"))
