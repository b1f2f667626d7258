# What workers and flow runs are made of: the pinned environment and the rooms. docs/operations.md says how it is used.
FROM python:3.13-slim

# One more package, for which the lock has no hashes: tensorflow[and-cuda] for GPUs, prefect-kubernetes for its worker.
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
COPY requirements.lock requirements-ray.lock ./
RUN pip install --require-hashes -r "$LOCK" -c "$LOCK"
RUN if [ -n "$EXTRA" ]; then \
        sed 's/ \\$//; /--hash/d' "$LOCK" > /tmp/constraints.txt \
        && pip install "$EXTRA" -c /tmp/constraints.txt \
        && rm /tmp/constraints.txt; \
    fi

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
