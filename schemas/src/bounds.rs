//! Every bound that a rule, a request or a queue depends on, in one place.
//!
//! The first group is part of the rules: changing one of them needs a new rule version, as replaying the log
//! with another number would give other outcomes.

/// Waiting hits kept under one name; one more is `unknown_click` at once.
pub const WAITING_PER_NAME: usize = 200;
/// Waiting hits kept per account and partition.
pub const WAITING_PER_ACCOUNT: u32 = 10_000;
/// Waiting hits that one tick may expire.
pub const EXPIRIES_PER_TICK: usize = 500;
/// Waiting hits that any other event may expire.
pub const EXPIRIES_PER_EVENT: usize = 10;
/// Conversions kept on one click or label.
pub const CONVERSIONS_PER_CLICK: usize = 10_000;
/// Clicks that one alias may name; beyond, the oldest without a conversion is no longer found by it.
pub const CLICKS_PER_ALIAS: usize = 200;
/// Hits that are remembered on a conversion without a transaction id, to tell their repeats.
pub const SEEN_PER_CONVERSION: usize = 16;
/// Items (clicks, hits, adjustments) of one reprocess event.
pub const ITEMS_PER_REPROCESS: usize = 500;
/// A click may be this far ahead of a hit's receipt and still be meant by it.
pub const CLICK_AHEAD_MS: i64 = 10 * 60 * 1000;
/// A tick moves log time by at most this much …
pub const TICK_STEP_MS: i64 = 10 * 60 * 1000;
/// … or by this much when log time is more than `TICK_BEHIND_MS` behind.
pub const TICK_LEAP_MS: i64 = 24 * 60 * 60 * 1000;
pub const TICK_BEHIND_MS: i64 = 60 * 60 * 1000;
/// How long the sequence numbers of a silent ingest run are remembered.
pub const RUN_MEMORY_MS: i64 = 14 * 24 * 60 * 60 * 1000;
/// An ingest run takes a new name after this time, so that it is never forgotten while it lives.
pub const RUN_LENGTH_MS: i64 = 24 * 60 * 60 * 1000;

/// Bytes of one record on a topic or in the log.
pub const RECORD_BYTES: usize = 8 * 1024 * 1024;

pub const DEFAULT_LOOKBACK_DAYS: u16 = 90;
pub const MAX_LOOKBACK_DAYS: u16 = 730;
pub const DEFAULT_WAITING_DAYS: u16 = 7;
pub const MAX_WAITING_DAYS: u16 = 90;
pub const DEFAULT_LIFETIME_DAYS: u16 = 1_825;
pub const MAX_LIFETIME_DAYS: u16 = 3_650;
pub const DEFAULT_MAX_COUNT: u32 = 100;
pub const MAX_MAX_COUNT: u32 = 10_000;
pub const DEFAULT_REPEAT_WINDOW_S: u32 = 600;

/// Parameters of one postback.
pub const PARAMETERS: usize = 200;
/// Bytes of a click name, a `dyn`, a `subN`, a `tid` or a `player`.
pub const NAME_BYTES: usize = 255;
/// Hits in one JSON array.
pub const HITS_PER_REQUEST: usize = 100;
/// Bytes of a link's destination.
pub const DESTINATION_BYTES: usize = 4 * 1024;
/// Bytes of a request line with its query.
pub const URI_BYTES: usize = 16 * 1024;
/// Bytes of all request headers.
pub const HEADER_BYTES: usize = 32 * 1024;
/// Bytes of a postback body.
pub const BODY_BYTES: usize = 256 * 1024;
/// Bytes of an API request body.
pub const API_BODY_BYTES: usize = 2 * 1024 * 1024;
/// Clicks of one import request.
pub const CLICKS_PER_IMPORT: usize = 1_000;
/// Events that may wait for the log's writer.
pub const APPEND_QUEUE: usize = 8_192;
/// Events that the log's writer commits at once.
pub const BATCH_EVENTS: usize = 1_024;
/// Connections that the public listener serves at once.
pub const INGEST_CONNECTIONS: usize = 8_192;
/// Connections that the private listener serves at once.
pub const API_CONNECTIONS: usize = 1_024;
/// A question to the report tables is given up after this time.
pub const API_READ_MS: u64 = 30_000;
/// Any other API request is. It has room for the longest `wait` and for the question after it.
pub const API_REQUEST_MS: u64 = 60_000;
/// Questions to the report tables that run at once; more of them wait, bounded by the connections.
pub const API_READERS: usize = 16;
/// Recorded `401`/`403` per minute and account; the rest are only counted.
pub const REFUSALS_PER_MINUTE: u32 = 100;
/// Rows of one page of a list or report.
pub const PAGE_DEFAULT: usize = 100;
pub const PAGE_MAX: usize = 1_000;
/// Named values of a free dimension per source partition, account and day.
pub const FREE_VALUES_PER_DAY: usize = 10_000;
