use crate::{
    Currency, Reason, Time,
    event::Reading,
    interpret::{RawRequest, interpret, remarks::code},
    settings::AccountSettings,
};

fn read(query: &str, settings: &AccountSettings) -> Reading {
    let text = format!("dyn=a&ftd=1&{query}");
    let raw = RawRequest { method: "GET", query: text.as_bytes(), body: None, content_type: None };
    interpret(&raw, settings, Time::from_ms(1_800_000_000_000)).remove(0)
}

fn euros() -> AccountSettings {
    AccountSettings::generic("default", "acc")
}

/// Earning, value, currency and problem of the one goal.
fn money(reading: &Reading) -> (Option<String>, Option<String>, Option<&'static str>, Option<Reason>) {
    let money = &reading.goals[0].money;
    let shown = |amount: Option<crate::Amount>| amount.map(|a| a.to_string());
    (shown(money.earning), shown(money.value), reading.currency.map(Currency::code), money.problem)
}

fn detail<'r>(reading: &'r Reading, code: &str) -> Option<&'r str> {
    reading.corrections.iter().find(|c| c.code == code).map(|c| c.detail.as_str())
}

#[test]
fn currencies_as_they_are_sent() {
    for (text, currency) in [
        ("currency=%20usd%20", "USD"),
        ("currency=EURO", "EUR"),
        ("currency=978", "EUR"),
        ("currency=RUR", "RUB"),
        ("currency=RMB", "CNY"),
        ("currency=US$", "USD"),
        ("currency=$", "USD"),
        ("currency=USDT-TRC20", "USDT"),
        ("currency=usdt_erc20", "USDT"),
        ("currency=TRX", "TRX"),
        ("currency=EUR,eur", "EUR"),
        ("currency=", "EUR"),
        ("", "EUR"),
    ] {
        let reading = read(&format!("earning=5&{text}"), &euros());
        assert_eq!(money(&reading), (Some("5.00".into()), None, Some(currency), None), "{text}");
    }
    for text in ["COIN", "rub,usd,eur", "EUR/USD", "BYR", "XXX", "%C2%A5", "kr", "mBTC", "999"] {
        let reading = read(&format!("earning=5&value=20&currency={text}"), &euros());
        assert_eq!(money(&reading), (None, None, Some("EUR"), Some(Reason::InvalidCurrency)), "{text}");
        assert!(detail(&reading, code::CURRENCY).is_some(), "{text}");
    }
    let reading = read("earning=5&currency=rub,usd,eur", &euros());
    assert!(detail(&reading, code::CURRENCY).is_some_and(|d| d.contains("lists several")));
}

#[test]
fn the_accounts_currency_holds_where_none_came_and_decides_between_those_of_a_sign() {
    let settings = AccountSettings { currency: "RUB".parse().unwrap(), ..euros() };
    assert_eq!(money(&read("earning=5", &settings)).2, Some("RUB"));
    assert_eq!(money(&read("earning=5&currency={currency}", &settings)).2, Some("RUB"));
    assert_eq!(money(&read("earning=5&currency=USD", &settings)).2, Some("USD"));
    let crowns = AccountSettings { currency: "NOK".parse().unwrap(), ..euros() };
    assert_eq!(money(&read("earning=5+kr.", &crowns)), (Some("5.00".into()), None, Some("NOK"), None));
    assert_eq!(money(&read("earning=5+kr.", &euros())).3, Some(Reason::InvalidCurrency));
    assert_eq!(money(&read("earning=$5&value=$9", &euros())).2, Some("USD"));
    assert_eq!(money(&read("earning=$5&value=9+EUR", &euros())).3, Some(Reason::InvalidCurrency));
}

#[test]
fn why_an_amount_was_left_out_is_said() {
    for (amount, why) in [
        ("1,234", "thousands or decimals"),
        ("0.123456789", "8 decimal places"),
        ("1e15", "below 1000000000000"),
        ("50+coins", "beside the number"),
        ("soon", "plain decimal"),
    ] {
        let reading = read(&format!("earning={amount}"), &euros());
        assert_eq!((reading.reject, money(&reading).3), (None, Some(Reason::InvalidAmount)), "{amount}");
        assert!(detail(&reading, code::AMOUNT).is_some_and(|d| d.contains(why)), "{amount}: {:?}", reading.corrections);
    }
    let reading = read("earning=(5.00)", &euros());
    assert_eq!((money(&reading).0.as_deref(), detail(&reading, code::NEGATIVE).is_some()), (Some("-5.00"), true));
}

#[test]
fn money_under_an_unknown_name_is_no_money_but_is_said() {
    for text in
        ["income=5", "payment=5.50", "cash=5+EUR", "event_revenue_USD=5", "sum_rub=100", "CPA=50", "deposit=100"]
    {
        let reading = read(text, &euros());
        assert_eq!(money(&reading), (None, None, Some("EUR"), None), "{text}");
        assert!(detail(&reading, code::MONEY_UNREAD).is_some_and(|d| d.contains("send it as earning")), "{text}");
    }
    for text in
        ["payment_method=5", "income=high", "income={sum}", "income=", "earning=4&income=5", "value=3&price=5", "x=5"]
    {
        assert_eq!(detail(&read(text, &euros()), code::MONEY_UNREAD), None, "{text}");
    }
}
