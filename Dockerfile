# One image for every kind of process; the command says which: serve, api,
# worker, projector, consumer or bridge.
FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/flowledger
COPY requirements/image.txt requirements/image.txt
RUN /opt/flowledger/bin/pip install --no-cache-dir --require-hashes -r requirements/image.txt
COPY . .
RUN /opt/flowledger/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.11-slim
# Nothing is imported from the folder that a process is started in.
ENV PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 PATH=/opt/flowledger/bin:$PATH
RUN useradd --system --create-home --home-dir /var/lib/flowledger flowledger
COPY --from=build /opt/flowledger /opt/flowledger
USER flowledger
WORKDIR /var/lib/flowledger
ENTRYPOINT ["flowledger"]
CMD ["serve"]
