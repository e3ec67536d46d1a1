//! Spilled bytes: what unlinked files still need, in one file without a name. It ends with the process, as those do.
//!
//! All of them share the file, so that many thousands of deleted files which are still open take one descriptor. It is divided
//! into slots; each spill has a table of those that hold its bytes. Nobody else gets a slot as long as a read or a write of
//! its spill is under way, since that holds on to the spill; then its blocks are given back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use pond_tinyfs::{Errno, Location, MAX_EXTENT, StorageError};

use crate::disk::map::Map;

/// Bytes of a slot. What of it is not written takes no space.
const SLOT: u64 = 256 << 10;

/// A spill of so many slots, 64 MiB, is given back on a thread of its own.
const LARGE: usize = 256;

/// Numbers from here on are those of spills; data files count from 0.
const FIRST: u32 = 1 << 31;

/// The spills of an open pond.
pub(crate) struct Spills {
    shared: Arc<Shared>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    count: u32,
    spills: HashMap<u32, Arc<Spill>>,
}

/// The bytes of one unlinked file.
struct Spill {
    shared: Arc<Shared>,
    /// Which slot holds its n-th [`SLOT`] bytes.
    slots: Mutex<BTreeMap<u64, u32>>,
}

/// The file that all share.
struct Shared {
    directory: PathBuf,
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    /// There is one as long as slots are taken.
    file: Option<Arc<File>>,
    /// All of it, as it was when somebody last shared bytes of it.
    map: Option<Arc<Map>>,
    /// Slots below the end that nobody has.
    free: BTreeSet<u32>,
    end: u32,
}

impl Spills {
    /// None yet; they will take their space from the filesystem of `directory`.
    pub(crate) fn new(directory: &Path) -> Self {
        let shared = Shared { directory: directory.to_path_buf(), slots: Mutex::default() };
        Spills { shared: Arc::new(shared), open: Mutex::default() }
    }

    /// Whether a location lies in a spill.
    pub(crate) fn holds(location: Location) -> bool {
        location.file >= FIRST
    }

    /// Makes one.
    pub(crate) fn create(&self) -> u32 {
        let mut open = self.open.lock();
        let number = FIRST | open.count;
        open.count = (open.count + 1) % FIRST;
        let spill = Spill { shared: self.shared.clone(), slots: Mutex::default() };
        open.spills.insert(number, Arc::new(spill));
        number
    }

    /// Writes into one.
    pub(crate) fn write(&self, number: u32, mut offset: u64, mut data: &[u8]) -> Result<(), StorageError> {
        let spill = self.get(number)?;
        let failed = |error| self.failed("write", error);
        while !data.is_empty() {
            let room = (SLOT - offset % SLOT).min(data.len() as u64) as usize;
            let (now, rest) = data.split_at(room);
            let (file, at) = spill.place(offset).map_err(|error| self.failed("make", error))?;
            file.write_all_at(now, at).map_err(failed)?;
            (offset, data) = (offset + room as u64, rest);
        }
        Ok(())
    }

    /// Reads from one.
    pub(crate) fn read(&self, location: Location, skip: u32, length: u32) -> Result<Bytes, StorageError> {
        let spill = self.get(location.file)?;
        let mut bytes = vec![0; length as usize];
        let mut offset = u64::from(location.row) * MAX_EXTENT as u64 + u64::from(skip);
        let mut rest = &mut bytes[..];
        while !rest.is_empty() {
            let room = (SLOT - offset % SLOT).min(rest.len() as u64) as usize;
            let (now, later) = rest.split_at_mut(room);
            let read = spill.find(offset).and_then(|(file, at)| file.read_exact_at(now, at));
            read.map_err(|error| self.failed("read", error))?;
            (offset, rest) = (offset + room as u64, later);
        }
        Ok(bytes.into())
    }

    /// The same without taking memory: the bytes are those of the file itself, mapped, whose slots nobody else gets for as long as
    /// anybody has them. The spill is not written to any more.
    pub(crate) fn share(&self, location: Location, skip: u32, length: u32) -> Result<Bytes, StorageError> {
        let offset = u64::from(location.row) * MAX_EXTENT as u64 + u64::from(skip);
        if length == 0 || offset % SLOT + u64::from(length) > SLOT {
            return self.read(location, skip, length);
        }
        let spill = self.get(location.file)?;
        let shared = spill.find(offset).and_then(|(file, at)| {
            let map = self.shared.mapped(&file, at + u64::from(length))?;
            map.bytes(at, length as usize, spill.clone())
        });
        shared.map_err(|error| self.failed("map", error))
    }

    /// Gives one back.
    pub(crate) fn close(&self, number: u32) {
        let spill = self.open.lock().spills.remove(&number);
        drop(spill);
    }

    fn get(&self, number: u32) -> Result<Arc<Spill>, StorageError> {
        let found = self.open.lock().spills.get(&number).cloned();
        found.ok_or_else(|| self.failed("find", io::ErrorKind::NotFound.into()))
    }

    fn failed(&self, action: &str, error: io::Error) -> StorageError {
        let directory = self.shared.directory.display();
        let message = format!("cannot {action} a file for what unlinked files hold in {directory}: {error}");
        tracing::error!("{message}");
        let errno = match error.raw_os_error() {
            Some(errno) if Errno(errno).is_full() => errno,
            _ => libc::EIO,
        };
        StorageError::new(message, errno)
    }
}

impl Spill {
    /// Where a byte of it lies in the shared file, or is to lie.
    fn place(&self, offset: u64) -> io::Result<(Arc<File>, u64)> {
        let mut slots = self.slots.lock();
        let slot = match slots.get(&(offset / SLOT)) {
            Some(&slot) => slot,
            None => {
                let slot = self.shared.take()?;
                slots.insert(offset / SLOT, slot);
                slot
            }
        };
        Ok((self.shared.file()?, u64::from(slot) * SLOT + offset % SLOT))
    }

    /// Where a byte of it lies that was written.
    fn find(&self, offset: u64) -> io::Result<(Arc<File>, u64)> {
        let slot = self.slots.lock().get(&(offset / SLOT)).copied().ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok((self.shared.file()?, u64::from(slot) * SLOT + offset % SLOT))
    }
}

impl Drop for Spill {
    /// Freeing the blocks of a large one takes long, and whoever has it last may be answering requests.
    fn drop(&mut self) {
        let slots: BTreeSet<u32> = std::mem::take(self.slots.get_mut()).into_values().collect();
        let given = Given { shared: self.shared.clone(), slots };
        // Where no thread is to be had, they are given back with what was to run on it.
        if given.slots.len() > LARGE
            && let Err(error) =
                std::thread::Builder::new().name("pond-spill".into()).spawn(move || drop(given))
        {
            tracing::debug!(%error, "no thread to give a spill back on");
        }
    }
}

/// Slots that nobody needs any more.
struct Given {
    shared: Arc<Shared>,
    slots: BTreeSet<u32>,
}

impl Drop for Given {
    fn drop(&mut self) {
        self.shared.give_back(&self.slots);
    }
}

impl Shared {
    /// A slot that nobody has.
    fn take(&self) -> io::Result<u32> {
        let mut slots = self.slots.lock();
        if slots.file.is_none() {
            slots.file = Some(Arc::new(tempfile::tempfile_in(&self.directory)?));
        }
        if let Some(slot) = slots.free.pop_first() {
            return Ok(slot);
        }
        let slot = slots.end;
        slots.end = slot.checked_add(1).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(slot)
    }

    /// The file; there is one while the caller has a slot.
    fn file(&self) -> io::Result<Arc<File>> {
        self.slots.lock().file.clone().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The file as memory, up to this byte at least.
    fn mapped(&self, file: &File, end: u64) -> io::Result<Arc<Map>> {
        let mut slots = self.slots.lock();
        if let Some(map) = slots.map.as_ref().filter(|map| map.len() >= end) {
            return Ok(map.clone());
        }
        // In large steps, as each is a mapping of its own.
        let map = Arc::new(Map::new(file, u64::from(slots.end) * SLOT)?);
        slots.map = Some(map.clone());
        Ok(map)
    }

    /// Frees the blocks of these slots, then lets others have them. Once nobody has any, the file goes.
    fn give_back(&self, given: &BTreeSet<u32>) {
        if given.is_empty() {
            return;
        }
        let file = self.file();
        for (first, count) in runs(given) {
            let punched = file.as_ref().map_or(Ok(()), |file| punch(file, first, count));
            if let Err(error) = punched {
                // They keep their blocks until others write there, or the file goes.
                tracing::debug!(%error, "could not free the blocks of a spill");
                break;
            }
        }
        let gone = {
            let mut slots = self.slots.lock();
            slots.free.extend(given);
            match slots.free.len() == slots.end as usize {
                true => std::mem::take(&mut *slots),
                false => Slots::default(),
            }
        };
        // Outside the lock, as closing it may free many blocks.
        drop((file, gone));
    }
}

/// Runs of slots that follow each other: the first, and how many.
fn runs(slots: &BTreeSet<u32>) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &slot in slots {
        match runs.last_mut() {
            Some((first, count)) if *first + *count == slot => *count += 1,
            _ => runs.push((slot, 1)),
        }
    }
    runs
}

/// Frees the blocks of some slots.
fn punch(file: &File, first: u32, count: u32) -> io::Result<()> {
    let too_far = |_| io::Error::from(io::ErrorKind::FileTooLarge);
    let offset = libc::off_t::try_from(u64::from(first) * SLOT).map_err(too_far)?;
    let length = libc::off_t::try_from(u64::from(count) * SLOT).map_err(too_far)?;
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: the descriptor is open as long as the file is borrowed.
    match unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn at(file: u32, offset: u64) -> (Location, u32) {
        let row = (offset / MAX_EXTENT as u64) as u32;
        (Location { file, row }, (offset % MAX_EXTENT as u64) as u32)
    }

    fn read(spills: &Spills, number: u32, offset: u64, length: u32) -> Result<Bytes, StorageError> {
        let (location, skip) = at(number, offset);
        spills.read(location, skip, length)
    }

    /// Blocks of the shared file, if there is one.
    fn blocks(spills: &Spills) -> Option<u64> {
        spills.shared.slots.lock().file.as_ref().map(|file| file.metadata().unwrap().blocks())
    }

    #[test]
    fn bytes_come_back_from_where_they_were_put_and_leave_no_name() {
        let directory = tempfile::tempdir().unwrap();
        let spills = Spills::new(directory.path());
        let number = spills.create();
        spills.write(number, MAX_EXTENT as u64 + 5, b"hello").unwrap();
        // Over the end of a slot, and far away.
        spills.write(number, SLOT - 2, b"slots").unwrap();
        spills.write(number, SLOT << 20, b"far").unwrap();
        let location = Location { file: number, row: 1 };
        assert!(Spills::holds(location));
        assert_eq!(&spills.read(location, 6, 4).unwrap()[..], b"ello");
        assert_eq!(&read(&spills, number, SLOT - 2, 5).unwrap()[..], b"slots");
        assert_eq!(&read(&spills, number, SLOT << 20, 3).unwrap()[..], b"far");
        assert!(read(&spills, number, 5 * SLOT, 1).is_err(), "nothing was written there");
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);
        spills.close(number);
        assert!(spills.read(location, 6, 4).is_err());
        assert_eq!(blocks(&spills), None, "the file goes with the last");
    }

    #[test]
    fn shared_bytes_stay_what_they_are_when_their_spill_is_given_back_and_others_write() {
        let directory = tempfile::tempdir().unwrap();
        let spills = Spills::new(directory.path());
        let (one, other) = (spills.create(), spills.create());
        let share = |number: u32, offset: u64, length: u32| {
            let (location, skip) = at(number, offset);
            spills.share(location, skip, length).unwrap()
        };
        spills.write(one, 0, &[1; 3 * SLOT as usize]).unwrap();
        let shared = [share(one, 5, 100), share(one, 2 * SLOT, MAX_EXTENT as u32)];
        spills.close(one);
        spills.write(other, 0, &[2; 4 * SLOT as usize]).unwrap();
        assert!(shared.iter().all(|bytes| bytes.iter().all(|&byte| byte == 1)));
        assert_eq!(share(other, 3 * SLOT, 9)[..], [2; 9]);
        assert!(spills.share(Location { file: one, row: 0 }, 0, 1).is_err());
        drop(shared);
        assert_eq!(spills.shared.slots.lock().free.len(), 3, "now others may have them");
    }

    #[test]
    fn many_thousands_of_them_take_one_descriptor() {
        let directory = tempfile::tempdir().unwrap();
        let spills = Spills::new(directory.path());
        let numbers: Vec<u32> = (0..5000).map(|_| spills.create()).collect();
        for &number in &numbers {
            spills.write(number, 0, &number.to_le_bytes()).unwrap();
        }
        let ours = directory.path().to_str().unwrap();
        let descriptors = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let descriptors = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
        assert_eq!(
            descriptors.filter(|path| path.to_str().is_some_and(|path| path.contains(ours))).count(),
            1
        );
        for &number in &numbers {
            assert_eq!(&read(&spills, number, 0, 4).unwrap()[..], number.to_le_bytes());
        }
    }

    #[test]
    fn what_is_given_back_frees_its_blocks_and_is_taken_again() {
        let directory = tempfile::tempdir().unwrap();
        let spills = Spills::new(directory.path());
        let (kept, gone) = (spills.create(), spills.create());
        for n in 0..4 {
            spills.write(kept, n * SLOT, &[1; SLOT as usize]).unwrap();
            spills.write(gone, n * SLOT, &[2; SLOT as usize]).unwrap();
        }
        let before = blocks(&spills).unwrap();
        spills.close(gone);
        assert!(blocks(&spills).unwrap() <= before / 2, "{before} and then {:?}", blocks(&spills));
        let next = spills.create();
        spills.write(next, 0, &[3; 2 * SLOT as usize]).unwrap();
        assert_eq!(spills.shared.slots.lock().end, 8);
        assert!((0..4).all(|n| read(&spills, kept, n * SLOT, 9).unwrap()[..] == [1; 9]));
        assert!((0..2).all(|n| read(&spills, next, n * SLOT, 9).unwrap()[..] == [3; 9]));
    }

    #[test]
    fn a_slot_is_nobody_elses_while_its_bytes_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let spills = Spills::new(directory.path());
        let (one, other) = (spills.create(), spills.create());
        spills.write(one, 0, b"of one").unwrap();
        let reader = spills.get(one).unwrap();
        spills.close(one);
        spills.write(other, 0, b"other's").unwrap();
        let (file, place) = reader.find(0).unwrap();
        let mut bytes = [0; 6];
        file.read_exact_at(&mut bytes, place).unwrap();
        assert_eq!(&bytes, b"of one");
        drop(reader);
        assert_eq!(spills.shared.slots.lock().free.len(), 1);
    }

    #[test]
    fn runs_are_slots_that_follow_each_other() {
        assert_eq!(runs(&BTreeSet::from([7, 1, 2, 3, 8, 10])), [(1, 3), (7, 2), (10, 1)]);
    }
}
