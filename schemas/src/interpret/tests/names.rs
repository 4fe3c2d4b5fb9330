//! Names in all corners: our own id wherever it stands, ids of ours that were damaged, parameters whose names or
//! separators were damaged. Every correction says what stood there and what it was read as.

use super::*;

fn own(n: u64) -> String {
    id(n).to_string()
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn full_width(text: &str) -> String {
    text.chars().map(|c| char::from_u32(u32::from(c) + 0xFEE0).unwrap()).collect()
}

fn details(reading: &Reading) -> Vec<&str> {
    reading.corrections.iter().map(|c| c.detail.as_str()).collect()
}

#[test]
fn our_own_id_with_anything_around_it() {
    let own = own(1);
    for value in [
        own.clone(),
        own.to_uppercase(),
        format!("123_{own}"),
        format!("{own}-456"),
        format!("a12_{own}_b.c"),
        format!("{{{own}}}"),
        format!("{{{{{own}}}}}"),
        format!("[{own}]"),
        format!("<{own}>"),
        format!("({own})"),
        format!("\"{own}\""),
        format!(" '{own}' "),
        format!("“{own}”"),
        format!("\u{feff}{own}"),
        format!("{own}\u{200b}"),
        format!("\u{a0}{own}\u{a0}"),
        format!("{}\u{200b}{}", &own[..13], &own[13..]),
        full_width(&own),
        format!("{own},{own}"),
        format!("{own}{own}"),
        format!("{own} {own}"),
        format!("{own}_{{goal}}"),
        format!("{{anid}}_{own}"),
        format!("https://x.example/?click={own}&b=1"),
        format!("click{own}"),
        format!("{own}x"),
        format!("id={own};v=1"),
        format!("1:{own}:2"),
        format!("{own}%"),
        format!("%FF{own}"),
    ] {
        let once = encoded(&value);
        let twice = encoded(&once);
        let mut texts = vec![once, twice.clone(), encoded(&twice)];
        if !value.contains(['&', '%', '#']) {
            texts.push(value.clone());
        }
        for text in texts {
            for query in [format!("clickId={text}&signups=1"), format!("signups=1&anything={text}")] {
                let reading = read(&query);
                assert_eq!((reading.reject, &reading.name), (None, &Some(Name::Click(id(1)))), "{query}");
                assert_eq!(reading.click.as_deref().map(str::to_lowercase), Some(own.clone()), "{query}");
            }
        }
        let body = serde_json::json!({ "x": [{ "y": value }], "signups": 1 }).to_string();
        assert_eq!(one(&json(&body), &settings()).name, Some(Name::Click(id(1))), "{body}");
    }
}

#[test]
fn our_own_id_where_no_value_belongs() {
    for text in [
        "OWN1&signups=1",
        "signups=1&OWN1",
        "OWN1=&signups=1",
        "=OWN1&signups=1",
        "%22OWN1%22&signups=1",
        "/OWN1?signups=1",
        "/a/OWN1&signups=1",
    ] {
        let reading = read(text);
        assert_eq!((reading.reject, &reading.name), (None, &Some(Name::Click(id(1)))), "{text}");
        assert_eq!(codes(&reading), [code::CLICK_ELSEWHERE], "{text}");
        assert!(details(&reading)[0].ends_with(&format!(" was read as clickId={}", own(1))), "{:?}", details(&reading));
    }
}

#[test]
fn a_composite_of_another_meaning_keeps_it() {
    let reading = read("signups=1&tid=OWN1_5&player=7");
    assert_eq!((reading.name, reading.tid), (Some(Name::Click(id(1))), Some(format!("{}_5", own(1)))));
    let reading = read("signups=1&tid=OWN1&dyn=x");
    assert_eq!((reading.name, reading.tid), (Some(Name::Click(id(1))), None));
}

#[test]
fn two_different_ids_of_ours_are_never_chosen_from() {
    for text in [
        "clickId=OWN1&clickId=OWN2&signups=1",
        "dyn=OWN1,OWN2&signups=1",
        "dyn=OWN1OWN2&signups=1",
        "clickId=OWN1&x=a_OWN2&signups=1",
        "OWN1&OWN2&signups=1",
    ] {
        let reading = read(text);
        assert_eq!((reading.reject, reading.name), (Some(Reason::AmbiguousClick), None), "{text}");
    }
}

#[test]
fn an_id_of_ours_that_was_damaged_names_no_click_and_is_told_from_others() {
    let own = own(0x5_5555_5555);
    let changed = format!("{}{}", &own[..25], if own.ends_with('0') { '1' } else { '0' });
    let hit = crate::EventId::new(NOW, 7, 42).to_string();
    for (text, says) in [
        (own[..16].to_owned(), "16 of its 26 characters"),
        (own[..20].to_uppercase(), "20 of its 26 characters"),
        (own[..25].to_owned(), "25 of its 26 characters"),
        (changed, "a character of it was changed"),
        (hit, "is the id of a hit"),
    ] {
        let reading = read(&format!("clickId={text}&signups=1"));
        assert_eq!((reading.reject, reading.name), (Some(Reason::MalformedClick), None), "{text}");
        assert_eq!(reading.click.as_deref(), Some(text.as_str()));
        assert!(reading.hint.as_deref().is_some_and(|hint| hint.contains(says)), "{:?}", reading.hint);
        let reading = read(&format!("clickId={text}&dyn=mine&signups=1"));
        assert_eq!((reading.reject, reading.name.clone()), (None, alias("mine")), "{text}");
        assert_eq!(codes(&reading), [code::DAMAGED_CLICK]);
    }
    // Somebody else's: too short, in mixed case, digits or hexadecimal digits alone, of another time.
    for text in [
        &own[..15],
        "06hKmPqRsTvWxYz01234",
        "06720123456789012345",
        "0672ab45de89012345abcdef",
        "01hzx4s9k3m7q2w5e8r1t6y0pz",
        "zzzzzzzzzzzzzzzzzzzzzzzzzz",
        "c384EFV6JHQODRN70575OK6UG5",
        "1027c887059b47bc69c699f45466b9",
    ] {
        assert_eq!(read(&format!("clickId={text}&signups=1")).name, alias(&text.to_lowercase()), "{text}");
    }
}

#[test]
fn of_repeated_parameters_the_first_that_says_something_is_read() {
    for (text, name, noted) in [
        ("dyn=a&dyn=a&signups=1", "a", vec![]),
        ("dyn=&dyn=null&dyn={x}&dyn=b&signups=1", "b", vec![code::MACRO]),
        ("dyn=a&dyn=b&signups=1", "a", vec![code::NOT_USED]),
        ("clickId=a&dyn=b&signups=1", "a", vec![]),
    ] {
        let reading = read(text);
        assert_eq!((reading.reject, &reading.name), (None, &alias(name)), "{text}");
        assert_eq!(codes(&reading), noted, "{text}");
    }
    assert_eq!(read("clickId=a&clickId=OWN1&signups=1").name, Some(Name::Click(id(1))));
}

#[test]
fn corrections_say_what_stood_there_and_what_was_read() {
    for (text, code, detail) in [
        ("dyn=%20Ab+&signups=1", code::TRIMMED, "dyn=%20Ab+ was read as Ab"),
        ("dyn=Ab&amp;signups=1", code::HTML, "amp;signups was read as &signups"),
        ("dyn=Ab&#38;signups=1", code::HTML, "#38;signups was read as &signups"),
        ("dyn=Ab&signups=1&earning=5\u{a4}cy=USD", code::HTML, "\u{a4}cy was read as &currency"),
        ("dyn=Ab?signups=1", code::SECOND_QUESTION_MARK, "?signups was read as &signups"),
        ("dyn=Ab\\u0026signups=1", code::JSON_ESCAPED, "\\u0026signups was read as &signups"),
        ("dyn=Ab%5cu0026signups=1", code::JSON_ESCAPED, "%5cu0026signups was read as &signups"),
        ("dyn=Ab;signups=1", code::SEMICOLON, ";signups was read as &signups"),
        ("dyn[]=Ab&signups=1", code::NAME, "dyn[] was read as dyn"),
        ("params[dyn]=Ab&signups=1", code::NAME, "params[dyn] was read as dyn"),
        ("dyn%5B0%5D=Ab&signups=1", code::NAME, "dyn%5B0%5D was read as dyn"),
        ("%22dyn%22=Ab&signups=1", code::NAME, "%22dyn%22 was read as dyn"),
        ("dyn%3DAb%26signups%3D1", code::DECODED_WHOLE, "dyn%3DAb%26signups%3D1 was read as dyn=Ab&signups=1"),
        (
            "dyn%253DAb%2526signups%253D1",
            code::DECODED_WHOLE,
            "dyn%253DAb%2526signups%253D1 was read as dyn=Ab&signups=1",
        ),
        ("dyn=Ab%26signups%3D1", code::DECODED_WHOLE, "dyn=Ab%26signups%3D1 was read as dyn=Ab&signups=1"),
        ("dyn＝Ab＆signups＝1", code::DECODED_WHOLE, "dyn＝Ab＆signups＝1 was read as dyn=Ab&signups=1"),
    ] {
        let reading = read(text);
        assert_eq!((reading.reject, &reading.name), (None, &alias("ab")), "{text}: {:?}", reading.hint);
        assert_eq!(goals(&reading), [("signups", 1)], "{text}");
        let found = reading.corrections.iter().find(|c| c.code == code);
        assert_eq!(found.map(|c| c.detail.as_str()), Some(detail), "{text}: {:?}", reading.corrections);
    }
    let form = RawRequest {
        method: "POST",
        query: b"",
        body: Some(b"dyn%3DAb%26signups%3D1"),
        content_type: Some("application/x-www-form-urlencoded"),
    };
    let reading = one(&form, &settings());
    assert_eq!((reading.reject, codes(&reading)), (None, vec![code::DECODED_WHOLE]));
}

#[test]
fn what_may_be_meant_is_left_as_it_is() {
    for (text, name) in [
        ("dyn=a;b&signups=1", "a;b"),
        ("dyn=a;b=c&signups=1", "a;b=c"),
        ("dyn=a%26signups%3D2&signups=1", "a&signups=2"),
        ("dyn=https%3A%2F%2Fx%2F%3Fa%3D1%26b%3D2&signups=1", "https://x/?a=1&b=2"),
        ("dyn=%7B3F2504E0-4F89-11D3-9A0C-0305E82C3301%7D&signups=1", "{3f2504e0-4f89-11d3-9a0c-0305e82c3301}"),
        ("dyn=O'Brien&signups=1", "o'brien"),
        ("dyn=John%20(VIP)&signups=1", "john (vip)"),
    ] {
        let reading = read(text);
        assert_eq!((reading.reject, &reading.name), (None, &alias(name)), "{text}");
        assert!(reading.corrections.is_empty(), "{text}: {:?}", reading.corrections);
    }
    for nothing in ["(none)", "%28None%29", "{}", "[]", "[null]", "(undefined)", "%E2%80%8B", "%C2%A0"] {
        assert_eq!(read(&format!("dyn={nothing}&signups=1")).reject, Some(Reason::MissingClick), "{nothing}");
    }
}

#[test]
fn names_in_other_spellings() {
    for (text, tid, player) in [
        ("click-id=Ab&signups=1&orderId=5&Player-ID=6", Some("5"), Some("6")),
        ("Click%20ID=Ab&signups=1&transactionId=5&userId=6", Some("5"), Some("6")),
        ("%EF%BB%BFclickId=Ab&signups=1", None, None),
        ("%E2%80%8Bdyn=Ab&signups=1", None, None),
        ("click.id=Ab&signups=1", None, None),
    ] {
        let reading = read(text);
        assert_eq!((reading.reject, &reading.name), (None, &alias("ab")), "{text}: {:?}", reading.hint);
        assert_eq!((reading.tid.as_deref(), reading.player.as_deref()), (tid, player), "{text}");
    }
    assert_eq!(read("dyn=a&{event}=true").reject, Some(Reason::MissingEvent));
}

#[test]
fn a_placeholder_is_no_value_whatever_stands_beside_it() {
    for text in [
        "dyn=abc{x}&signups=1",
        "dyn={anid}_{ID}&signups=1",
        "dyn=123_[goal]&signups=1",
        "dyn=%DATE%&signups=1",
        "dyn=dyn&signups=1",
        "clickid=CLICKID&signups=1",
        "click_id=click_id&signups=1",
        "dyn=REPLACE&signups=1",
        "dyn=:click_id&signups=1",
    ] {
        let reading = read(text);
        assert_eq!((reading.reject, reading.name), (Some(Reason::UnreplacedMacro), None), "{text}");
    }
    let reading = read("dyn=a&signups=1&tid=T1_{goal}&player=player");
    assert_eq!((reading.tid, reading.player), (None, None));
    for (text, reason) in [("signups=1&dyn=", Reason::MissingClick), ("dyn=a&event=", Reason::MissingEvent)] {
        let reading = read(text);
        assert_eq!(reading.reject, Some(reason), "{text}");
        assert!(reading.hint.as_deref().is_some_and(|hint| hint.contains('#')), "{:?}", reading.hint);
    }
}

#[test]
fn looking_for_ids_is_linear() {
    let long = "0".repeat(200_000);
    let runs = format!("{}-", own(1)).repeat(7_000);
    let escapes = "%25".repeat(60_000);
    let slashes = "/a".repeat(60_000);
    let semicolons = "a;".repeat(60_000);
    for text in [&long, &runs, &escapes, &slashes, &semicolons] {
        for query in [
            format!("x={text}"),
            format!("{text}=1"),
            text.clone(),
            format!("/{text}?a=1"),
            format!(";a={text};b={text}"),
        ] {
            let start = std::time::Instant::now();
            read(&query);
            assert!(start.elapsed().as_secs() < 10);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn an_own_id_between_signs_is_found_and_nothing_else_is_ever_taken_for_one(
        before in "([a-zA-Z0-9é]{0,9}[-_.:,|~ {}\\[\\]\"']){0,2}", after in "([-_.:,|~ {}\\[\\]\"'][a-zA-Z0-9é]{0,9}){0,2}", n: u64, times in 0usize..3,
    ) {
        let mut text = format!("{before}{}{after}", id(n));
        for _ in 0..times {
            text = encoded(&text);
        }
        prop_assert_eq!(read(&format!("signups=1&q={}", encoded(&text))).name, Some(Name::Click(id(n))));
    }

    #[test]
    fn ids_of_others_are_never_ours(text in "[a-z0-9]{26}|[1-9A-HJKMNP-TV-Z][0-9A-HJKMNP-TV-Z]{25}|[a-zA-Z0-9]{20,60}|[0-9a-f]{24,64}|01[0-9A-HJKMNP-TV-Z]{24}") {
        prop_assume!(ClickId::parse(text.as_bytes()).is_none());
        let reading = read(&format!("signups=1&dyn={text}"));
        prop_assert_eq!(reading.name, alias(&text.to_lowercase()));
    }

    #[test]
    fn a_cut_id_never_names_a_click(n: u64, length in 1usize..26, upper: bool) {
        let cut = own(n)[..length].to_owned();
        let cut = if upper { cut.to_uppercase() } else { cut };
        let reading = read(&format!("signups=1&clickId={cut}"));
        prop_assert!(!matches!(reading.name, Some(Name::Click(_))));
    }
}

#[test]
fn a_hint_about_the_click_says_what_the_program_calls_it() {
    let settings = AccountSettings { click_called: Some("Income Access calls it {c}.".into()), ..settings() };
    for text in ["dyn={click}&signups=1", "signups=1", "dyn=&signups=1"] {
        let hint = read_with(text, &settings).hint.unwrap();
        assert!(hint.ends_with(" Income Access calls it {c}."), "{hint}");
    }
    for text in ["dyn=a", "dyn=a&event={event}", "dyn=a%01&signups=1"] {
        assert!(!read_with(text, &settings).hint.unwrap().contains("Income Access"), "{text}");
    }
}
