"""The settings of the storage of caches."""

from typing import Annotated, Literal

from pydantic import Field, Tag

from .model import Model, by_kind
from .values import Bucket, Name, Pem, RemoteUrl


class VolumeStorage(Model):
    """A volume for each upstream."""

    kind: Literal["volume"] = Field(default="volume", description="Volumes of the container engine")
    volume_prefix: Name | None = Field(
        default=None,
        description="Prefix of volume names, before `-<upstream>`; the default is `namePrefix`",
    )
    on_destroy: Literal["keep", "delete"] = Field(
        default="keep", description="Whether `pulumi destroy` keeps or deletes the volumes"
    )


class S3Storage(Model):
    """An S3 object store, which caches on several hosts can share.

    Its keys are in `s3Keys`. `pulumi destroy` keeps the objects.
    """

    kind: Literal["s3"] = Field(description="An S3 object store")
    bucket: Bucket = Field(description="Name of an existing bucket")
    endpoint: RemoteUrl | None = Field(
        default=None, description="URL of the store; the default is Amazon S3"
    )
    region: Name = Field(default="us-east-1", description="Region of the bucket")
    path_style: Annotated[bool, Field(strict=True)] = Field(
        default=True,
        description="Whether URLs have the bucket in their path instead of their host name",
    )
    prefix: Name | None = Field(
        default=None,
        description="Prefix of object names, before `/<upstream>/`; the default is none",
    )
    ca: Pem | None = Field(
        default=None,
        description="CA of the store's certificate: PEM, or a file",
    )


Storage = Annotated[
    Annotated[VolumeStorage, Tag("volume")] | Annotated[S3Storage, Tag("s3")], by_kind("volume")
]
