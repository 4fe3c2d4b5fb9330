use super::*;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;

/// Of the field, and their relatives.
const SYNTAXES: &[(&str, &str)] = &[
    ("{", "}"),
    ("{{", "}}"),
    ("{{{", "}}}"),
    ("{ ", " }"),
    ("{{ ", " }}"),
    ("${", "}"),
    ("%{", "}"),
    ("@{", "}"),
    ("#{", "}"),
    ("{%", "%}"),
    ("{$", "}"),
    ("{!", "}"),
    ("{@", "}"),
    ("{#", "#}"),
    ("[", "]"),
    ("[[", "]]"),
    ("[[[", "]]]"),
    ("[=", "=]"),
    ("[%", "%]"),
    ("<", ">"),
    ("<<", ">>"),
    ("<%=", "%>"),
    ("<?", "?>"),
    ("(", ")"),
    ("$(", ")"),
    ("%(", ")s"),
    ("#", "#"),
    ("##", "##"),
    ("###", "###"),
    ("%", "%"),
    ("%%", "%%"),
    ("%%%", "%%%"),
    ("!", "!"),
    ("!!", "!!"),
    ("!!!", "!!!"),
    ("@", "@"),
    ("@@", "@@"),
    ("*|", "|*"),
    ("|", "|"),
    ("~", "~"),
    ("$", "$"),
    ("$$", "$$"),
    ("__", "__"),
    ("___", "___"),
    ("$", ""),
    (":", ""),
];

const NAMES: &[&str] = &[
    "x",
    "click_id",
    "sub1",
    "S2",
    "AD_ID",
    "ad_id",
    "CAMPAIGN_ID",
    "campaign_id",
    "DEPOSIT",
    "deposit",
    "DATE",
    "date",
    "BEEF",
    "faded",
    "subids.1",
    "hit.data2",
    "call-id",
    "ClickId",
    "mainAttributions.gclid",
    "afp1",
];

const REAL: &[&str] = &[
    "{Sub Param 1}",
    "[Sub Param 1]",
    "#{click.publisher.clickId}",
    "xxc1xx",
    "ext_id",
    "REPLACE",
    "OPTIONAL",
    "TRANSACTION_ID",
    "AFFSESSIONID",
    "##SUB_ID_SHORT(action)##",
    "{status:lead=0 sale=1}",
    "{date:Y-m-d,Europe/Kyiv}",
    "{{ click_id | default('x') }}",
    "{get[sub1]}",
    "{0}",
    "{transactionid}_{goal}",
    "{goal}x{status}",
    "{action}_{status}",
    "{anid}_{ID}",
    "abc_{goal}",
    "abc{x}",
    "prefix_{x}",
    "{x}.suffix",
    "[sub1]_[goal]",
    "123_[goal]",
    "<a>-<b>",
    "7-<b>",
    "(a)_(b)",
    "#s1#_#s2#",
    "#s1##s2#",
    "99_#goal#",
    "%a%-%b%",
    "%CA%-%DE_x%",
    "12_%DEPOSIT%",
    "%%a%%%%b%%",
    "12%%b%%",
    "__A__-__B__",
    "$a_$b",
    "##CPA_AMOUNT##,##RS_AMOUNT##",
    "{DynamicVar}",
    "{click_id",
    "{{click_id}",
    "${click_id",
    "##CLICK_ID",
    "%%CLICK_ID",
    "click_id}",
    "click_id}}",
    "\u{feff}{x}",
    "\u{a0}[x]\u{a0}",
    "“{x}”",
    "[object Object]",
];

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// As an encoder that takes its input for encoded already leaves it, and one that writes small letters.
fn written(text: &str) -> Vec<String> {
    let once = encoded(text);
    let braces = text.replace('{', "%7B").replace('}', "%7D");
    let twice = encoded(&once);
    let small = once.split('%').enumerate().map(|(i, part)| match part.split_at_checked(2) {
        Some((hex, rest)) if i > 0 => format!("%{}{rest}", hex.to_lowercase()),
        _ => part.to_owned(),
    });
    vec![text.to_owned(), small.collect(), braces, once, twice]
}

#[test]
fn every_sign_around_every_name_in_every_case_and_encoding() {
    for (open, close) in SYNTAXES {
        for name in NAMES {
            for name in [(*name).to_owned(), name.to_uppercase(), name.to_lowercase()] {
                for text in written(&format!("{open}{name}{close}")) {
                    assert!(is_macro(&text), "{open}{name}{close} as {text}");
                    assert!(is_macro(&format!("%20{text}+")), "{text} with space");
                }
            }
        }
    }
}

#[test]
fn a_percent_sign_that_was_read_as_a_byte() {
    for name in ["AD_ID", "CAMPAIGN_ID", "DATE", "date", "DEPOSIT", "FEE", "cafe"] {
        for signs in [1, 2] {
            let sign = "%".repeat(signs);
            let text = format!("{sign}{name}{sign}");
            let bytes: Vec<u8> = percent_encoding::percent_decode_str(&text).collect();
            // What a client makes of it: the bytes as they are, the sign for an unreadable one, or Latin-1.
            let raw: String = bytes.iter().map(|b| format!("%{b:02X}")).collect();
            let lossy = encoded(&String::from_utf8_lossy(&bytes));
            let latin: String = bytes.iter().map(|b| char::from(*b)).collect();
            for text in [raw, lossy, encoded(&latin), format!("{text}25"), format!("%25{name}%")] {
                assert!(is_macro(&text) || text.starts_with("%25") && signs == 2, "{name} as {text}");
            }
        }
    }
}

#[test]
fn every_syntax_of_the_field_is_seen_raw_encoded_and_encoded_twice() {
    for text in REAL {
        assert!(is_macro(text), "{text}");
        assert!(is_macro(&format!(" {text}+")), "{text} with space");
        let once = utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        assert!(is_macro(&once), "{once}");
        let twice = utf8_percent_encode(&once, NON_ALPHANUMERIC).to_string();
        assert!(is_macro(&twice), "{twice}");
    }
    for text in ["%AD_ID%25", "%25AD_ID%", "%7Bsub1}", "{sub1%7D", "%257Bsub1%257D", "%22{sub1}%22"] {
        assert!(is_macro(text), "{text}");
    }
}

#[test]
fn ordinary_values_are_left_alone() {
    for text in [
        "",
        "1",
        "50.00",
        "12,50",
        "€50",
        "%E2%82%AC50",
        "$50",
        "100%",
        "100%25",
        "50%-off",
        "%20abc%20",
        "a+b",
        "abc_def",
        "_abc_",
        "a__b",
        "#12",
        "(5.00)",
        "(555) 123",
        "[1]",
        "{12345}",
        "{3F2504E0-4F89-11D3-9A0C-0305E82C3301}",
        "%7B3F2504E0-4F89-11D3-9A0C-0305E82C3301%7D",
        "{\"a\":1}",
        "status",
        "revenue",
        "approved",
        "first deposit",
        "https://example.com/?a=b",
        "https%3A%2F%2Fexample.com%2F%3Fa%3Db",
        "2026-06-09T12:30:00+00:00",
        "%D0%BF%D1%80%D0%B8%D0%B2%D0%B5%D1%82",
        "%FF%FE",
        "a@b.example",
        "<3",
        "!",
        "##",
        "%%",
        "{}",
    ] {
        assert!(!is_macro(text), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn ordinary_values_are_no_macros(text in ordinary()) {
        prop_assume!(!literals::is_literal(text.as_bytes()));
        for text in written(&text) {
            prop_assert!(!is_macro(&text), "{}", text);
        }
    }

    #[test]
    fn json_is_no_macro(value in json()) {
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            prop_assert!(!is_macro(&text), "{}", text);
            prop_assert!(!is_macro(&encoded(&text)), "{}", text);
        }
    }

    #[test]
    fn encoded_text_of_any_language_is_no_macro(text in "\\p{L}[\\p{L}\\p{N} ]{0,30}") {
        prop_assume!(!literals::is_literal(text.trim().as_bytes()));
        prop_assert!(!is_macro(&encoded(&text)));
        prop_assert!(!is_macro(&encoded(&encoded(&text))));
    }

    #[test]
    fn text_in_latin_1_is_no_macro(text in "[À-ÿ][a-zÀ-ÿ]{0,12}|[a-z]{1,5}[À-ÿ][a-zÀ-ÿ -]{0,12}") {
        let raw: String = text.chars().map(|c| encoded_byte(c as u32)).collect();
        prop_assert!(!is_macro(&raw), "{}", raw);
    }

    #[test]
    fn any_name_in_any_sign_is_a_macro(name in "[A-Za-z][A-Za-z0-9_]{0,20}[A-Za-z0-9]", at in 0usize..SYNTAXES.len()) {
        prop_assume!(!is_nothing(name.as_bytes()) && !is_price(name.as_bytes()));
        let (open, close) = SYNTAXES[at];
        for text in written(&format!("{open}{name}{close}")) {
            prop_assert!(is_macro(&text), "{}", text);
        }
    }

    #[test]
    fn any_text_is_fine(text in any::<String>(), signs in "[{}\\[\\]<>()#%$!@_*|~^:+ a5\\u{e9}]{0,60}") {
        is_macro(&text);
        is_macro(&signs);
    }
}

fn encoded_byte(byte: u32) -> String {
    if byte < 0x80 { char::from(byte as u8).to_string() } else { format!("%{byte:02X}") }
}

fn ordinary() -> impl Strategy<Value = String> {
    prop_oneof![
        // Ids: numbers, words with numbers, hexadecimal, UUIDs, base64 and base64url.
        "[a-z0-9]{1,40}|[A-Za-z0-9]{20,40}|[0-9a-f]{16,64}|[0-9]{1,20}",
        "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
        "\\{[0-9A-F]{8}-[0-9A-F]{4}-4[0-9A-F]{3}-[89AB][0-9A-F]{3}-[0-9A-F]{12}\\}",
        "[A-Za-z0-9+/]{8,60}={0,2}",
        base64url(),
        "[a-z]{1,8}_[a-z0-9]{9,12}|[a-z]{2}-[0-9]{3,9}-[A-Z]{2}|[a-z]{1,6}:[a-z0-9]{1,9}|[a-z]{3}\\.[0-9]{4}",
        // Names of people, places and campaigns.
        "[A-Z][a-z]{2,9}( [A-Z][a-z]{2,9}){0,2}|[A-Z]'[A-Z][a-z]{3,8}|[A-Z][a-z]{2,8}-[A-Z][a-z]{2,8}",
        "[A-Z][a-z]{2,8} \\([A-Za-z]{2,8}\\)|[A-Z][a-z]{2,8} \\[[A-Z]{2,4}\\]|[A-Z][a-z]{2,8} #[0-9]{1,3}",
        "[A-Z][a-z]{2,8} & [A-Z][a-z]{2,8}|[a-z]{3,8}! [a-z]{2,8}|#[a-z]{2,9}( #[a-z]{2,9}){0,2}|@[a-z]{3,9}",
        // Money, shares, counts.
        "[$€£][0-9]{1,6}([.,][0-9]{2})?|[0-9]{1,6}[.,][0-9]{2} ?[$€%]|-?[0-9]{1,9}([.,][0-9]{1,4})?|[0-9]{1,3}%",
        "[0-9]{1,2}% [a-z]{2,6} [0-9]{1,2}%|A?\\$[0-9]{1,5}|\\([0-9]{1,4}\\.[0-9]{2}\\)|[A-Z]{3} ?[0-9]{1,5}",
        // Times, addresses, phones.
        "[0-9]{4}-[01][0-9]-[0-3][0-9]([T ][0-2][0-9]:[0-5][0-9](:[0-5][0-9](\\.[0-9]{3})?(Z|[+-]0[0-9]:00)?)?)?",
        "[0-9]{2}/[0-9]{2}/[0-9]{4}|[0-9]{1,2}:[0-9]{2}( [AP]M)?|1[0-9]{9}|1[0-9]{12}",
        "[a-z]{1,9}([.+_][a-z0-9]{1,6})?@[a-z]{1,9}\\.[a-z]{2,3}|[A-Z][a-z]{2,8} <[a-z]{1,9}@[a-z]{1,9}\\.com>",
        "[0-9]{1,3}(\\.[0-9]{1,3}){3}|2001:db8::[0-9a-f]{1,4}|::1|\\+[0-9]{9,14}|\\([0-9]{3}\\) [0-9]{3}-[0-9]{4}",
        "https?://[a-z]{2,9}\\.[a-z]{2,3}/[a-z]{0,9}(\\?[a-z]{1,4}=[a-z0-9]{1,6}(&[a-z]{1,4}=[a-z0-9]{1,5})?)?(#[a-z]{1,5})?",
        "(/[a-z0-9]{1,6}){1,4}/?|[A-Z]:\\\\[a-z]{1,6}|[a-z]{2,6}\\.(html|php)|Mozilla/5\\.0 \\(X11; Linux x86_64\\) [A-Z][a-z]{2,7}/[0-9]{2}\\.0",
    ]
}

/// Every digit as often as any other: a class of a pattern would make every fifth an underscore.
fn base64url() -> impl Strategy<Value = String> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    prop::collection::vec(0..64usize, 8..60).prop_map(|digits| digits.iter().map(|d| char::from(DIGITS[*d])).collect())
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        "[a-zA-Z0-9 .,:-]{0,9}|[a-z]{1,5}@[a-z]{1,5}\\.com".prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map("[a-z_]{1,6}", inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
    .prop_filter("objects and arrays", |value| value.is_object() || value.is_array())
}
