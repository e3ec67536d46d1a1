//! Commands on a pond that is not mounted, and what they say when something is wrong.

mod common;

use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Bed, names, pond, stderr};

#[test]
fn init_makes_a_pond_once_and_only_where_nothing_is() {
    let bed = Bed::empty();
    assert!(bed.ok(["init"]).contains("Made the pond"));
    assert_eq!(fs::metadata(bed.pond()).unwrap().mode() & 0o7777, 0o700);
    assert!(bed.fails(1, ["init"]).contains("is a pond already"));
    let other = bed.write("other/letter", "x");
    let output = pond().arg("--pond").arg(other.parent().unwrap()).arg("init").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("letter"), "{}", stderr(&output));
    assert_eq!(names(other.parent().unwrap()), ["letter"]);
}

#[test]
fn the_pond_is_found_by_option_environment_and_data_directory() {
    let bed = Bed::new();
    let output = pond().env("POND", bed.pond()).args(["status", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let output = pond().env("XDG_DATA_HOME", bed.path("data")).arg("init").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(bed.path("data/pond/data/_delta_log").exists());
    let output =
        pond().env_remove("XDG_DATA_HOME").env("HOME", bed.path("home")).arg("init").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(bed.path("home/.local/share/pond").exists());
}

#[test]
fn files_go_in_and_come_out_as_they_were() {
    let bed = Bed::new();
    let from = bed.path("from");
    bed.write("from/sub/file", "hello");
    bed.write("from/empty", "");
    let big: Vec<u8> = (0..3_000_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
    bed.write("from/big", &big);
    fs::set_permissions(from.join("sub/file"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::hard_link(from.join("sub/file"), from.join("second")).unwrap();
    symlink("sub/file", from.join("link")).unwrap();
    let sparse = fs::File::create(from.join("sparse")).unwrap();
    sparse.write_all_at(b"middle", 5 << 20).unwrap();
    sparse.set_len(20 << 20).unwrap();
    let odd = from.join(std::ffi::OsStr::from_bytes(b"odd\xff\n"));
    fs::write(&odd, "odd").unwrap();
    fs::set_permissions(from.join("sub"), fs::Permissions::from_mode(0o550)).unwrap();

    let copied = &bed.json(["copy", &bed.host("from"), "/"])[0];
    assert_eq!((copied["files"].as_u64(), copied["hard_links"].as_u64()), (Some(5), Some(1)), "{copied}");
    assert_eq!(bed.version(), 1, "a command is one version");
    bed.ok(["copy", "/from", &bed.host("to")]);

    let to = bed.path("to");
    for name in ["sub", "sub/file", "empty", "big", "second", "link", "sparse", "."] {
        let (a, b) =
            (fs::symlink_metadata(from.join(name)).unwrap(), fs::symlink_metadata(to.join(name)).unwrap());
        assert_eq!((a.mode(), a.size(), a.uid(), a.gid()), (b.mode(), b.size(), b.uid(), b.gid()), "{name}");
        assert_eq!((a.mtime(), a.mtime_nsec()), (b.mtime(), b.mtime_nsec()), "{name}");
        if a.is_file() {
            assert!(fs::read(from.join(name)).unwrap() == fs::read(to.join(name)).unwrap(), "{name}");
        }
    }
    assert_eq!(
        fs::metadata(to.join("second")).unwrap().ino(),
        fs::metadata(to.join("sub/file")).unwrap().ino()
    );
    assert_eq!(fs::read_link(to.join("link")).unwrap().to_str(), Some("sub/file"));
    assert!(fs::metadata(to.join("sparse")).unwrap().blocks() * 512 < 4 << 20, "holes stay holes");
    assert!(to.join(odd.file_name().unwrap()).exists());
    assert_eq!(names(&from), names(&to), "no temporary file is left");

    let listed = bed.json(["list", "/from/**"]);
    let odd = listed.iter().find(|entry| entry.get("path_hex").is_some()).unwrap();
    assert_eq!(odd["path_hex"], "2f66726f6d2f6f6464ff0a");
    assert!(bed.ok(["list", "/from"]).contains("/from/odd\\xff\\n"));
}

#[test]
fn old_versions_stay_readable() {
    let bed = Bed::new();
    bed.write("a", "one");
    bed.ok(["copy", &bed.host("a"), "/notes"]);
    let first = bed.version();
    bed.write("a", "two");
    bed.ok(["copy", &bed.host("a"), "/notes"]);
    bed.ok(["mkdir", "later"]);
    assert_eq!(bed.ok(["cat", "notes"]), "two");
    assert_eq!(bed.ok(["cat", &format!("notes@{first}")]), "one");
    assert_eq!(bed.ok(["cat", &format!("notes@{first}"), "notes"]), "onetwo");
    assert_eq!(bed.json(["list", &format!("/@{first}")]).len(), 1);
    assert_eq!(bed.json(["list"]).len(), 2);
    bed.ok(["copy", &format!("notes@{first}"), "notes"]);
    assert_eq!(bed.ok(["cat", "notes"]), "one");
    bed.ok(["copy", "notes", "odd@5"]);
    assert_eq!(bed.ok(["cat", "odd@5@tip"]), "one");
}

#[test]
fn a_version_that_is_not_there_is_named_with_those_that_are() {
    let bed = Bed::new();
    let text = bed.fails(1, ["cat", "a@99"]);
    assert!(text.contains("99") && text.contains("0"), "{text}");
    bed.fails(1, ["show", "99"]);
    bed.fails(2, ["show", "x"]);
    bed.fails(2, ["mount", "/nowhere", "--version", "x"]);
    bed.fails(2, ["mount", "/nowhere", "--timestamp", "yesterday"]);
}

#[test]
fn names_are_made_moved_and_removed() {
    let bed = Bed::new();
    assert!(bed.fails(1, ["mkdir", "a/b/c"]).contains("-p"));
    bed.ok(["mkdir", "-p", "a/b/c"]);
    bed.ok(["mkdir", "-p", "a/b/c"]);
    assert!(bed.fails(1, ["mkdir", "a"]).contains("File exists"));
    bed.write("f", "x");
    bed.ok(["copy", &bed.host("f"), "a/b"]);
    bed.ok(["mv", "a/b/f", "a/g"]);
    bed.ok(["mv", "a/g", "a/b", "/"]);
    assert_eq!(bed.ok(["cat", "/g"]), "x");
    assert!(bed.fails(1, ["mv", "b", "b/c"]).contains("into itself"));
    assert!(bed.fails(2, ["mv", "g", &bed.host("g")]).contains("pond copy"));
    assert!(bed.fails(1, ["rm", "b"]).contains("-r"));
    assert!(bed.fails(1, ["rm", "nothing"]).contains("No such file"));
    bed.ok(["rm", "-f", "nothing"]);
    bed.ok(["rm", "-r", "b", "a", "g"]);
    assert!(bed.ok(["list"]).is_empty());
    assert!(bed.fails(1, ["rm", "-r", "/"]).contains("cannot remove /"));
}

#[test]
fn a_failure_among_several_does_not_stop_the_others() {
    let bed = Bed::new();
    bed.ok(["mkdir", "a", "c"]);
    let text = bed.fails(1, ["rm", "-r", "a", "b", "c"]);
    assert!(text.contains("/b"), "{text}");
    assert!(bed.ok(["list"]).is_empty());
}

#[test]
fn copies_go_where_cp_would_put_them() {
    let bed = Bed::new();
    bed.write("d/f", "x");
    bed.ok(["copy", &bed.host("d"), "new"]);
    bed.ok(["copy", &bed.host("d"), "new"]);
    bed.ok(["copy", &format!("{}/.", bed.host("d")), "/"]);
    let paths: Vec<_> = bed.json(["list", "**"]).iter().map(|entry| entry["path"].clone()).collect();
    assert_eq!(paths, ["/f", "/new", "/new/d", "/new/d/f", "/new/f"]);
    assert!(bed.fails(1, ["copy", &bed.host("d/f"), "missing/"]).contains("No such file"));
    assert!(bed.fails(1, ["copy", "f", "new", "nowhere"]).contains("cannot copy to /nowhere"));
    assert!(bed.fails(1, ["copy", "new", "new/d"]).contains("lies within it"));
    assert!(bed.fails(1, ["copy", "f", "f"]).contains("they are the same"));
    assert!(bed.fails(2, ["copy", &bed.host("d"), &bed.host("e")]).contains("use cp"));
    bed.ok(["copy", "/", &bed.host("all")]);
    assert_eq!(names(&bed.path("all")), ["f", "new"]);
}

#[test]
fn symlinks_do_not_lead_out_of_the_pond() {
    let bed = Bed::new();
    let secret = bed.write("secret", "host");
    let link = bed.path("link");
    symlink(&secret, &link).unwrap();
    bed.ok(["copy", &bed.host("link"), "/link"]);
    assert!(bed.fails(1, ["cat", "link"]).contains("No such file"));
    bed.write("inside", "pond");
    symlink("/inside", bed.path("link2")).unwrap();
    bed.ok(["copy", &bed.host("inside"), &bed.host("link2"), "/"]);
    assert_eq!(bed.ok(["cat", "link2"]), "pond");
}

#[test]
fn list_tells_what_stat_does() {
    let bed = Bed::new();
    bed.write("f", "four");
    fs::set_permissions(bed.path("f"), fs::Permissions::from_mode(0o4751)).unwrap();
    bed.ok(["copy", &bed.host("f"), "/"]);
    let entry = &bed.json(["list"])[0];
    assert_eq!(entry["path"], "/f");
    assert_eq!(entry["kind"], "file");
    assert_eq!(entry["mode"], "4751");
    assert_eq!(entry["size"], 4);
    assert_eq!(entry["nlink"], 1);
    assert_eq!(entry["uid"], fs::metadata(bed.path("f")).unwrap().uid());
    assert!(entry["mtime"].as_str().unwrap().ends_with('Z'));
    assert!(entry.get("path_hex").is_none());
    let table = bed.ok(["list", "*"]);
    assert!(table.contains("-rwsr-x--x") && table.contains("/f"), "{table}");
    assert!(bed.fails(1, ["list", "*.no"]).contains("nothing matches"));
    assert!(bed.fails(1, ["list", "no"]).contains("No such file"));
    bed.fails(2, ["list", "a[*"]);
}

#[test]
fn the_history_says_when_and_by_whom() {
    let bed = Bed::new();
    bed.ok(["mkdir", "a"]);
    bed.ok(["mkdir", "b c"]);
    let log = bed.json(["log"]);
    assert_eq!(log.len(), 3);
    assert_eq!(log[0]["version"], 2);
    assert!(log[0]["origin"]["command"].as_str().unwrap().ends_with("mkdir 'b c'"), "{}", log[0]);
    assert!(log[0]["txn_seq"].as_u64() > log[1]["txn_seq"].as_u64());
    assert!(log[0]["time"].as_str() > log[1]["time"].as_str());
    assert_eq!(bed.json(["log", "-n", "1"]).len(), 1);
    let table = bed.ok(["log"]);
    assert!(table.starts_with("VERSION") && table.lines().count() == 4, "{table}");
}

#[test]
fn show_names_the_paths_that_changed() {
    let bed = Bed::new();
    bed.write("f", "x");
    bed.ok(["mkdir", "d", "e"]);
    bed.ok(["copy", &bed.host("f"), "d/f"]);
    let change = |version: u64| -> Vec<(String, String)> {
        let shown = bed.json(["show", &version.to_string()]);
        let changes = shown[0]["changes"].as_array().unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        changes.iter().map(|change| (text(&change["change"]), text(&change["paths"][0]["path"]))).collect()
    };
    let has = |changes: &[(String, String)], change: &str, path: &str| {
        assert!(changes.contains(&(change.into(), path.into())), "{changes:?}");
    };
    has(&change(1), "created", "/d");
    has(&change(2), "created", "/d/f");
    has(&change(2), "changed", "/d");
    bed.ok(["mv", "d/f", "e/g"]);
    let moved = bed.version();
    has(&change(moved), "moved", "/e/g");
    bed.ok(["rm", "e/g"]);
    has(&change(bed.version()), "removed", "/e/g");
    has(&change(0), "created", "/");
    assert!(bed.ok(["show", &moved.to_string()]).contains("/d/f -> /e/g"));
}

#[test]
fn status_of_a_pond_that_nobody_serves() {
    let bed = Bed::new();
    bed.ok(["mkdir", "a"]);
    let status = &bed.json(["status"])[0];
    assert_eq!(status["mounted"], false);
    assert_eq!(status["version"], 1);
    assert_eq!(status["mode"], "source");
    assert_eq!(status["nodes"], 2);
    assert!(status["pond_id"].as_str().unwrap().len() == 36);
    assert_eq!(bed.json(["status", "--wait-version", "1"])[0]["version"], 1);
    let table = bed.ok(["status"]);
    assert!(table.contains("mounted:") && table.contains("version:"), "{table}");
}

#[test]
fn waiting_for_a_version_ends_when_it_comes() {
    let bed = Bed::new();
    let mut waiting =
        bed.command().args(["status", "--wait-version", "1"]).stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(waiting.try_wait().unwrap().is_none());
    bed.ok(["mkdir", "a"]);
    let start = Instant::now();
    while waiting.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn settings_are_read_and_changed() {
    let bed = Bed::new();
    assert_eq!(bed.ok(["control", "get", "factory_mode:remote"]), "push\n");
    bed.ok(["control", "set", "factory_mode:exec-log", "pull"]);
    assert_eq!(bed.ok(["control", "get", "factory_mode:exec-log"]), "pull\n");
    assert!(bed.json(["control"]).iter().any(|setting| setting["value"] == "pull"));
    assert!(bed.fails(1, ["control", "get", "no_such"]).contains("pond control"));
    assert!(bed.fails(1, ["control", "set", "no such", "x"]).contains("no such"));
    assert!(bed.fails(1, ["control", "set", "factory_mode:remote", "x"]).contains("push"));
    bed.fails(2, ["control", "set", "no_such"]);
}

#[test]
fn a_lost_control_table_is_refused_until_the_role_is_told() {
    let bed = Bed::new();
    fs::remove_dir_all(bed.pond().join("control")).unwrap();
    assert!(bed.fails(1, ["mkdir", "a"]).contains("factory_mode:remote"));
    bed.ok(["control", "set", "factory_mode:remote", "push"]);
    bed.ok(["mkdir", "a"]);
}

#[test]
fn a_factory_runs_on_sync_and_by_hand() {
    let bed = Bed::new();
    let log = bed.path("commits");
    let configuration = bed.write("exec-log.yaml", format!("path: {}\n", log.display()));
    let node = "/etc/system.d/10-log";
    let file = configuration.to_str().unwrap();
    bed.ok(["mknod", "exec-log", node, "--config-path", file]);
    bed.ok(["mkdir", "a"]);
    let report = &bed.json(["sync"])[0];
    assert_eq!(report["factories"][0]["path"], node);
    assert_eq!(report["factories"][0]["failed"], false);
    let lines = fs::read_to_string(&log).unwrap();
    assert_eq!(lines.lines().count() as u64, bed.version() + 1, "{lines}");
    bed.ok(["control", "--mode", "sync"]);
    bed.ok(["run", node]);
    let listed = bed.json(["factories"]);
    assert!(listed.iter().any(|line| line["type"] == "kind" && line["name"] == "exec-log"));
    assert!(listed.iter().any(|line| line["type"] == "node" && line["path"] == node), "{listed:?}");
    assert!(bed.ok(["list", "/etc/system.d"]).contains(node));

    let text = bed.fails(1, ["mknod", "no-such", "/x", "--config-path", file]);
    assert!(text.contains("no-such") && text.contains("exec-log"), "{text}");
    let bad = bed.write("bad.yaml", "colour: blue\n");
    let text = bed.fails(1, ["mknod", "exec-log", "/x", "--config-path", bad.to_str().unwrap()]);
    assert!(text.contains("colour") || text.contains("path"), "{text}");
    assert!(bed.fails(1, ["mknod", "exec-log", "/x", "--config-path", "/no/such"]).contains("/no/such"));
    assert!(bed.fails(1, ["run", "/a"]).contains("not a factory"));
}

#[test]
fn where_there_is_no_pond_each_command_says_so() {
    let bed = Bed::empty();
    for args in [
        &["status"][..],
        &["log"],
        &["show", "0"],
        &["list"],
        &["cat", "a"],
        &["mkdir", "a"],
        &["sync"],
        &["control"],
        &["factories"],
        &["status", "--wait-version", "0"],
    ] {
        let text = bed.fails(1, args);
        assert!(text.contains("there is no pond at") && text.contains("pond init"), "{args:?}: {text}");
        assert!(!bed.pond().exists(), "{args:?} made something");
    }
    bed.write("pond/letter", "x");
    for args in [&["status"][..], &["log"], &["mkdir", "a"]] {
        assert!(bed.fails(1, args).contains("not a pond"), "{args:?}");
    }
    assert_eq!(names(&bed.pond()), ["letter"]);
}

#[test]
fn wrong_usage_exits_with_2() {
    let bed = Bed::new();
    for args in [&["frobnicate"][..], &[], &["cat"], &["copy", "a"], &["log", "-n", "x"], &["cat", "host:/a"]]
    {
        bed.fails(2, args);
    }
    let output = pond().arg("--version").output().unwrap();
    assert!(output.status.success());
}

#[test]
fn a_reader_that_leaves_is_no_error_but_a_full_disk_is() {
    let bed = Bed::new();
    bed.write("big", vec![b'x'; 8 << 20]);
    bed.ok(["copy", &bed.host("big"), "/"]);
    let mut cat =
        bed.command().args(["cat", "big"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(cat.stdout.take());
    let output = cat.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()));
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = bed.command().args(["cat", "big"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("No space left"), "{}", stderr(&output));
}

#[test]
fn a_cat_that_fails_in_the_middle_exits_with_1() {
    let bed = Bed::new();
    // Large enough for a content file of its own, and nothing that a codec could shrink.
    let mut noise = vec![0; 24 << 20];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    bed.write("noise", &noise);
    bed.ok(["copy", &bed.host("noise"), "/"]);
    let largest = fs::read_dir(bed.pond().join("data"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().extension().is_some_and(|kind| kind == "parquet"))
        .max_by_key(|entry| entry.metadata().unwrap().len())
        .unwrap()
        .path();
    let file = fs::File::options().write(true).open(&largest).unwrap();
    let size = file.metadata().unwrap().len();
    // Off the middle, where the small columns of the second row group lie.
    file.write_all_at(&[0x55; 4096], size / 3).unwrap();
    let output = bed.run(["cat", "noise"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(output.stdout.len() < noise.len());
    assert!(stderr(&output).contains("/noise"), "{}", stderr(&output));
}

#[test]
fn errors_and_progress_are_json_where_asked() {
    let bed = Bed::new();
    bed.write("f", "x");
    let output = bed.run(["--log-format", "json", "copy", &bed.host("f"), "/"]);
    assert!(output.status.success());
    let events: Vec<serde_json::Value> =
        stderr(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.first().unwrap()["event"], "copy.started");
    assert_eq!(events.last().unwrap()["event"], "copy.copied");
    let output = bed.run(["--log-format", "json", "cat", "nothing"]);
    let event: serde_json::Value = serde_json::from_str(stderr(&output).trim()).unwrap();
    assert_eq!(
        (event["event"].as_str(), event["what"].as_str()),
        (Some("error"), Some("cannot read /nothing"))
    );
}

#[test]
fn an_interrupted_copy_leaves_whole_files_only() {
    let bed = Bed::new();
    // So that something is listed also if the signal came before anything was copied.
    bed.ok(["mkdir", "marker"]);
    for number in 0..200 {
        bed.write(&format!("many/{number}"), vec![b'x'; 1 << 20]);
    }
    let mut copy =
        bed.command().args(["copy", &bed.host("many"), "/"]).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(400));
    // SAFETY: a signal to our own child, which has not been waited for.
    unsafe { libc::kill(copy.id().cast_signed(), libc::SIGINT) };
    let status = copy.wait().unwrap();
    assert!(!status.success() || bed.json(["list", "many"]).len() == 200, "{status}");
    for entry in bed.json(["list", "**"]) {
        assert!(!entry["path"].as_str().unwrap().contains(".pond-copy-"), "{entry}");
        assert!(entry["kind"] == "directory" || entry["size"] == 1 << 20, "{entry}");
    }
}

#[test]
fn settings_are_shown_with_their_defaults_and_can_be_taken_back() {
    let bed = Bed::new();
    let of = |key: &str| {
        let all = bed.json(["control"]);
        let found = all.iter().find(|setting| setting["key"] == key).unwrap_or_else(|| panic!("{all:?}"));
        (found["value"].as_str().unwrap().to_owned(), found["set"].as_bool().unwrap())
    };
    assert_eq!(of("keep_replaced"), ("24h".to_owned(), false));
    assert_eq!(bed.ok(["control", "get", "keep_replaced"]), "24h\n");
    bed.ok(["control", "set", "keep_replaced", "1h"]);
    assert_eq!(of("keep_replaced"), ("1h".to_owned(), true));
    bed.ok(["control", "unset", "keep_replaced"]);
    assert_eq!(of("keep_replaced"), ("24h".to_owned(), false));
    assert_eq!(of("factory_mode:remote"), ("push".to_owned(), true));
    assert!(bed.fails(1, ["control", "unset", "factory_mode:remote"]).contains("replica"));
    assert!(bed.fails(1, ["control", "get", "no_such"]).contains("there is no setting no_such"));
    assert!(bed.fails(1, ["control", "set", "dirty_budget", "4096TiB"]).contains("memory"));
    assert!(bed.ok(["completions", "bash"]).contains("keep_replaced"));
}

#[test]
fn a_pattern_of_many_double_stars_goes_through_a_deep_tree_once() {
    let bed = Bed::new();
    let deep = "d/".repeat(120);
    bed.ok(["mkdir", "-p", &format!("{deep}bottom")]);
    bed.ok(["mkdir", "-p", "d/side/bottom"]);
    let pattern = format!("{}bottom", "d/**/".repeat(12));
    let found = bed.json(["list", &pattern]);
    assert_eq!(found.len(), 1, "the other one lies too high");
    assert_eq!(found[0]["path"], format!("/{deep}bottom"));
    assert_eq!(bed.json(["list", "d/**/bottom"]).len(), 2);
    assert_eq!(bed.json(["list", "-lR", "d/side"]).len(), 1);
    assert_eq!(bed.json(["list", "-R"]).len(), 123);
}

#[test]
fn what_changes_names_tells_programs_what_it_did() {
    let bed = Bed::new();
    assert_eq!(bed.json(["mkdir", "-p", "a/b"])[0]["path"], "/a/b");
    let moved = &bed.json(["mv", "a/b", "c"])[0];
    assert_eq!((&moved["from"], &moved["to"]), (&"/a/b".into(), &"/c".into()));
    assert_eq!(bed.json(["rm", "-r", "a", "c"])[0]["removed"], 2);
}

#[test]
fn completions_are_for_the_shell_that_was_named() {
    let bed = Bed::empty();
    assert!(bed.ok(["completions", "bash"]).contains("_pond()"));
    bed.fails(2, ["completions", "abacus"]);
}

#[test]
fn a_check_counts_the_ponds_own_versions() {
    let bed = Bed::new();
    bed.ok(["mkdir", "a"]);
    bed.ok(["control", "set", "retention", "30d"]);
    let said = bed.json(["fsck"]);
    let summary = said.last().unwrap();
    assert_eq!(summary["entries"], bed.version() + 1, "{summary}");
    assert!(summary["control_entries"].as_u64().unwrap() > 1, "{summary}");
}
