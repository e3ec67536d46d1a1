//! Making bundles: a tar of flat, regular files through one zstd frame, hashed while it is written.
//!
//! The digest is part of a bundle's key, and is known only at its end. A small bundle waits in memory for that; one of more than
//! [`IN_MEMORY`] in a file without a name in `$POND`, which no crash can leave behind. Compressing twice instead would cost
//! more than writing a file that the kernel mostly keeps in its cache.
//!
//! The same files at the same level give the same bytes: headers hold name and length only.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use pond_oplog::{FileRef, Layout, Position, Timeline, Version};
use tempfile::SpooledTempFile;
use tempfile::spooled_tempfile_in;

use crate::ReplicateError;
use crate::format::{
    self, BUNDLE_INPUT, BundleRef, FileDigest, Kind, PACKED_BUNDLE, base_folder, bundle_name,
    checkpoint_name, entry_name, version_folder,
};
use crate::store::Store;

/// Bytes of a bundle that wait in memory; also what may be in a pack, so that those are at hand.
const IN_MEMORY: usize = PACKED_BUNDLE as usize;
const READ: usize = 128 << 10;

/// Input/output error, which has no kind of its own.
const EIO: i32 = 5;
/// What is given up at a time where a disk cannot read.
const PAGE: usize = 4096;

/// What one manifest describes, before anything of it was read: log entry, checkpoint, data files.
pub(crate) struct Contents {
    pub(crate) kind: Kind,
    pub(crate) position: Position,
    inputs: Vec<Input>,
    /// Which of them go into each bundle.
    pub(crate) bundles: Vec<Range<usize>>,
}

struct Input {
    name: String,
    length: u64,
    /// What its digest must be, of what lay on a disk since it was written.
    blake3: Option<String>,
    source: Source,
}

enum Source {
    Bytes(Bytes),
    Path(PathBuf),
}

impl Contents {
    /// What a version added.
    pub(crate) fn of_version(pond: &Path, version: Version) -> Result<Self, ReplicateError> {
        let files = pond_oplog::version_files(pond, version)?;
        Ok(Self::new(pond, Kind::Delta, files.position, files.entry, None, files.added))
    }

    /// Everything live at a version.
    pub(crate) fn of_base(pond: &Path, version: Version) -> Result<Self, ReplicateError> {
        let live = pond_oplog::live_files(pond, version)?;
        let checkpoint = pond_oplog::checkpoint_bytes(pond, version)?;
        Ok(Self::new(pond, Kind::Base, live.position, live.entry, Some(checkpoint), live.files))
    }

    fn new(
        pond: &Path,
        kind: Kind,
        position: Position,
        entry: Bytes,
        checkpoint: Option<Bytes>,
        files: Vec<FileRef>,
    ) -> Self {
        let bytes = |name: String, bytes: Bytes| Input {
            name,
            length: bytes.len() as u64,
            blake3: None,
            source: Source::Bytes(bytes),
        };
        let mut inputs = vec![bytes(entry_name(position.version), entry)];
        inputs.extend(checkpoint.map(|checkpoint| bytes(checkpoint_name(position.version), checkpoint)));
        let data = Layout::new(pond).data();
        inputs.extend(files.into_iter().map(|file| Input {
            source: Source::Path(data.join(&file.name)),
            name: file.name,
            length: file.length,
            blake3: file.blake3,
        }));
        let bundles = split(inputs.iter().map(|input| input.length));
        Contents { kind, position, inputs, bundles }
    }

    /// Bytes of all files.
    pub(crate) fn length(&self) -> u64 {
        self.inputs.iter().map(|input| input.length).sum()
    }

    fn folder(&self) -> String {
        match self.kind {
            Kind::Delta => version_folder(self.position.version),
            Kind::Base => base_folder(self.position.version),
        }
    }

    /// Makes one of the bundles.
    pub(crate) fn build(
        &self,
        bundle: usize,
        level: i32,
        scratch: &Path,
        stop: &AtomicBool,
    ) -> Result<Bundle, ReplicateError> {
        let range = self.bundles[bundle].clone();
        let inputs = &self.inputs[range.clone()];
        let version = self.position.version;
        let failed = || ReplicateError::io(format!("make a bundle of version {version}"));
        let encoder = zstd::Encoder::new(Spool::new(scratch), level).map_err(failed())?;
        let mut tar = tar::Builder::new(encoder);
        let mut files = Vec::with_capacity(inputs.len());
        for input in inputs {
            files.push(input.append(&mut tar, version, stop)?);
        }
        let encoder = tar.into_inner().map_err(failed())?;
        let object = encoder.finish().and_then(Spool::finish).map_err(failed())?;
        let reference = BundleRef {
            key: format!("{}/{}", self.folder(), bundle_name(&object.blake3)),
            length: object.length,
            blake3: object.blake3.clone(),
            unpacked: inputs.iter().map(|input| input.length).sum(),
            first: range.start,
            count: range.len(),
        };
        Ok(Bundle { reference, files, object })
    }
}

/// A bundle that is to be sent.
pub(crate) struct Bundle {
    pub(crate) reference: BundleRef,
    /// Digests of the files in it.
    pub(crate) files: Vec<FileDigest>,
    pub(crate) object: Object,
}

impl Input {
    fn append<W: Write>(
        &self,
        tar: &mut tar::Builder<W>,
        version: Version,
        stop: &AtomicBool,
    ) -> Result<FileDigest, ReplicateError> {
        let failed = |source: io::Error| match source.get_ref() {
            Some(inner) if inner.is::<StopRequested>() => ReplicateError::Stopped { at: version.to_string() },
            _ => ReplicateError::Io { action: format!("read {} of version {version}", self.name), source },
        };
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_path(&self.name).map_err(failed)?;
        header.set_size(self.length);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_cksum();
        let (reader, salvage): (Box<dyn Read + '_>, _) = match &self.source {
            Source::Bytes(bytes) => (Box::new(&bytes[..]), None),
            Source::Path(path) => {
                let salvaged = Salvaged::open(path, self.length).map_err(failed)?;
                let lost = salvaged.lost.clone();
                (Box::new(BufReader::with_capacity(READ, salvaged)), Some(lost))
            }
        };
        let mut reader =
            Digesting { inner: reader.take(self.length), hasher: blake3::Hasher::new(), read: 0, stop };
        tar.append(&header, &mut reader).map_err(failed)?;
        if reader.read != self.length {
            let why = format!("it has {} bytes and the log says {}", reader.read, self.length);
            return Err(failed(io::Error::other(why)));
        }
        let blake3 = reader.hasher.finalize().to_hex().to_string();
        let damaged = match &self.blake3 {
            Some(said) => *said != blake3,
            None => salvage.is_some_and(|lost| lost.load(Ordering::Relaxed)),
        };
        let written = self.blake3.clone().filter(|_| damaged);
        if damaged {
            self.confirm_damage(stop).map_err(failed)?;
            tracing::warn!(
                version = version.0,
                file = self.name,
                "a data file is damaged or gone here and is shipped as it is; `pond fsck` says which paths it concerns"
            );
        }
        Ok(FileDigest { name: self.name.clone(), length: self.length, blake3, damaged, written })
    }

    /// Reads a file once more that was found damaged: fails if it was only this once, so that all is made again.
    fn confirm_damage(&self, stop: &AtomicBool) -> io::Result<()> {
        let (Source::Path(path), Some(said)) = (&self.source, &self.blake3) else { return Ok(()) };
        let salvaged = BufReader::with_capacity(READ, Salvaged::open(path, self.length)?);
        let mut again = Digesting { inner: salvaged, hasher: blake3::Hasher::new(), read: 0, stop };
        io::copy(&mut again, &mut io::sink())?;
        match again.hasher.finalize().to_hex().as_str() == said {
            true => Err(io::Error::other("it was read wrong once, and right the second time")),
            false => Ok(()),
        }
    }
}

/// A data file, or what can be read of it, in the length that the log says: zeros take the place of what is gone.
struct Salvaged {
    /// None if it is gone.
    file: Option<File>,
    at: u64,
    length: u64,
    /// Whether anything was gone.
    lost: Arc<AtomicBool>,
}

impl Salvaged {
    fn open(path: &Path, length: u64) -> io::Result<Self> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            file => Some(file?),
        };
        Ok(Salvaged { file, at: 0, length, lost: Arc::default() })
    }
}

impl Read for Salvaged {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.length - self.at).unwrap_or(usize::MAX));
        let read = match &self.file {
            None => Ok(0),
            Some(file) => file.read_at(&mut buffer[..wanted], self.at),
        };
        let read = match read {
            Ok(0) => wanted,
            // A bad sector: what comes after its page may be read.
            Err(error) if error.raw_os_error() == Some(EIO) => {
                wanted.min(PAGE - usize::try_from(self.at % PAGE as u64).unwrap_or(0))
            }
            Ok(read) => {
                self.at += read as u64;
                return Ok(read);
            }
            Err(error) => return Err(error),
        };
        if read > 0 {
            buffer[..read].fill(0);
            self.lost.store(true, Ordering::Relaxed);
            self.at += read as u64;
        }
        Ok(read)
    }
}

/// Hashes what passes, and ends when the process wants to.
struct Digesting<'a, R> {
    inner: R,
    hasher: blake3::Hasher,
    read: u64,
    stop: &'a AtomicBool,
}

#[derive(Debug, thiserror::Error)]
#[error("the process ends")]
struct StopRequested;

impl<R: Read> Read for Digesting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other(StopRequested));
        }
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.read += read as u64;
        Ok(read)
    }
}

/// Ranges of files for bundles: a new one begins once [`BUNDLE_INPUT`] is in one. At least one, as there is always an entry.
fn split(lengths: impl Iterator<Item = u64>) -> Vec<Range<usize>> {
    let mut bundles = Vec::new();
    let (mut start, mut end, mut sum) = (0, 0, 0u64);
    for length in lengths {
        if end > start && sum.saturating_add(length) > BUNDLE_INPUT {
            bundles.push(start..end);
            (start, sum) = (end, 0);
        }
        end += 1;
        sum = sum.saturating_add(length);
    }
    bundles.push(start..end);
    bundles
}

/// Takes the bytes of an object that is being made.
pub(crate) struct Spool {
    out: SpooledTempFile,
    hasher: blake3::Hasher,
    length: u64,
}

impl Spool {
    /// What does not fit in memory goes into a file without a name in `scratch`.
    pub(crate) fn new(scratch: &Path) -> Self {
        Spool { out: spooled_tempfile_in(IN_MEMORY, scratch), hasher: blake3::Hasher::new(), length: 0 }
    }

    /// Bytes so far.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The finished object.
    pub(crate) fn finish(self) -> io::Result<Object> {
        let body = match self.out.into_inner() {
            tempfile::SpooledData::InMemory(bytes) => Body::Memory(bytes.into_inner().into()),
            tempfile::SpooledData::OnDisk(file) => Body::File(Arc::new(file)),
        };
        Ok(Object { body, length: self.length, blake3: self.hasher.finalize().to_hex().to_string() })
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// An object that is to be sent.
#[derive(Clone)]
pub(crate) struct Object {
    pub(crate) body: Body,
    pub(crate) length: u64,
    pub(crate) blake3: String,
}

/// Where its bytes are.
#[derive(Clone)]
pub(crate) enum Body {
    Memory(Bytes),
    File(Arc<File>),
}

impl Object {
    /// Writes it to the store. Keys of such objects hold their digest, so what is there under the key is the same.
    pub(crate) async fn send(&self, store: &Store, key: &str) -> Result<(), ReplicateError> {
        match &self.body {
            Body::Memory(bytes) => Ok(store.put(key, bytes.clone()).await?),
            Body::File(file) => {
                // Asking costs little beside sending it once more, after a transfer that was cut off.
                if store.length(key).await? == Some(self.length) {
                    return Ok(());
                }
                store.put_file(key, file.clone(), self.length).await
            }
        }
    }

    /// Its bytes, where they are in memory.
    pub(crate) fn bytes(&self) -> Option<&Bytes> {
        match &self.body {
            Body::Memory(bytes) => Some(bytes),
            Body::File(_) => None,
        }
    }
}

/// The manifest of contents whose bundles are made.
pub(crate) fn manifest(
    contents: &Contents,
    bundles: &[(BundleRef, Vec<FileDigest>)],
    stamp: &Stamp<'_>,
) -> Result<format::Manifest, ReplicateError> {
    let mut files = bundles.iter().flat_map(|(_, files)| files.iter().cloned());
    let nothing = || ReplicateError::Other(format!("version {} has no log entry", contents.position.version));
    let entry = files.next().ok_or_else(nothing)?;
    let checkpoint = match contents.kind {
        Kind::Delta => None,
        Kind::Base => Some(files.next().ok_or_else(nothing)?),
    };
    Ok(format::Manifest {
        format: format::FORMAT,
        kind: contents.kind,
        pond_id: stamp.pond_id,
        timeline: stamp.timeline,
        version: contents.position.version.0,
        txn_seq: contents.position.txn_seq.0,
        timestamp: contents.position.timestamp,
        parent: stamp.parent.map(str::to_owned),
        schema: stamp.schema.to_owned(),
        entry,
        checkpoint,
        files: files.collect(),
        bundles: bundles.iter().map(|(reference, _)| reference.clone()).collect(),
    })
}

/// What a manifest says beside its contents.
pub(crate) struct Stamp<'a> {
    pub(crate) pond_id: pond_oplog::PondId,
    pub(crate) timeline: Timeline,
    pub(crate) parent: Option<&'a str>,
    pub(crate) schema: &'a str,
}

#[cfg(test)]
mod tests;
