//! Databases under load while the daemon dies at one step to the disk after another: intact by their own checks, every
//! transaction that was acknowledged is there, and the sums are right.
//!
//! `POND_DATABASE_ROUNDS` (default 2) deaths in each test, and more until something was committed before one.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pond_tests::command::{succeed, wait_for};
use pond_tests::postgres::Postgres;
use pond_tests::processes::{has_ended, kill_and_wait};
use pond_tests::scale::scaled;
use pond_tests::tools::tool;
use pond_tests::{Random, TestPond};

use crate::failpoint::{MORE_ROUNDS, daemon, deaths, expect_deaths, goes_on, mount_to_die, some_step};

/// Steps of a round, at most.
const STEPS: u64 = 800;

/// How long a round lasts if the daemon does not die.
const LONGEST: Duration = Duration::from_secs(10);

fn rounds() -> u64 {
    scaled("POND_DATABASE_ROUNDS", 2)
}

fn pond() -> TestPond {
    TestPond::with_patience(Duration::from_secs(600 + 120 * (rounds() + MORE_ROUNDS)))
}

/// Kills the daemon, and mounts with one that will die; until one lives long enough to serve.
fn mount_for_a_round(pond: &TestPond, random: &mut Random) -> i32 {
    pond.kill();
    loop {
        let step = some_step(random, STEPS);
        if mount_to_die(pond, step, "commit=0.2").status.success()
            && let Some(daemon) = daemon(pond)
        {
            return daemon;
        }
    }
}

/// Waits until the daemon dies, or kills it.
fn wait_for_death(daemon: i32) {
    let started = Instant::now();
    while !has_ended(daemon) && started.elapsed() < LONGEST {
        thread::sleep(Duration::from_millis(5));
    }
    kill_and_wait(daemon);
}

/// A client that is given one transaction after another and says when each is committed.
struct Client {
    child: Child,
    /// Number of the last one that it acknowledged.
    acknowledged: Arc<AtomicU64>,
    feeder: thread::JoinHandle<()>,
    reader: thread::JoinHandle<()>,
}

impl Client {
    /// `transaction` makes the text of each, from `first` on; it answers with a line `ack N`.
    fn start(mut command: Command, first: u64, transaction: impl Fn(u64) -> String + Send + 'static) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        let mut input: ChildStdin = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        // It reads as fast as it can work, and ends with its database.
        let feeder = thread::spawn(move || {
            (first..)
                .take_while(|&number| input.write_all(transaction(number).as_bytes()).is_ok())
                .for_each(drop)
        });
        let acknowledged = Arc::new(AtomicU64::new(first - 1));
        let told = acknowledged.clone();
        let reader = thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some(number) = line.strip_prefix("ack ").and_then(|number| number.trim().parse().ok())
                {
                    told.store(number, Ordering::SeqCst);
                }
            }
        });
        Client { child, acknowledged, feeder, reader }
    }

    /// The last number that was acknowledged, once it has ended.
    fn end(mut self) -> u64 {
        if wait_for(&mut self.child, Duration::from_secs(2)).is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
        self.feeder.join().unwrap();
        self.reader.join().unwrap();
        self.acknowledged.load(Ordering::SeqCst)
    }
}

fn sqlite(database: &Path, statements: &str) -> String {
    let mut sqlite = Command::new(tool("sqlite3"));
    sqlite.args(["-bail", "-cmd", ".timeout 60000"]).arg(database).arg(statements);
    succeed(&mut sqlite).trim().to_owned()
}

/// `synchronous` is what the mode needs for a commit to be durable: after a rollback journal was deleted, its directory must
/// be synced, too.
///
/// With a rollback journal the last acknowledgement before a death may be void: where SQLite cannot open the directory that it is
/// to sync, as it cannot once the daemon is dead, it takes that for a directory that need not be synced (`unixDelete` in its
/// `os_unix.c`) and says that the transaction is committed. The one before has been synced, or its writer had not gone on.
fn sqlite_survives(journal_mode: &str, synchronous: &str) {
    let last_is_sure = journal_mode == "WAL";
    const WRITERS: u64 = 2;
    let mut random = crate::random();
    let pond = pond();
    pond.mount();
    let database = pond.path("test.db");
    sqlite(&database, &format!("PRAGMA journal_mode={journal_mode};"));
    sqlite(&database, "CREATE TABLE t(writer, x, blob, PRIMARY KEY(writer, x)); CREATE INDEX i ON t(blob);");
    pond.sync();
    let mut acknowledged = vec![0; WRITERS as usize];
    let mut round = 0;
    let committed = |acknowledged: &[u64]| acknowledged.iter().any(|&number| number > 0);
    while goes_on(round, rounds(), committed(&acknowledged) && !deaths(&pond).is_empty()) {
        round += 1;
        let daemon = mount_for_a_round(&pond, &mut random);
        let clients: Vec<Client> = (0..WRITERS)
            .map(|writer| {
                let mut command = pond.marked(tool("sqlite3"));
                let synchronous = format!("PRAGMA synchronous={synchronous};");
                command.args(["-bail", "-cmd", ".timeout 60000", "-cmd", &synchronous]).arg(&database);
                let first = acknowledged[writer as usize] + 1;
                Client::start(command, first, move |x| {
                    // What an earlier round did after its last acknowledgement may be there.
                    let insert = format!("INSERT OR IGNORE INTO t VALUES({writer}, {x}, randomblob(2000))");
                    format!("BEGIN IMMEDIATE; {insert}; COMMIT; SELECT 'ack {x}';\n")
                })
            })
            .collect();
        wait_for_death(daemon);
        for (acknowledged, client) in acknowledged.iter_mut().zip(clients) {
            *acknowledged = client.end();
        }
        pond.mount();
        assert_eq!(sqlite(&database, "PRAGMA integrity_check;"), "ok", "round {round}");
        for (writer, acknowledged) in acknowledged.iter_mut().enumerate() {
            let count = |last: u64| {
                let query = format!("SELECT count(*) FROM t WHERE writer = {writer} AND x <= {last};");
                sqlite(&database, &query)
            };
            let mut found = count(*acknowledged);
            if !last_is_sure && found != acknowledged.to_string() {
                println!(
                    "round {round}: writer {writer} acknowledged {acknowledged} without having synced it"
                );
                *acknowledged -= 1;
                found = count(*acknowledged);
            }
            assert_eq!(found, acknowledged.to_string(), "round {round}: writer {writer} lost a transaction");
        }
        println!("round {round}: {acknowledged:?} transactions acknowledged and there");
    }
    assert!(committed(&acknowledged), "nothing was ever committed");
    expect_deaths(&pond);
    pond.umount();
}

#[test]
fn sqlite_with_a_write_ahead_log_survives_whatever_step_the_daemon_died_at() {
    sqlite_survives("WAL", "FULL");
}

#[test]
fn sqlite_with_a_rollback_journal_survives_whatever_step_the_daemon_died_at() {
    sqlite_survives("DELETE", "EXTRA");
}

#[test]
fn postgresql_survives_whatever_step_the_daemon_died_at() {
    let mut random = crate::random();
    let pond = pond();
    pond.mount();
    let postgres = Postgres::new(&pond);
    postgres.run("initdb", &["--data-checksums", "--auth=trust", "--no-instructions"]);
    postgres.start();
    postgres.run("pgbench", &["--initialize", "--quiet", "--scale", "1"]);
    postgres.run("psql", &["-q", "-c", "CREATE TABLE promised(number bigint PRIMARY KEY)"]);
    postgres.check();
    postgres.stop();
    let mut acknowledged = 0;
    let mut transactions = 0;
    let mut round = 0;
    while goes_on(round, rounds(), transactions > 0 && acknowledged > 0 && !deaths(&pond).is_empty()) {
        round += 1;
        let daemon = mount_for_a_round(&pond, &mut random);
        // The daemon may die while the server starts, and then neither it nor its clients get far.
        let started = postgres.try_start();
        println!(
            "round {round}: the server {}",
            if started.status.success() { "runs" } else { "did not start" }
        );
        let benchmark = postgres
            .program("pgbench")
            .args(["--client=4", "--no-vacuum", "--time=3600"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut benchmark = benchmark.unwrap();
        let mut psql = postgres.program("psql");
        psql.args(["-q", "-At", "-v", "ON_ERROR_STOP=1"]);
        let client = Client::start(psql, acknowledged + 1, |number| {
            format!("INSERT INTO promised VALUES ({number}) ON CONFLICT DO NOTHING; SELECT 'ack {number}';\n")
        });
        wait_for_death(daemon);
        benchmark.kill().unwrap();
        benchmark.wait().unwrap();
        acknowledged = client.end();
        postgres.kill();
        pond.mount();
        postgres.start();
        postgres.check();
        let found = postgres.run("psql", &["-At", "-c", "SELECT count(*) FROM promised"]);
        let found: u64 = found.trim().parse().unwrap();
        assert!(
            found >= acknowledged,
            "round {round}: {acknowledged} rows were acknowledged and {found} are there"
        );
        let figures = postgres.figures();
        let sums: Vec<&str> = figures.trim().split('|').collect();
        let sum = |at: usize| sums[at].parse::<i64>().unwrap_or(0);
        assert!([1, 2, 3].iter().all(|&at| sum(at) == sum(0)), "round {round}: the sums differ: {figures}");
        transactions = sum(4);
        println!(
            "round {round}: {acknowledged} rows acknowledged and {found} there, {transactions} transactions"
        );
        postgres.stop();
    }
    assert!(transactions > 0 && acknowledged > 0, "nothing was ever committed");
    expect_deaths(&pond);
    pond.umount();
}
