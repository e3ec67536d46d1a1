//! One large file: written, read whole, and read here and there.

use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::time::Instant;

use crate::Random;
use crate::bench::{Contender, Figure, Group, Row};

const LARGE_FILE: Group = Group { title: "A large file", baseline: "passthrough_ll" };
const WRITE: Row = Row { group: &LARGE_FILE, name: "write, one fsync at the end", unit: " MiB/s" };
const COLD: Row = Row { group: &LARGE_FILE, name: "read, cold", unit: " MiB/s" };
const WARM: Row = Row { group: &LARGE_FILE, name: "read again", unit: " MiB/s" };
const RANDOM: Row = Row { group: &LARGE_FILE, name: "4 KiB anywhere, cold", unit: "/s" };

const MIB: usize = 1 << 20;

/// All of it with a file of so many MiB, whose content does not compress, and so many single reads.
pub fn throughput(contender: &Contender, mebibytes: u64, reads: u64) -> Vec<Figure> {
    // What repeats lies further apart than any compressor looks.
    let content = Random::new(mebibytes).bytes(32 * MIB);
    let pieces: Vec<&[u8]> = content.chunks(MIB).collect();
    // It stays, and the next round writes another one: pond keeps what it stored, and on some disks (thin images, SSDs) blocks
    // that were written before are written in a third of the time, and read from a cache below the machine.
    let names = (0..).map(|round| contender.directory().join(format!("large-{round}")));
    let path = names.into_iter().find(|path| !path.exists()).expect("the directory is ours");
    contender.settle();

    let start = Instant::now();
    let mut file = File::create(&path).expect("create");
    for piece in 0..mebibytes as usize {
        file.write_all(pieces[piece % pieces.len()]).expect("write");
    }
    file.sync_all().expect("fsync");
    drop(file);
    let written = start.elapsed();

    let whole = || {
        let mut buffer = vec![0; MIB];
        let start = Instant::now();
        let mut file = File::open(&path).expect("open");
        for _ in 0..mebibytes {
            file.read_exact(&mut buffer).expect("read");
            black_box(&buffer);
        }
        start.elapsed()
    };
    contender.cool();
    let (cold, warm) = (whole(), whole());

    contender.cool();
    let mut random = Random::new(reads);
    let mut block = [0; 4096];
    let start = Instant::now();
    let file = File::open(&path).expect("open");
    for _ in 0..reads {
        let offset = random.below(mebibytes * (MIB as u64 / 4096)) * 4096;
        file.read_exact_at(&mut block, offset).expect("read");
        black_box(&block);
    }
    let here_and_there = start.elapsed();
    [
        (WRITE, mebibytes, written),
        (COLD, mebibytes, cold),
        (WARM, mebibytes, warm),
        (RANDOM, reads, here_and_there),
    ]
    .map(|(row, amount, time)| (row, amount as f64 / time.as_secs_f64()))
    .to_vec()
}
