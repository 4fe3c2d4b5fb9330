//! Tells a placeholder that the sender did not replace from an ordinary value.
//!
//! Works on the raw value: `%AD_ID%` or `%%DEPOSIT%%` are no longer readable once they have been decoded.
//! Refuses to guess: short signs that also stand in ordinary values count only where they enclose the whole value
//! and hold a name.

use std::borrow::Cow;

/// A placeholder is short; longer values are data.
const LONGEST: usize = 512;

/// Words that templates put where the user should have put a macro. Upper case matters: these are exact.
const LITERALS: &[&str] = &[
    "AFFSESSIONID",
    "AMOUNT",
    "CLICKID",
    "CLICKREF",
    "CLICK_ID",
    "CLICK_ID_HERE",
    "CONVERSION_STATUS",
    "CURRENCY",
    "DynamicVar",
    "EVENT_NAME",
    "EVENT_TYPE",
    "NETWORK_TOKEN",
    "OPTIONAL",
    "ORDER_ID",
    "PAYOUT",
    "PAYOUT_TOKEN",
    "REPLACE",
    "REPLACE_ME",
    "REVENUE",
    "ROUTY_ID",
    "STATUS",
    "SUBID",
    "SUB_ID",
    "TRANSACTION_ID",
    "TXID",
    "UNIQUE_ID",
    "YOUR_CLICK_ID",
    "YOUR_PLAYER_ID",
    "clickId",
    "click_id",
    "ext_id",
    "transaction_id",
];

/// True if the raw value is, or holds, a placeholder: as it stands, or percent-encoded once or twice.
pub fn is_macro(raw: &str) -> bool {
    let bytes = raw.as_bytes();
    if bytes.is_empty() || bytes.len() > LONGEST {
        return false;
    }
    if bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
        return is_literal(bytes) || enclosed(bytes, b'_', b'_', 2, 2);
    }
    if looks_like_macro(bytes) {
        return true;
    }
    if raw.contains("%25") {
        // Only a value that is a macro as a whole: before another encoded byte, a lone sign would seem to close one.
        let whole = |value: &[u8]| enclosed(trim(value), b'%', b'%', 1, 2);
        let once = decode_percent_signs(bytes);
        if whole(&once) || whole(&decode_percent_signs(&once)) {
            return true;
        }
    }
    let once: Cow<[u8]> = percent_encoding::percent_decode(bytes).into();
    if matches!(once, Cow::Borrowed(_)) {
        return false;
    }
    let twice: Cow<[u8]> = percent_encoding::percent_decode(&once).into();
    looks_like_macro(&once) || (matches!(twice, Cow::Owned(_)) && looks_like_macro(&twice))
}

/// `%25` → `%` and nothing else: what a client makes of `%AD_ID%` when it repairs only the last sign.
fn decode_percent_signs(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((byte, after)) = rest.split_first() {
        out.push(*byte);
        rest = if *byte == b'%' { after.strip_prefix(b"25").unwrap_or(after) } else { after };
    }
    out
}

fn looks_like_macro(value: &[u8]) -> bool {
    let value = trim(value);
    let Some(first) = value.first() else { return false };
    let whole = match first {
        b'[' => enclosed(value, b'[', b']', 1, 3) || between(value, b"[=", b"=]").is_some_and(is_name),
        b'(' => enclosed(value, b'(', b')', 1, 1),
        b'<' => enclosed(value, b'<', b'>', 1, 1),
        b'_' => enclosed(value, b'_', b'_', 2, 2),
        b'!' => enclosed(value, b'!', b'!', 2, 3),
        b'#' => enclosed(value, b'#', b'#', 1, 3),
        b'%' => enclosed(value, b'%', b'%', 1, 2),
        b'$' => enclosed(value, b'$', b'$', 1, 1),
        _ => is_literal(value),
    };
    whole || holds_braces(value) || holds_pair(value, b'#') || holds_pair(value, b'%')
}

fn trim(value: &[u8]) -> &[u8] {
    let outer = |b: &u8| b.is_ascii_whitespace() || matches!(b, b'"' | b'\'' | b'+');
    let start = value.iter().position(|b| !outer(b)).unwrap_or(value.len());
    let end = value.iter().rposition(|b| !outer(b)).map_or(start, |last| last + 1);
    &value[start..end]
}

fn is_literal(value: &[u8]) -> bool {
    LITERALS.iter().any(|known| known.as_bytes() == value)
        || matches!(value, [b'x', b'x', b'c', b'0'..=b'9', b'x', b'x'])
}

fn between<'a>(value: &'a [u8], open: &[u8], close: &[u8]) -> Option<&'a [u8]> {
    value.strip_prefix(open)?.strip_suffix(close)
}

/// The whole value is `least` to `most` signs, a name, and as many signs again.
fn enclosed(value: &[u8], open: u8, close: u8, least: usize, most: usize) -> bool {
    let before = value.iter().take_while(|b| **b == open).count();
    let after = value.iter().rev().take_while(|b| **b == close).count();
    before == after
        && (least..=most).contains(&before)
        && value.len() > before + after
        && is_name(&value[before..value.len() - after])
}

/// `{x}` anywhere, with whatever stands around it: `${x}`, `{{x}}`, `{%x%}`, `#{a.b}`, `{a}_{b}`, `{date:Y-m-d}`.
fn holds_braces(value: &[u8]) -> bool {
    let mut open = None;
    for (i, byte) in value.iter().enumerate() {
        match (byte, open) {
            (b'{', _) => open = Some(i + 1),
            (b'}', Some(start)) => {
                let inner = &value[start..i];
                let inner = between(inner, b"%", b"%").unwrap_or(inner);
                if is_expression(inner) && !is_guid(inner) {
                    return true;
                }
                open = None;
            }
            _ => {}
        }
    }
    false
}

/// `##x##` or `%%x%%` anywhere.
fn holds_pair(value: &[u8], sign: u8) -> bool {
    let mut open: Option<usize> = None;
    let mut i = 0;
    while i + 1 < value.len() {
        if value[i] == sign && value[i + 1] == sign {
            if open.is_some_and(|start| is_expression(&value[start..i])) {
                return true;
            }
            i += 2;
            open = Some(i);
        } else {
            i += 1;
        }
    }
    false
}

fn starts_like_a_name(inner: &[u8]) -> bool {
    inner.len() <= 100 && inner.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_')
}

fn is_name(inner: &[u8]) -> bool {
    starts_like_a_name(inner)
        && inner.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b' ' | b'+' | b':'))
}

/// A name, perhaps with arguments: `SUB_ID_SHORT(action)`, `status:lead=0 sale=1`, `date:Y-m-d,Europe/Kyiv`.
fn is_expression(inner: &[u8]) -> bool {
    starts_like_a_name(inner) && inner.iter().all(|b| b.is_ascii_alphanumeric() || b" _.-+:,=/()|*".contains(b))
}

/// GUIDs are often written in braces.
fn is_guid(inner: &[u8]) -> bool {
    matches!(inner.len(), 32 | 36) && inner.iter().all(|b| b.is_ascii_hexdigit() || *b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    const REAL: &[&str] = &[
        "{aff_sub}",
        "{sub1}",
        "{{ANID}}",
        "{{click_id}}",
        "${visit_id}",
        "${SUBID}",
        "${mainAttributions.gclid}",
        "#s2#",
        "#S2#",
        "##CLICK_ID##",
        "###AFFID###",
        "#{click.publisher.clickId}",
        "[afp1]",
        "[CLICK_ID]",
        "[[[subid]]]",
        "[=XID1=]",
        "%click_id%",
        "%subid1%",
        "%AD_ID%",
        "%CAMPAIGN_ID%",
        "%DATE%",
        "%%CLICK_ID%%",
        "%%CLICKID%%",
        "%%COMMISSION%%",
        "%%DEPOSIT%%",
        "{%CASHPROM_PLACE_ID%}",
        "<click_id>",
        "(ip)",
        "(S_CLICK_ID)",
        "__SID__",
        "__CLICK_ID__",
        "!!!awc!!!",
        "$clickid$",
        "xxc1xx",
        "ext_id",
        "REPLACE",
        "OPTIONAL",
        "TRANSACTION_ID",
        "AFFSESSIONID",
        "##SUB_ID_SHORT(action)##",
        "{status:lead=0 sale=1}",
        "{date:Y-m-d,Europe/Kyiv}",
        "{subids.1}",
        "{call-id}",
        "{Sub Param 1}",
        "{transactionid}_{goal}",
        "abc_{goal}",
        "##CPA_AMOUNT##,##RS_AMOUNT##",
        "{DynamicVar}",
        "{ClickId}",
    ];

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
            "optional",
            "replace",
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
        #[test]
        fn ids_amounts_and_words_are_no_macros(
            text in "[a-z0-9]{1,40}|[A-Za-z0-9]{20,40}|[0-9]{1,9}[.,][0-9]{1,3}|[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}|[a-z]{1,8}_[a-z0-9]{9,12}|[a-z]{1,9}@[a-z]{1,9}\\.[a-z]{2,3}|[0-9]{4}-[0-9]{2}-[0-9]{2}",
        ) {
            prop_assume!(!is_literal(text.as_bytes()));
            prop_assert!(!is_macro(&text));
            let encoded = utf8_percent_encode(&text, NON_ALPHANUMERIC).to_string();
            prop_assert!(!is_macro(&encoded));
        }

        #[test]
        fn encoded_text_of_any_language_is_no_macro(text in "\\p{L}[\\p{L}\\p{N} ]{0,30}") {
            prop_assume!(!is_literal(text.trim().as_bytes()));
            let encoded = utf8_percent_encode(&text, NON_ALPHANUMERIC).to_string();
            prop_assert!(!is_macro(&encoded));
        }

        #[test]
        fn any_name_in_any_sign_is_a_macro(name in "[A-Za-z][A-Za-z0-9_]{0,20}[A-Za-z0-9]", at in 0usize..16) {
            let (open, close) = [
                ("{", "}"), ("{{", "}}"), ("${", "}"), ("#", "#"), ("##", "##"), ("###", "###"), ("#{", "}"),
                ("[", "]"), ("[[[", "]]]"), ("[=", "=]"), ("%", "%"), ("%%", "%%"), ("{%", "%}"), ("<", ">"),
                ("(", ")"), ("!!!", "!!!"),
            ][at];
            let text = format!("{open}{name}{close}");
            prop_assert!(is_macro(&text));
            let once = utf8_percent_encode(&text, NON_ALPHANUMERIC).to_string();
            prop_assert!(is_macro(&once));
        }

        #[test]
        fn any_text_is_fine(text in any::<String>()) {
            is_macro(&text);
        }
    }
}
