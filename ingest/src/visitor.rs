//! What a click tells: the values on the tracking link, and what the visitor's headers say about it.
//!
//! Refuses to guess: only agents that call themselves a crawler or a link preview are flagged, never a library or
//! an unknown one, as flagged clicks are left out of the reports.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use hyper::{
    HeaderMap,
    header::{HeaderName, REFERER, USER_AGENT},
};
use percent_encoding::percent_decode;
use schemas::bounds::NAME_BYTES;

/// Bytes of a user agent that are kept.
const AGENT_BYTES: usize = 256;

const NAMES: [&str; 6] = ["dyn", "sub1", "sub2", "sub3", "sub4", "sub5"];
const DROPPED: [&str; 6] =
    ["dyn_dropped", "sub1_dropped", "sub2_dropped", "sub3_dropped", "sub4_dropped", "sub5_dropped"];

/// `dyn` and the subs, in the order of `NAMES`, and what is noted on the click.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Values {
    pub(crate) kept: [Option<String>; 6],
    pub(crate) flags: Vec<String>,
}

impl Values {
    /// Of a name that stands there twice, the first usable value counts.
    pub(crate) fn read(query: &str) -> Self {
        let mut values = Values::default();
        let mut seen = [false; 6];
        for pair in query.split('&') {
            let (name, raw) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(at) = NAMES.iter().position(|known| known.eq_ignore_ascii_case(name)) else { continue };
            seen[at] = true;
            if values.kept[at].is_none() {
                values.kept[at] = usable(raw);
            }
        }
        for (at, flag) in DROPPED.into_iter().enumerate() {
            if seen[at] && values.kept[at].is_none() {
                values.flags.push(flag.to_owned());
            }
        }
        values
    }
}

/// A value that a postback could send back: text, not empty, not too long, and no macro that nobody replaced.
fn usable(raw: &str) -> Option<String> {
    if schemas::macros::is_macro(raw) {
        return None;
    }
    let decoded: Vec<u8> = match raw.contains('+') {
        true => percent_decode(raw.replace('+', " ").as_bytes()).collect(),
        false => percent_decode(raw.as_bytes()).collect(),
    };
    let text = String::from_utf8(decoded).ok()?;
    // As a postback is read, so that the two are the same.
    let text = schemas::name::clean(&text);
    schemas::name::is_well_formed(text).then(|| text.to_owned())
}

const PURPOSES: [HeaderName; 4] = [
    HeaderName::from_static("sec-purpose"),
    HeaderName::from_static("purpose"),
    HeaderName::from_static("x-purpose"),
    HeaderName::from_static("x-moz"),
];

/// Fetch a page to show a card for a link that somebody posted.
const PREVIEWERS: &[&str] = &[
    "facebookexternalhit",
    "facebookcatalog",
    "facebot",
    "meta-externalagent",
    "meta-externalfetcher",
    "whatsapp/",
    "telegrambot",
    "twitterbot",
    "slackbot",
    "slack-imgproxy",
    "discordbot",
    "linkedinbot",
    "skypeuripreview",
    "microsoftpreview",
    "bingpreview",
    "redditbot",
    "pinterestbot",
    "pinterest/0.",
    "vkshare",
    "viberbot",
    "mastodon/",
    "bluesky cardyb",
    "embedly",
    "iframely",
    "google-read-aloud",
    "snap url preview",
    "line-poker",
    "kakaotalk-scrap",
    "zoombot",
];

/// Crawlers that say so.
const CRAWLERS: &[&str] = &[
    "googlebot",
    "google-inspectiontool",
    "googleother",
    "adsbot-google",
    "mediapartners-google",
    "apis-google",
    "storebot-google",
    "feedfetcher-google",
    "google-safety",
    "bingbot",
    "adidxbot",
    "msnbot",
    "yandexbot",
    "yandeximages",
    "yandexmobilebot",
    "yadirectfetcher",
    "baiduspider",
    "duckduckbot",
    "duckassistbot",
    "applebot",
    "sogou web spider",
    "360spider",
    "yisouspider",
    "petalbot",
    "seznambot",
    "naver.me/spd",
    "yeti/1.",
    "mail.ru_bot",
    "ahrefsbot",
    "semrushbot",
    "mj12bot",
    "dotbot",
    "rogerbot",
    "blexbot",
    "dataforseobot",
    "serpstatbot",
    "screaming frog",
    "gptbot",
    "chatgpt-user",
    "oai-searchbot",
    "claudebot",
    "claude-web",
    "anthropic-ai",
    "perplexitybot",
    "ccbot",
    "bytespider",
    "amazonbot",
    "imagesiftbot",
    "diffbot",
    "ia_archiver",
    "archive.org_bot",
    "heritrix",
    "uptimerobot",
    "pingdom",
    "statuscake",
    "site24x7",
    "bitlybot",
    "headlesschrome",
    "phantomjs",
    "chrome-lighthouse",
    "ptst/",
];

/// One automaton for both lists, previewers first.
static AGENTS: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
    let known = PREVIEWERS.iter().chain(CRAWLERS);
    AhoCorasick::builder().ascii_case_insensitive(true).build(known).ok()
});

/// `preview`, `prefetch`, `bot`, each at most once.
pub(crate) fn flags(headers: &HeaderMap) -> impl Iterator<Item = &'static str> + use<> {
    let (mut preview, mut prefetch, mut bot) = (false, false, false);
    for value in PURPOSES.iter().filter_map(|name| headers.get(name)) {
        let value = value.as_bytes().to_ascii_lowercase();
        let has = |word: &[u8]| value.windows(word.len()).any(|part| part == word);
        preview |= has(b"preview");
        prefetch |= has(b"prefetch") || has(b"prerender");
    }
    if let (Some(agent), Some(known)) = (headers.get(USER_AGENT), &*AGENTS) {
        for found in known.find_iter(agent.as_bytes()) {
            bot = true;
            preview |= found.pattern().as_usize() < PREVIEWERS.len();
        }
    }
    let flags = [(preview, "preview"), (prefetch, "prefetch"), (bot, "bot")];
    flags.into_iter().filter(|(set, _)| *set).map(|(_, flag)| flag)
}

pub(crate) fn agent(headers: &HeaderMap) -> Option<String> {
    let agent = headers.get(USER_AGENT)?.as_bytes();
    let agent = String::from_utf8_lossy(agent.get(..AGENT_BYTES).unwrap_or(agent));
    let agent = agent.trim();
    (!agent.is_empty()).then(|| agent[..agent.floor_char_boundary(AGENT_BYTES)].to_owned())
}

/// The host that the visitor came from: no path, no query, no user name, no port.
pub(crate) fn referrer_host(headers: &HeaderMap) -> Option<String> {
    let referrer = headers.get(REFERER)?.to_str().ok()?;
    let (_, rest) = referrer.split_once("://")?;
    let authority = rest.split(['/', '?', '#', '\\']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    (!host.is_empty() && host.len() <= NAME_BYTES).then(|| host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }
    fn flagged(name: &'static str, value: &str) -> Vec<&'static str> {
        flags(&with(name, value)).collect()
    }
    fn noted(query: &str) -> (Vec<Option<String>>, Vec<String>) {
        let values = Values::read(query);
        (values.kept.to_vec(), values.flags)
    }

    #[test]
    fn values_are_decoded_and_kept_as_they_are() {
        let (kept, flags) = noted("DYN=Ab%20c+d&sub1=%C3%BC&other=1&sub5=x&sub5=y&sub6=z");
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(kept, [text("Ab c d"), text("ü"), None, None, None, text("x")]);
        assert!(flags.is_empty());
    }

    #[test]
    fn values_that_cannot_be_used_are_absent_and_noted() {
        let long = "x".repeat(NAME_BYTES + 1);
        for bad in ["", "+", &long, "{click}", "%AD_ID%", "%FF", "a%00b"] {
            let (kept, flags) = noted(&format!("sub2={bad}"));
            assert_eq!((kept[2].as_deref(), flags), (None, vec!["sub2_dropped".to_owned()]), "{bad}");
        }
        assert_eq!(noted(&format!("dyn={}", "x".repeat(NAME_BYTES))).1, [""; 0]);
        assert_eq!(noted("dyn=&dyn=a").1, [""; 0], "a usable value stands beside it");
        assert_eq!(noted("").1, [""; 0]);
    }

    #[test]
    fn what_browsers_fetch_ahead_is_flagged() {
        assert_eq!(flagged("purpose", "prefetch"), ["prefetch"]);
        assert_eq!(flagged("sec-purpose", "prefetch;prerender"), ["prefetch"]);
        assert_eq!(flagged("x-moz", "prefetch"), ["prefetch"]);
        assert_eq!(flagged("x-purpose", "preview"), ["preview"]);
        assert_eq!(flagged("purpose", "PreView"), ["preview"]);
    }

    #[test]
    fn link_previews_and_crawlers_are_bots() {
        let google = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
        assert_eq!(flagged("user-agent", google), ["bot"]);
        let card = "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)";
        assert_eq!(flagged("user-agent", card), ["preview", "bot"]);
        assert_eq!(flagged("user-agent", "WhatsApp/2.23.20.0 A"), ["preview", "bot"]);
    }

    #[test]
    fn people_and_unknown_clients_are_not() {
        for agent in [
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/22A",
            "Mozilla/5.0 (Linux; Android 12; CUBOT X50) AppleWebKit/537.36 Chrome/120.0 Mobile Safari/537.36",
            "Mozilla/5.0 (iPhone) [FBAN/FBIOS;FBAV/440.0;FBBV/1;FBDV/iPhone14,5]",
            "curl/8.5.0",
            "python-requests/2.31",
            "",
        ] {
            assert_eq!(flagged("user-agent", agent), [""; 0], "{agent}");
        }
        assert_eq!(flags(&HeaderMap::new()).count(), 0);
    }

    #[test]
    fn the_agent_is_bounded() {
        assert_eq!(agent(&with("user-agent", &"x".repeat(10_000))).unwrap().len(), AGENT_BYTES);
        let mut odd = HeaderMap::new();
        odd.insert(USER_AGENT, hyper::header::HeaderValue::from_bytes(&[0xFF; 400]).unwrap());
        assert!(agent(&odd).unwrap().len() <= AGENT_BYTES);
        assert_eq!(agent(&with("user-agent", " ")), None);
    }

    #[test]
    fn only_the_host_of_a_referrer_is_kept() {
        let host = |referrer: &str| referrer_host(&with("referer", referrer));
        assert_eq!(host("https://User:pw@Blog.Example:8443/a?token=1#x").as_deref(), Some("blog.example"));
        assert_eq!(host("https://[2001:db8::1]:1/").as_deref(), Some("[2001:db8::1]"));
        assert_eq!(host("android-app://com.example").as_deref(), Some("com.example"));
        assert_eq!((host("about:blank"), host("https:///x")), (None, None));
    }
}
