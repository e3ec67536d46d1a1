//! The data files and the floor of the version that a replica shows, for figures only. What it reads from and cleans by is
//! [`Live`], which stays as it was when the log was opened: rows keep their old places.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::log::action::Action;
use crate::log::live::Live;
use crate::{Floor, PondId};

/// How much history a version has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryFigures {
    /// Data files of the version.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The oldest version that is kept; `None` if all are.
    pub floor: Option<Floor>,
}

/// What came by following.
#[derive(Debug, Default)]
pub(crate) struct Followed(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Files of the version shown and their bytes; `None` as long as it is the one that was opened.
    shown: Option<Shown>,
    /// What the versions ahead change.
    ahead: Changes,
}

#[derive(Debug)]
struct Shown {
    sizes: BTreeMap<String, u64>,
    floor: Option<Floor>,
}

#[derive(Debug, Default)]
struct Changes {
    /// Files that come (with their bytes) and go, in this order.
    files: Vec<(String, Option<u64>)>,
    txns: BTreeMap<String, i64>,
}

impl Followed {
    /// Reading ahead begins, at the version shown.
    pub(crate) fn begin(&self) {
        self.0.lock().ahead = Changes::default();
    }

    /// An action of a version ahead.
    pub(crate) fn note(&self, action: &Action) {
        let ahead = &mut self.0.lock().ahead;
        if let Some(add) = &action.add {
            ahead.files.push((add.path.clone(), Some(add.size)));
        }
        if let Some(remove) = &action.remove {
            ahead.files.push((remove.path.clone(), None));
        }
        if let Some(txn) = &action.txn {
            ahead.txns.insert(txn.app_id.clone(), txn.version);
        }
    }

    /// What was read ahead is shown now.
    pub(crate) fn advance(&self, live: &Live, pond_id: PondId) {
        let mut state = self.0.lock();
        let ahead = std::mem::take(&mut state.ahead);
        let shown = state.shown.get_or_insert_with(|| Shown {
            sizes: live.select(|_| true).into_iter().map(|file| (file.add.path, file.add.size)).collect(),
            floor: live.floor(),
        });
        for (name, size) in ahead.files {
            match size {
                Some(size) => shown.sizes.insert(name, size),
                None => shown.sizes.remove(&name),
            };
        }
        shown.floor = Floor::of(&ahead.txns, pond_id).or(shown.floor);
    }

    /// The figures of the version shown.
    pub(crate) fn figures(&self, live: &Live) -> HistoryFigures {
        match &self.0.lock().shown {
            Some(Shown { sizes, floor }) => {
                HistoryFigures { files: sizes.len() as u64, bytes: sizes.values().sum(), floor: *floor }
            }
            None => {
                let (files, bytes) = live.size();
                HistoryFigures { files, bytes, floor: live.floor() }
            }
        }
    }
}
