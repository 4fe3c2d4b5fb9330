//! Finds our own click ids in whatever stands around them.
//!
//! An id is a run of 26 letters and digits whose check bits are right. Glued to other letters it is taken only at the
//! end of a run and if its time can be. Refuses to correct an id: one that was cut or changed names no click, and
//! `damage` tells it from an id of somebody else.
//! Invariant: time is linear in the text.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::{
    ClickId, EventId, Time,
    id::{self, ID_CHARS},
    params::is_invisible,
    segments::half_width,
};

/// No click of ours is older: 2026-01-01.
const FIRST: Time = Time::from_ms(1_767_225_600_000);
/// Values are decoded no more often than this.
const DECODED: usize = 3;
/// Characters of an id that was cut, at least: fewer are as likely somebody else's.
const CUT: usize = 16;

/// The ids of ours in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub id: Option<ClickId>,
    /// Another one than `id`.
    pub other: Option<ClickId>,
    /// As it stands there.
    pub chars: [u8; ID_CHARS],
    /// Beside it there are only signs.
    pub alone: bool,
}

impl Found {
    fn add(&mut self, chars: &[u8]) -> bool {
        let (Ok(chars), Some(id)) = (<[u8; ID_CHARS]>::try_from(chars), ClickId::parse(chars)) else { return false };
        match self.id {
            None => (self.id, self.chars) = (Some(id), chars),
            Some(known) if known != id => self.other = self.other.or(Some(id)),
            Some(_) => {}
        }
        true
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.chars).unwrap_or_default()
    }
}

pub(crate) fn find(text: &[u8], now: Time) -> Found {
    let mut found = Found { alone: true, ..Found::default() };
    if text.len() < ID_CHARS {
        return found;
    }
    for run in text.split(|b| !b.is_ascii_alphanumeric()).filter(|run| !run.is_empty()) {
        found.alone &= match run.len().checked_div(ID_CHARS) {
            Some(0) | None => false,
            Some(_) if run.len() == ID_CHARS => found.add(run),
            // The same id, or several, without anything between them.
            Some(2..=4) if run.chunks(ID_CHARS).all(|chars| ClickId::parse(chars).is_some()) => {
                run.chunks(ID_CHARS).all(|chars| found.add(chars))
            }
            Some(_) => {
                let ends = [&run[..ID_CHARS], &run[run.len() - ID_CHARS..]];
                for chars in ends.into_iter().filter(|chars| is_possible(id::time_of(chars), now)) {
                    found.add(chars);
                }
                false
            }
        };
    }
    found.alone &= found.id.is_some();
    found
}

fn is_possible(time: Option<Time>, now: Time) -> bool {
    time.is_some_and(|time| FIRST <= time && time <= now.plus_ms(crate::bounds::CLICK_AHEAD_MS))
}

/// Decoded as often as it may have been encoded, in plain letters, without what cannot be seen. Only where that could
/// make an id of it.
pub(crate) fn decoded(raw: &[u8]) -> Cow<'_, [u8]> {
    let letters = |b: &u8| b.is_ascii_alphanumeric() || *b == b'%' || *b >= 0x80;
    if raw.len() < ID_CHARS || !raw.split(|b| !letters(b)).any(|run| run.len() >= ID_CHARS) {
        return Cow::Borrowed(&raw[..0]);
    }
    let mut text = Cow::Borrowed(raw);
    for _ in 0..DECODED {
        if !text.contains(&b'%') {
            break;
        }
        let Cow::Owned(decoded) = Cow::<[u8]>::from(percent_decode(&text)) else { break };
        text = Cow::Owned(decoded);
    }
    if text.is_ascii() {
        return text;
    }
    let plain =
        String::from_utf8_lossy(&text).chars().filter(|c| !is_invisible(*c)).map(half_width).collect::<String>();
    Cow::Owned(plain.into_bytes())
}

/// What became of an id of ours that names no click any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    Cut,
    /// 26 characters, but not the ones that we gave out.
    Changed,
    /// It is the id of a hit.
    Hit,
}

/// `None` where somebody else may well have made this id. Digits alone and hexadecimal digits alone are left alone.
pub(crate) fn damage(text: &str, now: Time) -> Option<Damage> {
    let chars = text.as_bytes();
    if chars.len() == ID_CHARS && EventId::parse(chars).is_some() {
        return Some(Damage::Hit);
    }
    let one_case = !(chars.iter().any(u8::is_ascii_lowercase) && chars.iter().any(u8::is_ascii_uppercase));
    let ours = (CUT..=ID_CHARS).contains(&chars.len())
        && one_case
        && chars.iter().any(|b| b.is_ascii_alphabetic() && !b.is_ascii_hexdigit())
        && chars.iter().all(|b| id::is_digit(*b))
        && is_possible(id::time_of(chars), now)
        && ClickId::parse(chars).is_none();
    ours.then_some(if chars.len() == ID_CHARS { Damage::Changed } else { Damage::Cut })
}
