//! Ponds and stores that released programs made open, recover, and go on.
//!
//! `fixtures/pond-format-1.tar.gz` was made by the program of commit 53bac72: some ten versions, two checkpoints, a merge, a
//! remote, and a frame in the journal (of format 2) that an fsync of `/journaled` left before a `kill -9`; and the store that it
//! had pushed to by then.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pond_tests::tools::python;
use pond_tests::tree::{Also, assert_same, look_at};
use pond_tests::{TestPond, succeed};
use serde_json::Value;

/// The pond that the program of format 1 left, and its store.
fn format_1() -> (TestPond, PathBuf) {
    let mut pond = TestPond::new();
    let base = pond.host("fixture");
    fs::create_dir(&base).unwrap();
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/pond-format-1.tar.gz");
    succeed(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(&base));
    pond.put_in(base.join("pond"));
    (pond, base.join("store"))
}

/// The next version as a later program would make it: the table gets a column, and its writers must know format 2.
fn grow(pond: &TestPond) {
    let log = pond.directory().join("data/_delta_log");
    let entry = |version: u64| log.join(format!("{version:020}.json"));
    let newest = (0..).take_while(|&version| entry(version).exists()).last().unwrap();
    let actions = |version| -> Vec<Value> {
        let text = fs::read_to_string(entry(version)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let of =
        |version, name: &str| actions(version).into_iter().find(|action| action.get(name).is_some()).unwrap();
    let (mut metadata, mut info, txn) = (of(0, "metaData"), of(newest, "commitInfo"), of(newest, "txn"));
    let table = &mut metadata["metaData"];
    let mut schema: Value = serde_json::from_str(table["schemaString"].as_str().unwrap()).unwrap();
    let column = serde_json::json!({"name": "note", "type": "string", "nullable": true, "metadata": {}});
    schema["fields"].as_array_mut().unwrap().push(column);
    table["schemaString"] = schema.to_string().into();
    table["configuration"]["pond.minWriter"] = "3".into();
    let info_of = &mut info["commitInfo"];
    for number in ["timestamp", "txn_seq"] {
        info_of[number] = (info_of[number].as_u64().unwrap() + 1).into();
    }
    info_of["digest"] = "0".repeat(64).into();
    let text = format!("{info}\n{txn}\n{metadata}\n");
    let digest = blake3::hash(text.as_bytes()).to_hex();
    fs::write(entry(newest + 1), text.replace(&"0".repeat(64), digest.as_str())).unwrap();
}

#[test]
fn a_pond_that_a_newer_program_has_grown_is_read_and_not_written() {
    let (mut pond, store) = format_1();
    pond.set_environment(&[("POND_FIXTURE_STORE", store.to_str().unwrap())]);
    // What the journal held is committed, so that a reader sees it.
    pond.pond(["sync"]);
    let listed = pond.pond(["list"]);
    grow(&pond);
    for writing in [&["sync"][..], &["mkdir", "new"], &["maintain"]] {
        let refused = pond.try_pond(writing).failure(1);
        for words in ["written by a newer pond", "upgrade pond", "until then it can be read"] {
            assert!(refused.contains(words), "{writing:?}: {refused}");
        }
    }
    assert_eq!(pond.pond(["list"]), listed);
    // Some builds of pyarrow abort while Python ends, when all has been said.
    let fields = "import os, sys, deltalake; t = deltalake.DeltaTable(sys.argv[1]); \
        t.to_pyarrow_table(columns=['lsn', 'note']); print([f.name for f in t.schema().fields][-1], flush=True); os._exit(0)";
    let told =
        succeed(python(&["deltalake", "pyarrow"]).args(["-c", fields]).arg(pond.directory().join("data")));
    assert_eq!(told.trim(), "note");
}

#[test]
fn a_pond_of_format_1_opens_recovers_and_replicates() {
    let (mut pond, store) = format_1();
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
