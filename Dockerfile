# One image for feeders and readers; docker-compose.yml says which command runs.

# To pin the content too, build with this name followed by @sha256: and the digest:
#   docker compose build --build-arg PYTHON_IMAGE=...
ARG PYTHON_IMAGE=python:3.13.16-slim-trixie

FROM ${PYTHON_IMAGE} AS build
WORKDIR /source
COPY . .
RUN python -m venv /opt/bookbus \
    && /opt/bookbus/bin/pip install --no-cache-dir -c constraints.txt '.[feeder,monitor]'

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/bookbus /opt/bookbus
ENV PATH=/opt/bookbus/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp
WORKDIR /tmp
USER 10001:10001
CMD ["bookbus-feeder", "run", "--exchange", "binance"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["bookbus-feeder", "health"]
