//! Answers, of pond and of DuckDB, in one form.

use std::path::Path;
use std::process::Command;

use pond_tests::{TestPond, run};
use serde_json::{Map, Value};

/// DuckDB's answers to statements, which may make files.
#[track_caller]
pub fn duck(scratch: &Path, statements: &[&str]) -> Vec<Vec<Map<String, Value>>> {
    let file = scratch.join("statements.sql");
    std::fs::write(&file, statements.join(";\n")).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts/duck.py");
    let text = run(Command::new("python3").arg(script).arg(&file).current_dir(scratch)).success();
    let answers = text.split("#\n").skip(1);
    answers.map(|lines| lines.lines().map(|line| serde_json::from_str(line).expect(line)).collect()).collect()
}

/// Makes files with DuckDB.
#[track_caller]
pub fn make(scratch: &Path, statements: &[&str]) {
    duck(scratch, statements);
}

/// The pond's answer to one statement.
#[track_caller]
pub fn ask(pond: &TestPond, statement: &str) -> Vec<Map<String, Value>> {
    let rows = pond.json(["sql", statement]);
    rows.into_iter().map(|row| row.as_object().expect("an object").clone()).collect()
}

/// Why a statement is not answered.
#[track_caller]
pub fn refused(pond: &TestPond, statement: &str) -> String {
    pond.try_pond(["sql", statement]).failure(1)
}

/// The one value that a statement gives.
#[track_caller]
pub fn value(pond: &TestPond, statement: &str) -> Value {
    let rows = ask(pond, statement);
    assert!(rows.len() == 1 && rows[0].len() == 1, "{statement}: {rows:?}");
    rows[0].values().next().unwrap().clone()
}

/// A value as both write it.
fn plain(value: &Value) -> Plain {
    match value {
        Value::Number(number) => Plain::Number(number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => match text.parse::<f64>() {
            Ok(number) => Plain::Number(number),
            Err(_) => {
                let text = text.replace('T', " ");
                Plain::Text(text.trim_end_matches('Z').trim_end_matches("+00:00").to_owned())
            }
        },
        Value::Array(values) => Plain::Several(values.iter().map(plain).collect()),
        Value::Object(map) => Plain::Several(map.values().map(plain).collect()),
        other => Plain::Text(other.to_string()),
    }
}

#[derive(Debug)]
enum Plain {
    Number(f64),
    Text(String),
    Several(Vec<Plain>),
}

impl Plain {
    /// Sums of floating-point numbers depend on their order, and averages of decimals have other numbers of digits.
    fn is_same(&self, other: &Plain) -> bool {
        match (self, other) {
            (Plain::Number(one), Plain::Number(other)) => {
                (one - other).abs() <= 1e-9 + 2e-5 * one.abs().max(other.abs())
            }
            (Plain::Text(one), Plain::Text(other)) => one == other,
            (Plain::Several(some), Plain::Several(others)) => {
                some.len() == others.len() && some.iter().zip(others).all(|(one, other)| one.is_same(other))
            }
            _ => false,
        }
    }
}

/// Panics unless both give the same rows, in whatever order.
#[track_caller]
pub fn assert_same(what: &str, ours: &[Map<String, Value>], theirs: &[Map<String, Value>]) {
    assert!(!theirs.is_empty(), "{what}: there is nothing to compare");
    assert_eq!(ours.len(), theirs.len(), "{what}: rows");
    let plain = |row: &Map<String, Value>| plain(&Value::Object(row.clone()));
    let mut left: Vec<Plain> = ours.iter().map(plain).collect();
    for row in theirs {
        assert!(ours[0].keys().eq(row.keys()), "{what}: columns {:?} and {:?}", ours[0], row);
        let wanted = plain(row);
        let place = left.iter().position(|row| row.is_same(&wanted));
        let place = place
            .unwrap_or_else(|| panic!("{what}: {wanted:?} is not among {:?}", &left[..left.len().min(5)]));
        left.remove(place);
    }
}
