//! Threads for work that computes and writes, beside the one that waits for the store.

use std::io::{self, Read};
use std::thread::Scope;

use bytes::{Buf, Bytes};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::ReplicateError;

/// Threads of a scope, of which a limited number run at a time.
pub(crate) struct Workers<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    slots: Semaphore,
}

impl<'scope, 'env> Workers<'scope, 'env> {
    /// So many at a time.
    pub(crate) fn new(scope: &'scope Scope<'scope, 'env>, slots: usize) -> Self {
        Workers { scope, slots: Semaphore::new(slots) }
    }

    /// Does something on a thread of its own. It goes on to its end also if nobody waits for it any more.
    pub(crate) async fn run<T: Send + 'scope>(
        &self,
        work: impl FnOnce() -> T + Send + 'scope,
    ) -> Result<T, ReplicateError> {
        let _slot = self.slots.acquire().await.map_err(|error| ReplicateError::Other(error.to_string()))?;
        let (sender, receiver) = oneshot::channel();
        std::thread::Builder::new()
            .name("fetch".into())
            .spawn_scoped(self.scope, move || {
                if sender.send(work()).is_err() {
                    tracing::debug!("nobody waits any more for what a thread has unpacked");
                }
            })
            .map_err(ReplicateError::io("start a thread"))?;
        receiver.await.map_err(|_| ReplicateError::Other("a thread that unpacked a backup panicked".into()))
    }
}

/// Bytes that come in pieces from the thread that waits for the store. It ends where the sender is dropped.
pub(crate) struct Pieces {
    receiver: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Pieces {
    pub(crate) fn new(receiver: mpsc::Receiver<Bytes>) -> Self {
        Pieces { receiver, piece: Bytes::new() }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_read_in_order() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        std::thread::scope(|scope| {
            let workers = Workers::new(scope, 1);
            let (sender, receiver) = mpsc::channel(1);
            let read = runtime.block_on(async {
                let feed = async move {
                    for piece in ["ab", "", "cde"] {
                        sender.send(Bytes::from(piece)).await.unwrap();
                    }
                };
                let read = workers.run(move || {
                    let mut text = String::new();
                    Pieces::new(receiver).read_to_string(&mut text).map(|_| text)
                });
                futures::join!(feed, read).1
            });
            assert_eq!(read.unwrap().unwrap(), "abcde");
        });
    }
}
