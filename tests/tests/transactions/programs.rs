//! Other people's programs in a transaction.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

use pond_tests::tree::{Also, assert_same, look_at};
use pond_tests::{run, succeed};

use crate::{log, names, pond, txn};

/// A C project of twenty files.
const PROJECT: &str = "mkdir p; cd p; for n in $(seq 20); do echo \"int f$n(int x) { return x + $n; }\" > f$n.c; done
    for n in $(seq 20); do echo \"int f$n(int);\"; done > all.h
    { echo '#include \"all.h\"'; echo '#include <stdio.h>'; echo 'int main(void) { int x = 0;'
      for n in $(seq 20); do echo \"x = f$n(x);\"; done; echo 'printf(\"%d\", x); return x != 210; }'; } > main.c
    printf 'OBJECTS = $(patsubst %%.c,%%.o,$(wildcard *.c))\\nall: sum\\nsum: $(OBJECTS)\\n\\tcc -o $@ $^\\n' > Makefile";

#[test]
fn a_build_and_a_git_commit_are_one_version_each() {
    let pond = pond();
    succeed(pond.marked("sh").current_dir(pond.mountpoint()).args(["-ec", PROJECT]));
    pond.sync();
    let version = pond.version();
    txn(&pond, &["-m", "built"], "cd p; make -j2 >&2; ./sum").success();
    assert_eq!(pond.version(), version + 1);
    assert_eq!(succeed(Command::new(pond.path("p/sum")).current_dir("/")), "210");
    let git = "cd p; git init -q; git add *.c; git -c user.name=n -c user.email=e commit -qm made";
    txn(&pond, &[], git).success();
    assert_eq!(pond.version(), version + 2);
    assert_eq!(log(&pond, 2)[1]["origin"]["message"], "built");
    pond.remount();
    let inside =
        |command: &str| succeed(pond.marked("sh").current_dir(pond.path("p")).args(["-ec", command]));
    inside(
        "git -c safe.directory='*' fsck --full --strict; git -c safe.directory='*' diff --exit-code HEAD -- '*.c'",
    );
    // The build is up to date: times are what they were.
    assert!(
        inside("make -j2").contains("is up to date") || inside("make -j2").contains("Nothing to be done")
    );
    // A commit that fails half-way leaves the repository as it was.
    let before = look_at(&pond.path("p"));
    txn(&pond, &[], "cd p; echo x >> f1.c; git -c user.name=n -c user.email=e commit -qam more; false")
        .failure(1);
    assert_same("the project", &before, &look_at(&pond.path("p")), Also::ALL);
}

#[test]
fn a_database_is_whole_after_a_transaction_around_its_own_was_undone() {
    let pond = pond();
    let sqlite = |script: &str| format!("sqlite3 db '{script}'");
    txn(&pond, &[], &sqlite("PRAGMA journal_mode=WAL; CREATE TABLE t(n); INSERT INTO t VALUES (1);"))
        .success();
    let undone = format!("{}; exit 5", sqlite("BEGIN; INSERT INTO t SELECT n + 1 FROM t; COMMIT;"));
    txn(&pond, &[], &undone).failure(5);
    // Killed in the middle of one of its own.
    let killed = "(echo 'BEGIN; INSERT INTO t VALUES (9);'; echo .shell kill -9 '$PPID'; echo 'COMMIT;') | sqlite3 db || exit 6";
    txn(&pond, &[], killed).failure(6);
    txn(&pond, &[], &sqlite("INSERT INTO t VALUES (3);")).success();
    let asked = "PRAGMA integrity_check; SELECT group_concat(n) FROM t;";
    let answer = succeed(pond.marked("sqlite3").current_dir(pond.mountpoint()).args(["db", asked]));
    assert_eq!(answer, "ok\n1,3\n");
    // An incomplete transaction of the database's own, taken over, is rolled back by who opens it next.
    let hot = "(echo 'PRAGMA journal_mode=DELETE; PRAGMA cache_spill=1; BEGIN; UPDATE t SET n = n + 100;'; \
               echo '.shell kill -9 $PPID') | sqlite3 db || exit 0";
    txn(&pond, &[], hot).success();
    let answer = succeed(pond.marked("sqlite3").current_dir(pond.mountpoint()).args(["db", asked]));
    assert_eq!(answer, "ok\n1,3\n");
}

#[test]
fn links_holes_attributes_and_files_without_a_name_are_taken_over_as_they_are() {
    let pond = pond();
    let script = "echo linked > a; ln a b; ln kept also; ln -s d/f symlink; truncate -s 1G sparse; \
        printf far | dd of=sparse bs=1 seek=500000000 conv=notrunc status=none; setfattr -n user.x -v value a; \
        mkfifo fifo; chmod 4755 d/f; touch -d 2001-02-03T04:05:06.789 a; mkdir -p deep/er; echo x > deep/er/x; \
        exec 3<>nameless; rm nameless; echo lost >&3; fallocate -p -o 0 -l 4096 big";
    fs::write(pond.path("big"), vec![1; 20_000]).unwrap();
    // The same outside of the pond.
    let model = pond.host_directory("model");
    succeed(pond.marked("cp").arg("-a").args(["kept", "d", "big"].map(|name| pond.path(name))).arg(&model));
    txn(&pond, &[], script).success();
    succeed(pond.marked("sh").current_dir(&model).args(["-ec", script]));
    let look = |root: &std::path::Path| {
        let mut tree = look_at(root);
        tree.retain(|path, _| !path.starts_with(b".pond"));
        tree
    };
    let also = Also { mtime: false, ctime: false, inode: false };
    assert_same("the pond and the model", &look(&model), &look(pond.mountpoint()), also);
    let metadata = |name: &str| fs::symlink_metadata(pond.path(name)).unwrap();
    assert_eq!((metadata("a").ino(), metadata("a").nlink()), (metadata("b").ino(), 2));
    assert_eq!((metadata("kept").ino(), metadata("kept").nlink()), (metadata("also").ino(), 2));
    assert_eq!((metadata("a").mtime(), metadata("a").mtime_nsec()), (981_173_106, 789_000_000));
    assert!(metadata("sparse").blocks() <= 64, "{} blocks", metadata("sparse").blocks());
    assert!(!names(&pond).contains(&"nameless".to_owned()));
    let before = look(pond.mountpoint());
    pond.remount();
    assert_same("the pond mounted anew", &before, &look(pond.mountpoint()), Also::ALL);
    let mut far = [0; 3];
    File::open(pond.path("sparse")).unwrap().read_exact_at(&mut far, 500_000_000).unwrap();
    assert_eq!(&far, b"far");
    assert!(run(pond.command().arg("fsck")).status.success());
}
