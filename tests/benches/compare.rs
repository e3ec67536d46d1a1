//! pond beside what it is compared with, in turn: ext4, libfuse's `passthrough_ll` on it, JuiceFS where the machine has
//! it, and restic; as a table of medians and ratios, and as a picture.
//!
//! `cargo bench -p pond-tests --bench compare` runs everything, `… -- metadata backup` only these. Each round measures
//! each filesystem once, so that whatever else the machine does troubles all alike. Every single rate is kept in
//! `target/tmp/compare.json`, the picture in `target/tmp/compare.svg`; `POND_BENCH_PICTURE=FILE` puts it elsewhere.
//!
//! | variable | default | |
//! |---|---|---|
//! | `POND_BENCH_ROUNDS` | 5 | rounds of everything; of `backup` at most 3 |
//! | `POND_BENCH_FILES` | 10000 | files of `metadata` and `commits` |
//! | `POND_BENCH_SECONDS` | 2 | length of each run of `appends` |
//! | `POND_BENCH_MIB` | 512 | size of `large-file`'s file |
//! | `POND_BENCH_READS` | 2000 | its single reads |
//! | `POND_BENCH_BULK_MIB` | 1024 | size of each of `bulk`'s files |
//! | `POND_BENCH_SCAN_FILES` | 100000 | files that `scan` walks over |
//! | `POND_BENCH_TREE`, `POND_BENCH_TREE_MIB` | `/usr`, 256 | what `backup` ships, and how much of it |

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use pond_tests::bench::{
    Contender, Group, HOURS, Table, appends, backup, bulk, chart, large_file, metadata, pin, scan,
};
use pond_tests::scale::scaled;
use pond_tests::{TestPond, pond_binary};

const METADATA: Group = Group { title: "Many small files, one CPU", baseline: "passthrough_ll" };
const COMMITS: Group = Group { title: "The same while commits go on", baseline: "pond without commits" };

const SCANS: Group = Group { title: "Walks over 100 directories, cold", baseline: "ext4" };

/// A part of the whole, by the name that asks for it.
type Part = (&'static str, fn(&mut Table));

const PARTS: [Part; 7] = [
    ("metadata", small_files),
    ("commits", commits),
    ("appends", synced_appends),
    ("large-file", one_large_file),
    ("bulk", bulk_writes),
    ("scan", scans),
    ("backup", backups),
];

fn rounds() -> u64 {
    scaled("POND_BENCH_ROUNDS", 5)
}

fn files() -> usize {
    scaled("POND_BENCH_FILES", 10_000)
}

/// pond and what it is compared with as a filesystem.
fn contenders() -> Vec<Contender> {
    let mut contenders = vec![Contender::pond("pond", &[]), Contender::passthrough(), Contender::host()];
    contenders.extend(Contender::juicefs());
    contenders
}

fn small_files(table: &mut Table) {
    let contenders = contenders();
    for _ in 0..rounds() {
        for contender in &contenders {
            table.note(contender.name(), metadata::operations(&METADATA, contender, files()));
        }
    }
}

fn commits(table: &mut Table) {
    let contenders = [
        Contender::pond("pond, a commit a second", &[]),
        Contender::pond("pond, ten a second", &["-o", "commit=0.1"]),
        Contender::pond(COMMITS.baseline, &["-o", "commit=3600"]),
    ];
    for _ in 0..rounds() {
        for contender in &contenders {
            let figures = metadata::operations_beside_a_writer(&COMMITS, contender, files());
            table.note(contender.name(), figures);
        }
    }
}

fn synced_appends(table: &mut Table) {
    let contenders = contenders();
    let how_long = Duration::from_secs_f64(scaled("POND_BENCH_SECONDS", 2.0));
    for _ in 0..rounds() {
        for contender in &contenders {
            table.note(contender.name(), appends::synced(contender, how_long));
        }
    }
}

fn one_large_file(table: &mut Table) {
    let contenders = contenders();
    let (mebibytes, reads) = (scaled("POND_BENCH_MIB", 512), scaled("POND_BENCH_READS", 2000));
    for _ in 0..rounds() {
        for contender in &contenders {
            table.note(contender.name(), large_file::throughput(contender, mebibytes, reads));
        }
    }
}

fn bulk_writes(table: &mut Table) {
    let contenders = contenders();
    let mebibytes = scaled("POND_BENCH_BULK_MIB", 1024);
    for _ in 0..rounds() {
        for contender in &contenders {
            table.note(contender.name(), bulk::new_files(contender, mebibytes));
        }
    }
}

fn scans(table: &mut Table) {
    let contenders = contenders();
    let files = scaled("POND_BENCH_SCAN_FILES", 100_000);
    contenders.iter().for_each(|contender| scan::prepare(contender, files));
    for _ in 0..rounds() {
        for contender in &contenders {
            table.note(contender.name(), scan::walks(&SCANS, contender, files));
        }
    }
}

fn backups(table: &mut Table) {
    let scratch = TestPond::with_patience(HOURS);
    let base = scratch.host_directory("bench");
    let tree = PathBuf::from(env::var_os("POND_BENCH_TREE").unwrap_or_else(|| "/usr".into()));
    let bytes = backup::prepare(&base, &tree, scaled("POND_BENCH_TREE_MIB", 256));
    for round in 0..rounds().min(3) {
        for (name, figures) in backup::run_all(&base, round).figures(bytes) {
            table.note(name, figures);
        }
    }
}

fn main() {
    // Built before anything is pinned: compiling wants all CPUs.
    pond_binary();
    // Cargo's own `--bench` is no name of a part.
    let wanted: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for name in &wanted {
        let names: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
        assert!(names.contains(&name.as_str()), "there is no part {name}; there are {}", names.join(", "));
    }
    let mut table = Table::default();
    for (name, measure) in PARTS {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted == name) {
            continue;
        }
        eprintln!("{name}");
        // Client and server on one CPU where a request takes microseconds. The affinity is the thread's and its children's.
        let pinned = ["metadata", "commits"].contains(&name);
        thread::scope(|scope| {
            scope.spawn(|| {
                if pinned {
                    pin();
                }
                measure(&mut table);
            });
        });
    }
    println!("{table}");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let kept = target.join("compare.json");
    let json = serde_json::to_vec_pretty(&table.to_json()).expect("figures are JSON");
    fs::write(&kept, json).unwrap_or_else(|error| panic!("{}: {error}", kept.display()));
    let picture = env::var_os("POND_BENCH_PICTURE").map_or_else(|| target.join("compare.svg"), PathBuf::from);
    fs::write(&picture, chart::draw(&table, "pond beside others"))
        .unwrap_or_else(|error| panic!("{}: {error}", picture.display()));
    println!("every rate: {}\nthe picture: {}", kept.display(), picture.display());
}
