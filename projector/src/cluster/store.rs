//! The keyspace: its tables, its statements, and which generation of the tables is read.
//!
//! Owns: every CQL text that writes or makes tables; `read` owns those of the reports. Refuses: counters, lightweight
//! transactions, deletes, and statements that may not be sent twice.
//! Invariant: a table's row depends on its key and on the newest time stamp alone, and time stamps come from the log.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use scylla::{
    client::{execution_profile::ExecutionProfile, session::Session, session_builder::SessionBuilder},
    statement::{Consistency, prepared::PreparedStatement},
};

use super::read::Reads;

/// Statements under way at once, per partition of the log.
pub const AT_ONCE: usize = 64;
const CONNECT: Duration = Duration::from_secs(10);
const REQUEST: Duration = Duration::from_secs(20);
/// Changes when the same outcomes are to give other rows: such tables are built anew.
pub const FORM: i32 = 1;

/// Where the database is, and which keyspace of it is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// `HOST:PORT,…`
    pub nodes: String,
    pub keyspace: String,
}

impl Database {
    /// The keyspace is named after the topics.
    pub fn new(nodes: &str, prefix: &str) -> Self {
        let keyspace = prefix.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' });
        Self { nodes: nodes.to_owned(), keyspace: keyspace.take(48).collect() }
    }

    pub async fn connect(&self) -> Result<Session> {
        let profile = ExecutionProfile::builder()
            .consistency(Consistency::LocalQuorum)
            .request_timeout(Some(REQUEST))
            .build()
            .into_handle();
        SessionBuilder::new()
            .known_nodes(self.nodes.split(',').map(str::trim))
            .connection_timeout(CONNECT)
            .default_execution_profile_handle(profile)
            .build()
            .await
            .with_context(|| format!("cannot connect to the database at {}: is --scylla right?", self.nodes))
    }
}

/// The tables of one generation. `{t}` stands for the keyspace, `{g}` for the generation.
const TABLES: [&str; 8] = [
    "CREATE TABLE IF NOT EXISTS {t}.hits_{g} (tenant text, account text, bucket int, time bigint, id blob, \
     partition int, src bigint, received blob, decision blob, again bigint, \
     PRIMARY KEY ((tenant, account, bucket), time, id)) WITH CLUSTERING ORDER BY (time DESC, id DESC)",
    "CREATE TABLE IF NOT EXISTS {t}.clicks_{g} (tenant text, account text, bucket int, time bigint, id blob, \
     partition int, src bigint, data blob, \
     PRIMARY KEY ((tenant, account, bucket), time, id)) WITH CLUSTERING ORDER BY (time DESC, id DESC)",
    "CREATE TABLE IF NOT EXISTS {t}.conversions_{g} (id blob, version int, tenant text, account text, \
     partition int, src bigint, data blob, PRIMARY KEY ((id), version))",
    "CREATE TABLE IF NOT EXISTS {t}.entries_{g} (list tinyint, tenant text, scope text, bucket int, time bigint, \
     id blob, version int, account text, partition int, src bigint, \
     PRIMARY KEY ((list, tenant, scope, bucket), time, id, version)) \
     WITH CLUSTERING ORDER BY (time DESC, id DESC, version DESC)",
    "CREATE TABLE IF NOT EXISTS {t}.buckets_{g} (list tinyint, tenant text, scope text, year int, bucket int, \
     PRIMARY KEY ((list, tenant, scope, year), bucket)) WITH CLUSTERING ORDER BY (bucket DESC)",
    "CREATE TABLE IF NOT EXISTS {t}.cells_{g} (tenant text, account text, family smallint, period int, shard int, \
     day int, value text, partition int, first bigint, next bigint, measures blob, whole blob, quarters blob, \
     PRIMARY KEY ((tenant, account, family, period, shard), day, value, partition))",
    "CREATE TABLE IF NOT EXISTS {t}.positions_{g} (partition int PRIMARY KEY, \
     next bigint, chain text, place bigint, time bigint, log_time bigint, \
     restart_next bigint, restart_chain text, restart_place bigint, restart_time bigint, restart_log_time bigint, \
     restart_read bigint, \
     settling_next bigint, settling_chain text, settling_place bigint, settling_time bigint, settling_log_time bigint, \
     settling_read bigint, settling_since timestamp)",
    "CREATE TABLE IF NOT EXISTS {t}.runs_{g} (partition int, run blob, n bigint, PRIMARY KEY ((partition, run)))",
];

const SETTINGS: &str = "CREATE TABLE IF NOT EXISTS {t}.settings (name text PRIMARY KEY, value text)";

/// Makes the keyspace and the first tables; what is there already is checked.
///
/// `replication`: copies of each row; as a rule 3 where there are so many nodes, else 1.
pub async fn init(database: &Database, cluster: &str, replication: Option<u32>) -> Result<()> {
    let session = database.connect().await?;
    let nodes = session.get_cluster_state().get_nodes_info().len();
    let replication = replication.unwrap_or(if nodes >= 3 { 3 } else { 1 });
    let keyspace = &database.keyspace;
    let create = format!(
        "CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = \
         {{'class': 'NetworkTopologyStrategy', 'replication_factor': {replication}}}"
    );
    session.query_unpaged(create, ()).await.context("cannot make the keyspace")?;
    session.query_unpaged(SETTINGS.replace("{t}", keyspace), ()).await.context("cannot make the settings' table")?;
    match setting(&session, keyspace, "cluster").await? {
        Some(known) if known != cluster => bail!(
            "the keyspace {keyspace} belongs to the cluster {known}, and the topics to {cluster}: choose another \
             --topic-prefix, or drop the keyspace"
        ),
        Some(_) => {}
        None => set(&session, keyspace, "cluster", cluster).await?,
    }
    if setting(&session, keyspace, "live").await?.is_none() {
        create_tables(&session, keyspace, 1).await?;
        set(&session, keyspace, "form-1", &FORM.to_string()).await?;
        set(&session, keyspace, "live", "1").await?;
    }
    Ok(())
}

pub async fn create_tables(session: &Session, keyspace: &str, generation: u32) -> Result<()> {
    for text in TABLES {
        let text = text.replace("{t}", keyspace).replace("{g}", &generation.to_string());
        session.query_unpaged(text, ()).await.context("cannot make a table")?;
    }
    Ok(())
}

pub async fn setting(session: &Session, keyspace: &str, name: &str) -> Result<Option<String>> {
    let text = format!("SELECT value FROM {keyspace}.settings WHERE name = ?");
    let found = session.query_unpaged(text, (name,)).await.context("the settings cannot be read")?;
    let row = found.into_rows_result()?.maybe_first_row::<(Option<String>,)>()?;
    Ok(row.and_then(|(value,)| value))
}

pub async fn set(session: &Session, keyspace: &str, name: &str, value: &str) -> Result<()> {
    let text = format!("INSERT INTO {keyspace}.settings (name, value) VALUES (?, ?)");
    session.query_unpaged(text, (name, value)).await.context("the settings cannot be written")?;
    Ok(())
}

/// One generation of the tables, with its statements prepared. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub session: Arc<Session>,
    pub keyspace: String,
    pub generation: u32,
    pub(super) statements: Arc<Statements>,
    pub(crate) reads: Arc<Reads>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "generation {} of {}", self.generation, self.keyspace)
    }
}

pub(super) struct Statements {
    pub hit: PreparedStatement,
    pub decision: PreparedStatement,
    pub decision_again: PreparedStatement,
    pub click: PreparedStatement,
    pub version: PreparedStatement,
    pub entry: PreparedStatement,
    pub bucket: PreparedStatement,
    pub cell: PreparedStatement,
    pub read_cell: PreparedStatement,
    pub named: PreparedStatement,
    pub visible: PreparedStatement,
    pub restart: PreparedStatement,
    pub read_restart: PreparedStatement,
    pub settling: PreparedStatement,
    pub read_settling: PreparedStatement,
    pub read_since: PreparedStatement,
    pub run: PreparedStatement,
}

impl Store {
    /// The live generation. Fails where the keyspace is not of this cluster, or was written by another version.
    pub async fn open(database: &Database, cluster: &str) -> Result<Store> {
        let store = Self::open_any_form(database, cluster).await?;
        store.check_form().await?;
        Ok(store)
    }

    pub async fn open_any_form(database: &Database, cluster: &str) -> Result<Store> {
        let session = Arc::new(database.connect().await?);
        let missing = || {
            format!(
                "the keyspace {} is not there, or not complete: run `clickback init --scylla` first",
                database.keyspace
            )
        };
        let found = setting(&session, &database.keyspace, "cluster").await.with_context(missing)?;
        let found = found.with_context(missing)?;
        if found != cluster {
            bail!("the keyspace {} belongs to the cluster {found}, and the topics to {cluster}", database.keyspace);
        }
        let live = setting(&session, &database.keyspace, "live").await?.with_context(missing)?;
        let generation = live.parse().with_context(|| format!("the live generation is `{live}`"))?;
        Self::of(session, &database.keyspace, generation).await
    }

    /// The live generation, if that is another one.
    pub async fn newer(&self) -> Result<Option<Store>> {
        let live = setting(&self.session, &self.keyspace, "live").await?.context("no generation is live")?;
        let generation: u32 = live.parse().with_context(|| format!("the live generation is `{live}`"))?;
        if generation == self.generation {
            return Ok(None);
        }
        let newer = Self::of(Arc::clone(&self.session), &self.keyspace, generation).await?;
        newer.check_form().await?;
        Ok(Some(newer))
    }

    async fn check_form(&self) -> Result<()> {
        let form = setting(&self.session, &self.keyspace, &format!("form-{}", self.generation)).await?;
        if form.as_deref() == Some(FORM.to_string().as_str()) {
            return Ok(());
        }
        bail!(
            "the tables were made by another version of clickback (form {}, and this one writes {FORM}): run \
             `clickback rebuild` of this version",
            form.as_deref().unwrap_or("unknown")
        )
    }

    pub async fn drop_tables(&self, generation: u32) -> Result<()> {
        for text in TABLES {
            let Some(name) = text.split(['.', '(']).nth(1) else { continue };
            let name = name.trim().replace("{g}", &generation.to_string());
            let text = format!("DROP TABLE IF EXISTS {}.{name}", self.keyspace);
            self.session.query_unpaged(text, ()).await.context("old tables cannot be dropped")?;
        }
        Ok(())
    }

    pub async fn of(session: Arc<Session>, keyspace: &str, generation: u32) -> Result<Store> {
        let statements = Statements::prepare(&session, keyspace, generation).await?;
        let reads = Reads::prepare(&session, keyspace, generation).await?;
        let (statements, reads) = (Arc::new(statements), Arc::new(reads));
        Ok(Store { session, keyspace: keyspace.to_owned(), generation, statements, reads })
    }

    /// A table of this generation.
    pub fn table(&self, name: &str) -> String {
        format!("{}.{name}_{}", self.keyspace, self.generation)
    }

    /// Runs a statement once per set of values, several at a time. Ends at the first error.
    pub async fn write_all<V: scylla::serialize::row::SerializeRow>(
        &self,
        statement: &PreparedStatement,
        values: impl IntoIterator<Item = V>,
    ) -> Result<()> {
        let writes = values.into_iter().map(|values| async move {
            self.session.execute_unpaged(statement, values).await.context("a row cannot be written")
        });
        stream::iter(writes).buffer_unordered(AT_ONCE).try_for_each(|_| async { Ok(()) }).await
    }
}

/// A statement that may be sent again whenever it is not sure what became of it.
pub(super) async fn prepare(session: &Session, text: &str) -> Result<PreparedStatement> {
    let mut statement = session.prepare(text).await.with_context(|| format!("cannot prepare `{text}`"))?;
    statement.set_is_idempotent(true);
    Ok(statement)
}

impl Statements {
    pub(super) async fn prepare(session: &Session, keyspace: &str, generation: u32) -> Result<Self> {
        let statement = async |text: &str| {
            let text = text.replace("{t}", keyspace).replace("{g}", &generation.to_string());
            prepare(session, &text).await
        };
        Ok(Self {
            hit: statement(
                "INSERT INTO {t}.hits_{g} (tenant, account, bucket, time, id, partition, src, received, decision) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
            )
            .await?,
            decision: statement(
                "INSERT INTO {t}.hits_{g} (tenant, account, bucket, time, id, decision) \
                 VALUES (?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
            )
            .await?,
            decision_again: statement(
                "INSERT INTO {t}.hits_{g} (tenant, account, bucket, time, id, decision, again) \
                 VALUES (?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
            )
            .await?,
            click: statement(
                "INSERT INTO {t}.clicks_{g} (tenant, account, bucket, time, id, partition, src, data) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
            )
            .await?,
            version: statement(
                "INSERT INTO {t}.conversions_{g} (id, version, tenant, account, partition, src, data) \
                 VALUES (?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
            )
            .await?,
            entry: statement(
                "INSERT INTO {t}.entries_{g} \
                 (list, tenant, scope, bucket, time, id, version, account, partition, src) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
            )
            .await?,
            bucket: statement(
                "INSERT INTO {t}.buckets_{g} (list, tenant, scope, year, bucket) VALUES (?, ?, ?, ?, ?) \
                 USING TIMESTAMP 1",
            )
            .await?,
            cell: statement(
                "INSERT INTO {t}.cells_{g} (tenant, account, family, period, shard, day, value, partition, first, next, \
                 measures, whole, quarters) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
            )
            .await?,
            read_cell: statement(
                "SELECT first, next, measures, quarters FROM {t}.cells_{g} WHERE tenant = ? AND account = ? \
                 AND family = ? AND period = ? AND shard = ? AND day = ? AND value = ? AND partition = ?",
            )
            .await?,
            named: statement(
                "SELECT value, first FROM {t}.cells_{g} WHERE tenant = ? AND account = ? AND family = ? \
                 AND period = ? AND shard = ? AND day = ?",
            )
            .await?,
            visible: statement(
                "INSERT INTO {t}.positions_{g} (partition, next, chain, place, time, log_time) \
                 VALUES (?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
            )
            .await?,
            restart: statement(
                "INSERT INTO {t}.positions_{g} (partition, restart_next, restart_chain, restart_place, restart_time, \
                 restart_log_time, restart_read) VALUES (?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
            )
            .await?,
            settling: statement(
                "INSERT INTO {t}.positions_{g} (partition, settling_next, settling_chain, settling_place, settling_time, \
                 settling_log_time, settling_read, settling_since) VALUES (?, ?, ?, ?, ?, ?, ?, toTimestamp(now())) \
                 USING TIMESTAMP ?",
            )
            .await?,
            read_settling: statement(
                "SELECT settling_next, settling_chain, settling_place, settling_time, settling_log_time, \
                 settling_read FROM {t}.positions_{g} WHERE partition = ?",
            )
            .await?,
            read_since: statement(
                "SELECT settling_since, toTimestamp(now()) FROM {t}.positions_{g} WHERE partition = ?",
            )
            .await?,
            read_restart: statement(
                "SELECT restart_next, restart_chain, restart_place, restart_time, restart_log_time, \
                 restart_read FROM {t}.positions_{g} WHERE partition = ?",
            )
            .await?,
            run: statement("INSERT INTO {t}.runs_{g} (partition, run, n) VALUES (?, ?, ?) USING TIMESTAMP ?").await?,
        })
    }
}
