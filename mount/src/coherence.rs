//! What the kernel has to be told, or asked for, beyond replies, so that nobody sees old attributes or misses bytes.
//!
//! **Attributes.** They may be kept for as good as ever. After a rename, link or unlink the kernel only marks what it
//! has as stale; attributes that left for another thread just before, and arrive just after, then count as fresh. So
//! it is noted for whom a node's attributes last left, and a change on behalf of another thread soon after has the
//! kernel drop them, by a message that also outdates those on their way. One thread at a time never needs that.
//!
//! **What others changed.** A command, a factory or, on a replica, the source: the tree says what is stale, and whoever
//! made it known waits until the kernel was told.
//!
//! **Bytes.** Pages that a program changed through a mapping are in the kernel until it writes them back. What is
//! a hole can be answered only once it has.

pub(crate) mod kernel;
pub(crate) mod stale;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Instant;

use pond_tinyfs::NodeId;

use crate::coherence::kernel::Kernel;
use crate::coherence::stale::Note;
use crate::inodes::table::{Ino, Inodes};

/// Slots of the table of attributes that left: one node a slot, the latest wins.
const SLOTS: usize = 4096;

/// So long attributes may take from the reply until the kernel has put them in place, milliseconds.
const ON_THEIR_WAY: u64 = 1000;

/// Where a node's attributes last went.
#[derive(Default)]
struct Shown {
    node: AtomicU64,
    /// Milliseconds since the start, above the 32 bits of the thread's id.
    when_and_whom: AtomicU64,
}

/// What the thread that tells the kernel is asked for.
enum Order {
    One(Note),
    /// All of these, and then an answer.
    All(Vec<Note>, SyncSender<()>),
}

struct Wire {
    kernel: Arc<dyn Kernel>,
    orders: Sender<Order>,
}

/// The caches of the kernel, for one mount.
pub(crate) struct Coherence {
    inodes: Arc<Inodes>,
    start: Instant,
    shown: Box<[Shown]>,
    wire: OnceLock<Wire>,
}

impl Coherence {
    pub(crate) fn new(inodes: Arc<Inodes>) -> Arc<Self> {
        let shown = (0..SLOTS).map(|_| Shown::default()).collect();
        Arc::new(Coherence { inodes, start: Instant::now(), shown, wire: OnceLock::new() })
    }

    /// From now on the kernel can be told things. Notes go by a thread of their own: from a session thread, or under
    /// a lock, they could wait for themselves.
    pub(crate) fn start(&self, kernel: Arc<dyn Kernel>) -> io::Result<()> {
        let (orders, received) = channel();
        let (for_thread, inodes) = (kernel.clone(), self.inodes.clone());
        thread::Builder::new().name("pond-stale".to_owned()).spawn(move || {
            for order in received {
                match order {
                    Order::One(note) => tell(&*for_thread, &inodes, &[note]),
                    Order::All(notes, told) => {
                        tell(&*for_thread, &inodes, &notes);
                        if told.send(()).is_err() {
                            tracing::debug!("nobody waited until the kernel was told");
                        }
                    }
                }
            }
        })?;
        // Only one session is ever started for a mount.
        drop(self.wire.set(Wire { kernel, orders }));
        Ok(())
    }

    fn slot(&self, node: NodeId) -> &Shown {
        &self.shown[(node.get().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52) as usize % SLOTS]
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// Attributes of a node are about to be looked up for a thread: call it before they are.
    pub(crate) fn show(&self, node: NodeId, thread: u32) {
        let slot = self.slot(node);
        slot.when_and_whom.store(self.now() << 32 | u64::from(thread), Ordering::SeqCst);
        slot.node.store(node.get(), Ordering::SeqCst);
    }

    /// A thread changed attributes of a node in a way that the kernel does not count: call it afterwards.
    pub(crate) fn changed(&self, node: NodeId, thread: u32) {
        let slot = self.slot(node);
        if slot.node.load(Ordering::SeqCst) != node.get() {
            return;
        }
        let when_and_whom = slot.when_and_whom.load(Ordering::SeqCst);
        let recent = self.now().saturating_sub(when_and_whom >> 32) <= ON_THEIR_WAY;
        if recent
            && when_and_whom as u32 != thread
            && let Some(wire) = self.wire.get()
            && wire.orders.send(Order::One(Note::Attributes(node))).is_err()
        {
            tracing::error!("the thread that tells the kernel of stale attributes has ended");
        }
    }

    /// Tells the kernel, and returns once it was told. Not for session threads, and not under a lock. Before the
    /// session has started the kernel knows nothing, and nothing is done.
    pub(crate) fn tell(&self, notes: Vec<Note>) {
        let Some(wire) = self.wire.get().filter(|_| !notes.is_empty()) else { return };
        let (told, answer) = sync_channel(1);
        if wire.orders.send(Order::All(notes, told)).is_err() || answer.recv().is_err() {
            tracing::error!("the thread that tells the kernel what is stale has ended");
        }
    }

    /// Has the kernel drop a name, and all that it knows below and nobody uses. Waits for lookups in that directory; not for
    /// session threads.
    pub(crate) fn drop_name(&self, parent: Ino, name: &[u8]) -> io::Result<()> {
        self.wire.get().map_or(Ok(()), |wire| wire.kernel.drop_name(parent, name))
    }

    /// Has the kernel write back what programs changed in a file through mappings, and drop its pages; those of a
    /// directory are its listing. Blocks until pages that are being read are there; not for session threads.
    pub(crate) fn drop_pages(&self, node: NodeId) -> io::Result<()> {
        match self.wire.get() {
            Some(wire) => Note::Pages(node).tell(&*wire.kernel, &self.inodes),
            None => Ok(()),
        }
    }
}

fn tell(kernel: &dyn Kernel, inodes: &Inodes, notes: &[Note]) {
    let mut refused =
        notes.iter().filter_map(|note| note.tell(kernel, inodes).err().map(|error| (note, error)));
    if let Some((note, error)) = refused.next() {
        let more = refused.count();
        if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOTCONN | libc::ECONNABORTED)) {
            tracing::debug!(%error, "nothing is mounted any more: nobody to tell what is stale");
        } else {
            tracing::warn!(%error, ?note, more, "the kernel was not told all that is stale, and may show it for long");
        }
    }
}
