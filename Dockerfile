# Two images from one build:
#
#   docker build --target pushgw   --build-arg VERSION=$(git describe --tags --always) -t herald-pushgw .
#   docker build --target identity --build-arg VERSION=$(git describe --tags --always) -t herald-identity .
#
# Each holds one static binary, the certificate authorities and the time zones,
# and runs as a user without a name, a shell or a home.

FROM --platform=$BUILDPLATFORM golang:1.26.8-bookworm AS build
WORKDIR /src
ENV CGO_ENABLED=0 GOFLAGS="-trimpath -tags=nomsgpack -buildvcs=false" GOTOOLCHAIN=local
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG TARGETOS TARGETARCH VERSION=dev
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    GOOS=$TARGETOS GOARCH=$TARGETARCH go build -ldflags "-s -w -X main.version=$VERSION" -o /out/ ./cmd/... \
    && mkdir /out/data

FROM scratch AS base
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /usr/local/go/lib/time/zoneinfo.zip /zoneinfo.zip
ENV ZONEINFO=/zoneinfo.zip
USER 65532:65532
ARG VERSION=dev
LABEL org.opencontainers.image.vendor="Herald" \
      org.opencontainers.image.source="https://github.com/matrix-herald/herald" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version=$VERSION

FROM base AS pushgw
LABEL org.opencontainers.image.title="herald-pushgw" \
      org.opencontainers.image.description="Matrix Push Gateway"
COPY --from=build /out/pushgw /pushgw
# The API, and the metrics, which belong to the operator alone.
EXPOSE 5000 9500
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s --retries=3 \
    CMD ["/pushgw", "-config", "/etc/herald/pushgw.yaml", "health"]
ENTRYPOINT ["/pushgw"]
CMD ["-config", "/etc/herald/pushgw.yaml"]

FROM base AS identity
LABEL org.opencontainers.image.title="herald-identity" \
      org.opencontainers.image.description="Matrix Identity Service"
COPY --from=build /out/identity /identity
# For SQLite and the signing key, when PostgreSQL does not hold them.
COPY --from=build --chown=65532:65532 /out/data /data
VOLUME /data
EXPOSE 8090 9590
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s --retries=3 \
    CMD ["/identity", "-config", "/etc/herald/identity.yaml", "health"]
ENTRYPOINT ["/identity"]
CMD ["-config", "/etc/herald/identity.yaml"]
