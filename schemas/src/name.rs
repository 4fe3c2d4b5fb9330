//! Chooses the one name of a hit: the click, alias or label that `decide` will look up.
//!
//! Order: one of our own ids with right check bits in any parameter; `clickId`; `dyn`; the aliases. Absent values and
//! macros are left out. Refuses to choose between two of our own ids.

use std::borrow::Cow;

use crate::{
    ClickId, Reason, bounds,
    event::Name,
    id,
    interpret::remarks::{Remarks, code, cut, shown},
    params::{DYN, Param, Params, Role, Value},
    settings::DynMode,
};

/// The form in which aliases and labels are compared.
pub fn fold(text: &str) -> String {
    if text.is_ascii() { text.to_ascii_lowercase() } else { text.chars().flat_map(char::to_lowercase).collect() }
}

/// True for what may name a click: 1 to 255 bytes without control characters.
pub fn is_well_formed(text: &str) -> bool {
    !text.is_empty() && text.len() <= bounds::NAME_BYTES && !text.chars().any(char::is_control)
}

#[derive(Debug, Default)]
pub(crate) struct Chosen {
    pub name: Option<Name>,
    /// The name as received.
    pub click: Option<String>,
    pub dyn_: Option<String>,
}

enum Own {
    None,
    One { id: ClickId, at: usize },
    Two { one: usize, other: usize },
}

pub(crate) fn choose(params: &mut Params, mode: DynMode, remarks: &mut Remarks) -> Chosen {
    let own = find_own(params, remarks);
    let candidates = Candidates::read(params, remarks);
    let mut chosen = Chosen { dyn_: candidates.dyn_.as_deref().map(ToOwned::to_owned), ..Chosen::default() };
    match own {
        Own::One { id, at } => {
            let param = &params.list[at];
            if param.raw().len() != id::ID_CHARS {
                remarks.note_trimmed(param);
            }
            chosen.click = Some(own_text(param).map_or_else(|| id.to_string(), Cow::into_owned));
            chosen.name = Some(Name::Click(id));
        }
        Own::Two { one, other } => {
            let (one, other) = (&params.list[one], &params.list[other]);
            remarks.reject(Reason::AmbiguousClick, || {
                format!("{} and {} are different click ids of ours: send one of them.", shown(one), shown(other))
            });
            chosen.click = own_text(one).map(Cow::into_owned);
        }
        Own::None => candidates.choose(params, mode, &mut chosen, remarks),
    }
    chosen
}

/// Looks for our own ids. A parameter of another meaning that holds one is not read as what its name says: our id is
/// no amount, no transaction and no player.
fn find_own(params: &mut Params, remarks: &mut Remarks) -> Own {
    let mut own = Own::None;
    let (mut in_place, mut noted) = (false, false);
    let mut stray = None;
    for (at, param) in params.list.iter_mut().enumerate() {
        let Some(id) = own_text(param).and_then(|text| ClickId::parse(text.as_bytes())) else { continue };
        match param.role {
            Role::Click(_) => in_place = true,
            Role::Other | Role::Count(_) => stray = stray.or(Some(at)),
            _ => {
                param.role = Role::Other;
                noted = true;
                remarks.note(code::CLICK_ELSEWHERE, || format!("{} is the click id, and nothing else", shown(param)));
            }
        }
        own = match own {
            Own::None => Own::One { id, at },
            Own::One { id: known, at: one } if known != id => Own::Two { one, other: at },
            known => known,
        };
    }
    if let (Some(at), false, false) = (stray, in_place, noted) {
        remarks.note(code::CLICK_ELSEWHERE, || format!("the click id was found in {}", shown(&params.list[at])));
    }
    own
}

/// The 26 characters that may be one of our ids, with whatever signs stand around them: the check bits make it safe.
fn own_text<'a>(param: &Param<'a>) -> Option<Cow<'a, str>> {
    let raw = param.raw();
    if !(id::ID_CHARS..=id::ID_CHARS * 3 + 24).contains(&raw.len()) {
        return None;
    }
    if raw.len() == id::ID_CHARS {
        return Some(Cow::Borrowed(raw));
    }
    let bare = |text: &str| text.trim_matches(|c: char| !c.is_ascii_alphanumeric()).len() == id::ID_CHARS;
    match param.decoded()? {
        Cow::Borrowed(text) if bare(text) => {
            Some(Cow::Borrowed(text.trim_matches(|c: char| !c.is_ascii_alphanumeric())))
        }
        Cow::Owned(text) if bare(&text) => {
            Some(Cow::Owned(text.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()))
        }
        _ => None,
    }
}

/// The parameters that may name the click, read.
#[derive(Default)]
struct Candidates<'a> {
    best: Option<Candidate<'a>>,
    dyn_: Option<Cow<'a, str>>,
    first_macro: Option<usize>,
    nested: Option<usize>,
}

struct Candidate<'a> {
    rank: u8,
    at: usize,
    /// `None`: it cannot be decoded.
    text: Option<Cow<'a, str>>,
    cleaned: bool,
}

impl<'a> Candidates<'a> {
    fn read(params: &Params<'a>, remarks: &mut Remarks) -> Candidates<'a> {
        let mut found = Candidates::default();
        for (at, param) in params.list.iter().enumerate() {
            let Role::Click(rank) = param.role else { continue };
            let (text, cleaned) = match param.value() {
                Value::Absent => continue,
                Value::Macro => {
                    found.first_macro = found.first_macro.or(Some(at));
                    remarks.note_macro(param);
                    continue;
                }
                Value::Nested => {
                    found.nested = found.nested.or(Some(at));
                    remarks.note_nested(param);
                    continue;
                }
                Value::Undecodable => (None, false),
                Value::Text { text, cleaned } => (Some(text), cleaned),
            };
            if rank == DYN && found.dyn_.is_none() {
                found.dyn_ = text.clone().filter(|text| is_well_formed(text));
            }
            if found.best.as_ref().is_none_or(|best| rank < best.rank) {
                found.best = Some(Candidate { rank, at, text, cleaned });
            }
        }
        found
    }

    fn choose(self, params: &Params, mode: DynMode, chosen: &mut Chosen, remarks: &mut Remarks) {
        let Some(best) = self.best else { return self.none_left(params, remarks) };
        let param = &params.list[best.at];
        let Some(text) = best.text else {
            remarks.reject(Reason::InvalidEncoding, || {
                format!("{} is not UTF-8 after decoding: percent-encode the value as it came in.", shown(param))
            });
            return;
        };
        if !is_well_formed(&text) {
            remarks.reject(Reason::MalformedClick, || {
                format!(
                    "{} has {} bytes or control characters in it: send the value from the tracking link as it is, 255 bytes at most.",
                    shown(param),
                    text.len()
                )
            });
            chosen.click = Some(cut(&text).into_owned());
            return;
        }
        if best.cleaned {
            remarks.note_trimmed(param);
        }
        let folded = fold(&text);
        chosen.name = Some(match mode {
            DynMode::Campaign if best.rank == DYN => Name::Label(folded),
            _ => Name::Alias(folded),
        });
        chosen.click = Some(text.into_owned());
    }

    fn none_left(&self, params: &Params, remarks: &mut Remarks) {
        if let Some(at) = self.first_macro {
            let param = &params.list[at];
            remarks.reject(Reason::UnreplacedMacro, || {
                format!(
                    "{} is a placeholder that the sender did not replace: put the macro of the sender's system there.",
                    shown(param)
                )
            });
            return;
        }
        remarks.reject(Reason::MissingClick, || match params.list.iter().find(|p| matches!(p.role, Role::Click(_))) {
            Some(param) => format!(
                "{} says nothing: send the value that came in on the tracking link. A # in the URL cuts off what follows.",
                shown(param)
            ),
            None => format!(
                "None of clickId, dyn, click_id, cid, subid, sub_id, sid, cnv_id, aff_sub was sent ({}): add one with the value that came in on the tracking link.",
                received_names(params)
            ),
        });
    }
}

pub(crate) fn received_names(params: &Params) -> String {
    if params.list.is_empty() {
        return "no parameter came".to_owned();
    }
    let names: Vec<&str> = params.list.iter().take(8).map(|p| p.name.as_ref()).collect();
    format!("received: {}", cut(&names.join(", ")))
}
