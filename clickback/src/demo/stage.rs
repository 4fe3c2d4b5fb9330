//! The demo tenant: accounts on several programs and their links, made through the API as a person would.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::client::Client;

struct Plan {
    name: &'static str,
    program: &'static str,
    currency: &'static str,
    /// What differs from the defaults.
    settings: fn() -> Value,
    links: &'static [(&'static str, &'static str)],
}

/// Operators are made up; the programs and their dialects are those of the catalogue.
const PLANS: &[Plan] = &[
    Plan {
        name: "Northwind Casino",
        program: "income-access",
        currency: "EUR",
        settings: || json!({}),
        links: &[
            ("Welcome page", "https://northwind.example/welcome?btag=a_101"),
            ("Slots", "https://northwind.example/slots?btag=a_102"),
        ],
    },
    Plan {
        name: "Harbour Bets",
        program: "cellxpert",
        currency: "EUR",
        settings: || json!({}),
        links: &[("Football", "https://harbour.example/football?affid=77")],
    },
    Plan {
        name: "Amber Poker",
        program: "affilka",
        currency: "GBP",
        settings: || json!({}),
        links: &[("Sunday league", "https://amber.example/league#sign-up")],
    },
    Plan {
        name: "Violet Network",
        program: "affise",
        currency: "USD",
        settings: || json!({}),
        links: &[("Offer 12", "https://violet.example/click?pid=5&offer_id=12")],
    },
    Plan {
        name: "Orchard Media",
        program: "everflow",
        currency: "USD",
        settings: || json!({}),
        links: &[("Finance", "https://orchard.example/2CTPL/9B9DM/")],
    },
    Plan {
        name: "Copper Offers",
        program: "tune",
        currency: "USD",
        settings: || json!({}),
        links: &[("App install", "https://copper.example/aff_c?offer_id=31&aff_id=9")],
    },
    Plan {
        name: "Canyon Leads",
        program: "cake",
        currency: "USD",
        settings: || json!({}),
        links: &[("Insurance", "https://canyon.example/?a=3&c=14")],
    },
    Plan {
        name: "Own shop",
        program: "generic",
        currency: "EUR",
        settings: || json!({ "waiting_days": 0, "goals": [{ "name": "trial", "dedup": "once" }] }),
        links: &[("Spring sale", "https://shop.example/spring?ref=cb")],
    },
];

#[derive(Deserialize)]
struct List {
    items: Vec<Value>,
}

#[derive(Deserialize, Clone, Debug)]
pub struct Program {
    #[serde(default)]
    pub click_param: String,
    #[serde(default)]
    pub placeholders: BTreeMap<String, String>,
    #[serde(default)]
    pub statuses: BTreeMap<String, Value>,
}

#[derive(Deserialize, Clone, Debug)]
pub struct PostbackUrl {
    pub goal: Option<String>,
    pub url: String,
}

#[derive(Deserialize)]
struct PostbackUrls {
    supported: bool,
    #[serde(default)]
    urls: Vec<PostbackUrl>,
}

/// An account, with what its operator was told.
#[derive(Clone, Debug)]
pub struct Account {
    pub id: String,
    pub currency: String,
    pub program: Program,
    pub urls: Vec<PostbackUrl>,
    pub links: Vec<String>,
}

/// Makes what is missing, so that a folder that was used before goes on as it was.
pub async fn set(client: &Client) -> anyhow::Result<Vec<Account>> {
    let present: List = client.get("/v1/accounts?limit=1000").await?;
    let mut accounts = Vec::new();
    for plan in PLANS {
        let found = present.items.iter().find(|a| a["name"] == plan.name);
        let account = match found {
            Some(account) => account.clone(),
            None => client.post("/v1/accounts", &request(plan)).await?,
        };
        accounts.push(complete(client, plan, &account).await?);
    }
    Ok(accounts)
}

fn request(plan: &Plan) -> Value {
    let mut body = json!({ "name": plan.name, "program": plan.program, "currency": plan.currency });
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), (plan.settings)()) {
        body.extend(more);
    }
    body
}

async fn complete(client: &Client, plan: &Plan, account: &Value) -> anyhow::Result<Account> {
    let id = account["id"].as_str().unwrap_or_default().to_owned();
    let present: List = client.get(&format!("/v1/accounts/{id}/links?limit=1000")).await?;
    let mut links = Vec::new();
    for (name, destination) in plan.links {
        let found = present.items.iter().find(|l| l["name"] == *name);
        let link = match found {
            Some(link) => link.clone(),
            None => {
                let body = json!({ "name": name, "destination": destination });
                client.post(&format!("/v1/accounts/{id}/links"), &body).await?
            }
        };
        links.push(link["url"].as_str().unwrap_or_default().to_owned());
    }
    let program: Program = client.get(&format!("/v1/programs/{}", plan.program)).await?;
    let urls: PostbackUrls = client.get(&format!("/v1/accounts/{id}/postback-urls")).await?;
    anyhow::ensure!(urls.supported && !urls.urls.is_empty(), "{} has no postback URLs to play with", plan.program);
    Ok(Account { id, currency: plan.currency.to_owned(), program, urls: urls.urls, links })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_how_accounts_are_found_again() {
        let names: std::collections::BTreeSet<_> = PLANS.iter().map(|p| p.name).collect();
        assert_eq!(names.len(), PLANS.len());
        assert!(PLANS.iter().all(|p| !p.links.is_empty()));
    }
}
