//! How a file is read: its format, its compression, and what may be said of both.

use std::str::FromStr;
use std::sync::Arc;

use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::arrow::ArrowFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;

use crate::error::{QueryError, Result};

/// A format that can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Parquet.
    Parquet,
    /// Values between commas, or another sign.
    Csv,
    /// JSON: lines, or an array.
    Json,
    /// Arrow IPC: a file, or a stream.
    Arrow,
}

/// What may be said of how files are read; what is not said, the files' names and their beginnings do.
#[derive(Clone, Default, PartialEq, Debug)]
pub(crate) struct Reading {
    pub(crate) compression: Option<String>,
    /// Whether the first line names the columns.
    pub(crate) header: Option<bool>,
    pub(crate) delimiter: Option<u8>,
    pub(crate) quote: Option<u8>,
    pub(crate) escape: Option<u8>,
    pub(crate) comment: Option<u8>,
    /// What stands for no value.
    pub(crate) null: Option<String>,
    /// Whether values may hold ends of lines.
    pub(crate) newlines_in_values: Option<bool>,
    /// Whether JSON is one array, rather than lines.
    pub(crate) array: Option<bool>,
}

/// What compressed files are called at their end.
const COMPRESSIONS: [(&str, FileCompressionType); 4] = [
    ("gz", FileCompressionType::GZIP),
    ("zst", FileCompressionType::ZSTD),
    ("bz2", FileCompressionType::BZIP2),
    ("xz", FileCompressionType::XZ),
];

/// What files of each format are called at their end.
const ENDINGS: [(&str, Format); 11] = [
    ("parquet", Format::Parquet),
    ("pq", Format::Parquet),
    ("csv", Format::Csv),
    ("tsv", Format::Csv),
    ("json", Format::Json),
    ("jsonl", Format::Json),
    ("ndjson", Format::Json),
    ("arrow", Format::Arrow),
    ("arrows", Format::Arrow),
    ("feather", Format::Arrow),
    ("ipc", Format::Arrow),
];

impl Format {
    /// The format of a file of this name, by its ending.
    ///
    /// # Errors
    ///
    /// Where the ending says none.
    pub fn of_name(name: &str) -> Result<Format> {
        let ending =
            without_compression(name).rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
        let found = ending.and_then(|ending| ENDINGS.iter().find(|(known, _)| *known == ending));
        found.map(|(_, format)| *format).ok_or_else(|| {
            QueryError::new(format!("the name {name} does not say which format it has"))
                .next("use read_parquet, read_csv, read_json or read_arrow")
        })
    }

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Parquet => "Parquet",
            Format::Csv => "CSV",
            Format::Json => "JSON",
            Format::Arrow => "Arrow",
        }
    }
}

fn without_compression(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((before, ending))
            if COMPRESSIONS.iter().any(|(known, _)| ending.eq_ignore_ascii_case(known)) =>
        {
            before
        }
        _ => name,
    }
}

fn compression(name: &str, reading: &Reading) -> Result<FileCompressionType> {
    match reading.compression.as_deref() {
        None | Some("auto") => {
            let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
            let found = COMPRESSIONS.iter().find(|(known, _)| ending.eq_ignore_ascii_case(known));
            Ok(found.map_or(FileCompressionType::UNCOMPRESSED, |(_, found)| *found))
        }
        Some("none") => Ok(FileCompressionType::UNCOMPRESSED),
        Some(other) => FileCompressionType::from_str(&other.replace("gzip", "gz").replace("zstd", "zst"))
            .map_err(|_| {
                QueryError::new(format!("there is no compression {other}; there are none, gz, zst, bz2, xz"))
            }),
    }
}

/// Reads files that are called as this one.
pub(crate) fn reader(
    format: Format,
    name: &str,
    reading: &Reading,
) -> Result<(Arc<dyn FileFormat>, FileCompressionType)> {
    let compression = compression(name, reading)?;
    let made: Arc<dyn FileFormat> = match format {
        Format::Parquet | Format::Arrow if compression.is_compressed() => {
            return Err(QueryError::new(format!(
                "{name} is compressed as a whole, which {} is not",
                format.name()
            )));
        }
        Format::Parquet => Arc::new(ParquetFormat::default()),
        Format::Arrow => Arc::new(ArrowFormat),
        Format::Csv => {
            let tabs = without_compression(name).to_ascii_lowercase().ends_with(".tsv");
            let delimiter = reading.delimiter.unwrap_or(if tabs { b'\t' } else { b',' });
            let csv = CsvFormat::default()
                .with_has_header(reading.header.unwrap_or(true))
                .with_delimiter(delimiter)
                .with_quote(reading.quote.unwrap_or(b'"'))
                .with_escape(reading.escape)
                .with_comment(reading.comment)
                .with_null_regex(reading.null.as_ref().map(|null| format!("^{}$", regex_of(null))))
                .with_newlines_in_values(reading.newlines_in_values.unwrap_or(false))
                .with_file_compression_type(compression);
            Arc::new(csv)
        }
        Format::Json => {
            let json = JsonFormat::default()
                .with_newline_delimited(!reading.array.unwrap_or(false))
                .with_file_compression_type(compression);
            Arc::new(json)
        }
    };
    Ok((made, compression))
}

/// Whether files of these names are read in the same way.
pub(crate) fn is_same_way(format: Format, one: &str, other: &str, reading: &Reading) -> Result<bool> {
    let tabs = |name: &str| without_compression(name).to_ascii_lowercase().ends_with(".tsv");
    let is_same_text = format != Format::Csv || reading.delimiter.is_some() || tabs(one) == tabs(other);
    Ok(is_same_text && compression(one, reading)? == compression(other, reading)?)
}

/// A pattern that only this text matches.
fn regex_of(text: &str) -> String {
    text.chars()
        .flat_map(|sign| (!sign.is_alphanumeric()).then_some('\\').into_iter().chain([sign]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_format_and_compression() {
        for (name, format) in [
            ("a.parquet", Format::Parquet),
            ("A.CSV", Format::Csv),
            ("a.b.tsv.gz", Format::Csv),
            ("a.jsonl.ZST", Format::Json),
            ("a.json.xz", Format::Json),
            ("a.feather", Format::Arrow),
        ] {
            assert_eq!(Format::of_name(name), Ok(format), "{name}");
        }
        for name in ["a", "a.gz", "parquet", "a.txt"] {
            assert!(Format::of_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_text_for_null_is_no_pattern() {
        assert_eq!(regex_of("n/a."), "n\\/a\\.");
    }
}
