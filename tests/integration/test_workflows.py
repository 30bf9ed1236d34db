"""The workflows are valid, pinned and restricted, and their steps work."""

import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from talos_registry_cache.review import markdown
from tests.integration.support import processes
from tests.integration.support.repository import Repository, Settings
from tests.integration.support.stack import ROOT

FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
STEP_WITHIN_S = 200
WITH_TWO: Settings = {
    "caches": {
        "upstreams": {"docker.io": {"port": 5000}, "quay.io": {"port": 5002}},
        "storage": {"onDestroy": "delete"},
    }
}
WITH_ONE: Settings = {
    "caches": {"upstreams": {"docker.io": {"port": 5000}}, "storage": {"onDestroy": "delete"}}
}

# A `gh` that records its arguments, and lists the comments in FOUND.
GH = """\
#!/usr/bin/env python3
import json, os, pathlib, sys
arguments = sys.argv[1:]
fields = [text.partition("=@")[2] for text in arguments if text.startswith("body=@")]
bodies = [pathlib.Path(name).read_text() for name in fields]
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps({"arguments": arguments, "bodies": bodies}) + "\\n")
if "--jq" in arguments:
    print(os.environ["FOUND"])
"""

# A `python3` that skips the toolchain, which has already prepared a machine that runs tests.
PYTHON = """\
#!/bin/sh
[ "$1 $2 $3 $4" = "-m toolchain run --" ] && shift 4 && exec "$@"
exec python "$@"
"""


def _workflow(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text())
    return loaded


def _script(workflow: str, job: str, step: str) -> str:
    (found,) = [
        one["run"] for one in _workflow(workflow)["jobs"][job]["steps"] if one.get("name") == step
    ]
    return str(found)


def _program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(text)
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def _run(script: str, env: Mapping[str, str], cwd: Path, programs: Path) -> int:
    """Run a step as GitHub's runner does; return its exit code."""
    done = processes.finish(
        ["bash", "-e", "-c", script],
        within_s=STEP_WITHIN_S,
        cwd=cwd,
        env={**os.environ, **env, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
    )
    return done.returncode


def test_actionlint_reports_no_mistakes() -> None:
    processes.run("actionlint", *FILES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_actions_are_pinned_by_commit_with_a_version_comment(file: Path) -> None:
    used = re.findall(r"uses: (.+)", file.read_text())
    assert used
    for action in used:
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_code_of_a_pull_request_has_no_write_access_and_no_secrets(file: Path) -> None:
    text, workflow = file.read_text(), _workflow(file.name)
    assert not re.search(r"^  pull_request_target:|\$\{\{.*secrets\b", text, re.MULTILINE)
    assert "write" not in (workflow.get("permissions") or {}).values()
    for job in workflow["jobs"].values():
        runs_checkout = any("actions/checkout" in step.get("uses", "") for step in job["steps"])
        if runs_checkout:
            assert "write" not in job.get("permissions", {}).values()
        # An expression could inject someone else's text into a script.
        assert not [step for step in job["steps"] if "${{" in step.get("run", "")]


def test_ci_runs_existing_make_targets() -> None:
    for job, target in (("check", "check"), ("test", "up"), ("test", "test"), ("test", "down")):
        script = _script("ci.yml", job, target.capitalize())
        assert script == f"make {target}"
        processes.run(*script.split(), "--dry-run", cwd=ROOT)


@pytest.mark.parametrize(("allow", "code"), [("", 3), ("--allow-data-loss", 0)])
def test_preview_fails_on_data_loss_unless_it_is_intended_whatever_the_change_does_to_the_review(
    tmp_path: Path, allow: str, code: int
) -> None:
    repository = Repository(tmp_path / "repository")
    repository.write("lost", WITH_TWO)
    repository.commit()
    repository.branch()
    repository.write("lost", WITH_ONE)
    nothing = "def report(*_): return 'Nothing changes'\n"
    repository.append("talos_registry_cache/review/markdown.py", f"\n\n{nothing}")
    repository.append("talos_registry_cache/review/model.py", "\n\nPreview.loses_data = False\n")
    # Shadows a package that makes the report.
    repository.append("typer.py", "import sys\nprint('Nothing changes')\nsys.exit(0)\n")
    repository.commit()
    _program(tmp_path / "bin", "python3", PYTHON)
    env = {
        "BASE": repository.commit_id("main"),
        "HEAD": repository.commit_id("change"),
        "ALLOW": allow,
        "RUNNER_TEMP": str(tmp_path),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
    }

    for step in ("Base", "Preview"):
        ended = _run(
            _script("preview.yml", "preview", step), env, repository.root, tmp_path / "bin"
        )

    report = (tmp_path / "summary.md").read_text()
    assert ended == code
    assert "**Data would be lost**" in report
    assert "Nothing changes" not in report
    first, *lines, last = (tmp_path / "output").read_text().splitlines(keepends=True)
    assert (first.strip(), "".join(lines)) == (f"report<<{last.strip()}", report)


@pytest.mark.parametrize(
    ("found", "method", "path"),
    [
        ("", "POST", "repos/me/it/issues/7/comments"),
        ("41\n42", "PATCH", "repos/me/it/issues/comments/41"),
    ],
)
def test_comment_is_created_once_and_then_updated(
    tmp_path: Path, found: str, method: str, path: str
) -> None:
    _program(tmp_path / "bin", "gh", GH)
    calls = tmp_path / "calls"
    report = f"{markdown.MARKER}\n`$(touch owned)` \"'\n"
    env = {
        "REPOSITORY": "me/it",
        "NUMBER": "7",
        "REPORT": report,
        "RUNNER_TEMP": str(tmp_path),
        "CALLS": str(calls),
        "FOUND": found,
    }

    ended = _run(_script("preview.yml", "comment", "Comment"), env, tmp_path, tmp_path / "bin")

    assert ended == 0
    looked, wrote = (json.loads(line) for line in calls.read_text().splitlines())
    assert looked["arguments"][:3] == ["api", "--paginate", "repos/me/it/issues/7/comments"]
    assert f'startswith("{markdown.MARKER}")' in looked["arguments"][-1]
    assert wrote["arguments"][:4] == ["api", "--method", method, path]
    assert [body.strip() for body in wrote["bodies"]] == [report.strip()]
    assert not (tmp_path / "owned").exists()
