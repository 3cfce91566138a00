# One image for every node: the four programs and their supervisor.
#
# Plain syntax on purpose: no syntax line, --mount, --chmod or heredoc, so that the classic builder and BuildKit both take it.
ARG RUST_IMAGE=rust:1.95-slim-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim

# The manifests and empty crate roots only. This tree changes when the dependencies do, not when our code does, and the
# next stage copies it by content: so the layer with the compiled dependencies stays valid.
FROM ${RUST_IMAGE} AS plan
WORKDIR /src
COPY . .
RUN set -eu; \
    find . -name Cargo.toml -o -name Cargo.lock | while read -r f; do mkdir -p "/plan/${f%/*}"; cp "$f" "/plan/$f"; done; \
    find . -path '*/src/lib.rs' -o -path '*/src/main.rs' -o -path '*/src/bin/*.rs' -o -name build.rs \
           -o -path '*/benches/*.rs' -o -path '*/tests/*.rs' -o -path '*/examples/*.rs' | while read -r f; do \
      mkdir -p "/plan/${f%/*}"; case $f in */lib.rs) : > "/plan/$f";; *) echo 'fn main() {}' > "/plan/$f";; esac; done

FROM ${RUST_IMAGE} AS build
WORKDIR /src
COPY --from=plan /plan ./
RUN cargo build --release --locked --bins -p member -p raft -p raft-client -p state-machine
COPY . .
# COPY keeps the files' times, and cargo would take the empty roots, compiled later, for newer.
RUN find . -name '*.rs' -not -path './target/*' -exec touch {} + \
 && cargo build --release --locked --bins -p member -p raft -p raft-client -p state-machine \
 && mkdir /out && cp target/release/member target/release/state-machine target/release/raft target/release/raft-client /out/

FROM ${RUNTIME_IMAGE} AS runtime
RUN useradd --uid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin outrigger \
 && mkdir /data && chown outrigger /data
COPY --from=build /out/ /usr/local/bin/
COPY scripts/node.sh docker/start.sh /usr/local/lib/outrigger/
USER outrigger
WORKDIR /data
VOLUME /data
# 6000/udp gossip, 6001/udp joins, 6003 HTTP, 6004 peers and clients
EXPOSE 6000/udp 6001/udp 6003 6004
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["raft-client", "health"]
ENTRYPOINT ["/usr/local/lib/outrigger/start.sh"]
CMD ["worker"]
