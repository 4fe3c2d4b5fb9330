//! Bytes on disk per click: a `dyn` of 20 bytes and three subs of 12.

use anyhow::Result;

use crate::{
    Options, Place,
    clickback::Clickback,
    page::{Section, number},
    process::file_bytes,
};

const CLICKS: usize = 200_000;

pub async fn measure(options: &Options, place: &Place) -> Result<Section> {
    let folder = tempfile::tempdir_in(&place.folder)?;
    let mut clickback = Clickback::start(&place.clickback, &folder.path().join("data"))?;
    let account = clickback.account(100).await?;
    let files = ["state.db", "log.db", "tables.db"];
    let size = |c: &Clickback| files.map(|f| file_bytes(&c.data, f));
    clickback.totals().await?;
    let before = size(&clickback);
    clickback.clicks(&account, CLICKS, options.connections).await?;
    let totals = clickback.totals().await?;
    anyhow::ensure!(totals["clicks"].as_u64() == Some(CLICKS as u64), "{totals}");
    // An orderly end writes the caches and folds the write-ahead logs into the files.
    clickback.server.stop("TERM")?;
    let after = size(&clickback);
    let per_click = |at: usize| (after[at] as f64 - before[at] as f64).max(0.0) / CLICKS as f64;
    let notes = [
        "the matcher's state: a cache",
        "the truth: events and outcomes, kept for ever",
        "report rows, cells and journeys: a cache",
    ];
    Ok(Section {
        title: "Bytes on disk per click".to_owned(),
        head: ["file", "bytes per click", ""].map(str::to_owned).to_vec(),
        rows: (0..3).map(|at| vec![files[at].to_owned(), number(per_click(at)), notes[at].to_owned()]).collect(),
        results: vec![format!(
            "**state: {:.0} B per click** of {} clicks (at most 160 B, aim 80 B)",
            per_click(0),
            number(CLICKS as f64)
        )],
    })
}
