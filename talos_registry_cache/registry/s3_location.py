"""Where a cache keeps its content in an object store (S3), and the credentials for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

ENVIRONMENT = "REGISTRY_STORAGE_S3_"


@dataclass(frozen=True, slots=True)
class S3Credentials:
    """Credentials for an object store.

    Attributes:
        access_key: the access key ID.
        secret_key: the secret access key.
        session_token: the token of temporary credentials, or None.
    """

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)

    @property
    def file(self) -> str:
        """The shared credentials file from which the registry reads them."""
        lines = [
            "[default]",
            f"aws_access_key_id = {self.access_key}",
            f"aws_secret_access_key = {self.secret_key}",
        ]
        if self.session_token:
            lines.append(f"aws_session_token = {self.session_token}")
        return "\n".join([*lines, ""])


@dataclass(frozen=True, slots=True)
class S3Location:
    """The part of a bucket in which a cache keeps its content.

    Attributes:
        bucket: the bucket.
        folder: prefix of the keys of the cache's objects, without the final slash.
        region: region of the bucket.
        endpoint: URL of the object store, or None for Amazon's.
        path_style: whether URLs have the bucket in their path, and not in their host name.
        ca: certificate (PEM) of the CA that signed the store's certificate, or None.
    """

    bucket: str
    folder: str
    region: str = "us-east-1"
    endpoint: str | None = None
    path_style: bool = True
    ca: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """s3://BUCKET/FOLDER."""
        return f"s3://{self.bucket}/{self.folder}"

    def environment(self, credentials_file: str) -> Mapping[str, str]:
        """The environment variables of a registry that keeps its content here.

        Args:
            credentials_file: path of the shared credentials file in the registry's container.
        """
        variables = {
            "REGISTRY_STORAGE": "s3",
            f"{ENVIRONMENT}BUCKET": self.bucket,
            f"{ENVIRONMENT}REGION": self.region,
            f"{ENVIRONMENT}ROOTDIRECTORY": f"/{self.folder}",
            f"{ENVIRONMENT}FORCEPATHSTYLE": _yaml(self.path_style),
            # Clients may not reach the store.
            "REGISTRY_STORAGE_REDIRECT": "{disable: true}",
            # Otherwise an unreachable store would stop pulls that the upstream can still answer.
            "REGISTRY_HEALTH_STORAGEDRIVER_ENABLED": "false",
            "AWS_SHARED_CREDENTIALS_FILE": credentials_file,
        }
        if self.endpoint:
            variables[f"{ENVIRONMENT}REGIONENDPOINT"] = self.endpoint
            variables[f"{ENVIRONMENT}SECURE"] = _yaml(urlsplit(self.endpoint).scheme == "https")
        return variables

    @classmethod
    def of_registry(cls, environment: Mapping[str, str]) -> Self | None:
        """The location that a registry's environment variables name; None if it uses no S3."""
        if environment.get("REGISTRY_STORAGE") != "s3":
            return None
        return cls(
            bucket=environment[f"{ENVIRONMENT}BUCKET"],
            folder=environment[f"{ENVIRONMENT}ROOTDIRECTORY"].strip("/"),
            region=environment[f"{ENVIRONMENT}REGION"],
            endpoint=environment.get(f"{ENVIRONMENT}REGIONENDPOINT"),
            path_style=environment[f"{ENVIRONMENT}FORCEPATHSTYLE"] == "true",
        )


def _yaml(value: bool) -> str:  # noqa: FBT001 - formats a boolean
    return "true" if value else "false"
