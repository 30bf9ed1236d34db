"""Where in an object store (S3) a cache keeps what it has cached, and by which keys."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

SCHEME = "s3://"
ENVIRONMENT = "REGISTRY_STORAGE_S3_"
DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of an object store.

    Attributes:
        access: the access key.
        secret: the secret key.
    """

    access: str = field(repr=False)
    secret: str = field(repr=False)

    @property
    def file(self) -> str:
        """The file in which Amazon's library, which is the registry's, reads them."""
        return (
            f"[default]\naws_access_key_id = {self.access}\naws_secret_access_key = {self.secret}\n"
        )


@dataclass(frozen=True, slots=True)
class Place:
    """A place in an object store.

    Attributes:
        bucket: the bucket.
        folder: what the names of a cache's objects begin with.
        region: the region of the bucket.
        endpoint: URL of the store, or None for Amazon's.
        path_style: whether the bucket is in the path of a URL, or else in its host name.
        ca: certificate, in PEM, of the authority that the store's own is signed by, or None where
            this machine trusts it.
    """

    bucket: str
    folder: str
    region: str = DEFAULT_REGION
    endpoint: str | None = None
    path_style: bool = True
    ca: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """s3://BUCKET/FOLDER."""
        return f"{SCHEME}{self.bucket}/{self.folder}"

    @property
    def url(self) -> str:
        """URL of the bucket."""
        endpoint = urlsplit(self.endpoint or f"https://s3.{self.region}.amazonaws.com")
        if self.path_style:
            return f"{endpoint.geturl().rstrip('/')}/{self.bucket}"
        return f"{endpoint.scheme}://{self.bucket}.{endpoint.netloc}{endpoint.path.rstrip('/')}"

    def environment(self, keys_file: str) -> Mapping[str, str]:
        """What a registry has to be told to keep its content there.

        Args:
            keys_file: path of the file with the keys, where the registry sees it.
        """
        variables = {
            "REGISTRY_STORAGE": "s3",
            f"{ENVIRONMENT}BUCKET": self.bucket,
            f"{ENVIRONMENT}REGION": self.region,
            f"{ENVIRONMENT}ROOTDIRECTORY": f"/{self.folder}",
            f"{ENVIRONMENT}FORCEPATHSTYLE": _yaml(self.path_style),
            # Clients may not reach the store.
            "REGISTRY_STORAGE_REDIRECT": "{disable: true}",
            # Else a store that is away would stop what the upstream can still answer.
            "REGISTRY_HEALTH_STORAGEDRIVER_ENABLED": "false",
            # Where Amazon's library looks for keys that nobody has given it.
            "AWS_SHARED_CREDENTIALS_FILE": keys_file,
        }
        if self.endpoint:
            variables[f"{ENVIRONMENT}REGIONENDPOINT"] = self.endpoint
            variables[f"{ENVIRONMENT}SECURE"] = _yaml(urlsplit(self.endpoint).scheme == "https")
        return variables


def place_in(environment: Mapping[str, str], ca: str | None = None) -> Place | None:
    """Where a registry with an environment keeps its content; None if in no object store."""
    if environment.get("REGISTRY_STORAGE") != "s3":
        return None
    own = {
        name.removeprefix(ENVIRONMENT): value
        for name, value in environment.items()
        if name.startswith(ENVIRONMENT)
    }
    return Place(
        bucket=own["BUCKET"],
        folder=own["ROOTDIRECTORY"].strip("/"),
        region=own["REGION"],
        endpoint=own.get("REGIONENDPOINT"),
        path_style=own["FORCEPATHSTYLE"] == "true",
        ca=ca,
    )


def _yaml(value: bool) -> str:  # noqa: FBT001 - it is what is written
    return "true" if value else "false"
