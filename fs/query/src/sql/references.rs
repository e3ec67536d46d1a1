//! What a statement reads: files, and tables at a version. DataFusion drops a table's version and takes no names for arguments; so each such
//! reference is replaced by a name of its own, and nothing is left that would be dropped.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::parser::Statement as Parsed;
use datafusion::sql::sqlparser::ast::{
    Ident, ObjectName, ObjectNamePart, Query, Statement as SqlStatement, TableAlias, TableFactor, VisitMut,
    VisitorMut,
};
use pond_oplog::{At, AtError};

use crate::content::files::Shape;
use crate::content::format::Format;
use crate::error::{QueryError, Result};
use crate::sql::arguments::Arguments;
use crate::sql::when;

/// What a reference means.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Source {
    /// One of the pond's tables, in lowercase.
    Table(String),
    /// Files, by paths or patterns.
    Files(Wanted),
    /// `changes(a, b)`
    Changes(At, At),
    /// `history('/path')`
    History(String),
}

/// Files, and how they are read.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Wanted {
    pub(crate) paths: Vec<String>,
    /// None: as their names say.
    pub(crate) format: Option<Format>,
    pub(crate) shape: Shape,
}

/// A reference that was replaced.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Reference {
    /// The name that stands for it now.
    pub(crate) name: String,
    pub(crate) source: Source,
    pub(crate) at: Option<At>,
}

/// The pond's tables.
pub(crate) const TABLES: [&str; 5] = ["control", "entries", "files", "oplog", "versions"];

/// Takes the references out of a statement that have to be replaced.
///
/// # Errors
///
/// Whatever stands beside a table and is not understood.
pub(crate) fn take(parsed: &mut Parsed) -> Result<Vec<Reference>> {
    match parsed {
        Parsed::Explain(explain) => take(&mut explain.statement),
        Parsed::Statement(statement) => of_statement(statement),
        _ => Ok(Vec::new()),
    }
}

fn of_statement(statement: &mut SqlStatement) -> Result<Vec<Reference>> {
    let mut names = Names::default();
    let mut taken = Taken { found: Vec::new(), with: HashSet::new() };
    if let SqlStatement::ExplainTable { table_name, .. } = statement {
        if let Some(path) = path_of(table_name) {
            let (source, at) = by_path(&path)?;
            *table_name = taken.put(&path, source, at);
        }
        return Ok(taken.found);
    }
    // Visiting for names goes first, as one may be used above where it is given.
    if let ControlFlow::Break(never) = statement.visit(&mut names) {
        match never {}
    }
    taken.with = names.0;
    match statement.visit(&mut taken) {
        ControlFlow::Break(error) => Err(*error),
        ControlFlow::Continue(()) => Ok(taken.found),
    }
}

/// Names that WITH gives.
#[derive(Default)]
struct Names(HashSet<String>);

impl VisitorMut for Names {
    type Break = std::convert::Infallible;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        for table in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.0.insert(table.alias.name.value.to_ascii_lowercase());
        }
        ControlFlow::Continue(())
    }
}

struct Taken {
    found: Vec<Reference>,
    with: HashSet<String>,
}

impl Taken {
    /// The name that stands for it from now on: what was typed, made unique.
    fn put(&mut self, text: &str, source: Source, at: Option<At>) -> ObjectName {
        let same = self.found.iter().find(|other| other.source == source && other.at == at);
        let name = match same {
            Some(same) => same.name.clone(),
            None => {
                let mut name = match at {
                    Some(at) => format!("{text}@{at}"),
                    None => text.to_owned(),
                };
                while self.found.iter().any(|other| other.name == name) || self.with.contains(&name) {
                    name.push('\'');
                }
                self.found.push(Reference { name: name.clone(), source, at });
                name
            }
        };
        ObjectName(vec![ObjectNamePart::Identifier(Ident::with_quote('"', name))])
    }
}

impl VisitorMut for Taken {
    type Break = Box<QueryError>;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Self::Break> {
        match self.replace(factor) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Box::new(error)),
        }
    }
}

impl Taken {
    fn replace(&mut self, factor: &mut TableFactor) -> Result<()> {
        let written = match factor {
            TableFactor::Table { .. } => factor.to_string(),
            _ => "(SELECT …)".to_owned(),
        };
        match factor {
            TableFactor::Table { alias: Some(TableAlias { at: Some(_), .. }), .. }
            | TableFactor::Derived { alias: Some(TableAlias { at: Some(_), .. }), .. }
            | TableFactor::Derived { sample: Some(_), .. } => Err(not_possible(&written)),
            TableFactor::Table {
                name,
                alias,
                args,
                version,
                with_hints,
                with_ordinality: _,
                partitions,
                json_path,
                sample,
                index_hints,
            } => {
                let has_more = !with_hints.is_empty()
                    || !partitions.is_empty()
                    || json_path.is_some()
                    || sample.is_some()
                    || !index_hints.is_empty();
                if has_more {
                    return Err(not_possible(&written));
                }
                let clause = version.as_ref().map(when::of_clause).transpose()?;
                let (text, called) = (shown(name), called(name));
                let found = match args {
                    Some(given) => {
                        let function = name.to_string().to_ascii_lowercase();
                        let mut arguments = Arguments::of(&function, given)?;
                        match of_function(&function, &mut arguments)? {
                            Some((source, at)) => {
                                let text = match &source {
                                    Source::Files(wanted) => {
                                        format!("{function}({})", wanted.paths.join(", "))
                                    }
                                    _ => written.clone(),
                                };
                                Some((source, at, text, Some(function.clone())))
                            }
                            None => None,
                        }
                    }
                    None => match path_of(name) {
                        Some(path) => {
                            let (source, at) = by_path(&path)?;
                            Some((source, at, path.clone(), stem(&path)))
                        }
                        None if clause.is_some() && self.with.contains(&called) => {
                            return Err(QueryError::new(format!(
                                "{text} is a name of WITH, which has no versions"
                            )));
                        }
                        None if clause.is_some() && TABLES.contains(&called.as_str()) => {
                            Some((Source::Table(called.clone()), None, called.clone(), Some(called)))
                        }
                        None => None,
                    },
                };
                let Some((source, at_path, text, name_for_columns)) = found else {
                    return match clause {
                        Some(_) => Err(QueryError::new(format!("{text} has no versions")).next(
                            "files of the pond have, and the tables files, entries, versions and oplog",
                        )),
                        None => Ok(()),
                    };
                };
                let at = match (clause, at_path) {
                    (Some(_), Some(_)) => {
                        return Err(QueryError::new(format!("{written} names two versions")));
                    }
                    (clause, at) => clause.or(at),
                };
                if at.is_some() {
                    refuse_at(&source)?;
                }
                *name = self.put(&text, source, at);
                (*args, *version) = (None, None);
                if alias.is_none() {
                    *alias = name_for_columns.map(|name| TableAlias {
                        explicit: true,
                        name: Ident::with_quote('"', name),
                        columns: Vec::new(),
                        at: None,
                    });
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn not_possible(written: &str) -> QueryError {
    QueryError::new(format!("{written}: what stands beside the table is not understood"))
}

/// Versions of what has none of its own.
fn refuse_at(source: &Source) -> Result<()> {
    let why = match source {
        Source::Table(name) if name == "control" => "control holds settings, which have no versions",
        Source::Changes(..) => "changes(A, B) names its versions itself",
        Source::History(_) => "history(PATH) tells of all versions",
        Source::Files(wanted) if wanted.paths.iter().any(|path| path.starts_with(HOST)) => {
            "files of the host have no versions"
        }
        _ => return Ok(()),
    };
    Err(QueryError::new(why))
}

/// What stands before paths outside the pond.
pub(crate) const HOST: &str = "host:";

/// A table's name as it was typed.
fn shown(name: &ObjectName) -> String {
    name.to_string()
}

/// A table's name as it is looked for.
fn called(name: &ObjectName) -> String {
    match &name.0[..] {
        [ObjectNamePart::Identifier(ident)] if ident.quote_style.is_none() => {
            ident.value.to_ascii_lowercase()
        }
        [ObjectNamePart::Identifier(ident)] => ident.value.clone(),
        _ => name.to_string().to_ascii_lowercase(),
    }
}

/// The path that stands in a table's place.
fn path_of(name: &ObjectName) -> Option<String> {
    let [ObjectNamePart::Identifier(ident)] = &name.0[..] else { return None };
    let text = &ident.value;
    let is_path = ident.quote_style == Some('\'')
        || ident.quote_style.is_some() && (text.contains('/') || text.starts_with(HOST));
    is_path.then(|| text.clone())
}

/// What `PATH` or `PATH@V` means where a table is named.
fn by_path(text: &str) -> Result<(Source, Option<At>)> {
    let (path, at) = split_version(text)?;
    let source =
        Source::Files(Wanted { paths: vec![path.to_owned()], format: None, shape: Shape::default() });
    if at.is_some() {
        refuse_at(&source)?;
    }
    Ok((source, at))
}

/// Takes `@V` or `@tip` off the end, as commands do. What is written in no form of a version is part of the name.
fn split_version(text: &str) -> Result<(&str, Option<At>)> {
    match text.rsplit_once('@') {
        Some((path, "tip")) => Ok((path, None)),
        Some((path, version)) if !text.starts_with(HOST) => match At::parse(version) {
            Ok(at) => Ok((path, Some(at))),
            Err(error @ AtError::NotOneTime { .. }) => Err(QueryError::new(error.to_string())),
            Err(AtError::NoForm(_) | AtError::BadTag(_)) => Ok((text, None)),
        },
        _ => Ok((text, None)),
    }
}

/// What columns of a file may be called after, where nothing else is said.
fn stem(path: &str) -> Option<String> {
    let name = path.rsplit('/').next()?.split('.').next()?;
    let is_word = |text: &str| {
        text.chars().all(|sign| sign.is_alphanumeric() || sign == '_')
            && text.starts_with(|sign: char| !sign.is_numeric())
    };
    (!name.is_empty() && is_word(name)).then(|| name.to_owned())
}

/// Functions that read files.
pub(crate) const READERS: [&str; 8] = [
    "parquet_scan",
    "read_arrow",
    "read_csv",
    "read_csv_auto",
    "read_json",
    "read_json_auto",
    "read_ndjson",
    "read_parquet",
];

/// What a function means, and at which version; none if it is not one of ours.
fn of_function(name: &str, arguments: &mut Arguments<'_>) -> Result<Option<(Source, Option<At>)>> {
    let format = match name {
        "read_parquet" | "parquet_scan" => Format::Parquet,
        "read_csv" | "read_csv_auto" => Format::Csv,
        "read_json" | "read_json_auto" | "read_ndjson" => Format::Json,
        "read_arrow" => Format::Arrow,
        "changes" => {
            let [from, to] = arguments.plain[..] else {
                return Err(arguments.wrong("it takes two versions, as changes(41, 42)"));
            };
            let [from, to] = [when::of_expression(from)?, when::of_expression(to)?];
            return no_names(arguments).map(|()| Some((Source::Changes(from, to), None)));
        }
        "history" => {
            let wrong = || arguments.wrong("it takes one path, as history('/notes/today')");
            let [path] = arguments.plain[..] else { return Err(wrong()) };
            let [path] = &arguments.texts(path)?[..] else { return Err(wrong()) };
            let source = Source::History(path.clone());
            no_names(arguments)?;
            return Ok(Some((source, None)));
        }
        _ => return Ok(None),
    };
    let [paths] = arguments.plain[..] else {
        return Err(arguments
            .wrong("it takes one path or pattern, or several in brackets, as ['/a/*.csv', '/b.csv']"));
    };
    let paths = arguments.texts(paths)?;
    if paths.is_empty() {
        return Err(arguments.wrong("the list of paths is empty"));
    }
    let outside = paths.iter().filter(|path| path.starts_with(HOST)).count();
    if outside != 0 && outside != paths.len() {
        return Err(arguments.wrong("its paths are in the pond or outside it, not both"));
    }
    let at = at_of(arguments)?;
    let shape = arguments.shape(format == Format::Csv, format == Format::Json)?;
    Ok(Some((Source::Files(Wanted { paths, format: Some(format), shape }), at)))
}

/// The version that the arguments say, which are then taken out.
fn at_of(arguments: &mut Arguments<'_>) -> Result<Option<At>> {
    let (said, others): (Vec<_>, Vec<_>) = std::mem::take(&mut arguments.named)
        .into_iter()
        .partition(|(name, _)| name == "version" || name == "timestamp");
    arguments.named = others;
    match &said[..] {
        [] => Ok(None),
        [(name, value)] if name == "version" => when::version(value).map(Some),
        [(_, value)] => when::time(value).map(Some),
        _ => Err(arguments.wrong("it names two versions")),
    }
}

fn no_names(arguments: &Arguments<'_>) -> Result<()> {
    match arguments.named.first() {
        Some((name, _)) => Err(arguments.wrong(&format!("it has no option {name}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
