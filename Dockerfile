# The one binary, in two stages. `docker build -t clickback .`; docker-compose.yml does it by itself.
# Written without a container engine at hand: see the head of docker-compose.yml for what was checked.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# librdkafka and SQLite are built from their sources, which come with their crates; a C compiler is in this image.
RUN cargo build --release --locked --package clickback

FROM debian:bookworm-slim
# The folders belong to the user before a volume is put there: a new named volume takes that over.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin clickback \
 && install -d -o clickback -g clickback -m 0700 /etc/clickback /var/lib/clickback
COPY --from=build /src/target/release/clickback /usr/local/bin/clickback
USER clickback
WORKDIR /var/lib/clickback
EXPOSE 8080 8081 9080 9081
ENTRYPOINT ["clickback"]
CMD ["--help"]
