# The operator's image: the lean base install, no training libraries, nothing to build with.
#
#   docker build -t rl-scaler:0.1.0 .
#   docker run --rm rl-scaler:0.1.0 operator --help
#
# And the one that trains, for the chart's tuning Job and for machines without a checkout:
#
#   docker build --target training -t rl-scaler-training:0.1.0 .
#   docker run --rm rl-scaler-training:0.1.0 --help
#   docker run --rm -v $PWD/runs:/studies --entrypoint python rl-scaler-training:0.1.0 -m training.train --out /studies
#
# And the one that places jobs onto servers over HTTP (docs/service.md):
#
#   docker build --target serve -t rl-scaler-serve:0.1.0 .
#   docker run --rm -p 8000:8000 -v jobs:/state -e RLSCALER_SERVE_TOKEN=a-token-of-your-own rl-scaler-serve:0.1.0

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


FROM python:3.11-slim-bookworm AS build-training

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

RUN python -m venv /opt/rl-scaler

WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY controller ./controller
COPY sim ./sim
COPY training ./training
# networks of this size train fastest on a CPU; PyPI's torch would bring gigabytes for others
RUN /opt/rl-scaler/bin/pip install --constraint constraints.txt \
        --extra-index-url https://download.pytorch.org/whl/cpu '.[train]' 'psycopg[binary]>=3.2' \
    && /opt/rl-scaler/bin/pip uninstall --yes pip \
    && cd / && /opt/rl-scaler/bin/python -m training.tune --help


FROM python:3.11-slim-bookworm AS training

LABEL org.opencontainers.image.title="rl-scaler-training" \
      org.opencontainers.image.description="Trains and tunes policies of rl-scaler" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"

COPY --from=build-training /opt/rl-scaler /opt/rl-scaler

# As below; compiled code of the simulator goes to the home, /tmp.
ENV PATH=/opt/rl-scaler/bin:$PATH \
    HOME=/tmp \
    USER=rl-scaler \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OMP_NUM_THREADS=1 \
    MALLOC_ARENA_MAX=2

USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["python", "-m", "training.tune"]
CMD ["--help"]


FROM python:3.11-slim-bookworm AS build-serve

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

RUN python -m venv /opt/rl-scaler

WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY controller ./controller
COPY sim ./sim
# for the learned scheduler's file; none of the libraries that training needs is installed
COPY training ./training
COPY service ./service
RUN /opt/rl-scaler/bin/pip install --constraint constraints.txt '.[serve]' \
    && /opt/rl-scaler/bin/pip uninstall --yes pip \
    && cd / && /opt/rl-scaler/bin/rl-scaler serve --help \
    && mkdir /state && chown 65532:65532 /state


FROM python:3.11-slim-bookworm AS serve

LABEL org.opencontainers.image.title="rl-scaler-serve" \
      org.opencontainers.image.description="Places jobs onto servers over HTTP, by heuristics or a learned scheduler" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"

COPY --from=build-serve /opt/rl-scaler /opt/rl-scaler
COPY --from=build-serve --chown=65532:65532 /state /state

# As below; code is compiled when it is first needed, and kept beside the state.
ENV PATH=/opt/rl-scaler/bin:$PATH \
    HOME=/tmp \
    USER=rl-scaler \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OMP_NUM_THREADS=1 \
    MALLOC_ARENA_MAX=2 \
    NUMBA_CACHE_DIR=/state/code

USER 65532:65532
WORKDIR /tmp
VOLUME /state
EXPOSE 8000
ENTRYPOINT ["rl-scaler"]
CMD ["serve", "--host=0.0.0.0", "--state=/state/serve.db"]


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
    OMP_NUM_THREADS=1 \
    MALLOC_ARENA_MAX=2

USER 65532:65532
WORKDIR /tmp
EXPOSE 8080
ENTRYPOINT ["rl-scaler"]
CMD ["operator"]
