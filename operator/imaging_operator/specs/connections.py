"""Groups of fields about what a workload speaks to, and who speaks to it."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from imaging_operator.specs.model import Int32, Model, ObjectName, Rule, absent

SubjectRoot = Annotated[str, Field(pattern=r"^([^\s.*>]+(\.[^\s.*>]+)*)?$")]
"""What NATS takes as the beginning of a subject."""
JetStreamDomain = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]*$", max_length=128)]

JetStreamDomainNames = Annotated[
    str, Field(pattern=r"^((\*|[A-Za-z0-9_-]+)(, ?(\*|[A-Za-z0-9_-]+))*)?$", max_length=8192)
]


class Authorities(Model):
    """Authorities that sign a server's certificate."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"{absent('caSecretName')} || {absent('caConfigMapName')}",
            "name the authorities once: caSecretName or caConfigMapName",
        ),
    )

    ca_secret_name: ObjectName = Field(
        default="", description="Secret whose key ca.crt holds the authorities to trust instead of the system's (PEM)"
    )
    ca_config_map_name: ObjectName = Field(
        default="", description="ConfigMap whose key ca.crt holds them, as an alternative (PEM)"
    )


class ClientTls(Authorities):
    """Certificates of a connection in both directions."""

    secret_name: ObjectName = Field(
        default="",
        description="Secret of type kubernetes.io/tls with the client certificate (keys tls.crt and tls.key), for "
        "servers that ask for one",
    )


class DatabaseTls(ClientTls):
    """TLS towards PostgreSQL."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!(self.mode in ['verify-ca', 'verify-full']) || "
            f"!({absent('caSecretName')} && {absent('caConfigMapName')})",
            "mode verify-ca or verify-full needs caSecretName or caConfigMapName",
        ),
    )

    mode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = Field(
        default="verify-full", description="libpq's sslmode; verify-full checks the certificate and the host name"
    )


class TargetTls(Authorities):
    """TLS towards the target of a binding."""

    insecure_skip_verify: bool = Field(
        default=False, description="true: the target's certificate is not verified; for tests only"
    )


class ListenerTls(ClientTls):
    """TLS of a DICOM listener (PS3.15, BCP 195 profiles). Certificates that change are read again."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(f"!{absent('secretName')}", "a listener needs secretName"),
        Rule(
            "(has(self.clientAuth) && self.clientAuth == 'none') || "
            f"!({absent('caSecretName')} && {absent('caConfigMapName')})",
            "clientAuth required needs caSecretName or caConfigMapName",
        ),
    )

    secret_name: ObjectName = Field(
        default="",
        description="Secret of type kubernetes.io/tls with its certificate (keys tls.crt and tls.key); needed",
    )
    client_auth: Literal["required", "none"] = Field(
        default="required", description="whether clients have to show a certificate of the authorities named here"
    )


class DimseTargetTls(ClientTls):
    """TLS towards an AE; its presence switches it on. Certificates that change are read again."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"!has(self.verify) || self.verify != 'ca' || !({absent('caSecretName')} && {absent('caConfigMapName')})",
            "verify ca needs caSecretName or caConfigMapName",
        ),
    )

    verify: Literal["full", "ca"] = Field(
        default="full",
        description="full: the AE's certificate has to name the host that is called; ca: any of the authorities",
    )


class Nats(Model):
    """A connection to a NATS server with JetStream."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("!has(self.natsTls) || (has(self.natsSecure) && self.natsSecure)", "natsTls needs natsSecure: true"),
    )

    nats_url: str = Field(default="", description="NATS server, host:port or URL, or several separated by commas")
    nats_secure: bool = Field(default=False, description="TLS to NATS; the server's certificate is verified")
    nats_token_secret: ObjectName = Field(
        default="", description="Secret whose key token holds a JWT to authenticate with; empty: anonymous"
    )
    nats_tls: ClientTls | None = Field(default=None, description="certificates, when natsSecure is true")


class StreamReplicas(Model):
    """How often a NATS cluster keeps the streams of a resource."""

    stream_replicas: Int32 = Field(
        default=1, ge=1, le=5, description="copies of each stream in a NATS cluster; may be raised later"
    )


class JetStreamDomainField(Model):
    """Where the streams of a resource live, when its NATS server is a leaf node."""

    jet_stream_domain: JetStreamDomain = Field(
        default="", description="JetStream domain that keeps the streams; empty: that of the NATS server"
    )


class StreamFields(StreamReplicas):
    """What becomes of the JetStream streams of a resource."""

    retention: Literal["Retain", "Delete"] = Field(
        default="Retain",
        description="what happens to the JetStream streams when this resource is deleted; Delete also discards what "
        "still waits in them",
    )


class JetStreamDomains(Model):
    """Where the streams of a relay live, when its NATS servers are leaf nodes."""

    jet_stream_send_domain: JetStreamDomain = Field(
        default="", description="JetStream domain that keeps what this end sends; empty: that of its server"
    )
    jet_stream_receive_domain: JetStreamDomainNames = Field(
        default="",
        description="JetStream domains that keep what this end receives, beside that of its server: names separated by "
        "commas, or * for all that announce themselves; empty: the server's own alone",
    )


class Bucket(Model):
    """The storage space of a kind."""

    bucket_config_name: ObjectName = Field(
        default="", description="ConfigMap of the storage space, as an ObjectBucketClaim makes it; needed"
    )
    bucket_secret_name: ObjectName = Field(
        default="", description="Secret of the storage space, as an ObjectBucketClaim makes it; needed"
    )
    bucket_tls: Authorities | None = Field(
        default=None,
        description="authorities to trust besides the system's for the storage space; BUCKET_CA_FILE of the "
        "ConfigMap is then not needed",
    )


class DimseListener(Model):
    """Kinds whose pods accept DICOM associations."""

    allowed_calling_ae_titles: tuple[Annotated[str, Field(max_length=16)], ...] = Field(
        default=(),
        alias="allowedCallingAETitles",
        max_length=1000,
        description="calling AE titles that are let in; empty: all",
    )
    accept_unknown_sop_classes: bool = Field(
        default=False, description="accept private and unlisted storage SOP classes too"
    )
    dimse_tls: ListenerTls | None = Field(
        default=None, description="TLS on the DICOM port, and nothing else there; absent: no TLS"
    )


class Exposure(Model):
    """How a Service is published."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("!has(self.nodePort) || self.type != 'ClusterIP'", "nodePort needs type NodePort or LoadBalancer"),
        Rule(
            "!has(self.loadBalancerSourceRanges) || self.type == 'LoadBalancer'",
            "loadBalancerSourceRanges needs type LoadBalancer",
        ),
    )

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = Field(
        default="ClusterIP", description="type of the Service"
    )
    node_port: Int32 | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="port on every node, with NodePort or LoadBalancer; absent: chosen by Kubernetes",
    )
    load_balancer_source_ranges: tuple[str, ...] = Field(
        default=(), max_length=200, description="networks that a LoadBalancer lets in, as 10.0.0.0/8; empty: all"
    )
    annotations: dict[str, str] = Field(default={}, description="annotations of the Service")
