# syntax=docker/dockerfile:1
# Three images from one file:
#   docker build --target train --tag ecd-deploy .             trains, exports, validates, gates
#   docker build --target gate --tag ecd-deploy-gate .         gates, profiles, bundles, reports; without torch
#   docker build --target edge --tag ecd-deploy-edge .         measures an ONNX file: numpy, onnxruntime, one script
# All run as an ordinary user on a read-only root file system:
#   docker run --rm --read-only --tmpfs /tmp --volume "$PWD:/work" ecd-deploy run digits
#   docker run --rm --read-only --tmpfs /tmp --volume "$PWD:/work" ecd-deploy-gate gate runs/candidate
#   docker run --rm --read-only --tmpfs /tmp --volume "$PWD:/work:ro" ecd-deploy-edge student.onnx
# `docker run --rm ecd-deploy doctor` and `docker run --rm ecd-deploy-edge --help` tell whether an image is sound.
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY exporters exporters
COPY pipelines pipelines
COPY ecd_deploy ecd_deploy
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11.14-slim-bookworm AS edge
# Only what the runner imports: onnxruntime's other requirements serve tools that are not used here.
RUN pip install --no-cache-dir --no-compile --no-deps numpy==2.4.6 onnxruntime==1.32.0 \
    && useradd --create-home --uid 1000 ecd
COPY ecd_deploy/measure/device/device_runner.py /opt/device_runner.py
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 ORT_DISABLE_TELEMETRY=1
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["python", "/opt/device_runner.py"]
CMD ["--help"]

FROM python:3.11.14-slim-bookworm AS gate
# Caches of libraries go where a read-only root file system still lets them.
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 ORT_DISABLE_TELEMETRY=1 HOME=/tmp XDG_CACHE_HOME=/tmp/cache
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-compile /wheels/*.whl \
    # Bytecode of what every start imports: on a read-only file system it would be made anew each time.
    && python -m compileall -q -x '/scipy/(?!special|_lib)' /usr/local/lib/python3.11/site-packages \
    && useradd --uid 1000 ecd \
    && install --directory --owner=ecd --group=ecd /work
USER 1000:1000
# Runs and images: mount their folder here.
WORKDIR /work
ENTRYPOINT ["ecd-deploy"]
CMD ["--help"]

FROM python:3.11.14-slim-bookworm AS train
# The default index serves torch with CUDA (5 GB). For an image without it, name PyTorch's index of CPU builds:
#   docker build --build-arg PIP_EXTRA_INDEX_URL=URL .
ARG PIP_EXTRA_INDEX_URL
# Caches of libraries go where a read-only root file system still lets them.
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 ORT_DISABLE_TELEMETRY=1 HOME=/tmp XDG_CACHE_HOME=/tmp/cache MPLCONFIGDIR=/tmp/matplotlib
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir "$(echo /wheels/*.whl)[train]" \
    && useradd --uid 1000 ecd \
    && install --directory --owner=ecd --group=ecd /work
USER 1000:1000
# Recipes, images and runs: mount their folder here.
WORKDIR /work
ENTRYPOINT ["ecd-deploy"]
CMD ["--help"]
