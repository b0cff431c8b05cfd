# A web application with its dependencies in a layer of their own.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim AS base
ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1

WORKDIR /app
COPY requirements.txt .
RUN pip install -r requirements.txt && \
    rm -rf /root/.cache
COPY . .
EXPOSE 8000
USER 1000:1000
CMD ["gunicorn", "--bind", "0.0.0.0:8000", "app:app"]
