//! A click in its three forms: the event that brings it, the state that is kept of it, the record that shows it.

use std::sync::Arc;

use schemas::{
    ClickId, event,
    outcome::{ClickData, ClickRef},
};

use crate::{
    ledger::Ledger,
    state::{Click, Home, Key},
};

pub fn click_data(click: &event::Click) -> ClickData {
    ClickData {
        id: click.id,
        time: click.time,
        account: click.account.clone(),
        program: click.program.clone(),
        link: click.link.clone(),
        dyn_: click.dyn_.clone(),
        foreign: click.foreign.clone(),
        sub1: click.sub1.clone(),
        sub2: click.sub2.clone(),
        sub3: click.sub3.clone(),
        sub4: click.sub4.clone(),
        sub5: click.sub5.clone(),
        flags: click.flags.clone(),
    }
}

fn shared(text: &Option<String>) -> Option<Arc<str>> {
    text.as_deref().map(Arc::from)
}

fn owned(text: &Option<Arc<str>>) -> Option<String> {
    text.as_deref().map(str::to_owned)
}

impl Click {
    pub fn of_event(tenant: &str, click: &event::Click, src: u64) -> Self {
        Click {
            home: Arc::new(Home {
                tenant: tenant.to_owned(),
                account: click.account.clone(),
                program: click.program.clone(),
                link: click.link.clone(),
                lookback_days: click.lookback_days,
                waiting_days: click.waiting_days,
            }),
            time: click.time,
            dyn_: shared(&click.dyn_),
            foreign: shared(&click.foreign),
            subs: [&click.sub1, &click.sub2, &click.sub3, &click.sub4, &click.sub5].map(shared),
            alias: shared(&click.alias),
            touched: src,
            ledger: Ledger::default(),
            waiting: Vec::new(),
        }
    }

    pub fn alias_key(&self) -> Option<Key> {
        self.alias.as_ref().map(|a| Key::alias(&self.home.tenant, &self.home.account, a))
    }

    pub fn reference(&self, key: &Key) -> ClickRef {
        let [sub1, sub2, sub3, sub4, sub5] = self.subs.each_ref().map(owned);
        let id = if let Key::Click(id) = key { *id } else { ClickId::from_bits(0) };
        ClickRef {
            id,
            time: self.time,
            link: self.home.link.clone(),
            dyn_: owned(&self.dyn_),
            sub1,
            sub2,
            sub3,
            sub4,
            sub5,
        }
    }

    pub fn data(&self, key: &Key) -> ClickData {
        let r = self.reference(key);
        ClickData {
            id: r.id,
            time: r.time,
            account: self.home.account.clone(),
            program: self.home.program.clone(),
            link: r.link,
            dyn_: r.dyn_,
            foreign: owned(&self.foreign),
            sub1: r.sub1,
            sub2: r.sub2,
            sub3: r.sub3,
            sub4: r.sub4,
            sub5: r.sub5,
            flags: Vec::new(),
        }
    }
}

impl Click {
    /// The click event as it would arrive on an empty state.
    pub fn as_event(&self, id: ClickId) -> event::Click {
        let [sub1, sub2, sub3, sub4, sub5] = self.subs.each_ref().map(owned);
        event::Click {
            id,
            account: self.home.account.clone(),
            program: self.home.program.clone(),
            link: self.home.link.clone(),
            time: self.time,
            dyn_: owned(&self.dyn_),
            foreign: owned(&self.foreign),
            sub1,
            sub2,
            sub3,
            sub4,
            sub5,
            flags: Vec::new(),
            agent: None,
            referrer: None,
            alias: owned(&self.alias),
            lookback_days: self.home.lookback_days,
            lifetime_days: 0,
            waiting_days: self.home.waiting_days,
        }
    }
}
