from hypothesis import given
from hypothesis import strategies as st

from talos_registry_cache.cli.commands import logs


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n"))), st.integers(1, 9))
def test_lines_are_put_together_from_pieces(lines: list[str], size: int) -> None:
    log = "".join(f"{line}\n" for line in lines).encode()
    pieces = [log[start : start + size] for start in range(0, len(log), size)]

    assert list(logs.lines(pieces)) == lines


def test_a_last_line_without_an_end_is_shown() -> None:
    assert list(logs.lines([b"one\ntw", b"o"])) == ["one", "two"]
