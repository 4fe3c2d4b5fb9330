//! SIGKILL at random moments under load, again and again on one folder: what was answered with 2xx is there, nothing
//! is counted twice, and `clickback audit` finds no difference.
//!
//! Three kills in an ordinary run, 25 with `--long`. `CLICKBACK_SEED` repeats a run's moments.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, also in its helpers")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use schemas::Amount;
use serde_json::{Value, json};
use system_tests::{Account, Answer, Folder, Link, Server, repetitions};

const SENDERS: usize = 16;
/// Contract: ready again after a crash, plus 8 s per million events since the last checkpoint.
const READY: Duration = Duration::from_secs(10);

/// What the outside knows: what was sent, and what was answered with 2xx.
#[derive(Default)]
struct Known {
    /// Clicks that a visitor was given.
    clicks: Vec<String>,
    clicks_sent: u64,
    /// Transaction id → click and amount, of every postback that was sent, answered or not.
    sent: BTreeMap<String, (String, u64)>,
    answered: BTreeSet<String>,
}

struct Load {
    known: Mutex<Known>,
    answers: AtomicUsize,
    next: AtomicU64,
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn seed() -> u64 {
    let given = std::env::var("CLICKBACK_SEED").ok().and_then(|s| s.parse().ok());
    let seed = given.unwrap_or_else(|| SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64) | 1;
    eprintln!("CLICKBACK_SEED={seed}");
    seed
}

/// One visitor and one operator: follows the link, sends a postback for a click that it knows, and repeats postbacks
/// that were sent before, answered or not.
async fn sender(load: Arc<Load>, requests: Requests, mut dice: Dice) {
    loop {
        let done = match dice.below(4) {
            0 => requests.click(&load).await,
            1 => requests.repeat(&load, &mut dice).await,
            _ => requests.postback(&load, &mut dice).await,
        };
        if done.is_err() {
            return;
        }
        load.answers.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Clone)]
struct Requests {
    http: reqwest::Client,
    link: String,
    postback: String,
}

impl Requests {
    async fn click(&self, load: &Load) -> reqwest::Result<()> {
        load.known.lock().unwrap().clicks_sent += 1;
        let answer = Answer::try_of(self.http.get(&self.link)).await?;
        assert_eq!(answer.status, 302);
        let id = answer.header("x-clickback-click").expect("the click was recorded").to_owned();
        load.known.lock().unwrap().clicks.push(id);
        Ok(())
    }

    async fn postback(&self, load: &Load, dice: &mut Dice) -> reqwest::Result<()> {
        let tid = format!("t{}", load.next.fetch_add(1, Ordering::Relaxed));
        let click = {
            let mut known = load.known.lock().unwrap();
            if known.clicks.is_empty() {
                return Ok(());
            }
            let click = known.clicks[dice.below(known.clicks.len() as u64) as usize].clone();
            known.sent.insert(tid.clone(), (click.clone(), dice.below(90_000) + 1));
            click
        };
        self.send(load, &tid, &click).await
    }

    async fn repeat(&self, load: &Load, dice: &mut Dice) -> reqwest::Result<()> {
        let chosen = {
            let known = load.known.lock().unwrap();
            let at = dice.below(known.sent.len() as u64 + 1) as usize;
            known.sent.iter().nth(at).map(|(tid, (click, _))| (tid.clone(), click.clone()))
        };
        match chosen {
            Some((tid, click)) => self.send(load, &tid, &click).await,
            None => Ok(()),
        }
    }

    async fn send(&self, load: &Load, tid: &str, click: &str) -> reqwest::Result<()> {
        let cents = load.known.lock().unwrap().sent[tid].1;
        let amount = format!("{}.{:02}", cents / 100, cents % 100);
        let query = format!("clickId={click}&event=deposit&tid={tid}&earning={amount}");
        let answer = Answer::try_of(self.http.get(format!("{}?{query}", self.postback))).await?;
        assert_eq!((answer.status, answer.said().as_str()), (200, "accepted"), "{}", answer.text());
        load.known.lock().unwrap().answered.insert(tid.to_owned());
        Ok(())
    }
}

/// Loads the server and kills it after a random number of answers, with requests in flight.
async fn load_and_kill(server: Server, load: &Arc<Load>, account: &Account, link: &Link, dice: &mut Dice) -> Folder {
    let requests = Requests {
        http: server.http.clone(),
        link: format!("{}/c/{}?sub1=crash", server.ingest, link.id),
        postback: format!("{}/post-back/{}", server.ingest, account.token),
    };
    let stop_at = load.answers.load(Ordering::Relaxed) + 1 + dice.below(1_500) as usize;
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| tokio::spawn(sender(load.clone(), requests.clone(), Dice(dice.below(u64::MAX) | 1))))
        .collect();
    while load.answers.load(Ordering::Relaxed) < stop_at {
        tokio::task::yield_now().await;
    }
    let folder = server.kill();
    for sender in senders {
        sender.await.unwrap();
    }
    folder
}

async fn all_conversions(server: &Server) -> Vec<Value> {
    let mut all = Vec::new();
    let mut path = "/v1/conversions?limit=1000".to_owned();
    loop {
        let page = server.latest(&path).await;
        all.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["cursor"].as_str() {
            Some(cursor) => path = format!("/v1/conversions?limit=1000&cursor={cursor}"),
            None => return all,
        }
    }
}

async fn compare(server: &Server, load: &Load) {
    let conversions = all_conversions(server).await;
    let report = server.conversions_report("").await;
    let known = load.known.lock().unwrap();
    let mut seen = BTreeSet::new();
    let mut sum = Amount::ZERO;
    for conversion in &conversions {
        let tid = conversion["tid"].as_str().unwrap();
        assert!(seen.insert(tid.to_owned()), "{tid} is counted twice");
        let (click, cents) = known.sent.get(tid).unwrap_or_else(|| panic!("{tid} was never sent"));
        let earning: Amount = conversion["earning"].as_str().unwrap().parse().unwrap();
        assert_eq!(
            (earning.units(), conversion["click"].as_str()),
            (i128::from(*cents) * 1_000_000, Some(click.as_str()))
        );
        sum = sum.plus(earning).unwrap();
    }
    let lost: Vec<&String> = known.answered.iter().filter(|tid| !seen.contains(*tid)).collect();
    assert!(lost.is_empty(), "answered with 200 and lost: {lost:?}");

    let totals = &report["totals"];
    assert_eq!(totals["goals"]["deposits"].as_u64().unwrap_or(0), seen.len() as u64);
    let reported = totals["earnings"][0]["amount"].as_str().map_or(Amount::ZERO, |a| a.parse().unwrap());
    assert_eq!(reported, sum);
    let clicks = totals["clicks"].as_u64().unwrap();
    assert!(
        (known.clicks.len() as u64..=known.clicks_sent).contains(&clicks),
        "{clicks} clicks, {} answered, {} sent",
        known.clicks.len(),
        known.clicks_sent
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_answered_is_lost_and_nothing_counts_twice() {
    let mut dice = Dice(seed());
    let load = Arc::new(Load { known: Mutex::default(), answers: AtomicUsize::new(0), next: AtomicU64::new(0) });
    let mut server = Server::start();
    let (account, link) = server.account_with_link(json!({})).await;
    for kill in 1..=repetitions(3, 25) {
        let folder = load_and_kill(server, &load, &account, &link, &mut dice).await;
        let started = Instant::now();
        server = Server::start_on(&folder);
        assert!(started.elapsed() < READY, "ready again after {:?}", started.elapsed());
        compare(&server, &load).await;
        folder.assert_audit_is_clean();
        eprintln!("kill {kill}: {} answers so far", load.answers.load(Ordering::Relaxed));
    }
    // What was sent without an answer is sent again, as operators do, and counts once.
    let open: Vec<(String, String)> = {
        let known = load.known.lock().unwrap();
        let open = known.sent.iter().filter(|(tid, _)| !known.answered.contains(*tid));
        open.map(|(tid, (click, _))| (tid.clone(), click.clone())).collect()
    };
    let requests = Requests {
        http: server.http.clone(),
        link: String::new(),
        postback: format!("{}/post-back/{}", server.ingest, account.token),
    };
    for (tid, click) in open {
        requests.send(&load, &tid, &click).await.unwrap();
    }
    compare(&server, &load).await;
    let folder = server.stop();
    folder.assert_audit_is_clean();
}

/// A crash in the middle of a rebuild leaves the old tables or the new ones, never a mixture.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_during_a_rebuild_leaves_whole_tables() {
    let server = Server::start();
    let (account, link) = server.account_with_link(json!({})).await;
    let click = server.follow_link(&link, "").await;
    for n in 0..300 {
        server.accepted(&account, &format!("clickId={}&event=deposit&tid={n}&earning=1", click.id)).await;
    }
    let before = server.conversions_report("").await["totals"].clone();
    let data = server.folder.data().to_str().unwrap().to_owned();
    let rebuild = tokio::task::spawn_blocking(move || system_tests::clickback(&["rebuild", "--data", &data]));
    tokio::task::yield_now().await;
    let folder = server.kill();
    rebuild.await.unwrap();
    let server = Server::start_on(&folder);
    assert_eq!(server.conversions_report("").await["totals"], before);
    folder.assert_audit_is_clean();
}
