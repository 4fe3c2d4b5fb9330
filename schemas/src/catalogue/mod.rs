//! The built-in programs: data files embedded in the binary, and how to find a program in them.
//!
//! Owns: facts about programs (link parameter, placeholders, status words) and where each was read.
//! Refuses: anything that changes at run time; a tenant's own programs live in the catalog.
//! Invariant: `generic` is the first program, ids are unique, and every program passes `check::problems`, which a
//! tenant's own program has to pass as well.

pub mod check;

use std::sync::LazyLock;

use crate::catalog::Program;

pub const GENERIC: &str = "generic";

/// What a placeholder can stand for, in the order in which a postback URL lists them.
pub const PLACEHOLDER_KEYS: &[&str] =
    &["click_id", "dyn", "goal", "event", "amount", "value", "currency", "tid", "player", "status", "time"];

const FILES: &[(&str, &str)] = &[
    ("general.json", include_str!("../../catalogue/general.json")),
    ("igaming.json", include_str!("../../catalogue/igaming.json")),
    ("networks.json", include_str!("../../catalogue/networks.json")),
];

static PROGRAMS: LazyLock<Vec<Program>> =
    LazyLock::new(|| FILES.iter().flat_map(|(name, text)| parse(name, text)).collect());

fn parse(name: &str, text: &str) -> Vec<Program> {
    match serde_json::from_str(text) {
        Ok(programs) => programs,
        // The text is part of the binary and the tests read it, so this can only be a build that was never tested.
        Err(error) => panic!("embedded catalogue {name}: {error}"),
    }
}

/// Every built-in program, `generic` first.
pub fn built_in() -> &'static [Program] {
    &PROGRAMS
}

/// Ids are found in any case.
pub fn find(id: &str) -> Option<&'static Program> {
    built_in().iter().find(|program| program.id.eq_ignore_ascii_case(id))
}

/// Built-in programs that `matches` finds, in the catalogue's order.
pub fn search(q: &str) -> Vec<&'static Program> {
    built_in().iter().filter(|program| matches(program, q)).collect()
}

/// True if the program's id, name or link parameter contains every word of `q`, in any case.
pub fn matches(program: &Program, q: &str) -> bool {
    let text = format!("{} {} {}", program.id, program.name, program.click_param).to_lowercase();
    q.to_lowercase().split_whitespace().all(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{catalog::ClickIn, macros::is_macro};
    use std::collections::BTreeSet;

    #[test]
    fn every_program_is_well_formed() {
        for program in built_in() {
            assert_eq!(check::problems(program), [], "{}", program.id);
            assert!(!program.archived, "{}", program.id);
            assert!(program.source.len() > 5 && !program.notes.is_empty(), "{} has no source or notes", program.id);
            for (key, placeholder) in &program.placeholders {
                assert!(is_macro(placeholder), "{}: {key} = {placeholder}", program.id);
            }
            let distinct: BTreeSet<_> = program.placeholders.values().collect();
            assert_eq!(distinct.len(), program.placeholders.len(), "{}: one placeholder for two things", program.id);
        }
    }

    #[test]
    fn ids_are_unique_and_generic_is_first() {
        let ids: BTreeSet<_> = built_in().iter().map(|p| p.id.as_str()).collect();
        let names: BTreeSet<_> = built_in().iter().map(|p| p.name.as_str()).collect();
        assert_eq!((ids.len(), names.len()), (built_in().len(), built_in().len()));
        assert!(built_in().len() >= 30, "{}", built_in().len());
        let generic = &built_in()[0];
        assert_eq!((generic.id.as_str(), generic.click_param.as_str()), (GENERIC, "click_id"));
        assert_eq!(generic.placeholders["click_id"], "{click_id}");
    }

    #[test]
    fn a_program_that_counts_verified_has_placeholders() {
        for program in built_in().iter().filter(|p| p.verified && p.postback) {
            assert!(program.placeholders.contains_key("click_id"), "{}", program.id);
        }
    }

    #[test]
    fn known_facts() {
        let link = |id: &str| find(id).map(|p| p.click_param.as_str());
        assert_eq!(link("income-access"), Some("c"));
        assert_eq!(link("myaffiliates"), Some("payload"));
        assert_eq!(link("cellxpert"), Some("afp"));
        assert_eq!(link("affilka"), Some("visit_id"));
        assert_eq!(link("awin"), Some("clickref"));
        assert_eq!(link("Affise"), Some("sub1"));
        assert_eq!(link("no-such-program"), None);
        assert_eq!(find("cake").map(|p| p.placeholders["click_id"].as_str()), Some("#s2#"));
        assert_eq!(find("paid-on-results").map(|p| p.click_in), Some(ClickIn::Path));
        let affise: Vec<_> = find("affise").map(|p| p.statuses.keys().cloned().collect()).unwrap_or_default();
        assert_eq!(affise, ["1", "2", "3", "5"]);
    }

    #[test]
    fn search_takes_words_in_any_case() {
        let ids = |q: &str| search(q).iter().map(|p| p.id.as_str()).collect::<Vec<_>>();
        assert_eq!(ids("INCOME access"), ["income-access"]);
        assert_eq!(ids("hasoffers"), ["tune"]);
        assert_eq!(ids("visit_id"), ["affilka"]);
        assert_eq!(ids("").len(), built_in().len());
        assert!(ids("nothing like this").is_empty());
    }
}
