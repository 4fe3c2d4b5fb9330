//! A simulated operator: learns the click id from its landing URL, and fills the postback URL that it was given.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{client::Postback, stage::Account};

/// What happened to a player, in the operator's books.
#[derive(Clone, Debug, Default)]
pub struct Deed {
    pub goal: &'static str,
    /// `pending`, `approved`, `rejected`; empty: the operator sends none.
    pub state: &'static str,
    pub click: String,
    pub amount: Option<String>,
    pub tid: String,
    pub player: String,
    /// Placeholder kinds that the operator's system forgets to replace.
    pub left_raw: &'static [&'static str],
}

impl Account {
    /// The value of the parameter that this program looks for; `None` is an operator that would see nothing.
    pub fn click_of(&self, landing: &str) -> Option<String> {
        let url = url::Url::parse(landing).ok()?;
        url.query_pairs().find(|(name, _)| *name == self.program.click_param).map(|(_, value)| value.into_owned())
    }

    /// The URL for this goal, or the one URL of a program that has just one.
    pub fn postback(&self, deed: &Deed) -> Option<Postback> {
        let own = self.urls.iter().find(|u| u.goal.as_deref() == Some(deed.goal));
        let template = own.or_else(|| self.urls.iter().find(|u| u.goal.is_none()))?;
        let url = fill(&template.url, &self.program.placeholders, &self.values(deed), deed.left_raw);
        Some(Postback { url, body: None })
    }

    fn values(&self, deed: &Deed) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("click_id", deed.click.clone()),
            ("dyn", deed.click.clone()),
            ("amount", deed.amount.clone().unwrap_or_default()),
            ("currency", if deed.amount.is_some() { self.currency.clone() } else { String::new() }),
            ("tid", deed.tid.clone()),
            ("player", deed.player.clone()),
            ("status", self.status_word(deed).unwrap_or_else(|| deed.state.to_owned())),
            ("goal", deed.goal.to_owned()),
            ("event", deed.goal.to_owned()),
            ("value", deed.amount.clone().unwrap_or_default()),
        ])
    }

    /// The program's own word: for this goal if it has one, else for this state.
    fn status_word(&self, deed: &Deed) -> Option<String> {
        let part = |meaning: &Value, key: &str| meaning[key].as_str().map(str::to_owned);
        let state = |m: &Value| m.as_str().map(str::to_owned).or_else(|| part(m, "state"));
        let words = || self.program.statuses.iter();
        let of_goal = words().find(|(_, m)| {
            part(m, "goal").as_deref() == Some(deed.goal)
                && (deed.state.is_empty() || state(m).is_none_or(|s| s == deed.state))
        });
        let wanted = if deed.state.is_empty() { "approved" } else { deed.state };
        let of_state = || words().find(|(_, m)| part(m, "goal").is_none() && state(m).as_deref() == Some(wanted));
        of_goal.or_else(of_state).map(|(word, _)| word.clone())
    }
}

/// Replaces placeholders, longest first; a kind without a value becomes empty, as it does at most operators.
fn fill(
    template: &str,
    placeholders: &BTreeMap<String, String>,
    values: &BTreeMap<&str, String>,
    left_raw: &[&str],
) -> String {
    let mut kinds: Vec<(&String, &String)> = placeholders.iter().filter(|(_, p)| !p.is_empty()).collect();
    kinds.sort_by_key(|(_, placeholder)| std::cmp::Reverse(placeholder.len()));
    let mut url = template.to_owned();
    for (kind, placeholder) in kinds {
        if !left_raw.contains(&kind.as_str()) {
            url = url.replace(placeholder.as_str(), &encode(values.get(kind.as_str()).map_or("", String::as_str)));
        }
    }
    url
}

fn encode(value: &str) -> String {
    url::form_urlencoded::byte_serialize(value.as_bytes()).collect()
}

/// The same parameters in a body, as a form or as flat JSON.
pub fn in_body(postback: &Postback, json: bool) -> Postback {
    let Some((base, query)) = postback.url.split_once('?') else { return postback.clone() };
    let body = if json {
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        let object: serde_json::Map<String, Value> =
            pairs.map(|(name, value)| (name.into_owned(), Value::String(value.into_owned()))).collect();
        ("application/json", Value::Object(object).to_string())
    } else {
        ("application/x-www-form-urlencoded", query.to_owned())
    };
    Postback { url: base.to_owned(), body: Some(body) }
}

#[cfg(test)]
mod tests {
    use super::super::stage::{PostbackUrl, Program};
    use super::*;
    use serde_json::json;

    fn account(statuses: Value, urls: &[(Option<&str>, &str)], placeholders: Value) -> Account {
        Account {
            id: "a".into(),
            currency: "EUR".into(),
            program: Program {
                click_param: "c".into(),
                placeholders: serde_json::from_value(placeholders).unwrap(),
                statuses: serde_json::from_value(statuses).unwrap(),
            },
            urls: urls.iter().map(|(g, u)| PostbackUrl { goal: g.map(str::to_owned), url: (*u).into() }).collect(),
            links: vec![],
        }
    }

    #[test]
    fn reads_the_click_id_where_the_program_expects_it() {
        let account = account(json!({}), &[], json!({}));
        assert_eq!(account.click_of("https://o.example/?btag=1&c=abc#x").as_deref(), Some("abc"));
        assert_eq!(account.click_of("https://o.example/?clickid=abc"), None);
    }

    #[test]
    fn fills_the_url_of_the_goal() {
        let urls =
            [(Some("signups"), "http://h/p?dyn={c}&signups=1"), (Some("deposits"), "http://h/p?dyn={c}&e={amount}")];
        let account = account(json!({}), &urls, json!({ "click_id": "{c}", "amount": "{amount}" }));
        let deed = Deed { goal: "deposits", click: "a b".into(), amount: Some("1,5".into()), ..Deed::default() };
        assert_eq!(account.postback(&deed).unwrap().url, "http://h/p?dyn=a+b&e=1%2C5");
        let raw = Deed { left_raw: &["click_id"], ..deed };
        assert_eq!(account.postback(&raw).unwrap().url, "http://h/p?dyn={c}&e=1%2C5");
        assert_eq!(account.postback(&Deed { goal: "sales", ..Deed::default() }), None);
    }

    #[test]
    fn speaks_the_programs_own_status_words() {
        let statuses = json!({ "1": "approved", "2": "pending", "7": { "goal": "signups" }, "9": "ignore" });
        let account = account(statuses, &[(None, "http://h/p?c={s}&status={w}")], json!({ "status": "{w}" }));
        let word = |goal, state| account.status_word(&Deed { goal, state, ..Deed::default() });
        assert_eq!(word("signups", "").as_deref(), Some("7"));
        assert_eq!(word("sales", "").as_deref(), Some("1"));
        assert_eq!(word("sales", "pending").as_deref(), Some("2"));
        assert_eq!(word("sales", "rejected"), None);
    }

    #[test]
    fn a_body_says_the_same() {
        let get = Postback { url: "http://h/p?dyn=a%20b&signups=1".into(), body: None };
        let form = in_body(&get, false);
        assert_eq!((form.url.as_str(), form.body.unwrap().1.as_str()), ("http://h/p", "dyn=a%20b&signups=1"));
        assert_eq!(in_body(&get, true).body.unwrap().1, r#"{"dyn":"a b","signups":"1"}"#);
    }
}
