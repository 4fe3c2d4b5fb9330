//! Reads a raw postback: which click it names, which goals, which status, how much money.
//!
//! Pure: the account's settings and the time of receipt are arguments. Reads in time linear in the request, within
//! stated bounds, and never fails: what cannot be understood is a `Reading` that says why and what to do.
//! Invariant: a stored hit (`redact`, then `stored`) reads the same as the request that it was made from.

mod elsewhere;
mod goals;
mod money;
pub mod remarks;
#[cfg(test)]
mod tests;
mod times;

use crate::{
    Reason, Time, bounds,
    event::{Raw, Reading},
    json_body::{Body, BodyKind},
    name,
    params::{self, Params, Role},
    segments,
    settings::AccountSettings,
    word,
};
use remarks::{Picked, Remarks, code, cut, pick, shown};

pub use crate::params::{RawRequest, encoded_text};

/// Reads a postback; more than one reading only for a JSON array.
///
/// Ingest redacts first and reads the stored form, so that nothing that must not be kept comes into a reading.
pub fn interpret(raw: &RawRequest, settings: &AccountSettings, receipt: Time) -> Vec<Reading> {
    let received = params::encoded_text(raw.query);
    let decoded = segments::decode_whole(&received);
    let query = decoded.as_deref().unwrap_or(&received);
    let body = Body::new(raw);
    let read = |piece| {
        let mut params = Params::read(query, piece, &settings.goals);
        params.json_as_form = body.json_as_form;
        params.decoded_whole = decoded.as_deref().map(|after| (&*received, after)).or(body.decoded_whole());
        read_hit(params, settings, receipt)
    };
    body.pieces().iter().map(read).collect()
}

/// A stored hit as a request, to be read again.
pub fn stored(raw: &Raw) -> RawRequest<'_> {
    RawRequest {
        method: &raw.method,
        query: raw.query.as_bytes(),
        body: raw.body.as_deref().map(str::as_bytes),
        content_type: raw.content_type.as_deref(),
    }
}

/// True if the body was needed and is of a type that nobody reads (`415`).
pub fn needs_another_body(raw: &RawRequest, readings: &[Reading]) -> bool {
    readings.iter().any(|r| r.reject == Some(Reason::MalformedBody)) && Body::new(raw).kind == BodyKind::Unknown
}

fn read_hit(mut params: Params, settings: &AccountSettings, receipt: Time) -> Reading {
    let mut remarks = Remarks::default();
    if settings.paused {
        remarks.reject(Reason::AccountPaused, || Reason::AccountPaused.hint().to_owned());
    }
    if params.too_many {
        remarks.reject(Reason::TooManyParameters, || {
            format!("More than {0} parameters came; only the first {0} were read.", bounds::PARAMETERS)
        });
    }
    let chosen = name::choose(&mut params, settings.dyn_mode, receipt, &mut remarks);
    remarks.note_fixes(&params);
    let wanted = goals::read(&params, settings, &mut remarks);
    let (money, currency) = money::read(&params, settings.currency, &mut remarks);
    if let Some(why) = params.unread_body {
        report_body(why, chosen.name.is_some() && wanted.understood, &mut remarks);
    }
    let tid = read_id(&params, &mut remarks, |role| if let Role::Tid(rank) = role { Some(rank) } else { None });
    let tid = tid.filter(|tid| !names_no_transaction(tid, &wanted, &mut remarks));
    let mut reading = Reading {
        name: chosen.name,
        click: chosen.click,
        dyn_: chosen.dyn_,
        goals: wanted.goals,
        state: wanted.state,
        status: wanted.status,
        unmapped: wanted.unmapped,
        currency: Some(currency),
        tid,
        player: read_id(&params, &mut remarks, |role| if let Role::Player(rank) = role { Some(rank) } else { None }),
        ts: times::read(&params, settings, receipt, &mut remarks),
        test: read_test(&params, &mut remarks),
        ..Reading::default()
    };
    match goals::deepest(&reading.goals).and_then(|at| reading.goals.get_mut(at)) {
        Some(goal) => goal.money = money,
        None => reading.money = money,
    }
    reading.corrections = remarks.corrections;
    if let Some((reason, hint)) = remarks.reject {
        reading.reject = Some(reason);
        let about_click = matches!(reason, Reason::MissingClick | Reason::UnreplacedMacro) && reading.name.is_none();
        let called = settings.click_called.as_deref().filter(|_| about_click);
        reading.hint = Some(match called {
            Some(called) => format!("{hint} {}", cut(called)),
            None => hint,
        });
    }
    reading
}

/// A body that cannot be read matters only where the query does not suffice.
fn report_body(why: &str, understood: bool, remarks: &mut Remarks) {
    if understood {
        remarks.note(code::BODY, || format!("the body was not read: {why}"));
    } else {
        remarks.reject(Reason::MalformedBody, || {
            format!("The body cannot be read: {why}. Send a form, a flat JSON object, or everything in the query.")
        });
    }
}

/// A transaction or player id. One that cannot be decoded is kept as it stands there: it is still an id.
fn read_id(params: &Params, remarks: &mut Remarks, rank: impl Fn(Role) -> Option<u8>) -> Option<String> {
    let (param, picked) = pick(params, remarks, rank)?;
    let id = match picked {
        Picked::Text(text) => text.into_owned(),
        Picked::Unreadable if param.value() == params::Value::Nested => return None,
        Picked::Unreadable => {
            remarks
                .note(code::ENCODING, || format!("{} is not UTF-8 after decoding; it was kept as it is", shown(param)));
            param.raw().to_owned()
        }
    };
    if !name::is_well_formed(&id) {
        remarks.note(code::TOO_LONG, || {
            format!("{} is over {} bytes or has control characters; it was left out", shown(param), bounds::NAME_BYTES)
        });
        return None;
    }
    Some(id)
}

/// `0`, or what the goal or status is called: templates and systems without transaction ids send it with every hit, and taken
/// for an id it would make a repeat of each true deposit but the first.
fn names_no_transaction(tid: &str, wanted: &goals::Wanted, remarks: &mut Remarks) -> bool {
    let is_goal = || wanted.goals.iter().any(|goal| word::same(&goal.goal, tid));
    let is_status = || wanted.status.as_deref().is_some_and(|status| word::same(status, tid));
    let nothing = tid.bytes().all(|b| b == b'0') || is_goal() || is_status();
    if nothing {
        remarks.note(code::TID, || format!("the transaction id {} names no transaction; it was left out", cut(tid)));
    }
    nothing
}

fn read_test(params: &Params, remarks: &mut Remarks) -> bool {
    match pick(params, remarks, |role| (role == Role::Test).then_some(0)) {
        Some((_, Picked::Text(text))) => ["1", "true", "yes", "on"].iter().any(|word| text.eq_ignore_ascii_case(word)),
        _ => false,
    }
}
