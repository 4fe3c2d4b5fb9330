//! `clickback audit`: the tables against the log.

use std::process::ExitCode;

use serde_json::json;
use tokio::task::spawn_blocking;

use crate::{
    cli::{AuditArgs, Common, LogFormat},
    out,
};

pub async fn run(common: &Common, args: AuditArgs) -> anyhow::Result<ExitCode> {
    let audit = match args.cluster.cluster().await? {
        Some((cluster, layout, database)) => projector::cluster::audit::audit(&cluster, &layout, &database).await?,
        None => spawn_blocking(move || projector::audit::audit(&args.data)).await??,
    };
    if common.log_format == LogFormat::Json {
        out::say_json(&json!({
            "position": audit.position, "cells": audit.cells, "hits": audit.hits, "clicks": audit.clicks,
            "conversions": audit.conversions, "different": audit.different, "differences": audit.differences,
        }))?;
    } else {
        for difference in &audit.differences {
            out::say(difference)?;
        }
        let unsaid = audit.different.saturating_sub(audit.differences.len() as u64);
        if unsaid > 0 {
            out::say(&format!("… and {unsaid} more"))?;
        }
        out::say(&format!(
            "recomputed from {} outcomes: report cells {}, hits {}, clicks {}, conversions {}; {}",
            audit.position,
            audit.cells,
            audit.hits,
            audit.clicks,
            audit.conversions,
            match audit.different {
                0 => "no difference".to_owned(),
                1 => "1 difference".to_owned(),
                n => format!("{n} differences"),
            }
        ))?;
    }
    Ok(if audit.different == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
