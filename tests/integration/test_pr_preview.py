"""A pull request's preview tells what would change on machines that run the base branch."""

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from docker import DockerClient

from tests.integration.support.belongings import STACK_LABEL
from tests.integration.support.polling import PATIENCE, eventually
from tests.integration.support.repository import Report, Repository, Settings
from tests.integration.support.upstream import image_for

REACHED_WITHIN_S = 90
CLEAN_WITHIN_S = 60
DELETE, KEEP = {"onDestroy": "delete"}, {"onDestroy": "keep"}
ONE = {"docker.io": {"port": 5000}}
TWO = {**ONE, "quay.io": {"port": 5002}}
OTHER_IMAGE = "registry:3.0.0"
RUN = image_for(OTHER_IMAGE)
WITH_USER = {"docker.io": {"port": 5000, "username": "me"}}

# What each stack has before and after the change.
BEFORE: dict[str, Settings] = {
    "port": {"caches": {"upstreams": TWO}},
    "image": {"caches": {"upstreams": ONE, "storage": DELETE}},
    "lost": {"caches": {"upstreams": TWO, "storage": DELETE}},
    "kept": {"caches": {"upstreams": TWO, "storage": KEEP}},
    "renamed": {"caches": {"upstreams": ONE, "storage": {**DELETE, "volumePrefix": "blobs"}}},
    "policy": {"caches": {"upstreams": ONE, "storage": KEEP}},
    "secret": {
        "caches": {"upstreams": WITH_USER},
        "passwords": {"docker.io": {"secure": "v1:AAAA:ciphertext-one"}},
    },
    "cluster": {"mirrorsFrom": "port", "clusters": {"demo": {"cidr": "10.5.0.0/24"}}},
    "same": {"caches": {"upstreams": {"docker.io": None}}},
    "removed": {"caches": {"upstreams": ONE}},
}
AFTER: dict[str, Settings] = {
    "port": {"caches": {"upstreams": {**TWO, "docker.io": {"port": 5055}, "ghcr.io": None}}},
    "image": {
        "caches": {
            "upstreams": {"docker.io": {"port": 5000, "image": OTHER_IMAGE}},
            "storage": DELETE,
        }
    },
    "lost": {"caches": {"upstreams": ONE, "storage": DELETE}},
    "kept": {"caches": {"upstreams": ONE, "storage": KEEP}},
    "renamed": {"caches": {"upstreams": ONE, "storage": {**DELETE, "volumePrefix": "layers"}}},
    "policy": {"caches": {"upstreams": ONE, "storage": DELETE}},
    "secret": {
        "caches": {"upstreams": WITH_USER},
        "passwords": {"docker.io": {"secure": "v1:AAAA:ciphertext-two"}},
    },
    "cluster": {"mirrorsFrom": "port", "clusters": {"demo": {"cidr": "10.6.0.0/24"}}},
    "same": {"caches": {"upstreams": {"docker.io": None}}},
    "fresh": {"caches": {"upstreams": ONE}},
}
WRONG: Settings = {"caches": {"upstreams": {"docker.io": {"port": "5000"}}, "ttl": "soon"}}
# Half of it is up when the image cannot be had.
HALFWAY: Settings = {
    "caches": {"upstreams": {**ONE, "quay.io": {"port": 5002, "image": "127.0.0.1:1/registry:1"}}}
}

# What a reviewer may have in the environment, and a program that keeps all that it sees.
SECRETS = {
    name: f"planted in {name}"
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "GITHUB_TOKEN",
        "GH_TOKEN",
        "CI_JOB_TOKEN",
        "SSH_AUTH_SOCK",
        "CACHECTL_PASSWORD",
        "PULUMI_ACCESS_TOKEN",
        "PULUMI_CONFIG_PASSPHRASE",
        "KUBECONFIG",
        "ANYTHING_AT_ALL",
    )
}
SPY = """
import json as _json, os as _os, pathlib as _pathlib, uuid as _uuid
_name = f"{name}-{{_uuid.uuid4()}}"
_pathlib.Path({folder!r}, _name).write_text(_json.dumps(dict(_os.environ)))
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    made = Repository(tmp_path_factory.mktemp("review") / "repository")
    for stack, settings in BEFORE.items():
        made.write(stack, settings)
    made.write("mended", WRONG)
    made.write("halfway", HALFWAY)
    made.commit()
    made.branch()
    (made.root / "Pulumi.removed.yaml").unlink()
    for stack, settings in AFTER.items():
        made.write(stack, settings, comment="changed")
    made.write("wrong", WRONG)
    made.write("mended", BEFORE["same"])
    made.write("halfway", BEFORE["same"])
    made.commit()
    return made


@pytest.fixture(scope="module")
def report(repository: Repository, engine: DockerClient) -> Report:
    """The report on all stacks that can be compared."""
    stacks = sorted({*BEFORE, *AFTER})
    made = repository.preview(*(f"--stack={stack}" for stack in stacks))
    assert not list(repository.previews.iterdir())
    assert not _named(engine, made.prefix)
    return made


def test_verdict_tells_of_the_data_loss_and_so_does_the_exit_code(report: Report) -> None:
    assert report.code == 3, report.said
    assert report.text.splitlines()[3].startswith("**Data would be lost**; ")
    assert "pr-" not in report.text.replace("make pr-preview", "")
    assert str(Path.cwd()) not in report.text


def test_what_a_preview_may_do_is_said_before_it_starts(report: Report) -> None:
    warning, advice, *_ = report.said.splitlines()
    assert "runs the program of the change as you, with access to your files" in warning
    assert "docs/pull-requests.md" in advice


def test_changed_port_replaces_the_container_and_an_added_upstream_is_made(report: Report) -> None:
    section = report.of("port")
    assert "### `port`: 3 to create, 1 to replace" in section
    assert (
        "| Container `docker.io-container` | replace | `ports[0].external`: `5000` → `5055`"
        in section
    )
    assert "| Volume `ghcr.io-storage` | create |" in section


def test_changed_image_replaces_the_container_and_no_volume(report: Report) -> None:
    section = report.of("image")
    assert f"| RemoteImage `{RUN}` | create |" in section
    assert "| Container `docker.io-container` | replace | `image`: " in section
    assert "data loss" not in section


def test_removed_upstream_whose_volume_is_deleted_loses_data(report: Report) -> None:
    section = report.of("lost")
    assert "| Volume `quay.io-storage` | ⚠️ delete | **data loss** |" in section
    assert "> - `lost`: Volume `quay.io-storage` is deleted" in report.text


def test_removed_upstream_whose_volume_is_kept_loses_none(report: Report) -> None:
    section = report.of("kept")
    assert "`registry-kept-quay.io` stays on the engine, and is no longer used" in section
    assert "data loss" not in section


def test_renamed_volume_that_is_not_kept_loses_data(report: Report) -> None:
    section = report.of("renamed")
    assert "| Volume `docker.io-storage` | ⚠️ replace | **data loss**<br>" in section
    assert "`name`: `blobs-docker.io` → `layers-docker.io` (replaces)" in section


def test_volume_that_is_to_be_kept_no_longer_is_told(report: Report) -> None:
    assert "`(kept when deleted)`: `true` → `false`" in report.of("policy")


def test_changed_password_is_seen_and_not_shown(report: Report) -> None:
    assert "`uploads`: [secret] → [secret] (replaces)" in report.of("secret")
    assert "ciphertext" not in report.text
    assert "stand-in" not in report.text


def test_cluster_is_replaced_by_another_network_without_ever_booting(report: Report) -> None:
    section = report.of("cluster")
    assert "| LocalCluster `demo` | ⚠️ replace | **data loss**<br>`spec.cidr`" in section
    assert "`10.5.0.0/24` → `10.6.0.0/24`" in section


def test_comment_changes_nothing(report: Report) -> None:
    assert report.of("same").strip() == "### `same`: nothing changes"


def test_stack_that_the_base_does_not_have_is_told_as_its_first_up(report: Report) -> None:
    section = report.of("fresh")
    assert "this is its first `up`" in section
    assert "| Volume `docker.io-storage` | create |" in section


def test_removed_stack_file_is_told_to_destroy_nothing(report: Report) -> None:
    assert "`STACK=removed make down`" in report.of("removed")


def test_what_cannot_be_compared_fails_with_what_pulumi_says(
    repository: Repository, engine: DockerClient
) -> None:
    report = repository.preview("--stack=wrong", "--stack=mended", "--stack=halfway")
    assert report.code == 1, report.said
    for message in (
        "Pulumi.wrong.yaml has mistakes, nothing was changed:",
        "caches.upstreams[\"docker.io\"].port: found '5000'; allowed: a whole number",
        "caches.ttl: found 'soon'; allowed:",
    ):
        assert message in report.of("wrong")
    for stack, why in (("mended", "caches.ttl: found 'soon'"), ("halfway", "127.0.0.1:1")):
        assert "The base did not come up, so there is nothing to compare:" in report.of(stack)
        assert why in report.of(stack)
    assert not _named(engine, report.prefix)
    assert "Traceback" not in report.text


def test_program_that_does_not_import_fails_with_its_error(tmp_path: Path) -> None:
    broken = Repository(tmp_path / "broken")
    broken.write("same", BEFORE["same"])
    broken.commit()
    broken.branch()
    (broken.root / "talos_registry_cache/registry/catalogue.py").write_text(
        "import nothing_of_the_kind\n"
    )
    # In the place of the standard library's, for what asks the program a question.
    (broken.root / "json.py").write_text("print('no JSON')\nraise SystemExit(0)\n")
    report = broken.preview()
    assert "Traceback" not in report.said
    (broken.root / "json.py").unlink()
    report = broken.preview()
    assert report.code == 1
    assert "ModuleNotFoundError: No module named 'nothing_of_the_kind'" in report.of("same")


def test_program_sees_no_secret_of_whoever_previews_it(tmp_path: Path) -> None:
    seen, home = tmp_path / "seen", tmp_path / "home"
    seen.mkdir()
    home.mkdir()
    spied = Repository(tmp_path / "spied")
    for file in ("__main__.py", "talos_registry_cache/registry/catalogue.py"):
        spied.append(file, SPY.format(name=Path(file).stem, folder=str(seen)))
    spied.write("same", BEFORE["same"])
    spied.commit()
    spied.branch()
    spied.write("same", BEFORE["port"])

    report = spied.preview(more_env={**SECRETS, "HOME": str(home)})

    assert report.code == 0, report.said
    environments = [json.loads(file.read_text()) for file in seen.iterdir()]
    assert {file.name.partition("-")[0] for file in seen.iterdir()} == {"__main__", "catalogue"}
    for environment in environments:
        assert [name for name in SECRETS if name in environment] == []
        assert not any(secret in str(environment) for secret in SECRETS.values())
        assert Path(environment["HOME"]) != home
        assert not Path(environment["HOME"]).exists()


def test_report_on_one_stack_is_made_in_a_fresh_clone(
    repository: Repository, tmp_path: Path
) -> None:
    report = repository.preview_in_clone(tmp_path / "clone", "--stack=port")
    assert "### `port`: 3 to create, 1 to replace" in report.of("port")
    assert report.code == 0, report.said


def test_two_previews_at_once_do_not_meet(repository: Repository) -> None:
    with ThreadPoolExecutor(2) as threads:
        both = list(threads.map(lambda _: repository.preview("--stack=same"), range(2)))
    for report in both:
        assert report.code == 0, report.said
        assert "Nothing changes (compared: `same`)." in report.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_preview_that_is_stopped_leaves_nothing_behind(
    repository: Repository, engine: DockerClient, number: signal.Signals
) -> None:
    with repository.running_preview("--stack=lost") as process:
        (folder,) = eventually(
            lambda: list(repository.previews.glob("pr-*")),
            within_s=REACHED_WITHIN_S,
            what="the preview's folder",
        )
        prefix = f"{folder.name}-"
        eventually(
            lambda: _named(engine, prefix),
            within_s=REACHED_WITHIN_S,
            what="something on the engine",
        )
        process.send_signal(number)
        process.wait(PATIENCE * CLEAN_WITHIN_S)
    eventually(lambda: not folder.exists(), within_s=CLEAN_WITHIN_S, what="the janitor's end")
    assert not _named(engine, prefix)


def _named(engine: DockerClient, prefix: str) -> set[str]:
    return {stack for stack in _stacks(engine) if stack.startswith(prefix)}


def _stacks(engine: DockerClient) -> set[str]:
    """The stacks of all that is on the engine."""
    found = [
        *(one.labels for one in engine.containers.list(all=True, ignore_removed=True)),
        *(one.attrs["Labels"] for one in engine.networks.list()),
        *(one.attrs["Labels"] for one in engine.volumes.list()),
    ]
    return {labels[STACK_LABEL] for labels in found if labels and STACK_LABEL in labels}
