//! What visitors and operators of the demo do, and when: a story per visitor, with the mishaps of the field.

use std::time::Duration;

use super::{
    client::Postback,
    dice::Dice,
    operator::{Deed, in_body},
    stage::Account,
};

#[derive(Clone, Debug)]
pub enum Step {
    Visit(Visit),
    Send(Postback),
}

#[derive(Clone, Debug)]
pub struct Visit {
    pub account: usize,
    pub link: String,
    pub query: String,
    pub agent: &'static str,
    /// The operator told of this visitor's sign-up before the click was here, so nothing else is planned.
    pub told: bool,
}

/// A click that was made elsewhere, long ago, and imported.
#[derive(Clone, Debug)]
pub struct OldClick {
    pub account: usize,
    pub id: String,
}

pub type Later = (Duration, Step);

const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
const ROBOT: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";

pub struct Teller {
    accounts: Vec<Account>,
    old: Vec<OldClick>,
    dice: Dice,
    run: String,
    serial: u64,
}

impl Teller {
    pub fn new(accounts: Vec<Account>, old: Vec<OldClick>, mut dice: Dice) -> Teller {
        let run = dice.word(5);
        Teller { accounts, old, dice, run, serial: 0 }
    }

    /// The next arrival, with what follows from it whatever happens.
    pub fn next(&mut self) -> Vec<Later> {
        match self.dice.between(1, 100) {
            1..=3 => self.unknown_click(),
            4..=5 => self.macro_left_raw(),
            6..=9 => self.before_the_click(),
            10..=12 => self.late(),
            _ => {
                let account = self.account();
                vec![(Duration::ZERO, self.visit(account, None))]
            }
        }
    }

    /// What the operator reads in the URL of its page.
    pub fn click_of(&self, account: usize, landing: &str) -> Option<String> {
        self.accounts[account].click_of(landing)
    }

    /// The visitor arrived at the operator's page with this click id.
    pub fn landed(&mut self, account: usize, click: String) -> Vec<Later> {
        if !self.dice.percent(30) {
            return Vec::new();
        }
        let mut steps = Vec::new();
        let mut at = self.seconds(1, 4);
        let player = format!("p{}", self.number());
        let deed = |goal| Deed { goal, click: click.clone(), player: player.clone(), ..Deed::default() };
        self.tell(&mut steps, account, &mut at, deed("signups"));
        if self.dice.percent(50) {
            at += self.seconds(1, 5);
            let amount = self.amount();
            let tid = self.tid();
            self.tell(&mut steps, account, &mut at, Deed { amount, tid, ..deed("firsttimedeposits") });
            for _ in 0..self.dice.between(0, 3) {
                at += self.seconds(1, 6);
                self.deposit(&mut steps, account, &mut at, &deed("deposits"));
            }
        }
        steps
    }

    fn deposit(&mut self, steps: &mut Vec<Later>, account: usize, at: &mut Duration, deed: &Deed) {
        let deed = Deed { amount: self.amount(), tid: self.tid(), ..deed.clone() };
        let states = self.accounts[account].program.placeholders.contains_key("status");
        if !states || self.dice.percent(30) {
            return self.tell(steps, account, at, deed);
        }
        self.tell(steps, account, at, Deed { state: "pending", ..deed.clone() });
        *at += self.seconds(2, 6);
        let state = if self.dice.percent(80) { "approved" } else { "rejected" };
        self.tell(steps, account, at, Deed { state, ..deed });
    }

    /// Plans the postback of a deed, now and then with one of the field's mishaps.
    fn tell(&mut self, steps: &mut Vec<Later>, account: usize, at: &mut Duration, deed: Deed) {
        let mishap = self.dice.between(1, 100);
        let teller = if mishap == 1 { (account + 1) % self.accounts.len() } else { account };
        let deed = match mishap {
            2 | 3 => Deed { left_raw: &["amount", "tid"], ..deed },
            4 => Deed { amount: deed.amount.map(|_| "about twenty".to_owned()), ..deed },
            5..=7 => Deed { amount: deed.amount.map(|a| a.replace('.', ",")), ..deed },
            _ => deed,
        };
        let Some(mut postback) = self.accounts[teller].postback(&deed) else { return };
        match mishap {
            8 => postback.url.push_str("&test=1"),
            9 => postback.url.push_str("&status=flagged"),
            10..=12 => postback = in_body(&postback, false),
            13..=15 => postback = in_body(&postback, true),
            _ => {}
        }
        steps.push((*at, Step::Send(postback.clone())));
        if self.dice.percent(10) {
            steps.push((*at + self.seconds(1, 3), Step::Send(postback)));
        }
    }

    fn unknown_click(&mut self) -> Vec<Later> {
        let account = self.account();
        let click = self.dice.word(12);
        self.send(account, Deed { goal: "signups", click, ..Deed::default() })
    }

    fn macro_left_raw(&mut self) -> Vec<Later> {
        let account = self.account();
        self.send(account, Deed { goal: "signups", left_raw: &["click_id", "dyn"], ..Deed::default() })
    }

    /// The operator's server is faster than the visitor's browser; the name they share is a `dyn`.
    fn before_the_click(&mut self) -> Vec<Later> {
        let account = self.account();
        let number = self.number();
        let name = format!("early-{}-{number}", self.run);
        let mut steps = self.send(account, Deed { goal: "signups", click: name.clone(), ..Deed::default() });
        steps.push((self.seconds(2, 6), self.visit(account, Some(&name))));
        steps
    }

    fn late(&mut self) -> Vec<Later> {
        let Some(old) = self.old.pop() else { return self.unknown_click() };
        let (amount, tid) = (self.amount(), self.tid());
        self.send(old.account, Deed { goal: "firsttimedeposits", click: old.id, amount, tid, ..Deed::default() })
    }

    fn send(&self, account: usize, deed: Deed) -> Vec<Later> {
        self.accounts[account].postback(&deed).map(|p| (Duration::ZERO, Step::Send(p))).into_iter().collect()
    }

    fn visit(&mut self, account: usize, name: Option<&str>) -> Step {
        let links = &self.accounts[account].links;
        let link = links[self.dice.skewed(links.len())].clone();
        let place = ["review", "newsletter", "forum", "video"][self.dice.skewed(4)];
        let mut query = format!("sub1={place}&sub2=banner-{}", self.dice.between(1, 5));
        if let Some(name) = name {
            query.push_str(&format!("&dyn={name}"));
        }
        let agent = if self.dice.percent(3) { ROBOT } else { BROWSER };
        Step::Visit(Visit { account, link, query, agent, told: name.is_some() })
    }

    fn account(&mut self) -> usize {
        self.dice.skewed(self.accounts.len())
    }

    fn number(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    fn tid(&mut self) -> String {
        let number = self.number();
        format!("{}{number}", self.run)
    }

    fn amount(&mut self) -> Option<String> {
        let cents = self.dice.between(500, 25_000);
        Some(format!("{}.{:02}", cents / 100, cents % 100))
    }

    fn seconds(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.dice.between(low * 1_000, high * 1_000))
    }
}

#[cfg(test)]
mod tests {
    use super::super::stage::{PostbackUrl, Program};
    use super::*;

    fn teller() -> Teller {
        let url = |goal: &str| PostbackUrl {
            goal: Some(goal.to_owned()),
            url: format!("http://h/post-back/T?clickId={{c}}&{goal}=1&earning={{a}}&tid={{t}}"),
        };
        let placeholders = [("click_id", "{c}"), ("amount", "{a}"), ("tid", "{t}")];
        let account = Account {
            id: "a".into(),
            currency: "EUR".into(),
            program: Program {
                click_param: "c".into(),
                placeholders: placeholders.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
                statuses: Default::default(),
            },
            urls: ["signups", "firsttimedeposits", "deposits"].map(url).to_vec(),
            links: vec!["http://h/c/L".into()],
        };
        let old = (0..3).map(|n| OldClick { account: 0, id: format!("old-{n}") }).collect();
        Teller::new(vec![account], old, Dice::new(1))
    }

    #[test]
    fn the_whole_field_is_on_stage() {
        let mut teller = teller();
        let mut steps: Vec<Later> = (0..2_000).flat_map(|_| teller.next()).collect();
        steps.extend((0..500).flat_map(|_| teller.landed(0, "CLICK".into())));
        let sent: Vec<&Postback> =
            steps.iter().filter_map(|(_, s)| if let Step::Send(p) = s { Some(p) } else { None }).collect();
        let some = |part: &str| sent.iter().any(|p| p.url.contains(part));
        for part in ["clickId={c}", "clickId=early-", "clickId=old-", "earning={a}", "test=1", "status=flagged", "%2C"]
        {
            assert!(some(part), "nothing with {part}");
        }
        let repeated = sent.iter().any(|p| sent.iter().filter(|q| q == &p).count() == 2 && p.url.contains("CLICK"));
        assert!(repeated && sent.iter().any(|p| p.body.is_some()));
        assert!(steps.iter().any(|(at, s)| matches!(s, Step::Visit(v) if v.told) && !at.is_zero()));
    }
}
