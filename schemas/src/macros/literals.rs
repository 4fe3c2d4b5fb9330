//! Words that templates put where the user should have put a macro: `REPLACE`, `OPTIONAL`, `TRANSACTION_ID`.
//!
//! The names of ids are no ids in any case and spelling. The names of amounts and words are, in capitals: `revenue` may
//! well be a goal, and `REVENUE` is a placeholder.

/// Letters of the longest literal.
const LONGEST: usize = 40;

/// In lower case and without signs between the words. Sorted.
const IDS: &[&str] = &[
    "affclickid",
    "affiliateclickid",
    "affsessionid",
    "affsub",
    "affsubid",
    "changeme",
    "clickid",
    "clickref",
    "clickreference",
    "conversionid",
    "conversionstatus",
    "conversiontype",
    "customerid",
    "depositid",
    "dynamicvar",
    "dynamicvariable",
    "eventname",
    "eventtype",
    "extclickid",
    "externalclickid",
    "externalid",
    "extid",
    "goalid",
    "goalname",
    "leadid",
    "optional",
    "orderid",
    "payoutamount",
    "placeholder",
    "playerid",
    "postbackid",
    "profileid",
    "referenceid",
    "replace",
    "replaceme",
    "requestid",
    "routyid",
    "saleamount",
    "sclickid",
    "sessionid",
    "subid",
    "subidshort",
    "trackingid",
    "transactionid",
    "transid",
    "txid",
    "txnid",
    "uniqueid",
    "userid",
    "visitid",
    "visitorid",
];

/// Only in capitals, or with a word such as `YOUR` or `HERE` beside them. Sorted.
const WORDS: &[&str] = &[
    "affid",
    "affiliateid",
    "amount",
    "campaignid",
    "commission",
    "currency",
    "offerid",
    "payout",
    "price",
    "profit",
    "revenue",
    "status",
    "timestamp",
    "tracking",
    "transaction",
    "uuid",
];

/// Only with such a word. Sorted.
const TOLD: &[&str] = &[
    "campaign", "click", "country", "date", "dyn", "email", "event", "goal", "id", "ip", "name", "network", "offer",
    "player", "sub", "sum", "tid", "time", "type", "user",
];

const BEFORE: &[&str] = &["your", "insert", "enter", "replace", "put", "my"];
const AFTER: &[&str] =
    &["here", "goes", "macro", "token", "value", "variable", "placeholder", "parameter", "me", "with"];

/// True for a bare word that only a template holds.
pub(super) fn is_literal(value: &[u8]) -> bool {
    if value.len() > LONGEST || !value.first().is_some_and(u8::is_ascii_alphabetic) {
        return false;
    }
    if let [b'x' | b'X', .., b'x' | b'X'] = value
        && is_crossed_out(value)
    {
        return true;
    }
    let mut joined = [0; LONGEST];
    let mut length = 0;
    for byte in value {
        match byte {
            b'_' | b'-' | b' ' | b'.' | b'+' => {}
            byte if byte.is_ascii_alphabetic() => {
                joined[length] = byte.to_ascii_lowercase();
                length += 1;
            }
            _ => return false,
        }
    }
    let joined = &joined[..length];
    if known(IDS, joined) {
        return true;
    }
    let capitals = !value.iter().any(u8::is_ascii_lowercase);
    let core = core(joined);
    if core.len() == joined.len() {
        return capitals && known(WORDS, core);
    }
    match core.len() {
        0 => capitals && joined.len() > 3,
        _ => known(IDS, core) || known(WORDS, core) || known(TOLD, core),
    }
}

fn known(list: &[&str], word: &[u8]) -> bool {
    list.binary_search_by(|known| known.as_bytes().cmp(word)).is_ok()
}

/// Without the words that tell the user to put something there.
fn core(mut word: &[u8]) -> &[u8] {
    loop {
        if [IDS, WORDS, TOLD].into_iter().any(|list| known(list, word)) {
            return word;
        }
        let shorter = BEFORE
            .iter()
            .find_map(|before| word.strip_prefix(before.as_bytes()))
            .or_else(|| AFTER.iter().find_map(|after| word.strip_suffix(after.as_bytes())));
        match shorter {
            Some(shorter) => word = shorter,
            None => return word,
        }
    }
}

/// `xxxx`, `xxc1xx`.
fn is_crossed_out(value: &[u8]) -> bool {
    let crosses = |b: &u8| b.eq_ignore_ascii_case(&b'x');
    let before = value.iter().take_while(|b| crosses(b)).count();
    let after = value.iter().rev().take_while(|b| crosses(b)).count();
    value.len() >= 4 && (before == value.len() || (before == 2 && after == 2 && value.len() == 6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted() {
        assert!(IDS.is_sorted() && WORDS.is_sorted() && TOLD.is_sorted());
    }

    #[test]
    fn words_of_templates() {
        for text in [
            "REPLACE",
            "replace",
            "REPLACE_ME",
            "Replace-Me",
            "OPTIONAL",
            "optional",
            "TRANSACTION_ID",
            "transaction_id",
            "transactionId",
            "AFFSESSIONID",
            "CLICK_ID_HERE",
            "click-id",
            "ClickId",
            "ext_id",
            "EXTERNAL_ID",
            "SUBID",
            "sub_id",
            "YOUR_CLICK_ID",
            "your_player_id",
            "INSERT_CLICK_ID_HERE",
            "NETWORK_TOKEN",
            "PAYOUT_TOKEN",
            "ROUTY_ID",
            "DynamicVar",
            "DynamicVariable",
            "PAYOUT",
            "REVENUE",
            "STATUS",
            "CURRENCY",
            "YOUR_VALUE",
            "your_amount_here",
            "YOUR-NAME",
            "INSERT_TIME_HERE",
            "xxc1xx",
            "xxxx",
            "XXXXX",
            "CHANGE_ME",
            "INSERT_HERE",
            "TOKEN",
            "ENTER_VALUE",
            "UNIQUE_ID",
        ] {
            assert!(is_literal(text.as_bytes()), "{text}");
        }
        for text in [
            "",
            "x",
            "xx",
            "xxx",
            "xxl",
            "approved",
            "sale",
            "lead",
            "registration",
            "first_deposit",
            "ftd",
            "deposit",
            "revenue",
            "payout",
            "status",
            "amount",
            "currency",
            "USD",
            "EUR",
            "Spring",
            "sub1",
            "john",
            "Meme",
            "HERE4",
            "value",
            "token",
            "time",
            "name",
            "id",
            "mytho",
            "yours",
            "heretic",
            "click",
            "optionally",
            "TID-5",
            "A",
            "tracker",
            "ME",
            "MY",
            "CLICK",
            "NAME",
            "TIME",
            "mytime2",
            "VIP",
            "transaction",
        ] {
            assert!(!is_literal(text.as_bytes()), "{text}");
        }
    }
}
