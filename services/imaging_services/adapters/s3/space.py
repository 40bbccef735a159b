"""Opening the storage space that a service was given."""

from pathlib import Path

from obstore.exceptions import BaseError

from imaging_services.adapters.s3.folder import FolderStore
from imaging_services.adapters.s3.settings import BucketSettings, read_bucket_settings
from imaging_services.adapters.s3.store import CloudStore
from imaging_services.domain.errors import SettingsError
from imaging_services.domain.ports import ObjectStore


def open_space(config_path: Path, secret_path: Path | None = None) -> ObjectStore:
    """The storage space that the files in both directories describe; nothing is sent to it yet.

    Raises ``SettingsError`` with a sentence when no provider, or half of one, is set: there is no silent local disk.
    """
    return space_of(read_bucket_settings(config_path, secret_path))


def space_of(settings: BucketSettings) -> ObjectStore:
    """The storage space of settings that have been read. Raises ``SettingsError`` when they cannot be used."""
    if settings.LOCAL_STORAGE_PATH is not None:
        if not settings.LOCAL_STORAGE_PATH.is_dir():
            raise SettingsError(f"LOCAL_STORAGE_PATH: {settings.LOCAL_STORAGE_PATH} is not a directory")
        return FolderStore(settings.LOCAL_STORAGE_PATH)
    try:
        return CloudStore(settings)
    except (BaseError, ValueError, TypeError) as error:
        # Only the first line: what follows repeats the settings.
        raise SettingsError(f"the storage space cannot be opened: {str(error).splitlines()[0]}") from error
