//! The 22 queries of TPC-H over files in a pond, against DuckDB over the same files outside.

use std::process::Command;
use std::time::{Duration, Instant};

use pond_tests::scale::scaled;
use pond_tests::tools::tool;
use pond_tests::{TestPond, succeed};

use crate::answers::{ask, assert_same, duck};

const TABLES: [&str; 8] =
    ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"];

/// A hundredth of the smallest that is measured officially; `POND_TPCH_SCALE=1` for that.
const SCALE: &str = "0.01";

#[test]
fn the_queries_of_tpch_give_the_answers_that_duckdb_gives() {
    let pond = TestPond::with_patience(Duration::from_secs(3600));
    pond.pond(["init"]);
    let data = pond.host_directory("tpch");
    let scale: String = scaled("POND_TPCH_SCALE", SCALE.to_owned());
    let mut make = Command::new(tool("tpchgen-cli"));
    succeed(make.args(["parquet", "-s", &scale, "-o"]).arg(&data));
    pond.pond(["copy", &format!("host:{}", data.display()), "/"]);
    let (_, text) = include_str!("tpch.sql").split_once('\n').unwrap();
    let queries: Vec<&str> = text.split(";\n").map(str::trim).filter(|query| !query.is_empty()).collect();
    assert_eq!(queries.len(), 22);
    let at = |query: &str, directory: &str| {
        TABLES.iter().fold(query.to_owned(), |query, table| {
            query.replace(&format!("{{{table}}}"), &format!("'{directory}/{table}.parquet'"))
        })
    };
    let outside: Vec<String> = queries.iter().map(|query| at(query, data.to_str().unwrap())).collect();
    let theirs = duck(&data, &outside.iter().map(String::as_str).collect::<Vec<_>>());
    let began = Instant::now();
    for (number, (query, theirs)) in queries.iter().zip(&theirs).enumerate() {
        let ours = ask(&pond, &at(query, "/tpch"));
        match theirs.is_empty() {
            true => assert!(ours.is_empty(), "query {}: {ours:?}", number + 1),
            false => assert_same(&format!("query {}", number + 1), &ours, theirs),
        }
    }
    println!(
        "22 queries at scale {scale} in {:.1} s, each in a process of its own",
        began.elapsed().as_secs_f64()
    );
}
