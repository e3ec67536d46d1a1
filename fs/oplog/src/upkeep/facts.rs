//! What pruning must know of the rows up to the floor, a range of nodes at a time, so that memory is bounded whatever a pond holds.
//!
//! The fate of a row depends on rows of the same node alone. So the nodes are taken in the order of their numbers, as many at a time
//! as the budget holds: when more come than that, those with the higher numbers are let go of, and left to the next pass over the
//! files. Only a single node whose rows take more than the budget is held whole.

use pond_tinyfs::NodeId;

use crate::upkeep::dead_rows::Fact;

/// The facts of some nodes.
#[derive(Debug)]
pub(crate) struct Facts {
    facts: Vec<Fact>,
    from: NodeId,
    below: Option<NodeId>,
    held: usize,
    budget: usize,
    /// Once so much is held, nodes are let go of.
    most: usize,
}

impl Facts {
    /// Takes the nodes from this one on, as many as these bytes hold.
    pub(crate) fn from(from: NodeId, budget: usize) -> Self {
        Facts { facts: Vec::new(), from, below: None, held: 0, budget, most: budget }
    }

    /// Whether rows of this node are wanted.
    pub(crate) fn concern(&self, node: NodeId) -> bool {
        node >= self.from && self.below.is_none_or(|below| node < below)
    }

    /// Whether rows of some of these nodes are wanted.
    pub(crate) fn concern_any(&self, first: NodeId, last: NodeId) -> bool {
        last >= self.from && self.below.is_none_or(|below| first < below)
    }

    /// Takes a fact of a node that is wanted.
    pub(crate) fn push(&mut self, fact: Fact) {
        if self.facts.len() == self.facts.capacity() {
            // Doubling would take twice the budget.
            let rest = self.most.saturating_sub(self.held) / size_of::<Fact>() + 1;
            self.facts.reserve_exact(rest.min(self.facts.len().max(64)));
        }
        self.held += fact.held();
        self.facts.push(fact);
        if self.held > self.most {
            self.let_go();
        }
    }

    /// Lets go of the upper half.
    fn let_go(&mut self) {
        let middle = self.facts.len() / 2;
        let (_, &mut Fact { node: median, .. }, _) =
            self.facts.select_nth_unstable_by_key(middle, |fact| fact.node);
        let is_least = self.facts.iter().all(|fact| fact.node >= median);
        let below = match is_least {
            true => NodeId::new(median.get() + 1),
            false => Some(median),
        };
        self.below = below.or(self.below);
        self.facts.retain(|fact| below.is_none_or(|below| fact.node < below));
        self.held = self.facts.iter().map(Fact::held).sum();
        self.most = self.budget.max(2 * self.held);
    }

    /// The node with which the next pass begins; `None` if these were the last.
    pub(crate) fn next(&self) -> Option<NodeId> {
        self.below
    }

    /// Puts them in the order that [`nodes`](Self::nodes) needs.
    pub(crate) fn sort(&mut self) {
        self.facts.sort_unstable_by_key(|fact| (fact.node, fact.lsn, fact.seq));
    }

    /// The facts of each node, by `(lsn, seq)`.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &[Fact]> {
        self.facts.chunk_by(|a, b| a.node == b.node)
    }
}

#[cfg(test)]
mod tests {
    use pond_tinyfs::Lsn;

    use super::*;
    use crate::upkeep::dead_rows::What;

    fn fact(node: u64, lsn: u64) -> Fact {
        let node = NodeId::new(node).unwrap();
        Fact { node, lsn: Lsn(lsn), seq: 0, file: 0, row: 0, what: What::Extent(0, 1) }
    }

    /// The nodes with the number of their facts, pass by pass, and the most that was held.
    fn passes(all: &[Fact], budget: usize) -> (Vec<Vec<(u64, usize)>>, usize) {
        let (mut passes, mut most) = (Vec::new(), 0);
        let mut from = Some(NodeId::ROOT);
        while let Some(first) = from {
            let mut facts = Facts::from(first, budget);
            for fact in all {
                if facts.concern(fact.node) {
                    facts.push(fact.clone());
                }
                most = most.max(facts.facts.capacity() * size_of::<Fact>());
            }
            facts.sort();
            passes.push(facts.nodes().map(|facts| (facts[0].node.get(), facts.len())).collect());
            from = facts.next();
        }
        (passes, most)
    }

    #[test]
    fn each_node_comes_once_and_whole_and_no_more_is_held_than_the_budget() {
        let all: Vec<Fact> = (0..20_000).map(|n| fact(1 + n * 7919 % 500, n)).collect();
        let budget = 1000 * size_of::<Fact>();
        let (passes, most) = passes(&all, budget);
        let nodes: Vec<_> = passes.iter().flatten().copied().collect();
        assert_eq!(nodes, (1..=500).map(|node| (node, 40)).collect::<Vec<_>>());
        assert!((20..60).contains(&passes.len()), "{} passes", passes.len());
        assert!(most <= budget + 128 * size_of::<Fact>(), "{most} bytes with a budget of {budget}");
    }

    #[test]
    fn a_node_with_more_rows_than_the_budget_holds_is_still_whole() {
        let all: Vec<Fact> = (0..3000).map(|n| fact([5, 6, 7][(n % 3) as usize], n)).collect();
        let (passes, _) = passes(&all, 100 * size_of::<Fact>());
        assert_eq!(passes.concat(), [(5, 1000), (6, 1000), (7, 1000)]);
    }
}
