# The agent's image. Build it from the root of the repository: docker build -f k8s/images/agent.Dockerfile -t allotment/agent:0.1.0 .
# A rebuild takes up what Debian and Python have mended; to repeat a build exactly, give the tag a digest.
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
RUN ["python", "-m", "venv", "/opt/allotment"]
WORKDIR /src
COPY pyproject.toml README.md ./
COPY protocol protocol
COPY agent agent
COPY control_plane control_plane
RUN ["/opt/allotment/bin/pip", "install", "--no-cache-dir", "--disable-pip-version-check", ".[agent]"]

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/allotment /opt/allotment
# Nothing is imported from the directory a command happens to run in: `agent` and `protocol` are common names.
ENV PATH=/opt/allotment/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# For those who run it without Kubernetes: volumes take over the owner of the directory they cover.
RUN ["install", "--directory", "--mode=0750", "--owner=10001", "--group=10001", "/var/lib/allotment", "/run/allotment"]
USER 10001:10001
WORKDIR /tmp
VOLUME ["/var/lib/allotment", "/run/allotment"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["allotment-agent"]
