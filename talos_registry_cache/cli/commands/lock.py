"""cachectl lock: write down the digests that the images of a stack have now."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from talos_registry_cache.cli import caches, console, options, selection, stack, stack_file
from talos_registry_cache.cli.errors import CachectlError, ExitCode, UsageError
from talos_registry_cache.cli.stack import Cache, Reader, Stack
from talos_registry_cache.registry import image_lock, interruptible, locking, platforms, reference
from talos_registry_cache.registry.attachments import Attachments
from talos_registry_cache.registry.errors import LockError, RegistryError
from talos_registry_cache.registry.image_lock import Difference, ImageLock, LockedImage
from talos_registry_cache.registry.platforms import Platforms
from talos_registry_cache.registry.reference import Reference


def lock(
    images: options.Images = None,
    *,
    image_files: options.ImageFiles = None,
    wanted_platforms: options.Platforms = None,
    attachments: Annotated[
        Attachments | None,
        typer.Option(help="The attachments to lock. Default: as in the stack file or the lock."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The lock. Default: that of the stack file, or images.lock."
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare the lock with the upstreams; write nothing.")
    ] = False,
    username: options.Username = None,
    stack_name: options.StackName = None,
    as_json: options.AsJson = False,
) -> None:
    """Write the digest, size and attachments of each image to a lock, as the upstreams have them.

    Without IMAGE and --images, these are the images of `Pulumi.<stack>.yaml` in this folder. With
    `images: {lock: images.lock}` in the stack file, `up` caches exactly these digests, and the
    caches answer the tags with them, whatever the upstreams do later. For example:

        cachectl lock && git add images.lock

    Platforms and attachments come from the options, the stack file or the existing lock, in this
    order. Only manifests are fetched. If an image cannot be looked up, nothing is written.

    Exit codes: 0 written, or the lock is up to date, 1 failure, 2 wrong usage, 3 an image could not
    be looked up, or `--check` found a difference.
    """
    with stack.opened(stack_name) as found:
        chosen = selection.gather(images or [], image_files or [])
        settings = stack_file.Images() if chosen else stack_file.read(Path(), found.name)
        file = file or Path(settings.lock)
        before = _existing(file, is_needed=check)
        chosen = chosen or settings.listed(Path()) or _images(before)
        if not chosen:
            raise UsageError(f"no image to lock: Pulumi.{found.name}.yaml lists none; give IMAGE")
        # As in the program, what the stack file leaves out is as in the lock.
        wanted = wanted_platforms or _texts(settings.platforms) or before.platforms
        after = _look_up(
            found,
            chosen,
            caches.wanted_platforms(found.engine, wanted),
            attachments or settings.attachments or Attachments(before.attachments),
            options.reader(username),
        )
    difference = image_lock.compare(before, after)
    if not check:
        _write(file, image_lock.text_of(after))
    if as_json:
        console.as_json(_described(difference))
    else:
        _show(difference, file, len(after.images), check=check)
    if check and difference:
        raise typer.Exit(ExitCode.NOT_ALL_THERE)


def _existing(file: Path, *, is_needed: bool) -> ImageLock:
    """The lock to compare with or to replace; an empty one if there is none, or it is wrong."""
    try:
        return image_lock.read(file)
    except LockError as error:
        if is_needed:
            raise UsageError(f"{file}: {error}") from None
        if file.exists():
            console.say(f"{file} is replaced: {error}")
        return image_lock.EMPTY


def _images(lock: ImageLock) -> tuple[Reference, ...]:
    return tuple(map(reference.parse, lock.images))


def _texts(found: Collection[str] | None) -> Collection[str] | None:
    return [found] if isinstance(found, str) else found


def _look_up(
    found: Stack,
    images: Collection[Reference],
    wanted: Platforms,
    attachments: Attachments,
    reader: Reader | None,
) -> ImageLock:
    """Look up images, and leave the tags in the storages as they were."""
    involved = caches.of_images(found.caches, images)
    with (
        caches.locked(found),
        _keeping_tags(found, involved, images),
        console.counting("looking up images", len(images)) as count,
    ):
        results = interruptible.run(
            locking.look_up(
                images,
                found.endpoints(reader),
                wanted,
                attachments,
                remotes=caches.asked_for_referrers(found.engine, involved, attachments),
                on_image=count,
                on_problem=console.say,
            )
        )
    locked = {str(image): one for image, one in results.items() if isinstance(one, LockedImage)}
    if len(locked) < len(results):
        for image, one in results.items():
            if isinstance(one, RegistryError):
                console.say(f"{image}: {one}")
        console.say("nothing was written")
        raise typer.Exit(ExitCode.NOT_ALL_THERE)
    return ImageLock(platforms.names(wanted), attachments.value, locked)


@contextmanager
def _keeping_tags(
    found: Stack, involved: Sequence[Cache], images: Collection[Reference]
) -> Iterator[None]:
    """Restore the tags in the storages after a lookup.

    A registry that looks up a tag stores the digest that its upstream answers, although the storage
    still has the old content only.
    """
    tags = {
        cache.registry: [
            (image.repository, image.tag)
            for image in images
            if image.registry == cache.registry and image.tag
        ]
        for cache in involved
    }
    storages = {cache.registry: caches.storage_of(found.engine, cache) for cache in involved}
    before = {host: storage.digests(tags[host]) for host, storage in storages.items()}
    try:
        yield
    finally:
        for host, storage in storages.items():
            storage.tag(before[host])


def _write(file: Path, text: str) -> None:
    new = file.with_name(f"{file.name}.new")
    try:
        new.write_text(text)
        new.replace(file)
    except OSError as error:
        raise CachectlError(f"{file} cannot be written: {error}") from error


def _show(difference: Difference, file: Path, number: int, *, check: bool) -> None:
    rows = [
        *(
            (name, "added", reference.short(one.digest), one.size)
            for name, one in difference.added.items()
        ),
        *(
            (name, _moved(old, new), reference.short(new.digest), new.size)
            for name, (old, new) in difference.moved.items()
        ),
        *((name, "removed", "", 0) for name in difference.removed),
    ]
    if rows:
        console.table(
            ("image", "change", "digest", ">size"),
            ((name, change, digest, console.size(size)) for name, change, digest, size in rows),
        )
    what = f"{file}: {console.count(number, 'image')}, "
    if not rows:
        console.say(f"{what}nothing changed")
    elif check:
        console.say(f"{what}which differ: `cachectl lock` writes them")
    else:
        console.say(f"{what}{console.size(difference.size)} new or changed")


def _moved(old: LockedImage, new: LockedImage) -> str:
    if old.digest == new.digest:
        return "attachments"
    return f"moved from {reference.short(old.digest)}"


def _described(difference: Difference) -> Mapping[str, object]:
    return {
        "added": {name: one.digest for name, one in difference.added.items()},
        "moved": {
            name: {"from": old.digest, "to": new.digest}
            for name, (old, new) in difference.moved.items()
        },
        "removed": {name: one.digest for name, one in difference.removed.items()},
        "size": difference.size,
    }
