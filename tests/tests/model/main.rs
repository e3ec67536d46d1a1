//! The model: any sequence of system calls gives the same results and errors on a pond as on a directory of the host's
//! filesystem, by root and by others, while commits go on; it leaves the same tree, and the tree is
//! still the same, to the nanosecond, after a remount.
//!
//! `POND_MODEL_CASES` sequences (default 300) from the seed `POND_MODEL_SEED` (default: the time, printed). A sequence
//! that fails is made as short as possible first.

mod operation;
mod world;

use std::cell::Cell;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use operation::{Step, sequence};
use pond_tests::scale::scaled;
use pond_tests::{TestPond, tree};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use tree::Also;
use world::{World, comparable};

/// Sequences between two remounts.
const BATCH: u64 = 100;

/// Both sides, and how many sequences they have seen.
struct Sides {
    pond: TestPond,
    sequences: Cell<u64>,
}

impl Sides {
    /// Runs a sequence on both sides; its name, and what the pond then looks like.
    fn run(&self, steps: &[Step]) -> Result<(String, tree::Tree), TestCaseError> {
        let name = format!("sequence-{}", self.sequences.get());
        self.sequences.set(self.sequences.get() + 1);
        let mut host = World::new(self.pond.host(&name));
        let mut pond = World::new(self.pond.path(&name));
        for (number, step) in steps.iter().enumerate() {
            let (there, here) = (host.apply(step), pond.apply(step));
            if there != here {
                let (there, here) = (told(&there), told(&here));
                return Err(TestCaseError::fail(format!(
                    "step {number}, {step:?}: the host said {there}, the pond {here}"
                )));
            }
        }
        let looks = pond.look();
        let also = Also { mtime: true, ..Also::default() };
        let differences = tree::differences(&comparable(host.look()), &comparable(looks.clone()), also);
        fs::remove_dir_all(self.pond.host(&name)).unwrap();
        match differences.as_str() {
            "" => Ok((name, looks)),
            _ => Err(TestCaseError::fail(format!("host (left) and pond (right):\n{differences}"))),
        }
    }

    /// Remounts; what each of these sequences left is still there.
    fn reload(&self, left: &[(String, tree::Tree)]) -> Result<(), (usize, String)> {
        self.pond.umount();
        self.mount();
        for (number, (name, before)) in left.iter().enumerate() {
            let differences = tree::differences(before, &tree::look_at(&self.pond.path(name)), Also::ALL);
            if !differences.is_empty() {
                return Err((number, format!("before (left) and after (right) a remount:\n{differences}")));
            }
        }
        left.iter().for_each(|(name, _)| fs::remove_dir_all(self.pond.path(name)).unwrap());
        Ok(())
    }

    fn mount(&self) {
        self.pond.mount_with(&["-o", "commit=0.05"]);
    }

    fn run_and_reload(&self, steps: &[Step]) -> Result<(), TestCaseError> {
        let left = self.run(steps)?;
        self.reload(&[left]).map_err(|(_, differences)| TestCaseError::fail(differences))
    }
}

/// An outcome in few words.
fn told(outcome: &world::Outcome) -> String {
    match outcome {
        Ok(bytes) if bytes.len() > 300 => format!("{} bytes, {}", bytes.len(), blake3::hash(bytes).to_hex()),
        Ok(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
        Err(errno) => std::io::Error::from_raw_os_error(*errno).to_string(),
    }
}

#[test]
fn any_sequence_of_calls_does_what_it_does_on_the_host_and_lasts() {
    let cases: u64 = scaled("POND_MODEL_CASES", 300);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed: u64 = scaled("POND_MODEL_SEED", now.as_secs());
    println!("POND_MODEL_SEED={seed}");
    // SAFETY: takes no pointers. Modes must come out as they are asked for, on both sides.
    unsafe { libc::umask(0) };

    let pond = TestPond::with_patience(Duration::from_secs(900 + cases));
    let sides = Sides { pond, sequences: Cell::new(0) };
    sides.mount();
    let strategy = sequence();
    let config = Config { max_shrink_iters: 2_000, failure_persistence: None, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));

    for first in (0..cases).step_by(BATCH as usize) {
        let size = BATCH.min(cases - first);
        let trees: Vec<_> = (0..size).map(|_| strategy.new_tree(&mut runner).unwrap()).collect();
        let mut left = Vec::new();
        let mut broken = None;
        for (number, tree) in trees.iter().enumerate() {
            match sides.run(&tree.current()) {
                Ok(one) => left.push(one),
                Err(error) => {
                    broken = Some((number, error.to_string()));
                    break;
                }
            }
        }
        let live = broken.is_some();
        let broken = broken.or_else(|| sides.reload(&left).err());
        if let Some((number, why)) = broken {
            let tree = trees.into_iter().nth(number).unwrap();
            println!(
                "sequence {} of POND_MODEL_SEED={seed}: {why}\n{:#?}",
                first + number as u64,
                tree.current()
            );
            println!("now looking for a shorter one");
            let shorter = runner.run_one(tree, |steps| {
                if live { sides.run(&steps).map(drop) } else { sides.run_and_reload(&steps) }
            });
            panic!("POND_MODEL_SEED={seed}: {why}\nas short as possible: {shorter:#?}");
        }
    }
    sides.pond.umount();
}
