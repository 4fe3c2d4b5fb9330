//! Splits what stands behind `/post-back/` into the token and what was glued to it.
//!
//! The check characters make a token certain, so whatever follows it is not part of it: a slash, a query whose `?` is
//! missing or encoded, a click id as a path segment.
//! Refuses anything that begins otherwise. Invariant: what is handed on for the record does not hold the token.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::id::{TOKEN_CHARS, token_is_well_formed};

/// Stands in the record where the token stood once more: in a URL that was pasted twice, or in a body.
const TOKEN: &[u8] = b"TOKEN";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostBackTarget<'a> {
    /// In lower case.
    pub token: String,
    /// Between the token and the query, as it stands there.
    glued: &'a str,
}

impl<'a> PostBackTarget<'a> {
    /// `path` is what follows `/post-back/`.
    pub fn read(path: &'a str) -> Option<PostBackTarget<'a>> {
        let path = path.trim_start_matches(|c: char| !c.is_ascii_alphanumeric() && c != '%');
        let (token, glued) = path.split_at_checked(TOKEN_CHARS)?;
        let token = token.to_ascii_lowercase();
        let separated = !glued.starts_with(|c: char| c.is_ascii_alphanumeric()) || begins_with_parameter(glued);
        (separated && token_is_well_formed(&token)).then_some(PostBackTarget { token, glued })
    }

    /// All that follows the token, to be read as its query: as it was received, without the `?` of a plain URL.
    pub fn query(&self, query: &'a [u8]) -> Cow<'a, [u8]> {
        // A trailing slash, or a space or bracket of a sloppy template, says nothing.
        let says_something = percent_decode_str(self.glued).any(|b| b.is_ascii_alphanumeric() || b >= 0x80);
        let text = match (says_something, query) {
            (false, query) => Cow::Borrowed(query),
            (true, []) => Cow::Borrowed(self.glued.as_bytes()),
            (true, query) => Cow::Owned([self.glued.as_bytes(), b"?", query].concat()),
        };
        match self.removed_from(&text) {
            Some(rest) => Cow::Owned(rest),
            None => text,
        }
    }

    /// Whether something other than a query follows the token.
    pub fn is_glued(&self) -> bool {
        !self.glued.is_empty()
    }

    /// The text without the token, if it is in it.
    pub fn removed_from(&self, text: &[u8]) -> Option<Vec<u8>> {
        let is_long_enough = |run: &[u8]| run.len() >= TOKEN_CHARS;
        if !text.split(|b| !b.is_ascii_alphanumeric()).any(is_long_enough) {
            return None;
        }
        let (mut out, mut at, mut found) = (Vec::with_capacity(text.len()), 0, false);
        while at < text.len() {
            let here = text[at..].get(..TOKEN_CHARS);
            let here = here.is_some_and(|run| run.eq_ignore_ascii_case(self.token.as_bytes()));
            out.extend_from_slice(if here { TOKEN } else { &text[at..=at] });
            at += if here { TOKEN_CHARS } else { 1 };
            found |= here;
        }
        found.then_some(out)
    }
}

fn begins_with_parameter(text: &str) -> bool {
    let name = text.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    text.as_bytes().get(name) == Some(&b'=')
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
            ("TOKEN", "", ""),
            ("TOKEN", "dyn=a&signups=1", "dyn=a&signups=1"),
            ("TOKEN", "&dyn=a", "&dyn=a"),
            ("TOKEN/", "", ""),
            ("TOKEN/", "dyn=a", "dyn=a"),
            ("TOKEN//", "dyn=a", "dyn=a"),
            ("TOKEN%20", "dyn=a", "dyn=a"),
            ("TOKEN%7D", "dyn=a", "dyn=a"),
            ("/TOKEN", "dyn=a", "dyn=a"),
            ("{TOKEN}", "dyn=a", "dyn=a"),
            ("TOKEN&dyn=a&signups=1", "", "&dyn=a&signups=1"),
            ("TOKEN&dyn=a", "signups=1", "&dyn=a?signups=1"),
            ("TOKEN;dyn=a;signups=1", "", ";dyn=a;signups=1"),
            ("TOKEN%3Fdyn=a&signups=1", "", "%3Fdyn=a&signups=1"),
            ("TOKEN%3fdyn%3Da%26signups%3D1", "", "%3fdyn%3Da%26signups%3D1"),
            ("TOKEN/abc", "signups=1", "/abc?signups=1"),
            ("TOKENdyn=a&signups=1", "", "dyn=a&signups=1"),
            ("TOKEN/post-back/TOKEN", "dyn=a", "/post-back/TOKEN?dyn=a"),
        ] {
            for token in [token(), token().to_uppercase()] {
                let path = path.replace("TOKEN", &token);
                let target = PostBackTarget::read(&path).unwrap_or_else(|| panic!("{path}"));
                assert_eq!(target.token, token.to_ascii_lowercase());
                assert_eq!(target.query(query.as_bytes()).as_ref(), expected.as_bytes(), "{path}");
            }
        }
    }

    #[test]
    fn what_does_not_begin_with_a_token_is_no_target() {
        let token = token();
        for path in ["", "/", "abc", &token[1..], &token[..31], &format!("{token}x"), &format!("{token}0"), "%00", "é"]
        {
            assert_eq!(PostBackTarget::read(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn the_token_is_never_handed_on(before in "[a-zé&=/?%]{0,6}", after in "[a-zA-Zé0-9&=/?%{}]{0,20}", upper: bool, query in "[a-z&=]{0,9}") {
            let token = if upper { token().to_uppercase() } else { token() };
            let path = format!("{token}/{before}{token}{after}");
            let query = format!("{query}{token}&{token}{token}");
            let Some(target) = PostBackTarget::read(&path) else { return Err(TestCaseError::fail("no target")) };
            let handed_on = String::from_utf8(target.query(query.as_bytes()).into_owned()).unwrap();
            prop_assert!(!handed_on.to_ascii_lowercase().contains(&target.token));
        }

        #[test]
        fn any_path_is_fine(path in any::<String>(), query in any::<Vec<u8>>()) {
            for path in [&path, &format!("{}{path}", token())] {
                if let Some(target) = PostBackTarget::read(path) {
                    target.query(&query);
                }
            }
        }
    }
}
