from pathlib import Path

import pytest

from talos_registry_cache.cli import s3_keys
from talos_registry_cache.cli.errors import CachectlError
from talos_registry_cache.registry.s3_location import Keys

VARIABLES = {"AWS_ACCESS_KEY_ID": "access", "AWS_SECRET_ACCESS_KEY": "s3cret"}
FILE = """\
[default]
aws_access_key_id = first
aws_secret_access_key = of%default
[team]
aws_access_key_id = second
aws_secret_access_key = of=team
[half]
aws_access_key_id = third
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text(FILE)
    return tmp_path


def test_variables_go_before_files(home: Path) -> None:
    assert s3_keys.find(VARIABLES, home) == Keys("access", "s3cret")


def test_a_file_has_a_profile_for_each_purpose(home: Path) -> None:
    assert s3_keys.find({}, home) == Keys("first", "of%default")
    assert s3_keys.find({"AWS_PROFILE": "team"}, home) == Keys("second", "of=team")


def test_a_file_of_another_name_is_found(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(Keys("own", "s3cret").file)

    assert s3_keys.find({"AWS_SHARED_CREDENTIALS_FILE": str(path)}, home) == Keys("own", "s3cret")


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({"AWS_PROFILE": "none"}, "has no none; allowed: "),
        ({"AWS_PROFILE": "half"}, "has no aws_secret_access_key in [half]; allowed: "),
        ({"AWS_SHARED_CREDENTIALS_FILE": "/nowhere"}, "/nowhere is not there; allowed: "),
        ({"AWS_SHARED_CREDENTIALS_FILE": "/"}, "/ cannot be read; allowed: "),
    ],
)
def test_that_there_are_none_says_where_they_are_looked_for(
    home: Path, environment: dict[str, str], why: str
) -> None:
    with pytest.raises(CachectlError) as failed:
        s3_keys.find(environment, home)

    said = str(failed.value)
    assert why in said
    for place in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SHARED_CREDENTIALS_FILE"):
        assert place in said
    assert "AWS_PROFILE" in said


def test_a_file_that_is_no_such_is_not_shown(home: Path) -> None:
    (home / ".aws/credentials").write_text("s3cret\n")

    with pytest.raises(CachectlError, match="is no such file") as failed:
        s3_keys.find({}, home)

    assert "s3cret" not in str(failed.value)


def test_the_certificate_of_a_store_is_in_the_file_that_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("PEM")

    assert s3_keys.ca({"AWS_CA_BUNDLE": str(path)}) == "PEM"
    assert s3_keys.ca({}) is None
    with pytest.raises(CachectlError, match="AWS_CA_BUNDLE names, cannot be read"):
        s3_keys.ca({"AWS_CA_BUNDLE": str(tmp_path / "none")})
