//! What there is to say about a hit: why it is rejected, and what was read otherwise than it stood there.

use crate::{
    Reason,
    event::Correction,
    params::{Param, Params, Role, Value},
    segments::Fix,
};
use std::borrow::Cow;

/// Corrections kept of one hit.
const MOST: usize = 32;
/// Characters of a received value that are shown.
const SHOWN: usize = 60;

/// Codes of corrections.
pub mod code {
    /// One of our own click ids stood in a parameter that is not for it.
    pub const CLICK_ELSEWHERE: &str = "click_in_other_parameter";
    /// Surrounding space or quotes were removed.
    pub const TRIMMED: &str = "trimmed";
    /// A click id of ours that was cut or changed; another name was taken.
    pub const DAMAGED_CLICK: &str = "damaged_click_left_out";
    pub const MACRO: &str = "macro_left_out";
    pub const HTML: &str = "html_mangled";
    pub const SECOND_QUESTION_MARK: &str = "second_question_mark";
    /// The parameters follow the token without the `?` that belongs there.
    pub const GLUED: &str = "glued_to_token";
    pub const SEMICOLON: &str = "semicolon_for_ampersand";
    pub const JSON_ESCAPED: &str = "json_escaped_ampersand";
    /// Brackets or quotes around a name.
    pub const NAME: &str = "name_in_brackets";
    pub const DECODED_WHOLE: &str = "encoded_as_a_whole";
    pub const JSON_AS_FORM: &str = "json_sent_as_form";
    pub const BODY: &str = "body_not_read";
    pub const CURRENCY_SIGN: &str = "currency_sign";
    pub const CURRENCY_CODE: &str = "currency_code";
    pub const DECIMAL_COMMA: &str = "decimal_comma";
    pub const THOUSANDS: &str = "thousands_separator";
    /// An amount in brackets was read as a negative one.
    pub const NEGATIVE: &str = "negative_in_brackets";
    /// A parameter that sounds like money has a name that is not read.
    pub const MONEY_UNREAD: &str = "money_not_read";
    pub const AMOUNT: &str = "amount_left_out";
    pub const CURRENCY: &str = "currency_left_out";
    /// Of several parameters for one thing, or several values of one, the first was taken.
    pub const NOT_USED: &str = "not_used";
    /// A count over 1 on a goal that counts once.
    pub const COUNT_ONCE: &str = "count_over_once";
    pub const COUNT: &str = "count_left_out";
    pub const EVENT: &str = "event_left_out";
    /// A parameter that is not for it names the goal.
    pub const GOAL_ELSEWHERE: &str = "goal_in_other_parameter";
    pub const NESTED: &str = "nested_value_left_out";
    pub const ENCODING: &str = "invalid_encoding";
    pub const TOO_LONG: &str = "too_long_left_out";
    pub const TID: &str = "transaction_id_left_out";
    pub const TIME: &str = "time_left_out";
    pub const TIME_READ: &str = "time_repaired";
    /// A time without a zone is one of the account's.
    pub const TIME_LOCAL: &str = "time_in_account_zone";
}

#[derive(Debug, Default)]
pub(crate) struct Remarks {
    pub reject: Option<(Reason, String)>,
    pub corrections: Vec<Correction>,
}

impl Remarks {
    /// Of several reasons the one that comes first in their order stays.
    pub(crate) fn reject(&mut self, reason: Reason, hint: impl FnOnce() -> String) {
        if self.reject.as_ref().is_none_or(|(known, _)| reason < *known) {
            self.reject = Some((reason, hint()));
        }
    }

    pub(crate) fn note(&mut self, code: &str, detail: impl FnOnce() -> String) {
        if self.corrections.len() < MOST {
            self.corrections.push(Correction { code: code.to_owned(), detail: detail() });
        }
    }

    pub(crate) fn note_macro(&mut self, param: &Param) {
        self.note(code::MACRO, || format!("{} is a placeholder that was not replaced; it was left out", shown(param)));
    }

    pub(crate) fn note_trimmed(&mut self, param: &Param) {
        self.note(code::TRIMMED, || match param.value() {
            Value::Text { text, .. } => format!("{} was read as {}", shown(param), cut(&text)),
            _ => format!("space or signs around the value of {} were removed", shown(param)),
        });
    }

    pub(crate) fn note_nested(&mut self, param: &Param) {
        self.note(code::NESTED, || format!("{} is not a plain value; it was left out", shown(param)));
    }

    pub(crate) fn note_fixes(&mut self, params: &Params) {
        for param in params.list.iter().filter(|p| p.role != Role::Other) {
            let Some((fix, before)) = param.fix else { continue };
            let code = match fix {
                Fix::HtmlMangled => code::HTML,
                Fix::SecondQuestionMark => code::SECOND_QUESTION_MARK,
                Fix::Glued => code::GLUED,
                Fix::Semicolon => code::SEMICOLON,
                Fix::JsonEscaped => code::JSON_ESCAPED,
                Fix::Name => code::NAME,
            };
            let (before, after) = (cut(before), cut(&param.name));
            self.note(code, || match fix {
                Fix::Glued => format!("what follows the token begins without ?: {before} was read as ?{after}"),
                Fix::Semicolon => format!(";{before} was read as &{after}"),
                Fix::Name => format!("{before} was read as {after}"),
                _ => format!("{before} was read as &{after}"),
            });
        }
        if let Some((before, after)) = params.decoded_whole {
            self.note(code::DECODED_WHOLE, || format!("{} was read as {}", cut(before), cut(after)));
        }
        if params.json_as_form {
            self.note(code::JSON_AS_FORM, || {
                "the body is JSON, but its content type says that it is a form".to_owned()
            });
        }
    }
}

/// `name=value` as received, cut.
pub(crate) fn shown(param: &Param) -> String {
    format!("{}={}", cut(&param.name), cut(param.raw()))
}

/// At most 60 characters.
pub(crate) fn cut(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
    }
}

/// A present parameter's value.
pub(crate) enum Picked<'a> {
    Text(Cow<'a, str>),
    /// Not UTF-8 after decoding, or not a plain value.
    Unreadable,
}

/// The first present parameter of a kind: by rank, then by place. Macros are left out, the other present ones noted.
pub(crate) fn pick<'p, 'a>(
    params: &'p Params<'a>,
    remarks: &mut Remarks,
    rank: impl Fn(Role) -> Option<u8>,
) -> Option<(&'p Param<'a>, Picked<'a>)> {
    let mut best: Option<(u8, &'p Param<'a>, Value<'a>)> = None;
    for param in &params.list {
        let Some(rank) = rank(param.role) else { continue };
        match param.value() {
            Value::Absent => {}
            Value::Macro => remarks.note_macro(param),
            value => {
                let candidate = (rank, param, value);
                let loser = match &best {
                    Some((known, ..)) if *known <= rank => Some(candidate),
                    _ => best.replace(candidate),
                };
                if let (Some((_, loser, _)), Some((_, winner, _))) = (loser, &best) {
                    remarks.note(code::NOT_USED, || {
                        format!("{} was not used: {} comes first", shown(loser), shown(winner))
                    });
                }
            }
        }
    }
    let (_, param, value) = best?;
    match value {
        Value::Text { text, cleaned } => {
            if cleaned {
                remarks.note_trimmed(param);
            }
            Some((param, Picked::Text(text)))
        }
        Value::Nested => {
            remarks.note_nested(param);
            Some((param, Picked::Unreadable))
        }
        _ => Some((param, Picked::Unreadable)),
    }
}
