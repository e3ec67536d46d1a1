//! Ponds and stores that released programs made open, recover, and go on.
//!
//! `fixtures/pond-format-1.tar.gz` was made by the program of commit 53bac72: some ten versions, two checkpoints, a merge, a
//! remote, and a frame in the journal (of format 2) that an fsync of `/journaled` left before a `kill -9`; and the store that it
//! had pushed to by then.

use std::fs;
use std::path::Path;
use std::process::Command;

use pond_tests::tree::{Also, assert_same, look_at};
use pond_tests::{TestPond, succeed};

#[test]
fn a_pond_of_format_1_opens_recovers_and_replicates() {
    let mut pond = TestPond::new();
    let base = pond.host("fixture");
    fs::create_dir(&base).unwrap();
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/pond-format-1.tar.gz");
    succeed(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(&base));
    pond.put_in(base.join("pond"));
    let store = base.join("store");
    pond.set_environment(&[("POND_FIXTURE_STORE", store.to_str().unwrap())]);
    pond.pond(["fsck"]);
    pond.mount();
    assert!(pond.path("journaled").exists(), "what was fsync'd is lost");
    fs::write(pond.path("written-now"), "by today's program").unwrap();
    pond.sync();
    let tree = look_at(pond.mountpoint());
    pond.pond(["maintain"]);
    pond.remount();
    assert_same("remounted", &tree, &look_at(pond.mountpoint()), Also::ALL);
    pond.umount();
    pond.pond(["fsck"]);

    // What the older program pushed and what this one did are one history.
    let yaml = pond.host("remote.yaml");
    fs::write(&yaml, format!("storage_type: local\npath: {}\n", store.display())).unwrap();
    let mut replica = TestPond::new();
    replica.put_in(replica.host("replica"));
    replica.pond(["init", "--from-backup", yaml.to_str().unwrap()]);
    let then = replica.try_pond(["cat", "written-now"]).success();
    assert_eq!(then, "by today's program");
    replica.pond(["fsck"]);
}
