//! How long reports take on a small and on a large folder.

use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::pipeline::full_speed;
use crate::{
    Options, Place,
    clickback::Clickback,
    median,
    page::{Section, number},
    workload,
};

const SMALL: usize = 10_000;
const DAYS: usize = 30;
const LINKS: usize = 50;
const ASKED: usize = 31;

/// The calls that people make, on 30 days.
const CALLS: [(&str, &str); 7] = [
    ("totals", "/v1/reports/conversions?FROM"),
    ("by day", "/v1/reports/conversions?FROM&group_by=day&sort=day"),
    ("by link", "/v1/reports/conversions?FROM&group_by=link&sort=-clicks"),
    ("by account and goal", "/v1/reports/conversions?FROM&group_by=account,goal"),
    ("by sub1, one day", "/v1/reports/conversions?DAY&group_by=sub1"),
    ("newest postbacks", "/v1/reports/postbacks?FROM"),
    ("postbacks of one click", "/v1/reports/postbacks?FROM&click=CLICK"),
];

fn day(back: usize) -> String {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs()) as i64;
    let days = now / 86_400 - back as i64;
    // Civil date of a day count (Gregorian).
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (d, m) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    format!("{:04}-{m:02}-{d:02}", yoe + era * 400 + i64::from(m <= 2))
}

/// Half clicks, spread over 30 days, 50 links and 20 sources; half deposits.
async fn filled(options: &Options, place: &Place, folder: &std::path::Path, events: usize) -> Result<Clickback> {
    let clickback = Clickback::start(&place.clickback, &folder.join("data"))?;
    let account = clickback.account(LINKS).await?;
    let count = events / 2;
    let names: Vec<String> = (0..count).map(|n| format!("foreign-{n:012}")).collect();
    for part in (0..count).collect::<Vec<_>>().chunks(1_000) {
        let clicks: Vec<Value> = part
            .iter()
            .map(|n| {
                json!({ "link": account.links[n % LINKS], "id": names[*n], "sub1": format!("source-{:05}", n % 20),
                        "time": format!("{}T{:02}:{:02}:00Z", day(1 + n % DAYS), n / 60 % 24, n % 60) })
            })
            .collect();
        let made = clickback.api.post("/v1/clicks", &json!({ "clicks": clicks })).await?;
        anyhow::ensure!(made["accepted"].as_u64() == Some(part.len() as u64), "{made}");
    }
    let hits = workload::hits(events - count, count);
    full_speed(options, &clickback.ingest, workload::postbacks(&account.token, &hits, &names)).await?;
    let from = format!("from={}&to={}", day(DAYS + 1), day(0));
    let report = clickback.api.get(&format!("/v1/reports/conversions?{from}&after=latest&wait=30s")).await?;
    let conversions = report["totals"]["goals"]["deposits"].as_u64();
    let expected = workload::expected(&hits).conversions;
    anyhow::ensure!(conversions == Some(expected), "the report shows {conversions:?} conversions, expected {expected}");
    Ok(clickback)
}

async fn time(clickback: &Clickback, path: &str) -> Result<f64> {
    clickback.api.get(path).await?;
    let mut times = Vec::new();
    for _ in 0..ASKED {
        let start = Instant::now();
        clickback.api.get(path).await?;
        times.push(start.elapsed().as_secs_f64() * 1_000.0);
    }
    Ok(median(&times))
}

pub async fn measure(options: &Options, place: &Place) -> Result<Section> {
    let (small_folder, large_folder) = (tempfile::tempdir_in(&place.folder)?, tempfile::tempdir_in(&place.folder)?);
    let small = filled(options, place, small_folder.path(), SMALL).await?;
    let large = filled(options, place, large_folder.path(), options.large).await?;
    let mut rows = Vec::new();
    let mut ratios = Vec::new();
    for (name, call) in CALLS {
        let mut pairs = (Vec::new(), Vec::new());
        for _ in 0..options.runs {
            pairs.0.push(time(&small, &path(&small, call).await?).await?);
            pairs.1.push(time(&large, &path(&large, call).await?).await?);
        }
        let (few, many) = (median(&pairs.0), median(&pairs.1));
        ratios.push(many / few);
        rows.push(vec![name.to_owned(), number(few), number(many), number(many / few)]);
    }
    Ok(Section {
        title: "Report latency".to_owned(),
        head: vec![
            "report".to_owned(),
            format!("{} events, ms", number(SMALL as f64)),
            format!("{} events, ms", number(options.large as f64)),
            "ratio".to_owned(),
        ],
        rows,
        results: vec![format!(
            "**ratio, median of the calls: {:.2}**; worst {:.2} (at most 1.5, aim 1.1). {ASKED} calls per run, {} alternating runs, over a connection of their own each.",
            median(&ratios),
            ratios.iter().copied().fold(0.0, f64::max),
            options.runs
        )],
    })
}

async fn path(clickback: &Clickback, call: &str) -> Result<String> {
    let range = format!("from={}&to={}", day(DAYS + 1), day(0));
    let call = call.replace("FROM", &range).replace("DAY", &format!("from={0}&to={0}", day(15)));
    if !call.contains("CLICK") {
        return Ok(call);
    }
    let newest = clickback.api.get("/v1/reports/postbacks?limit=1&outcome=converted").await?;
    let click = newest["rows"][0]["click"].as_str().context("no click")?;
    Ok(call.replace("CLICK", click))
}
