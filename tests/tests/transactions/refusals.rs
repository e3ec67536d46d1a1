//! Where no transaction is possible it is said why, and what to do, and nothing has begun.

use std::fs;

use pond_tests::{TestPond, run, succeed};

use crate::{command, pond, txn};

/// Runs it, which must be refused by pond itself with these words.
#[track_caller]
fn refused(command: &mut std::process::Command, words: &[&str]) {
    let said = run(command).failure(125);
    assert!(words.iter().all(|words| said.contains(words)), "{said}");
}

#[test]
fn descriptors_and_directories_that_lead_past_it_are_refused() {
    let pond = pond();
    let mount = pond.mountpoint().display().to_string();
    let version = pond.version();
    // A shell would do this with `>out` and `3<d/f`.
    let shell = |line: &str| {
        let mut shell = pond.marked("sh");
        let pond_command =
            format!("{} --pond {}", pond_tests::pond_binary().display(), pond.directory().display());
        shell.current_dir(pond.mountpoint()).arg("-c").arg(line.replace("pond", &pond_command));
        shell
    };
    refused(&mut shell("pond txn -- true 3<d/f"), &["descriptor 3", "/mnt/d/f", "redirect"]);
    refused(&mut shell("pond txn -- true 5>out"), &["descriptor 5", "/mnt/out"]);
    succeed(&mut shell("cd /; pond txn -- sh -c 'echo > $POND_TXN/inside' 3</dev/null"));
    assert!(pond.path("inside").exists());
    // The same mount elsewhere.
    let elsewhere = pond.host_directory("elsewhere");
    let script = format!(
        "mount --bind {mount} {at}; cd {at}/d; {pond} --pond {directory} txn -- true",
        at = elsewhere.display(),
        pond = pond_tests::pond_binary().display(),
        directory = pond.directory().display()
    );
    refused(&mut pond.in_namespace(&script), &["elsewhere/d", "not below", &mount]);
    // From there the command cannot change the pond itself.
    let script = format!(
        "mount --bind {mount}/d {at}; cd {mount}; test -e {at}/f; \
         {pond} --pond {directory} txn -- sh -ec 'test ! -e {at}/f; echo > by; exit 3' || test $? = 3",
        at = elsewhere.display(),
        pond = pond_tests::pond_binary().display(),
        directory = pond.directory().display()
    );
    succeed(&mut pond.in_namespace(&script));
    assert_eq!(
        pond.version(),
        version + 2,
        "what was refused made no version but `out`'s, which the shell made"
    );
}

#[test]
fn there_is_none_within_another_nor_in_a_scratch_nor_on_a_read_only_mount() {
    let pond = pond();
    let nested = format!(
        "{} --pond {} txn -- sh -c 'echo > nested' || echo $? > code",
        pond_tests::pond_binary().display(),
        pond.directory().display()
    );
    let said = txn(&pond, &[], &nested);
    assert!(said.stderr.contains("one is under way here already"), "{said}");
    said.success();
    assert_eq!(fs::read_to_string(pond.path("code")).unwrap(), "125\n");
    assert!(!pond.path("nested").exists());
    let scratch = pond.mount_beside("scratch", &["--scratch"]);
    refused(command(&pond, &[], "true").current_dir(&scratch), &["lies in a scratch", "scratch"]);
    pond.umount_at(&scratch);
    pond.umount();
    pond.mount_with(&["-o", "ro"]);
    refused(&mut command(&pond, &[], "true"), &["lies in a mount", "cannot be changed"]);
}

#[test]
fn a_replica_is_told_to_run_it_on_the_source() {
    let source = pond();
    let store = source.host_directory("store");
    let yaml = source.host("remote.yaml");
    fs::write(&yaml, format!("storage_type: local\npath: {}\n", store.display())).unwrap();
    let yaml = yaml.to_str().unwrap();
    source.pond(["mknod", "remote", "/etc/system.d/10-remote", "--config-path", yaml]);
    txn(&source, &["-m", "on the source"], "echo taken > over; ln over link; rm kept").success();
    source.sync();
    let replica = TestPond::new();
    replica.pond(["init", "--from-backup", yaml]);
    let words = ["is a replica", "on the source", "--scratch"];
    refused(replica.command().current_dir("/").args(["txn", "--", "true"]), &words);
    replica.mount();
    refused(&mut command(&replica, &[], "true"), &words);
    // It has what the transaction did, and says who did it.
    assert_eq!(fs::read_to_string(replica.path("link")).unwrap(), "taken\n");
    assert!(!replica.path("kept").exists());
    let commits = replica.json(["log", "-n", "5"]);
    assert!(commits.iter().any(|commit| commit["origin"]["message"] == "on the source"), "{commits:?}");
}

#[test]
fn an_ordinary_user_needs_no_more_than_a_user_namespace() {
    let pond = TestPond::new();
    let user = pond.host_directory("user");
    succeed(pond.marked("chown").arg("1234:1234").arg(&user));
    // A device that users may open, as it is on most machines.
    let device = pond.host("fuse");
    succeed(pond.marked("mknod").arg("-m666").arg(&device).args(["c", "10", "229"]));
    let as_user = |script: &str| {
        let mut command = pond.in_namespace(
            "mount --bind $DEVICE /dev/fuse; cd $HOME; exec setpriv --reuid 1234 --regid 1234 --clear-groups sh -ec \"$SCRIPT\"",
        );
        command
            .env("HOME", &user)
            .env("POND", user.join("pond"))
            .env("SCRIPT", script)
            .env("DEVICE", &device);
        command.env("BIN", pond_tests::pond_binary());
        command
    };
    succeed(&mut as_user("$BIN init"));
    let made = "$BIN txn -m mine -- sh -ec 'echo made > $POND_TXN/file; chmod 600 $POND_TXN/file; test $(id -u) = 1234'";
    succeed(&mut as_user(made));
    assert_eq!(succeed(&mut as_user("$BIN cat file")), "made\n");
    let failed = run(&mut as_user("$BIN txn -- sh -c 'rm $POND_TXN/file; exit 9'"));
    failed.failure(9);
    assert_eq!(succeed(&mut as_user("$BIN cat file")), "made\n");
    // Where there is none, it is said what to do.
    let without = "unshare --user --map-current-user --keep-caps sh -ec \
        'echo 0 > /proc/sys/user/max_user_namespaces; exec $BIN txn -- true'";
    refused(&mut as_user(without), &["grants no mount and process namespace", "run it as root"]);
}

#[test]
fn a_command_that_begins_outside_changes_nothing_past_it_by_paths_or_descriptors() {
    let pond = pond();
    let version = pond.version();
    let outside = pond.host("");
    let below = pond.mountpoint().strip_prefix(&outside).unwrap().display().to_string();
    let within = |script: String| {
        let mut command = pond.command();
        command.current_dir(&outside).args(["txn", "--", "sh", "-ec", &script]);
        command
    };
    run(&mut within(format!("echo leak > {below}/leak; echo over > {below}/d/f; exit 3"))).failure(3);
    assert!(!pond.path("leak").exists());
    assert_eq!(fs::read_to_string(pond.path("d/f")).unwrap(), "before\n");
    assert_eq!(pond.version(), version);
    run(&mut within(format!("test $PWD = $(pwd); echo in > {below}/in"))).success();
    assert_eq!(fs::read_to_string(pond.path("in")).unwrap(), "in\n");
    assert_eq!(pond.version(), version + 1);
    // A shell's `5<directory`.
    let mut shell = pond.marked("sh");
    let txn =
        format!("{} --pond {} txn -- true", pond_tests::pond_binary().display(), pond.directory().display());
    shell.current_dir(&outside).arg("-c").arg(format!("{txn} 5<."));
    refused(&mut shell, &["descriptor 5", "directory", "N<&-"]);
    // Not mounted, where the tree lies in the pond's directory.
    pond.umount();
    let script = "case $POND_TXN in $PWD/*) echo > ${POND_TXN#$PWD/}/x;; *) exit 4;; esac; exit 5";
    let mut command = pond.command();
    command.current_dir(pond.directory().canonicalize().unwrap()).args(["txn", "--", "sh", "-ec", script]);
    run(&mut command).failure(5);
    pond.mount();
    assert!(!pond.path("x").exists());
}

#[test]
fn a_mount_that_takes_no_writes_any_more_takes_no_transaction_either() {
    let pond = pond();
    let version = pond.version();
    let said = crate::meanwhile(&pond, &[], &format!("echo > new; {}", crate::PAUSE), || {
        let mount = ["-i", "-o", "remount,ro"];
        succeed(pond.marked("mount").args(mount).arg(pond.mountpoint()));
    });
    assert!(said.failure(125).contains("read-only"));
    succeed(pond.marked("mount").args(["-i", "-o", "remount,rw"]).arg(pond.mountpoint()));
    assert_eq!((pond.path("new").exists(), pond.version()), (false, version));
}
