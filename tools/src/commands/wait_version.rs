//! `pond status --wait-version`.

use std::thread;
use std::time::{Duration, Instant};

use pond_steward::Role;

use crate::context::Context;
use crate::error::{During, Failure, Result};
use crate::target::State;

/// How often it looks.
const WAIT: Duration = Duration::from_millis(100);

/// Returns once a version is here. On a replica that is mounted it is here once the mount shows it, which is
/// some moments after its log entry.
pub(super) fn wait_for(version: u64, limit: Option<Duration>, context: &Context) -> Result {
    let started = Instant::now();
    let failed = |why: String| Failure::new(format!("cannot wait for version {version}"), why);
    let (mut is_source, mut lost) = (false, false);
    loop {
        let (newest, mounted) = match context.pond.state()? {
            State::Mounted(mut daemon) => match daemon.status() {
                Ok(status) => {
                    lost = false;
                    (status["version"].as_u64(), true)
                }
                // It may be ending: then there is no socket in the next round.
                Err(_) if !lost => {
                    lost = true;
                    thread::sleep(WAIT);
                    continue;
                }
                Err(failure) => return Err(failure),
            },
            State::Unmounted => {
                let newest = context.pond.history(Some(1))?;
                (newest.first().map(|commit| commit.position.version.0), false)
            }
        };
        if newest.is_some_and(|newest| newest >= version) {
            return Ok(());
        }
        let newest = newest.map_or("none".to_owned(), |newest| newest.to_string());
        if !mounted && !can_change(context, &mut is_source)? {
            let why = format!("the replica is at {newest}, and nobody follows the source");
            return Err(failed(why).next("mount it, or pull once with `pond sync`"));
        }
        if limit.is_some_and(|limit| started.elapsed() >= limit) {
            let waited = started.elapsed().as_secs();
            return Err(failed(format!("the newest after {waited} s is {newest}")).next("see `pond status`"));
        }
        thread::sleep(WAIT);
    }
}

/// Whether versions may come although no daemon serves the pond: other commands make them on a source, and
/// whoever holds the lock may be pulling. What was once a source is not looked at again.
fn can_change(context: &Context, is_source: &mut bool) -> Result<bool> {
    if *is_source {
        return Ok(true);
    }
    let holder = pond_steward::lock_holder(context.pond.directory());
    if holder.map_err(|error| Failure::because("cannot look at the pond's lock", &error))?.is_some() {
        return Ok(true);
    }
    let role =
        pond_steward::role(context.pond.directory()).during(|| "cannot read the settings".to_owned())?;
    *is_source = role == Role::Source;
    Ok(*is_source)
}
