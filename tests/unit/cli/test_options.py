import pytest
import typer
from typer.testing import CliRunner

from talos_registry_cache.cli import options
from talos_registry_cache.cli.errors import UsageError


def test_without_a_user_name_there_is_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(options.PASSWORD, "s3cret")

    assert options.reader(None) is None


def test_the_password_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(options.PASSWORD, "s3cret")

    assert options.reader("adam") == ("adam", "s3cret")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    """A program that prints the length of the password."""
    monkeypatch.delenv(options.PASSWORD, raising=False)
    app = typer.Typer()

    @app.command()
    def program(username: str) -> None:
        found = options.reader(username)
        print(len(found[1]) if found else None)  # noqa: T201

    return app


def test_the_password_prompt_does_not_show_it(asked: typer.Typer) -> None:
    done = CliRunner().invoke(asked, ["adam"], input="s3cret\n")

    assert done.stdout.strip().endswith("6")
    assert "Password of adam" in done.output
    assert "s3cret" not in done.output


def test_an_empty_password_is_refused(asked: typer.Typer) -> None:
    done = CliRunner().invoke(asked, ["adam"], input="\n")

    assert isinstance(done.exception, UsageError)
    assert "set CACHECTL_PASSWORD" in str(done.exception)
