//! A long history needs few requests, also when the restore is killed half-way and the source goes on writing.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use pond_tests::Random;
use pond_tests::command::run_within;
use pond_tests::processes::signal;
use pond_tests::s3::S3Server;
use pond_tests::scale::scaled;
use pond_tests::wait_until;

use crate::pair::{Commits, Pair, table};

/// How long a step of these tests may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// The same command without `--tip` fills in what `--tip` left out; not while somebody has the replica mounted.
#[test]
fn what_tip_left_out_comes_when_asked_for() {
    // A second base is due after 1,024 versions that weigh enough.
    const VERSIONS: u64 = 1_040;
    let memory = tempfile::Builder::new().prefix("pond-test-").tempdir_in("/dev/shm").unwrap();
    let pair = Pair::in_directory(memory.path(), Duration::from_secs(900));
    pair.source.mount_with(&["-o", "commit=3600"]);
    let mut commits = Commits::of(&pair.source);
    let mut random = Random::new(9);
    let mut write = |number: u64| {
        fs::write(pair.source.path(format!("file-{}", number % 10)), random.bytes(8_000)).unwrap();
        commits.commit();
    };
    (0..VERSIONS).for_each(&mut write);
    pair.add_remote();
    run_within(pair.source.command().arg("sync"), PATIENCE).success();
    (0..10).for_each(&mut write);
    pair.source.sync();
    let held = |pond: &Path| table(pond).into_keys().filter(|name| name.ends_with(".json")).count() as u64;
    let replica = &pair.replica;
    let asked = ["init", "--from-backup", pair.yaml()];
    run_within(replica.command().args(asked).arg("--tip"), PATIENCE).success();
    assert!(held(replica.directory()) < 20);
    assert!(replica.try_pond(["cat", "/file-1@5"]).failure(1).contains('5'));

    replica.mount();
    let told = replica.try_pond(asked).failure(1);
    assert!(told.contains("in use") && told.contains("pond umount"), "{told}");
    pair.commit("while it was refused");
    pair.wait();
    // From here on the source makes no version by itself, as it would to keep the table small.
    pair.source.umount();
    pair.source.mount_with(&["--read-only"]);
    replica.sync();
    let position = replica.position();
    replica.umount();
    // Killed on the way it is a replica all the same.
    let mut command = replica.command();
    command.args(asked).stdout(Stdio::null()).stderr(Stdio::null());
    let mut cut_off = command.spawn().unwrap();
    let before = held(replica.directory());
    wait_until("it has begun to fill in", PATIENCE, || {
        (held(replica.directory()) > before || cut_off.try_wait().unwrap().is_some()).then_some(())
    });
    cut_off.kill().ok();
    cut_off.wait().unwrap();
    replica.mount();
    assert_eq!(replica.position(), position);
    pair.assert_same_trees();
    replica.umount();

    // It may have come to its end before it was killed.
    let filled = run_within(replica.command().args(asked), PATIENCE);
    assert!(filled.status.success() || filled.stderr.contains("is a replica already"), "{filled}");
    pair.assert_identical();
    let told = replica.try_pond(asked).failure(1);
    assert!(told.contains("is a replica already"), "{told}");
    replica.pond(["cat", "/file-1@5"]);
    replica.mount();
    assert_eq!(replica.position(), position);
    pair.source.remount();
    pair.commit("and it follows");
    pair.wait();
    replica.umount();
    pair.finish();
    assert!(replica.pond(["init", "--help"]).contains("fills in the older versions"));
}

#[test]
fn a_long_history_needs_few_requests_and_may_be_cut_off() {
    let versions: u64 = scaled("POND_REPLICATE_VERSIONS", 200);
    let server = S3Server::start();
    let proxy = server.proxied();
    let mut pair = Pair::with(&S3Server::yaml(&proxy.endpoint()));
    pair.source.set_environment(&server.writer.environment());
    pair.replica.set_environment(&server.reader.environment());
    pair.begin();
    let mut commits = Commits::of(&pair.source);
    let mut random = Random::new(5);
    let mut write = |number: u64| {
        fs::write(pair.source.path(format!("file-{}", number % 50)), random.bytes(3_000)).unwrap();
        commits.commit();
    };
    (0..versions).for_each(&mut write);
    // The server takes some forty manifests a second, and one has to be there before the next is put.
    run_within(pair.source.command().arg("sync"), Duration::from_secs(120 + versions / 10)).success();

    proxy.forget();
    let mut command = pair.replica.command();
    command.args(["init", "--from-backup", pair.yaml()]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut cut_off = command.spawn().unwrap();
    let some = (versions / 128) as usize + 1;
    wait_until("the restore has begun", Duration::from_secs(120), || {
        (proxy.log().len() > some || cut_off.try_wait().unwrap().is_some()).then_some(())
    });
    signal(cut_off.id() as i32, libc::SIGKILL);
    cut_off.wait().unwrap();
    let stop = AtomicBool::new(false);
    let meanwhile = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 0.. {
                if stop.load(Ordering::SeqCst) {
                    return number;
                }
                write(number);
                // As often as a mount commits.
                thread::sleep(Duration::from_secs(1));
            }
            0
        });
        let mut restore = pair.replica.command();
        let restored = run_within(restore.args(["init", "--from-backup", pair.yaml()]), PATIENCE);
        stop.store(true, Ordering::SeqCst);
        restored.success();
        writer.join().unwrap()
    });
    let mut log = proxy.forget();
    log.retain(|seen| seen.user == server.reader.key);
    for kind in ["/packs/", "/bundle-", "/manifest.json", "HEAD.json", "timelines/", "list-type"] {
        let requests = log.iter().filter(|seen| format!("{}?{}", seen.key, seen.query).contains(kind));
        println!("{kind}: {}", requests.count());
    }
    println!("{versions} versions: {} requests", log.len());
    // A pack for each 64 versions, two objects for each that is not in a pack yet, also of those that came meanwhile,
    // and some for bearings: at two attempts.
    let most = versions / 64 + 2 * (64 + meanwhile) + 40;
    assert!(log.len() as u64 <= most, "more than {most}; {meanwhile} versions came meanwhile");

    // Unmounting waits for a push only for a while.
    run_within(pair.source.command().arg("sync"), PATIENCE).success();
    pair.finish();
}
