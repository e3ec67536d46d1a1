//! Stored bytes that move: whoever keeps the rows joins data files, and the tree must follow.

use std::collections::HashSet;

use crate::tree::extent::Source;
use crate::tree::node::Body;
use crate::{Moved, TinyFs};

impl TinyFs {
    /// Rows were written anew in other places: from now on the tree names those. Plans that were made before still
    /// name the old places, whose bytes must stay readable until they are carried out.
    pub fn relocated(&self, moved: &[Moved]) {
        // In portions, so that nobody waits long for the lock.
        for portion in moved.chunks(1024) {
            let mut tree = self.changing();
            for Moved { node, offset, length, from, to } in portion {
                if let Some(node) = tree.nodes.get_mut(node)
                    && let Body::File(content) = &mut node.body
                {
                    content.extents.relocate(*offset, *length, *from, *to);
                }
            }
        }
    }

    /// Which of these data files the tree still names: unlinked files that are open may, long after all that the
    /// table holds was moved. Looks at every file's extents.
    pub fn files_in_use(&self, files: &HashSet<u32>) -> HashSet<u32> {
        if files.is_empty() {
            return HashSet::new();
        }
        let tree = self.tree();
        let mut used = HashSet::new();
        let old_versions = tree.inos.iter().flat_map(|inos| inos.frozen.values());
        for node in tree.nodes.values().chain(old_versions) {
            let Body::File(content) = &node.body else { continue };
            for (_, extent) in content.extents.iter() {
                if let Source::Stored(location) | Source::Run(location) = &extent.source
                    && files.contains(&location.file)
                {
                    used.insert(location.file);
                }
            }
        }
        used
    }
}
