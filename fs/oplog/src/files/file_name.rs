//! Names of data files. Each carries the transaction that made it, so that a sweep can tell what was never committed.

use uuid::Uuid;

use crate::TxnSeq;

/// A name that no data file has yet, carrying a transaction.
pub(crate) fn new(txn_seq: TxnSeq) -> String {
    format!("txn-{:010}-{}.parquet", txn_seq.0, Uuid::new_v4())
}

/// A data file's name, carrying another transaction.
pub(crate) fn renamed(name: &str, txn_seq: TxnSeq) -> String {
    let unique =
        name.strip_prefix("txn-").and_then(|rest| rest.split_once('-')).map_or(name, |(_, rest)| rest);
    format!("txn-{:010}-{unique}", txn_seq.0)
}

/// The transaction that a data file's name carries.
pub(crate) fn txn_seq(name: &str) -> Option<TxnSeq> {
    let (txn, _) = name.strip_suffix(".parquet")?.strip_prefix("txn-")?.split_once('-')?;
    txn.parse().ok().map(TxnSeq)
}
