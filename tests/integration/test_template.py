"""`pulumi new` with this repository as the template starts a project of one's own."""

import os
import shutil
from pathlib import Path

import yaml

from tests.integration.support import host, processes
from tests.integration.support.stack import PASSPHRASE, ROOT

PULUMI_WITHIN_S = 150


def test_a_new_project_of_another_name_previews_a_stack_of_its_own(tmp_path: Path) -> None:
    template, project, state = (tmp_path / name for name in ("template", "project", "state"))
    listed = ("git", "ls-files", "--cached", "--others", "--exclude-standard")
    for name in processes.run(*listed, cwd=ROOT).splitlines():
        if (ROOT / name).is_file():
            (template / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, template / name)
    state.mkdir()
    project.mkdir()
    env = {
        **os.environ,
        "PULUMI_BACKEND_URL": state.as_uri(),
        "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
    }

    def pulumi(*arguments: str) -> str:
        line = ("pulumi", "--non-interactive", *arguments)
        return processes.run(*line, within_s=PULUMI_WITHIN_S, env=env, cwd=project)

    pulumi("new", str(template), "--yes", "--offline", "--generate-only", "--name", "our-caches")
    stack_file = yaml.safe_load((project / "Pulumi.dev.yaml").read_text())
    upstreams = stack_file["config"]["caches"]["upstreams"]
    upstreams |= {registry: {"port": host.free_port()} for registry in upstreams}
    (project / "Pulumi.mine.yaml").write_text(yaml.safe_dump(stack_file))
    pulumi("stack", "init", "mine")
    # Which Pulumi writes with the project's name.
    pulumi("config", "set", "--path", "caches.retention.unusedFor", "720h")

    assert yaml.safe_load((project / "Pulumi.yaml").read_text())["name"] == "our-caches"
    preview = pulumi("preview")
    for registry, upstream in upstreams.items():
        assert f"{registry}-container" in preview
        assert f":{upstream['port']}" in preview
