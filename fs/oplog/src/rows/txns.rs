//! Which transaction each row of a data file belongs to.
//!
//! A commit's rows have the numbers of operations between the cut before it and its own, so the number of a row's
//! operation tells its transaction, also once the row was written anew beside those of others.

use pond_tinyfs::Lsn;

use crate::TxnSeq;

/// How rows find their transactions.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Txns<'a> {
    /// All are of this one.
    One(TxnSeq),
    /// They are of these.
    Several(&'a TxnRanges),
}

impl From<TxnSeq> for Txns<'_> {
    fn from(txn_seq: TxnSeq) -> Self {
        Txns::One(txn_seq)
    }
}

impl Txns<'_> {
    /// The transaction of a row of this operation.
    pub(crate) fn of(&self, lsn: Lsn) -> TxnSeq {
        match self {
            Txns::One(txn_seq) => *txn_seq,
            Txns::Several(ranges) => ranges.of(lsn),
        }
    }
}

/// Transactions, each with an operation from which on rows are its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct TxnRanges(Vec<(Lsn, TxnSeq)>);

impl TxnRanges {
    /// From the operations and transactions of rows, in any order.
    pub(crate) fn new(mut rows: Vec<(Lsn, TxnSeq)>) -> Self {
        rows.sort_unstable();
        rows.dedup_by_key(|(_, txn_seq)| *txn_seq);
        rows.shrink_to_fit();
        TxnRanges(rows)
    }

    fn of(&self, lsn: Lsn) -> TxnSeq {
        let next = self.0.partition_point(|(first, _)| *first <= lsn);
        self.0.get(next.saturating_sub(1)).map_or(TxnSeq(0), |(_, txn_seq)| *txn_seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_transactions() {
        let rows = [(9, 4), (2, 1), (3, 1), (5, 2), (8, 4), (4, 2)];
        let ranges = TxnRanges::new(rows.map(|(lsn, txn)| (Lsn(lsn), TxnSeq(txn))).to_vec());
        for (lsn, txn) in rows {
            assert_eq!(Txns::Several(&ranges).of(Lsn(lsn)), TxnSeq(txn));
        }
        assert_eq!(Txns::One(TxnSeq(3)).of(Lsn(1)), TxnSeq(3));
    }
}
