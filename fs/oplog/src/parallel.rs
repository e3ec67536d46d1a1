//! Work on several cores, on as many threads as the system grants.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Builder};

use parking_lot::Mutex;

/// The machine's cores.
pub(crate) fn threads() -> usize {
    thread::available_parallelism().map_or(1, |n| n.get())
}

/// Does something with each item, on up to so many threads, of which the caller's is one: where no more can be started,
/// as in a container at its limit of processes, it does all of it. The results are in the items' order.
pub(crate) fn parallel<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let work = || {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(i) else { return };
            let result = work(item);
            done.lock().push((i, result));
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.min(items.len()) {
            if let Err(error) = Builder::new().spawn_scoped(scope, work) {
                tracing::debug!(%error, "no thread more was to be had");
                break;
            }
        }
        work();
    });
    let mut done = done.into_inner();
    done.sort_unstable_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_items_order_however_many_threads_there_are() {
        let items: Vec<u64> = (0..100).collect();
        for threads in [0, 1, 3, 200] {
            let squares = parallel(&items, threads, |n| n * n);
            assert!(squares.iter().enumerate().all(|(i, square)| *square == (i * i) as u64));
        }
        assert!(parallel(&[] as &[u8], 2, |_| ()).is_empty());
    }
}
