# The image of a service: packages, code and one model. Its context is what `run.py package` wrote.
#
#   python run.py package --task edu_quality
#   docker build --tag tamis-edu_quality:1 .tamis/packages/edu_quality/1-onnx-int8-0123456789ab
#   docker run --read-only --tmpfs /tmp --publish 3000:3000 \
#       --volume ./keys.json:/etc/tamis/keys.json:ro --env TAMIS_SERVE_KEYS_FILE=/etc/tamis/keys.json tamis-edu_quality:1
#
# A package holds a copy of this file with the values of its arguments filled in.

FROM python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d AS base
ENV PIP_NO_CACHE_DIR=1 \
    PIP_NO_INPUT=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
RUN groupadd --gid 10001 tamis \
    && useradd --uid 10001 --gid 10001 --no-create-home --no-log-init --home-dir /tmp --shell /usr/sbin/nologin tamis


# Packages: wheels only, by their hashes where the lock file has them. torch, where the model needs
# it, has a lock file of its own, since its builds come from an index of their own.
FROM base AS packages
WORKDIR /build
COPY *.lock ./
ARG VARIANT=cpu
RUN python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --no-deps --only-binary=:all: --requirement requirements.lock \
    && if [ -f torch.lock ]; then \
        case "$VARIANT" in \
            cpu) pip --python /opt/venv/bin/python install --no-deps --only-binary=:all: \
                     --index-url https://download.pytorch.org/whl/cpu --requirement torch.lock ;; \
            gpu) pip --python /opt/venv/bin/python install --only-binary=:all: --requirement torch.lock ;; \
            *) echo "VARIANT is cpu or gpu, not '$VARIANT'" >&2; exit 2 ;; \
        esac; \
    fi \
    && pip --python /opt/venv/bin/python check
# Compiled here, since a read-only container cannot; by hash, so that the files' times do not matter.
COPY bento/src /app
WORKDIR /app
RUN /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash deployment tamis \
    && /opt/venv/bin/python -c 'import deployment.service'


FROM base AS service
COPY --from=packages /opt/venv /opt/venv
COPY --from=packages /app /app
# All that is written goes below /tmp.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    BENTOML_HOME=/tmp/bentoml \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TAMIS_SERVE_MODEL=/app/served \
    TAMIS_SERVE_PROCESSES=1 \
    OMP_NUM_THREADS=1 \
    HF_HUB_OFFLINE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    BENTOML_DO_NOT_TRACK=true \
    DO_NOT_TRACK=true
WORKDIR /app
USER 10001:10001
# Vertex AI names the port in AIP_HTTP_PORT, Cloud Run in PORT.
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; e = os.environ; u.urlopen('http://127.0.0.1:%s/readyz' % (e.get('AIP_HTTP_PORT') or e.get('PORT') or '3000'), timeout=4)"]
ARG TASK=unknown
ARG MODEL_VERSION=unknown
ARG MODEL_DIGEST=unknown
ARG BACKEND=unknown
ARG CODE=unknown
ARG FINGERPRINT=unknown
LABEL org.opencontainers.image.title="Tamis service: $TASK" \
      org.opencontainers.image.description="Scores documents behind an HTTP API" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$MODEL_VERSION" \
      org.opencontainers.image.revision="$CODE" \
      org.opencontainers.image.base.name="docker.io/library/python:3.11.14-slim-bookworm" \
      tamis.task="$TASK" \
      tamis.model.version="$MODEL_VERSION" \
      tamis.model.digest="$MODEL_DIGEST" \
      tamis.backend="$BACKEND" \
      tamis.package="$FINGERPRINT"
CMD ["sh", "-c", "exec python -m bentoml serve deployment.service:ScoreService --host 0.0.0.0 --port \"${AIP_HTTP_PORT:-${PORT:-3000}}\" --api-workers \"$TAMIS_SERVE_PROCESSES\""]
