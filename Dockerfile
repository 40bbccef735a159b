# One image for every component: docker run --env-file examples/dimse-proxy.env imaging-ingestion run dimse-proxy
# BASE_IMAGE may be any Debian based Python 3.11 or newer.
ARG BASE_IMAGE=python:3.12-slim

FROM ${BASE_IMAGE} AS build
WORKDIR /build
RUN python3 -m venv /opt/imaging
COPY requirements.lock ./
RUN /opt/imaging/bin/python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY operator operator
COPY services services
RUN /opt/imaging/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation . \
 && /opt/imaging/bin/python -m compileall -q /opt/imaging

FROM ${BASE_IMAGE}
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin imaging
COPY --from=build /opt/imaging /opt/imaging
# In a pod the network belongs to the pod: services listen on all its addresses, and spool to a mounted /tmp.
ENV PATH=/opt/imaging/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HTTP_HOST=0.0.0.0 \
    HEALTH_HOST=0.0.0.0 \
    HEALTH_PORT=9090
USER 10001:10001
WORKDIR /tmp
EXPOSE 8080 9090 11112
STOPSIGNAL SIGTERM
ENTRYPOINT ["imaging"]
CMD ["--help"]
