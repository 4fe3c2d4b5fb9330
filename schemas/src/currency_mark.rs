//! What stands for a currency beside its code: signs, abbreviations, names, former codes, an asset with its network.
//!
//! Refuses to choose where a mark may mean several currencies and nothing else says which.

use crate::{Currency, money};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mark {
    Code(Currency),
    Sign(&'static Sign),
}

/// A mark and the currencies that it stands for, the usual one first.
#[derive(Debug, PartialEq)]
pub struct Sign {
    /// Lower case, without spaces.
    text: &'static str,
    fits: &'static [&'static str],
    /// The usual one may be taken where nothing else is said.
    certain: bool,
}

const fn one(text: &'static str, fits: &'static [&'static str]) -> Sign {
    Sign { text, fits, certain: true }
}

const fn several(text: &'static str, fits: &'static [&'static str]) -> Sign {
    Sign { text, fits, certain: false }
}

const DOLLARS: &[&str] = &["USD", "CAD", "AUD", "NZD", "SGD", "HKD", "MXN", "ARS", "CLP", "COP", "TWD"];
const CROWNS: &[&str] = &["SEK", "NOK", "DKK", "ISK"];

static SIGNS: &[Sign] = &[
    one("€", &["EUR"]),
    one("euro", &["EUR"]),
    one("euros", &["EUR"]),
    one("$", DOLLARS),
    one("dollar", DOLLARS),
    one("dollars", DOLLARS),
    one("us$", &["USD"]),
    one("u$s", &["USD"]),
    one("ca$", &["CAD"]),
    one("c$", &["CAD"]),
    one("cad$", &["CAD"]),
    one("au$", &["AUD"]),
    one("a$", &["AUD"]),
    one("nz$", &["NZD"]),
    one("hk$", &["HKD"]),
    one("s$", &["SGD"]),
    one("nt$", &["TWD"]),
    one("mx$", &["MXN"]),
    one("ar$", &["ARS"]),
    one("r$", &["BRL"]),
    one("£", &["GBP", "EGP", "GIP", "FKP"]),
    one("ukp", &["GBP"]),
    several("¥", &["JPY", "CNY"]),
    several("￥", &["JPY", "CNY"]),
    one("rmb", &["CNY"]),
    one("cnh", &["CNY"]),
    one("元", &["CNY", "TWD"]),
    one("円", &["JPY"]),
    one("₽", &["RUB"]),
    one("rur", &["RUB"]),
    one("руб", &["RUB", "BYN"]),
    one("рублей", &["RUB", "BYN"]),
    one("р", &["RUB", "BYN"]),
    one("₴", &["UAH"]),
    one("грн", &["UAH"]),
    one("₸", &["KZT"]),
    one("тг", &["KZT"]),
    one("тенге", &["KZT"]),
    one("сум", &["UZS"]),
    one("лв", &["BGN"]),
    one("₹", &["INR"]),
    several("rs", &["INR", "PKR", "LKR", "NPR", "MUR"]),
    several("₨", &["PKR", "INR", "LKR", "NPR", "MUR"]),
    one("৳", &["BDT"]),
    one("₺", &["TRY"]),
    one("tl", &["TRY"]),
    one("₩", &["KRW"]),
    one("₦", &["NGN"]),
    one("₵", &["GHS"]),
    one("gh₵", &["GHS"]),
    one("ksh", &["KES"]),
    one("tsh", &["TZS"]),
    one("ush", &["UGX"]),
    one("₫", &["VND"]),
    one("₱", &["PHP"]),
    one("฿", &["THB"]),
    one("rp", &["IDR"]),
    one("rm", &["MYR"]),
    one("₭", &["LAK"]),
    one("៛", &["KHR"]),
    one("₮", &["MNT"]),
    one("₪", &["ILS"]),
    one("nis", &["ILS"]),
    one("₼", &["AZN"]),
    one("₾", &["GEL"]),
    one("֏", &["AMD"]),
    one("₡", &["CRC"]),
    one("₲", &["PYG"]),
    one("s/", &["PEN"]),
    one("zł", &["PLN"]),
    one("kč", &["CZK"]),
    several("kr", CROWNS),
    one("ft", &["HUF"]),
    one("lei", &["RON", "MDL"]),
    one("fr", &["CHF"]),
    one("sfr", &["CHF"]),
    one("₿", &["BTC"]),
    one("xbt", &["BTC"]),
    one("bitcoin", &["BTC"]),
    one("ξ", &["ETH"]),
    one("ethereum", &["ETH"]),
    one("litecoin", &["LTC"]),
    one("tether", &["USDT"]),
    one("usd₮", &["USDT"]),
];

/// How an asset's network is named behind it, as in `USDT-TRC20`.
const NETWORKS: &[&str] = &[
    "trc20", "trc10", "tron", "erc20", "bep20", "bep2", "bsc", "omni", "spl", "solana", "polygon", "arbitrum",
    "optimism", "avaxc",
];

/// Longer texts are no mark.
const LONGEST: usize = 32;

impl Sign {
    /// It is written in letters, so a point behind it belongs to it, as in `Rs.500`.
    fn is_word(&self) -> bool {
        self.text.ends_with(char::is_alphabetic)
    }
}

impl Mark {
    /// Reads a mark that stands alone, in any case: `€`, `US$`, `руб.`, `usd`, `USDT-TRC20`, `USD $`.
    pub fn read(text: &str) -> Option<Mark> {
        if text.is_empty() || text.len() > LONGEST {
            return None;
        }
        let kept = |c: &char| !(c.is_whitespace() || matches!(c, '(' | ')'));
        let name: String = text.chars().filter(kept).flat_map(char::to_lowercase).collect();
        let name = name.strip_suffix('.').unwrap_or(&name);
        // `USD$`, `EUR €`: two marks that say the same.
        let parted = || {
            let starts = name.char_indices().skip(1).map(|(at, _)| name.split_at(at));
            starts.filter_map(|(one, other)| Mark::whole(one)?.with(Mark::whole(other)?)).next()
        };
        Mark::whole(name).or_else(parted)
    }

    fn whole(name: &str) -> Option<Mark> {
        if let Ok(currency) = name.parse() {
            return Some(Mark::Code(currency));
        }
        SIGNS.iter().find(|sign| sign.text == name).map(Mark::Sign).or_else(|| on_network(name).map(Mark::Code))
    }

    /// One mark for two: `$` with `USD` is fine, `€` with `USD` is not.
    pub fn with(self, other: Mark) -> Option<Mark> {
        match (self, other) {
            (Mark::Sign(sign), Mark::Code(code)) | (Mark::Code(code), Mark::Sign(sign)) => {
                sign.fits.contains(&code.code()).then_some(Mark::Code(code))
            }
            (one, other) => (one == other).then_some(one),
        }
    }

    pub(crate) fn takes_a_point(self) -> bool {
        matches!(self, Mark::Sign(sign) if sign.is_word())
    }

    /// The currency that this mark means beside an explicit one and the account's; `None` where it contradicts the
    /// explicit one or may mean several.
    pub fn currency(self, explicit: Option<Currency>, account: Currency) -> Option<Currency> {
        match self {
            Mark::Code(code) => (explicit.is_none() || explicit == Some(code)).then_some(code),
            Mark::Sign(sign) => {
                let expected = explicit.unwrap_or(account);
                if sign.fits.contains(&expected.code()) {
                    return Some(expected);
                }
                let usual = sign.fits.first().filter(|_| sign.certain && explicit.is_none())?;
                usual.parse().ok()
            }
        }
    }
}

fn on_network(name: &str) -> Option<Currency> {
    let plain: String = name.chars().filter(|c| !matches!(c, '-' | '_' | '.' | '/' | ':')).collect();
    let network = NETWORKS.iter().find(|network| plain.ends_with(**network))?;
    let asset: Currency = plain.strip_suffix(network)?.parse().ok()?;
    money::is_crypto(asset).then_some(asset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn meant(text: &str) -> Option<&'static str> {
        Mark::read(text)?.currency(None, Currency::EUR).map(Currency::code)
    }

    #[test]
    fn marks_of_the_field() {
        for (text, code) in [
            ("€", "EUR"),
            ("Euro", "EUR"),
            ("$", "USD"),
            ("US $", "USD"),
            ("USD$", "USD"),
            ("EUR (€)", "EUR"),
            ("R$", "BRL"),
            ("руб.", "RUB"),
            ("РУБ", "RUB"),
            ("р.", "RUB"),
            ("RUR", "RUB"),
            ("RMB", "CNY"),
            ("Kč", "CZK"),
            ("KČ", "CZK"),
            ("zł", "PLN"),
            ("xbt", "BTC"),
            ("USDT-TRC20", "USDT"),
            ("usdt_erc20", "USDT"),
            ("USDT (TRC20)", "USDT"),
            ("USDC.BSC", "USDC"),
        ] {
            assert_eq!(meant(text), Some(code), "{text}");
        }
    }

    #[test]
    fn what_may_mean_several_means_none() {
        for text in ["", "¥", "kr", "Rs.", "€$", "USD EUR", "EUR $", "BTCETH", "EURTRC20", "TRC20", "BYR", "coins", "%"]
        {
            assert_eq!(meant(text), None, "{text}");
        }
        assert_eq!(
            Mark::read("kr.").and_then(|m| m.currency(None, "NOK".parse().unwrap())).map(Currency::code),
            Some("NOK")
        );
        assert_eq!(
            Mark::read("Rs").and_then(|m| m.currency(Some("PKR".parse().unwrap()), Currency::EUR)).map(Currency::code),
            Some("PKR")
        );
    }

    #[test]
    fn a_sign_is_read_beside_what_is_known() {
        let mark = Mark::read("$").unwrap();
        let cad: Currency = "CAD".parse().unwrap();
        assert_eq!(mark.currency(None, Currency::EUR), Some(Currency::USD));
        assert_eq!(mark.currency(None, cad), Some(cad));
        assert_eq!(mark.currency(Some(Currency::EUR), Currency::USD), None);
        let code = Mark::read("USD").unwrap();
        assert_eq!(code.currency(None, Currency::EUR), Some(Currency::USD));
        assert_eq!(code.currency(Some(Currency::EUR), Currency::EUR), None);
    }

    #[test]
    fn every_sign_can_be_found_and_names_known_currencies() {
        for sign in SIGNS {
            for code in sign.fits {
                assert!(code.parse::<Currency>().is_ok(), "{code}");
            }
            assert!(Mark::read(sign.text).is_some_and(|mark| mark == Mark::Sign(sign)), "{}", sign.text);
            assert!(sign.text.parse::<Currency>().is_err(), "{}", sign.text);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_fine(text in any::<String>(), near in "[-._ $€a-zруб()]{0,34}") {
            for text in [text, near] {
                let _ = Mark::read(&text);
            }
        }
    }
}
