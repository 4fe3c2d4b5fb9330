//! The settings of an account as the public edge uses them, resolved from account, program and defaults.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Currency, bounds, goal, goal::GoalSettings, status, status::StatusMap};

/// What a `dyn` of this account is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DynMode {
    /// It names one click (an alias).
    #[default]
    Click,
    /// It is a label of many clicks; a hit named by it alone is a conversion of that label.
    Campaign,
}

/// What `interpret` needs of an account. Everything is resolved: goals and maps are complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountSettings {
    pub tenant: String,
    pub account: String,
    pub program: String,
    pub currency: Currency,
    /// IANA name.
    pub timezone: String,
    pub lookback_days: u16,
    pub lifetime_days: u16,
    pub waiting_days: u16,
    pub max_count: u32,
    pub strict: bool,
    pub paused: bool,
    pub goals: Arc<Vec<GoalSettings>>,
    pub statuses: Arc<StatusMap>,
    pub default_goal: String,
    pub dyn_mode: DynMode,
    /// What the program calls the click id, as a sentence that completes a hint. `None` where it is not known.
    pub click_called: Option<String>,
    /// Lower-case names of parameters whose values are replaced by a keyed hash before anything is durable.
    pub redact: Arc<Vec<String>>,
}

pub const DEFAULT_REDACT: &[&str] = &[
    "ip",
    "user_ip",
    "client_ip",
    "ip_address",
    "phone",
    "phone_number",
    "msisdn",
    "mobile",
    "email",
    "e-mail",
    "mail",
    "first_name",
    "last_name",
    "full_name",
    "address",
    "birthdate",
    "dob",
];

impl AccountSettings {
    /// The defaults of an account of the `generic` program.
    pub fn generic(tenant: &str, account: &str) -> Self {
        Self {
            tenant: tenant.to_owned(),
            account: account.to_owned(),
            program: "generic".to_owned(),
            currency: Currency::EUR,
            timezone: "UTC".to_owned(),
            lookback_days: bounds::DEFAULT_LOOKBACK_DAYS,
            lifetime_days: bounds::DEFAULT_LIFETIME_DAYS,
            waiting_days: bounds::DEFAULT_WAITING_DAYS,
            max_count: bounds::DEFAULT_MAX_COUNT,
            strict: false,
            paused: false,
            goals: Arc::new(goal::built_in()),
            statuses: Arc::new(status::default_map()),
            default_goal: "sales".to_owned(),
            dyn_mode: DynMode::Click,
            click_called: None,
            redact: Arc::new(DEFAULT_REDACT.iter().map(|s| (*s).to_owned()).collect()),
        }
    }

    pub fn goal(&self, name: &str) -> Option<&GoalSettings> {
        self.goals.iter().find(|g| g.name == name)
    }
}
