//! Shipping files away and bringing them back: pond's push and init, `tar` with `zstd`, and restic, on the same files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::bench::{Figure, Group, HOURS, Row};
use crate::command::run_within;
use crate::tools::tool;
use crate::{TestPond, pond_binary};

/// What `zstd` is told; the backup store compresses alike.
pub const LEVEL: &str = "-3";

const BACKUP: Group = Group { title: "A backup, and bringing it back", baseline: "restic" };
const SAVE: Row = Row { group: &BACKUP, name: "back up", unit: " MiB/s" };
const RESTORE: Row = Row { group: &BACKUP, name: "restore", unit: " MiB/s" };

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
pub struct Times {
    /// `pond mknod remote`, which pushes everything there is.
    pub push: Duration,
    /// `pond init --from-backup`.
    pub init: Duration,
    /// `tar -c | zstd`.
    pub tar: Duration,
    /// `zstd -d | tar -x` and `sync`.
    pub untar: Duration,
    /// `restic backup`.
    pub backup: Duration,
    /// `restic restore` and `sync`.
    pub restore: Duration,
}

impl Times {
    /// Rates for files of so many bytes, by contender.
    pub fn figures(&self, bytes: u64) -> [(&'static str, [Figure; 2]); 3] {
        let rate = |time: Duration| bytes as f64 / 1_048_576.0 / time.as_secs_f64();
        [
            ("pond", self.push, self.init),
            ("restic", self.backup, self.restore),
            ("tar | zstd", self.tar, self.untar),
        ]
        .map(|(name, save, restore)| (name, [(SAVE, rate(save)), (RESTORE, rate(restore))]))
    }
}

/// Files of `tree`, as far as `mebibytes` go, in `base/files`, and in `base/pond` a pond that holds them; how many bytes
/// they are.
pub fn prepare(base: &Path, tree: &Path, mebibytes: u64) -> u64 {
    for name in ["restic", "zstd", "tar"] {
        tool(name);
    }
    let bytes = copy(tree, &base.join("files"), mebibytes << 20);
    let pond = TestPond::with_patience(HOURS);
    pond.mount();
    run_within(Command::new("cp").arg("-a").arg(base.join("files")).arg(pond.mountpoint()), HOURS).success();
    pond.sync();
    pond.umount();
    fs::rename(pond.directory(), base.join("pond")).expect("the same filesystem");
    bytes
}

/// Ships what [`prepare`] made and brings it back, in each way.
pub fn run_all(base: &Path, round: u64) -> Times {
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
