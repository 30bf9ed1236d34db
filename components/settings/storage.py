"""The settings of where a stack keeps what it has cached."""

from typing import Annotated, Literal

from pydantic import Field, Tag

from .values import Bucket, Model, Name, Pem, RemoteUrl, by_kind


class VolumeStorage(Model):
    """A volume of the engine for each upstream."""

    kind: Literal["volume"] = Field(default="volume", description="What this is: volumes")
    volume_prefix: Name | None = Field(
        default=None,
        description="Volumes are named `<volumePrefix>-<upstream>`; the default is namePrefix",
    )
    on_destroy: Literal["keep", "delete"] = Field(
        default="keep", description="Whether `pulumi destroy` keeps the volumes or deletes them"
    )


class S3Storage(Model):
    """An object store that several hosts share; `pulumi destroy` keeps what is in it.

    Its keys are in `s3Keys`.
    """

    kind: Literal["s3"] = Field(description="What this is: an object store")
    bucket: Bucket = Field(description="The bucket, which has to exist")
    endpoint: RemoteUrl | None = Field(
        default=None, description="URL of the store, where it is not Amazon's"
    )
    region: Name = Field(default="us-east-1", description="The region of the bucket")
    path_style: Annotated[bool, Field(strict=True)] = Field(
        default=True,
        description="Whether the bucket is in the path of a URL, or else in its host name",
    )
    prefix: Name | None = Field(
        default=None,
        description="Objects are named `<prefix>/<upstream>/…`; the default is no prefix",
    )
    ca: Pem | None = Field(
        default=None,
        description="Certificate, in PEM, of the authority that the store's own is signed by",
    )


Storage = Annotated[
    Annotated[VolumeStorage, Tag("volume")] | Annotated[S3Storage, Tag("s3")], by_kind("volume")
]
