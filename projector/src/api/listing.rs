//! Pages of things of the catalog, sorted by id. The cursor is the id that the next page begins behind.

use serde::Serialize;
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
pub struct Listing<T> {
    pub items: Vec<T>,
    /// Pass it on to get the next page; `null` on the last one.
    pub cursor: Option<String>,
}

pub fn page<T>(
    sorted: impl Iterator<Item = T>,
    id: impl Fn(&T) -> &String,
    cursor: Option<&str>,
    limit: usize,
) -> (Vec<T>, Option<String>) {
    let behind = cursor.unwrap_or_default();
    let mut items: Vec<T> = sorted.filter(|item| id(item).as_str() > behind).take(limit.saturating_add(1)).collect();
    let more = items.len() > limit;
    items.truncate(limit);
    let cursor = if more { items.last().map(|item| id(item).clone()) } else { None };
    (items, cursor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_meet_without_a_gap() {
        let all: Vec<String> = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
        let mut seen = Vec::new();
        let mut cursor = None;
        loop {
            let (items, next) = page(all.iter().cloned(), |item| item, cursor.as_deref(), 2);
            seen.extend(items);
            match next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, all);
        assert_eq!(page(all.iter().cloned(), |item| item, None, 5).1, None);
    }
}
