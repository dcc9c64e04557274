# The server and the client, in an image that has nothing else to run.
#
#   docker build -t deed .
#   docker run --rm -v deed-data:/var/lib/deed -p 127.0.0.1:7733:7733 deed \
#       run --config /etc/deed/deed.toml
#
# Beyond loopback the server wants TLS: see docker-compose.yml.

FROM rust:1.95-trixie AS build
# RocksDB's bindings are made with libclang.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libclang-dev g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
# RocksDB and the target directory are caches: RocksDB takes minutes. The programs are copied out.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    DEED_ROCKSDB_DIR=/build/target/rocksdb scripts/rocksdb.sh \
    && cargo build --release --locked --workspace --bins \
    && install -D --target-directory /out/bin target/release/deed-server target/release/deed \
    # A volume takes owner and mode from what the image has there.
    && install -d -m 0700 /out/data /out/key

# C and C++ runtime, certificates, a user without rights; no shell.
FROM gcr.io/distroless/cc-debian13:nonroot
COPY --from=build /out/bin/ /usr/local/bin/
COPY --from=build --chown=nonroot:nonroot /out/data /var/lib/deed
COPY --from=build --chown=nonroot:nonroot /out/key /var/lib/deed-key
# Data, and apart from them the key that opens their contents: a backup of the one is not one of
# the other.
ENV DEED__DATA_DIR=/var/lib/deed \
    DEED__CONTENT__KEY_FILE=/var/lib/deed-key/content-key \
    DEED__LISTEN=0.0.0.0:7733 \
    DEED__LOG__FORMAT=json
VOLUME ["/var/lib/deed", "/var/lib/deed-key"]
EXPOSE 7733 7734
USER nonroot:nonroot
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["/usr/local/bin/deed-server", "health", "--address", "127.0.0.1:7734"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/deed-server"]
CMD ["run"]
