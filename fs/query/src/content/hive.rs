//! Columns whose values stand in the paths of files: `/year=2026/month=11/a.parquet`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::ScalarValue;

/// What stands for no value.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// The columns that all these paths have, and each path's values.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Partitions {
    pub(crate) columns: Vec<FieldRef>,
    /// A path's values, in the order of the columns.
    pub(crate) values: Vec<Vec<ScalarValue>>,
}

/// Reads the columns out of paths; there are none where not every path has the same.
pub(crate) fn read<'a>(paths: impl Iterator<Item = &'a [u8]>) -> Partitions {
    let paths: Vec<Vec<(String, Option<String>)>> = paths.map(pairs).collect();
    let names: Vec<String> = paths.first().into_iter().flatten().map(|(name, _)| name.clone()).collect();
    let have_same =
        |pairs: &Vec<(String, Option<String>)>| pairs.iter().map(|(name, _)| name).eq(names.iter());
    if names.is_empty() || !paths.iter().all(have_same) {
        return Partitions { columns: Vec::new(), values: vec![Vec::new(); paths.len()] };
    }
    let mut values = vec![Vec::with_capacity(names.len()); paths.len()];
    let mut columns = Vec::new();
    for (place, name) in names.iter().enumerate() {
        let texts: Vec<Option<&str>> = paths.iter().map(|pairs| pairs[place].1.as_deref()).collect();
        let kind = kind_of(&texts);
        for (values, text) in values.iter_mut().zip(&texts) {
            values.push(value(text.as_deref(), &kind));
        }
        columns.push(Arc::new(Field::new(name, kind, true)));
    }
    Partitions { columns, values }
}

fn pairs(path: &[u8]) -> Vec<(String, Option<String>)> {
    let mut names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    // The last is the file's own name.
    names.pop();
    let pair = |name: &&[u8]| {
        let (key, value) = std::str::from_utf8(name).ok()?.split_once('=')?;
        let value = unescape(value);
        (!key.is_empty()).then(|| (key.to_owned(), (value != NULL).then_some(value)))
    };
    names.iter().filter_map(pair).collect()
}

/// `%2F` and its like, as Hive writes them.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(escaped) if byte == b'%' => {
                bytes.push(escaped);
                rest = &after[2..];
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

/// Whole numbers and days where all values are some, else text.
fn kind_of(texts: &[Option<&str>]) -> DataType {
    let all = |kind: &DataType| {
        let mut texts = texts.iter().flatten().peekable();
        texts.peek().is_some() && texts.all(|text| !value(Some(text), kind).is_null())
    };
    let kinds = [DataType::Int64, DataType::Date32];
    kinds.into_iter().find(all).unwrap_or(DataType::Utf8)
}

fn value(text: Option<&str>, kind: &DataType) -> ScalarValue {
    match kind {
        DataType::Int64 => ScalarValue::Int64(text.and_then(|text| text.parse().ok())),
        DataType::Date32 => {
            let day =
                text.filter(|text| text.len() == 10).and_then(|text| text.parse::<chrono::NaiveDate>().ok());
            let days = day.map(|day| (day - chrono::NaiveDate::default()).num_days());
            ScalarValue::Date32(days.and_then(|days| i32::try_from(days).ok()))
        }
        _ => ScalarValue::Utf8(text.map(str::to_owned)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(paths: &[&str]) -> Partitions {
        read(paths.iter().map(|path| path.as_bytes()))
    }

    #[test]
    fn values_are_numbers_days_or_text() {
        let read = of(&[
            "/d/y=2026/day=2026-11-20/k=a%2Fb/f",
            "/d/y=7/day=2026-01-01/k=__HIVE_DEFAULT_PARTITION__/f",
        ]);
        let kinds: Vec<&DataType> = read.columns.iter().map(|column| column.data_type()).collect();
        assert_eq!(kinds, [&DataType::Int64, &DataType::Date32, &DataType::Utf8]);
        assert_eq!(read.values[0][0], ScalarValue::Int64(Some(2026)));
        assert_eq!(read.values[0][2], ScalarValue::Utf8(Some("a/b".to_owned())));
        assert_eq!(read.values[1][2], ScalarValue::Utf8(None));
        assert_eq!(of(&["/y=1/f", "/y=x/f"]).columns[0].data_type(), &DataType::Utf8);
    }

    #[test]
    fn columns_are_those_that_all_paths_have() {
        for paths in [&["/y=1/f", "/f"][..], &["/y=1/f", "/m=1/f"], &["/f=1"], &[]] {
            let read = of(paths);
            assert!(read.columns.is_empty() && read.values.len() == paths.len(), "{paths:?}");
        }
    }
}
