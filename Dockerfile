# syntax=docker/dockerfile:1
# Three images from one file:
#   docker build --target train --tag ecd-deploy .             trains, exports, validates, gates
#   docker build --target gate --tag ecd-deploy-gate .         gates, profiles, bundles, reports; without torch
#   docker build --target edge --tag ecd-deploy-edge .         measures an ONNX file: numpy, onnxruntime, the runner
# All run as an ordinary user on a read-only root file system:
#   docker run --rm --read-only --tmpfs /tmp --volume "$PWD:/work" ecd-deploy run digits
#   docker run --rm --read-only --tmpfs /tmp --volume "$PWD:/work" ecd-deploy-gate gate runs/candidate
#   docker run --rm --read-only --tmpfs /tmp --volume "$PWD:/work:ro" ecd-deploy-edge student.onnx
# `make images` builds and tries them without a daemon. docs/images.md has the build arguments and the sizes.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS python
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /usr/lib/python3.11/pydoc_data /usr/lib/python3.11/test /var/lib/apt/lists/* /var/cache/* /var/log/* \
    && useradd --uid 1000 ecd \
    && install --directory --owner=ecd --group=ecd /work
# Caches of libraries go where a read-only root file system still lets them.
ENV PATH=/opt/ecd-deploy/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 ORT_DISABLE_TELEMETRY=1 \
    HOME=/tmp XDG_CACHE_HOME=/tmp/cache MPLCONFIGDIR=/tmp/matplotlib

# What installs stays here: the images get the environments alone. The secret `ca` holds certificates, in PEM, of a
# mirror or a proxy between here and the package index.
FROM python AS build
# hadolint ignore=DL3008
RUN --mount=type=secret,id=ca,target=/usr/local/share/ca-certificates/build.crt \
    apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3-pip python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && update-ca-certificates \
    && python3 -m venv --without-pip /opt/ecd-deploy
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS
ENV PIP_INDEX_URL=$PIP_INDEX_URL PIP_EXTRA_INDEX_URL=$PIP_EXTRA_INDEX_URL PIP_FIND_LINKS=$PIP_FIND_LINKS \
    PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_NO_CACHE_DIR=1 PIP_PYTHON=/opt/ecd-deploy/bin/python3
WORKDIR /source
COPY constraints.txt ./

FROM build AS wheel
COPY pyproject.toml README.md LICENSE ./
COPY exporters exporters
COPY pipelines pipelines
COPY ecd_deploy ecd_deploy
RUN env --unset=PIP_PYTHON pip wheel --no-deps --wheel-dir /wheels .

FROM build AS edge-environment
# Only what the runner imports: onnxruntime's other requirements serve tools that are not used here, and its library
# for C is a second copy of what its module for Python holds.
RUN pip install --no-compile --no-deps --constraint constraints.txt numpy onnxruntime
WORKDIR /opt/ecd-deploy/lib/python3.11/site-packages
RUN rm -rf onnxruntime/capi/libonnxruntime.so* onnxruntime/quantization onnxruntime/tools onnxruntime/transformers \
        numpy/distutils numpy/f2py numpy/_core/_simd.*.so \
    && find . \( -name tests -o -name '*.pyi' -o -name '*.h' -o -name '*.a' \) -prune -exec rm -rf {} +

FROM build AS gate-environment
COPY --from=wheel /wheels /wheels
# Bytecode of what every start imports: on a read-only file system it would be made anew each time.
RUN pip install --no-compile --constraint constraints.txt /wheels/*.whl \
    && python3 -m compileall -q -x '/scipy/(?!special|_lib)' /opt/ecd-deploy/lib/python3.11/site-packages

FROM build AS train-environment
# The default index serves torch with CUDA (5 GB). For an image without it, name PyTorch's index of CPU builds as
# PIP_EXTRA_INDEX_URL, or a version and its build, such as 2.13.0+cpu, that PIP_INDEX_URL or PIP_FIND_LINKS leads to.
ARG TORCH
COPY --from=wheel /wheels /wheels
RUN sed -E "${TORCH:+s/^torch==[^ ]+/torch==$TORCH/;/^torchvision==/d}" constraints.txt > /tmp/constraints.txt \
    && pip install --constraint /tmp/constraints.txt "$(echo /wheels/*.whl)[train]"

FROM python AS edge
COPY --from=edge-environment /opt/ecd-deploy /opt/ecd-deploy
COPY ecd_deploy/measure/device/runner /opt/runner
ENV PYTHONPATH=/opt
USER 1000:1000
WORKDIR /work
# Once an hour: a check more often would disturb what is measured.
HEALTHCHECK --interval=1h --timeout=60s CMD ["python3", "-c", "import numpy, onnxruntime"]
ENTRYPOINT ["python3", "-m", "runner"]
CMD ["--help"]
ARG REVISION VERSION
LABEL org.opencontainers.image.title="ecd-deploy edge" \
      org.opencontainers.image.description="Measures an ONNX classifier with numpy and onnxruntime alone" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.version="$VERSION"

FROM python AS gate
COPY --from=gate-environment /opt/ecd-deploy /opt/ecd-deploy
USER 1000:1000
# Runs and images: mount their folder here.
WORKDIR /work
HEALTHCHECK --interval=1h --timeout=60s CMD ["ecd-deploy", "doctor"]
ENTRYPOINT ["ecd-deploy"]
CMD ["--help"]
ARG REVISION VERSION
LABEL org.opencontainers.image.title="ecd-deploy gate" \
      org.opencontainers.image.description="Gates, profiles, bundles and reports ONNX classifiers, without torch" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.version="$VERSION"

FROM python AS train
COPY --from=train-environment /opt/ecd-deploy /opt/ecd-deploy
USER 1000:1000
# Recipes, images and runs: mount their folder here.
WORKDIR /work
HEALTHCHECK --interval=1h --timeout=60s CMD ["ecd-deploy", "doctor"]
ENTRYPOINT ["ecd-deploy"]
CMD ["--help"]
ARG REVISION VERSION
LABEL org.opencontainers.image.title="ecd-deploy" \
      org.opencontainers.image.description="Trains with ECD, proves the split, exports, validates and gates" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.version="$VERSION"
