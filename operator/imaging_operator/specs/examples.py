"""A small resource of each kind for the reference; together they are one installation."""

EXAMPLES = {
    "DicomEventDrivenIngestion": """\
metadata:
  name: hospital
spec:
  databaseConfigName: manifest-config
  databaseSecretName: manifest-secret
  revisioningDelay: 30
  natsUrl: nats:4222
  eventProcessor:
    minReplicas: 2
    maxReplicas: 4
""",
    "DicomwebIngestionService": """\
metadata:
  name: archive
spec:
  dicomEventDrivenIngestionName: hospital
  bucketConfigName: images-config
  bucketSecretName: images-secret
  providerName: radiology
  stowService:
    concurrency: 16
  wadoService:
    minReplicas: 2
    maxReplicas: 10
    resources:
      limits:
        memory: 1Gi
  ingress:
    host: images.hospital.example
    tlsSecretName: images-tls
""",
    "DicomInstanceBinding": """\
metadata:
  name: research
spec:
  dicomEventDrivenIngestionName: hospital
  bindingConfigName: research-config   # STOW_ENDPOINT, or DIMSE_TARGET_HOST, or WEBHOOK_ENDPOINT
  bindingSecretName: research-secret
  targetTls:
    caConfigMapName: hospital-ca
""",
    "DicomStudyBinding": """\
metadata:
  name: fhir
spec:
  dicomEventDrivenIngestionName: hospital
  bindingConfigName: fhir-config       # FHIR_ENDPOINT, or WEBHOOK_ENDPOINT
  bindingSecretName: fhir-secret
""",
    "DimseIngestionService": """\
metadata:
  name: ingestion
spec:
  dicomEventDrivenIngestionName: hospital
  bucketConfigName: images-config
  bucketSecretName: images-secret
  providerName: radiology
  applicationEntityTitle: CLOUD
  natsUrl: nats:4222
  natsSubjectRoot: radiology
  direct: true
  dimseService:
    replicas: 2
""",
    "DimseProxy": """\
metadata:
  name: site
spec:
  ownApplicationEntityTitle: SITE_PROXY
  applicationEntityTitle: PACS
  targetDimseHost: pacs.hospital.example
  targetDimsePort: 104
  natsUrl: nats:4222
  natsSecure: true
  natsTokenSecret: nats-token
  natsTls:
    caSecretName: nats-ca
  natsSubjectRoot: radiology
  natsSubjectChannel: A
  deliveryMode: durable
  allowedCallingAETitles: [CT1, MR1]
  service:
    type: LoadBalancer
    loadBalancerSourceRanges: [10.20.0.0/16]
""",
    "DicomEventBridge": """\
metadata:
  name: to-hub
spec:
  dicomEventDrivenIngestionName: hospital
  role: edge
  edgeMailbox: north
  natsUrl: hub-nats.hospital.example:4222
  natsTokenSecret: nats-token
""",
}
