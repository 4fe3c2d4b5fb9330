//! What a change of a schema may do to readers that know the published one, within one `v`.

use serde_json::{Map, Value, json};

/// Turns every closed list of words into a string with its known words: readers must expect new ones.
pub fn open_enumerations(schema: &mut Value) {
    if let Some(words) = words_of(schema) {
        let object = schema.as_object_mut().unwrap();
        for key in ["enum", "oneOf", "const"] {
            object.remove(key);
        }
        object.insert("type".to_owned(), json!("string"));
        object.insert("x-known-values".to_owned(), json!(words));
    }
    match schema {
        Value::Object(object) => object.values_mut().for_each(open_enumerations),
        Value::Array(list) => list.iter_mut().for_each(open_enumerations),
        _ => {}
    }
}

/// The words of a fieldless enum, as schemars writes it: `enum`, or `oneOf` of `const` and `enum` where variants
/// have a description.
fn words_of(schema: &Value) -> Option<Vec<String>> {
    let strings = |list: &Value| -> Option<Vec<String>> {
        list.as_array()?.iter().map(|v| v.as_str().map(str::to_owned)).collect()
    };
    if let Some(list) = schema.get("enum") {
        // One word alone is a variant of an enum with data: there it says which variant it is.
        return strings(list).filter(|words| words.len() > 1);
    }
    let variants = schema.get("oneOf")?.as_array()?;
    let mut words = Vec::new();
    for variant in variants {
        match (variant.get("const"), variant.get("enum")) {
            (Some(Value::String(word)), _) => words.push(word.clone()),
            (_, Some(list)) => words.extend(strings(list)?),
            _ => return None,
        }
    }
    Some(words)
}

/// Everything that a reader of `old` could not take in records of `new`, and every field that our own reader
/// (`needed`) would miss in old records.
pub fn breaks(old: &Value, new: &Value, needed: &Value) -> Vec<String> {
    let mut found = Vec::new();
    node("", old, new, &mut found);
    for (name, old_def) in defs(old) {
        match defs(new).get(&name) {
            Some(new_def) => node(&name, &old_def, new_def, &mut found),
            None => found.push(format!("{name} is gone")),
        }
    }
    missing("", old, needed, &mut found);
    for (name, old_def) in defs(old) {
        if let Some(needed_def) = defs(needed).get(&name) {
            missing(&name, &old_def, needed_def, &mut found);
        }
    }
    found
}

fn defs(schema: &Value) -> Map<String, Value> {
    schema.get("$defs").and_then(Value::as_object).cloned().unwrap_or_default()
}

fn names(schema: &Value, key: &str) -> Vec<String> {
    let list = schema.get(key).and_then(Value::as_array);
    list.map(|l| l.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()).unwrap_or_default()
}

fn node(at: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    for key in ["type", "$ref", "pattern", "format", "items"] {
        if old.get(key) != new.get(key) {
            found.push(format!("{at}: {key} was {}, is {}", text(old.get(key)), text(new.get(key))));
        }
    }
    if old.get("minimum").is_some() && old.get("minimum") != new.get("minimum") {
        found.push(format!("{at}: minimum was {}, is {}", text(old.get("minimum")), text(new.get("minimum"))));
    }
    for word in names(old, "x-known-values") {
        if !names(new, "x-known-values").contains(&word) {
            found.push(format!("{at}: the word {word} is gone"));
        }
    }
    let still = names(new, "required");
    for name in names(old, "required").iter().filter(|n| !still.contains(n)) {
        found.push(format!("{at}/{name}: was always there, now it may be absent"));
    }
    if let Some(fields) = old.get("properties").and_then(Value::as_object) {
        for (name, field) in fields {
            match new.get("properties").and_then(|p| p.get(name)) {
                Some(now) => node(&format!("{at}/{name}"), field, now, found),
                None => found.push(format!("{at}/{name} is gone")),
            }
        }
    }
    for key in ["oneOf", "anyOf"] {
        let (Some(was), is) = (old.get(key).and_then(Value::as_array), new.get(key).and_then(Value::as_array)) else {
            continue;
        };
        for variant in was {
            let twin = is.into_iter().flatten().find(|v| {
                names(v, "required") == names(variant, "required")
                    && v.get("enum") == variant.get("enum")
                    && v.get("$ref") == variant.get("$ref")
                    && v.get("type") == variant.get("type")
            });
            match twin {
                Some(now) => node(&format!("{at}|{}", names(variant, "required").join(",")), variant, now, found),
                None => found.push(format!("{at}: the variant {} is gone", text(Some(variant)))),
            }
        }
    }
}

/// Fields that the new reader requires and old records need not have.
fn missing(at: &str, old: &Value, needed: &Value, found: &mut Vec<String>) {
    let had = names(old, "required");
    if old.get("properties").is_some() {
        for name in names(needed, "required").iter().filter(|n| !had.contains(n)) {
            found.push(format!("{at}/{name}: old records may lack it, so the type needs a default"));
        }
    }
}

fn text(value: Option<&Value>) -> String {
    value.map_or_else(|| "not given".to_owned(), Value::to_string)
}

mod tests {
    use super::*;

    fn old() -> Value {
        json!({
            "type": "object", "required": ["id", "kind"],
            "properties": {
                "id": { "type": "string" },
                "kind": { "$ref": "#/$defs/Kind" },
                "note": { "type": ["string", "null"] }
            },
            "$defs": { "Kind": { "type": "string", "x-known-values": ["click", "hit"] } }
        })
    }

    fn changed(pointer: &str, to: Value) -> Vec<String> {
        let mut new = old();
        *new.pointer_mut(pointer).unwrap() = to;
        breaks(&old(), &new, &new)
    }

    #[test]
    fn additions_break_nothing() {
        let mut new = old();
        new["properties"]["more"] = json!({ "type": "integer" });
        new["$defs"]["Kind"]["x-known-values"] = json!(["click", "hit", "tick"]);
        new["required"] = json!(["id", "kind", "more"]);
        let mut needed = new.clone();
        needed["required"] = json!(["id", "kind"]);
        assert_eq!(breaks(&old(), &new, &needed), Vec::<String>::new());
    }

    #[test]
    fn everything_else_breaks_a_reader() {
        assert_eq!(changed("/properties/id/type", json!("integer")).len(), 1);
        assert_eq!(changed("/properties/note/type", json!("string")).len(), 1);
        assert_eq!(changed("/required", json!(["id"])).len(), 1);
        assert_eq!(changed("/$defs/Kind/x-known-values", json!(["click"])).len(), 1);
        assert_eq!(changed("/properties", json!({ "id": { "type": "string" } })).len(), 2);
    }

    #[test]
    fn a_new_required_field_without_a_default_breaks_old_records() {
        let mut new = old();
        new["properties"]["more"] = json!({ "type": "integer" });
        new["required"] = json!(["id", "kind", "more"]);
        let found = breaks(&old(), &new, &new);
        assert_eq!(found, ["/more: old records may lack it, so the type needs a default"]);
    }

    #[test]
    fn words_are_opened_and_variants_with_data_are_not() {
        let mut words =
            json!({ "oneOf": [{ "enum": ["a", "b"], "type": "string" }, { "const": "c", "description": "d" }] });
        open_enumerations(&mut words);
        assert_eq!(words, json!({ "type": "string", "x-known-values": ["a", "b", "c"] }));
        let variants =
            json!({ "oneOf": [{ "type": "object", "required": ["click"] }, { "type": "string", "enum": ["tick"] }] });
        let mut same = variants.clone();
        open_enumerations(&mut same);
        assert_eq!(same, variants);
    }
}
