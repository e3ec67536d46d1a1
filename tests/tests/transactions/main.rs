//! `pond txn`: all that a command does becomes one version, or nothing.

mod caches;
mod kills;
mod large;
mod programs;
mod refusals;
mod signals;

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::process::Command;
use std::thread;
use std::time::Duration;

use pond_tests::{Finished, TestPond, run, wait_until};
use serde_json::Value;

/// `pond txn` in the mount, with these arguments and a shell script.
fn command(pond: &TestPond, options: &[&str], script: &str) -> Command {
    let mut command = pond.command();
    command.current_dir(pond.mountpoint()).arg("txn").args(options).args(["--", "sh", "-ec", script]);
    command
}

/// Runs that to its end.
#[track_caller]
fn txn(pond: &TestPond, options: &[&str], script: &str) -> Finished {
    run(&mut command(pond, options, script))
}

/// In a script: says that it has got so far, and waits for the test.
const PAUSE: &str = "echo > $HOST/ready; while ! test -e $HOST/go; do sleep 0.01; done;";

/// Runs a script that contains [`PAUSE`], and does something else meanwhile.
#[track_caller]
fn meanwhile(pond: &TestPond, options: &[&str], script: &str, others: impl FnOnce()) -> Finished {
    let mut command = command(pond, options, script);
    command.env("HOST", pond.host(""));
    thread::scope(|scope| {
        let running = scope.spawn(move || run(&mut command));
        let ready = pond.host("ready");
        wait_until("the command has begun", Duration::from_secs(60), || {
            (ready.exists() || running.is_finished()).then_some(())
        });
        others();
        fs::write(pond.host("go"), "").unwrap();
        let ended = running.join().unwrap();
        fs::remove_file(pond.host("go")).unwrap();
        fs::remove_file(ready).unwrap();
        ended
    })
}

/// The newest versions, as `pond log` has them.
fn log(pond: &TestPond, count: usize) -> Vec<Value> {
    pond.json(["log", "-n", &count.to_string()])
}

fn names(pond: &TestPond) -> Vec<String> {
    let entries = fs::read_dir(pond.mountpoint()).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A mounted pond that commits when told to, with a file `kept` and a directory `d` with `d/f`.
fn pond() -> TestPond {
    let pond = TestPond::mounted_with(&["-o", "commit=3600"]);
    fs::write(pond.path("kept"), "kept\n").unwrap();
    fs::create_dir(pond.path("d")).unwrap();
    fs::write(pond.path("d/f"), "before\n").unwrap();
    pond.sync();
    pond
}

#[test]
fn a_command_that_succeeds_is_one_version_that_says_what_it_was() {
    let pond = pond();
    let begun = pond.version();
    // Others' changes that nobody has committed yet, of before and of meanwhile, are versions of their own.
    fs::write(pond.path("others"), "before").unwrap();
    let script = format!(
        "test $PWD = $POND_TXN; test $(cat others) = before; for n in 1 2 3; do echo $n > n$n; sync; done; mv d e; \
         {PAUSE} test ! -e meanwhile; rm kept"
    );
    let said = meanwhile(&pond, &["-m", "All at\nonce"], &script, || {
        fs::write(pond.path("meanwhile"), "").unwrap();
        assert_eq!(names(&pond), ["d", "kept", "meanwhile", "others"]);
    });
    assert!(said.stderr.contains("is what the command did"), "{said}");
    said.success();
    assert_eq!(names(&pond), ["e", "meanwhile", "n1", "n2", "n3", "others"]);
    let commits = log(&pond, 10);
    assert_eq!(pond.version(), begun + 3);
    let origin = &commits[0]["origin"];
    assert_eq!((&origin["kind"], &origin["message"]), (&"transaction".into(), &"All at\nonce".into()));
    assert!(origin["command"].as_str().unwrap().starts_with("sh -ec 'test $PWD"), "{origin}");
    assert_eq!(commits[1]["origin"]["kind"], "mount");
    assert_eq!(commits[2]["origin"]["kind"], "mount");
    assert!(pond.pond(["log", "-n", "1"]).contains("All at (txn: sh -ec"));
    let shown = pond.json(["show", &pond.version().to_string()]);
    let changes = shown[0]["changes"].as_array().unwrap();
    let path = |change: &Value| change["paths"][0]["path"].as_str().unwrap().to_owned();
    let mut paths: Vec<String> = changes.iter().map(path).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["/", "/e", "/kept", "/n1", "/n2", "/n3"], "{changes:?}");
    // What is open elsewhere has a life of its own, and a transaction that changes nothing makes no version.
    let facts = pond.json([OsStr::new("txn"), "--".as_ref(), "cat".as_ref(), pond.path("n1").as_ref()]);
    assert_eq!(facts[0]["version"], Value::Null);
    assert_eq!(pond.version(), begun + 3);
}

#[test]
fn a_command_that_fails_has_done_nothing_and_its_exit_code_is_ours() {
    let pond = pond();
    let (version, before) = (pond.version(), names(&pond));
    let fails = |script: &str, code: i32, words: &str| {
        let said = txn(&pond, &[], script).failure(code);
        assert!(said.contains(words) && said.contains("nothing has happened"), "{said}");
        assert_eq!((pond.version(), names(&pond)), (version, before.clone()), "{script}");
        assert_eq!(fs::read_to_string(pond.path("d/f")).unwrap(), "before\n");
    };
    fails("echo > new; rm -r d kept; exit 3", 3, "exited with 3");
    fails("echo > new; exit 1", 1, "exited with 1");
    fails("echo after > d/f; kill -SEGV $$", 128 + libc::SIGSEGV, "signal 11");
    // What it left running is ended: it would write for ever.
    fails("while :; do echo >> d/f; done & echo > new; exit 7", 7, "exited with 7");
    let not_run = |program: &str, code: i32| {
        let mut command = pond.command();
        let ended = run(command.current_dir(pond.mountpoint()).args(["txn", "--", program])).failure(code);
        assert!(ended.contains(&format!("cannot run {program}: ")), "{ended}");
        assert_eq!(pond.version(), version);
    };
    not_run("no-such-program", 127);
    not_run("./kept", 126);
    // All of it has gone from the system.
    assert_eq!(pond.processes(), [pond.daemon()]);
}

#[test]
fn it_is_over_when_the_last_process_has_ended() {
    let pond = pond();
    let late = "(sleep 0.7; echo late > late; setsid sh -c 'sleep 0.7; echo later > later' &) & exit 0";
    txn(&pond, &[], late).success();
    assert_eq!(fs::read_to_string(pond.path("late")).unwrap(), "late\n");
    assert_eq!(fs::read_to_string(pond.path("later")).unwrap(), "later\n");
}

#[test]
fn an_unmounted_pond_is_changed_where_the_variable_says() {
    let pond = pond();
    pond.umount();
    let run_it = |script: &str| {
        let mut command = pond.command();
        run(command.current_dir("/").args(["txn", "-m", "unseen", "--", "sh", "-ec", script]))
    };
    run_it("test $PWD = /; cd $POND_TXN; test $(cat d/f) = before; echo after > d/f; exit 0").success();
    run_it("rm -r $POND_TXN/d; exit 4").failure(4);
    assert_eq!(pond.pond(["cat", "d/f"]), "after\n");
    let origin = &log(&pond, 1)[0]["origin"];
    assert_eq!((&origin["kind"], &origin["message"]), (&"transaction".into(), &"unseen".into()));
    assert!(fs::read_dir(pond.directory().join("mirror")).unwrap().next().is_none());
    pond.mount();
    assert_eq!(fs::read_to_string(pond.path("d/f")).unwrap(), "after\n");
}

#[test]
fn what_others_changed_meanwhile_is_told_and_the_command_runs_again_if_that_is_wanted() {
    let pond = pond();
    let script = format!("echo mine >> d/f; echo > new; chmod 600 kept; echo run >> $HOST/runs; {PAUSE}");
    let others = || {
        fs::File::options().append(true).open(pond.path("d/f")).unwrap().write_all(b"theirs\n").unwrap();
        fs::write(pond.path("new"), "theirs").unwrap();
        fs::remove_file(pond.path("kept")).unwrap();
    };
    let said = meanwhile(&pond, &[], &script, others).failure(75);
    for path in ["/d/f: the command changed it, and so did others", "/new: ", "/kept: ", "--retry 3"] {
        assert!(said.contains(path), "{said}");
    }
    assert!(said.contains("nothing has happened"), "{said}");
    assert_eq!(fs::read_to_string(pond.path("d/f")).unwrap(), "before\ntheirs\n");
    fs::remove_file(pond.host("runs")).unwrap();
    fs::write(pond.path("kept"), "again").unwrap();
    fs::remove_file(pond.path("new")).unwrap();
    // The second time nobody comes in between.
    let others = || {
        fs::File::options().append(true).open(pond.path("d/f")).unwrap().write_all(b"theirs\n").unwrap();
    };
    let said = meanwhile(&pond, &["--retry", "1"], &script, others);
    assert!(said.stderr.contains("running it again") && said.stderr.contains("/d/f: "), "{said}");
    said.success();
    assert_eq!(fs::read_to_string(pond.path("d/f")).unwrap(), "before\ntheirs\ntheirs\nmine\n");
    assert_eq!(fs::read_to_string(pond.host("runs")).unwrap(), "run\nrun\n");
    // For programs.
    let said = meanwhile(&pond, &["--json"], &script, others);
    let facts: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!((&facts["version"], &facts["runs"]), (&Value::Null, &1.into()));
    assert_eq!(
        (facts["conflicts"].as_array().unwrap().len(), &facts["conflicts"][0]["path"]),
        (1, &"/d/f".into())
    );
    said.failure(75);
}
