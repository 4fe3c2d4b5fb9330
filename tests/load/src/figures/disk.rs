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
    clickback.clicks(&account, CLICKS, options.connections).await?;
    let totals = clickback.totals().await?;
    anyhow::ensure!(totals["clicks"].as_u64() == Some(CLICKS as u64), "{totals}");
    clickback.server.stop("TERM")?;
    let mut sizes = [0.0; 3];
    for (at, file) in files.into_iter().enumerate() {
        sizes[at] = file_bytes(&clickback.data.join(file))? as f64 / CLICKS as f64;
    }
    let notes = [
        "the matcher's state: a cache",
        "the truth: events and outcomes, kept for ever",
        "report rows, cells and journeys: a cache",
    ];
    Ok(Section {
        title: "Bytes on disk per click".to_owned(),
        head: ["file", "bytes per click", ""].map(str::to_owned).to_vec(),
        rows: (0..3).map(|at| vec![files[at].to_owned(), number(sizes[at]), notes[at].to_owned()]).collect(),
        results: vec![format!(
            "**state: {:.0} B per click** of {} clicks (at most 160 B, aim 80 B)",
            sizes[0],
            number(CLICKS as f64)
        )],
    })
}
