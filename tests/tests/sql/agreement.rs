//! The same questions to DuckDB, about the same files outside.

use std::fs;

use pond_tests::{TestPond, run, succeed};

use crate::answers::{ask, assert_same, duck, make, refused, value};

/// Files of all formats, in a directory of the host and at `/data` in the pond.
fn scene(pond: &TestPond) -> std::path::PathBuf {
    let data = pond.host_directory("data");
    for directory in ["hive/year=2025/month=1", "hive/year=2026/month=2", "hive/year=2026/month=3"] {
        fs::create_dir_all(data.join(directory)).unwrap();
    }
    make(
        &data,
        &[
            "COPY (SELECT i AS id, i % 7 AS k, 'name ' || i AS name, i * 1.5 AS v, DATE '2026-01-01' + CAST(i % 400 AS INT) AS day, \
             TIMESTAMP '2026-01-01' + INTERVAL (i) SECOND AS t, CASE WHEN i % 5 = 0 THEN NULL ELSE i END AS maybe \
             FROM range(20000) r(i)) TO 'a.parquet' (ROW_GROUP_SIZE 4096)",
            "COPY (SELECT i AS id, i % 3 AS k, 'b' || i AS name FROM range(500) r(i)) TO 'b.csv'",
            "COPY (SELECT i AS id, i % 3 AS k, 'b' || i AS name FROM range(500) r(i)) TO 'b.csv.gz'",
            "COPY (SELECT i AS id, i % 3 AS k, 'b' || i AS name FROM range(500) r(i)) TO 'b.tsv' (DELIMITER '\t')",
            "COPY (SELECT i AS id, i % 3 AS k FROM range(500) r(i)) TO 'semicolons.csv' (DELIMITER ';', HEADER false)",
            "COPY (SELECT i AS id, {'x': i, 'y': 'b' || i} AS s FROM range(300) r(i)) TO 'c.jsonl' (FORMAT json)",
            "COPY (SELECT i AS id FROM range(300) r(i)) TO 'array.json' (FORMAT json, ARRAY true)",
            "COPY (SELECT i AS id FROM range(100) r(i)) TO 'hive/year=2025/month=1/x.parquet'",
            "COPY (SELECT i AS id FROM range(200) r(i)) TO 'hive/year=2026/month=2/x.parquet'",
            "COPY (SELECT i AS id, i AS later FROM range(300) r(i)) TO 'hive/year=2026/month=3/x.parquet'",
        ],
    );
    let compress = "import bz2, lzma, pyarrow, sys\nd = open('b.csv', 'rb').read()\n\
                    open('b.csv.bz2', 'wb').write(bz2.compress(d)); open('b.csv.xz', 'wb').write(lzma.compress(d))\n\
                    pyarrow.CompressedOutputStream('b.csv.zst', 'zstd').write(d)";
    succeed(std::process::Command::new("python3").args(["-c", compress]).current_dir(&data));
    pond.pond(["copy", &format!("host:{}", data.display()), "/"]);
    data
}

#[test]
fn answers_are_those_that_duckdb_gives_of_the_same_files_outside() {
    let pond = TestPond::new();
    pond.pond(["init"]);
    let data = scene(&pond);
    // A directory stands for where the files are.
    let same = [
        "SELECT count(*) AS n, sum(v) AS s, min(day) AS d, max(t) AS t, count(maybe) AS m FROM '@/a.parquet'",
        "SELECT k, count(*) AS n, avg(v) AS a FROM '@/a.parquet' WHERE day >= DATE '2026-03-01' AND name LIKE '%7' GROUP BY k",
        "SELECT a.id, b.name FROM '@/a.parquet' a JOIN '@/b.csv' b USING (id) WHERE a.k = 2",
        "SELECT k, id, row_number() OVER (PARTITION BY k ORDER BY id DESC) AS place FROM '@/b.csv'",
        "SELECT count(*) AS n, sum(id) AS s FROM '@/b.csv.gz'",
        "SELECT k, max(name) AS m FROM '@/b.tsv' GROUP BY k",
        "SELECT id, s FROM '@/c.jsonl' WHERE id < 20",
        "SELECT sum(s.x) AS s FROM '@/c.jsonl'",
        "SELECT year, month, count(*) AS n, sum(id) AS s FROM '@/hive/**/*.parquet' GROUP BY year, month",
        "SELECT count(*) AS n FROM '@/hive/**/*.parquet' WHERE year = 2026 AND month = 3",
        "SELECT sum(later) AS s, count(*) AS n FROM read_parquet('@/hive/**/*.parquet', union_by_name = true)",
        "SELECT count(DISTINCT filename) AS n FROM read_parquet(['@/hive/year=2026/*/x.parquet', '@/hive/year=2025/*/x.parquet'], filename = true)",
        "SELECT k, count(*) AS n FROM '@/a.parquet' GROUP BY k HAVING count(*) > 2857 ORDER BY k LIMIT 3",
        "SELECT id FROM '@/a.parquet' WHERE id NOT IN (SELECT id FROM '@/b.csv') AND id < 510",
        "SELECT * FROM '@/b.csv' WHERE id < 5 UNION ALL SELECT * FROM '@/b.tsv' WHERE id > 495",
        "SELECT name FROM '@/a.parquet' WHERE regexp_matches(name, '99$') AND k = 1",
    ];
    let at = |directory: &str| same.map(|text| text.replace('@', directory));
    let outside = at(data.to_str().unwrap());
    let theirs = duck(&data, &outside.iter().map(String::as_str).collect::<Vec<_>>());
    for (question, theirs) in at("/data").iter().zip(&theirs) {
        let question = question.replace("regexp_matches", "regexp_like");
        assert_same(&question, &ask(&pond, &question), theirs);
    }
    // Where the two write it in different ways.
    for ending in ["bz2", "xz", "zst"] {
        assert_eq!(value(&pond, &format!("SELECT sum(id) FROM '/data/b.csv.{ending}'")), 124_750, "{ending}");
    }
    let headless = "read_csv('/data/semicolons.csv', header => false, delim => ';')";
    assert_eq!(value(&pond, &format!("SELECT sum(column_1) FROM {headless}")), 124_750);
    assert_eq!(value(&pond, "SELECT sum(id) FROM read_json('/data/array.json', format => 'array')"), 44_850);
    assert_eq!(
        value(&pond, &format!("SELECT count(*) FROM 'host:{}/hive/*/*/x.parquet'", data.display())),
        600
    );
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    let pond = TestPond::new();
    pond.pond(["init"]);
    let data = scene(&pond);
    fs::write(data.join("no.parquet"), "this is none").unwrap();
    fs::write(data.join("cut.parquet"), &fs::read(data.join("a.parquet")).unwrap()[..9000]).unwrap();
    pond.pond(["copy", &format!("host:{}", data.display()), "/"]);
    for (statement, said) in [
        ("SELECT * FROM '/data/missing.csv'", "no such file"),
        ("SELECT * FROM '/data/*.missing'", "matches"),
        ("SELECT * FROM '/data'", "is a directory"),
        ("SELECT * FROM '/data/*'", "one table cannot be made of"),
        ("SELECT * FROM '/data/b.{csv,tsv}'", "different ways"),
        ("SELECT * FROM read_csv('/data/b.csv*')", "different ways"),
        ("SELECT * FROM '/data/no.parquet'", "/data/no.parquet"),
        ("SELECT * FROM '/data/cut.parquet'", "/data/cut.parquet"),
        ("SELECT * FROM 'host:/does/not/exist.csv'", "No such file"),
        ("SELECT * FROM read_parquet('/data/b.csv')", "/data/b.csv"),
        ("SELECT nothing FROM '/data/b.csv'", "nothing"),
    ] {
        let message = refused(&pond, statement);
        assert!(message.starts_with("pond: ") && message.contains(said), "{statement}: {message}");
    }
}

#[test]
fn of_a_file_only_the_columns_that_are_asked_for_are_read_and_of_files_only_those_that_can_have_rows() {
    let pond = TestPond::new();
    pond.pond(["init"]);
    let data = pond.host_directory("data");
    let columns: Vec<String> = (0..20).map(|n| format!("hash(i * {n} + 1) AS c{n}")).collect();
    make(
        &data,
        &[
            &format!("COPY (SELECT {} FROM range(40000) r(i)) TO 'wide.parquet'", columns.join(", ")),
            "COPY (SELECT i AS id, i // 1000 AS part FROM range(40000) r(i)) TO 'parts' (FORMAT parquet, PARTITION_BY (part))",
        ],
    );
    pond.pond(["copy", &format!("host:{}", data.display()), "/"]);
    let read = |statement: &str| -> u64 {
        let finished = run(pond.command().args(["--log-format", "json", "-v", "sql", statement]));
        let line = finished
            .stderr
            .lines()
            .find(|line| line.contains("\"answered\""))
            .expect("a line of figures")
            .to_owned();
        finished.success();
        serde_json::from_str::<serde_json::Value>(&line).unwrap()["bytes_read"].as_u64().unwrap()
    };
    let size = fs::metadata(data.join("wide.parquet")).unwrap().len();
    assert!(size > 5 << 20);
    let two = read("SELECT max(c3), max(c17) FROM '/data/wide.parquet'");
    println!("2 of 20 columns: {two} of {size} bytes");
    assert!(two > 0 && two < size / 4, "{two} of {size}");
    let (all, one) = (
        "SELECT count(id), max(id) FROM '/data/parts/*/*'",
        "SELECT sum(id) FROM '/data/parts/*/*' WHERE part = 7",
    );
    let all_files = all.replace("'/data/parts/*/*'", "read_parquet('/data/parts/*/*')");
    let one_file = one.replace("'/data/parts/*/*'", "read_parquet('/data/parts/*/*')");
    let (all, one) = (read(&all_files), read(&one_file));
    println!("1 of 40 partitions: {one} of {all} bytes");
    // The first file says which columns there are.
    assert!(one < all / 10, "{one} of {all}");
    assert_eq!(value(&pond, &one_file), 7499 * 1000 + 500);
}
