//! Splits a raw postback into parameters: query, form body, flat JSON body.
//!
//! Every parameter is decoded on its own and only when somebody asks for it, so one that nobody reads can hold
//! anything. Refuses: what a parameter means for the hit (see `interpret`).
//! Invariant: `stored` text (see `redact`) splits into the same parameters as the request that it was made from.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use serde_json::value::RawValue;

use crate::{
    bounds,
    goal::{self, GoalSettings},
    json_body::{self, Piece},
    macros, own,
    segments::{Fix, Segments},
};

/// A postback as it came in, without its token.
#[derive(Clone, Copy, Debug)]
pub struct RawRequest<'a> {
    pub method: &'a str,
    pub query: &'a [u8],
    pub body: Option<&'a [u8]>,
    pub content_type: Option<&'a str>,
}

/// What `interpret` does with a parameter. Numbers are ranks: of several names for one thing the lowest comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Click(u8),
    /// Counts the goal of this index in the account's goals.
    Count(usize),
    Word,
    Status,
    Earning(u8),
    Value(u8),
    Currency,
    Tid(u8),
    Player(u8),
    Ts,
    Test,
    Other,
}

/// The rank of `dyn` among the parameters that may name the click.
pub(crate) const DYN: u8 = 1;

impl Role {
    /// `data.click_id` and `data[click_id]` are a `click_id` that stands within something.
    fn within(name: &str, goals: &[GoalSettings]) -> Role {
        let name = name.trim_end_matches(']');
        match name.rsplit_once(['.', '[']) {
            Some((outer, inner)) if !outer.is_empty() => Role::of(inner, goals),
            _ => Role::Other,
        }
    }

    /// Whether two parameters say the same kind of thing.
    fn is_like(self, other: Role) -> bool {
        let kind = |role| match role {
            Role::Count(_) => std::mem::discriminant(&Role::Word),
            role => std::mem::discriminant(&role),
        };
        kind(self) == kind(other)
    }

    fn of(name: &str, goals: &[GoalSettings]) -> Role {
        let mut lower = [0; 24];
        let Some(lower) = lower.get_mut(..name.len()) else { return Role::of_goal(name, goals) };
        lower.copy_from_slice(name.as_bytes());
        lower.make_ascii_lowercase();
        match &*lower {
            b"clickid" => Role::Click(0),
            b"dyn" => Role::Click(DYN),
            b"click_id" => Role::Click(2),
            b"cid" => Role::Click(3),
            b"subid" => Role::Click(4),
            b"sub_id" => Role::Click(5),
            b"sid" => Role::Click(6),
            b"cnv_id" => Role::Click(7),
            b"aff_sub" => Role::Click(8),
            b"event" | b"goal" | b"type" => Role::Word,
            b"status" => Role::Status,
            b"earning" => Role::Earning(0),
            b"payout" => Role::Earning(1),
            b"commission" => Role::Earning(2),
            b"profit" => Role::Earning(3),
            b"sum" => Role::Earning(4),
            b"revenue" => Role::Earning(5),
            b"amount" => Role::Earning(6),
            b"value" => Role::Value(0),
            b"sale_amount" => Role::Value(1),
            b"order_sum" => Role::Value(2),
            b"deposit_amount" => Role::Value(3),
            b"currency" | b"curren" => Role::Currency,
            b"tid" => Role::Tid(0),
            b"txid" => Role::Tid(1),
            b"transaction_id" => Role::Tid(2),
            b"order_id" => Role::Tid(3),
            b"action_id" => Role::Tid(4),
            b"player" => Role::Player(0),
            b"player_id" => Role::Player(1),
            b"customer_id" => Role::Player(2),
            b"user_id" => Role::Player(3),
            b"profile_id" => Role::Player(4),
            b"ts" => Role::Ts,
            b"test" => Role::Test,
            _ => match Role::of_goal(name, goals) {
                Role::Other => Role::of_another_spelling(lower),
                goal => goal,
            },
        }
    }

    /// Of a name in lower case whose words are joined in another way: `click-id`, `orderId`, `Player ID`.
    fn of_another_spelling(name: &[u8]) -> Role {
        let mut joined = [0; 24];
        let mut length = 0;
        for byte in name.iter().filter(|b| !matches!(b, b'-' | b'_' | b'.' | b' ')) {
            joined[length] = *byte;
            length += 1;
        }
        match &joined[..length] {
            b"clickid" | b"subid" | b"cnvid" | b"affsub" => Role::Click(9),
            b"saleamount" | b"ordersum" | b"depositamount" => Role::Value(4),
            b"transactionid" | b"orderid" | b"actionid" => Role::Tid(5),
            b"playerid" | b"customerid" | b"userid" | b"profileid" => Role::Player(5),
            _ => Role::Other,
        }
    }

    fn of_goal(name: &str, goals: &[GoalSettings]) -> Role {
        let alias = goal::COUNT_ALIASES.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(name));
        let name = alias.map_or(name, |(_, goal)| goal);
        goals.iter().position(|goal| same_word(&goal.name, name)).map_or(Role::Other, Role::Count)
    }
}

/// Equal without regard to case.
pub(crate) fn same_word(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
        || (!(one.is_ascii() || other.is_ascii())
            && one.chars().flat_map(char::to_lowercase).eq(other.chars().flat_map(char::to_lowercase)))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Percent-encoded, in a query or form.
    Encoded,
    /// The raw token is a JSON string with its quotes.
    JsonString,
    /// A JSON number or boolean.
    JsonPlain,
    JsonNull,
    /// A JSON object or array.
    JsonNested,
}

#[derive(Clone, Debug)]
pub(crate) struct Param<'a> {
    pub name: Cow<'a, str>,
    pub role: Role,
    /// How the name or place was repaired, and what stood there.
    pub fix: Option<(Fix, &'a str)>,
    raw: &'a str,
    form: Form,
    /// It stands within something, so what stands outside comes first.
    within: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    /// Empty, or a word such as `null`.
    Absent,
    /// A placeholder that was not replaced.
    Macro,
    /// Not UTF-8 after decoding.
    Undecodable,
    /// An object or array where a plain value belongs.
    Nested,
    Text {
        text: Cow<'a, str>,
        /// Surrounding space or quotes were removed.
        cleaned: bool,
    },
}

impl<'a> Param<'a> {
    pub(crate) fn encoded(name: Cow<'a, str>, raw: &'a str) -> Self {
        Param { name, role: Role::Other, fix: None, raw, form: Form::Encoded, within: false }
    }

    pub(crate) fn json(name: Cow<'a, str>, token: &'a str) -> Self {
        let form = match token.as_bytes().first() {
            Some(b'"') => Form::JsonString,
            Some(b'{' | b'[') => Form::JsonNested,
            Some(b'n') => Form::JsonNull,
            _ => Form::JsonPlain,
        };
        Param { name, role: Role::Other, fix: None, raw: token, form, within: false }
    }

    pub(crate) fn value(&self) -> Value<'a> {
        match self.form {
            Form::JsonNull => return Value::Absent,
            Form::JsonNested => return Value::Nested,
            _ if self.raw.is_empty() => return Value::Absent,
            _ if self.repeats_its_name() => return Value::Macro,
            Form::Encoded if macros::is_macro(self.raw) => return Value::Macro,
            _ => {}
        }
        let Some(decoded) = self.decoded() else { return Value::Undecodable };
        if self.form == Form::JsonString && macros::is_macro(&decoded) {
            return Value::Macro;
        }
        let inner = clean(&decoded);
        if is_absent(inner) {
            return Value::Absent;
        }
        if inner.len() == decoded.len() {
            return Value::Text { text: decoded, cleaned: false };
        }
        let text = match decoded {
            Cow::Owned(whole) => Cow::Owned(clean(&whole).to_owned()),
            Cow::Borrowed(whole) => Cow::Borrowed(clean(whole)),
        };
        Value::Text { text, cleaned: true }
    }

    /// `subid=SUBID` of a template. A goal's name may well stand for a count.
    fn repeats_its_name(&self) -> bool {
        let raw = self.raw();
        raw.len() == self.name.len() && raw.eq_ignore_ascii_case(&self.name) && !matches!(self.role, Role::Count(_))
    }

    /// What may hold one of our ids: decoded as often as it was encoded, text of any kind.
    pub(crate) fn bytes(&self) -> Cow<'a, [u8]> {
        let text = match self.form {
            Form::JsonString => json_body::unescape(self.raw).unwrap_or(Cow::Borrowed(self.raw)),
            _ => Cow::Borrowed(self.raw),
        };
        match text {
            Cow::Borrowed(text) => own::decoded(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(own::decoded(text.as_bytes()).into_owned()),
        }
    }

    /// The whole value, decoded.
    pub(crate) fn decoded(&self) -> Option<Cow<'a, str>> {
        match self.form {
            Form::Encoded => decode(self.raw),
            Form::JsonString => json_body::unescape(self.raw),
            _ => Some(Cow::Borrowed(self.raw)),
        }
    }

    /// What was received, as it stood there.
    pub(crate) fn raw(&self) -> &'a str {
        match self.form {
            Form::JsonString => self.raw.get(1..self.raw.len().saturating_sub(1)).unwrap_or_default(),
            _ => self.raw,
        }
    }
}

/// The parameters of one hit, query first.
#[derive(Debug, Default)]
pub(crate) struct Params<'a> {
    pub list: Vec<Param<'a>>,
    pub too_many: bool,
    /// Why the body could not be read.
    pub unread_body: Option<&'static str>,
    /// The body is JSON under a form's content type.
    pub json_as_form: bool,
    /// The query or form before and after it was decoded as a whole.
    pub decoded_whole: Option<(&'a str, &'a str)>,
}

impl<'a> Params<'a> {
    pub(crate) fn read(query: &'a str, piece: &Piece<'a>, goals: &[GoalSettings]) -> Params<'a> {
        let mut params = Params { list: Vec::with_capacity(12), ..Params::default() };
        params.add_encoded(query, goals, &[]);
        match piece {
            Piece::Nothing => {}
            Piece::Form(text) => {
                let said = params.said();
                params.add_encoded(text, goals, &said);
            }
            Piece::Json(text) => {
                let said = params.said();
                params.add_object(text, goals, &said);
            }
            Piece::Unread(why) => params.unread_body = Some(why),
        }
        params.prefer_outer();
        params
    }

    /// What stands within something is not read where the same kind of thing is said outside: a hit that is understood without
    /// it stays as it is.
    fn prefer_outer(&mut self) {
        let says = |param: &&Param| param.role != Role::Other && !matches!(param.value(), Value::Absent | Value::Macro);
        if !self.list.iter().any(|param| param.within && param.role != Role::Other) {
            return;
        }
        let outer: Vec<Role> = self.list.iter().filter(|p| !p.within).filter(says).map(|p| p.role).collect();
        for param in self.list.iter_mut().filter(|param| param.within) {
            if outer.iter().any(|role| role.is_like(param.role)) {
                param.role = Role::Other;
            }
        }
    }

    /// Which of the parameters so far say something.
    fn said(&self) -> Vec<bool> {
        self.list.iter().map(|param| !matches!(param.value(), Value::Absent | Value::Macro)).collect()
    }

    fn add_encoded(&mut self, text: &'a str, goals: &[GoalSettings], said: &[bool]) {
        for segment in Segments::new(text, false) {
            if self.too_many {
                break;
            }
            let (name, fix) = segment.name();
            let fix = fix.or(segment.fix).map(|fix| (fix, segment.before));
            self.add(Param { fix, ..Param::encoded(name, segment.value) }, goals, said);
        }
    }

    fn add_object(&mut self, text: &'a str, goals: &[GoalSettings], said: &[bool]) {
        let mut objects = Vec::new();
        let read = json_body::members(text, &mut |name: Cow<'a, str>, value: &'a RawValue| {
            if value.get().starts_with('{') {
                objects.push((self.list.len(), value.get()));
            }
            self.add(Param::json(trimmed(name), value.get()), goals, said);
        });
        if read.is_none() {
            // Half an object is not what the sender meant.
            self.list.truncate(said.len());
            self.unread_body = Some("it is not a JSON object");
            return;
        }
        for (at, object) in objects {
            self.add_members(at, object, goals, said);
        }
    }

    /// What stands in an object within the object, one level deep: `{"data":{"click_id":…}}`, `{"click":{"id":…}}`,
    /// `{"payout":{"value":…,"currency":…}}`.
    fn add_members(&mut self, at: usize, object: &'a str, goals: &[GoalSettings], said: &[bool]) {
        let Some((outer, role)) = self.list.get(at).map(|param| (param.name.clone(), param.role)) else { return };
        let first = self.list.len();
        // The whole text was read before, so this is an object.
        json_body::members(object, &mut |name: Cow<'a, str>, value: &'a RawValue| {
            let name = trimmed(name);
            let place = self.list.len();
            self.add(Param { within: true, ..Param::json(name.clone(), value.get()) }, goals, said);
            let Some(added) = self.list.get_mut(place) else { return };
            if role != Role::Other && ["id", "name", "code", "value"].iter().any(|what| name.eq_ignore_ascii_case(what))
            {
                added.role = role;
            } else if added.role == Role::Other {
                added.role = Role::of(&format!("{outer}_{name}"), goals);
            }
        });
        if self.list[first..].iter().any(|param| param.role != Role::Other) {
            self.list[at].role = Role::Other;
        }
    }

    /// `said` tells of the parameters of the query whether they say something: then they win over the body.
    fn add(&mut self, mut param: Param<'a>, goals: &[GoalSettings], said: &[bool]) {
        if self.list.len() == bounds::PARAMETERS {
            self.too_many = true;
            return;
        }
        param.role = Role::of(&param.name, goals);
        if param.role == Role::Other {
            param.role = Role::within(&param.name, goals);
            param.within |= param.role != Role::Other;
        }
        if param.role == Role::Currency && param.name.len() < "currency".len() {
            param.fix = Some((Fix::HtmlMangled, "&curren"));
        }
        let mut query = self.list.iter().zip(said);
        if query.any(|(q, said)| *said && q.name.eq_ignore_ascii_case(&param.name)) {
            param.role = Role::Other;
            param.raw = "";
            param.form = Form::Encoded;
        }
        self.list.push(param);
    }
}

/// Percent-decodes, `+` being a space. `None` if the result is not UTF-8.
pub(crate) fn decode(raw: &str) -> Option<Cow<'_, str>> {
    if !raw.bytes().any(|b| matches!(b, b'%' | b'+')) {
        return Some(Cow::Borrowed(raw));
    }
    if !raw.contains('+') {
        return percent_decode_str(raw).decode_utf8().ok();
    }
    let spaced = raw.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(|text| Cow::Owned(text.into_owned()))
}

pub(crate) fn trimmed(name: Cow<'_, str>) -> Cow<'_, str> {
    match name {
        Cow::Borrowed(name) => Cow::Borrowed(trim(name)),
        Cow::Owned(name) => Cow::Owned(trim(&name).to_owned()),
    }
}

/// Without surrounding space, and without one or two pairs of quotes.
pub(crate) fn clean(text: &str) -> &str {
    let plain = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\''));
    if plain(text.as_bytes().first()) && plain(text.as_bytes().last()) {
        return text;
    }
    let mut text = trim(text);
    for _ in 0..2 {
        let inner = [("\"", "\""), ("'", "'"), ("“", "”"), ("‘", "’")]
            .iter()
            .find_map(|(open, close)| text.strip_prefix(open)?.strip_suffix(close));
        match inner {
            Some(inner) => text = trim(inner),
            None => break,
        }
    }
    text
}

/// Without surrounding space of any width, byte order marks among it.
pub(crate) fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || is_invisible(c))
}

pub(crate) fn is_invisible(sign: char) -> bool {
    matches!(sign, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
}

/// True for what senders write where they have nothing to say, also in brackets: `(none)`, `{}`.
fn is_absent(text: &str) -> bool {
    let brackets = [("(", ")"), ("[", "]"), ("{", "}"), ("<", ">")];
    let inner = brackets.iter().find_map(|(open, close)| text.strip_prefix(open)?.strip_suffix(close));
    let text = inner.map_or(text, trim);
    match text.len() {
        0 => true,
        1 => text == "-",
        3 => text.eq_ignore_ascii_case("n/a"),
        4 => text.eq_ignore_ascii_case("null") || text.eq_ignore_ascii_case("none"),
        9 => text.eq_ignore_ascii_case("undefined"),
        _ => false,
    }
}

/// Text of a query or form: bytes that are not UTF-8 are percent-encoded, which they must have been from the start.
pub fn encoded_text(bytes: &[u8]) -> Cow<'_, str> {
    utf8_or(bytes, |byte, out| {
        out.push('%');
        out.push(char::from(b"0123456789ABCDEF"[usize::from(byte >> 4)]));
        out.push(char::from(b"0123456789ABCDEF"[usize::from(byte & 15)]));
    })
}

pub(crate) fn utf8_or(bytes: &[u8], write: impl Fn(u8, &mut String)) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            write(*byte, &mut out);
        }
    }
    Cow::Owned(out)
}
