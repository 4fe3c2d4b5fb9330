//! Why a hit, or one goal of it, did not become a plain conversion. The codes are a contract.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $hint:literal;)*) => {
        /// A stable reason code. The order is the order of precedence: of several, the first is given.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            pub const ALL: &[Reason] = &[$(Reason::$variant,)*];
            pub fn code(self) -> &'static str {
                match self { $(Reason::$variant => $code,)* }
            }
            /// What to do about it, when nothing more precise is known.
            pub fn hint(self) -> &'static str {
                match self { $(Reason::$variant => $hint,)* }
            }
        }
    };
}

reasons! {
    AccountPaused = "account_paused", "The account is paused: set \"paused\":false on it to take postbacks again.";
    AddressNotAllowed = "address_not_allowed", "The sender's address is not in the account's allow list: add it, or check the trusted proxies.";
    BadSignature = "bad_signature", "The signature is missing or wrong: compare the secret, the algorithm and what is signed with the account's hmac setting.";
    InvalidEncoding = "invalid_encoding", "A parameter that is read is not valid UTF-8 after decoding: percent-encode it, and check for macros such as %AD_ID% left unreplaced.";
    MalformedBody = "malformed_body", "The body is not a form, and not a flat JSON object or an array of them: send one of these.";
    TooManyParameters = "too_many_parameters", "Send at most 200 parameters.";
    MissingClick = "missing_click", "No click id: send clickId (or dyn) with the value that came in on the tracking link.";
    UnreplacedMacro = "unreplaced_macro", "The click id is a placeholder that the sender did not replace: correct the macro in the postback URL.";
    AmbiguousClick = "ambiguous_click", "Two different click ids of ours are in this postback: send one.";
    MalformedClick = "malformed_click", "The click id is over 255 bytes or has control characters: send the value from the tracking link as it is.";
    MissingEvent = "missing_event", "No goal: add signups=1, firsttimedeposits=1, event=NAME or status=WORD.";
    UnknownEvent = "unknown_event", "No goal of the account has this name: add it to the account's goals, or as an alias of one, then reprocess.";
    AmbiguousEvent = "ambiguous_event", "The parameters name different goals: send one goal, or several counts without an event word.";
    InvalidCount = "invalid_count", "The count is not a whole number from 1 to the account's max_count.";
    UnmappedStatus = "unmapped_status", "No status map knows this word: add it to the account's statuses, then reprocess.";
    InvalidAmount = "invalid_amount", "The amount cannot be read and was left out: send a plain decimal such as 12.50.";
    InvalidCurrency = "invalid_currency", "The currency cannot be read, so the amount was left out: send an ISO 4217 code such as EUR.";
    UnknownClick = "unknown_click", "No click with this id came in time: check that the link was used and that its id is passed back unchanged.";
    ExpiredClick = "expired_click", "The click is older than the account's lookback_days (or lifetime_days after its last conversion).";
    WrongAccount = "wrong_account", "The click belongs to another account: use that account's postback URL.";
    Duplicate = "duplicate", "The same conversion was counted before.";
    OtherTransaction = "other_transaction", "This goal counts once per click and was counted with another transaction id: set its dedup to per_transaction if every transaction counts.";
    AmbiguousStatus = "ambiguous_status", "Several conversions fit this status: send the transaction id with it.";
    IgnoredStatus = "ignored_status", "The status map says that this word is ignored.";
    NoConversion = "no_conversion", "A rejection came, but no conversion that it fits came in time.";
    TooMany = "too_many", "The click has as many conversions as one click may have.";
    /// Of an adjustment: no such conversion.
    NotFound = "not_found", "There is no such conversion.";
    /// Of a repeated event: its run is no longer remembered, so it cannot be told whether it was counted.
    TooLate = "too_late", "This event was sent again after its run was forgotten; it was not counted.";
    /// Of a reprocess event: the click changed after its hits were read.
    Stale = "stale", "The click changed meanwhile; it is read and sent again.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_what_serde_writes() {
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.code());
            assert!(reason.hint().ends_with('.'));
        }
    }
}
