# reelhook in a container: `docker build -t reelhook .`, then see deploy/compose.yaml.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# The caches outlive the build, the layer does not hold them: the program is copied out in the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --profile dist --locked --bin reelhook \
    && install target/dist/reelhook /usr/local/bin/reelhook

# The same Debian as above, so that the program meets the libc it was linked with.
FROM debian:bookworm-slim
# Downloads are verified against the system's root certificates. They come from the build image: a package manager
# run here would bring OpenSSL along only to rehash them.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /usr/local/bin/reelhook /usr/local/bin/reelhook
# A number, not a name: Kubernetes' runAsNonRoot can check it, and a volume's owner reads the same on the host. A new
# named volume takes over the owner and mode that the directory has here.
RUN install -d -o 10001 -g 10001 -m 0700 /data
USER 10001:10001

# Off loopback `serve` refuses to start until api.tokens and a verified source are configured.
ENV REELHOOK_LISTEN=0.0.0.0:8080 \
    REELHOOK_DATA_DIR=/data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["reelhook", "healthcheck"]
ENTRYPOINT ["reelhook"]
CMD ["serve"]
