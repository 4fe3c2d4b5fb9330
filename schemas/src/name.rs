//! Chooses the one name of a hit: the click, alias or label that `decide` will look up.
//!
//! Order: one of our own ids with right check bits in any parameter; `clickId`; `dyn`; the aliases. Absent values,
//! macros and ids of ours that were cut or changed are left out. Refuses to choose between two of our own ids.

use std::borrow::Cow;

use crate::{
    ClickId, Reason, Time, bounds,
    event::Name,
    id::ID_CHARS,
    interpret::remarks::{Remarks, code, cut, shown},
    own::{self, Damage, Found},
    params::{self, DYN, Param, Params, Role, Value},
    settings::DynMode,
};

/// The form in which aliases and labels are compared.
pub fn fold(text: &str) -> String {
    if text.is_ascii() { text.to_ascii_lowercase() } else { text.chars().flat_map(char::to_lowercase).collect() }
}

/// Without the space and quotes around it, which a postback is read without, too.
pub fn clean(text: &str) -> &str {
    params::clean(text)
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
    One { id: ClickId, found: Found, at: usize },
    Two { hint: String, found: Found },
}

pub(crate) fn choose(params: &mut Params, mode: DynMode, receipt: Time, remarks: &mut Remarks) -> Chosen {
    let own = find_own(params, receipt, remarks);
    let candidates = Candidates::read(params, receipt, matches!(own, Own::None), remarks);
    let mut chosen = Chosen { dyn_: candidates.dyn_.as_deref().map(ToOwned::to_owned), ..Chosen::default() };
    match own {
        Own::One { id, found, at } => {
            let param = &params.list[at];
            if matches!(param.role, Role::Click(_)) && param.raw().len() != ID_CHARS {
                remarks.note(code::TRIMMED, || format!("{} was read as {}", shown(param), found.text()));
            }
            chosen.click = Some(found.text().to_owned());
            chosen.name = Some(Name::Click(id));
        }
        Own::Two { hint, found } => {
            remarks.reject(Reason::AmbiguousClick, || hint);
            chosen.click = Some(found.text().to_owned());
        }
        Own::None => candidates.choose(params, mode, &mut chosen, remarks),
    }
    chosen
}

/// Looks for our own ids. A parameter of another meaning that is one is not read as what its name says: our id is
/// no amount, no transaction and no player.
fn find_own(params: &mut Params, receipt: Time, remarks: &mut Remarks) -> Own {
    let mut own = Own::None;
    let (mut in_place, mut noted) = (false, false);
    let mut stray = None;
    for at in 0..params.list.len() {
        let param = &params.list[at];
        let found = own_in(param, receipt);
        let Some(id) = found.id else { continue };
        match param.role {
            Role::Click(_) => in_place = true,
            Role::Other | Role::Count(_) => stray = stray.or(Some((at, found))),
            _ if !found.alone => stray = stray.or(Some((at, found))),
            _ => {
                noted = true;
                note_elsewhere(param, &found, remarks);
                params.list[at].role = Role::Other;
            }
        }
        own = match own {
            _ if found.other.is_some() => {
                let received = shown(&params.list[at]);
                Own::Two { hint: format!("{received} holds different click ids of ours: send one of them."), found }
            }
            Own::None => Own::One { id, found, at },
            Own::One { id: known, found, at: one } if known != id => {
                let (one, other) = (shown(&params.list[one]), shown(&params.list[at]));
                Own::Two {
                    hint: format!("{one} and {other} hold different click ids of ours: send one of them."),
                    found,
                }
            }
            known => known,
        };
        if matches!(own, Own::Two { .. }) {
            break;
        }
    }
    if let (Some((at, found)), false, false) = (stray, in_place, noted) {
        note_elsewhere(&params.list[at], &found, remarks);
    }
    own
}

fn note_elsewhere(param: &Param, found: &Found, remarks: &mut Remarks) {
    remarks.note(code::CLICK_ELSEWHERE, || format!("{} was read as clickId={}", shown(param), found.text()));
}

/// In its value or, where the name was left out, in its name.
fn own_in(param: &Param, receipt: Time) -> Found {
    let found = own::find(&param.bytes(), receipt);
    if found.id.is_some() || param.name.len() < ID_CHARS {
        return found;
    }
    own::find(&own::decoded(param.name.as_bytes()), receipt)
}

/// The parameters that may name the click, read.
#[derive(Default)]
struct Candidates<'a> {
    best: Option<Candidate<'a>>,
    dyn_: Option<Cow<'a, str>>,
    first_macro: Option<usize>,
    damaged: Option<(usize, Damage)>,
}

struct Candidate<'a> {
    rank: u8,
    at: usize,
    /// `None`: it cannot be decoded.
    text: Option<Cow<'a, str>>,
    cleaned: bool,
}

impl<'a> Candidates<'a> {
    /// `noting` tells whether one of them will be the name.
    fn read(params: &Params<'a>, receipt: Time, noting: bool, remarks: &mut Remarks) -> Candidates<'a> {
        let mut found = Candidates::default();
        for (at, param) in params.list.iter().enumerate() {
            let Role::Click(rank) = param.role else { continue };
            let (text, cleaned) = match param.value() {
                Value::Absent => continue,
                // Our own id in the signs of a macro was replaced.
                Value::Macro if own_in(param, receipt).id.is_some() => continue,
                Value::Macro => {
                    found.first_macro = found.first_macro.or(Some(at));
                    remarks.note_macro(param);
                    continue;
                }
                Value::Nested => {
                    remarks.note_nested(param);
                    continue;
                }
                Value::Undecodable => (None, false),
                Value::Text { text, cleaned } => match own::damage(&text, receipt) {
                    None => (Some(text), cleaned),
                    Some(damage) => {
                        found.damaged = found.damaged.or(Some((at, damage)));
                        continue;
                    }
                },
            };
            if rank == DYN && found.dyn_.is_none() {
                found.dyn_ = text.clone().filter(|text| is_well_formed(text));
            }
            match &found.best {
                Some(best) if best.rank == rank && noting && best.text != text => remarks.note(code::NOT_USED, || {
                    format!("{} was not used: {} comes first", shown(param), shown(&params.list[best.at]))
                }),
                Some(best) if best.rank <= rank => {}
                _ => found.best = Some(Candidate { rank, at, text, cleaned }),
            }
        }
        found
    }

    fn choose(self, params: &Params, mode: DynMode, chosen: &mut Chosen, remarks: &mut Remarks) {
        if let Some((at, damage)) = self.damaged {
            let param = &params.list[at];
            if self.best.is_some() {
                remarks.note(code::DAMAGED_CLICK, || format!("{}; it was left out", damaged(param, damage)));
            } else if let Value::Text { text, .. } = param.value() {
                chosen.click = Some(text.into_owned());
            }
        }
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
        if let Some((at, damage)) = self.damaged {
            let param = &params.list[at];
            remarks.reject(Reason::MalformedClick, || {
                format!("{}: pass the value from the tracking link on as it is, all of it.", damaged(param, damage))
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

fn damaged(param: &Param, damage: Damage) -> String {
    let received = shown(param);
    match damage {
        Damage::Cut => format!(
            "{received} begins like a click id of ours but was cut: {} of its {ID_CHARS} characters came",
            param.decoded().map_or(0, |text| params::clean(&text).len())
        ),
        Damage::Changed => format!("{received} looks like a click id of ours, but a character of it was changed"),
        Damage::Hit => format!("{received} is the id of a hit and not of a click"),
    }
}

pub(crate) fn received_names(params: &Params) -> String {
    let Some(last) = params.list.last() else { return "no parameter came".to_owned() };
    let names: Vec<&str> = params.list.iter().take(8).map(|p| p.name.as_ref()).collect();
    let names = cut(&names.join(", ")).into_owned();
    if last.raw().is_empty() && last.role != Role::Other {
        let last = cut(&last.name);
        return format!("received: {names}; nothing after {last}= came, as when a # in the URL cuts it off there");
    }
    format!("received: {names}")
}
