//! Visitors and operators: what they send, to whom, and what they were told.
//!
//! Owns: the ledger, one line per request, written before it is sent. Refuses: to send a request again by itself; what was
//! not answered stays open, and what repeats something is a request of its own. Every request carries its line's number,
//! so that the topics tell whether it arrived.

use std::{
    sync::{
        Arc, Condvar, Mutex, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use schemas::{ClickId, Time};
use system_tests::Answer;

use crate::{
    Dice,
    stage::{ACCOUNTS, link, token},
};

const SENDERS: usize = 24;
/// Between two requests of one sender.
const PACE: Duration = Duration::from_millis(160);
/// After this a sender gives up; it will never know.
const ANSWER: Duration = Duration::from_secs(5);
/// A click by a name is believed to be the cause of a hit up to ten minutes before it. Nobody here comes near that.
const CLICKS: Duration = Duration::from_secs(300);
/// For so many requests to be sent.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Click,
    SignUp,
    /// A transaction and how many deposits it is.
    Deposits(u32),
    /// A transaction, and which of the statements about it.
    Sale(u32, usize),
    /// It can never count: a click that nobody knows, or a macro that was left raw.
    Nothing,
}

/// What a sale's statements say, each with a later time than the one before.
pub const STATEMENTS: [&str; 4] = ["pending", "approved", "approved", "rejected"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// No answer, or that it could not be made durable: it may be there all the same.
    Maybe,
    /// 200, or a redirect with a click id.
    Durable,
}

#[derive(Clone, Debug)]
pub struct Line {
    pub visitor: u32,
    pub what: What,
    /// As it is sent, without the number.
    query: String,
    pub told: Told,
    /// The hit's id, or the click's.
    pub id: String,
}

struct Visitor {
    /// `None`: known by the click id only.
    name: Option<String>,
    clicks: Vec<String>,
    sales: Vec<u32>,
    since: Instant,
}

#[derive(Default)]
pub struct Ledger {
    pub lines: Vec<Line>,
    visitors: Vec<Visitor>,
    transactions: u32,
    /// Requests that have their end, with or without an answer.
    pub done: usize,
    pub unanswered: usize,
    pub refused: usize,
}

/// The money of a statement about a transaction, in cents.
pub fn cents(transaction: u32, statement: usize) -> u64 {
    u64::from(transaction) * 7919 % 90_000 + 100 + 11 * statement as u64
}

/// How many a deposit counts.
pub fn count(transaction: u32) -> u64 {
    u64::from(transaction % 3) + 1
}

struct Shared {
    ledger: Mutex<Ledger>,
    moved: Condvar,
    stop: AtomicBool,
    edges: Arc<RwLock<Vec<String>>>,
    http: reqwest::Client,
}

/// Traffic that goes on until it is told to end.
pub struct Traffic {
    shared: Arc<Shared>,
    runtime: tokio::runtime::Runtime,
    senders: Vec<tokio::task::JoinHandle<()>>,
}

impl Traffic {
    pub fn begin(seed: u64, edges: Arc<RwLock<Vec<String>>>) -> Traffic {
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(ANSWER);
        let shared = Arc::new(Shared {
            ledger: Mutex::default(),
            moved: Condvar::new(),
            stop: AtomicBool::new(false),
            edges,
            http: http.build().unwrap(),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let senders = (0..SENDERS)
            .map(|number| runtime.spawn(send(Arc::clone(&shared), Dice::new(seed * 100 + number as u64))))
            .collect();
        Traffic { shared, runtime, senders }
    }

    /// Lets traffic go on until so many more requests have come to their end.
    pub fn go_on(&self, requests: usize) {
        let ledger = self.shared.ledger.lock().unwrap();
        let (done, begun) = (ledger.done + requests, Instant::now());
        let waiting = self.shared.moved.wait_timeout_while(ledger, PATIENCE, |ledger| ledger.done < done).unwrap();
        assert!(waiting.0.done >= done, "no traffic in {:?}", begun.elapsed());
        // Not in the sender's hands: an assertion that failed there.
        assert!(self.senders.iter().all(|sender| !sender.is_finished()), "a sender gave up");
    }

    /// So much traffic as goes by in this time.
    pub fn go_on_for(&self, time: Duration) {
        self.go_on((time.as_millis() / PACE.as_millis()) as usize * SENDERS);
    }

    /// Requests that were not answered, and such that were refused.
    pub fn failures(&self) -> (usize, usize) {
        let ledger = self.shared.ledger.lock().unwrap();
        (ledger.unanswered, ledger.refused)
    }

    pub fn end(self) -> Ledger {
        self.shared.stop.store(true, Ordering::Relaxed);
        for sender in self.senders {
            self.runtime.block_on(sender).unwrap();
        }
        std::mem::take(&mut self.shared.ledger.lock().unwrap())
    }
}

async fn send(shared: Arc<Shared>, mut dice: Dice) {
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !shared.stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let (number, line) = {
            let mut ledger = shared.ledger.lock().unwrap();
            let line = ledger.next(&mut dice);
            ledger.lines.push(line.clone());
            (ledger.lines.len() - 1, line)
        };
        let edge = {
            let edges = shared.edges.read().unwrap();
            edges[dice.below(edges.len() as u64) as usize].clone()
        };
        let account = line.visitor % ACCOUNTS;
        let path = match line.what {
            What::Click => format!("c/{}?{}&sub2=chaos{number}", link(account), line.query),
            _ => format!("post-back/{}?{}&chaos={number}", token(account), line.query),
        };
        let answer = Answer::try_of(shared.http.get(format!("{edge}/{path}"))).await;
        shared.ledger.lock().unwrap().note(number, answer.ok());
        shared.moved.notify_all();
    }
}

#[cfg(test)]
impl Line {
    pub fn of(visitor: u32, what: What) -> Line {
        Line { visitor, what, query: String::new(), told: Told::Maybe, id: String::new() }
    }
}

impl Ledger {
    fn next(&mut self, dice: &mut Dice) -> Line {
        match dice.below(100) {
            0..=21 => self.first_click(dice),
            22..=29 => self.early_hit(dice),
            30..=36 => self.click_again(dice),
            37..=52 => self.hit(dice, |_, _| (What::SignUp, "signups=1".to_owned())),
            53..=64 => self.hit(dice, |ledger, _| {
                ledger.transactions += 1;
                deposits(ledger.transactions)
            }),
            65..=80 => self.sale(dice),
            81..=94 => self.repeat(dice),
            95..=97 => self.unknown(dice),
            _ => self.line(0, What::Nothing, "dyn={clickid}&signups=1".to_owned()),
        }
    }

    fn line(&self, visitor: u32, what: What, query: String) -> Line {
        Line { visitor, what, query, told: Told::Maybe, id: String::new() }
    }

    fn visitor(&mut self, named: bool) -> u32 {
        let number = self.visitors.len() as u32;
        let name = named.then(|| format!("Visitor-{number}"));
        self.visitors.push(Visitor { name, clicks: Vec::new(), sales: Vec::new(), since: Instant::now() });
        number
    }

    fn click(&self, visitor: u32) -> Line {
        let name = self.visitors[visitor as usize].name.as_ref().map(|name| format!("&dyn={name}"));
        self.line(visitor, What::Click, format!("sub1=v{visitor}{}", name.unwrap_or_default()))
    }

    fn first_click(&mut self, dice: &mut Dice) -> Line {
        let visitor = self.visitor(dice.below(2) == 0);
        self.click(visitor)
    }

    /// Of somebody who has a name. Often it is the first click, and hits were here before it.
    fn click_again(&mut self, dice: &mut Dice) -> Line {
        let named = self.some(dice, |visitor| visitor.name.is_some() && visitor.since.elapsed() < CLICKS);
        match named {
            Some(visitor) => self.click(visitor),
            None => self.first_click(dice),
        }
    }

    /// Before its click, which may never come.
    fn early_hit(&mut self, dice: &mut Dice) -> Line {
        let visitor = self.visitor(true);
        self.transactions += 1;
        let (what, query) = match dice.below(2) {
            0 => (What::SignUp, "signups=1".to_owned()),
            _ => deposits(self.transactions),
        };
        self.hit_of(visitor, what, &query)
    }

    fn hit(&mut self, dice: &mut Dice, about: impl FnOnce(&mut Ledger, u32) -> (What, String)) -> Line {
        match self.some(dice, Visitor::can_be_named) {
            Some(visitor) => {
                let (what, query) = about(self, visitor);
                self.hit_of(visitor, what, &query)
            }
            None => self.first_click(dice),
        }
    }

    /// A new sale, or another word about an old one, in any order.
    fn sale(&mut self, dice: &mut Dice) -> Line {
        let (new, choice, statement) = (dice.below(3) == 0, dice.below(1 << 20), dice.below(4) as usize);
        self.hit(dice, |ledger, visitor| {
            let sales = &mut ledger.visitors[visitor as usize].sales;
            if new || sales.is_empty() {
                ledger.transactions += 1;
                sales.push(ledger.transactions);
            }
            let transaction = sales[choice as usize % sales.len()];
            let (state, ts) = (STATEMENTS[statement], 1_780_000_000 + statement);
            let amount = money(cents(transaction, statement));
            let query = format!("sales=1&tid=t{transaction}&status={state}&ts={ts}&earning={amount}");
            (What::Sale(transaction, statement), query)
        })
    }

    /// What was sent before, whether it was answered or not.
    fn repeat(&mut self, dice: &mut Dice) -> Line {
        let hits = self.lines.iter().filter(|line| line.what != What::Click);
        let choice = dice.below(hits.clone().count() as u64 + 1) as usize;
        match hits.clone().nth(choice) {
            Some(line) => self.line(line.visitor, line.what.clone(), line.query.clone()),
            None => self.first_click(dice),
        }
    }

    /// An id that looks right, or a name that nobody has.
    fn unknown(&mut self, dice: &mut Dice) -> Line {
        let name = match dice.below(2) {
            0 => {
                let time = Time::from_ms(1_760_000_000_000 + dice.below(1 << 30) as i64);
                format!("clickId={}", ClickId::new(time, dice.below(1 << 16) as u16, dice.below(u64::MAX)))
            }
            _ => format!("dyn=Nobody-{}", dice.below(u64::MAX)),
        };
        self.line(0, What::Nothing, format!("{name}&signups=1"))
    }

    fn hit_of(&self, visitor: u32, what: What, query: &str) -> Line {
        let known = &self.visitors[visitor as usize];
        // Who clicked twice under one name must not be named by one of the clicks: which click counts is the name's matter.
        let name = match &known.name {
            Some(name) if self.lines.len().is_multiple_of(2) => format!("dyn={}", name.to_lowercase()),
            Some(name) => format!("dyn={name}"),
            None => format!("clickId={}", known.clicks[0]),
        };
        self.line(visitor, what, format!("{name}&{query}"))
    }

    /// One of those visitors, the older ones as often as the new.
    fn some(&self, dice: &mut Dice, fits: impl Fn(&Visitor) -> bool) -> Option<u32> {
        let begin = dice.below(self.visitors.len() as u64 + 1) as usize;
        let all = (begin..self.visitors.len()).chain(0..begin);
        all.into_iter().find(|at| fits(&self.visitors[*at])).map(|at| at as u32)
    }

    fn note(&mut self, number: usize, answer: Option<Answer>) {
        self.done += 1;
        let line = &mut self.lines[number];
        let id = match (&line.what, answer) {
            (_, None) => {
                self.unanswered += 1;
                return;
            }
            (What::Click, Some(answer)) => {
                assert_eq!(answer.status, 302, "{}", answer.text());
                answer.header("x-clickback-click").map(str::to_owned)
            }
            (_, Some(answer)) if answer.status == 503 => {
                assert!(answer.header("retry-after").is_some());
                None
            }
            (_, Some(answer)) => {
                assert_eq!(answer.status, 200, "{}: {}", line.query, answer.text());
                Some(answer.hit())
            }
        };
        let Some(id) = id else {
            self.refused += 1;
            return;
        };
        (line.told, line.id) = (Told::Durable, id.clone());
        if line.what == What::Click {
            self.visitors[line.visitor as usize].clicks.push(id);
        }
    }
}

impl Visitor {
    fn can_be_named(&self) -> bool {
        self.name.is_some() || !self.clicks.is_empty()
    }
}

fn deposits(transaction: u32) -> (What, String) {
    let amount = money(cents(transaction, 0));
    let query = format!("deposits={}&tid=t{transaction}&earning={amount}", count(transaction));
    (What::Deposits(transaction), query)
}

fn money(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}
