# What runs and stages work in where a work pool starts containers (docs/operations.md, "Work pools and images"):
# Python, the libraries of the lock file and Pawline's code. Photos, models, settings and keys are not in it; the
# project is mounted. A container ends with its run, so there is no health to check.
#   docker build --tag pawline:cpu --build-arg UID=$(id -u) --build-arg GID=$(id -g) .
FROM python:3.11-slim-bookworm

# What changes least comes first. git: DVC and the registry work with it.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/*

# requirements.lock has TensorFlow for processors only; LOCK names a lock file made with the extra `gpu`.
ARG LOCK=requirements.lock
COPY ${LOCK} /opt/requirements.lock
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps --require-hashes -r /opt/requirements.lock

# The code, which is what changes most. In a project's folder that folder's own comes first.
WORKDIR /opt/pawline
COPY . .
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation \
        --config-settings editable_mode=compat --editable . \
    && pip check --disable-pip-version-check

# Whoever owns the mounted project: git works for nobody else, and what is written is theirs.
ARG UID=1000
ARG GID=1000
RUN groupadd --non-unique --gid ${GID} pawline \
    && useradd --non-unique --uid ${UID} --gid ${GID} --create-home pawline
USER ${UID}:${GID}
ENV PYTHONUNBUFFERED=1 DO_NOT_TRACK=1 DVC_NO_ANALYTICS=1 PREFECT_SERVER_ANALYTICS_ENABLED=false
CMD ["pawline", "--help"]
