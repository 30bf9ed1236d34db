"""The keys of object stores, where Amazon's own tools have them.

The order is theirs (docs.aws.amazon.com/cli, "Configuration and credential file settings").
"""

import configparser
from collections.abc import Mapping
from pathlib import Path

from talos_registry_cache.cli.errors import CachectlError
from talos_registry_cache.registry import files
from talos_registry_cache.registry.s3_location import Keys

ACCESS, SECRET = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
FILE, PROFILE, CA = "AWS_SHARED_CREDENTIALS_FILE", "AWS_PROFILE", "AWS_CA_BUNDLE"
DEFAULT_FILE, DEFAULT_PROFILE = Path(".aws") / "credentials", "default"


def find(environment: Mapping[str, str], home: Path) -> Keys:
    """The keys of the person who asks.

    Args:
        environment: the environment variables.
        home: their home folder.

    Raises:
        CachectlError: there are none.
    """
    if environment.get(ACCESS) and environment.get(SECRET):
        return Keys(environment[ACCESS], environment[SECRET])
    path = Path(environment.get(FILE) or home / DEFAULT_FILE)
    profile = environment.get(PROFILE) or DEFAULT_PROFILE
    # What is in such a file is taken as it is, a percent sign too.
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(files.read_text(path, files.SMALL_LIMIT))
        found = parser[profile]
        return Keys(found[ACCESS.lower()], found[SECRET.lower()])
    except KeyError as missing:
        why = f"has no {missing.args[0]}" + ("" if profile in missing.args else f" in [{profile}]")
    except FileNotFoundError:
        why = "is not there"
    except (OSError, UnicodeDecodeError):
        why = "cannot be read"
    except configparser.Error:
        # Its message would show the line, which may be a key.
        why = "is no such file"
    raise CachectlError(
        f"these caches are in an object store, and there are no keys for it: {path} {why}; "
        f"allowed: {ACCESS} and {SECRET}, or {FILE} with [{profile}], the profile of {PROFILE}"
    )


def ca(environment: Mapping[str, str]) -> str | None:
    """The certificate of an authority that object stores are signed by, where one is named.

    Raises:
        CachectlError: it cannot be read.
    """
    path = environment.get(CA)
    if not path:
        return None
    try:
        return files.read_text(Path(path), files.SMALL_LIMIT)
    except (OSError, UnicodeDecodeError) as error:
        raise CachectlError(f"{path}, which {CA} names, cannot be read: {error}") from None
