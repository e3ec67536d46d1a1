//! A long history needs few requests, also when the restore is killed half-way and the source goes on writing.

use std::fs;
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

use crate::pair::{Commits, Pair};

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
        let restored = pair.replica.try_pond(["init", "--from-backup", pair.yaml()]);
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

    pair.source.sync();
    pair.replica.pond(["sync"]);
    pair.source.umount();
    pair.assert_identical();
}
