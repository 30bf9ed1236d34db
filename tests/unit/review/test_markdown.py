"""The report begins with what matters most, fits into a comment, and says what was cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talos_registry_cache.review import markdown, plan
from talos_registry_cache.review.model import (
    Change,
    Fate,
    Operation,
    Preview,
    PropertyChange,
    StackPreview,
)

KIND = "docker:index/volume:Volume"


def _change(
    name: str = "docker.io-storage",
    operation: Operation = Operation.UPDATE,
    fate: Fate = Fate.NO_DATA,
    properties: tuple[PropertyChange, ...] = (),
) -> Change:
    return Change(name, KIND, operation, properties, fate, f"registry-{name}")


def _preview(*stacks: StackPreview) -> Preview:
    return Preview("main", "0" * 40, stacks)


@pytest.mark.parametrize(
    ("stacks", "verdict"),
    [
        ([], "Nothing changes: no stack is affected."),
        ([StackPreview("ci"), StackPreview("dev")], "Nothing changes (compared: `ci`, `dev`)."),
        (
            [StackPreview("dev"), StackPreview("team", is_compared=False)],
            "Nothing changes (compared: `dev`; not compared: `team`).",
        ),
        (
            [StackPreview("ci", failure="x"), StackPreview("dev")],
            "The preview of `ci` failed (compared: `ci`, `dev`).",
        ),
        (
            [
                StackPreview("ci", [_change("a", Operation.CREATE)]),
                StackPreview("dev", [_change("a", Operation.CREATE), _change("b")]),
            ],
            "2 to create, 1 to update (compared: `ci`, `dev`).",
        ),
    ],
)
def test_verdict_is_one_line_at_the_top(stacks: list[StackPreview], verdict: str) -> None:
    preview = _preview(*stacks)
    assert markdown.verdict(preview) == verdict
    marker, _, _, line, *_ = markdown.report(preview).splitlines()
    assert (marker, line) == (markdown.MARKER, verdict)


def test_data_loss_comes_first() -> None:
    lost = _change("gone", Operation.DELETE, Fate.LOST)
    preview = _preview(StackPreview("ci", [*[_change(str(number)) for number in range(20)], lost]))
    report = markdown.report(preview)
    assert markdown.verdict(preview).startswith("**Data would be lost**")
    assert "> - `ci`: Volume `gone` is deleted" in report
    rows = [line for line in report.splitlines() if line.startswith("| Volume")]
    assert rows[0] == "| Volume `gone` | ⚠️ delete | **data loss** |"


def test_kept_volume_and_changed_properties_are_shown() -> None:
    kept = _change("old", Operation.REPLACE, Fate.KEPT)
    properties = (
        PropertyChange("ports[0].external", 5000, 5001, replaces=True),
        PropertyChange("uploads", plan.SECRET, plan.SECRET),
        PropertyChange("image", "sha256:1", plan.UNKNOWN),
        PropertyChange("user", None, "a|b`c"),
    )
    report = markdown.report(_preview(StackPreview("ci", [kept, _change(properties=properties)])))
    assert "CAUTION" not in report
    assert "`registry-old` stays on the engine" in report
    assert "`ports[0].external`: `5000` → `5001` (replaces)" in report
    assert "`uploads`: [secret] → [secret]" in report
    assert "`image`: `sha256:1` → known after `up`" in report
    assert "`user`: nothing → ``a\\|b`c``" in report


def test_long_tables_and_long_rows_are_folded() -> None:
    many = tuple(PropertyChange(f"p{number}", 1, 2) for number in range(9))
    preview = _preview(
        StackPreview("ci", [_change(str(number), properties=many) for number in range(13)])
    )
    report = markdown.report(preview)
    assert "<details><summary>13 resources</summary>" in report
    assert report.count("<details><summary>3 more</summary>") == 13


def test_failure_and_diff_are_shown_unchanged_and_cannot_leave_their_blocks() -> None:
    printed = 'Pulumi.ci.yaml has mistakes:\n  caches.upstreams["docker.io"].port: found `x`'
    diff = "before\n````\n</details>\n# heading"
    stacks = StackPreview("ci", failure=printed), StackPreview("ci", [_change()], diff=diff)
    report = markdown.report(_preview(*stacks))
    assert f"```text\n{printed}\n```" in report
    assert f"`````diff\n{diff}\n`````" in report


def test_long_diff_and_table_are_cut_and_data_loss_stays() -> None:
    diff = "\n".join(f"line {number}" for number in range(20_000))
    report = markdown.report(_preview(StackPreview("ci", [_change("kept")], diff=diff)))
    assert markdown.LIMIT * 0.9 < len(report.encode()) <= markdown.LIMIT
    assert "of 20000 lines are cut; `make pr-preview` prints the full report" in report
    assert "| Volume `kept` | update |" in report

    many = [_change(f"{number:03}" + "x" * 200) for number in range(900)]
    lost = _change("lost", Operation.DELETE, Fate.LOST)
    report = markdown.report(_preview(StackPreview("ci", [*many, lost])))
    assert len(report.encode()) <= markdown.LIMIT
    assert "more resources are cut" in report
    assert "| Volume `lost` | ⚠️ delete |" in report


@given(
    st.lists(
        st.builds(
            StackPreview,
            st.text("abc", min_size=1, max_size=40),
            st.lists(
                st.builds(
                    _change, st.text(max_size=30), st.sampled_from(Operation), st.sampled_from(Fate)
                ),
                max_size=30,
            ),
            st.none() | st.text(max_size=3000),
            st.lists(st.text(max_size=30), max_size=2),
            st.text(max_size=3000),
        ),
        max_size=8,
    ),
    st.integers(200, 5000),
)
def test_report_is_never_longer_than_allowed_and_says_if_it_was_cut(
    stacks: list[StackPreview], limit: int
) -> None:
    preview = _preview(*stacks)
    report = markdown.report(preview, limit)
    assert len(report.encode()) <= limit
    whole = markdown.report(preview, 10_000_000)
    if len(whole.encode()) > limit:
        assert "cut" in report


@pytest.mark.parametrize("value", ["", " ", "`", "``x", "a\nb", "|"])
def test_any_value_is_one_cell(value: str) -> None:
    change = _change(properties=(PropertyChange("p", value, "new"),))
    report = markdown.report(_preview(StackPreview("ci", [change])))
    (row,) = [line for line in report.splitlines() if line.startswith("| Volume")]
    assert row.replace("\\|", "").count("|") == 4
