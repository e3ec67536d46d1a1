//! What the tests use is there. Of all that starts processes cargo runs this first, so that who runs `cargo test` on a new
//! machine is told at once of everything that is missing, and not of a piece of it after minutes.

use pond_tests::tools;

#[test]
fn what_the_tests_use_is_there() {
    let missing = tools::missing();
    assert!(
        missing.is_empty(),
        "the tests use programs that are missing here; `tests/run` installs them (as root on Debian) and runs the tests:\n  {}",
        missing.join("\n  ")
    );
    tools::need_root();
}
