//! What shipping a pond and bringing it back costs, beside the programs that people use for it, on the same files in
//! one run: push against `tar | zstd -3 -T0`, init against `zstd -d | tar x` and `sync`, both against restic.
//!
//! `cargo bench -p pond-tests --bench replication`. `POND_BENCH_TREE` is what is copied (default: /usr, as far as
//! `POND_BENCH_MIB`, default 2048, goes); `POND_BENCH_ROUNDS` (default 3) sets of runs, interleaved, give the medians.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pond_tests::command::run_within;
use pond_tests::measure::{median, ratio};
use pond_tests::scale::scaled;
use pond_tests::tools::tool;
use pond_tests::{TestPond, pond_binary};

const HOURS: Duration = Duration::from_secs(4 * 3600);
const LEVEL: &str = "-3";

/// Runs a shell command and says how long it took.
fn timed(directory: &Path, script: &str) -> Duration {
    let mut shell = Command::new("bash");
    shell.args(["-e", "-o", "pipefail", "-c", script]).current_dir(directory).env("RESTIC_PASSWORD", "pond");
    let start = Instant::now();
    run_within(&mut shell, HOURS).success();
    start.elapsed()
}

/// Copies regular files of a tree until there are so many bytes.
fn copy(tree: &Path, into: &Path, mut left: u64) -> u64 {
    let mut directories = vec![(tree.to_owned(), into.to_owned())];
    let mut copied = 0;
    while let Some((from, to)) = directories.pop() {
        fs::create_dir_all(&to).expect("a directory");
        // What may not be read is left out.
        let mut entries: Vec<_> = fs::read_dir(&from).into_iter().flatten().flatten().collect();
        entries.sort_by_key(|entry| entry.file_name());
        for entry in entries {
            let Ok(metadata) = entry.path().symlink_metadata() else { continue };
            let target = to.join(entry.file_name());
            if metadata.is_dir() {
                directories.push((entry.path(), target));
            } else if metadata.is_file() && metadata.size() <= left && fs::copy(entry.path(), &target).is_ok()
            {
                left -= metadata.size();
                copied += metadata.size();
            }
            if left < 4096 {
                return copied;
            }
        }
    }
    copied
}

/// One set of runs.
struct Times {
    push: Duration,
    init: Duration,
    tar: Duration,
    untar: Duration,
    backup: Duration,
    restore: Duration,
}

fn run_all(base: &Path, round: u64) -> Times {
    let at = |name: &str| base.join(format!("{name}-{round}"));
    let [source, replica, store, restic, tree] = ["source", "replica", "store", "restic", "tree"].map(at);
    fs::create_dir(&store).expect("a directory");
    let yaml = at("remote.yaml");
    let level = LEVEL.trim_start_matches('-');
    let text = format!("storage_type: local\npath: {}\ncompression_level: {level}\n", store.display());
    fs::write(&yaml, text).expect("a configuration");
    let quoted = |path: &Path| format!("'{}'", path.display());
    let pond = |pond: &Path| format!("{} --pond {}", quoted(pond_binary()), quoted(pond));
    // The same pond each time, without the remote that a round gives it.
    timed(base, &format!("cp -a pond {}; sync", quoted(&source)));
    let push = timed(
        base,
        &format!(
            "{pond} mknod remote /etc/system.d/10-remote --config-path {}; {pond} sync",
            quoted(&yaml),
            pond = pond(&source)
        ),
    );
    let tar =
        timed(base, &format!("tar -c files | zstd -q {LEVEL} -T0 -o {}/files.tar.zst; sync", quoted(&store)));
    let init = timed(base, &format!("{} init --from-backup {}", pond(&replica), quoted(&yaml)));
    fs::create_dir(&tree).expect("a directory");
    let untar = timed(
        base,
        &format!("zstd -q -d -c {0}/files.tar.zst | tar -x -C {1}; sync", quoted(&store), quoted(&tree)),
    );
    timed(base, &format!("restic init -q -r {}", quoted(&restic)));
    let backup = timed(base, &format!("restic backup -q --no-cache -r {} files; sync", quoted(&restic)));
    let restored = at("restored");
    let restore = timed(
        base,
        &format!(
            "restic restore latest -q --no-cache -r {} --target {}; sync",
            quoted(&restic),
            quoted(&restored)
        ),
    );
    for directory in [&source, &replica, &store, &restic, &tree, &restored] {
        fs::remove_dir_all(directory).expect("our own directory");
    }
    Times { push, init, tar, untar, backup, restore }
}

fn main() {
    for name in ["restic", "zstd", "tar"] {
        tool(name);
    }
    let pond = TestPond::with_patience(HOURS);
    let base = pond.host_directory("bench");
    let tree = PathBuf::from(env::var_os("POND_BENCH_TREE").unwrap_or_else(|| "/usr".into()));
    let bytes = copy(&tree, &base.join("files"), scaled("POND_BENCH_MIB", 2048_u64) << 20);
    pond.mount();
    run_within(Command::new("cp").arg("-a").arg(base.join("files")).arg(pond.mountpoint()), HOURS).success();
    pond.sync();
    pond.umount();
    fs::rename(pond.directory(), base.join("pond")).expect("the same filesystem");
    println!("{:.0} MiB of files from {}", bytes as f64 / 1048576.0, tree.display());

    let rounds: Vec<Times> = (0..scaled("POND_BENCH_ROUNDS", 3)).map(|round| run_all(&base, round)).collect();
    let middle = |of: fn(&Times) -> Duration| median(rounds.iter().map(of).collect());
    let (push, tar) = (middle(|times| times.push), middle(|times| times.tar));
    let (init, untar) = (middle(|times| times.init), middle(|times| times.untar));
    let (backup, restore) = (middle(|times| times.backup), middle(|times| times.restore));
    println!("push {push:.2?}, tar | zstd {LEVEL} -T0 {tar:.2?}: {:.2} of its throughput", ratio(tar, push));
    println!(
        "init {init:.2?}, zstd -d | tar x and sync {untar:.2?}: {:.2} of its throughput",
        ratio(untar, init)
    );
    println!(
        "push and init {:.2?}, restic backup {backup:.2?} and restore {restore:.2?}: {:.2} times as fast",
        push + init,
        ratio(backup + restore, push + init)
    );
}
