# audiohook in a container: docker build -t audiohook . ; see docs/container.md.

# Debian's own Python, the same in both stages, so that the environment can be copied.
ARG BASE=debian:trixie-slim

FROM ${BASE} AS build
# No versions are named: Debian's stable ones change for mended holes only.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml setup.py README.md LICENSE MANIFEST.in /source/
COPY audiohook /source/audiohook
RUN python3 -m venv /opt/audiohook \
    && /opt/audiohook/bin/pip install --no-cache-dir /source

FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 993 audiohook \
    && useradd --system --uid 993 --gid 993 --home-dir /var/lib/audiohook --no-create-home audiohook \
    && install -d -o audiohook -g audiohook -m 0700 /var/lib/audiohook
COPY --from=build /opt/audiohook /opt/audiohook
ENV PATH=/opt/audiohook/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RECORDINGS_DIR=/var/lib/audiohook
# By number, so that Kubernetes can tell that it is not root (runAsNonRoot).
USER 993:993
WORKDIR /var/lib/audiohook
# The spool: calls lie here until the bucket has them, so it must outlive the container.
VOLUME /var/lib/audiohook
# 3000 is for Genesys. The admin port, 9090, listens inside only.
EXPOSE 3000
# Live calls may end first; give it as long (docker stop --timeout 360).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ.get('ADMIN_PORT', '9090')}/health\", timeout=4)"]
# No shell between: the service gets the signals itself.
ENTRYPOINT ["audiohook"]
CMD ["serve"]
