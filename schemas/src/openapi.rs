//! How the shared types stand in the OpenAPI document of the private listener (feature `openapi`).

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat,
        schema::{SchemaType, Type},
    },
};

use crate::{
    Amount, ClickId, Currency, EventId, Reason, Time,
    catalog::{AnswerMode, ClickIn, HmacAlgorithm, HmacEncoding, HmacOver, HmacPlace, Scope},
    event::Correction,
    goal::Dedup,
    outcome::Status,
    settings::DynMode,
    status::State,
};

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::String))
}

macro_rules! texts {
    ($($name:ident: $schema:expr;)*) => {$(
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                RefOr::T(Schema::Object($schema.build()))
            }
        }
        impl ToSchema for $name {}
    )*};
}

texts! {
    Time: text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        .description(Some("RFC 3339, UTC, with milliseconds"));
    Amount: text().pattern(Some("^-?[0-9]+\\.[0-9]{2,8}$")).description(Some("A decimal with at least two places"));
    Currency: text().pattern(Some("^[A-Z]{3,5}$")).description(Some("ISO 4217, or a crypto asset such as BTC"));
    ClickId: text().pattern(Some("^[0-9a-hjkmnp-tv-z]{26}$"));
    EventId: text().pattern(Some("^[0-9a-hjkmnp-tv-z]{26}$"));
    State: text().enum_values(Some(State::ALL.map(State::code)));
    Status: text().enum_values(Some(Status::ALL.map(Status::code)));
    Reason: text().enum_values(Some(Reason::ALL.iter().map(|reason| reason.code())));
    Dedup: text().enum_values(Some(["once", "per_transaction", "every"]));
    DynMode: text().enum_values(Some(["click", "campaign"]));
    Scope: text().enum_values(Some(["read", "write", "admin"]));
    AnswerMode: text().enum_values(Some(["json", "ok", "empty", "gif"]));
    ClickIn: text().enum_values(Some(["query", "path"]));
    HmacAlgorithm: text().enum_values(Some(["sha256", "sha1", "md5"]));
    HmacPlace: text().enum_values(Some(["header", "query"]));
    HmacOver: text().enum_values(Some(["query", "body"]));
    HmacEncoding: text().enum_values(Some(["hex", "base64"]));
}

impl PartialSchema for Correction {
    fn schema() -> RefOr<Schema> {
        let object = ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::Object))
            .property("code", text())
            .required("code")
            .property("detail", text())
            .required("detail");
        RefOr::T(Schema::Object(object.build()))
    }
}
impl ToSchema for Correction {}

#[cfg(test)]
mod tests {
    use super::*;

    fn values<T: PartialSchema>() -> Vec<serde_json::Value> {
        let schema = serde_json::to_value(T::schema()).unwrap_or_default();
        schema["enum"].as_array().cloned().unwrap_or_default()
    }

    fn all_read<T: PartialSchema + serde::de::DeserializeOwned + serde::Serialize>() {
        let values = values::<T>();
        assert!(values.len() > 1);
        for value in values {
            let read: T = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(serde_json::to_value(read).unwrap(), value);
        }
    }

    #[test]
    fn documented_words_are_the_words_that_are_read() {
        all_read::<State>();
        all_read::<Status>();
        all_read::<Reason>();
        all_read::<Dedup>();
        all_read::<DynMode>();
        all_read::<Scope>();
        all_read::<AnswerMode>();
        all_read::<ClickIn>();
        all_read::<HmacAlgorithm>();
        all_read::<HmacPlace>();
        all_read::<HmacOver>();
        all_read::<HmacEncoding>();
    }
}
