//! Databases keep what they committed: SQLite in both journal modes and PostgreSQL run in the mount, and are intact
//! by their own checks after a remount.
//!
//! `POND_PGBENCH_SCALE` (default 1) and `POND_PGBENCH_SECONDS` (default 4).

use std::path::Path;
use std::process::Command;

use pond_tests::postgres::Postgres;
use pond_tests::scale::scaled;
use pond_tests::{TestPond, succeed, tools::tool};

fn sqlite(database: &Path, statements: &str) -> String {
    let mut sqlite = Command::new(tool("sqlite3"));
    sqlite.args(["-bail", "-cmd", ".timeout 60000"]).arg(database).arg(statements);
    succeed(&mut sqlite).trim().to_owned()
}

/// Statements that some processes at once give to SQLite, each a transaction.
fn sqlite_at_once(database: &Path, writers: u64, transactions: u64) {
    std::thread::scope(|scope| {
        for writer in 0..writers {
            scope.spawn(move || {
                let insert = "INSERT INTO t(writer, x, blob) VALUES";
                let one = |x| format!("BEGIN IMMEDIATE; {insert} ({writer}, {x}, randomblob(3000)); COMMIT;");
                let statements: String = (0..transactions).map(one).collect();
                sqlite(database, &statements);
            });
        }
    });
}

fn sqlite_survives(journal_mode: &str) {
    const WRITERS: u64 = 3;
    const TRANSACTIONS: u64 = 40;
    let pond = TestPond::mounted();
    let database = pond.path("test.db");
    let mode = sqlite(&database, &format!("PRAGMA journal_mode={journal_mode};"));
    assert_eq!(mode, journal_mode.to_lowercase());
    sqlite(
        &database,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, writer, x, blob); CREATE INDEX i ON t(x, blob);",
    );
    let figures = || {
        assert_eq!(sqlite(&database, "PRAGMA integrity_check;"), "ok");
        sqlite(&database, "SELECT count(*), sum(x), sum(length(blob)), hex(max(blob)) FROM t;")
    };
    for round in 1..=3 {
        sqlite_at_once(&database, WRITERS, TRANSACTIONS);
        let before = figures();
        assert!(before.starts_with(&format!("{}|", round * WRITERS * TRANSACTIONS)), "{before}");
        pond.remount();
        assert_eq!(figures(), before);
    }
    pond.umount();
}

#[test]
fn sqlite_with_a_write_ahead_log_keeps_every_transaction() {
    sqlite_survives("WAL");
}

#[test]
fn sqlite_with_a_rollback_journal_keeps_every_transaction() {
    sqlite_survives("DELETE");
}

#[test]
fn postgresql_keeps_every_transaction_and_finds_no_damage() {
    let scale: u64 = scaled("POND_PGBENCH_SCALE", 1);
    let seconds: u64 = scaled("POND_PGBENCH_SECONDS", 4);
    let pond = TestPond::mounted();
    let postgres = Postgres::new(&pond, pond.path("data"), pond.host_directory("socket"));
    postgres.run("initdb", &["--data-checksums", "--auth=trust", "--no-instructions"]);
    postgres.start();
    postgres.run("pgbench", &["--initialize", "--quiet", "--scale", &scale.to_string()]);
    let told = postgres.run("pgbench", &["--client=4", "--time", &seconds.to_string()]);
    println!("{told}");
    postgres.check();
    let before = postgres.figures();
    postgres.stop();
    pond.remount();
    postgres.run("pg_checksums", &["--check"]);
    postgres.start();
    postgres.check();
    assert_eq!(postgres.figures(), before);
    postgres.stop();
    pond.umount();
}
