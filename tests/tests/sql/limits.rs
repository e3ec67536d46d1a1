//! What is too much, or takes too long, ends clearly, and the mount beside it goes on.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use pond_tests::cgroup::MemoryGroup;
use pond_tests::command::wait_for;
use pond_tests::{TestPond, processes, run, wait_until};

use crate::answers::{make, refused, value};

/// A query that does not end by itself.
const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 1000000000000) a(i) WHERE i % 7 = 8";

fn is_empty(directory: &std::path::Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

#[test]
fn a_query_that_needs_more_memory_than_it_may_take_says_so_and_what_can_be_spilled_is() {
    let pond = TestPond::mounted();
    let spilled = pond.host_directory("spilled");
    let with_limit = |limit: &str, statement: &str| {
        let directory = spilled.to_str().unwrap();
        pond.try_pond(["sql", "--memory-limit", limit, "--temp-dir", directory, "--format", "csv", statement])
    };
    // A list of all is one value, of which no half goes to disk.
    let message =
        with_limit("8MiB", "SELECT array_length(array_agg(i)) FROM generate_series(1, 20000000) t(i)")
            .failure(1);
    assert!(
        message.contains("more memory than it may take") && message.contains("--memory-limit"),
        "{message}"
    );
    let sorted = "SELECT max(i) FROM (SELECT i, row_number() OVER (ORDER BY i * 7919 % 1000003) AS n \
                  FROM generate_series(1, 400000) t(i)) WHERE n % 2 = 0";
    let (small, large) = (with_limit("24MiB", sorted).success(), with_limit("1GiB", sorted).success());
    assert_eq!(small, large);
    assert!(is_empty(&spilled), "what was on disk is gone");
    fs::write(pond.path("beside"), "goes on").unwrap();
    assert!(
        run(pond.command().args(["sql", "--memory-limit", "much", "SELECT 1"]))
            .failure(2)
            .contains("a size is")
    );
}

#[test]
fn a_signal_and_a_time_limit_end_a_query_and_leave_nothing() {
    let pond = TestPond::new();
    pond.pond(["init"]);
    let spilled = pond.host_directory("spilled");
    let directory = spilled.to_str().unwrap();
    let message = pond.try_pond(["sql", "--temp-dir", directory, "--timeout", "1s", ENDLESS]).failure(1);
    assert!(message.contains("was not done after 1s"), "{message}");
    assert!(is_empty(&spilled));
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut command = pond.command();
        command.args(["sql", "--temp-dir", directory, ENDLESS]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        // Its directory is there once it runs.
        wait_until("the query begins", Duration::from_secs(60), || (!is_empty(&spilled)).then_some(()));
        std::thread::sleep(Duration::from_millis(300));
        processes::signal(child.id() as i32, signal);
        let status = wait_for(&mut child, Duration::from_secs(60)).expect("it ends");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(signal));
        assert!(is_empty(&spilled), "after signal {signal}");
    }
}

#[test]
fn hostile_files_are_answered_or_refused_within_a_gibibyte() {
    let pond = TestPond::mounted();
    let data = pond.host_directory("data");
    let names: Vec<String> = (0..10_000).map(|column| format!("c{column}")).collect();
    let row = vec!["1"; 10_000].join(",");
    fs::write(data.join("wide.csv"), format!("{}\n{}\n", names.join(","), vec![row; 20].join("\n"))).unwrap();
    // 20 million equal rows.
    make(
        &data,
        &[
            "COPY (SELECT 'the same text again and again' AS text, 1 AS i FROM range(20000000)) TO 'same.parquet'",
        ],
    );
    fs::write(data.join("zeros.csv"), [vec![b'0'; 64 << 20], vec![b'\n']].concat()).unwrap();
    fs::write(data.join("quotes.csv"), format!("a,b\n\"{}\n", "x,\n".repeat(500_000))).unwrap();
    pond.pond(["copy", &format!("host:{}", data.display()), "/"]);
    pond.sync();
    let group = MemoryGroup::new("sql", 1 << 30);
    let within = |statement: &str| {
        let mut command = pond.command();
        command.args(["sql", "--memory-limit", "256MiB", "--timeout", "5m", "--format", "csv", statement]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        group.start(&mut command);
        run(&mut command)
    };
    let wide = within("SELECT count(*), sum(c9999), max(c0) FROM '/data/wide.csv'").success();
    assert_eq!(wide.lines().nth(1), Some("20,20,1"));
    assert_eq!(
        within("SELECT count(*) FROM '/data/same.parquet'").success().lines().nth(1),
        Some("20000000")
    );
    let message = within("SELECT array_agg(text) FROM '/data/same.parquet'").failure(1);
    assert!(message.contains("more memory than it may take"), "{message}");
    for file in ["zeros", "quotes"] {
        let finished = within(&format!("SELECT count(*) FROM '/data/{file}.csv'"));
        let code = finished.status.code();
        assert!(code == Some(0) || code == Some(1) && finished.stderr.starts_with("pond: "), "{finished}");
    }
    assert_eq!(group.killed(), 0);
    println!("at most {} MiB", group.peak() >> 20);
    fs::write(pond.path("beside"), "goes on").unwrap();
}

#[test]
fn formats_output_files_and_statements_from_files_and_standard_input() {
    let pond = TestPond::new();
    pond.pond(["init"]);
    let two = "SELECT 1 AS a, 'x' AS b UNION ALL SELECT 2, NULL ORDER BY a";
    for (format, wanted) in [
        ("table", "a  b\n1  x\n2  NULL\n"),
        ("csv", "a,b\n1,x\n2,\n"),
        ("json", "[{\"a\":1,\"b\":\"x\"},{\"a\":2,\"b\":null}]"),
        ("jsonl", "{\"a\":1,\"b\":\"x\"}\n{\"a\":2,\"b\":null}\n"),
    ] {
        assert_eq!(pond.pond(["sql", two, "--format", format]).trim_end(), wanted.trim_end(), "{format}");
    }
    for ending in ["parquet", "arrow", "csv", "jsonl"] {
        let file = pond.host(format!("out.{ending}"));
        pond.pond(["sql", two, "--output", file.to_str().unwrap()]);
        let back = format!("SELECT sum(a) FROM 'host:{}'", file.display());
        assert_eq!(value(&pond, &back), 3, "{ending}");
    }
    let script = pond.host("script.sql");
    fs::write(&script, "SELECT 1 AS a;\n-- and\nSELECT 2 AS b;\n").unwrap();
    let both = pond.pond(["sql", "-f", script.to_str().unwrap(), "--format", "csv"]);
    assert_eq!(both, "a\n1\nb\n2\n");
    let mut typed = Command::new("sh");
    let shell = format!(
        "echo 'SELECT 3 AS c' | {} --pond {} sql --json",
        pond_tests::pond_binary().display(),
        pond.directory().display()
    );
    assert_eq!(run(typed.args(["-c", &shell])).success(), "{\"c\":3}\n");
    // Nothing is written where the query fails.
    let file = pond.host("failed.csv");
    refused(&pond, "SELECT nothing");
    let failed = pond.try_pond(["sql", "SELECT 1/0", "--output", file.to_str().unwrap()]);
    assert!(failed.failure(1).contains("ivide by zero") && !file.exists());
    assert!(
        pond.try_pond(["sql", "SELECT 1; SELECT 2", "--output", "x.csv"]).failure(2).contains("one answer")
    );
}

#[test]
fn at_the_prompt_an_interrupt_ends_what_is_typed_or_running_and_no_more() {
    let mut pond = TestPond::new();
    let data = pond.host_directory("home");
    pond.set_environment(&[("XDG_DATA_HOME", data.to_str().unwrap())]);
    pond.pond(["init"]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts/prompt.py");
    let mut typing = pond.marked("python3");
    typing.arg(script).arg(pond_tests::pond_binary()).arg("--pond").arg(pond.directory()).arg("sql");
    run(&mut typing).success();
    let history = fs::read_to_string(data.join("pond-sql-history")).unwrap();
    assert!(history.contains("SELECT 40 + 2 AS answer;"), "{history}");
}
