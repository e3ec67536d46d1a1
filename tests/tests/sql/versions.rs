//! Versions of tables: in one statement several, on a source while it is written to, and on a replica.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use pond_tests::TestPond;

use crate::answers::{ask, refused, value};

/// A table of so many rows, which sums to what is known.
fn put(pond: &TestPond, rows: u64) {
    let text: String = (0..rows).map(|row| format!("{row},{}\n", row % 3)).collect();
    fs::write(pond.path("t.new"), format!("id,k\n{text}")).unwrap();
    fs::rename(pond.path("t.new"), pond.path("t.csv")).unwrap();
}

#[test]
fn one_statement_sees_several_versions_while_others_come() {
    let pond = TestPond::mounted();
    let mut versions = Vec::new();
    for rows in 1..=8 {
        put(&pond, rows);
        pond.sync();
        versions.push((pond.version(), rows));
    }
    let asked = |pond: &TestPond| {
        for &(version, rows) in &versions {
            let at = format!("SELECT count(*) FROM '/t.csv' VERSION AS OF {version}");
            assert_eq!(value(pond, &at), rows, "{version}");
        }
        let (old, new) = (versions[1].0, versions[6].0);
        let difference = format!(
            "SELECT new.id FROM '/t.csv' VERSION AS OF {new} AS new LEFT ANTI JOIN '/t.csv' AT (VERSION => {old}) AS old \
             ON new.id = old.id ORDER BY new.id"
        );
        let ids: Vec<u64> = ask(pond, &difference).iter().map(|row| row["id"].as_u64().unwrap()).collect();
        assert_eq!(ids, [2, 3, 4, 5, 6]);
        let trees = format!(
            "SELECT a.size AS a, b.size AS b FROM files VERSION AS OF {old} a JOIN files VERSION AS OF {new} b ON a.path = b.path \
             WHERE a.path = '/t.csv'"
        );
        let sizes = &ask(pond, &trees)[0];
        assert_eq!((&sizes["a"], &sizes["b"]), (&13.into(), &33.into()));
        let finished = pond.pond([
            "sql",
            "--version",
            &old.to_string(),
            "SELECT count(*) FROM '/t.csv'",
            "--format",
            "csv",
        ]);
        assert_eq!(finished, "count(*)\n2\n");
    };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Content that nobody asks for, so that versions come all the time.
            let mut random = pond_tests::Random::new(5);
            while !done.load(Ordering::Relaxed) {
                fs::write(pond.path("noise"), random.bytes(50_000)).unwrap();
                pond.sync();
            }
        });
        // Ends the writer also where this fails.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| asked(&pond)));
        done.store(true, Ordering::Relaxed);
        result.unwrap();
    });
    assert!(pond.version() > versions[7].0, "it went on");
    pond.umount();
    asked(&pond);
}

#[test]
fn a_version_by_its_time_or_its_name_is_that_version_and_one_that_is_not_there_is_an_error() {
    let pond = TestPond::mounted();
    put(&pond, 3);
    pond.sync();
    let first = pond.version();
    put(&pond, 5);
    pond.sync();
    pond.pond(["tag", "three", &first.to_string()]);
    let time = value(&pond, &format!("SELECT timestamp FROM versions WHERE version = {first}"));
    let time = time.as_str().unwrap();
    for at in [
        "VERSION AS OF 'tag:three'".to_owned(),
        "AT (VERSION => 'tag:three')".to_owned(),
        format!("TIMESTAMP AS OF '{time}'"),
        format!("TIMESTAMP AS OF TIMESTAMP '{time}'"),
        format!("AT (TIMESTAMP => '{time}')"),
        format!("FOR SYSTEM_TIME AS OF '{time}'"),
    ] {
        assert_eq!(value(&pond, &format!("SELECT count(*) FROM '/t.csv' {at}")), 3, "{at}");
    }
    assert_eq!(value(&pond, "SELECT count(*) FROM '/t.csv@tag:three'"), 3);
    assert_eq!(value(&pond, "SELECT count(*) FROM '/t.csv' TIMESTAMP AS OF '-0s'"), 5);
    for (at, said) in [
        ("VERSION AS OF 100000".to_owned(), "no version 100000"),
        ("VERSION AS OF 0".to_owned(), "no such file"),
        ("VERSION AS OF 'tag:none'".to_owned(), "no version has the tag none"),
        ("TIMESTAMP AS OF '2999-01-01'".to_owned(), "in the future"),
        ("TIMESTAMP AS OF '1999-01-01'".to_owned(), "younger"),
        ("VERSION AS OF 1 + 1".to_owned(), "not understood"),
        ("FOR VERSION AS OF 1".to_owned(), "not understood"),
        ("BEFORE (VERSION => 3)".to_owned(), "says no version"),
    ] {
        let message = refused(&pond, &format!("SELECT count(*) FROM '/t.csv' {at}"));
        assert!(message.contains(said), "{at}: {message}");
    }
    assert!(refused(&pond, "SELECT * FROM changes(1, 100000)").contains("no version 100000"));
}

#[test]
fn versions_that_are_let_go_of_are_refused_by_name() {
    let pond = TestPond::mounted();
    for rows in 1..=6 {
        put(&pond, rows);
        pond.sync();
    }
    let last = pond.version();
    for setting in [["keep_replaced", "0s"], ["retention", "2 versions"]] {
        pond.pond([&["control", "set"], &setting[..]].concat());
    }
    pond.pond(["maintain"]);
    let message = refused(&pond, "SELECT count(*) FROM '/t.csv' VERSION AS OF 1");
    assert!(message.contains("no longer kept"), "{message}");
    assert_eq!(value(&pond, &format!("SELECT count(*) FROM '/t.csv' VERSION AS OF {last}")), 6);
}
