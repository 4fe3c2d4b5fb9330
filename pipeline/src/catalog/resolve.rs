//! The settings of an account: its own, else its program's, else the defaults.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
};

use schemas::{
    Currency,
    catalog::{Account, AccountGoal, Program},
    catalogue,
    goal::{self, Dedup, GoalSettings},
    settings::{AccountSettings, DEFAULT_REDACT},
    status::{self, StatusMap},
    word,
};

use super::ClickPlace;

const DEFAULT_GOAL: &str = "sales";
const DEFAULT_TIMEZONE: &str = "UTC";

static GOALS: LazyLock<Arc<Vec<GoalSettings>>> = LazyLock::new(|| Arc::new(goal::built_in()));
static REDACT: LazyLock<Arc<Vec<String>>> =
    LazyLock::new(|| Arc::new(DEFAULT_REDACT.iter().map(|name| (*name).to_owned()).collect()));
static BUILT_IN: LazyLock<BTreeMap<String, Dialect>> = LazyLock::new(|| {
    catalogue::built_in()
        .iter()
        .map(|program| (program.id.to_ascii_lowercase(), Dialect::of(program.clone())))
        .collect()
});

/// A program, with its status words laid over the default ones. Accounts without words of their own share this map.
#[derive(Clone, Debug)]
pub(super) struct Dialect {
    pub program: Arc<Program>,
    statuses: Arc<StatusMap>,
}

impl Dialect {
    pub(super) fn of(program: Program) -> Self {
        let mut statuses = status::default_map();
        status::lay_over(&mut statuses, &program.statuses);
        Self { program: Arc::new(program), statuses: Arc::new(statuses) }
    }

    /// Ids are found in any case.
    pub(super) fn built_in(id: &str) -> Option<&'static Dialect> {
        BUILT_IN.get(id).or_else(|| BUILT_IN.get(&id.to_ascii_lowercase()))
    }

    pub(super) fn all_built_in() -> impl Iterator<Item = &'static Dialect> {
        BUILT_IN.values()
    }

    /// The program of an account whose own is not known. It is always there.
    pub(super) fn generic() -> &'static Dialect {
        static NONE: LazyLock<Dialect> = LazyLock::new(|| {
            let program = catalogue::built_in().first().cloned();
            program.map_or_else(|| panic!("the catalogue of programs is empty"), Dialect::of)
        });
        Self::built_in(catalogue::GENERIC).unwrap_or(&NONE)
    }
}

pub(super) fn settings(tenant: &str, account: &Account, dialect: &Dialect) -> AccountSettings {
    let program = &dialect.program;
    let first = |own: &Option<String>, theirs: &Option<String>, default: &str| {
        own.clone().or_else(|| theirs.clone()).unwrap_or_else(|| default.to_owned())
    };
    AccountSettings {
        tenant: tenant.to_owned(),
        account: account.id.clone(),
        program: account.program.clone(),
        currency: account.currency.or(program.currency).unwrap_or(Currency::EUR),
        timezone: first(&account.timezone, &program.timezone, DEFAULT_TIMEZONE),
        lookback_days: account.lookback_days,
        lifetime_days: account.lifetime_days,
        waiting_days: account.waiting_days,
        max_count: account.max_count,
        strict: account.strict,
        paused: account.paused,
        goals: goals(&account.goals),
        statuses: statuses(&account.statuses, dialect),
        default_goal: first(&account.default_goal, &program.default_goal, DEFAULT_GOAL),
        dyn_mode: account.dyn_mode,
        click_called: click_called(program),
        redact: redact(account.redact.as_deref()),
    }
}

/// The generic program stands for nobody's system, so nothing is called anything there.
fn click_called(program: &Program) -> Option<String> {
    let placeholder = program.placeholders.get("click_id").filter(|_| program.id != catalogue::GENERIC)?;
    Some(format!("{} calls it {placeholder}.", program.name))
}

pub(super) fn click_place(account: &Account, program: &Program) -> ClickPlace {
    ClickPlace {
        param: account.click_param.clone().unwrap_or_else(|| program.click_param.clone()),
        place: program.click_in,
        value: program.click_value.clone(),
    }
}

fn statuses(own: &StatusMap, dialect: &Dialect) -> Arc<StatusMap> {
    if own.is_empty() {
        return Arc::clone(&dialect.statuses);
    }
    let mut map = StatusMap::clone(&dialect.statuses);
    status::lay_over(&mut map, own);
    Arc::new(map)
}

/// The built-in goals, changed by the account's goals of the same name; after them the account's other goals in their
/// order. A word that a goal of the account claims means no other goal any more.
fn goals(own: &[AccountGoal]) -> Arc<Vec<GoalSettings>> {
    if own.is_empty() {
        return Arc::clone(&GOALS);
    }
    let mut goals = goal::built_in();
    let words = |goal: &AccountGoal| goal.aliases.iter().map(|alias| alias.trim().to_lowercase()).collect::<Vec<_>>();
    let claimed: BTreeSet<String> =
        own.iter().flat_map(|goal| words(goal).into_iter().chain([goal.name.clone()])).map(|w| word::key(&w)).collect();
    for goal in &mut goals {
        goal.aliases.retain(|alias| !claimed.contains(&word::key(alias)));
    }
    for mine in own {
        let at = match goals.iter().position(|goal| goal.name.eq_ignore_ascii_case(&mine.name)) {
            Some(at) => at,
            None => {
                goals.push(custom(&mine.name));
                goals.len() - 1
            }
        };
        let goal = &mut goals[at];
        goal.dedup = mine.dedup.unwrap_or(goal.dedup);
        goal.repeat_window_s = mine.repeat_window_s.unwrap_or(goal.repeat_window_s);
        for word in words(mine) {
            if !goal.aliases.contains(&word) {
                goal.aliases.push(word);
            }
        }
    }
    Arc::new(goals)
}

fn custom(name: &str) -> GoalSettings {
    GoalSettings {
        name: name.to_owned(),
        dedup: Dedup::PerTransaction,
        repeat_window_s: schemas::bounds::DEFAULT_REPEAT_WINDOW_S,
        aliases: Vec::new(),
    }
}

fn redact(own: Option<&[String]>) -> Arc<Vec<String>> {
    let Some(own) = own else { return Arc::clone(&REDACT) };
    let mut names = Vec::clone(&REDACT);
    for name in own {
        let name = name.trim().to_lowercase();
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    Arc::new(names)
}
