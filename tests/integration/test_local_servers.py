"""The three servers of the local stack, as the launchers start them."""

import nats
import psycopg
import pytest
from botocore.exceptions import ClientError


async def test_nats_stores_large_messages(nats_server):
    client = await nats.connect(nats_server.url)
    try:
        assert client.max_payload == 16 * 1024 * 1024
        stream = client.jetstream()
        await stream.add_stream(name="local-servers", subjects=["local-servers.>"])
        ack = await stream.publish("local-servers.large", bytes(15_000_000), timeout=20)
        assert ack.seq == 1
    finally:
        await client.close()


def test_postgres_wants_the_password(database):
    with psycopg.connect(database.conninfo) as connection:
        assert connection.execute("SELECT current_database()").fetchone() == (database.name,)
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(database.conninfo.replace(database.password, "wrong"))


def test_s3_keeps_objects_and_refuses_strangers(s3_server, bucket):
    client = s3_server.client()
    client.put_object(Bucket=bucket, Key="a/b.dcm", Body=b"DICM" * 2_000_000)
    assert client.get_object(Bucket=bucket, Key="a/b.dcm")["Body"].read() == b"DICM" * 2_000_000
    stranger = type(s3_server)(s3_server.endpoint, s3_server.access_key_id, "wrong").client()
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        stranger.put_object(Bucket=bucket, Key="x", Body=b"x")
