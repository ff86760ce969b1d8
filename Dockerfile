# dlma in an image. It has not been built yet; its steps are run in a clean folder by tests/system/test_packaging.py.
#   docker build -t dlma .                                  # torch as the package index has it for Linux, with CUDA
#   docker build -t dlma --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu .
#   docker run --rm --user "$(id -u)" --volume "$PWD:/work" dlma mode=check
FROM python:3.11-slim
WORKDIR /opt/dlma
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY conf conf
COPY dlma dlma
ARG TORCH_INDEX=
RUN pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -c constraints.txt '.[real,sweep]'
ENV HOME=/tmp
WORKDIR /work
ENTRYPOINT ["dlma"]
