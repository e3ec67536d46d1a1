//! Why a query could not be answered.

use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;
use pond_oplog::OpLogError;

/// Why a query could not be answered, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct QueryError {
    /// Why.
    pub why: String,
    /// What to do next, where there is something to say.
    pub advice: Option<String>,
}

/// What comes of a query or a part of it.
pub type Result<T, E = QueryError> = std::result::Result<T, E>;

/// What is said where memory ran short.
const MORE_MEMORY: &str = "give it more with --memory-limit, or ask for less at a time";

impl QueryError {
    /// It could not be answered because of `why`.
    pub fn new(why: impl Into<String>) -> Self {
        QueryError { why: why.into(), advice: None }
    }

    /// Adds what to do next.
    pub fn next(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

impl From<OpLogError> for QueryError {
    fn from(error: OpLogError) -> Self {
        // What such errors say after their last semicolon is what to do next.
        let text = error.to_string();
        match text.rsplit_once("; ") {
            Some((why, advice)) => QueryError::new(why).next(advice),
            None => QueryError::new(text).next("`pond log` shows which versions there are"),
        }
    }
}

impl From<pond_tinyfs::Error> for QueryError {
    fn from(error: pond_tinyfs::Error) -> Self {
        QueryError::new(error.to_string())
    }
}

impl From<ParserError> for QueryError {
    fn from(error: ParserError) -> Self {
        let text = match error {
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
            ParserError::RecursionLimitExceeded => {
                return QueryError::new("the statement is nested too deeply");
            }
        };
        QueryError::new(format!("not understood: {text}"))
    }
}

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> Self {
        of_datafusion(&error)
    }
}

impl From<QueryError> for DataFusionError {
    fn from(error: QueryError) -> Self {
        DataFusionError::External(Box::new(error))
    }
}

/// DataFusion's error without the names of its layers.
fn of_datafusion(error: &DataFusionError) -> QueryError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    // What we said ourselves may be wrapped by any number of layers.
    while let Some(error) = cause {
        if let Some(own) = error.downcast_ref::<QueryError>() {
            return own.clone();
        }
        cause = match error.downcast_ref::<DataFusionError>() {
            Some(DataFusionError::External(inner)) => Some(inner.as_ref()),
            _ => error.source(),
        };
    }
    match error.find_root() {
        DataFusionError::SQL(parser, _) => QueryError::from((**parser).clone()),
        DataFusionError::ResourcesExhausted(text) => {
            QueryError::new(format!("it needs more memory than it may take: {}", first_line(text)))
                .next(MORE_MEMORY)
        }
        DataFusionError::Plan(text) | DataFusionError::Execution(text) => {
            QueryError::new(without_catalog(text))
        }
        DataFusionError::NotImplemented(text) => QueryError::new(format!("not possible here: {text}")),
        DataFusionError::SchemaError(schema, _) => {
            let text = without_catalog(&schema.to_string());
            match text.split_once(".\n") {
                Some((why, fields)) => QueryError::new(why).next(fields.trim_end_matches('.')),
                None => QueryError::new(text),
            }
        }
        DataFusionError::ArrowError(arrow, _) => of_arrow(&arrow.to_string()),
        DataFusionError::ParquetError(parquet) => {
            QueryError::new(format!("not a whole Parquet file: {parquet}"))
        }
        DataFusionError::ObjectStore(store) => QueryError::new(store.to_string()),
        DataFusionError::IoError(io) => QueryError::new(io.to_string()),
        other => QueryError::new(without_catalog(&other.strip_backtrace())),
    }
}

fn of_arrow(text: &str) -> QueryError {
    match text.contains("Resources exhausted") {
        true => QueryError::new(format!("it needs more memory than it may take: {}", first_line(text)))
            .next(MORE_MEMORY),
        false => QueryError::new(text),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Tables are called here as people call them.
fn without_catalog(text: &str) -> String {
    text.replace("pond.public.", "")
}
