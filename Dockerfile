# syntax=docker/dockerfile:1
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY exporters exporters
COPY pipelines pipelines
COPY ecd_deploy ecd_deploy
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11.14-slim-bookworm
# The default index serves torch with CUDA (5 GB). For an image without it, name PyTorch's index of CPU builds:
#   docker build --build-arg PIP_EXTRA_INDEX_URL=URL .
ARG PIP_EXTRA_INDEX_URL
ENV PYTHONUNBUFFERED=1
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir /wheels/*.whl \
    && useradd --create-home --uid 1000 ecd \
    && install --directory --owner=ecd --group=ecd /work
USER 1000:1000
# Recipes, images and runs: mount their folder here.
WORKDIR /work
ENTRYPOINT ["ecd-deploy"]
CMD ["--help"]
