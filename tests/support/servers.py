"""Real servers for tests, each started once a session by the launchers that ``imaging up`` uses."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
import psycopg
from botocore.config import Config

from imaging_services.local.nats_server import NatsServer
from imaging_services.local.ports import LOOPBACK, free_ports
from imaging_services.local.postgres_server import PostgresServer
from imaging_services.local.processes import start
from imaging_services.local.s3_server import PORTS, REGION, S3Server


@dataclass(frozen=True)
class Nats:
    """A running NATS server."""

    url: str
    port: int
    pid: int


@dataclass(frozen=True)
class Postgres:
    """A running PostgreSQL server."""

    host: str
    port: int
    user: str
    password: str
    pid: int


@dataclass(frozen=True)
class Database:
    """An empty database, or one being used by a test."""

    host: str
    port: int
    user: str
    password: str
    name: str

    @property
    def conninfo(self) -> str:
        """libpq connection string."""
        return f"host={self.host} port={self.port} user={self.user} password={self.password} dbname={self.name}"


@dataclass(frozen=True)
class S3:
    """A running S3 server and its administrator's credentials."""

    endpoint: str
    access_key_id: str
    secret_access_key: str
    region: str = REGION

    def client(self):
        """A boto3 client, path style."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            region_name=self.region,
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 3}),
        )


@contextmanager
def running_nats(directory: Path) -> Iterator[Nats]:
    """A NATS server with JetStream for the length of the block."""
    server = NatsServer(directory, *free_ports(1))
    child = start(server.program())
    try:
        yield Nats(server.url, server.port, child.pid)
    finally:
        child.stop()


@contextmanager
def running_postgres(directory: Path) -> Iterator[Postgres]:
    """A PostgreSQL server for the length of the block."""
    server = PostgresServer(directory, *free_ports(1), user="imaging", password=secrets.token_hex(12))
    child = start(server.program())
    try:
        yield Postgres(LOOPBACK, server.port, server.user, server.password, child.pid)
    finally:
        child.stop()


@contextmanager
def running_s3(directory: Path) -> Iterator[S3]:
    """An S3 server for the length of the block."""
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    server = S3Server(directory, ports, "AK" + secrets.token_hex(8).upper(), secrets.token_hex(20))
    child = start(server.program())
    try:
        yield S3(server.endpoint, server.access_key_id, server.secret_access_key)
    finally:
        child.stop()


@contextmanager
def fresh_database(server: Postgres) -> Iterator[Database]:
    """A new, empty database; dropped at the end, with whatever still holds a connection to it."""
    name = "test_" + secrets.token_hex(8)
    admin = f"host={server.host} port={server.port} user={server.user} password={server.password} dbname=postgres"
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    try:
        yield Database(server.host, server.port, server.user, server.password, name)
    finally:
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def fresh_bucket(server: S3) -> str:
    """The name of a new bucket."""
    name = "test-" + secrets.token_hex(8)
    server.client().create_bucket(Bucket=name)
    return name
