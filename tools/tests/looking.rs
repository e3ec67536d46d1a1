//! What was, and what differs: `diff`, `log PATH`, and bringing back, on a pond that is not mounted.

mod common;

use std::fs;
use std::process::{Command, Stdio};

use common::Bed;
use serde_json::Value;

/// Changes as `WORD PATH` or `WORD FROM -> TO`.
fn changes(lines: &[Value]) -> Vec<String> {
    let paths = |value: &Value| -> String {
        let paths = value.as_array().into_iter().flatten().map(|path| path["path"].as_str().unwrap());
        paths.collect::<Vec<_>>().join(" ")
    };
    let told = |line: &Value| {
        let (change, before, after) =
            (line["change"].as_str().unwrap(), paths(&line["paths_before"]), paths(&line["paths"]));
        if before.is_empty() { format!("{change} {after}") } else { format!("{change} {before} -> {after}") }
    };
    lines.iter().map(told).collect()
}

#[test]
fn diff_names_what_became_of_paths_and_a_moved_directory_once() {
    let bed = Bed::new();
    bed.write("f", "one\ntwo\n");
    bed.ok(["mkdir", "d", "d/sub"]);
    for name in ["d/a", "d/sub/b", "d/c"] {
        bed.ok(["copy", &bed.host("f"), name]);
    }
    let before = bed.version().to_string();
    bed.write("f", "one\nthree\n");
    bed.ok(["copy", &bed.host("f"), "d/a"]);
    bed.ok(["mv", "d", "e"]);
    bed.ok(["rm", "e/c"]);
    let after = bed.version().to_string();

    // A copy takes the place of what was there: another file of the same name, which counts as the same one.
    let told = changes(&bed.json(["diff", &before, &after]));
    assert!(
        told.contains(&"moved /d -> /e".to_owned()) && told.contains(&"removed /d/c".to_owned()),
        "{told:?}"
    );
    assert!(!told.iter().any(|change| change.contains("sub")), "{told:?}");
    assert_eq!(changes(&bed.json(["diff", &before])), told);
    let back = changes(&bed.json(["diff", &after, &before]));
    assert!(
        back.contains(&"moved /e -> /d".to_owned()) && back.contains(&"created /d/c".to_owned()),
        "{back:?}"
    );

    // A path below a directory that moved: what became of it, and that it moved.
    let within = changes(&bed.json(["diff", &before, "/e/sub"]));
    assert_eq!(within, ["moved /d -> /e"]);
    assert!(bed.fails(1, ["diff", &before, "/nothing"]).contains("neither version"));
    assert!(bed.json(["diff", &after]).is_empty());

    let stat = bed.ok(["diff", &before, "--stat"]);
    assert!(stat.contains("+1 -1  /e/a") && stat.contains("+0 -2  /d/c"), "{stat}");
    let content = bed.ok(["diff", &before, "--content"]);
    assert!(content.contains("--- a/d/a\n+++ b/e/a\n@@ -1,2 +1,2 @@\n one\n-two\n+three\n"), "{content}");
    let table = bed.ok(["diff", &before]);
    assert!(table.starts_with("CHANGE") && table.contains("/d -> /e"), "{table}");
}

#[test]
fn a_file_that_was_saved_by_renaming_another_over_it_is_one_change() {
    let mounted = common::mounted::Mounted::new();
    let bed = &mounted.bed;
    let save = |text: &str| {
        fs::write(mounted.at("dir/.file.new"), text).unwrap();
        fs::rename(mounted.at("dir/.file.new"), mounted.at("dir/file")).unwrap();
        bed.ok(["sync"]);
        bed.version().to_string()
    };
    fs::create_dir(mounted.at("dir")).unwrap();
    let first = save("one\ntwo\n");
    let second = save("one\nthree\n");
    let told = bed.json(["diff", &first, &second]);
    assert_eq!(changes(&told), ["written /dir/file"]);
    assert!(told[0]["replaces"].is_string() && told[0]["content"] == true, "{told:?}");
    assert!(bed.ok(["diff", &first, &second]).contains("written, replaced  file"), "{told:?}");
    let content = bed.ok(["diff", &first, &second, "--content"]);
    assert_eq!(content, "--- a/dir/file\n+++ b/dir/file\n@@ -1,2 +1,2 @@\n one\n-two\n+three\n");
    assert!(bed.ok(["show", &second]).contains("written, replaced"));
    // Saved as it was; and under another name of the directory.
    let third = save("one\nthree\n");
    assert_eq!(changes(&bed.json(["diff", &second, &third])), ["changed /dir/file"]);
    fs::rename(mounted.at("dir"), mounted.at("moved")).unwrap();
    bed.ok(["sync"]);
    assert_eq!(changes(&bed.json(["diff", &first])), ["moved /dir -> /moved", "written /moved/file"]);
    // What is of another kind now is another file.
    fs::remove_file(mounted.at("moved/file")).unwrap();
    fs::create_dir(mounted.at("moved/file")).unwrap();
    bed.ok(["sync"]);
    let told = changes(&bed.json(["diff", &third]));
    assert!(told.contains(&"created /moved/file".into()), "{told:?}");
    assert!(told.contains(&"removed /dir/file".into()), "{told:?}");
}

#[test]
fn diff_shows_lines_of_text_as_patch_reads_them_and_only_says_that_binaries_differ() {
    let mounted = common::mounted::Mounted::new();
    let bed = &mounted.bed;
    fs::write(mounted.at("text"), "a\nb\nc\n").unwrap();
    fs::write(mounted.at("binary"), [0, 1, 2]).unwrap();
    bed.ok(["sync"]);
    let before = bed.version().to_string();
    fs::write(mounted.at("text"), "a\nx\nc\n").unwrap();
    fs::write(mounted.at("binary"), [0, 1, 3]).unwrap();
    bed.ok(["sync"]);
    let content = bed.ok(["diff", &before, "--content"]);
    assert_eq!(
        content,
        "Binary files a/binary and b/binary differ\n--- a/text\n+++ b/text\n@@ -1,3 +1,3 @@\n a\n-b\n+x\n c\n"
    );
    let lines = bed.json(["diff", &before, "--stat"]);
    let text = lines.iter().find(|line| line["paths"][0]["path"] == "/text").unwrap();
    assert_eq!(
        (&text["change"], &text["lines_added"], &text["lines_removed"]),
        (&"written".into(), &1.into(), &1.into())
    );
    // `patch` makes the one of the other.
    let old = bed.write("patched/text", "a\nb\nc\n");
    let patch = bed.write("patch", &content);
    let mut command = Command::new("patch");
    command.args(["-p1", "-i"]).arg(patch).current_dir(old.parent().unwrap()).stdout(Stdio::null());
    if command.status().is_ok_and(|status| status.success()) {
        assert_eq!(fs::read_to_string(old).unwrap(), "a\nx\nc\n");
    }
}

#[test]
fn the_log_of_a_path_follows_the_file_through_its_names_and_says_who_changed_it() {
    let bed = Bed::new();
    bed.write("f", "one");
    bed.ok(["copy", &bed.host("f"), "draft"]);
    bed.ok(["mkdir", "other"]);
    bed.ok(["mv", "draft", "final"]);
    bed.write("f", "longer");
    bed.ok(["copy", &bed.host("f"), "final"]);
    bed.ok(["rm", "final"]);

    let log = bed.json(["log", "final"]);
    let told: Vec<_> = log
        .iter()
        .map(|line| {
            (
                line["version"].as_u64().unwrap(),
                line["change"].as_str().unwrap(),
                line["size"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(told, [(5, "removed", 6), (4, "replaced", 6), (3, "moved", 3), (1, "created", 3)]);
    assert!(log[1]["origin"]["command"].as_str().unwrap().contains("copy"), "{}", log[1]);
    assert_eq!(
        (&log[2]["paths_before"][0]["path"], &log[2]["paths"][0]["path"]),
        (&"/draft".into(), &"/final".into())
    );
    let table = bed.ok(["log", "-n", "2", "/final"]);
    assert!(table.starts_with("VERSION") && table.lines().count() == 3, "{table}");
    assert!(bed.fails(1, ["log", "/never"]).contains("no version that is kept has it"));

    let gone = bed.json(["log", "--deleted"]);
    assert_eq!(gone.len(), 1, "{gone:?}");
    assert_eq!((&gone[0]["path"], &gone[0]["last_version"]), (&"/final".into(), &4.into()));
    assert_eq!(bed.ok(["cat", "final@4"]), "longer");
    assert!(bed.json(["log", "--deleted", "/other/**"]).is_empty());
    assert_eq!(bed.json(["log", "--deleted", "*nal"]).len(), 1);
}

#[test]
fn restore_puts_back_what_a_version_had_and_says_what_it_would_do() {
    let bed = Bed::new();
    bed.write("f", "one");
    bed.ok(["mkdir", "d"]);
    bed.ok(["copy", &bed.host("f"), "d/a"]);
    bed.ok(["copy", &bed.host("f"), "d/b"]);
    let version = bed.version();
    bed.write("f", "two");
    bed.ok(["copy", &bed.host("f"), "d/a"]);
    bed.ok(["rm", "d/b"]);
    bed.ok(["copy", &bed.host("f"), "d/c"]);

    let path = format!("/d@{version}");
    let plan = |args: &[&str]| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        bed.json(args).iter().map(|line| (text(&line["action"]), text(&line["path"]))).collect()
    };
    let planned = plan(&["restore", &path, "--delete", "--dry-run"]);
    for (action, name) in [("write", "/d/a"), ("create", "/d/b"), ("remove", "/d/c")] {
        assert!(planned.contains(&(action.into(), name.into())), "{planned:?}");
    }
    assert_eq!(bed.ok(["cat", "d/a"]), "two");
    let before = bed.version();
    bed.ok(["restore", &path]);
    assert_eq!(bed.version(), before + 1, "one version");
    assert_eq!(
        (bed.ok(["cat", "d/a"]), bed.ok(["cat", "d/b"]), bed.ok(["cat", "d/c"])),
        ("one".into(), "one".into(), "two".into())
    );
    bed.ok(["restore", &path, "--delete"]);
    bed.fails(1, ["cat", "d/c"]);
    assert!(bed.ok(["restore", &path, "--delete"]).contains("Nothing differs"));
    // What is above it comes back too, and elsewhere it goes only where there is a place for it.
    bed.ok(["rm", "-r", "d"]);
    bed.ok(["restore", &format!("/d/a@{version}")]);
    assert_eq!(bed.ok(["cat", "d/a"]), "one");
    assert!(bed.fails(1, ["restore", &path, "--to", "no/such"]).contains("pond mkdir -p"));
    bed.ok(["restore", &path, "--to", "then"]);
    assert_eq!(bed.ok(["cat", "then/b"]), "one");
    assert!(bed.fails(2, ["restore", "/d"]).contains("pond log /d"));
}

#[test]
fn space_tells_what_history_costs_and_what_a_retention_would_free() {
    let bed = Bed::new();
    let noise = pond_tests::Random::new(3).noise(200_000);
    for round in 0..4u8 {
        bed.write("f", noise.iter().map(|byte| byte ^ round).collect::<Vec<u8>>());
        bed.ok(["copy", &bed.host("f"), "f"]);
    }
    let cost = &bed.json(["space"])[0];
    let number = |name: &str| cost[name].as_u64().unwrap();
    assert_eq!(number("needed") + number("history"), number("live"));
    let on_disk: u64 = fs::read_dir(bed.pond().join("data"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().extension().is_some_and(|kind| kind == "parquet"))
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    assert_eq!(number("live") + number("replaced"), on_disk);
    assert!((500_000..700_000).contains(&number("history")), "{cost}");
    assert_eq!(cost["by_age"]["hour"], cost["history"]);
    assert_eq!(cost["retention_would_free"]["1h"], 0);
    let table = bed.ok(["space"]);
    assert!(table.contains("WOULD FREE") && table.contains("NEEDED NOW"), "{table}");
}
