//! A load of one mutating system call after another, which remembers what it did and what an fsync promised, and can say
//! of any tree whether it is one that the load went through.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use pond_tests::Random;

use crate::model::{Call, Model, Seen};

/// File names in each directory.
const NAMES: u64 = 10;

/// Files of the load that are open at most.
const OPEN: usize = 4;

/// The load on one directory.
pub struct Load {
    root: PathBuf,
    random: Random,
    begin: Model,
    now: Model,
    /// What was done, also what failed.
    calls: Vec<Call>,
    /// Calls that an fsync has made durable: so many, from the first.
    promised: usize,
    /// Open files, by their number in the model. They may have been renamed, or have no name any more.
    open: BTreeMap<usize, File>,
}

impl Load {
    /// On a directory as it is now.
    pub fn new(root: &Path, seed: u64) -> Self {
        let begin = Model::from(&Seen::at(root));
        let (random, now) = (Random::new(seed), begin.clone());
        Load {
            root: root.to_owned(),
            random,
            begin,
            now,
            calls: Vec::new(),
            promised: 0,
            open: BTreeMap::new(),
        }
    }

    /// Makes calls until it is told to stop, or one fails. Whether that one took effect nobody knows.
    pub fn run(&mut self, stop: &AtomicBool) -> io::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let call = self.next_call();
            self.calls.extend(call.operations());
            self.make(&call)?;
            if matches!(call, Call::Fsync { .. } | Call::FsyncRoot) {
                self.promised = self.calls.len();
            }
            self.now.apply(&call);
        }
        self.open.clear();
        Ok(())
    }

    /// Panics unless the directory is as it was after some call, and after all that were promised; how many
    /// calls were made, promised, and found.
    #[track_caller]
    pub fn check(&self) -> (usize, usize, usize) {
        let seen = Seen::at(&self.root);
        let mut state = self.begin.clone();
        let mut too_old = state.matches(&seen).then_some(0);
        for (number, call) in self.calls.iter().enumerate() {
            if number >= self.promised && state.matches(&seen) {
                return (self.calls.len(), self.promised, number);
            }
            state.apply(call);
            if state.matches(&seen) {
                too_old = Some(number + 1);
            }
        }
        if state.matches(&seen) {
            return (self.calls.len(), self.promised, self.calls.len());
        }
        let promised = self.promised;
        let found = match too_old {
            Some(number) => format!("it is as after call {number}: what fsync promised is gone"),
            None => format!("it is as after none of the calls: {}", self.nearest(&seen)),
        };
        panic!(
            "{}: of {} calls {promised} were promised, and {found}",
            self.root.display(),
            self.calls.len()
        );
    }

    /// Which state a tree that is none resembles most, and how it differs from that.
    fn nearest(&self, seen: &Seen) -> String {
        let mut state = self.begin.clone();
        let mut nearest: Option<(usize, String)> = None;
        for number in 0..=self.calls.len() {
            let differences = state.differences(seen);
            let lines = |text: &str| text.lines().count();
            if nearest.as_ref().is_none_or(|(_, least)| lines(&differences) <= lines(least)) {
                nearest = Some((number, differences));
            }
            if let Some(call) = self.calls.get(number) {
                state.apply(call);
            }
        }
        let (number, differences) = nearest.expect("there is a first state");
        let around = number.saturating_sub(30)..(number + 10).min(self.calls.len());
        let calls: Vec<String> =
            around.map(|number| format!("  {number}: {:?}", self.calls[number])).collect();
        format!(
            "\nmost like before call {number}, but for\n{differences}calls around it:\n{}",
            calls.join("\n")
        )
    }

    fn name(&mut self) -> String {
        let directory = *self.random.choose(&["", "d1", "d2"]);
        let file = format!("f{}", self.random.below(NAMES));
        if self.now.has(directory) { format!("{directory}/{file}") } else { file }
    }

    fn next_call(&mut self) -> Call {
        loop {
            if let Some(call) = self.try_call() {
                return call;
            }
        }
    }

    /// A call that makes sense now, if the dice want one.
    fn try_call(&mut self) -> Option<Call> {
        let files = self.now.files();
        let file = if files.is_empty() { None } else { Some(self.random.choose(&files).clone()) };
        let open: Vec<usize> = self.open.keys().copied().collect();
        let open = if open.is_empty() { None } else { Some(*self.random.choose(&open)) };
        match self.random.below(20) {
            0..3 => Some(Call::Create { path: self.name() }),
            3..9 => {
                let length = if self.random.one_in(5) { 20_000 } else { 600 };
                let length = 1 + self.random.below(length) as usize;
                let at = self.random.below(30_000) as usize;
                open.map(|file| Call::Write { file, at, bytes: self.random.bytes(length) })
            }
            9 => open.map(|file| Call::Resize { file, size: self.random.below(50_000) as usize }),
            10..14 => {
                let to = self.name();
                file.filter(|from| *from != to).map(|from| Call::Rename { from, to })
            }
            14 => file.map(|path| Call::Unlink { path }),
            15 => {
                let path = (*self.random.choose(&["d1", "d2"])).to_owned();
                match self.now.has(&path) {
                    false => Some(Call::Mkdir { path }),
                    true => self.now.is_empty(&path).then_some(Call::Rmdir { path }),
                }
            }
            16..19 => open.filter(|_| self.random.one_in(3)).map(|file| Call::Fsync { file }),
            _ => self.random.one_in(3).then_some(Call::FsyncRoot),
        }
    }

    fn make(&mut self, call: &Call) -> io::Result<()> {
        let at = |path: &String| self.root.join(path);
        match call {
            Call::Create { path } => {
                let file = File::options().create(true).truncate(true).write(true).open(at(path))?;
                if self.open.len() == OPEN {
                    self.open.pop_first();
                }
                self.open.insert(self.now.number_after_create(path), file);
                Ok(())
            }
            Call::Write { file, at, bytes } => self.open[file].write_all_at(bytes, *at as u64),
            Call::Resize { file, size } => self.open[file].set_len(*size as u64),
            Call::Rename { from, to } => fs::rename(at(from), at(to)),
            Call::Unlink { path } => fs::remove_file(at(path)),
            Call::Mkdir { path } => fs::create_dir(at(path)),
            Call::Rmdir { path } => fs::remove_dir(at(path)),
            Call::Fsync { file } => self.open[file].sync_all(),
            Call::FsyncRoot => File::open(&self.root)?.sync_all(),
        }
    }
}
