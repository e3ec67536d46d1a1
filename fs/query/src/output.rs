//! Answers as text, and as files.

use std::io::{self, Write};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::csv::WriterBuilder as CsvBuilder;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::FileWriter;
use arrow::json::writer::{JsonArray, LineDelimited, WriterBuilder as JsonBuilder};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use comfy_table::{CellAlignment, Table, presets};
use parking_lot::Mutex;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use crate::error::{QueryError, Result};

/// Rows of one table: so that a long answer begins at once.
const TABLE_ROWS: usize = 10_000;

/// How an answer is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OutputFormat {
    /// For people.
    Table,
    /// Values between commas, and a line with the columns' names.
    Csv,
    /// One JSON array of objects.
    Json,
    /// A JSON object a line.
    JsonLines,
    /// A Parquet file.
    Parquet,
    /// An Arrow IPC file.
    Arrow,
}

impl OutputFormat {
    /// The format that is called so, in lowercase.
    pub fn of_word(word: &str) -> Option<OutputFormat> {
        Some(match word {
            "table" => OutputFormat::Table,
            "csv" | "tsv" => OutputFormat::Csv,
            "json" => OutputFormat::Json,
            "jsonl" | "ndjson" => OutputFormat::JsonLines,
            "parquet" | "pq" => OutputFormat::Parquet,
            "arrow" | "feather" | "ipc" => OutputFormat::Arrow,
            _ => return None,
        })
    }

    /// The format that a file's name says by its ending.
    pub fn of_name(name: &str) -> Option<OutputFormat> {
        let (_, ending) = name.rsplit('/').next()?.rsplit_once('.')?;
        OutputFormat::of_word(&ending.to_ascii_lowercase()).filter(|format| *format != OutputFormat::Table)
    }
}

/// What may be said of how an answer is written.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputOptions {
    /// Whether CSV begins with the columns' names.
    pub header: bool,
    /// What stands between values in CSV.
    pub delimiter: u8,
}

impl Default for OutputOptions {
    fn default() -> Self {
        OutputOptions { header: true, delimiter: b',' }
    }
}

/// A sink that remembers why it failed, since writers of formats wrap errors in their own.
struct Sink {
    inner: Box<dyn Write + Send>,
    failure: Failure,
}

type Failure = Arc<Mutex<Option<io::Error>>>;

impl Sink {
    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| {
            let again = io::Error::new(error.kind(), error.to_string());
            *self.failure.lock() = Some(error);
            again
        })
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes);
        self.note(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.inner.flush();
        self.note(flushed)
    }
}

/// Why an answer could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The sink failed.
    #[error(transparent)]
    Sink(io::Error),
    /// The format cannot hold it.
    #[error(transparent)]
    Format(#[from] QueryError),
}

/// Writes an answer.
pub struct Writer {
    kind: Kind,
    schema: SchemaRef,
    failure: Failure,
}

enum Kind {
    Table { sink: Sink, waiting: Vec<RecordBatch>, rows: usize, shown: bool },
    Csv(arrow::csv::Writer<Sink>),
    Json(arrow::json::Writer<Sink, JsonArray>),
    JsonLines(arrow::json::Writer<Sink, LineDelimited>),
    Parquet(Box<ArrowWriter<Sink>>),
    Arrow(FileWriter<Sink>),
}

impl Writer {
    /// Begins to write an answer with these columns.
    pub fn new(
        format: OutputFormat,
        options: &OutputOptions,
        schema: &SchemaRef,
        sink: Box<dyn Write + Send>,
    ) -> Result<Self, WriteError> {
        let failure = Failure::default();
        let sink = Sink { inner: sink, failure: failure.clone() };
        let json = || JsonBuilder::new().with_explicit_nulls(true);
        let mut schema = schema.clone();
        let made = match format {
            OutputFormat::Table => Ok(Kind::Table { sink, waiting: Vec::new(), rows: 0, shown: false }),
            OutputFormat::Csv => {
                schema = as_text(&schema);
                let builder = CsvBuilder::new().with_header(options.header).with_delimiter(options.delimiter);
                let mut writer = builder.build(sink);
                // The names stand there even if no row follows.
                writer.write(&RecordBatch::new_empty(schema.clone())).map(|()| Kind::Csv(writer))
            }
            OutputFormat::Json => Ok(Kind::Json(json().build(sink))),
            OutputFormat::JsonLines => Ok(Kind::JsonLines(json().build(sink))),
            OutputFormat::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(Default::default()))
                    .build();
                ArrowWriter::try_new(sink, schema.clone(), Some(properties))
                    .map(|writer| Kind::Parquet(Box::new(writer)))
                    .map_err(of_parquet)
            }
            OutputFormat::Arrow => FileWriter::try_new(sink, &schema).map(Kind::Arrow),
        };
        match made {
            Ok(kind) => Ok(Writer { kind, schema, failure }),
            Err(error) => Err(told(&failure, &error)),
        }
    }

    /// Writes some rows.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), WriteError> {
        let written = match &mut self.kind {
            Kind::Table { sink, waiting, rows, shown } => {
                *rows += batch.num_rows();
                waiting.push(batch.clone());
                match *rows < TABLE_ROWS {
                    true => Ok(()),
                    false => {
                        (*rows, *shown) = (0, true);
                        table(&self.schema, &std::mem::take(waiting), sink)
                    }
                }
            }
            Kind::Csv(writer) => texts(&self.schema, batch).and_then(|batch| writer.write(&batch)),
            Kind::Json(writer) => writer.write(batch),
            Kind::JsonLines(writer) => writer.write(batch),
            Kind::Parquet(writer) => writer.write(batch).map_err(of_parquet),
            Kind::Arrow(writer) => writer.write(batch),
        };
        written.map_err(|error| told(&self.failure, &error))
    }

    /// Writes what is left, and what the format ends with.
    pub fn finish(self) -> Result<(), WriteError> {
        let failure = self.failure;
        let finished = match self.kind {
            Kind::Table { mut sink, waiting, rows, shown } => match rows > 0 || !shown {
                true => table(&self.schema, &waiting, &mut sink).and_then(|()| Ok(sink.flush()?)),
                false => sink.flush().map_err(ArrowError::from),
            },
            Kind::Csv(writer) => writer.into_inner().flush().map_err(ArrowError::from),
            Kind::Json(mut writer) => writer.finish().and_then(|()| Ok(writer.into_inner().flush()?)),
            Kind::JsonLines(mut writer) => writer.finish().and_then(|()| Ok(writer.into_inner().flush()?)),
            Kind::Parquet(writer) => {
                writer.into_inner().map_err(of_parquet).and_then(|mut sink| Ok(sink.flush()?))
            }
            Kind::Arrow(mut writer) => {
                writer.finish().and_then(|()| writer.into_inner()).and_then(|mut sink| Ok(sink.flush()?))
            }
        };
        finished.map_err(|error| told(&failure, &error))
    }
}

fn of_parquet(error: ParquetError) -> ArrowError {
    ArrowError::ParquetError(error.to_string())
}

fn told(failure: &Failure, error: &ArrowError) -> WriteError {
    match failure.lock().take() {
        Some(error) => WriteError::Sink(error),
        None => WriteError::Format(QueryError::new(error.to_string())),
    }
}

/// What CSV has no form for is written as text.
fn as_text(schema: &SchemaRef) -> SchemaRef {
    let text = |field: &Arc<Field>| match is_plain(field.data_type()) {
        true => field.clone(),
        false => Arc::new(Field::new(field.name(), DataType::Utf8, true)),
    };
    Arc::new(Schema::new(schema.fields().iter().map(text).collect::<Vec<_>>()))
}

fn is_plain(kind: &DataType) -> bool {
    !kind.is_nested()
}

fn texts(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(|column| match is_plain(column.data_type()) {
        true => Ok(column.clone()),
        false => {
            let options = FormatOptions::default();
            let shown = ArrayFormatter::try_new(column, &options)?;
            let texts =
                (0..column.len()).map(|row| column.is_valid(row).then(|| shown.value(row).to_string()));
            Ok(Arc::new(texts.collect::<StringArray>()) as ArrayRef)
        }
    });
    let columns = columns.collect::<Result<Vec<_>, ArrowError>>()?;
    RecordBatch::try_new(schema.clone(), columns)
}

/// Rows for people, under the names of the columns.
fn table(schema: &SchemaRef, batches: &[RecordBatch], sink: &mut Sink) -> Result<(), ArrowError> {
    let mut shown = Table::new();
    shown.load_preset(presets::NOTHING);
    shown.set_header(schema.fields().iter().map(|field| printable(field.name())));
    let options = FormatOptions::default().with_null("NULL");
    for batch in batches {
        let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let cells = columns.iter().map(|column| Ok(printable(&column.value(row).try_to_string()?)));
            shown.add_row(cells.collect::<Result<Vec<_>, ArrowError>>()?);
        }
    }
    for (column, field) in shown.column_iter_mut().zip(schema.fields()) {
        column.set_padding((0, 2));
        if field.data_type().is_numeric() {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for line in shown.lines() {
        writeln!(sink, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Text without what would move a terminal's cursor, but for ends of lines.
fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|sign| match sign.is_control() && sign != '\n' {
            true => sign.escape_default().collect::<Vec<_>>(),
            false => vec![sign],
        })
        .collect()
}
