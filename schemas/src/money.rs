//! Exact money: a decimal of at most 8 places, and a currency. No floats, no silent rounding, no overflow.

use std::{borrow::Cow, fmt, str::FromStr};

use rust_decimal::Decimal;

/// Decimal places that we keep.
pub const PLACES: u32 = 8;
/// An amount in one hit stays below this, so that sums of millions of them fit.
const LIMIT: i64 = 1_000_000_000_000;

/// An exact decimal with at most 8 places. Written as a string with at least two.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Amount(Decimal);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not an amount: a decimal number below 1e12 with at most 8 places is needed")]
pub struct BadAmount;

impl Amount {
    pub const ZERO: Amount = Amount(Decimal::ZERO);

    /// Refuses more than 8 places and absurd sizes.
    pub fn new(value: Decimal) -> Result<Self, BadAmount> {
        let value = value.normalize();
        if value.scale() > PLACES || value.abs() >= Decimal::from(LIMIT) {
            return Err(BadAmount);
        }
        Ok(Self(value))
    }
    pub fn decimal(self) -> Decimal {
        self.0
    }
    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }
    pub fn is_negative(self) -> bool {
        self.0.is_sign_negative() && !self.0.is_zero()
    }
    pub fn negated(self) -> Self {
        Self((-self.0).normalize())
    }
    /// `None` on overflow, which 28 digits make unreachable for sums of valid amounts below 10^15 rows.
    pub fn plus(self, other: Amount) -> Option<Amount> {
        self.0.checked_add(other.0).map(|sum| Amount(sum.normalize()))
    }
    pub fn minus(self, other: Amount) -> Option<Amount> {
        self.plus(other.negated())
    }
    /// In units of 10^-8, for storage.
    pub fn units(self) -> i128 {
        let mantissa = self.0.mantissa();
        mantissa * 10i128.pow(PLACES - self.0.scale().min(PLACES))
    }
    pub fn from_units(units: i128) -> Result<Self, BadAmount> {
        let value = Decimal::try_from_i128_with_scale(units, PLACES).map_err(|_| BadAmount)?;
        Ok(Self(value.normalize()))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = self.0.scale().max(2) as usize;
        write!(f, "{:.places$}", self.0)
    }
}

impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads plain decimals only (`-12.50`). What senders really write is read by `amount::read`.
impl FromStr for Amount {
    type Err = BadAmount;
    fn from_str(text: &str) -> Result<Self, BadAmount> {
        let value = Decimal::from_str_exact(text).map_err(|_| BadAmount)?;
        let value = value.normalize();
        // Sums may be larger than what one hit may bring, so the limit is not applied to what we wrote ourselves.
        if value.scale() > PLACES { Err(BadAmount) } else { Ok(Self(value)) }
    }
}

impl serde::Serialize for Amount {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if !s.is_human_readable() {
            return s.serialize_i128(self.units());
        }
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Amount {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if !d.is_human_readable() {
            return i128::deserialize(d).and_then(|units| Self::from_units(units).map_err(serde::de::Error::custom));
        }
        Cow::<'de, str>::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Amount {
    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^-?[0-9]+\\.[0-9]{2,8}$" })
    }
}

/// Crypto assets that programs pay in.
const CRYPTO: &[&str] = &[
    "AAVE", "ADA", "ALGO", "APT", "ARB", "ATOM", "AVAX", "BCH", "BNB", "BSV", "BTC", "BTG", "BUSD", "DAI", "DASH",
    "DOGE", "DOT", "EOS", "ETC", "ETH", "EURC", "EURT", "FDUSD", "FIL", "HBAR", "ICP", "LINK", "LTC", "MATIC", "NEAR",
    "NEO", "PEPE", "POL", "PYUSD", "QTUM", "SHIB", "SOL", "SUI", "TON", "TRX", "TUSD", "UNI", "USDC", "USDD", "USDT",
    "VET", "WBTC", "XLM", "XMR", "XRP", "XTZ", "ZEC",
];

/// ISO 4217 codes that stand for no money: none, and one for tests.
const NO_MONEY: &[&str] = &["XTS", "XXX"];

pub(crate) fn is_crypto(currency: Currency) -> bool {
    CRYPTO.contains(&currency.code())
}

/// An ISO 4217 code or one of the listed crypto assets, upper case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency(&'static str);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a currency: an ISO 4217 code such as EUR, or a crypto asset such as BTC, is needed")]
pub struct BadCurrency;

impl Currency {
    pub const EUR: Currency = Currency("EUR");
    pub const USD: Currency = Currency("USD");

    pub fn code(self) -> &'static str {
        self.0
    }
    /// By its three digits in ISO 4217, such as `978`.
    pub fn from_number(text: &str) -> Option<Currency> {
        let number = (text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())??;
        iso_currency::Currency::from_numeric(number)?.code().parse().ok()
    }
}

impl FromStr for Currency {
    type Err = BadCurrency;
    /// Any case.
    fn from_str(text: &str) -> Result<Self, BadCurrency> {
        if !(3..=5).contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_alphabetic()) {
            return Err(BadCurrency);
        }
        let mut upper = [0; 5];
        let upper = &mut upper[..text.len()];
        upper.copy_from_slice(text.as_bytes());
        upper.make_ascii_uppercase();
        let code = std::str::from_utf8(upper).map_err(|_| BadCurrency)?;
        match code {
            "EUR" => return Ok(Self::EUR),
            "USD" => return Ok(Self::USD),
            _ => {}
        }
        if let Some(iso) = iso_currency::Currency::from_code(code) {
            return if NO_MONEY.contains(&code) { Err(BadCurrency) } else { Ok(Self(iso.code())) };
        }
        CRYPTO.iter().find(|known| **known == code).map(|known| Self(known)).ok_or(BadCurrency)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl serde::Serialize for Currency {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Currency {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Currency {
    fn schema_name() -> Cow<'static, str> {
        "Currency".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[A-Z]{3,5}$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn written_with_at_least_two_places() {
        for (text, shown) in
            [("50", "50.00"), ("-0.5", "-0.50"), ("1.234567891", ""), ("0.00000001", "0.00000001"), ("12.500", "12.50")]
        {
            match text.parse::<Amount>() {
                Ok(amount) => assert_eq!(amount.to_string(), shown),
                Err(BadAmount) => assert_eq!(shown, ""),
            }
        }
    }

    #[test]
    fn currencies_are_known_codes() {
        assert_eq!("eur".parse::<Currency>().unwrap().code(), "EUR");
        assert_eq!("usdt".parse::<Currency>().unwrap().code(), "USDT");
        for bad in ["", "EURO", "{currency}", "rub,usd", "E1R", "ZZZ", "XXX", "xts"] {
            assert_eq!(bad.parse::<Currency>(), Err(BadCurrency), "{bad}");
        }
    }

    #[test]
    fn no_crypto_asset_has_an_iso_code() {
        for code in CRYPTO {
            assert_eq!(iso_currency::Currency::from_code(code), None, "{code}");
            assert_eq!(code.parse::<Currency>().map(Currency::code), Ok(*code));
        }
        assert_eq!(Currency::from_number("978"), Some(Currency::EUR));
        assert_eq!(Currency::from_number("643").map(Currency::code), Some("RUB"));
        for bad in ["", "97", "0978", "000", "999", "9e2", "+97"] {
            assert_eq!(Currency::from_number(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn units_and_text_are_exact(units in -100_000_000_000_000_000i128..100_000_000_000_000_000) {
            let amount = Amount::from_units(units).unwrap();
            prop_assert_eq!(amount.units(), units);
            prop_assert_eq!(amount.to_string().parse::<Amount>(), Ok(amount));
            prop_assert_eq!(amount.plus(amount.negated()), Some(Amount::ZERO));
        }
    }
}
