//! Lists, a page at a time.

use super::error::Problem;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Items of one page unless asked otherwise.
const LIMIT_DEFAULT: u32 = 100;
/// Most items of one page.
pub const LIMIT_MAX: u32 = 200;

/// Part of a list, in the order of ids.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items.
    pub data: Vec<T>,
    /// Give this as `after` for the next page; null at the end.
    pub next: Option<i64>,
}

/// Which page of a list that nothing else narrows.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PageParams {
    /// Only items with greater ids: the `next` of the page before.
    pub after: Option<i64>,
    /// Most items, 1 to 200. Default 100.
    pub limit: Option<u32>,
}

impl<T> Page<T> {
    /// A page of at most `limit` items, made of a look at one more.
    pub fn of(mut items: Vec<T>, limit: u32, id: impl Fn(&T) -> i64) -> Self {
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        let next = items.last().filter(|_| more).map(id);
        Self { data: items, next }
    }
}

/// The limit that holds: asking for none or for too many is refused, not bent.
pub fn checked_limit(asked: Option<u32>, limit_max: u32) -> Result<u32, Problem> {
    match asked.unwrap_or(LIMIT_DEFAULT) {
        limit if (1..=limit_max).contains(&limit) => Ok(limit),
        _ => Err(Problem::bad_field("limit", format!("limit is a number from 1 to {limit_max}."))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_knows_whether_there_is_more() {
        let check = |items: &[i64], data: &[i64], next: Option<i64>| {
            let page = Page::of(items.to_vec(), 2, |&id| id);
            assert_eq!((page.data.as_slice(), page.next), (data, next));
        };
        check(&[], &[], None);
        check(&[3, 5], &[3, 5], None);
        check(&[3, 5, 8], &[3, 5], Some(5));
    }

    #[test]
    fn limits_are_bounded() {
        assert_eq!(checked_limit(None, LIMIT_MAX).unwrap(), LIMIT_DEFAULT);
        assert_eq!(checked_limit(Some(200), LIMIT_MAX).unwrap(), 200);
        assert!(checked_limit(Some(0), LIMIT_MAX).is_err());
        assert!(checked_limit(Some(201), LIMIT_MAX).is_err());
    }
}
