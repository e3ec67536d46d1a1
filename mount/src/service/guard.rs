//! Who may look at a node of an old version.
//!
//! Permissions as they were are checked by the kernel. Whether who asks still has them is looked at here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pond_tinyfs::{Attributes as Node, Caller, Errno, NodeId, Since, TinyFs};

use crate::service::processes;
use crate::service::request::Request;

/// For so long a thread's groups are taken to be the same.
const GROUPS_KEPT: Duration = Duration::from_secs(1);

/// To whom old versions show what.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum ShownTo {
    /// To who mounts and root all, to others what they still may.
    #[default]
    Allowed,
    /// To all what they were allowed then.
    All,
}

/// Who is shown what.
pub(crate) struct Guard {
    shown_to: ShownTo,
    /// Who mounts.
    owner: u32,
    /// Groups of threads, by thread, user and group.
    groups: Mutex<HashMap<(u32, u32, u32), Groups>>,
}

/// Supplementary groups, and when they were looked up.
type Groups = (Instant, Arc<[u32]>);

/// What a guard says of a lookup.
pub(crate) enum Verdict {
    Pass,
    Refused(Errno),
    /// It takes a look at all directories.
    Ask(Caller),
}

impl Guard {
    pub(crate) fn new(shown_to: ShownTo, owner: u32) -> Self {
        Guard { shown_to, owner, groups: Mutex::default() }
    }

    fn lets_all_through(&self, by: Request) -> bool {
        by.uid == 0 || by.uid == self.owner || self.shown_to == ShownTo::All
    }

    /// Whether somebody may look at a node, which had this name in this directory. `now` is the tree that there is now.
    pub(crate) fn judge(
        &self,
        by: Request,
        now: Option<&TinyFs>,
        then: &Node,
        (parent, name): (NodeId, &[u8]),
    ) -> Verdict {
        if self.lets_all_through(by) {
            return Verdict::Pass;
        }
        // Nobody knows what holds now.
        let Some(now) = now else { return Verdict::Refused(Errno::ACCES) };
        let caller = Caller::unchecked(by.uid, by.gid, self.groups(by).to_vec());
        match now.allows_since(&caller, then, parent, name) {
            Since::Elsewhere => Verdict::Ask(caller),
            since => verdict(since),
        }
    }

    fn groups(&self, by: Request) -> Arc<[u32]> {
        let key = (by.thread, by.uid, by.gid);
        let mut groups = self.groups.lock();
        if let Some((when, known)) = groups.get(&key)
            && when.elapsed() < GROUPS_KEPT
        {
            return known.clone();
        }
        let found: Arc<[u32]> = processes::groups_of(by.thread).into();
        groups.retain(|_, (when, _)| when.elapsed() < GROUPS_KEPT);
        groups.insert(key, (Instant::now(), found.clone()));
        found
    }
}

pub(crate) fn verdict(since: Since) -> Verdict {
    match since {
        Since::Allowed => Verdict::Pass,
        Since::Refused | Since::Elsewhere => Verdict::Refused(Errno::ACCES),
        Since::Gone => Verdict::Refused(Errno::NOENT),
    }
}
