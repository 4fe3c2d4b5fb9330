//! What the API says in the end, against what the outcomes say, which were found to be right before.

use std::collections::BTreeMap;

use serde_json::Value;
use system_tests::Answer;

use crate::{
    oracle::totals,
    reader::Warehouse,
    stage::{Kind, Stage},
    traffic::{Ledger, Told, What},
};

struct Api<'s> {
    stage: &'s Stage,
    key: String,
    projector: usize,
    runtime: tokio::runtime::Runtime,
}

impl Api<'_> {
    fn get(&self, path: &str) -> Value {
        let role = self.stage.role(Kind::Projector, self.projector);
        let url = format!("{}/v1/reports/{path}&after=latest&wait=30s", role.url("api"));
        let answer = self.runtime.block_on(Answer::of(role.http.get(url).bearer_auth(&self.key)));
        answer.expect(200).json()
    }
}

/// Any projector answers, and all say the same; `audit` finds no difference.
pub fn compare(stage: &Stage, ledger: &Ledger, warehouse: &Warehouse) -> String {
    let key = stage.key();
    let mut rows = 0;
    for projector in stage.numbers(Kind::Projector) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let api = Api { stage, key: key.clone(), projector, runtime };
        assert_totals(&api.get("conversions?group_by=account")["totals"], warehouse);
        rows = assert_postbacks(&api, ledger, warehouse);
    }
    let audit = stage.audit();
    assert_eq!(audit.code, Some(0), "audit finds differences:\n{}\n{}", audit.stdout, audit.stderr);
    format!("{rows} rows in the postback report; audit: {}", audit.stdout.trim())
}

fn assert_totals(report: &Value, warehouse: &Warehouse) {
    let all = warehouse.conversions();
    let mut goals: BTreeMap<&str, u64> = BTreeMap::new();
    for state in ["pending", "approved", "rejected"] {
        let of_state = || all.iter().filter(|(_, worth)| worth.state == state);
        let (count, cents) = totals(of_state().map(|(_, worth)| worth));
        assert_eq!(report["conversions"][state], count, "{state}: {report}");
        let earned = report["earnings"].as_array().unwrap().iter().find(|row| row["state"] == state);
        let amount = format!("{}.{:02}", cents / 100, cents % 100);
        assert_eq!(earned.map_or("0.00", |row| row["amount"].as_str().unwrap()), amount, "{state}: {report}");
        for (key, worth) in of_state().filter(|_| state != "rejected") {
            *goals.entry(key.goal.as_str()).or_default() += worth.count;
        }
    }
    for (goal, count) in goals {
        assert_eq!(report["goals"][goal], count, "{goal}: {report}");
    }
    assert_eq!(report["clicks"], warehouse.clicked().len() as u64, "{report}");
}

/// Every hit that was answered with 2xx is there once, with the outcome that it has.
fn assert_postbacks(api: &Api<'_>, ledger: &Ledger, warehouse: &Warehouse) -> usize {
    let (mut all, mut cursor) = (BTreeMap::new(), String::new());
    loop {
        let page = api.get(&format!("postbacks?limit=1000{cursor}"));
        for row in page["rows"].as_array().unwrap() {
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            assert!(all.insert(text("hit"), text("outcome")).is_none(), "a hit stands there twice: {row}");
        }
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let is_answered = |line: &&crate::traffic::Line| line.told == Told::Durable && line.what != What::Click;
    for line in ledger.lines.iter().filter(is_answered) {
        assert_eq!(all.get(&line.id), warehouse.hits[&line.id].last(), "{line:?}");
    }
    assert_eq!(all.len(), warehouse.hits.len());
    all.len()
}
