"""The report begins with what matters most, fits into a comment, and says what was cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talos_registry_cache.registry.image_lock import Difference, LockedImage
from talos_registry_cache.review import markdown, plan
from talos_registry_cache.review.model import (
    Change,
    Fate,
    LockChange,
    Operation,
    Preview,
    PropertyChange,
    StackPreview,
)

KIND = "docker:index/volume:Volume"
ONE = LockedImage(f"sha256:{'1' * 64}", 1_000_000)
TWO = LockedImage(f"sha256:{'2' * 64}", 2_500_000)
SIGNED = LockedImage(ONE.digest, 1_200_000, {"sha256-1.sig": TWO.digest})

LOCKED = LockChange(difference=Difference({f"x:{number}": ONE for number in range(99)}, {}, {}))


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


def test_long_text_is_shown_by_the_number_of_its_changed_lines() -> None:
    lines = [f"line {number}" for number in range(50)]
    old, new = "\n".join(lines), "\n".join(["one more", "and more", *lines[1:]])
    change = _change(properties=(PropertyChange("content", old, new, replaces=True),))
    report = markdown.report(_preview(StackPreview("ci", [change])))
    assert "`content`: 1 of 50 lines removed, 2 added (replaces) |" in report


def test_input_with_very_many_changes_and_the_locked_digests_do_not_flood_a_row() -> None:
    properties = (
        *(PropertyChange("images", None, f"image-{number}") for number in range(300)),
        *(PropertyChange(f'locked["x:{number}"].digest', "1", "2") for number in range(300)),
        PropertyChange("attachments", "none", "all"),
    )
    images = Change("images", plan.CACHED_IMAGES, Operation.UPDATE, properties, Fate.NO_DATA)
    report = markdown.report(_preview(StackPreview("ci", [images])))
    (row,) = [line for line in report.splitlines() if line.startswith("| CachedImages")]
    assert "`images`: nothing → `image-19`<br>`images`: 280 more changes<br>" in row
    assert "<br>`locked`: see above<br>`attachments`: `none` → `all`</details> |" in row


def _cost(images: str, fetched: str) -> str:
    what = f"Images in the lock: {images}. Every machine fetches at most {fetched}"
    return f"{what}; layers that images share count for each."


def _locked(lock: LockChange) -> list[str]:
    """The part of a report between the stack's heading and the footnote."""
    _, _, rest = markdown.report(_preview(StackPreview("ci", lock=lock))).partition("changes\n\n")
    return rest.partition("\n\n<sub>")[0].splitlines()


def test_images_that_a_lock_adds_moves_and_removes_are_a_table_with_their_cost() -> None:
    moved = {"docker.io/library/a:1": (ONE, TWO), "docker.io/library/b:1": (ONE, SIGNED)}
    difference = Difference({"quay.io/org/c:1": ONE}, moved, {"quay.io/org/d:1": TWO})
    assert _locked(LockChange(difference=difference)) == [
        _cost("2 moved, 1 added, 1 removed", "4.7 MB for this change"),
        "",
        "| image | change | digest | size |",
        "| --- | --- | --- | ---: |",
        "| `docker.io/library/a:1` | moved | `sha256:111111111111` → `sha256:222222222222` | 2.5 MB |",  # noqa: E501
        "| `docker.io/library/b:1` | attachments | `sha256:111111111111` | 1.2 MB |",
        "| `quay.io/org/c:1` | added | `sha256:111111111111` | 1.0 MB |",
        "| `quay.io/org/d:1` | removed | `sha256:222222222222` | 2.5 MB |",
    ]


@pytest.mark.parametrize(
    ("lock", "sentences"),
    [
        (
            LockChange(in_base=False, difference=Difference({"x:1": ONE}, {}, {})),
            [
                "The lock is new: the base locks no images.",
                _cost("1 added", "1.0 MB for this change"),
            ],
        ),
        (
            LockChange(in_head=False),
            ["The change removes the lock of the images: tags no longer keep their digests."],
        ),
        (
            LockChange(difference=Difference({}, {}, {"x:1": ONE})),
            ["Images in the lock: 1 removed. Nothing is fetched for this change."],
        ),
        (
            LockChange(grown=7),
            [
                _cost("the same", "7 B for this change, 7 B of it for images that stay"),
            ],
        ),
        (
            LockChange(mistakes={"base": "it is\nnot `JSON`", "change": "x" * 1000}),
            [
                "The lock of the base is invalid: `` it is not `JSON` ``.",
                f"The lock of the change is invalid: `{'x' * 399}…`.",
            ],
        ),
    ],
)
def test_a_lock_is_described_in_sentences(lock: LockChange, sentences: list[str]) -> None:
    found = [line for line in _locked(lock) if line and not line.startswith("|")]
    assert found == sentences


def test_long_table_of_images_is_folded_and_then_cut_and_its_cost_stays() -> None:
    def report(number: int) -> str:
        added = {f"docker.io/library/{'x' * 100}{index}:1": ONE for index in range(number)}
        lock = LockChange(difference=Difference(added, {}, {}))
        return markdown.report(_preview(StackPreview("ci", [_change()], lock=lock)))

    assert "<details>" not in report(12)
    assert "<details><summary>13 images</summary>" in report(13)
    many = report(2000)
    assert len(many.encode()) <= markdown.LIMIT
    assert "| … | | 1800 more images are cut; `make pr-preview` prints the full report | |" in many
    assert "at most 2.0 GB" in many


def test_failed_stack_and_stack_that_is_not_compared_have_their_images_too() -> None:
    lock = LockChange(difference=Difference({"quay.io/org/c:1": ONE}, {}, {}))
    stacks = (
        StackPreview("ci", failure="x", lock=lock),
        StackPreview("team", is_compared=False, lock=lock),
    )
    assert markdown.report(_preview(*stacks)).count("| `quay.io/org/c:1` | added |") == 2


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


def test_the_report_without_a_limit_is_whole() -> None:
    long = "\n".join(f"line {number}" for number in range(20_000))
    many = [_change(f"{number}") for number in range(11_000)]
    stacks = StackPreview("ci", many, diff=long), StackPreview("dev", failure=long)

    report = markdown.report(_preview(*stacks), limit=None)

    assert report.count(long) == 2
    assert "| Volume `10999` |" in report
    assert "make pr-preview" not in report


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
            lock=st.sampled_from([None, LOCKED, LockChange(mistakes={"base": "|" * 1000})]),
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
