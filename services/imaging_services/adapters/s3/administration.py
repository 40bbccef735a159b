"""Administering buckets through boto3: creating them, and removing what failed uploads left. Blocking."""

import os
from typing import Any

import boto3
import structlog
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from imaging_services.adapters.s3.settings import BucketSettings
from imaging_services.domain.errors import BackendUnavailable, SettingsError

log = structlog.get_logger(__name__)


def ensure_bucket(settings: BucketSettings) -> bool:
    """Create the S3 bucket unless it is there; returns True when it was created.

    Raises ``SettingsError`` for another kind of storage space, ``BackendUnavailable`` when the server fails.
    """
    if settings.provider != "s3":
        raise SettingsError("only S3 buckets can be created")
    client = _client(settings)
    try:
        client.head_bucket(Bucket=settings.BUCKET_NAME)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise BackendUnavailable(f"bucket {settings.BUCKET_NAME}: {error}") from error
        return _create(client, settings)
    except BotoCoreError as error:
        raise BackendUnavailable(f"bucket {settings.BUCKET_NAME}: {error}") from error
    finally:
        client.close()
    return False


def _create(client: Any, settings: BucketSettings) -> bool:
    try:
        client.create_bucket(Bucket=settings.BUCKET_NAME)
    except client.exceptions.BucketAlreadyOwnedByYou:
        return False
    except (BotoCoreError, ClientError) as error:
        raise BackendUnavailable(f"bucket {settings.BUCKET_NAME} cannot be created: {error}") from error
    log.info("bucket created", bucket=settings.BUCKET_NAME)
    return True


def abort_uploads(settings: BucketSettings, key: str) -> int:
    """Abort the unfinished multipart uploads of a key; returns how many. Never raises: it runs after a failure, which
    is what the caller has to hear of."""
    client = _client(settings)
    try:
        listed = client.list_multipart_uploads(Bucket=settings.BUCKET_NAME, Prefix=key)
        uploads = [upload["UploadId"] for upload in listed.get("Uploads", []) if upload["Key"] == key]
        for upload in uploads:
            client.abort_multipart_upload(Bucket=settings.BUCKET_NAME, Key=key, UploadId=upload)
    except (BotoCoreError, ClientError) as error:
        log.warning("parts of a failed upload may remain", key=key, reason=str(error))
        return 0
    finally:
        client.close()
    return len(uploads)


def _client(settings: BucketSettings) -> Any:
    secret = settings.AWS_SECRET_ACCESS_KEY
    verify: bool | str = not settings.BUCKET_SKIP_VERIFY
    authorities = settings.BUCKET_CA_FILE or os.environ.get("SSL_CERT_FILE")  # obstore obeys the latter by itself
    if verify and authorities:
        verify = str(authorities)
    return boto3.client(
        "s3",
        endpoint_url=settings.endpoint,
        region_name=settings.BUCKET_REGION,
        aws_access_key_id=settings.AWS_ACCESS_KEY_ID,
        aws_secret_access_key=secret.get_secret_value() if secret else None,
        verify=verify,
        config=Config(
            s3={"addressing_style": "virtual" if settings.virtual_hosted else "path"},
            connect_timeout=5,
            read_timeout=20,
            retries={"max_attempts": 2},
        ),
    )
