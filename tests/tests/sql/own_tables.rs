//! The pond's own tables tell what the tree and the history are.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use pond_tests::{TestPond, succeed};

use crate::answers::{ask, refused, value};

#[test]
fn files_and_entries_are_the_tree_that_a_mount_shows() {
    let pond = TestPond::mounted_with(&["-o", "commit=3600"]);
    fs::create_dir_all(pond.path("a/b")).unwrap();
    fs::write(pond.path("a/one"), "content").unwrap();
    fs::hard_link(pond.path("a/one"), pond.path("a/b/two")).unwrap();
    symlink("../a/one", pond.path("a/link")).unwrap();
    fs::set_permissions(pond.path("a/one"), fs::Permissions::from_mode(0o640)).unwrap();
    succeed(Command::new("setfattr").args(["-n", "user.k", "-v", "v"]).arg(pond.path("a/one")));
    pond.sync();
    let rows = ask(&pond, "SELECT * FROM files ORDER BY path");
    let paths: Vec<&str> = rows.iter().map(|row| row["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/", "/a", "/a/b", "/a/b/two", "/a/link", "/a/one"]);
    for row in &rows {
        let path = row["path"].as_str().unwrap();
        let meta = fs::symlink_metadata(pond.path(path.trim_start_matches('/'))).unwrap();
        for (column, wanted) in [
            ("size", meta.size()),
            ("inode", meta.ino()),
            ("nlink", meta.nlink()),
            ("uid", meta.uid().into()),
            ("mode", (meta.mode() & 0o7777).into()),
        ] {
            assert_eq!(row[column], wanted, "{path}: {column}");
        }
    }
    let one = &rows[5];
    assert_eq!(one["blake3"], blake3::hash(b"content").to_hex().to_string());
    assert_eq!(
        (one["kind"].as_str(), one["directory"].as_str(), one["name"].as_str()),
        (Some("file"), Some("/a"), Some("one"))
    );
    assert_eq!(rows[4]["target"], "../a/one");
    assert_eq!(value(&pond, "SELECT count(*) FROM files WHERE xattrs['user.k'] IS NOT NULL"), 2);
    let entries = ask(&pond, "SELECT directory, name, inode FROM entries ORDER BY path");
    assert_eq!(entries.len(), 5);
    assert_eq!(value(&pond, "SELECT name FROM entries WHERE directory = '/a/b'"), "two");
    assert_eq!(value(&pond, "SELECT count(*) FROM entries WHERE directory IN ('/', '/a')"), 4);
    // Conditions on paths find what the whole tree would have shown.
    for (condition, found) in [
        ("path = '/a/one'", 1),
        ("path IN ('/a', '/a/b', '/nothing')", 2),
        ("path LIKE '/a/%'", 4),
        ("path LIKE '%o%'", 2),
        ("starts_with(path, '/a/b')", 2),
        ("path = '/a/link/x' OR path = '/a/one/x'", 0),
        ("path = '/'", 1),
        ("path <> '/'", 5),
        ("path = '/a/one' AND size > 100", 0),
    ] {
        assert_eq!(
            value(&pond, &format!("SELECT count(*) FROM files WHERE {condition}")),
            found,
            "{condition}"
        );
    }
}

#[test]
fn history_is_what_log_diff_and_control_tell() {
    let pond = TestPond::mounted_with(&["-o", "commit=3600"]);
    fs::write(pond.path("one"), "1").unwrap();
    pond.sync();
    let first = pond.version();
    fs::write(pond.path("one"), "12").unwrap();
    fs::write(pond.path("two"), "2").unwrap();
    pond.sync();
    let second = pond.version();
    pond.pond(["tag", "release", &second.to_string()]);
    let log: BTreeSet<String> = pond.json(["log"]).iter().map(|row| row["digest"].to_string()).collect();
    let versions = ask(&pond, "SELECT * FROM versions");
    assert_eq!(versions.iter().map(|row| row["digest"].to_string()).collect::<BTreeSet<_>>(), log);
    assert_eq!(value(&pond, "SELECT version FROM versions WHERE tags = 'release'"), second);
    assert_eq!(
        value(&pond, &format!("SELECT count(*) FROM versions WHERE version BETWEEN 1 AND {first}")),
        first
    );
    let changes =
        format!("SELECT change, path FROM changes({first}, 'tag:release') WHERE path <> '/' ORDER BY path");
    let changed: Vec<(String, String)> = ask(&pond, &changes)
        .iter()
        .map(|row| (row["change"].as_str().unwrap().to_owned(), row["path"].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(changed, [("written".into(), "/one".into()), ("created".into(), "/two".into())]);
    let history = ask(&pond, "SELECT version, change, size FROM history('/one') ORDER BY version");
    assert_eq!(history.len(), 2, "{history:?}");
    assert_eq!((&history[0]["version"], &history[1]["size"]), (&first.into(), &2.into()));
    assert!(refused(&pond, "SELECT * FROM history('/three')").contains("no version that is kept has /three"));
    let rows = value(&pond, "SELECT count(*) FROM oplog WHERE record = 'extent'");
    assert!(rows.as_u64().unwrap() >= 3, "{rows}");
    assert_eq!(value(&pond, "SELECT value FROM control WHERE key = 'factory_mode:remote'"), "push");
    let tables = ask(&pond, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'");
    assert_eq!(tables.len(), 5);
}

#[test]
fn an_answer_that_is_copied_into_the_pond_is_an_ordinary_version_and_nothing_else_changes_it() {
    for mounted in [true, false] {
        let pond = TestPond::new();
        pond.pond(["init"]);
        if mounted {
            pond.mount();
        }
        let before = value(&pond, "SELECT max(version) FROM versions").as_u64().unwrap();
        let copy = "COPY (SELECT i AS id FROM generate_series(1, 5) t(i)) TO '/out.parquet'";
        assert!(pond.pond(["sql", copy]).contains("wrote 5 rows to /out.parquet"));
        if mounted {
            pond.sync();
        }
        let after = value(&pond, "SELECT max(version) FROM versions").as_u64().unwrap();
        assert!(after > before);
        assert_eq!(value(&pond, "SELECT sum(id) FROM '/out.parquet'"), 15);
        let row = &ask(&pond, "SELECT mode, uid FROM files WHERE path = '/out.parquet'")[0];
        assert_eq!(row["mode"], 0o644, "as the umask has it");
        for (statement, said) in [
            ("COPY (SELECT 1) TO '/no/such/out.csv'", "No such file or directory"),
            ("COPY (SELECT 1) TO '/'", "format"),
            ("COPY (SELECT 1) TO '/out'", "format"),
            ("COPY (SELECT 1) TO '/x.csv' STORED AS NOTHING", "nothing"),
            ("DROP TABLE files", "not possible"),
            ("INSERT INTO files VALUES (1)", "not possible"),
        ] {
            let message = refused(&pond, statement);
            assert!(message.contains(said), "{statement}: {message}");
        }
        pond.pond(["sql", "COPY files TO '/files.csv' OPTIONS (delimiter ';'); SELECT 1"]);
        assert!(pond.pond(["cat", "/files.csv"]).starts_with("path;path_hex;name;"));
        // Queries see what is committed.
        if mounted {
            pond.sync();
        }
        let now = value(&pond, "SELECT count(*) FROM files");
        assert_eq!(now, 3, "nothing else came");
    }
}
