//! Columns of what a pond knows, made from its own values.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, RecordBatchOptions, StringArray,
    TimestampMicrosecondArray, TimestampNanosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::error::{QueryError, Result};
use crate::tables::rows::Wanted;

/// A schema of columns that may all be without a value.
pub(crate) fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
    let fields = columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The type of a file's times.
pub(crate) fn nanoseconds() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some(UTC.into()))
}

/// The type of a version's time.
pub(crate) fn microseconds() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()))
}

const UTC: &str = "UTC";

/// Texts.
pub(crate) fn texts<T: AsRef<str>>(values: impl Iterator<Item = Option<T>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

/// Numbers that are there; what does not fit is left out.
pub(crate) fn longs(values: impl Iterator<Item = u64>) -> ArrayRef {
    Arc::new(values.map(|value| i64::try_from(value).ok()).collect::<Int64Array>())
}

/// Small numbers.
pub(crate) fn ints(values: impl Iterator<Item = i32>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<Int32Array>())
}

/// Truths.
pub(crate) fn truths(values: impl Iterator<Item = bool>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<BooleanArray>())
}

/// Times of files, nanoseconds since 1970 UTC.
pub(crate) fn file_times(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<TimestampNanosecondArray>().with_timezone(UTC))
}

/// Times of versions, microseconds since 1970 UTC.
pub(crate) fn version_times(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<TimestampMicrosecondArray>().with_timezone(UTC))
}

/// Bytes as text, and, where that loses something, all of them in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).is_err().then(|| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The columns that are wanted of so many rows.
pub(crate) fn batch(
    wanted: &Wanted,
    rows: usize,
    mut column: impl FnMut(usize) -> Result<ArrayRef>,
) -> Result<RecordBatch> {
    let columns = wanted.columns.iter().map(|place| column(*place)).collect::<Result<Vec<_>>>()?;
    // Without a column it is their number alone that is asked for.
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(wanted.schema.clone(), columns, &options)
        .map_err(|error| QueryError::new(error.to_string()))
}
