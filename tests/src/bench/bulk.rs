//! Bulk writes: large files that are new each time, of bytes that compress and of bytes that do not.

use std::fs::{self, File};
use std::io::Write;
use std::time::{Duration, Instant};

use crate::Random;
use crate::bench::{Contender, Figure, Group, Row};

const BULK: Group =
    Group { title: "New files of this size, one fsync at the end", baseline: "passthrough_ll" };
const RANDOM: Row = Row { group: &BULK, name: "random bytes", unit: " MiB/s" };
const PER_PROCESSOR: Row =
    Row { group: &BULK, name: "the same, a second of the daemon's processor time", unit: " MiB/s" };
const AGAIN: Row = Row { group: &BULK, name: "random bytes, after such a file was removed", unit: " MiB/s" };
const COMPRESSIBLE: Row = Row { group: &BULK, name: "bytes that compress to a half", unit: " MiB/s" };

const MIB: usize = 1 << 20;

/// Writes one file of so many MiB of each kind.
pub fn new_files(contender: &Contender, mebibytes: u64) -> Vec<Figure> {
    let random = Random::new(mebibytes).noise(64 * MIB);
    // Of each three bytes two are the same.
    let compressible: Vec<u8> = random.iter().flat_map(|&byte| [byte, b'x', b'x']).take(64 * MIB).collect();
    let (plain, processor) = write(contender, "random", &random, mebibytes);
    let (compressed, _) = write(contender, "compressible", &compressible, mebibytes);
    write(contender, "removed", &random, mebibytes);
    fs::remove_file(contender.directory().join("bulk-removed-0")).expect("remove");
    let (again, _) = write(contender, "removed", &random, mebibytes);
    fs::remove_file(contender.directory().join("bulk-removed-0")).expect("remove");
    let rate = |time: Duration| mebibytes as f64 / time.as_secs_f64();
    let processor = processor.map(|time| (PER_PROCESSOR, rate(time)));
    [(RANDOM, rate(plain)), (COMPRESSIBLE, rate(compressed)), (AGAIN, rate(again))]
        .into_iter()
        .chain(processor)
        .collect()
}

/// How long it took, and what processor time the daemon needed until it rested again.
fn write(contender: &Contender, kind: &str, content: &[u8], mebibytes: u64) -> (Duration, Option<Duration>) {
    // Files stay until the end, so that nobody writes blocks again that were written and given back: some disks (thin images,
    // SSDs) write those in a third of the time.
    let names = (0..).map(|round| contender.directory().join(format!("bulk-{kind}-{round}")));
    let path = names.into_iter().find(|path| !path.exists()).expect("the directory is ours");
    contender.settle();
    let before = contender.processor_time();
    let start = Instant::now();
    let mut file = File::create(&path).expect("create");
    for (_, piece) in (0..mebibytes).zip(content.chunks(MIB).cycle()) {
        file.write_all(piece).expect("write");
    }
    file.sync_all().expect("fsync");
    let written = start.elapsed();
    contender.settle();
    let processor = before.zip(contender.processor_time()).map(|(before, after)| after - before);
    (written, processor)
}
