use super::*;

/// Numbers below the one that is asked for, the same at each run (xorshift).
fn random() -> impl FnMut(u64) -> u64 {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    move |n| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % n
    }
}

/// Reads back what open extents hold, holes as zeros.
fn bytes(map: &ExtentMap, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    for (at, extent) in map.iter() {
        if let Source::Open(open) = &extent.source {
            assert_eq!(open.data.len(), extent.length as usize);
            out[at as usize..at as usize + open.data.len()].copy_from_slice(&open.data);
        }
    }
    out
}

#[test]
fn any_pattern_of_writes_and_holes_reads_back_as_a_plain_buffer_would() {
    let mut random = random();
    for round in 0..50 {
        let mut map = ExtentMap::default();
        let mut plain = vec![0u8; 400_000];
        let mut open = 0i64;
        for n in 0..200u64 {
            let start = random(300_000);
            let length = random(if round % 2 == 0 { 500 } else { 100_000 }) + 1;
            let mut opened = Vec::new();
            if random(4) == 0 {
                open += map.carve(start, start + length, &mut opened).open;
                plain[start as usize..(start + length) as usize].fill(0);
            } else {
                let data = vec![n as u8 + 1; length as usize];
                open += map.write(start, &data, Lsn(n), &mut opened).open;
                plain[start as usize..(start + length) as usize].copy_from_slice(&data);
            }
            let covered: i64 = map.iter().map(|(_, extent)| i64::from(extent.length)).sum();
            assert_eq!(open, covered);
        }
        assert!(bytes(&map, plain.len()) == plain);
    }
}

#[test]
fn small_appends_grow_one_extent_up_to_its_window() {
    let mut map = ExtentMap::default();
    let mut opened = Vec::new();
    for n in 0..8u64 {
        map.write(n * 4096, &[1; 4096], Lsn(n), &mut opened);
    }
    assert_eq!(map.iter().count(), 2);
    assert_eq!(opened, vec![0, MAX_EXTENT as u64]);
}

/// A file's blocks of this many bytes, as a model that knows nothing of runs.
const BLOCK: u64 = 4096;

/// Where each block is stored, as the map has it.
fn blocks(map: &ExtentMap, count: usize) -> Vec<Option<(Location, u32)>> {
    let mut out = vec![None; count];
    for (at, extent) in map.iter() {
        let mut position = at;
        for (location, skip, length) in extent.stored_rows(0, extent.length) {
            for n in 0..u64::from(length) / BLOCK {
                out[(position / BLOCK + n) as usize] = Some((location, skip + (n * BLOCK) as u32));
            }
            position += u64::from(length);
        }
        assert_eq!(position, at + u64::from(extent.length));
    }
    out
}

#[test]
fn runs_say_of_each_byte_what_single_rows_would() {
    let mut random = random();
    const WINDOW: u64 = MAX_EXTENT as u64;
    const COUNT: usize = 64 * MAX_EXTENT / BLOCK as usize;
    let mut joined = 0;
    for _ in 0..200 {
        let mut map = ExtentMap::default();
        let mut plain: Vec<Option<(Location, u32)>> = vec![None; COUNT];
        let mut next = 0;
        // What was put: its place in the file and in the table, for moving it.
        let mut rows: Vec<(u64, u32, Location)> = Vec::new();
        for _ in 0..60 {
            match random(4) {
                // Rows that follow each other, as a large write leaves them; the last one may be short.
                0 | 1 => {
                    let file = random(3) as u32;
                    let mut at = random(48) * WINDOW;
                    for left in (0..=random(12)).rev() {
                        let length = match left {
                            0 => (random(WINDOW / BLOCK) + 1) * BLOCK,
                            _ => WINDOW,
                        };
                        let location = Location { file, row: next };
                        next += 1;
                        map.carve(at, at + length, &mut Vec::new());
                        map.put(at, Extent::stored(location, length as u32));
                        rows.push((at, length as u32, location));
                        for n in 0..length / BLOCK {
                            plain[(at / BLOCK + n) as usize] = Some((location, (n * BLOCK) as u32));
                        }
                        at += length;
                    }
                }
                2 => {
                    let start = random(COUNT as u64);
                    let end = (start + random(40)).min(COUNT as u64);
                    map.carve(start * BLOCK, end * BLOCK, &mut Vec::new());
                    plain[start as usize..(end.max(start)) as usize].fill(None);
                }
                // Some rows move to places that follow each other, as a merge moves them.
                _ => {
                    let from = random(rows.len() as u64 + 1) as usize;
                    let until = (from + random(20) as usize).min(rows.len());
                    for (start, length, location) in &mut rows[from..until] {
                        let to = Location { file: 9, row: next };
                        next += 1;
                        map.relocate(*start, *length, *location, to);
                        for block in plain.iter_mut().flatten() {
                            if block.0 == *location {
                                block.0 = to;
                            }
                        }
                        *location = to;
                    }
                }
            }
            assert_eq!(blocks(&map, COUNT), plain);
            joined += map.iter().filter(|(_, extent)| matches!(extent.source, Source::Run(_))).count();
        }
    }
    assert!(joined > 10_000, "{joined} runs are too few to tell");
}

#[test]
fn a_large_file_takes_one_extent_for_each_data_file_that_holds_it() {
    let mut map = ExtentMap::default();
    for n in 0..1000 {
        let location = Location { file: n / 500, row: 7 + n % 500 };
        let length = if n == 999 { 5 } else { MAX_EXTENT as u32 };
        map.put(u64::from(n) * MAX_EXTENT as u64, Extent::stored(location, length));
    }
    assert_eq!(map.iter().count(), 2);
    assert_eq!(map.end(), Some(999 * MAX_EXTENT as u64 + 5));
}

#[test]
fn larger_rows_of_older_ponds_are_no_runs() {
    let mut map = ExtentMap::default();
    let length = 8 * MAX_EXTENT as u32;
    for n in 0..3 {
        let location = Location { file: 1, row: n };
        map.put(u64::from(n * length), Extent::stored(location, length));
    }
    let rows: Vec<_> = map.iter().flat_map(|(_, extent)| extent.stored_rows(0, extent.length)).collect();
    let whole = |row| (Location { file: 1, row }, 0, length);
    assert_eq!(rows, [whole(0), whole(1), whole(2)]);
}

/// Processor time of this thread, in seconds.
fn thread_time() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it is given a pointer to a live value.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) }, 0);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Spills all that is open, as a file that was deleted is spilled.
fn spill(map: &mut ExtentMap, opened: &mut Vec<u64>) {
    for (at, data, lsn) in map.hold_open(std::mem::take(opened)) {
        map.settle_spilled(at, data.len() as u32, lsn, 7);
    }
}

#[test]
fn a_file_that_is_spilled_in_order_takes_few_extents() {
    let (mut map, mut opened) = (ExtentMap::default(), Vec::new());
    let piece = vec![1; 3 * MAX_EXTENT / 2];
    for n in 0..1000u64 {
        map.write(n * piece.len() as u64, &piece, Lsn(n), &mut opened);
        if n % 10 == 9 {
            spill(&mut map, &mut opened);
        }
    }
    assert_eq!(map.iter().count(), 1);
    let bytes: u64 = map.iter().map(|(_, extent)| u64::from(extent.length)).sum();
    assert_eq!(bytes, 1000 * piece.len() as u64);
    for (at, extent) in map.iter() {
        let mut position = at;
        for (location, skip, length) in extent.stored_rows(0, extent.length) {
            assert_eq!(u64::from(location.row) * MAX_EXTENT as u64 + u64::from(skip), position);
            position += u64::from(length);
        }
    }
}

#[test]
fn spilling_a_large_file_a_little_at_a_time_takes_no_longer_for_its_last_part() {
    // A byte of every second 16 KiB of 4 GiB, so that nothing can be joined.
    const WINDOWS: u64 = 128 << 10;
    let measure = || {
        let (mut map, mut opened, mut took) = (ExtentMap::default(), Vec::new(), Vec::new());
        let quarter = WINDOWS / 4;
        for first in (0..WINDOWS).step_by(quarter as usize) {
            let started = thread_time();
            for n in first..first + quarter {
                map.write(2 * n * MAX_EXTENT as u64, b"x", Lsn(n), &mut opened);
                if n % 256 == 255 {
                    spill(&mut map, &mut opened);
                }
            }
            took.push(thread_time() - started);
        }
        assert_eq!(map.iter().count() as u64, WINDOWS);
        took
    };
    let took: Vec<Vec<f64>> = (0..3).map(|_| measure()).collect();
    println!("{took:?}");
    // It was five times as long where the whole file was gone through for each part.
    assert!(took.iter().any(|took| took[3] < 3.0 * took[0]), "{took:?}");
}
