//! Which goals a hit names, how often, and what its status word means.

use std::borrow::Cow;

use crate::{
    Reason,
    event::GoalReading,
    goal::{self, Dedup},
    interpret::{
        elsewhere,
        remarks::{Picked, Remarks, code, pick, shown},
    },
    name::{fold, received_names},
    params::{Param, Params, Role, Value, same_word},
    settings::AccountSettings,
    status::{Meaning, State},
    word,
};

#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub goals: Vec<GoalReading>,
    pub state: Option<State>,
    pub status: Option<String>,
    pub unmapped: bool,
    /// There is a goal, or a state that finds one.
    pub understood: bool,
}

/// Of a word that is compared by its letters: no known one is longer.
const WORD_BYTES: usize = 255;

pub(crate) fn read(params: &Params, settings: &AccountSettings, remarks: &mut Remarks) -> Wanted {
    let mut seen = Seen::default();
    seen.read_counts(params, settings, remarks);
    seen.read_words(params, settings, remarks);
    let status = Status::read(params, settings, remarks);
    seen.add_goal_of(&status, settings);
    if seen.says_nothing()
        && let Some((param, at)) = elsewhere::find(params, settings)
    {
        let goal = &settings.goals[at].name;
        remarks.note(code::GOAL_ELSEWHERE, || format!("{} was read as event={goal}", shown(param)));
        seen.add_word(at);
    }
    let mut wanted = Wanted {
        state: status.meaning.and_then(|m| m.state),
        status: status.word.as_deref().map(ToOwned::to_owned),
        ..Wanted::default()
    };
    match seen.decide() {
        Decision::Ambiguous => remarks.reject(Reason::AmbiguousEvent, || seen.ambiguous_hint(settings)),
        Decision::Goals(goals) => {
            seen.note_problems(remarks);
            wanted.goals = goals.into_iter().map(|(at, count)| reading(settings, at, count)).collect();
            wanted.unmapped = status.is_unknown();
            wanted.understood = true;
        }
        Decision::Nothing => {
            wanted.understood = no_goal(params, &seen, &status, remarks);
        }
    }
    wanted
}

fn reading(settings: &AccountSettings, at: usize, count: u32) -> GoalReading {
    let goal = &settings.goals[at];
    GoalReading {
        goal: goal.name.clone(),
        count,
        dedup: goal.dedup,
        repeat_window_s: goal.repeat_window_s,
        money: Default::default(),
    }
}

/// The deepest of some goals, which a hit's money belongs to: of built-in ones by depth, of custom ones alone the last.
pub(crate) fn deepest(goals: &[GoalReading]) -> Option<usize> {
    (0..goals.len()).max_by_key(|at| (goal::depth(&goals[*at].goal), *at))
}

/// A parameter that should have named a goal and did not.
enum Problem {
    Macro,
    Encoding,
    Count,
    Word,
}

#[derive(Default)]
struct Seen {
    /// Index of a goal and its count.
    counts: Vec<(usize, u32)>,
    /// Goals that words name, each once.
    words: Vec<usize>,
    zero: bool,
    /// The problem that comes first in the order of reasons, with its hint.
    problem: Option<(Reason, String)>,
    left_out: Vec<(&'static str, String)>,
}

enum Decision {
    Goals(Vec<(usize, u32)>),
    Ambiguous,
    Nothing,
}

impl Seen {
    fn read_counts(&mut self, params: &Params, settings: &AccountSettings, remarks: &mut Remarks) {
        for param in &params.list {
            let Role::Count(at) = param.role else { continue };
            let Some((text, cleaned)) = self.plain_text(param, Problem::Count, settings, remarks) else { continue };
            let Some(count) = parse_count(&text).filter(|n| *n <= u64::from(settings.max_count)) else {
                self.problem(param, Problem::Count, settings);
                continue;
            };
            if cleaned {
                remarks.note_trimmed(param);
            }
            if count == 0 {
                self.zero = true;
            } else if self.counts.iter().any(|(known, _)| *known == at) {
                remarks.note(code::NOT_USED, || format!("{} was not used: the goal was named before", shown(param)));
            } else if count > 1 && settings.goals[at].dedup == Dedup::Once {
                remarks.note(code::COUNT_ONCE, || format!("{} was read as 1: this goal counts once", shown(param)));
                self.counts.push((at, 1));
            } else {
                self.counts.push((at, count as u32));
            }
        }
    }

    fn read_words(&mut self, params: &Params, settings: &AccountSettings, remarks: &mut Remarks) {
        for param in params.list.iter().filter(|p| p.role == Role::Word) {
            let Some((text, cleaned)) = self.plain_text(param, Problem::Word, settings, remarks) else { continue };
            if cleaned {
                remarks.note_trimmed(param);
            }
            match goal_of_word(&text, settings) {
                None => self.problem(param, Problem::Word, settings),
                Some(at) => self.add_word(at),
            }
        }
    }

    fn add_word(&mut self, at: usize) {
        if !self.words.contains(&at) {
            self.words.push(at);
        }
    }

    fn add_goal_of(&mut self, status: &Status, settings: &AccountSettings) {
        let Some(goal) = status.meaning.and_then(|m| m.goal.as_deref()) else { return };
        match goal_of_word(goal, settings) {
            Some(at) => self.add_word(at),
            None => self.add_problem(Reason::UnknownEvent, || {
                format!("The status map gives {goal}, which is no goal of the account: add it to the account's goals.")
            }),
        }
    }

    /// The text of a parameter that names a goal; what has none is recorded.
    fn plain_text<'a>(
        &mut self,
        param: &Param<'a>,
        otherwise: Problem,
        settings: &AccountSettings,
        remarks: &mut Remarks,
    ) -> Option<(Cow<'a, str>, bool)> {
        match param.value() {
            Value::Text { text, cleaned } => return Some((text, cleaned)),
            Value::Absent => {}
            Value::Macro => {
                remarks.note_macro(param);
                self.problem(param, Problem::Macro, settings);
            }
            Value::Undecodable => self.problem(param, Problem::Encoding, settings),
            Value::Nested => self.problem(param, otherwise, settings),
        }
        None
    }

    fn problem(&mut self, param: &Param, problem: Problem, settings: &AccountSettings) {
        let received = shown(param);
        let (reason, left_out) = match problem {
            Problem::Macro => (Reason::UnreplacedMacro, None),
            Problem::Encoding => (Reason::InvalidEncoding, Some(code::ENCODING)),
            Problem::Count => (Reason::InvalidCount, Some(code::COUNT)),
            Problem::Word => (Reason::UnknownEvent, Some(code::EVENT)),
        };
        if let Some(code) = left_out {
            self.left_out.push((code, format!("{received} cannot be read and was left out")));
        }
        self.add_problem(reason, || match problem {
            Problem::Macro => {
                format!("{received} is a placeholder that the sender did not replace: put the goal's name or a count there.")
            }
            Problem::Encoding => format!("{received} is not UTF-8 after decoding: percent-encode it."),
            Problem::Count => {
                format!("{received} is no count: send a whole number from 1 to {}.", settings.max_count)
            }
            Problem::Word => format!(
                "{received} is no goal of the account: add it to the account's goals, or as an alias of one, then reprocess."
            ),
        });
    }

    fn add_problem(&mut self, reason: Reason, hint: impl FnOnce() -> String) {
        if self.problem.as_ref().is_none_or(|(known, _)| reason < *known) {
            self.problem = Some((reason, hint()));
        }
    }

    /// Nothing names a goal, or tries to.
    fn says_nothing(&self) -> bool {
        self.counts.is_empty() && self.words.is_empty() && !self.zero && self.problem.is_none()
    }

    fn decide(&self) -> Decision {
        match (self.counts.as_slice(), self.words.as_slice()) {
            ([], []) => Decision::Nothing,
            (counts, []) => Decision::Goals(counts.to_vec()),
            ([], [word]) => Decision::Goals(vec![(*word, 1)]),
            (counts, [word]) if counts.iter().all(|(at, _)| at == word) => Decision::Goals(counts.to_vec()),
            _ => Decision::Ambiguous,
        }
    }

    fn note_problems(&mut self, remarks: &mut Remarks) {
        for (code, detail) in self.left_out.drain(..) {
            remarks.note(code, || detail);
        }
    }

    fn ambiguous_hint(&self, settings: &AccountSettings) -> String {
        let mut named: Vec<&str> = Vec::new();
        for at in self.counts.iter().map(|(at, _)| *at).chain(self.words.iter().copied()) {
            let name = settings.goals[at].name.as_str();
            if !named.contains(&name) && named.len() < 6 {
                named.push(name);
            }
        }
        format!(
            "The parameters name different goals ({}): send one of them, or several counts without an event or status word.",
            named.join(", ")
        )
    }
}

/// The reason why there is no goal. True if a state alone is what was meant.
fn no_goal(params: &Params, seen: &Seen, status: &Status, remarks: &mut Remarks) -> bool {
    if let Some((reason, hint)) = &seen.problem {
        remarks.reject(*reason, || hint.clone());
        return false;
    }
    if let (Some(meaning), false) = (status.meaning, seen.zero) {
        if meaning.state.is_some() && !meaning.ignore {
            return true;
        }
        remarks.reject(Reason::IgnoredStatus, || {
            format!(
                "{} is a word that the status map ignores: change the account's statuses if it counts.",
                status.shown
            )
        });
        return false;
    }
    match &status.problem {
        Some(reason) => {
            let fix = match reason {
                Reason::UnreplacedMacro => {
                    "is a placeholder that the sender did not replace: put the macro of the sender's system there."
                }
                Reason::InvalidEncoding => "is not UTF-8 after decoding: percent-encode it.",
                _ => "is a word that no status map knows: add it to the account's statuses, then reprocess.",
            };
            remarks.reject(*reason, || format!("{} {fix}", status.shown));
        }
        None => remarks.reject(Reason::MissingEvent, || {
            let what = if seen.zero {
                "Every count is 0, which is no event".to_owned()
            } else {
                format!("No goal was sent ({})", received_names(params))
            };
            format!("{what}: add signups=1, firsttimedeposits=1, event=NAME or status=WORD.")
        }),
    }
    false
}

#[derive(Default)]
struct Status<'a> {
    /// As received.
    word: Option<Cow<'a, str>>,
    meaning: Option<&'a Meaning>,
    /// Why the word says nothing.
    problem: Option<Reason>,
    shown: String,
}

impl<'a> Status<'a> {
    fn read<'p>(params: &'p Params<'a>, settings: &'a AccountSettings, remarks: &mut Remarks) -> Status<'a> {
        let only = |role| (role == Role::Status).then_some(0);
        let Some((param, picked)) = pick(params, remarks, only) else {
            let unreplaced = params.list.iter().find(|p| p.role == Role::Status && p.value() == Value::Macro);
            return unreplaced.map_or_else(Status::default, |param| Status {
                problem: Some(Reason::UnreplacedMacro),
                shown: shown(param),
                ..Status::default()
            });
        };
        let Picked::Text(word) = picked else {
            return Status {
                word: Some(Cow::Owned(shown(param))),
                meaning: None,
                problem: Some(Reason::InvalidEncoding),
                shown: shown(param),
            };
        };
        let known = settings.statuses.get(word.as_ref()).or_else(|| settings.statuses.get(&fold(&word)));
        let similar = |(known, _): &(&String, &Meaning)| word.len() <= WORD_BYTES && word::same(known, &word);
        let meaning = known.or_else(|| settings.statuses.iter().find(similar).map(|(_, meaning)| meaning));
        let problem = meaning.is_none().then_some(Reason::UnmappedStatus);
        let shown = match meaning {
            Some(meaning) if meaning.state.is_some() || meaning.goal.is_some() => String::new(),
            _ => shown(param),
        };
        Status { word: Some(word), meaning, problem, shown }
    }

    fn is_unknown(&self) -> bool {
        self.word.is_some() && self.meaning.is_none()
    }
}

/// A name comes before an alias, and an alias of the account's own goals before those that everybody has. Where the word as
/// it stands is none of them, it is compared without the signs between its parts: `First Time-Deposit`.
pub(super) fn goal_of_word(word: &str, settings: &AccountSettings) -> Option<usize> {
    find_goal(settings, |known| same_word(known, word)).or_else(|| {
        // A word that is longer than any goal's would only be compared in vain.
        if word.len() > WORD_BYTES { None } else { find_goal(settings, |known| word::same(known, word)) }
    })
}

fn find_goal(settings: &AccountSettings, is: impl Fn(&str) -> bool) -> Option<usize> {
    let named = settings.goals.iter().position(|goal| is(&goal.name));
    named.or_else(|| settings.goals.iter().rposition(|goal| goal.aliases.iter().any(|alias| is(alias))))
}

fn parse_count(text: &str) -> Option<u64> {
    if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("yes") {
        return Some(1);
    }
    if text.eq_ignore_ascii_case("false") || text.eq_ignore_ascii_case("no") {
        return Some(0);
    }
    let whole = match text.split_once('.') {
        Some((whole, places)) if !places.is_empty() && places.bytes().all(|b| b == b'0') => whole,
        Some(_) => return None,
        None => text,
    };
    if whole.bytes().all(|b| b.is_ascii_digit()) { whole.parse().ok() } else { None }
}
