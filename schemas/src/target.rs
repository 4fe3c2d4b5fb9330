//! Splits what stands behind `/post-back/` into the token and what was glued to it.
//!
//! The check characters make a token certain, so whatever follows it is not part of it: a slash, a query whose `?` is
//! missing or encoded, a click id as a path segment.
//! Refuses anything that begins otherwise. Invariant: what is handed on for the record does not hold the token.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::id::{TOKEN_CHARS, token_is_well_formed};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// In lower case.
    pub token: String,
    /// Between the token and the query, as it stands there.
    glued: &'a str,
}

impl<'a> Target<'a> {
    /// `path` is what follows `/post-back/`.
    pub fn read(path: &'a str) -> Option<Target<'a>> {
        let path = path.trim_start_matches(|c: char| !c.is_ascii_alphanumeric() && c != '%');
        let (token, glued) = path.split_at_checked(TOKEN_CHARS)?;
        let token = token.to_ascii_lowercase();
        let separated = !glued.starts_with(|c: char| c.is_ascii_alphanumeric()) || begins_with_parameter(glued);
        (separated && token_is_well_formed(&token)).then_some(Target { token, glued })
    }

    /// What is read as the query: all that follows the token, as it was received.
    pub fn query(&self, query: Option<&'a str>) -> Cow<'a, str> {
        // A trailing slash, or a space or bracket of a sloppy template, says nothing.
        let says_something = percent_decode_str(self.glued).any(|b| b.is_ascii_alphanumeric() || b >= 0x80);
        let text = match (says_something, query) {
            (false, query) => Cow::Borrowed(query.unwrap_or_default()),
            (true, None) => Cow::Borrowed(self.glued),
            (true, Some(query)) => Cow::Owned(format!("{}?{query}", self.glued)),
        };
        without_token(text, &self.token)
    }
}

fn begins_with_parameter(text: &str) -> bool {
    let name = text.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    text.as_bytes().get(name) == Some(&b'=')
}

/// The text with `TOKEN` in place of the token: a URL that was pasted twice repeats it.
pub fn without_token<'a>(text: Cow<'a, str>, token: &str) -> Cow<'a, str> {
    if token.is_empty() || !has_run_of(text.as_bytes(), token.len()) {
        return text;
    }
    let mut found = None;
    let lower = text.to_ascii_lowercase();
    for (at, _) in lower.match_indices(token) {
        let (out, copied) = found.get_or_insert_with(|| (String::with_capacity(text.len()), 0));
        out.push_str(&text[*copied..at]);
        out.push_str("TOKEN");
        *copied = at + token.len();
    }
    match found {
        None => text,
        Some((out, copied)) => Cow::Owned(out + &text[copied..]),
    }
}

fn has_run_of(text: &[u8], alphanumerics: usize) -> bool {
    text.len() >= alphanumerics && text.split(|b| !b.is_ascii_alphanumeric()).any(|run| run.len() >= alphanumerics)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::new_token;
    use proptest::prelude::*;

    fn token() -> String {
        new_token(&[7; 28])
    }

    #[test]
    fn whatever_is_glued_to_a_token_is_read_as_its_query() {
        for (path, query, expected) in [
            ("TOKEN", None, ""),
            ("TOKEN", Some("dyn=a&signups=1"), "dyn=a&signups=1"),
            ("TOKEN", Some("&dyn=a"), "&dyn=a"),
            ("TOKEN/", None, ""),
            ("TOKEN/", Some("dyn=a"), "dyn=a"),
            ("TOKEN//", Some("dyn=a"), "dyn=a"),
            ("TOKEN%20", Some("dyn=a"), "dyn=a"),
            ("TOKEN%7D", Some("dyn=a"), "dyn=a"),
            ("/TOKEN", Some("dyn=a"), "dyn=a"),
            ("{TOKEN}", Some("dyn=a"), "dyn=a"),
            ("TOKEN&dyn=a&signups=1", None, "&dyn=a&signups=1"),
            ("TOKEN&dyn=a", Some("signups=1"), "&dyn=a?signups=1"),
            ("TOKEN;dyn=a;signups=1", None, ";dyn=a;signups=1"),
            ("TOKEN%3Fdyn=a&signups=1", None, "%3Fdyn=a&signups=1"),
            ("TOKEN%3fdyn%3Da%26signups%3D1", None, "%3fdyn%3Da%26signups%3D1"),
            ("TOKEN/abc", Some("signups=1"), "/abc?signups=1"),
            ("TOKENdyn=a&signups=1", None, "dyn=a&signups=1"),
            ("TOKEN/post-back/TOKEN", Some("dyn=a"), "/post-back/TOKEN?dyn=a"),
        ] {
            for token in [token(), token().to_uppercase()] {
                let path = path.replace("TOKEN", &token);
                let target = Target::read(&path).unwrap_or_else(|| panic!("{path}"));
                assert_eq!(target.token, token.to_ascii_lowercase());
                assert_eq!(target.query(query), expected, "{path}");
            }
        }
    }

    #[test]
    fn what_does_not_begin_with_a_token_is_no_target() {
        let token = token();
        for path in ["", "/", "abc", &token[1..], &token[..31], &format!("{token}x"), &format!("{token}0"), "%00", "é"]
        {
            assert_eq!(Target::read(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn the_token_is_never_handed_on(before in "[a-zé&=/?%]{0,6}", after in "[a-zA-Zé0-9&=/?%{}]{0,20}", upper: bool, query in "[a-z&=]{0,9}") {
            let token = if upper { token().to_uppercase() } else { token() };
            let path = format!("{token}/{before}{token}{after}");
            let query = format!("{query}{token}&{token}{token}");
            let Some(target) = Target::read(&path) else { return Err(TestCaseError::fail("no target")) };
            prop_assert!(!target.query(Some(&query)).to_ascii_lowercase().contains(&target.token));
        }

        #[test]
        fn any_path_is_fine(path in any::<String>(), query in any::<Option<String>>()) {
            if let Some(target) = Target::read(&path) {
                target.query(query.as_deref());
            }
            Target::read(&format!("{}{path}", token())).map(|target| target.query(query.as_deref()).into_owned());
        }
    }
}
