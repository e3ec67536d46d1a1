//! Which version a table's clause means.

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgOperator, FunctionArguments, TableVersion,
    UnaryOperator, Value,
};
use pond_oplog::At;

use crate::error::{QueryError, Result};

/// The ways of writing a version that are understood.
pub(crate) const FORMS: &str = "write VERSION AS OF 42, TIMESTAMP AS OF '2026-11-20 18:30', AT (VERSION => 42) or \
                     AT (TIMESTAMP => '-10m') right behind the table; 'tag:NAME' stands for a version too";

/// Which version a clause means.
///
/// # Errors
///
/// Every way of writing it that is not understood: never is a clause passed over.
pub(crate) fn of_clause(clause: &TableVersion) -> Result<At> {
    match clause {
        TableVersion::VersionAsOf(expression) => version(expression),
        TableVersion::TimestampAsOf(expression) | TableVersion::ForSystemTimeAsOf(expression) => {
            time(expression)
        }
        TableVersion::Function(Expr::Function(function)) => of_function(function),
        other => Err(not_understood(&other.to_string())),
    }
}

/// The error for what means no version.
pub(crate) fn not_understood(text: &str) -> QueryError {
    QueryError::new(format!("{text} says no version")).next(FORMS)
}

fn of_function(function: &Function) -> Result<At> {
    let refuse = || not_understood(&function.to_string());
    let is_plain = function.over.is_none()
        && function.filter.is_none()
        && function.null_treatment.is_none()
        && function.within_group.is_empty()
        && matches!(function.parameters, FunctionArguments::None);
    let FunctionArguments::List(list) = &function.args else { return Err(refuse()) };
    let name = function.name.to_string();
    if !is_plain
        || !name.eq_ignore_ascii_case("at")
        || !list.clauses.is_empty()
        || list.duplicate_treatment.is_some()
    {
        return Err(refuse());
    }
    let [argument] = &list.args[..] else { return Err(refuse()) };
    let (name, value) = match argument {
        FunctionArg::Named {
            name,
            arg: FunctionArgExpr::Expr(value),
            operator: FunctionArgOperator::RightArrow | FunctionArgOperator::Assignment,
        } if name.quote_style.is_none() => (name.value.to_ascii_lowercase(), value),
        _ => return Err(refuse()),
    };
    match name.as_str() {
        "version" => version(value),
        "timestamp" => time(value),
        _ => Err(refuse()),
    }
}

/// A version by its number, its name, or the word for the oldest.
pub(crate) fn version(expression: &Expr) -> Result<At> {
    let refuse = || not_understood(&format!("VERSION {expression}"));
    match parse(&text(expression).ok_or_else(refuse)?)? {
        at @ (At::Version(_) | At::Tag(_) | At::Start) => Ok(at),
        At::Tip | At::Timestamp(_) => Err(refuse()),
    }
}

/// A version by a time.
pub(crate) fn time(expression: &Expr) -> Result<At> {
    let refuse = || not_understood(&format!("TIMESTAMP {expression}"));
    match parse(&text(expression).filter(|_| !is_number(expression)).ok_or_else(refuse)?)? {
        at @ At::Timestamp(_) => Ok(at),
        _ => Err(refuse()),
    }
}

/// A version or a time, in any of the forms that commands take.
pub(crate) fn of_expression(expression: &Expr) -> Result<At> {
    let text = text(expression).ok_or_else(|| not_understood(&expression.to_string()))?;
    parse(&text)
}

fn parse(text: &str) -> Result<At> {
    At::parse(text).map_err(|error| QueryError::new(error.to_string()))
}

fn is_number(expression: &Expr) -> bool {
    matches!(expression, Expr::Value(value) if matches!(value.value, Value::Number(..)))
}

/// What stands there literally.
fn text(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Value(value) => match &value.value {
            Value::Number(digits, false) => Some(digits.to_string()),
            Value::SingleQuotedString(text) => Some(text.clone()),
            _ => None,
        },
        // TIMESTAMP '2026-11-20 18:30'
        Expr::TypedString(typed) => match &typed.value.value {
            Value::SingleQuotedString(text) => Some(text.clone()),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, .. } => None,
        _ => None,
    }
}
