use super::*;
use crate::Time;
use proptest::prelude::*;

const NO_SUBS: [Option<&str>; 5] = [None; 5];

fn id() -> ClickId {
    ClickId::new(Time::from_ms(1_700_000_000_000), 7, 99)
}

fn plain(template: &str) -> String {
    destination(template, "c", ClickIn::Query, "{click_id}", Some(&id()), None, NO_SUBS)
}

fn without(template: &str) -> String {
    destination(template, "c", ClickIn::Query, "{click_id}", None, None, NO_SUBS)
}

#[test]
fn the_click_parameter_is_added() {
    let id = id();
    for (template, expected) in [
        ("https://op.example", format!("https://op.example?c={id}")),
        ("https://op.example/", format!("https://op.example/?c={id}")),
        ("https://op.example/a?", format!("https://op.example/a?c={id}")),
        ("https://op.example/a?x=1", format!("https://op.example/a?x=1&c={id}")),
        ("https://op.example/a?x=1&", format!("https://op.example/a?x=1&c={id}")),
        ("https://op.example/a?x=why?", format!("https://op.example/a?x=why?&c={id}")),
        ("https://op.example/a&", format!("https://op.example/a&?c={id}")),
        ("https://op.example/a#top", format!("https://op.example/a?c={id}#top")),
        ("https://op.example/a?x=%2f+%zz&&y#q?c=1", format!("https://op.example/a?x=%2f+%zz&&y&c={id}#q?c=1")),
        ("https://op.example:8443/?C=1&cc=2", format!("https://op.example:8443/?C=1&cc=2&c={id}")),
    ] {
        assert_eq!(plain(template), expected);
    }
}

#[test]
fn a_click_parameter_that_is_there_is_replaced() {
    let id = id();
    assert_eq!(plain("https://op.example/?c=old&x=1#f"), format!("https://op.example/?c={id}&x=1#f"));
    assert_eq!(plain("https://op.example/?x=1&c&y=2"), format!("https://op.example/?x=1&c={id}&y=2"));
    assert_eq!(plain("https://op.example/?c=1&x=1&c=2"), format!("https://op.example/?c={id}&x=1"));
    assert_eq!(plain("https://op.example/?%63=1"), format!("https://op.example/?%63={id}"));
    assert_eq!(plain("https://op.example/?c={dyn}"), format!("https://op.example/?c={id}"));
}

#[test]
fn a_destination_with_a_click_id_gets_nothing_appended() {
    let id = id();
    for (template, expected) in [
        ("https://op.example/?s={click_id}&c=keep", format!("https://op.example/?s={id}&c=keep")),
        ("https://op.example/?s=%7Bclick_id%7d", format!("https://op.example/?s={id}")),
        ("https://op.example/go/{click_id}/x", format!("https://op.example/go/{id}/x")),
        ("https://op.example/#{click_id}", format!("https://op.example/#{id}")),
        ("https://op.example/?a={click_id}-{click_id}", format!("https://op.example/?a={id}-{id}")),
    ] {
        assert_eq!(plain(template), expected);
    }
}

#[test]
fn placeholders_are_replaced_once_and_encoded() {
    let subs = [Some("a&b=c#d"), None, Some("{dyn}"), Some("é ü"), Some("5")];
    let out = destination(
        "https://op.example/{sub1}?d={dyn}&1={sub1}&2={sub2}&3={sub3}&4={sub4}&5={sub5}&6={sub6}&0={sub0}&n={nope}#{dyn}",
        "c",
        ClickIn::Query,
        "{click_id}",
        Some(&id()),
        Some("{click_id}+%41"),
        subs,
    );
    let expected = format!(
        "https://op.example/a%26b%3Dc%23d?d=%7Bclick_id%7D%2B%2541&1=a%26b%3Dc%23d&2=&3=%7Bdyn%7D&4=%C3%A9%20%C3%BC\
         &5=5&6={{sub6}}&0={{sub0}}&n={{nope}}&c={}#%7Bclick_id%7D%2B%2541",
        id()
    );
    assert_eq!(out, expected);
}

#[test]
fn without_a_click_id_no_click_parameter_is_set() {
    assert_eq!(without("https://op.example/?x=1#f"), "https://op.example/?x=1#f");
    assert_eq!(without("https://op.example/?c=old&x=1"), "https://op.example/?x=1");
    assert_eq!(without("https://op.example/?c=old#f"), "https://op.example/#f");
    assert_eq!(without("https://op.example/?s={click_id}&x=1"), "https://op.example/?x=1");
    assert_eq!(without("https://op.example/a/{click_id}"), "https://op.example/a/");
    let path = destination("https://op.example/a", "", ClickIn::Path, "{click_id}", None, None, NO_SUBS);
    assert_eq!(path, "https://op.example/a");
}

#[test]
fn in_a_path_the_id_is_the_last_part() {
    let path = |template: &str| destination(template, "", ClickIn::Path, "r-{click_id}", Some(&id()), None, NO_SUBS);
    assert_eq!(path("https://op.example"), format!("https://op.example/r-{}", id()));
    assert_eq!(path("https://op.example/c/1/?x=1#f"), format!("https://op.example/c/1/r-{}?x=1#f", id()));
    assert_eq!(path("https://op.example/c/{click_id}/1"), format!("https://op.example/c/{}/1", id()));
}

#[test]
fn a_click_value_may_hold_more_than_the_id() {
    let out = destination(
        "https://o.example/?promo=x",
        "promo",
        ClickIn::Query,
        "{click_id}|k=v&w",
        Some(&id()),
        None,
        NO_SUBS,
    );
    assert_eq!(out, format!("https://o.example/?promo={}%7Ck%3Dv%26w", id()));
    let out = destination("https://o.example/", "s[1] ü", ClickIn::Query, "{click_id}", Some(&id()), None, NO_SUBS);
    assert_eq!(out, format!("https://o.example/?s%5B1%5D%20%C3%BC={}", id()));
}

#[test]
fn what_a_header_cannot_hold_is_encoded() {
    assert_eq!(without("https://op.example/a b?ü=1#é"), "https://op.example/a%20b?%C3%BC=1#%C3%A9");
}

#[test]
fn good_destinations_are_taken() {
    for good in [
        "https://op.example",
        "HTTP://op.example:8080/a?b={click_id}#c",
        "https://op.example/a%20b/ü?x=1&y={sub1}#/spa?z=@",
        "http://127.0.0.1:9/x",
        "https://[::1]:8080/",
        "https://xn--bcher-kva.example/",
        "https://op.example/?next=https://a:b@c.example/",
    ] {
        assert_eq!(check_destination(good), Ok(()), "{good}");
    }
}

#[test]
fn bad_destinations_are_refused_with_a_reason() {
    let long = format!("https://op.example/{}", "x".repeat(bounds::DESTINATION_BYTES));
    for (bad, reason) in [
        ("", "absolute"),
        ("op.example/a", "absolute"),
        ("/a", "absolute"),
        ("//op.example/a", "absolute"),
        ("https:op.example", "absolute"),
        ("javascript://op.example/%0Aalert(1)", "absolute"),
        ("ftp://op.example/", "absolute"),
        ("https://", "host"),
        ("https:///{dyn}/", "host"),
        ("https://:80/", "not a valid address"),
        ("https:///a", "host"),
        ("https://op.example/\r\nSet-Cookie: a=b", "control"),
        ("https://op.example/\u{85}", "control"),
        (" https://op.example/", "space"),
        ("https://user@op.example/", "user name"),
        ("https://a:b@op.example/", "user name"),
        ("https://{dyn}/", "placeholder"),
        ("https://{sub1}.op.example/", "placeholder"),
        ("https://op.example:{sub1}/", "placeholder"),
        ("https://%7Bdyn%7D/", "placeholder"),
        ("https://op.example\\@evil.example/", "backslash"),
        ("https://bücher.example/", "write xn--bcher-kva.example"),
        ("https://op.example:99999/", "port"),
        (&long, "4096 bytes"),
    ] {
        let error = check_destination(bad).expect_err(bad);
        assert!(error.contains(reason), "{bad}: {error}");
    }
}

/// Destinations of many shapes; most of them may be stored.
fn any_template() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-z]{1,4}=[a-z0-9%+]{0,5}",
        Just("c=old".to_owned()),
        Just("d={dyn}".to_owned()),
        Just("{sub2}".to_owned()),
        Just("q=ü é".to_owned()),
        Just(String::new()),
    ];
    let query = proptest::collection::vec(piece, 0..5).prop_map(|pairs| pairs.join("&"));
    ("(/[a-z%{}ü]{0,4}){0,3}", proptest::option::of(query), proptest::option::of("[a-z?&=/{}]{0,8}")).prop_map(
        |(path, query, fragment)| {
            let query = query.map(|q| format!("?{q}")).unwrap_or_default();
            let fragment = fragment.map(|f| format!("#{f}")).unwrap_or_default();
            format!("https://op.example{path}{query}{fragment}")
        },
    )
}

fn decoded(url: &str) -> Vec<(String, String)> {
    Url::parse(url).unwrap().query_pairs().into_owned().collect()
}

proptest! {
    #[test]
    fn the_parameter_is_there_once_and_the_rest_is_kept(template in any_template()) {
        prop_assume!(check_destination(&template).is_ok());
        let out = plain(&template);
        let (of_ours, others): (Vec<_>, Vec<_>) = decoded(&out).into_iter().partition(|(name, _)| name == "c");
        prop_assert_eq!(of_ours, vec![("c".to_owned(), id().to_string())]);
        prop_assert_eq!(others.len(), decoded(&without(&template)).len());
        // Taking the parameter out again gives the redirect without a click, byte for byte.
        let pair = format!("c={}", id());
        let rest = without(&template);
        let candidates = [
            out.replacen(&format!("{pair}&"), "", 1),
            out.replacen(&format!("&{pair}"), "", 1),
            out.replacen(&format!("?{pair}"), "", 1),
            out.replacen(&pair, "", 1),
        ];
        prop_assert!(candidates.contains(&rest), "{out} and {rest}");
    }

    #[test]
    fn without_placeholders_all_bytes_are_kept(path in "(/[!$-;=@-Z_a-z~]{0,6}){0,3}", query in "[!$-%'-;=?-Z_a-z~&]{0,12}", fragment in "[!-~]{0,8}") {
        let template = format!("https://op.example{path}?{query}#{fragment}");
        prop_assume!(query.split('&').all(|pair| !is_name(pair.split('=').next().unwrap(), "c")));
        prop_assume!(!template.contains(['{']) && !template.to_lowercase().contains("%7b"));
        prop_assert_eq!(&without(&template), &template);
        let out = plain(&template);
        let open = query.is_empty() || query.ends_with('&');
        let expected = format!("https://op.example{path}?{query}{}c={}#{fragment}", if open { "" } else { "&" }, id());
        prop_assert_eq!(out, expected);
    }

    #[test]
    fn a_visitor_reaches_neither_the_host_nor_other_parameters(template in any_template(), dyn_value in ".{0,20}", sub in ".{0,20}") {
        prop_assume!(check_destination(&template).is_ok());
        let subs = [Some(sub.as_str()); 5];
        let out = destination(&template, "c", ClickIn::Query, "{click_id}", Some(&id()), Some(&dyn_value), subs);
        let url = Url::parse(&out).unwrap();
        prop_assert_eq!(url.host_str(), Some("op.example"));
        prop_assert_eq!(url.port(), None);
        prop_assert!(out.bytes().all(|b| b.is_ascii_graphic()), "{}", out);
        let calm = destination(&template, "c", ClickIn::Query, "{click_id}", Some(&id()), Some("v"), [Some("w"); 5]);
        let shape = |url: &str| {
            let (rest, fragment) = split(url, '#');
            let (path, query) = split(rest, '?');
            let parameters = query.map(|q| q.split('&').count());
            (path.split('/').count(), parameters, fragment.is_some())
        };
        prop_assert_eq!(shape(&out), shape(&calm));
    }

    #[test]
    fn values_come_through_whole(dyn_value in any::<String>(), sub in any::<String>()) {
        let out = destination(
            "https://op.example/?d={dyn}&s=%7bsub3%7D", "c", ClickIn::Query, "{click_id}", Some(&id()), Some(&dyn_value),
            [None, None, Some(&sub), None, None],
        );
        let expected = vec![
            ("d".to_owned(), dyn_value), ("s".to_owned(), sub), ("c".to_owned(), id().to_string()),
        ];
        prop_assert_eq!(decoded(&out), expected);
    }

    #[test]
    fn nothing_panics(template in any::<String>(), param in any::<String>(), value in any::<String>(), path: bool) {
        let click_in = if path { ClickIn::Path } else { ClickIn::Query };
        for click in [None, Some(&id())] {
            let out = destination(&template, &param, click_in, &value, click, Some(&value), NO_SUBS);
            prop_assert!(out.bytes().all(|b| b.is_ascii_graphic()));
        }
        prop_assert!(check_destination(&template).is_ok() || !check_destination(&template).unwrap_err().is_empty());
    }
}
