use super::*;
use pond_tinyfs::{Timestamp, root_row};

fn rows(lsn: u64) -> Vec<Row> {
    vec![Row { lsn: Lsn(lsn), ..root_row(Timestamp(0), 0, 0) }]
}

#[test]
fn batches_keep_their_order_and_leave_it_only_when_committed() {
    let mut ledger = Ledger::default();
    ledger.enter(rows(2), Lsn(2), 10, false, false);
    ledger.enter(rows(3), Lsn(3), 10, false, false);
    let in_flight = ledger.uncommitted(u64::MAX);
    ledger.enter(rows(4), Lsn(4), 10, false, false);

    ledger.journaled(&ledger.unjournaled());
    assert!(ledger.all_durable());
    assert!(!ledger.all_committed());

    ledger.committed(&in_flight);
    let left: Vec<Lsn> = ledger.uncommitted(u64::MAX).iter().map(|batch| batch.cut_lsn).collect();
    assert_eq!(left, [Lsn(4)]);
}

#[test]
fn a_row_is_journaled_once() {
    let mut ledger = Ledger::default();
    ledger.enter(rows(2), Lsn(2), 10, false, false);
    let first = ledger.unjournaled();
    ledger.journaled(&first);
    ledger.enter(rows(3), Lsn(3), 10, false, false);
    let second = ledger.unjournaled();
    assert_eq!(second.len(), 1);
    assert_eq!(second[0].cut_lsn, Lsn(3));
    assert!(!ledger.all_durable());
}

#[test]
fn recovered_rows_are_durable_and_wait_to_be_committed() {
    let mut ledger = Ledger::default();
    ledger.adopt_recovered(rows(7), Lsn(7));
    assert!(ledger.all_durable());
    assert!(!ledger.all_committed());
    assert_eq!(ledger.rows(), 1);
}
