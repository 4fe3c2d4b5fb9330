//! The roles of a cluster as real processes on a real Kafka, whose address is in CLICKBACK_TEST_KAFKA. Every test has
//! topics of its own. Tests that stop the broker need its process id, too: CLICKBACK_TEST_KAFKA_PID.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, also in its helpers")]

mod data_teams;
mod ingest;
mod init;
mod matcher;
mod migrate;
mod one_partition;
mod outage;
mod projector;
#[path = "../../matcher/tests/support/mod.rs"]
mod support;
mod topics;
mod world;
