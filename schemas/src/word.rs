//! When two words of senders are the same: without regard to case, spaces, underscores and hyphens.
//!
//! Refuses to loosen what has no letters: `-1` and `1` are two statuses.

/// The form in which words are compared loosely: `First Time-Deposit` and `first_time_deposit` have the same.
pub fn key(word: &str) -> String {
    let lower = || word.trim().chars().flat_map(char::to_lowercase);
    if word.chars().any(char::is_alphabetic) { lower().filter(|c| !is_joint(*c)).collect() } else { lower().collect() }
}

/// True if the keys are the same.
pub fn same(one: &str, other: &str) -> bool {
    fn letters(word: &str) -> impl Iterator<Item = char> + '_ {
        word.trim().chars().filter(|c| !is_joint(*c)).flat_map(char::to_lowercase)
    }
    let has_letters = |word: &str| word.chars().any(char::is_alphabetic);
    has_letters(one) && has_letters(other) && letters(one).eq(letters(other))
}

/// What stands between the parts of one word.
fn is_joint(c: char) -> bool {
    c.is_whitespace() || matches!(c, '_' | '-' | '.' | '\u{2010}'..='\u{2013}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn joints_and_case_make_no_difference() {
        for word in [
            "First Time Deposit",
            "first_time_deposit",
            "FIRST-TIME-DEPOSIT",
            "firstTimeDeposit",
            " first.time deposit ",
        ] {
            assert!(same(word, "firsttimedeposit"), "{word}");
        }
        assert!(same("ФТД 1", "фтд_1"));
        for (one, other) in [("-1", "1"), ("1.0", "10"), ("a+", "a"), ("", ""), ("_", "-"), ("goal1", "goal2")] {
            assert!(!same(one, other), "{one} {other}");
        }
        assert_eq!((key("On-Hold"), key(" -1 ")), ("onhold".to_owned(), "-1".to_owned()));
    }

    proptest! {
        #[test]
        fn same_is_equality_of_keys(one in "[-_ .a-cA-C1é]{0,6}", other in "[-_ .a-cA-C1é]{0,6}") {
            let has_letters = |word: &str| word.chars().any(char::is_alphabetic);
            prop_assert_eq!(same(&one, &other), key(&one) == key(&other) && has_letters(&one) && has_letters(&other));
        }
    }
}
