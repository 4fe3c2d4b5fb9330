//! The same job on axum and PostgreSQL, as a strong engineer would write it: hits of all connections are gathered, and
//! one statement per batch stores them, matches them with their clicks, makes the conversions that are new, and adds
//! to the report. One statement is one transaction; the answers go out after its commit.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use axum::{
    Router,
    extract::{Path, Query, RawQuery, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::{Client, NoTls, Statement};

const MOST: usize = 1_024;

const BATCH: &str = "
WITH input AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::bigint[])
        WITH ORDINALITY AS t(id, click, goal, tid, cents, raw, at, n)
), matched AS (
    SELECT i.*, c.account, c.link, c.day FROM input i LEFT JOIN clicks c ON c.id = i.click
), made AS (
    INSERT INTO conversions (click, goal, tid, hit, cents, account, link, day)
    SELECT DISTINCT ON (click, goal, tid) click, goal, tid, id, cents, account, link, day
    FROM matched WHERE account IS NOT NULL ORDER BY click, goal, tid, n
    ON CONFLICT (click, goal, tid) DO NOTHING
    RETURNING hit, goal, cents, account, link, day
), counted AS (
    INSERT INTO report AS r (account, link, day, goal, conversions, cents)
    SELECT account, link, day, goal, count(*), sum(cents) FROM made GROUP BY account, link, day, goal
    ORDER BY account, link, day, goal
    ON CONFLICT (account, link, day, goal)
    DO UPDATE SET conversions = r.conversions + EXCLUDED.conversions, cents = r.cents + EXCLUDED.cents
)
INSERT INTO hits (id, click, raw, at, outcome)
SELECT m.id, m.click, m.raw, m.at,
    CASE WHEN m.account IS NULL THEN 'unknown' WHEN made.hit IS NULL THEN 'duplicate' ELSE 'converted' END
FROM matched m LEFT JOIN made ON made.hit = m.id";

struct Hit {
    id: String,
    click: String,
    goal: String,
    tid: String,
    cents: i64,
    raw: String,
    at: i64,
    answer: oneshot::Sender<bool>,
}

/// Takes what has come in since the last commit, as one batch.
async fn writer(client: Client, statement: Statement, mut hits: mpsc::Receiver<Hit>) {
    let mut batch = Vec::with_capacity(MOST);
    while hits.recv_many(&mut batch, MOST).await > 0 {
        let column = |of: fn(&Hit) -> &str| batch.iter().map(of).collect::<Vec<_>>();
        let cents: Vec<i64> = batch.iter().map(|h| h.cents).collect();
        let at: Vec<i64> = batch.iter().map(|h| h.at).collect();
        let done = client
            .execute(
                &statement,
                &[
                    &column(|h| &h.id),
                    &column(|h| &h.click),
                    &column(|h| &h.goal),
                    &column(|h| &h.tid),
                    &cents,
                    &column(|h| &h.raw),
                    &at,
                ],
            )
            .await;
        if let Err(error) = &done {
            eprintln!("{error}");
        }
        for hit in batch.drain(..) {
            hit.answer.send(done.is_ok()).ok();
        }
    }
}

#[derive(Clone)]
struct Edge {
    writers: Arc<Vec<mpsc::Sender<Hit>>>,
    next: Arc<std::sync::atomic::AtomicU64>,
}

async fn postback(
    State(edge): State<Edge>,
    Path(_token): Path<String>,
    Query(parameters): Query<HashMap<String, String>>,
    RawQuery(raw): RawQuery,
) -> impl IntoResponse {
    let text = |name: &str| parameters.get(name).cloned().unwrap_or_default();
    let earning = text("earning");
    let (whole, part) = earning.split_once('.').unwrap_or((&earning, "0"));
    let cents = whole.parse::<i64>().unwrap_or(0) * 100 + part.parse::<i64>().unwrap_or(0);
    let at = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_millis() as i64);
    let n = edge.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let id = format!("{at:013}{n:013}");
    let (answer, answered) = oneshot::channel();
    let hit = Hit {
        id: id.clone(),
        click: text("clickId"),
        goal: text("event"),
        tid: text("tid"),
        cents,
        raw: raw.unwrap_or_default(),
        at,
        answer,
    };
    let writer = &edge.writers[n as usize % edge.writers.len()];
    if writer.send(hit).await.is_err() || !answered.await.unwrap_or(false) {
        return (StatusCode::SERVICE_UNAVAILABLE, HeaderMap::new(), String::new());
    }
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    (StatusCode::OK, headers, format!(r#"{{"status":"accepted","hit":"{id}"}}"#))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let database = args.next().ok_or("a connection string is needed")?;
    let connections: usize = args.next().map_or(Ok(1), |n| n.parse())?;
    let mut writers = Vec::new();
    for _ in 0..connections {
        let (client, connection) = tokio_postgres::connect(&database, NoTls).await?;
        tokio::spawn(connection);
        let statement = client.prepare(BATCH).await?;
        let (sender, hits) = mpsc::channel(8_192);
        tokio::spawn(writer(client, statement, hits));
        writers.push(sender);
    }
    let edge = Edge { writers: Arc::new(writers), next: Arc::default() };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    axum::serve(listener, Router::new().route("/post-back/{token}", get(postback)).with_state(edge)).await?;
    Ok(())
}
