# What workers and flow runs are made of: the pinned environment and the rooms. docs/operations.md says how it is used.
# The tag is for people; the digest, that of the index for amd64 and arm64, is what is pulled. To move to another one:
# docker buildx imagetools inspect python:3.13-slim-trixie
FROM python:3.13.15-slim-trixie@sha256:9d2e5553305c7c7b0097999bb17187c69b921ccd6bc9d40e4bb5ebe652c00285

# What the locks of these extras add: cuda for GPUs, cloud for a bucket, hub for the networks of KerasHub, kubernetes for the worker of its pool,
# sign for signed versions.
ARG EXTRA=""
# requirements-ray.lock for an image with Ray.
ARG LOCK=requirements.lock

ENV LAYERFLOW_STORE=/data/store \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1

# Runs belong to this user, whose number is the same wherever the store is mounted.
RUN useradd --uid 1000 --create-home layerflow \
    && mkdir --parents /data/store \
    && chown --recursive layerflow:layerflow /data

# What changes seldom comes first: a changed flow does not install TensorFlow again.
WORKDIR /app
COPY requirements.lock requirements-ray.lock requirements-cloud.lock requirements-cuda.lock requirements-hub.lock requirements-kubernetes.lock requirements-sign.lock ./
RUN pip install --require-hashes -r "$LOCK" -c "$LOCK"
RUN for extra in $EXTRA; do pip install --no-deps --require-hashes -r "requirements-$extra.lock" || exit 1; done

COPY pyproject.toml README.md LICENSE prefect.yaml automations.yaml ./
COPY pools pools
COPY cli cli
COPY flows flows
COPY layerflow layerflow
COPY layers layers
COPY tasks tasks
RUN pip install --no-deps --no-build-isolation --editable . \
    && python -m compileall -q cli flows layerflow layers tasks

USER 1000
# A worker of a process pool. Docker and Kubernetes pools give a command of their own.
CMD ["prefect", "worker", "start", "--pool", "layerflow"]
