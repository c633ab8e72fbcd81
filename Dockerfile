# Everything of hotswap: MLflow, Prefect, its worker, the operator, publish agents, the command line, its own model server.
FROM python:3.12-slim-bookworm@sha256:782412e85d0f0984994c290652577d4018aff08145c85b262bb63dc0c7522254 AS packages
WORKDIR /srv/hotswap
COPY requirements-runtime.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements-runtime.lock

FROM packages AS wheel
COPY pyproject.toml README.md ./
COPY flows flows
COPY serving serving
COPY clients clients
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM packages
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir --no-deps --no-index /wheels/*.whl \
    && useradd --uid 1000 --create-home hotswap \
    && install --directory --owner=1000 --group=1000 /state /models /srv/models_repo
COPY flows/orchestration/prefect.yaml ./
ENV MPLCONFIGDIR=/tmp PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
CMD ["hotswap", "--help"]
