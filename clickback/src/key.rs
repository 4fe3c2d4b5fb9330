//! `clickback key create`: through the process that runs on the folder, else straight into its catalog.

use std::path::Path;

use anyhow::{Context, bail};
use pipeline::{Applied, Catalog, Log};
use serde_json::json;

use crate::{
    cli::{Common, KeyCreateArgs, LogFormat},
    control::{KeyRequest, Running},
    keys::Grant,
    out, serve,
};

pub async fn create(common: &Common, args: KeyCreateArgs) -> anyhow::Result<()> {
    let request = KeyRequest { tenant: args.tenant, name: args.name, scope: args.scope };
    let key = match Running::on(&args.data).await? {
        Some(running) => running.create_key(&request).await?.key,
        None => offline(&args.data, &request)?,
    };
    match common.log_format {
        LogFormat::Json => out::say_json(&json!({ "tenant": request.tenant, "scope": request.scope, "key": key })),
        LogFormat::Text => out::say(&key),
    }
}

fn offline(data: &Path, request: &KeyRequest) -> anyhow::Result<String> {
    if !data.exists() {
        tracing::warn!(data = %data.display(), "the folder is new");
    }
    let mut log = Log::open(data)?;
    let catalog = serve::load_catalog(data, &log)?;
    append(&mut log, &catalog, &Grant::new(&request.tenant, &request.name, request.scope))
}

fn append(log: &mut Log, catalog: &Catalog, grant: &Grant) -> anyhow::Result<String> {
    let key = grant.draw();
    let record = grant.record(&catalog.view(), &key);
    log.append(&[], &[(log.catalog_next(), serde_json::to_vec(&record)?)]).context("the key cannot be recorded")?;
    match catalog.apply(&record) {
        Applied::Current => Ok(key),
        Applied::Stale => bail!("the catalog did not take the key"),
    }
}
