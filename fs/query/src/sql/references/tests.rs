use super::*;
use crate::sql::statement::{Statement, parse};

/// What a statement names, and what is left of it.
fn of(text: &str) -> Result<(Vec<Reference>, String)> {
    let Some(Statement::Rows(mut parsed)) = parse(text)?.pop() else { panic!("{text}") };
    let taken = take(&mut parsed)?;
    Ok((taken, parsed.to_string()))
}

fn version(number: u64) -> Option<At> {
    Some(At::Version(pond_oplog::Version(number)))
}

#[test]
fn each_way_of_writing_a_version_means_that_version_or_is_refused() {
    for text in [
        "SELECT * FROM files VERSION AS OF 3",
        "SELECT * FROM files version as of 3 AS f",
        "SELECT * FROM files VERSION AS OF '3'",
        "SELECT * FROM files AT (VERSION => 3)",
        "SELECT * FROM files at(version => '3') f WHERE version = 2",
        "SELECT * FROM \"files\" AT (VERSION := 3)",
        "SELECT * FROM '/a.csv' VERSION AS OF 3",
        "SELECT * FROM '/a.csv@3'",
        "SELECT * FROM read_csv('/a.csv') VERSION AS OF 3",
        "SELECT * FROM read_csv('/a.csv', header => false) AT (VERSION => 3) AS a",
        "SELECT * FROM read_csv(['/a.csv', '/b.csv']) VERSION AS OF '3'",
        "SELECT * FROM read_csv('/a.csv', version => 3)",
        "SELECT (SELECT count(*) FROM files VERSION AS OF 3)",
        "SELECT 1 WHERE EXISTS (SELECT * FROM files VERSION AS OF 3)",
        "WITH a AS (SELECT * FROM files VERSION AS OF 3) SELECT * FROM a",
        "SELECT 1 UNION ALL SELECT count(*) FROM files VERSION AS OF 3",
        "SELECT * FROM (files VERSION AS OF 3 JOIN versions ON true)",
        "EXPLAIN SELECT * FROM files VERSION AS OF 3",
        "FROM files VERSION AS OF 3",
    ] {
        let (taken, left) = of(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(taken.iter().map(|taken| taken.at).collect::<Vec<_>>(), [version(3)], "{text}");
        assert!(!left.to_uppercase().contains(" AS OF ") && !left.contains("=>"), "{left}");
    }
    for text in [
        "SELECT * FROM files TIMESTAMP AS OF '2026-11-20T18:30:00Z'",
        "SELECT * FROM files TIMESTAMP AS OF TIMESTAMP '2026-11-20 18:30:00Z'",
        "SELECT * FROM files FOR SYSTEM_TIME AS OF '2026-11-20T18:30:00Z'",
        "SELECT * FROM files AT (TIMESTAMP => '2026-11-20T18:30:00Z')",
    ] {
        let (taken, _) = of(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(taken[0].at, Some(At::Timestamp(1_795_199_400_000_000)), "{text}");
    }
}

#[test]
fn what_says_no_version_is_refused_and_never_passed_over() {
    for text in [
        "SELECT * FROM files VERSION AS OF -3",
        "SELECT * FROM files VERSION AS OF 3.5",
        "SELECT * FROM files VERSION AS OF 1 + 2",
        "SELECT * FROM files VERSION AS OF (3)",
        "SELECT * FROM files VERSION AS OF NULL",
        "SELECT * FROM files VERSION AS OF $1",
        "SELECT * FROM files VERSION AS OF '-10m'",
        "SELECT * FROM files VERSION AS OF 'yesterday'",
        "SELECT * FROM files VERSION AS OF 99999999999999999999999",
        "SELECT * FROM files VERSION OF 3",
        "SELECT * FROM files VERSION 3",
        "SELECT * FROM files VERSION = 3",
        "SELECT * FROM files AS f VERSION AS OF 3",
        "SELECT * FROM files f AT (VERSION => 3)",
        "SELECT * FROM files AS OF 3",
        "SELECT * FROM files AS OF VERSION 3",
        "SELECT * FROM files AS OF TIMESTAMP '2026-11-20'",
        "SELECT * FROM files FOR VERSION AS OF 3",
        "SELECT * FROM files FOR TIMESTAMP AS OF '2026-11-20'",
        "SELECT * FROM files FOR SYSTEM_VERSION AS OF 3",
        "SELECT * FROM files FOR SYSTEM_TIME BETWEEN '2026-01-01' AND '2026-11-20'",
        "SELECT * FROM files FOR SYSTEM_TIME FROM '2026-01-01' TO '2026-11-20'",
        "SELECT * FROM files FOR SYSTEM_TIME ALL",
        "SELECT * FROM files TIMESTAMP AS OF 3",
        "SELECT * FROM files TIMESTAMP AS OF now()",
        "SELECT * FROM files TIMESTAMP AS OF now() - interval '1 hour'",
        "SELECT * FROM files TIMESTAMP AS OF 'tag:v1'",
        "SELECT * FROM files TIMESTAMP AS OF '3'",
        "SELECT * FROM files AT (VERSION = 3)",
        "SELECT * FROM files AT (3)",
        "SELECT * FROM files AT ()",
        "SELECT * FROM files AT VERSION 3",
        "SELECT * FROM files AT (VERSION => 3, TIMESTAMP => '2026-11-20')",
        "SELECT * FROM files AT (VERSION => 1 + 2)",
        "SELECT * FROM files AT (VERSION => NULL)",
        "SELECT * FROM files AT (STATEMENT => 'x')",
        "SELECT * FROM files AT (OFFSET => -60)",
        "SELECT * FROM files AT (TIMESTAMP => 3)",
        "SELECT * FROM files AT (VERSION => 3) OVER ()",
        "SELECT * FROM files BEFORE (VERSION => 3)",
        "SELECT * FROM files CHANGES (INFORMATION => DEFAULT) AT (VERSION => 3)",
        "SELECT * FROM files VERSION AS OF 3 AT (VERSION => 4)",
        "SELECT * FROM '/a.csv@3' VERSION AS OF 4",
        "SELECT * FROM (SELECT * FROM files) VERSION AS OF 3",
        "SELECT * FROM (SELECT * FROM files) AS f AT (VERSION => 3)",
        "WITH files AS (SELECT 1) SELECT * FROM files VERSION AS OF 3",
        "SELECT * FROM a VERSION AS OF 3",
        "SELECT * FROM information_schema.tables VERSION AS OF 3",
        "SELECT * FROM control VERSION AS OF 3",
        "SELECT * FROM changes(1, 2) VERSION AS OF 3",
        "SELECT * FROM history('/a') VERSION AS OF 3",
        "SELECT * FROM 'host:/a.csv' VERSION AS OF 3",
        "SELECT * FROM read_csv('host:/a.csv') VERSION AS OF 3",
        "SELECT * FROM read_csv('/a.csv') AT (VERSION = 3)",
        "SELECT * FROM read_csv('/a.csv') AT (VERSION => 3, TIMESTAMP => '2026-11-20')",
        "SELECT * FROM read_csv('/a.csv') VERSION AS OF 3 VERSION AS OF 4",
        "SELECT * FROM read_csv('/a.csv', version => 3) VERSION AS OF 4",
        "SELECT * FROM read_csv('/a.csv') VERSION AS OF 1 + 2",
        "SELECT * FROM read_csv('/a.csv') AT (VERSION => 1 + 2)",
        "SELECT * FROM read_csv('/a.csv') FOR SYSTEM_TIME AS OF '2026-11-20'",
        "SELECT * FROM generate_series(1, 2) VERSION AS OF 3",
        "SELECT * FROM generate_series(1, 2) AT (VERSION => 3)",
        "SELECT * FROM unnest([1]) VERSION AS OF 3",
        "TABLE files VERSION AS OF 3",
        "DESCRIBE files VERSION AS OF 3",
        "SELECT * FROM files TABLESAMPLE (10)",
        "SELECT * FROM files WITH (NOLOCK)",
        "SELECT * FROM files AS f AT x",
    ] {
        assert!(of(text).is_err(), "{text} is understood as {:?}", of(text));
    }
}

#[test]
fn words_of_such_clauses_are_names_elsewhere() {
    for text in [
        "SELECT version, timestamp AS at FROM versions",
        "SELECT version AS of FROM versions",
        "SELECT * FROM files AS version",
        "WITH files AS (SELECT 1) SELECT * FROM files",
    ] {
        assert_eq!(of(text).unwrap().0, [], "{text}");
    }
}

#[test]
fn the_same_reference_is_read_once_and_two_versions_are_two() {
    let (taken, left) =
        of("SELECT * FROM '/d/a.csv' a JOIN '/d/a.csv' b ON a.x = b.x, '/d/a.csv' VERSION AS OF 3").unwrap();
    let names: Vec<&str> = taken.iter().map(|taken| taken.name.as_str()).collect();
    assert_eq!(names, ["/d/a.csv", "/d/a.csv@3"]);
    assert!(left.contains("\"/d/a.csv@3\" AS \"a\""), "{left}");
}

#[test]
fn functions_take_paths_and_options_and_say_what_they_do_not_take() {
    let (taken, _) =
        of("SELECT * FROM read_csv(['/a.csv', '/b/*'], delim => ';', header=false, union_by_name := true)")
            .unwrap();
    let Source::Files(wanted) = &taken[0].source else { panic!("{taken:?}") };
    assert_eq!(
        (&wanted.paths[..], wanted.format),
        (&["/a.csv".to_owned(), "/b/*".to_owned()][..], Some(Format::Csv))
    );
    assert!(wanted.shape.union_by_name && wanted.shape.reading.header == Some(false));
    assert_eq!(wanted.shape.reading.delimiter, Some(b';'));
    for text in [
        "read_csv()",
        "read_csv([])",
        "read_csv(1)",
        "read_csv('/a', '/b')",
        "read_csv('/a', nothing => 1)",
        "read_csv('/a', header => 1)",
        "read_csv('/a', delim => 'ab')",
        "read_parquet('/a', header => true)",
        "read_csv(['/a', 'host:/b'])",
        "changes(1)",
        "changes('x', 2)",
        "history()",
        "history(1)",
    ] {
        assert!(of(&format!("SELECT * FROM {text}")).is_err(), "{text}");
    }
}
