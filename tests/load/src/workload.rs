//! What is sent, and what must come of it: the oracle.

use std::collections::BTreeSet;

/// A deterministic source of choices.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Hit {
    /// Index of the click; `None`: nobody's.
    pub click: Option<usize>,
    pub tid: usize,
    pub cents: u64,
}

/// Deposits with a transaction id and money: 93 of 100 new, 5 repeats of one before, 2 of unknown clicks.
pub fn hits(count: usize, clicks: usize) -> Vec<Hit> {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut hits: Vec<Hit> = Vec::with_capacity(count);
    for tid in 0..count {
        let hit = match dice.below(100) {
            0..5 if tid > 0 => hits[dice.below(tid as u64) as usize],
            5..7 => Hit { click: None, tid, cents: 100 },
            _ => Hit { click: Some(dice.below(clicks as u64) as usize), tid, cents: dice.below(20_000) + 1 },
        };
        hits.push(hit);
    }
    hits
}

/// What any right answer to these hits must show.
#[derive(Debug, PartialEq, Eq)]
pub struct Expected {
    pub conversions: u64,
    pub cents: u64,
}

pub fn expected(hits: &[Hit]) -> Expected {
    let mut seen = BTreeSet::new();
    let mut expected = Expected { conversions: 0, cents: 0 };
    for hit in hits {
        if let Some(click) = hit.click
            && seen.insert((click, hit.tid))
        {
            expected.conversions += 1;
            expected.cents += hit.cents;
        }
    }
    expected
}

/// The request as it goes over the wire.
pub fn request(path: &str, query: &str) -> String {
    format!("GET {path}?{query} HTTP/1.1\r\nhost: t.example.com\r\nuser-agent: operator/1.0\r\naccept: */*\r\n\r\n")
}

/// An id that looks like ours and is nobody's.
pub fn nobody(tid: usize) -> String {
    format!("nobody{tid:020}")
}

pub fn postbacks(token: &str, hits: &[Hit], clicks: &[String]) -> Vec<String> {
    let path = format!("/post-back/{token}");
    let text = |hit: &Hit| {
        let click = hit.click.map_or_else(|| nobody(hit.tid), |at| clicks[at].clone());
        let money = format!("{}.{:02}", hit.cents / 100, hit.cents % 100);
        request(&path, &format!("clickId={click}&event=deposit&tid=T{}&earning={money}&currency=EUR", hit.tid))
    };
    hits.iter().map(text).collect()
}

/// The bench click of the design: a `dyn` of 20 bytes and three subs of 12.
pub fn click_query(n: usize) -> String {
    format!("dyn=campaign-x-{n:09}&sub1=source-{:05}&sub2=zone-{:07}&sub3=creative-{:03}", n % 97, n % 31, n % 7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oracle_counts_each_transaction_once() {
        let hit = |click, tid| Hit { click, tid, cents: 150 };
        let all = [hit(Some(1), 1), hit(Some(1), 1), hit(Some(1), 2), hit(None, 3)];
        assert_eq!(expected(&all), Expected { conversions: 2, cents: 300 });
    }

    #[test]
    fn bench_clicks_have_the_sizes_of_the_design() {
        for n in [0, 123_456] {
            let sizes: Vec<usize> = click_query(n).split('&').map(|p| p.split_once('=').unwrap().1.len()).collect();
            assert_eq!(sizes, [20, 12, 12, 12]);
        }
    }
}
