//! Taking a bundle apart, without trusting it.
//!
//! What may be in a bundle its manifest says: which files, in which order, how long, with which digests. Whatever
//! differs ends the reading: another name (so also one that leads elsewhere), another kind of entry, more bytes.
//! Nothing is read ahead of these checks: tar's extensions, which carry names and sizes of their own, count as
//! entries of another kind, and decompression stops at the size that the manifest's list allows.

use std::io::{self, BufReader, Read, Write};

use bytes::Bytes;
use pond_oplog::{OpLogError, StagedFile, Version};
use tar::EntryType;

use crate::ReplicateError;
use crate::format::FileDigest;

/// A tar's unit: headers take one, and files are filled up to whole ones.
const BLOCK: u64 = 512;
/// What may follow the last file: the end mark and what fills up a tar's record.
const TRAILER: u64 = 20 * BLOCK;
/// Bytes copied at a time.
const COPY: usize = 256 << 10;

/// Why a bundle was not taken.
#[derive(Debug)]
pub(crate) enum UnbundleError {
    /// Its bytes are not what the manifest says.
    Damaged {
        /// The file at which it was seen.
        file: Option<String>,
        /// What is wrong.
        why: String,
    },
    /// Its bytes could not be had.
    Unreadable(io::Error),
    /// A file could not be staged.
    Staging(OpLogError),
}

impl UnbundleError {
    fn damaged(file: &str, why: impl Into<String>) -> Self {
        UnbundleError::Damaged { file: Some(file.to_owned()), why: why.into() }
    }
}

/// What a damaged bundle means.
pub(crate) fn unbundled(key: String, version: Version, error: UnbundleError) -> ReplicateError {
    match error {
        UnbundleError::Damaged { file, why } => {
            let why = match file {
                Some(file) => format!("{file}: {why}"),
                None => why,
            };
            ReplicateError::Corrupt { key, version: Some(version), why }
        }
        UnbundleError::Unreadable(source) => ReplicateError::Io { action: format!("read {key}"), source },
        UnbundleError::Staging(error) => error.into(),
    }
}

/// What becomes of a file.
pub(crate) enum Target {
    /// It is there already: its bytes are passed over.
    Pass,
    /// It is staged, and finished once its digest was found right.
    Stage(StagedFile),
    /// It is given back.
    Keep,
    /// Its digest is looked at, and nothing becomes of it.
    Check,
}

/// Reads a bundle (a tar within one zstd frame), and gives the files that were to be kept, in their order.
///
/// `begin` says of each file what is to become of it. `bundle` gives the compressed bytes and is read to its end; `digest`
/// is the one that they must have, BLAKE3-256 as lowercase hex.
pub(crate) fn unbundle(
    bundle: impl Read,
    digest: &str,
    expected: &[FileDigest],
    mut begin: impl FnMut(&FileDigest) -> Result<Target, OpLogError>,
) -> Result<Vec<Bytes>, UnbundleError> {
    let allowed = expected.iter().try_fold(TRAILER, |sum, file| {
        sum.checked_add(BLOCK)?.checked_add(file.length.checked_next_multiple_of(BLOCK)?)
    });
    let allowed = allowed.ok_or_else(|| UnbundleError::Damaged {
        file: None,
        why: "its files are said to be longer than any can be".into(),
    })?;
    let mut source = Source { inner: bundle, hasher: blake3::Hasher::new(), failed: None };
    let result = read_files(&mut source, allowed, expected, &mut begin);
    // An error of the source shows as one of the decoder.
    if let Some(error) = source.failed.take() {
        return Err(UnbundleError::Unreadable(error));
    }
    let kept = result?;
    if let Err(error) = io::copy(&mut source, &mut io::sink()) {
        return Err(UnbundleError::Unreadable(source.failed.take().unwrap_or(error)));
    }
    let found = source.hasher.finalize().to_hex();
    match found.as_str() == digest {
        true => Ok(kept),
        false => Err(UnbundleError::Damaged {
            file: None,
            why: format!("its digest is {found} and the manifest says {digest}"),
        }),
    }
}

fn read_files<R: Read>(
    source: &mut Source<R>,
    allowed: u64,
    expected: &[FileDigest],
    begin: &mut dyn FnMut(&FileDigest) -> Result<Target, OpLogError>,
) -> Result<Vec<Bytes>, UnbundleError> {
    let general = |why: String| UnbundleError::Damaged { file: None, why };
    let decoder = zstd::stream::read::Decoder::with_buffer(BufReader::with_capacity(COPY, source))
        .map_err(|error| general(format!("it is not zstd: {error}")))?
        .single_frame();
    // One byte more than allowed tells too long from exactly as long.
    let mut archive = tar::Archive::new(decoder.take(allowed + 1));
    let mut buffer = vec![0; COPY];
    let mut kept = Vec::new();
    let mut entries = archive.entries().map_err(|error| general(error.to_string()))?.raw(true);
    for file in expected {
        let name = file.name.as_str();
        let mut entry = match entries.next() {
            Some(entry) => {
                entry.map_err(|error| UnbundleError::damaged(name, format!("before it: {error}")))?
            }
            None => return Err(UnbundleError::damaged(name, "the bundle ends before it")),
        };
        let path = entry.path_bytes();
        if *path != *name.as_bytes() {
            let path = String::from_utf8_lossy(&path).into_owned();
            return Err(UnbundleError::damaged(name, format!("in its place the bundle has {path:?}")));
        }
        if entry.header().entry_type() != EntryType::Regular {
            let kind = entry.header().entry_type();
            return Err(UnbundleError::damaged(
                name,
                format!("it is no regular file in the bundle but {kind:?}"),
            ));
        }
        if entry.size() != file.length {
            let why =
                format!("it has {} bytes in the bundle and {} in the manifest", entry.size(), file.length);
            return Err(UnbundleError::damaged(name, why));
        }
        match begin(file).map_err(UnbundleError::Staging)? {
            Target::Pass => {}
            Target::Stage(mut staged) => {
                copy(&mut entry, file, &mut staged, &mut buffer)?;
                staged.finish().map_err(UnbundleError::Staging)?;
            }
            Target::Check => copy(&mut entry, file, &mut io::sink(), &mut buffer)?,
            Target::Keep => {
                let mut bytes = Vec::new();
                copy(&mut entry, file, &mut bytes, &mut buffer)?;
                kept.push(bytes.into());
            }
        }
    }
    if let Some(entry) = entries.next() {
        let entry = entry.map_err(|error| general(format!("after the last file: {error}")))?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        return Err(general(format!("it has {path:?}, which the manifest does not list")));
    }
    // What follows the end mark only fills up.
    let mut rest = archive.into_inner();
    loop {
        match rest.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) if buffer[..count].iter().all(|&byte| byte == 0) => {}
            Ok(_) => return Err(general("something follows its end".into())),
            Err(error) => return Err(general(error.to_string())),
        }
    }
    match rest.limit() {
        0 => Err(general(format!("it unpacks to more than the {allowed} bytes that the manifest allows"))),
        _ => Ok(kept),
    }
}

/// Copies a file and checks its length and digest.
fn copy(
    entry: &mut impl Read,
    file: &FileDigest,
    target: &mut impl Write,
    buffer: &mut [u8],
) -> Result<(), UnbundleError> {
    let mut hasher = blake3::Hasher::new();
    let mut left = file.length;
    while left > 0 {
        let count =
            entry.read(buffer).map_err(|error| UnbundleError::damaged(&file.name, error.to_string()))?;
        if count == 0 {
            return Err(UnbundleError::damaged(
                &file.name,
                format!("the bundle ends {left} bytes before its end"),
            ));
        }
        hasher.update(&buffer[..count]);
        target.write_all(&buffer[..count]).map_err(|source| {
            UnbundleError::Staging(OpLogError::Io { action: "write", path: file.name.clone().into(), source })
        })?;
        left -= count as u64;
    }
    let found = hasher.finalize().to_hex();
    if found.as_str() != file.blake3 {
        let why = format!("its digest is {found} and the manifest says {}", file.blake3);
        return Err(UnbundleError::damaged(&file.name, why));
    }
    Ok(())
}

/// The compressed bytes on their way: hashed, and with the error that ended them kept apart from the decoder's.
struct Source<R> {
    inner: R,
    hasher: blake3::Hasher,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(count) => {
                self.hasher.update(&buffer[..count]);
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let shown = io::Error::new(error.kind(), error.to_string());
                self.failed = Some(error);
                Err(shown)
            }
        }
    }
}

#[cfg(test)]
mod tests;
