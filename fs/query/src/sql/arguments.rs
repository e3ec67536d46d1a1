//! What table functions are given: literals, with or without names.

use datafusion::sql::sqlparser::ast::{Array, Expr, FunctionArg, FunctionArgExpr, TableFunctionArgs, Value};

use crate::content::files::Shape;
use crate::error::{QueryError, Result};

/// The arguments of one call.
pub(crate) struct Arguments<'a> {
    function: &'a str,
    pub(crate) plain: Vec<&'a Expr>,
    pub(crate) named: Vec<(String, &'a Expr)>,
}

impl<'a> Arguments<'a> {
    pub(crate) fn of(function: &'a str, given: &'a TableFunctionArgs) -> Result<Self> {
        let mut arguments = Arguments { function, plain: Vec::new(), named: Vec::new() };
        if given.settings.is_some() {
            return Err(arguments.wrong("it has no SETTINGS"));
        }
        for argument in &given.args {
            match argument {
                FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. } => {
                    arguments.named.push((name.value.to_ascii_lowercase(), value));
                }
                FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) if arguments.named.is_empty() => {
                    // DuckDB writes names with =.
                    match value {
                        Expr::BinaryOp {
                            left,
                            op: datafusion::sql::sqlparser::ast::BinaryOperator::Eq,
                            right,
                        } => match &**left {
                            Expr::Identifier(name) => {
                                arguments.named.push((name.value.to_ascii_lowercase(), right));
                            }
                            _ => return Err(arguments.wrong(&format!("{value} is no argument"))),
                        },
                        value => arguments.plain.push(value),
                    }
                }
                FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::BinaryOp { left, op, right }))
                    if *op == datafusion::sql::sqlparser::ast::BinaryOperator::Eq
                        && matches!(**left, Expr::Identifier(_)) =>
                {
                    arguments.named.push((left.to_string().to_ascii_lowercase(), right));
                }
                other => return Err(arguments.wrong(&format!("{other} is no argument of it"))),
            }
        }
        Ok(arguments)
    }

    pub(crate) fn wrong(&self, why: &str) -> QueryError {
        QueryError::new(format!("{}: {why}", self.function))
    }

    /// One text, or several in brackets.
    pub(crate) fn texts(&self, expression: &Expr) -> Result<Vec<String>> {
        match expression {
            Expr::Array(Array { elem, .. }) => elem.iter().map(|expression| self.text(expression)).collect(),
            one => Ok(vec![self.text(one)?]),
        }
    }

    fn text(&self, expression: &Expr) -> Result<String> {
        let text = match expression {
            Expr::Value(value) => match &value.value {
                Value::SingleQuotedString(text) => Some(text.clone()),
                _ => None,
            },
            _ => None,
        };
        text.ok_or_else(|| self.wrong(&format!("{expression} is no text in quotes")))
    }

    fn truth(&self, name: &str, expression: &Expr) -> Result<bool> {
        match expression {
            Expr::Value(value) => match &value.value {
                Value::Boolean(truth) => Ok(*truth),
                _ => Err(self.wrong(&format!("{name} is true or false, not {expression}"))),
            },
            _ => Err(self.wrong(&format!("{name} is true or false, not {expression}"))),
        }
    }

    fn sign(&self, name: &str, expression: &Expr) -> Result<u8> {
        let text = self.text(expression)?;
        match text.as_bytes() {
            [sign] if sign.is_ascii() => Ok(*sign),
            b"\\t" => Ok(b'\t'),
            _ => Err(self.wrong(&format!("{name} is one sign, not '{text}'"))),
        }
    }

    /// How a table is made of files; `csv` and `json` say which options there are beside those of all formats.
    pub(crate) fn shape(&self, csv: bool, json: bool) -> Result<Shape> {
        let mut shape = Shape::default();
        for (name, value) in &self.named {
            let reading = &mut shape.reading;
            match name.as_str() {
                "hive_partitioning" => shape.hive_partitioning = Some(self.truth(name, value)?),
                "union_by_name" => shape.union_by_name = self.truth(name, value)?,
                "filename" => shape.filename = self.truth(name, value)?,
                "compression" if csv || json => reading.compression = Some(self.text(value)?),
                "header" if csv => reading.header = Some(self.truth(name, value)?),
                "delim" | "delimiter" | "sep" if csv => reading.delimiter = Some(self.sign(name, value)?),
                "quote" if csv => reading.quote = Some(self.sign(name, value)?),
                "escape" if csv => reading.escape = Some(self.sign(name, value)?),
                "comment" if csv => reading.comment = Some(self.sign(name, value)?),
                "nullstr" | "null" if csv => reading.null = Some(self.text(value)?),
                "newlines_in_values" if csv => reading.newlines_in_values = Some(self.truth(name, value)?),
                "format" if json => {
                    reading.array = match self.text(value)?.as_str() {
                        "array" => Some(true),
                        "newline_delimited" | "nd" | "lines" => Some(false),
                        "auto" => None,
                        other => {
                            return Err(self.wrong(&format!(
                                "format is array, newline_delimited or auto, not '{other}'"
                            )));
                        }
                    };
                }
                _ => {
                    let own = match (csv, json) {
                        (true, _) => {
                            ", compression, header, delim, quote, escape, comment, nullstr, newlines_in_values"
                        }
                        (_, true) => ", compression, format",
                        _ => "",
                    };
                    return Err(self
                        .wrong(&format!("it has no option {name}"))
                        .next(format!("it has hive_partitioning, union_by_name, filename{own}")));
                }
            }
        }
        Ok(shape)
    }
}
