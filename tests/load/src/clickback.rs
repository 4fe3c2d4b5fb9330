//! The product under measurement: `clickback run` on a folder of its own.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{
    http::Api,
    load::{self, Plan},
    process::Server,
    workload,
};

pub const KEY: &str = "cbk_bench_0123456789abcdefghjkmnpqrstvwxyz";

/// Links that are made side by side.
const AT_ONCE: usize = 32;

pub struct Clickback {
    pub server: Server,
    pub ingest: String,
    pub api: Api,
    pub data: PathBuf,
}

pub struct Account {
    pub token: String,
    pub links: Vec<String>,
}

impl Clickback {
    pub fn start(binary: &Path, data: &Path) -> Result<Clickback> {
        let mut command = Command::new(binary);
        command.args(["run", "--ingest", "127.0.0.1:0", "--api", "127.0.0.1:0", "--log-format", "json", "--data"]);
        command.arg(data).env("CLICKBACK_ADMIN_KEY", KEY).stderr(Stdio::null());
        let server = Server::start(&mut command, 1)?;
        let greeting: Value = serde_json::from_str(&server.greeting[0])?;
        let address = |name: &str| {
            greeting[name]
                .as_str()
                .map(|u| u.replace("http://", ""))
                .with_context(|| format!("no {name} in {greeting}"))
        };
        let api = Api { address: address("api")?, key: KEY.to_owned() };
        Ok(Clickback { ingest: address("ingest")?, api, server, data: data.to_owned() })
    }

    pub async fn account(&self, links: usize) -> Result<Account> {
        let made = self.api.post("/v1/accounts", &json!({ "name": "Bench", "program": "generic" })).await?;
        let id = made["id"].as_str().context("no account")?;
        let mut account = Account { token: made["token"].as_str().context("no token")?.to_owned(), links: Vec::new() };
        for first in (0..links).step_by(AT_ONCE) {
            let one = |n: usize| {
                let (api, path) = (self.api.clone(), format!("/v1/accounts/{id}/links"));
                let body = json!({ "name": format!("Link {n}"), "destination": "https://casino.example/welcome" });
                tokio::spawn(async move { api.post(&path, &body).await })
            };
            let made: Vec<_> = (first..links.min(first + AT_ONCE)).map(one).collect();
            for link in made {
                account.links.push(link.await??["id"].as_str().context("no link")?.to_owned());
            }
        }
        Ok(account)
    }

    /// Visitors follow the links; gives their click ids.
    pub async fn clicks(&self, account: &Account, count: usize, connections: usize) -> Result<Vec<String>> {
        let links: Vec<usize> = (0..count).map(|n| n % account.links.len()).collect();
        clicks(&self.ingest, account, &links, connections).await
    }

    pub async fn totals(&self) -> Result<Value> {
        totals(&self.api).await
    }

    pub async fn check(&self, expected: &workload::Expected) -> Result<()> {
        check(&self.api, expected).await
    }
}

/// Visitors follow the links with these numbers, one after the other; gives their click ids.
pub async fn clicks(ingest: &str, account: &Account, links: &[usize], connections: usize) -> Result<Vec<String>> {
    let request = |(n, link): (usize, &usize)| {
        workload::request(&format!("/c/{}", account.links[*link]), &workload::click_query(n))
    };
    let requests: Arc<Vec<String>> = Arc::new(links.iter().enumerate().map(request).collect());
    let plan = Plan { address: ingest, connections, rate: None, status: "HTTP/1.1 302" };
    let (_, ids) = load::send_for_header(&plan, requests, "x-clickback-click").await?;
    if ids.iter().any(String::is_empty) {
        bail!("a click was not recorded");
    }
    Ok(ids)
}

/// Returns once everything that was answered is in the report.
pub async fn totals(api: &Api) -> Result<Value> {
    let report = api.get("/v1/reports/conversions?after=latest&wait=30s").await?;
    Ok(report["totals"].clone())
}

pub async fn check(api: &Api, expected: &workload::Expected) -> Result<()> {
    let totals = totals(api).await?;
    let conversions = totals["goals"]["deposits"].as_u64().unwrap_or(0);
    let amount = totals["earnings"][0]["amount"].as_str().unwrap_or("0.00").replace('.', "");
    let cents: u64 = amount.parse().with_context(|| format!("the earning is {amount}"))?;
    let found = workload::Expected { conversions, cents };
    if found != *expected {
        bail!("the report shows {found:?} and should show {expected:?}");
    }
    Ok(())
}
