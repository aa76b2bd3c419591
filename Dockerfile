# Tessera, its glibc and nothing else; runs as a user without rights and keeps what it must keep in /data.
#
#   DOCKER_BUILDKIT=1 docker build -t tessera .
#   docker run -v tessera:/data -v /etc/tessera:/tls:ro -p 50051:50051 \
#       -e TESSERA_TOKENS__ISSUER=https://auth.example.com \
#       -e TESSERA_SERVER__TLS_CERT=/tls/cert.pem -e TESSERA_SERVER__TLS_KEY=/tls/key.pem tessera
#
# Without a certificate it refuses to listen beyond loopback. Where a proxy or a mesh brings the TLS, say so: run it with
# `serve --allow-plaintext`. Its user, 65532, must be able to read what is mounted. DATABASE_URL=postgres://… puts the
# data into PostgreSQL; /data still holds the key that seals private keys. Give it longer to stop than
# `server.drain_timeout`: `--stop-timeout 15`.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# The caches keep the crates and what was compiled of them from one build to the next, and stay out of the image. They need
# BuildKit, which Docker before 23 uses only where it is told to.
RUN --mount=type=cache,sharing=locked,target=/usr/local/cargo/registry \
    --mount=type=cache,sharing=locked,target=/src/target \
    CARGO_PROFILE_RELEASE_STRIP=debuginfo cargo build --locked --release --bin tessera \
    && mkdir -p /out/data \
    && cp target/release/tessera /out/tessera

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/tessera /usr/local/bin/tessera
# A new volume takes over this folder's owner, the image's user `nonroot`.
COPY --from=build --chown=65532:65532 /out/data /data
ENV TESSERA_SERVER__DATA_DIR=/data \
    TESSERA_SERVER__LISTEN=0.0.0.0:50051
VOLUME /data
EXPOSE 50051
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["/usr/local/bin/tessera", "health"]
ENTRYPOINT ["/usr/local/bin/tessera"]
CMD ["serve"]
