"""Pull-request previews run the real program on the real engine, and clean up."""

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from docker import DockerClient

from talos_registry_cache.registry import image_lock
from talos_registry_cache.registry.image_lock import ImageLock, LockedImage
from tests.integration.support.belongings import STACK_LABEL
from tests.integration.support.polling import PATIENCE, eventually
from tests.integration.support.repository import Report, Repository, Settings
from tests.integration.support.upstream import image_for

REACHED_WITHIN_S = 90
CLEAN_WITHIN_S = 60
LOSES_DATA = {"lost", "renamed", "cluster"}
DELETE, KEEP = {"onDestroy": "delete"}, {"onDestroy": "keep"}
ONE = {"docker.io": {"port": 5000}}
TWO = {**ONE, "quay.io": {"port": 5002}}
OTHER_IMAGE = "registry:3.0.0"
RUN = image_for(OTHER_IMAGE)
WITH_USER = {"docker.io": {"port": 5000, "username": "me"}}
LOCK = "images.lock"
LOCKED = {"images": {"lock": LOCK}}

# The settings of each stack before and after the change.
BEFORE: dict[str, Settings] = {
    "port": {"caches": {"upstreams": TWO}},
    "image": {"caches": {"upstreams": ONE, "storage": DELETE}},
    "lost": {"caches": {"upstreams": TWO, "storage": DELETE}},
    "kept": {"caches": {"upstreams": TWO, "storage": KEEP}},
    "renamed": {"caches": {"upstreams": ONE, "storage": {**DELETE, "volumePrefix": "blobs"}}},
    "policy": {
        **LOCKED,
        "caches": {"upstreams": WITH_USER, "storage": KEEP},
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
    "policy": {
        **LOCKED,
        "caches": {"upstreams": WITH_USER, "storage": DELETE},
        "passwords": {"docker.io": {"secure": "v1:AAAA:ciphertext-two"}},
    },
    "cluster": {"mirrorsFrom": "port", "clusters": {"demo": {"cidr": "10.6.0.0/24"}}},
    "same": {"caches": {"upstreams": {"docker.io": None}}},
    "fresh": {"caches": {"upstreams": ONE}},
}
WRONG: Settings = {"caches": {"upstreams": {"docker.io": {"port": "5000"}}, "offline": "soon"}}
# One cache comes up before the image of the other cannot be pulled.
HALFWAY: Settings = {
    "caches": {"upstreams": {**ONE, "quay.io": {"port": 5002, "image": "127.0.0.1:1/registry:1"}}}
}

# Variables that a reviewer may have, and code that records the environment it runs in.
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
    (made.root / LOCK).write_text(_lock("1"))
    made.commit()
    made.branch()
    (made.root / "Pulumi.removed.yaml").unlink()
    for stack, settings in AFTER.items():
        made.write(stack, settings, comment="changed")
    made.write("wrong", WRONG)
    made.write("mended", BEFORE["same"])
    made.write("halfway", BEFORE["same"])
    made.commit()
    # Not committed yet.
    (made.root / LOCK).write_text(_lock("2"))
    return made


@pytest.fixture(scope="module")
def report(repository: Repository, engine: DockerClient) -> Report:
    """The report on all stacks that can be compared."""
    stacks = sorted({*BEFORE, *AFTER})
    made = repository.preview(*(f"--stack={stack}" for stack in stacks))
    assert not list(repository.previews.iterdir())
    assert not _named(engine, made.prefix)
    return made


def test_verdict_and_exit_code_report_the_data_loss(report: Report) -> None:
    assert report.code == 3, report.said
    assert report.text.splitlines()[3].startswith("**Data would be lost**; ")


def test_removed_stack_is_not_brought_up(report: Report) -> None:
    assert "==> kept: bring the base up" in report.said
    assert "==> removed: " not in report.said


def test_report_has_the_names_and_paths_of_the_stack_files(report: Report) -> None:
    assert "pr-" not in report.text.replace("make pr-preview", "")
    assert str(Path.cwd()) not in report.text


def test_user_is_warned_before_the_program_runs(report: Report) -> None:
    warning, advice, *_ = report.said.splitlines()
    assert "runs the program of the change as you, with access to your files" in warning
    assert "docs/pull-requests.md" in advice


@pytest.mark.parametrize(
    ("stack", "lines"),
    [
        (
            "port",
            [
                "### `port`: 5 to create, 1 to replace",
                "`ports[0].external`: `5000` → `5055`",
                "| Volume `ghcr.io-storage` | create |",
            ],
        ),
        (
            "image",
            [
                f"| RemoteImage `{RUN}` | create |",
                "| Container `docker.io-registry` | replace | `image`: ",
            ],
        ),
        ("lost", ["| Volume `quay.io-storage` | ⚠️ delete | **data loss** |"]),
        ("kept", ["`registry-kept-quay.io` stays on the engine, and is no longer used"]),
        (
            "renamed",
            [
                "| Volume `docker.io-storage` | ⚠️ replace | **data loss**<br>",
                "`name`: `blobs-docker.io` → `layers-docker.io` (replaces)",
            ],
        ),
        (
            "policy",
            [
                "`(kept when deleted)`: `true` → `false`",
                "`uploads`: [secret] → [secret] (replaces)",
            ],
        ),
        (
            "cluster",
            [
                "| LocalCluster `demo` | ⚠️ replace | **data loss**<br>`spec.cidr`",
                "`10.5.0.0/24` → `10.6.0.0/24`",
            ],
        ),
        ("same", ["### `same`: nothing changes"]),
        ("fresh", ["this is its first `up`", "| Volume `docker.io-storage` | create |"]),
        ("removed", ["`STACK=removed make down`"]),
    ],
)
def test_report_shows_what_the_change_does_to_a_stack(
    report: Report, stack: str, lines: list[str]
) -> None:
    section = report.of(stack)
    assert [line for line in lines if line not in section] == [], section
    assert ("data loss" in section) == (stack in LOSES_DATA)
    assert (f"> - `{stack}`: " in report.text) == (stack in LOSES_DATA)


def test_report_lists_the_images_that_a_changed_lock_moves(report: Report) -> None:
    section = report.of("policy")
    assert "1 moved. Every machine fetches at most 5.0 MB for this change" in section
    digests = "`sha256:111111111111` → `sha256:222222222222`"
    assert f"| `docker.io/library/a:1` | moved | {digests} | 5.0 MB |" in section
    assert "| CachedImages `images` | update | `locked`: see above |" in section
    assert "`uploads[0].content`: 1 of " in section


def test_secrets_and_their_stand_ins_are_not_shown(report: Report) -> None:
    assert "ciphertext" not in report.text
    assert "stand-in" not in report.text


def test_stack_that_cannot_be_compared_fails_with_pulumis_message(
    repository: Repository, engine: DockerClient
) -> None:
    report = repository.preview("--stack=wrong", "--stack=mended", "--stack=halfway")
    assert report.code == 1, report.said
    for part in ("Pulumi.wrong.yaml", 'caches.upstreams["docker.io"].port', "caches.offline"):
        assert part in report.of("wrong")
    for stack, why in (("mended", "caches.offline"), ("halfway", "127.0.0.1:1")):
        assert "The base did not come up, so there is nothing to compare:" in report.of(stack)
        assert why in report.of(stack)
    assert not _named(engine, report.prefix)
    assert "Traceback" not in report.text


def test_program_that_cannot_be_imported_fails_with_its_error(tmp_path: Path) -> None:
    broken = Repository(tmp_path / "broken")
    broken.write("same", BEFORE["same"])
    broken.commit()
    broken.branch()
    catalogue = broken.root / "talos_registry_cache/registry/catalogue.py"
    catalogue.write_text("print('no ports')\nimport nothing_of_the_kind\n")
    report = broken.preview()
    assert report.code == 1
    assert "No module named 'nothing_of_the_kind'" in report.of("same")
    assert "Traceback" not in report.said


def test_program_sees_no_secret_of_the_user(tmp_path: Path) -> None:
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


def test_previews_of_a_checkout_and_of_its_clone_do_not_interfere(
    repository: Repository, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(2) as threads:
        here = threads.submit(repository.preview, "--stack=same")
        clone = threads.submit(repository.preview_in_clone, tmp_path / "clone", "--stack=port")
    for report in (here.result(), clone.result()):
        assert report.code == 0, report.said
    assert "Nothing changes (compared: `same`)." in here.result().text
    assert "### `port`: 5 to create, 1 to replace" in clone.result().of("port")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_preview_leaves_nothing_behind(
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


def _lock(digit: str) -> str:
    images = {"docker.io/library/a:1": LockedImage(f"sha256:{digit * 64}", 5_000_000)}
    return image_lock.text_of(ImageLock(("linux/amd64",), "signatures", images))


def _named(engine: DockerClient, prefix: str) -> set[str]:
    """The stacks on the engine that a preview has created."""
    found = [
        *(one.labels for one in engine.containers.list(all=True, ignore_removed=True)),
        *(one.attrs["Labels"] or {} for one in engine.networks.list()),
        *(one.attrs["Labels"] or {} for one in engine.volumes.list()),
    ]
    stacks = {labels.get(STACK_LABEL, "") for labels in found}
    return {stack for stack in stacks if stack.startswith(prefix)}
