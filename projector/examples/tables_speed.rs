//! What the projector costs per converting hit: `cargo run --release -p projector --example tables_speed [hits] [folder] [accounts]`.
//!
//! Clicks with a `dyn` of 20 bytes and three subs of 12 on links drawn by a Zipf law, each followed later by a hit that
//! converts; flushed as under load. Prints microseconds of CPU (user and system) per hit with its click.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement for people")]

use std::{collections::VecDeque, path::Path, time::Instant};

use projector::tables::Tables;
use schemas::{
    Amount, ClickId, ConversionId, Currency, EventId, Outcome, Time,
    chain::{Chain, Position},
    outcome::{Change, ClickData, ClickRef, Conversion, GoalOutcome, HitOutcome, HitRef, Kind, Status},
    status::State,
};

const LINKS: u64 = 10_000;
const PER_SECOND: u64 = 10_000;
/// Outcomes between two flushes: a quarter of a second.
const FLUSH: usize = PER_SECOND as usize / 2;

/// State, and the number of accounts.
struct Random(u64, u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    /// Zipf with exponent 1: the rank whose harmonic number is drawn.
    fn link(&mut self) -> u64 {
        let draw = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        ((LINKS as f64 + 1.0).powf(draw) - 1.0) as u64
    }
}

fn outcome(id: EventId, time: Time, kind: Kind) -> Outcome {
    Outcome::blank(id, "default", time, kind)
}

fn click(random: &mut Random, time: Time, n: u64) -> Outcome {
    let text = |random: &mut Random, len: usize| Some(format!("{:020x}", random.next() as u128 * 7)[..len].to_owned());
    let small = |random: &mut Random| Some(format!("campaign-{:03}", random.next() % 200));
    let data = ClickData {
        id: ClickId::new(time, n as u16, random.next()),
        time,
        account: format!("acc_{}", random.next() % random.1),
        program: "generic".to_owned(),
        link: Some(format!("lnk_{:05}", random.link())),
        dyn_: text(random, 20),
        foreign: None,
        sub1: small(random),
        sub2: small(random),
        sub3: text(random, 12),
        sub4: None,
        sub5: None,
        flags: Vec::new(),
    };
    Outcome { click: Some(data), ..outcome(EventId::new(time, 1, random.next()), time, Kind::Click) }
}

fn hit(random: &mut Random, time: Time, click: &ClickData) -> Outcome {
    let id = EventId::new(time, 1, random.next());
    let c = click.clone();
    let conversion = Conversion {
        id: ConversionId(((u128::from(random.next()) << 64) | u128::from(random.next())).to_be_bytes()),
        version: 1,
        goal: if random.next().is_multiple_of(4) { "firsttimedeposits" } else { "signups" }.to_owned(),
        count: 1,
        state: State::Approved,
        earning: Some(Amount::from_units(5_000_000_000).unwrap()),
        value: None,
        currency: Currency::EUR,
        tid: Some(format!("tx{:012x}", random.next() >> 16)),
        player: None,
        time,
        withdrawn: false,
    };
    let change = Change {
        conversion: conversion.id,
        account: c.account.clone(),
        click: Some(c.id),
        click_time: c.time,
        time,
        goal: conversion.goal.clone(),
        state: conversion.state,
        currency: conversion.currency,
        count: 1,
        earning: conversion.earning,
        value: None,
    };
    let entry = HitOutcome {
        hit: HitRef {
            id,
            time,
            method: Some("GET".to_owned()),
            raw: Some(format!("clickId={}&signups=1&earning=50.00&currency=EUR&tid={:?}", c.id, conversion.tid)),
            body: None,
            remote: Some("192.0.2.0".to_owned()),
        },
        tenant: "default".to_owned(),
        account: c.account.clone(),
        program: c.program.clone(),
        named: Some(c.id.to_string()),
        click: Some(ClickRef {
            id: c.id,
            time: c.time,
            link: c.link,
            dyn_: c.dyn_,
            sub1: c.sub1,
            sub2: c.sub2,
            sub3: c.sub3,
            sub4: c.sub4,
            sub5: c.sub5,
        }),
        label: None,
        outcome: Status::Converted,
        reason: None,
        hint: None,
        waiting_until: None,
        corrections: Vec::new(),
        goals: vec![GoalOutcome {
            goal: conversion.goal.clone(),
            count: 1,
            outcome: Status::Converted,
            reason: None,
            same_as: None,
            conversion: Some(conversion),
        }],
    };
    Outcome { hits: vec![entry], changes: vec![change], ..outcome(id, time, Kind::Hit) }
}

/// User and system time of this process.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after = stat.rsplit(')').next().unwrap();
    let fields: Vec<&str> = after.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks as f64 / 100.0
}

fn main() {
    let hits: u64 = std::env::args().nth(1).map_or(500_000, |n| n.parse().unwrap());
    let dir = std::env::args().nth(2).unwrap_or_else(|| ".".to_owned());
    let path = Path::new(&dir).join("tables-speed.db");
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(path.with_file_name(format!("tables-speed.db{suffix}"))).ok();
    }
    let mut tables = Tables::open(&path, true).unwrap().unwrap();
    let accounts = std::env::args().nth(3).map_or(20, |n| n.parse().unwrap());
    let mut random = Random(0x9E37_79B9_7F4A_7C15, accounts);
    let mut waiting = VecDeque::new();
    let start = 1_792_800_000_000i64;
    let (mut first, mut cpu, mut wall, mut slowest) = (0u64, 0.0, 0.0f64, 0.0f64);
    let mut made = 0;
    while made < hits {
        let mut outcomes = Vec::with_capacity(FLUSH);
        for n in 0..FLUSH as u64 / 2 {
            let time = Time::from_ms(start + ((made + n) * 1_000 / PER_SECOND) as i64);
            let next = click(&mut random, time, n);
            waiting.push_back(next.click.clone().unwrap());
            outcomes.push(next);
            let at = random.next() as usize % waiting.len();
            let last = waiting.len() - 1;
            waiting.swap(at, last);
            let of = waiting.pop_back().unwrap();
            outcomes.push(hit(&mut random, time, &of));
            if waiting.len() < 20_000 {
                let time = Time::from_ms(time.ms());
                let extra = click(&mut random, time, n + 7);
                waiting.push_back(extra.click.clone().unwrap());
                outcomes.push(extra);
            }
        }
        made += FLUSH as u64 / 2;
        let (cpu_before, began) = (cpu_seconds(), Instant::now());
        for part in outcomes.chunks(256) {
            tables.take(tables.next(), part).unwrap();
        }
        first += outcomes.len() as u64;
        tables.flush(Position { next: first, chain: Chain::FIRST }).unwrap();
        if tables.needs_checkpoint() {
            tables.checkpoint().unwrap();
        }
        cpu += cpu_seconds() - cpu_before;
        wall += began.elapsed().as_secs_f64();
        slowest = slowest.max(began.elapsed().as_secs_f64());
    }
    let size = std::fs::metadata(&path).unwrap().len();
    println!(
        "{made} hits: {:.2} µs CPU and {:.2} µs wall per hit with its click",
        cpu / made as f64 * 1e6,
        wall / made as f64 * 1e6
    );
    println!("slowest flush {:.0} ms, {} bytes per hit on disk", slowest * 1e3, size / made);
}
