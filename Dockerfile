# The operator's image: the lean base install, no training libraries, nothing to build with.
#
#   docker build -t rl-scaler:0.1.0 .
#   docker run --rm rl-scaler:0.1.0 operator --help

FROM python:3.11-slim-bookworm AS build

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

RUN python -m venv /opt/rl-scaler

WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY controller ./controller
RUN /opt/rl-scaler/bin/pip install --constraint constraints.txt . \
    && /opt/rl-scaler/bin/pip uninstall --yes pip \
    && /opt/rl-scaler/bin/rl-scaler version


FROM python:3.11-slim-bookworm

LABEL org.opencontainers.image.title="rl-scaler" \
      org.opencontainers.image.description="A Kubernetes autoscaler that asks a trained policy, behind a guard" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"

COPY --from=build /opt/rl-scaler /opt/rl-scaler

# The root file system is read-only in the chart: no bytecode is written, and what needs a home finds /tmp.
# The user has no entry in /etc/passwd, in OpenShift not even a known number: kopf asks for USER instead.
ENV PATH=/opt/rl-scaler/bin:$PATH \
    HOME=/tmp \
    USER=rl-scaler \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OMP_NUM_THREADS=1

USER 65532:65532
WORKDIR /tmp
EXPOSE 8080
ENTRYPOINT ["rl-scaler"]
CMD ["operator"]
