//! Every CQL text that reports and reprocesses read with. Each names the whole key of a partition.

use anyhow::Result;
use scylla::{client::session::Session, statement::prepared::PreparedStatement};

use crate::cluster::store::prepare;

pub struct Reads {
    pub hits: PreparedStatement,
    pub hit: PreparedStatement,
    pub clicks: PreparedStatement,
    pub click: PreparedStatement,
    /// The first version comes first.
    pub versions: PreparedStatement,
    pub entries: PreparedStatement,
    pub buckets: PreparedStatement,
    /// Cells by whole days.
    pub whole: PreparedStatement,
    pub whole_of: PreparedStatement,
    /// The same by quarters of an hour.
    pub quarters: PreparedStatement,
    pub quarters_of: PreparedStatement,
    pub any_cell: PreparedStatement,
    /// Where what is read again stands in the log.
    pub past_hit: PreparedStatement,
    pub past_hits: PreparedStatement,
    pub past_click: PreparedStatement,
    pub past_entries: PreparedStatement,
    /// How far a run's events are in the tables.
    pub run: PreparedStatement,
}

/// Rows that a node sends at once. Hits are large, and a page of a list needs few of them.
const PAGE: i32 = 1_000;
const PAGE_OF_HITS: i32 = 200;

const CELLS_OF: &str = "WHERE tenant = ? AND account = ? AND family = ? AND period = ? AND shard = ?";

impl Reads {
    pub async fn prepare(session: &Session, keyspace: &str, generation: u32) -> Result<Self> {
        let statement = async |text: &str| {
            let text = text.replace("{t}", keyspace).replace("{g}", &generation.to_string()).replace("{of}", CELLS_OF);
            let mut statement = prepare(session, &text).await?;
            statement.set_page_size(PAGE);
            anyhow::Ok(statement)
        };
        let of_hits = |mut statement: PreparedStatement| {
            statement.set_page_size(PAGE_OF_HITS);
            statement
        };
        Ok(Self {
            hits: of_hits(
                statement(
                    "SELECT time, id, received, decision, again FROM {t}.hits_{g} \
                     WHERE tenant = ? AND account = ? AND bucket = ? AND (time, id) >= (?, ?) AND (time, id) < (?, ?)",
                )
                .await?,
            ),
            hit: statement(
                "SELECT received, decision, again FROM {t}.hits_{g} \
                 WHERE tenant = ? AND account = ? AND bucket = ? AND time = ? AND id = ?",
            )
            .await?,
            clicks: statement(
                "SELECT data FROM {t}.clicks_{g} \
                 WHERE tenant = ? AND account = ? AND bucket = ? AND time >= ? AND time < ?",
            )
            .await?,
            click: statement(
                "SELECT data FROM {t}.clicks_{g} \
                 WHERE tenant = ? AND account = ? AND bucket = ? AND time = ? AND id = ?",
            )
            .await?,
            versions: statement("SELECT version, tenant, account, data FROM {t}.conversions_{g} WHERE id = ?").await?,
            entries: statement(
                "SELECT time, id, version, account FROM {t}.entries_{g} \
                 WHERE list = ? AND tenant = ? AND scope = ? AND bucket = ? \
                 AND (time, id, version) >= (?, ?, ?) AND (time, id, version) < (?, ?, ?)",
            )
            .await?,
            buckets: statement(
                "SELECT bucket FROM {t}.buckets_{g} \
                 WHERE list = ? AND tenant = ? AND scope = ? AND year = ? AND bucket >= ? AND bucket <= ?",
            )
            .await?,
            past_hit: statement(
                "SELECT partition, src, received, again FROM {t}.hits_{g} \
                 WHERE tenant = ? AND account = ? AND bucket = ? AND time = ? AND id = ?",
            )
            .await?,
            past_hits: statement(
                "SELECT partition, src, received, again, decision FROM {t}.hits_{g} \
                 WHERE tenant = ? AND account = ? AND bucket = ? AND time >= ? AND time < ?",
            )
            .await?,
            past_click: statement(
                "SELECT partition, src, data FROM {t}.clicks_{g} \
                 WHERE tenant = ? AND account = ? AND bucket = ? AND time = ? AND id = ?",
            )
            .await?,
            past_entries: statement(
                "SELECT partition, src, time FROM {t}.entries_{g} \
                 WHERE list = ? AND tenant = ? AND scope = ? AND bucket = ?",
            )
            .await?,
            run: statement("SELECT n FROM {t}.runs_{g} WHERE partition = ? AND run = ?").await?,
            whole: statement("SELECT day, value, measures, whole FROM {t}.cells_{g} {of} AND day >= ? AND day <= ?")
                .await?,
            whole_of: statement(
                "SELECT day, value, measures, whole FROM {t}.cells_{g} {of} AND day = ? AND value IN ?",
            )
            .await?,
            quarters: statement(
                "SELECT day, value, measures, quarters FROM {t}.cells_{g} {of} AND day >= ? AND day <= ?",
            )
            .await?,
            quarters_of: statement(
                "SELECT day, value, measures, quarters FROM {t}.cells_{g} {of} AND day = ? AND value IN ?",
            )
            .await?,
            any_cell: statement("SELECT day FROM {t}.cells_{g} {of} AND day >= ? AND day <= ? LIMIT 1").await?,
        })
    }
}
