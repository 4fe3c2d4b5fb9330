//! Kafka clients with the settings of the product's own, so that both sides of a ratio have them.

use rdkafka::ClientConfig;

fn client(kafka: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka).set("socket.nagle.disable", "true").set("log_level", "3");
    config
}

pub fn reader(kafka: &str) -> ClientConfig {
    let mut config = client(kafka);
    config
        .set("group.id", "bench")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_uncommitted")
        .set("queued.min.messages", "10000")
        .set("queued.max.messages.kbytes", "32768")
        .set("fetch.message.max.bytes", "1048576")
        .set("fetch.queue.backoff.ms", "50");
    config
}

pub fn writer(kafka: &str) -> ClientConfig {
    let mut config = client(kafka);
    config
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("max.in.flight.requests.per.connection", "5")
        .set("queue.buffering.max.messages", "200000")
        .set("queue.buffering.max.kbytes", "131072")
        .set("linger.ms", "2")
        .set("compression.type", "lz4");
    config
}
