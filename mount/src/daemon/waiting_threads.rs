//! Threads for requests that wait.

use std::io;
use std::time::Duration;

use pond_steward::Priority;
use tokio::runtime::{Builder, Runtime};

/// How long such a thread stays when nothing waits.
const KEEP_WAITING: Duration = Duration::from_secs(24 * 3600);

/// Starts one; there may be so many.
pub(crate) fn start(most: usize) -> io::Result<Runtime> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(most)
        // Where the system grants no more threads, as in a container at its limit, those that there are do all the work:
        // so they stay, and one is there from the beginning.
        .thread_keep_alive(KEEP_WAITING)
        .thread_name("pond-waiting")
        .on_thread_start(|| Priority::Ordinary.take())
        .enable_all()
        .build()?;
    drop(runtime.spawn_blocking(|| ()));
    Ok(runtime)
}
