"""The lines of a front's log."""

from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talos_registry_cache.registry import pull_log
from talos_registry_cache.registry.pull_log import Kind, Pull, Result, Totals

DIGEST = "sha256:" + "ab" * 32
TIME = "%d/%b/%Y:%H:%M:%S %z"
BLOB = (
    "10.5.0.2 - nodes [27/Nov/2026:18:30:00 +0000] "
    f'"GET /v2/library/busybox/blobs/{DIGEST}?ns=docker.io HTTP/1.1" 200 1234 "-" '
    '"containerd/v2.0.0" 0.012 hit'
)


def escaped(text: str) -> str:
    """Text as nginx logs it."""
    return "".join(
        f"\\x{byte:02X}" if byte in b'"\\' or not 32 <= byte <= 126 else chr(byte)
        for byte in text.encode()
    )


def rendered(pull: Pull, request: str) -> str:
    return (
        f'{pull.client} - - [{pull.time:{TIME}}] "{escaped(request)}" {pull.status} {pull.size} '
        f'"-" "{escaped(pull.agent) or "-"}" {pull.seconds:.3f} {pull.result}'
    )


def request_of(pull: Pull) -> str:
    # As containerd writes it.
    query = f"?ns={quote(pull.namespace)}" if pull.namespace else ""
    return f"{pull.method} /v2/{pull.repository}/{pull.kind}s/{pull.reference}{query} HTTP/1.1"


zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
pulls = st.builds(
    Pull,
    time=st.builds(datetime.fromtimestamp, st.integers(0, 1 << 32), zones),
    client=st.ip_addresses().map(str),
    method=st.sampled_from(["GET", "HEAD"]),
    kind=st.sampled_from([Kind.MANIFEST, Kind.BLOB]),
    repository=st.from_regex(r"[a-z0-9]+([._/-][a-z0-9]+){0,3}", fullmatch=True),
    reference=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True) | st.just(DIGEST),
    namespace=st.none() | st.sampled_from(["docker.io", "localhost:5000"]),
    status=st.integers(100, 599),
    size=st.integers(0, 1 << 60),
    seconds=st.integers(0, 10**9).map(lambda milliseconds: milliseconds / 1000),
    result=st.sampled_from(Result),
    agent=st.text().filter(lambda agent: agent != "-"),
)


@given(pulls)
def test_every_request_that_nginx_logs_is_read_back(pull: Pull) -> None:
    assert pull_log.parse(rendered(pull, request_of(pull))) == pull


@given(pulls, st.text())
def test_any_other_request_is_of_no_content(pull: Pull, request: str) -> None:
    found = pull_log.parse(rendered(pull, f"GET {request} HTTP/1.1"))

    assert found is not None
    assert (found.kind, found.repository, found.method) == (Kind.OTHER, "", "GET")


@given(st.text() | st.text().map(lambda text: f"{BLOB}{text}x"))
def test_any_other_line_is_none(line: str) -> None:
    assert pull_log.parse(line) is None


def test_a_blob_for_a_node() -> None:
    assert pull_log.parse(BLOB) == Pull(
        datetime(2026, 11, 27, 18, 30, tzinfo=UTC), "10.5.0.2", "GET", Kind.BLOB,
        "library/busybox", DIGEST, "docker.io", 200, 1234, 0.012, Result.HIT, "containerd/v2.0.0",
    )  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        "",
        "2026/11/27 18:30:00 [error] 29#29: *1 connect() failed (111: Connection refused)",
        BLOB.replace("27/Nov/2026", "27/Nix/2026"),
        BLOB.replace(" hit", " lost"),
        BLOB[:-1],
    ],
)
def test_a_line_that_is_no_request_is_none(line: str) -> None:
    assert pull_log.parse(line) is None


def test_a_request_that_is_not_http_has_no_method() -> None:
    found = pull_log.parse(
        '10.5.0.2 - - [27/Nov/2026:18:30:00 +0000] "\\x16\\x03\\x01" 400 157 "-" "-" 0.000 -'
    )

    assert found is not None
    assert (found.method, found.kind, found.status, found.agent) == ("", Kind.OTHER, 400, "")


def test_shared_and_stale_answers_count_as_hits() -> None:
    lines = [BLOB.replace(" hit", f" {result}") for result in Result]
    ping = BLOB.replace(f"library/busybox/blobs/{DIGEST}", "")
    login = BLOB.replace('" 200 ', '" 401 ')

    counted = pull_log.totals(pull_log.parse_all([*lines, "an error", ping, login]))

    assert counted == Totals(3, 1, 5 * 1234)


def test_errors_of_blobs_count_until_the_registry_sends_one() -> None:
    sent = BLOB.replace(" hit", " miss")
    refused, failed = sent.replace('" 200 ', '" 403 '), sent.replace('" 200 ', '" 500 ')

    def errors(*lines: str) -> frozenset[int]:
        return pull_log.totals(pull_log.parse_all(lines)).blob_errors

    assert errors(sent, refused, failed, BLOB) == {403, 500}
    assert errors(refused, sent) == set()


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n"))), st.integers(1, 9))
def test_lines_are_put_together_from_pieces(lines: list[str], size: int) -> None:
    log = "".join(f"{line}\n" for line in lines).encode()
    pieces = [log[start : start + size] for start in range(0, len(log), size)]

    assert list(pull_log.lines(pieces)) == lines


def test_a_last_line_without_an_end_is_shown() -> None:
    assert list(pull_log.lines([b"one\ntw", b"o"])) == ["one", "two"]
