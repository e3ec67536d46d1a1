//! Statements, one by one, and which there are: those that read, and `COPY … TO`.

use std::ops::ControlFlow;

use datafusion::sql::parser::{CopyToSource, CopyToStatement, DFParserBuilder, Statement as Parsed};
use datafusion::sql::sqlparser::ast::{
    Query, SetExpr, Statement as SqlStatement, Value, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::Tokenizer;

use crate::error::{QueryError, Result};
use crate::sql::dialect::PondDialect;
use crate::sql::tokens;
use crate::sql::when::FORMS;

/// How deep a statement may be nested. Going through one takes stack in proportion.
const DEEPEST: usize = 128;

/// A statement that may be run.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    /// It gives rows.
    Rows(Box<Parsed>),
    /// Its rows go into a file.
    Copy(Box<Copy>),
}

/// `COPY … TO '…'`
#[derive(Clone, Debug, PartialEq)]
pub struct Copy {
    pub(crate) source: Parsed,
    /// Where to, as it is written.
    pub target: String,
    /// `STORED AS`, or the option `format`, in lowercase.
    pub format: Option<String>,
    /// The other options, in lowercase, with their values.
    pub options: Vec<(String, String)>,
}

/// Reads statements, which `;` parts.
///
/// # Errors
///
/// What is not understood, and statements that would change something.
pub fn parse(text: &str) -> Result<Vec<Statement>> {
    read(text).map_err(|error| {
        let text = text.to_ascii_lowercase();
        let may_be_clause = ["version", "timestamp", "as of"].iter().any(|word| text.contains(word));
        match error.advice.is_none() && may_be_clause {
            true => error.next(FORMS),
            false => error,
        }
    })
}

fn read(text: &str) -> Result<Vec<Statement>> {
    let tokens = Tokenizer::new(&PondDialect, text)
        .tokenize_with_location()
        .map_err(|error| QueryError::from(ParserError::from(error)))?;
    let mut parser = DFParserBuilder::new(tokens::prepared(tokens))
        .with_dialect(&PondDialect)
        .with_recursion_limit(DEEPEST)
        .build()?;
    parser.parse_statements()?.into_iter().map(allowed).collect()
}

fn allowed(mut parsed: Parsed) -> Result<Statement> {
    if let Parsed::CopyTo(copy) = parsed {
        return copy_to(copy).map(Box::new).map(Statement::Copy);
    }
    check(&mut parsed)?;
    Ok(Statement::Rows(Box::new(parsed)))
}

/// Refuses what does not read.
fn check(parsed: &mut Parsed) -> Result<()> {
    match parsed {
        Parsed::Explain(explain) => check(&mut explain.statement),
        Parsed::Statement(statement) => match &mut **statement {
            SqlStatement::Query(_) | SqlStatement::Explain { .. } => match statement.visit(&mut Reads) {
                ControlFlow::Break(error) => Err(*error),
                ControlFlow::Continue(()) => Ok(()),
            },
            SqlStatement::ExplainTable { .. }
            | SqlStatement::ShowTables { .. }
            | SqlStatement::ShowColumns { .. }
            | SqlStatement::ShowVariable { .. }
            | SqlStatement::ShowFunctions { .. } => Ok(()),
            SqlStatement::Set(set) => {
                let text = set.to_string().to_ascii_lowercase();
                match ["datafusion.runtime", "datafusion.catalog", "datafusion.sql_parser"]
                    .iter()
                    .any(|own| text.contains(own))
                {
                    true => Err(QueryError::new(format!("{set} is not possible here"))
                        .next("options of `pond sql` say what a query may take; see `pond sql --help`")),
                    false => Ok(()),
                }
            }
            other => Err(refused(&other.to_string())),
        },
        other => Err(refused(&other.to_string())),
    }
}

fn refused(text: &str) -> QueryError {
    let mut words = text.split_whitespace().map(str::to_uppercase);
    let what = match (words.next(), words.next()) {
        (Some(first), Some(second)) if ["CREATE", "DROP", "ALTER"].contains(&first.as_str()) => {
            format!("{first} {second}")
        }
        (first, _) => first.unwrap_or_default(),
    };
    QueryError::new(format!("{what} is not possible: queries change nothing"))
        .next("COPY (SELECT …) TO '/file.parquet' puts an answer into the pond")
}

/// Finds what would change something within a query.
struct Reads;

impl VisitorMut for Reads {
    type Break = Box<QueryError>;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        match &*query.body {
            SetExpr::Insert(statement)
            | SetExpr::Update(statement)
            | SetExpr::Delete(statement)
            | SetExpr::Merge(statement) => ControlFlow::Break(Box::new(refused(&statement.to_string()))),
            SetExpr::Select(select) if select.into.is_some() => {
                ControlFlow::Break(Box::new(refused("SELECT…INTO")))
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_statement(&mut self, statement: &mut SqlStatement) -> ControlFlow<Self::Break> {
        match statement {
            SqlStatement::Query(_) | SqlStatement::Explain { .. } => ControlFlow::Continue(()),
            other => ControlFlow::Break(Box::new(refused(&other.to_string()))),
        }
    }
}

fn copy_to(copy: CopyToStatement) -> Result<Copy> {
    let CopyToStatement { source, target, partitioned_by, stored_as, options } = copy;
    if !partitioned_by.is_empty() {
        return Err(QueryError::new("COPY … PARTITIONED BY is not possible: one statement writes one file"));
    }
    let query = match source {
        CopyToSource::Query(query) => *query,
        CopyToSource::Relation(name) => {
            let text = format!("SELECT * FROM {name}");
            match read(&text)?.pop() {
                Some(Statement::Rows(parsed)) => return finish(*parsed, target, stored_as, options),
                _ => return Err(QueryError::new(format!("cannot copy {name}"))),
            }
        }
    };
    let mut source = Parsed::Statement(Box::new(SqlStatement::Query(Box::new(query))));
    check(&mut source)?;
    finish(source, target, stored_as, options)
}

fn finish(
    source: Parsed,
    target: String,
    stored_as: Option<String>,
    options: Vec<(String, Value)>,
) -> Result<Copy> {
    let mut format = stored_as.map(|format| format.to_ascii_lowercase());
    let mut others = Vec::new();
    for (name, value) in options {
        let value = match value {
            Value::SingleQuotedString(text) => text,
            other => other.to_string(),
        };
        match name.to_ascii_lowercase() {
            name if name == "format" => format = Some(value.to_ascii_lowercase()),
            name => others.push((name.trim_start_matches("format.").to_owned(), value)),
        }
    }
    Ok(Copy { source, target, format, options: others })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reads_is_understood_and_what_changes_is_refused() {
        for text in [
            "SELECT 1",
            "WITH a AS (SELECT 1) SELECT * FROM a; VALUES (1), (2);",
            "EXPLAIN ANALYZE SELECT * FROM '/a.parquet'",
            "SHOW TABLES",
            "DESCRIBE files",
            "FROM files",
            "SET datafusion.execution.batch_size = 100",
            "SELECT a FROM t VERSION AS OF 'tag:v1' WHERE version = 3",
        ] {
            assert!(parse(text).is_ok_and(|found| !found.is_empty()), "{text}: {:?}", parse(text));
        }
        for text in [
            "INSERT INTO files VALUES (1)",
            "WITH a AS (SELECT 1) INSERT INTO files SELECT * FROM a",
            "EXPLAIN DELETE FROM files",
            "EXPLAIN ANALYZE UPDATE files SET size = 1",
            "SELECT * INTO a FROM files",
            "SELECT * FROM (SELECT * INTO a FROM files)",
            "CREATE TABLE a AS SELECT 1",
            "CREATE EXTERNAL TABLE a STORED AS CSV LOCATION '/etc/passwd'",
            "CREATE VIEW a AS SELECT 1",
            "DROP TABLE files",
            "TRUNCATE files",
            "MERGE INTO a USING b ON a.x = b.x WHEN MATCHED THEN DELETE",
            "PREPARE a AS SELECT 1",
            "SET datafusion.runtime.temp_directory = '/tmp'",
            "BEGIN",
        ] {
            let refused = parse(text).expect_err(text);
            assert!(refused.why.contains("not possible"), "{text}: {refused}");
        }
    }

    #[test]
    fn an_answer_goes_where_copy_says() {
        let copied =
            parse("COPY (SELECT 1) TO '/a.csv' OPTIONS (header false, 'format.delimiter' ';')").unwrap();
        let [Statement::Copy(copy)] = &copied[..] else { panic!("{copied:?}") };
        assert_eq!((copy.target.as_str(), copy.format.as_deref()), ("/a.csv", None));
        assert_eq!(copy.options, [("header".into(), "false".into()), ("delimiter".into(), ";".into())]);
        let copied = parse("COPY files TO '/a' STORED AS PARQUET").unwrap();
        assert!(matches!(&copied[..], [Statement::Copy(copy)] if copy.format.as_deref() == Some("parquet")));
        assert!(parse("COPY files TO '/a' PARTITIONED BY (kind)").is_err());
    }

    #[test]
    fn what_is_nested_too_deeply_is_refused() {
        let text = format!("SELECT {}1{}", "(".repeat(20_000), ")".repeat(20_000));
        assert!(parse(&text).is_err());
    }
}
