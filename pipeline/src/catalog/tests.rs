//! The view as the stages see it.

use std::{collections::BTreeMap, sync::Arc};

use schemas::{
    Currency, Time,
    catalog::{
        Account, AccountGoal, Answer, AnswerMode, ApiKey, Body, Hmac, HmacAlgorithm, HmacEncoding, HmacOver, HmacPlace,
        Link, PreviousToken, Program, Record, ReprocessRequest, Scope,
    },
    catalogue,
    goal::Dedup,
    settings::DynMode,
    status::{Meaning, State},
    time::DAY_MS,
};

use super::{Applied, Catalog};
use crate::{Log, Sealer};

const NOW: Time = Time::from_ms(1_700_000_000_000);

struct World {
    dir: tempfile::TempDir,
    log: Log,
    catalog: Catalog,
    sealer: Arc<Sealer>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path()).unwrap();
        let sealer = Arc::new(Sealer::open_or_create(dir.path()).unwrap());
        let catalog = Catalog::load(&log.reader().unwrap(), Arc::clone(&sealer)).unwrap();
        Self { dir, log, catalog, sealer }
    }

    /// Writes a record as the writer of the log does: durable first, then applied.
    fn put(&mut self, tenant: &str, base: u64, body: Body) -> Applied {
        self.put_at(NOW, tenant, base, body)
    }

    fn put_at(&mut self, time: Time, tenant: &str, base: u64, body: Body) -> Applied {
        let seq = self.log.catalog_next();
        let record = Record { v: 1, id: format!("r{seq}"), tenant: tenant.into(), time, base, body };
        self.log.append(&[], &[(seq, serde_json::to_vec(&record).unwrap())]).unwrap();
        self.catalog.apply(&record)
    }

    fn account(&self, id: &str, token: &str) -> Account {
        Account {
            id: id.into(),
            name: id.to_uppercase(),
            program: "generic".into(),
            token: self.sealer.seal(token),
            previous_tokens: Vec::new(),
            currency: None,
            timezone: None,
            lookback_days: 90,
            lifetime_days: 1_825,
            waiting_days: 7,
            strict: false,
            max_count: 100,
            goals: Vec::new(),
            statuses: BTreeMap::new(),
            default_goal: None,
            click_param: None,
            dyn_mode: DynMode::Click,
            allow: Vec::new(),
            hmac: None,
            answer: AnswerMode::Json,
            rate_limit: None,
            redact: None,
            paused: false,
            archived: false,
            created: NOW,
        }
    }

    fn reload(&self) -> Catalog {
        Catalog::load(&self.log.reader().unwrap(), Arc::clone(&self.sealer)).unwrap()
    }
}

fn of(account: Account) -> Body {
    Body::Account(Box::new(account))
}

fn link(id: &str, account: &str) -> Body {
    let destination = "https://example.com/".to_owned();
    let (id, account, name) = (id.to_owned(), account.to_owned(), "n".to_owned());
    Body::Link(Link { id, account, name, destination, dyn_mode: None, archived: false, created: NOW })
}

fn program(id: &str) -> Program {
    Program { id: id.into(), ..catalogue::find("generic").unwrap().clone() }
}

fn key(id: &str, hash: &str, revoked: bool) -> Body {
    Body::Key(ApiKey { id: id.into(), name: "n".into(), scope: Scope::Read, hash: hash.into(), revoked, created: NOW })
}

fn answer(key: &str, time: Time) -> Body {
    let (key, request, sealed) = (key.to_owned(), "r".to_owned(), "s".to_owned());
    Body::Answer(Answer { key, request, status: 200, sealed, time })
}

#[test]
fn the_first_of_two_writers_wins_and_every_reader_agrees() {
    let mut world = World::new();
    let account = world.account("a", "tok");
    assert_eq!(world.put("t", 1, of(account.clone())), Applied::Stale, "there is no version 1 yet");
    assert_eq!(world.put("t", 0, of(account.clone())), Applied::Current);
    assert_eq!(world.put("t", 0, of(Account { name: "late".into(), ..account.clone() })), Applied::Stale);
    assert_eq!(world.put("t", 1, of(Account { name: "two".into(), ..account.clone() })), Applied::Current);
    assert_eq!(world.put("t", 1, of(Account { name: "three".into(), ..account })), Applied::Stale);
    for catalog in [&world.catalog, &world.reload()] {
        let view = catalog.view();
        let entry = view.account("t", "a").unwrap();
        assert_eq!((entry.version, entry.record.name.as_str(), entry.token.as_str()), (2, "two", "tok"));
        assert_eq!((view.version("t", "account/a"), view.version("u", "account/a")), (2, 0));
        assert!(view.account("u", "a").is_none());
        assert_eq!(view.tenants().collect::<Vec<_>>(), ["t"]);
    }
}

#[test]
fn a_view_that_is_held_does_not_change() {
    let mut world = World::new();
    let account = world.account("a", "tok");
    world.put("t", 0, of(account.clone())).expect_current();
    let held = world.catalog.view();
    world.put("t", 1, of(Account { name: "new".into(), token: world.sealer.seal("tok2"), ..account })).expect_current();
    assert_eq!(held.account("t", "a").unwrap().record.name, "A");
    assert!(held.by_token("tok", NOW).is_some() && held.by_token("tok2", NOW).is_none());
    assert!(world.catalog.view().by_token("tok", NOW).is_none());
}

#[test]
fn older_tokens_are_taken_until_their_time() {
    let mut world = World::new();
    world.put("t", 0, of(world.account("a", "one"))).expect_current();
    let until = NOW.plus_ms(1_000);
    let older = PreviousToken { token: world.sealer.seal("one"), valid_until: until };
    let rotated = Account { previous_tokens: vec![older], archived: true, paused: true, ..world.account("a", "two") };
    world.put("t", 1, of(rotated)).expect_current();
    let view = world.catalog.view();
    let id = |token, now| view.by_token(token, now).map(|account| account.record.id.clone());
    assert_eq!(id("two", NOW).as_deref(), Some("a"), "archived accounts go on");
    assert_eq!(id("one", until.plus_ms(-1)).as_deref(), Some("a"));
    assert_eq!((id("one", until), id("", NOW), id("three", NOW)), (None, None, None));
    assert!(view.by_token("two", NOW).unwrap().settings.paused);

    world.put("t", 2, of(world.account("a", "two"))).expect_current();
    assert!(world.catalog.view().by_token("one", NOW).is_none(), "dropped from the record, dropped from the index");
}

#[test]
fn links_come_with_their_account_as_it_is_now() {
    let mut world = World::new();
    assert_eq!(world.put("t", 0, link("l2", "a")), Applied::Current);
    assert!(world.catalog.view().link("l2").is_none(), "its account is not known yet");
    world.put("t", 0, of(world.account("a", "tok"))).expect_current();
    world.put("t", 0, of(world.account("ab", "tok-ab"))).expect_current();
    world.put("t", 0, link("l1", "a")).expect_current();
    world.put("t", 0, link("l3", "ab")).expect_current();
    assert_eq!(world.put("u", 0, link("l1", "x")), Applied::Stale, "the id belongs to another tenant");
    world.put("t", 1, of(Account { strict: true, archived: true, ..world.account("a", "tok") })).expect_current();
    let view = world.catalog.view();
    let entry = view.link("l1").unwrap();
    assert_eq!((entry.tenant.as_str(), entry.version, entry.account.version), ("t", 1, 2));
    assert!(entry.account.settings.strict);
    let ids = |account| view.links("t", account).map(|link| link.record.id.clone()).collect::<Vec<_>>();
    assert_eq!((ids("a"), ids("ab"), ids("b")), (vec!["l1".into(), "l2".into()], vec!["l3".into()], vec![]));
    assert_eq!(view.accounts("t").map(|a| a.record.id.clone()).collect::<Vec<_>>(), ["a", "ab"]);
    assert_eq!(view.accounts("").count() + view.accounts("u").count(), 0);
}

#[test]
fn settings_come_from_the_account_then_the_program_then_the_defaults() {
    let mut world = World::new();
    world.put("t", 0, of(world.account("plain", "p"))).expect_current();
    let own = Program {
        click_param: "sub".into(),
        currency: Some(Currency::USD),
        default_goal: Some("deposits".into()),
        timezone: Some("Europe/Malta".into()),
        statuses: [("1", Meaning::state(State::Pending)), ("Trash", Meaning { ignore: true, ..Meaning::default() })]
            .map(|(word, meaning)| (word.to_owned(), meaning))
            .into(),
        ..program("own")
    };
    world.put("t", 0, Body::Program(Box::new(own))).expect_current();
    world.put("t", 0, of(Account { program: "own".into(), ..world.account("b", "b") })).expect_current();
    let changed = Account {
        program: "own".into(),
        currency: Some("GBP".parse().unwrap()),
        default_goal: Some("signups".into()),
        click_param: Some("mine".into()),
        statuses: [("1".to_owned(), Meaning::state(State::Approved))].into(),
        redact: Some(vec!["SSN".into(), "email".into()]),
        ..world.account("c", "c")
    };
    world.put("t", 0, of(changed)).expect_current();
    let view = world.catalog.view();
    let settings = |id| view.account("t", id).unwrap().settings.clone();

    let plain = settings("plain");
    assert_eq!(*plain, schemas::settings::AccountSettings::generic("t", "plain"));
    assert_eq!(view.account("t", "plain").unwrap().click.param, "click_id");
    let b = settings("b");
    assert_eq!((b.currency, b.default_goal.as_str(), b.timezone.as_str()), (Currency::USD, "deposits", "Europe/Malta"));
    assert_eq!((b.statuses["1"].state, b.statuses["trash"].ignore), (Some(State::Pending), true));
    assert_eq!(b.statuses["approved"], Meaning::state(State::Approved), "default words stay");
    assert_eq!(view.account("t", "b").unwrap().click.param, "sub");
    let c = settings("c");
    assert_eq!((c.currency.code(), c.default_goal.as_str()), ("GBP", "signups"));
    assert_eq!((c.statuses["1"].state, c.statuses["trash"].ignore), (Some(State::Approved), true));
    assert_eq!(view.account("t", "c").unwrap().click.param, "mine");
    assert_eq!(c.redact.len(), plain.redact.len() + 1);
    assert!(c.redact.contains(&"ssn".to_owned()));
    assert!(Arc::ptr_eq(&plain.goals, &b.goals), "what is not changed is shared");
}

#[test]
fn a_changed_program_changes_the_accounts_that_use_it() {
    let mut world = World::new();
    world.put("t", 0, of(Account { program: "own".into(), ..world.account("a", "tok") })).expect_current();
    world.put("u", 0, of(Account { program: "own".into(), ..world.account("a", "tok-u") })).expect_current();
    world.put("t", 0, of(world.account("b", "tok-b"))).expect_current();
    let currency = |world: &World, tenant| world.catalog.view().account(tenant, "a").unwrap().settings.currency;
    assert_eq!(currency(&world, "t"), Currency::EUR, "its program is not known");
    let own = Program { currency: Some(Currency::USD), click_param: "p".into(), ..program("own") };
    world.put("t", 0, Body::Program(Box::new(own.clone()))).expect_current();
    assert_eq!((currency(&world, "t"), currency(&world, "u")), (Currency::USD, Currency::EUR));
    let view = world.catalog.view();
    let by_token = view.by_token("tok", NOW).unwrap();
    assert_eq!((by_token.settings.currency, by_token.version, by_token.click.param.as_str()), (Currency::USD, 1, "p"));
    assert_eq!(view.account("t", "b").unwrap().settings.currency, Currency::EUR);

    // A tenant's own program takes the place of a built-in one of the same id, for this tenant.
    assert_eq!(view.program("t", "generic").unwrap().click_param, "click_id");
    let mine = Program { click_param: "x".into(), ..program("generic") };
    world.put("t", 0, Body::Program(Box::new(mine))).expect_current();
    let view = world.catalog.view();
    assert_eq!(view.program("t", "generic").unwrap().click_param, "x");
    assert_eq!(view.program("u", "generic").unwrap().click_param, "click_id");
    assert_eq!(view.account("t", "b").unwrap().click.param, "x");
    let ids: Vec<_> = view.programs("t").map(|program| program.id.clone()).collect();
    assert_eq!(ids.len(), catalogue::built_in().len() + 1);
    assert!(ids.is_sorted() && ids.contains(&"own".to_owned()));
    assert!(view.program("u", "own").is_none());
}

#[test]
fn goals_of_an_account_change_built_in_ones_and_add_others() {
    let mut world = World::new();
    let goal = |name: &str, dedup, repeat_window_s, aliases: &[&str]| AccountGoal {
        name: name.into(),
        dedup,
        repeat_window_s,
        aliases: aliases.iter().map(|a| (*a).to_owned()).collect(),
    };
    let goals = vec![
        goal("deposits", Some(Dedup::Every), None, &["Topup"]),
        goal("vip", None, Some(60), &["lead"]),
        goal("cpa", Some(Dedup::Once), None, &[]),
    ];
    world.put("t", 0, of(Account { goals, ..world.account("a", "tok") })).expect_current();
    let settings = world.catalog.view().account("t", "a").unwrap().settings.clone();
    let names: Vec<_> = settings.goals.iter().map(|goal| goal.name.as_str()).collect();
    assert_eq!(names, ["signups", "firsttimedeposits", "deposits", "sales", "qualified", "revshare", "vip", "cpa"]);
    let deposits = settings.goal("deposits").unwrap();
    assert_eq!((deposits.dedup, deposits.repeat_window_s), (Dedup::Every, 600));
    assert!(deposits.aliases.contains(&"topup".to_owned()) && deposits.aliases.contains(&"dep".to_owned()));
    let vip = settings.goal("vip").unwrap();
    assert_eq!((vip.dedup, vip.repeat_window_s), (Dedup::PerTransaction, 60));
    for (goal, word) in [("signups", "lead"), ("qualified", "cpa")] {
        let taken = settings.goal(goal).unwrap().aliases.contains(&word.to_owned());
        assert!(!taken, "`{word}` means the account's own goal now");
    }
}

#[test]
fn addresses_and_signatures_fail_closed() {
    let mut world = World::new();
    let allowed =
        |world: &World, address: &str| world.catalog.view().account("t", "a").unwrap().allows(address.parse().unwrap());
    world.put("t", 0, of(world.account("a", "tok"))).expect_current();
    assert!(allowed(&world, "203.0.113.1"));
    let allow = vec!["198.51.100.0/24".to_owned(), "2001:db8::/32".to_owned(), "192.0.2.7".to_owned()];
    world.put("t", 1, of(Account { allow, ..world.account("a", "tok") })).expect_current();
    for yes in ["198.51.100.9", "::ffff:198.51.100.9", "2001:db8:1::1", "192.0.2.7"] {
        assert!(allowed(&world, yes), "{yes}");
    }
    assert!(!allowed(&world, "203.0.113.1") && !allowed(&world, "192.0.2.8"));

    let hmac = Hmac {
        algorithm: HmacAlgorithm::Sha256,
        place: HmacPlace::Header,
        name: "x".into(),
        over: HmacOver::Query,
        encoding: HmacEncoding::Hex,
        secret: world.sealer.seal("secret"),
    };
    world.put("t", 2, of(Account { hmac: Some(hmac.clone()), ..world.account("a", "tok") })).expect_current();
    assert_eq!(world.catalog.view().account("t", "a").unwrap().hmac_secret.as_deref(), Some(b"secret".as_slice()));

    let foreign = Sealer::from_text(&"ab".repeat(32)).unwrap();
    let broken = Account {
        token: foreign.seal("tok"),
        hmac: Some(Hmac { secret: foreign.seal("secret"), ..hmac }),
        allow: vec!["nonsense".into()],
        ..world.account("a", "tok")
    };
    assert_eq!(world.put("t", 3, of(broken)), Applied::Current, "the version moves as for every reader");
    let entry = world.catalog.view().account("t", "a").unwrap();
    assert_eq!((entry.token.as_str(), &entry.hmac_secret), ("", &None));
    assert!(!allowed(&world, "203.0.113.1"));
    assert!(world.catalog.view().by_token("tok", NOW).is_none() && world.catalog.view().by_token("", NOW).is_none());
    assert!(!format!("{entry:?}").contains("secret"));
}

#[test]
fn a_folder_with_another_key_is_refused() {
    let mut world = World::new();
    world.put("t", 0, of(world.account("a", "tok"))).expect_current();
    std::fs::remove_file(world.dir.path().join("key")).unwrap();
    let other = Arc::new(Sealer::open_or_create(world.dir.path()).unwrap());
    let error = Catalog::load(&world.log.reader().unwrap(), other).err().unwrap();
    let text = format!("{error:#}");
    assert!(text.contains("is this the key") && text.contains("account a"), "{text}");
}

#[test]
fn keys_are_found_by_hash_until_they_are_revoked() {
    let mut world = World::new();
    world.put("t", 0, key("k1", "h1", false)).expect_current();
    world.put("t", 0, key("k2", "h2", false)).expect_current();
    world.put("t", 1, key("k1", "h1", true)).expect_current();
    let view = world.catalog.view();
    assert!(view.key_by_hash("h1").is_none());
    let (tenant, found) = view.key_by_hash("h2").unwrap();
    assert_eq!((tenant.as_str(), found.id.as_str()), ("t", "k2"));
    assert_eq!(
        view.keys("t").map(|key| (key.id, key.revoked)).collect::<Vec<_>>(),
        [("k1".into(), true), ("k2".into(), false)]
    );
    assert_eq!(view.keys("u").count(), 0);
}

#[test]
fn answers_are_forgotten_after_a_day_and_their_key_is_free_again() {
    let mut world = World::new();
    world.put("t", 0, answer("k", NOW)).expect_current();
    world.put_at(NOW.plus_ms(DAY_MS - 1), "t", 0, answer("other", NOW.plus_ms(DAY_MS - 1))).expect_current();
    assert!(world.catalog.view().answer("t", "k").is_some() && world.catalog.view().answer("u", "k").is_none());
    let later = NOW.plus_ms(DAY_MS);
    assert_eq!(world.put_at(later, "t", 1, answer("k", later)), Applied::Stale, "it was forgotten by then");
    assert!(world.catalog.view().answer("t", "k").is_none());
    assert_eq!(world.catalog.view().version("t", "answer/k"), 0);
    assert_eq!(world.put_at(later, "t", 0, answer("k", later)), Applied::Current);
    for catalog in [&world.catalog, &world.reload()] {
        assert_eq!(catalog.view().answer("t", "k").unwrap().time, later);
        assert!(catalog.view().answer("t", "other").is_some());
    }
}

#[test]
fn open_reprocesses_are_found_again() {
    let mut world = World::new();
    let request = |id: &str, done| {
        Body::Reprocess(ReprocessRequest {
            id: id.into(),
            account: "a".into(),
            from: NOW,
            to: NOW,
            reason: None,
            dry_run: false,
            done,
            hits: 0,
            changed: 0,
            receipt: None,
            problems: Vec::new(),
            created: NOW,
        })
    };
    world.put("t", 0, request("one", false)).expect_current();
    world.put("u", 0, request("two", false)).expect_current();
    world.put("t", 1, request("one", true)).expect_current();
    let view = world.reload().view();
    assert!(view.reprocess("t", "one").unwrap().done);
    let open: Vec<_> = view.open_reprocesses().map(|(tenant, request)| (tenant, request.id.clone())).collect();
    assert_eq!(open, [("u".to_owned(), "two".to_owned())]);
}

#[test]
fn thousands_of_accounts_and_links_are_all_found() {
    let mut world = World::new();
    let tokens: Vec<_> = (0..3_000).map(|n| format!("token{n}")).collect();
    for (n, token) in tokens.iter().enumerate() {
        let record = |id: &str, body| Record { v: 1, id: id.into(), tenant: "t".into(), time: NOW, base: 0, body };
        let account = world.account(&format!("a{n}"), token);
        world.catalog.apply(&record("r", of(account))).expect_current();
        world.catalog.apply(&record("r", link(&format!("l{n}"), &format!("a{n}")))).expect_current();
    }
    let view = world.catalog.view();
    assert_eq!(view.accounts("t").count(), 3_000);
    for (n, token) in tokens.iter().enumerate() {
        assert_eq!(view.by_token(token, NOW).unwrap().record.id, format!("a{n}"));
        assert_eq!(view.link(&format!("l{n}")).unwrap().account.record.id, format!("a{n}"));
    }
    let all_use_it = Program { currency: Some(Currency::USD), ..program("generic") };
    world.put("t", 0, Body::Program(Box::new(all_use_it))).expect_current();
    assert!(world.catalog.view().accounts("t").all(|account| account.settings.currency == Currency::USD));
    assert_eq!(view.account("t", "a0").unwrap().settings.currency, Currency::EUR, "held views stay");
}

impl Applied {
    fn expect_current(self) {
        assert_eq!(self, Applied::Current);
    }
}
