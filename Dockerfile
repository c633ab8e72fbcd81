FROM python:3.12-slim

RUN pip install --no-cache-dir uv && useradd --create-home hotswap && mkdir /state && chown hotswap /state
WORKDIR /srv/hotswap
COPY requirements-runtime.lock ./
RUN uv pip install --system --no-cache --require-hashes -r requirements-runtime.lock
COPY pyproject.toml README.md ./
COPY flows flows
COPY serving serving
COPY clients clients
RUN uv pip install --system --no-cache --no-deps --no-build-isolation .
USER hotswap
CMD ["hotswap", "--help"]
