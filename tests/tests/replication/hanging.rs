//! A store that takes connections and never answers: what was written is committed and said to be safe, and nobody waits for
//! longer than he wants, or without being told what for.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use pond_tests::command::wait_for;
use pond_tests::processes::signal;
use pond_tests::proxy::{Fault, Proxy};
use pond_tests::s3::S3Server;

use crate::pair::{NODE, Pair};

/// Longer than anybody waits here.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// A source that has pushed, and whose store then stops answering.
fn hanging(server: &S3Server) -> (Pair, Proxy) {
    let proxy = server.proxied();
    let mut pair = Pair::with(&S3Server::yaml(&proxy.endpoint()));
    pair.source.set_environment(&server.writer.environment());
    pair.replica.set_environment(&server.reader.environment());
    pair.begin();
    pair.restore();
    proxy.spoil(|_| Some(Fault::Stall(FOR_EVER)));
    (pair, proxy)
}

/// The mounted pond's sync, then the same pond's without a mount.
#[test]
fn a_sync_commits_first_says_what_it_waits_for_and_ends_in_time() {
    let server = S3Server::start();
    let (pair, proxy) = hanging(&server);
    let before = pair.source.version();

    fs::write(pair.source.path("a"), "a").unwrap();
    let said = pair.source.try_pond(["sync", "--timeout", "3s"]);
    assert!(said.took < Duration::from_secs(20), "{said}");
    assert!(said.stdout.contains(&format!("Version {} of", before + 1)), "{said}");
    let said = said.failure(1);
    assert!(
        said.contains(&format!("version {} holds everything; waiting for {NODE}, running for", before + 1)),
        "{said}"
    );
    assert!(said.contains("the sync is not finished") && said.contains("safe in the pond"), "{said}");
    assert!(said.contains("daemon goes on with it"), "{said}");
    assert_eq!(pair.source.version(), before + 1);
    let status = pair.source.pond(["status"]);
    assert!(status.contains("running for"), "{status}");

    // While the first push still hangs.
    fs::write(pair.source.path("b"), "b").unwrap();
    let said = pair.source.try_pond(["sync", "--no-push"]);
    assert!(said.took < Duration::from_secs(10), "{said}");
    assert!(said.success().contains(&format!("Version {} of", before + 2)));

    let mut waiting = pair.source.command().arg("sync").stderr(Stdio::null()).spawn().unwrap();
    assert_eq!(wait_for(&mut waiting, Duration::from_secs(2)), None, "it waits for the push");
    signal(waiting.id() as i32, libc::SIGINT);
    let ended = wait_for(&mut waiting, Duration::from_secs(5)).expect("Ctrl-C ends it at once");
    assert!(!ended.success());

    pair.source.umount();
    pair.source.pond(["sync", "--no-push"]);
    let said = pair.source.try_pond(["sync", "--timeout", "2"]);
    assert!(said.took < Duration::from_secs(10), "{said}");
    let said = said.failure(1);
    assert!(said.contains("waiting for /etc/system.d/10-remote, running for"), "{said}");
    assert!(said.contains("it was broken off"), "{said}");

    // A command that changes something, too, says why it does not end yet.
    let said = pair.source.try_pond(["mkdir", "c"]);
    assert!(said.stderr.contains("pushes and other factories get ten seconds"), "{said}");
    said.success();

    proxy.heal();
    pair.source.pond(["sync"]);
    assert_eq!(pair.source.json(["status"])[0]["factories"][0]["behind"], 0);
}

#[test]
fn a_pull_says_that_it_waits_for_the_store_and_ends_in_time() {
    let server = S3Server::start();
    let (pair, proxy) = hanging(&server);
    let shown = pair.replica.json(["status"])[0]["version"].as_u64().unwrap();
    for mounted in [false, true] {
        if mounted {
            pair.replica.mount();
        }
        let said = pair.replica.try_pond(["sync", "--timeout", "2s"]);
        assert!(said.took < Duration::from_secs(15), "{said}");
        let said = said.failure(1);
        assert!(said.contains("waiting for the backup store"), "{said}");
        assert!(
            said.contains(&format!("the pull has not ended within 2 s; version {shown} is shown")),
            "{said}"
        );
        let said = pair.replica.pond(["sync", "--no-push"]);
        assert!(said.contains(&format!("Version {shown} of")) && said.contains("may have newer"), "{said}");
    }
    proxy.heal();
    pair.replica.umount();
    pair.source.umount();
}
