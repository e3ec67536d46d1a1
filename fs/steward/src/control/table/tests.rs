use super::*;
use pond_oplog::TxnSeq;

fn pond() -> tempfile::TempDir {
    let pond = tempfile::tempdir().unwrap();
    Control::create(pond.path(), Role::Source).unwrap();
    pond
}

fn node(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

fn completed(of: u64, version: u64) -> ControlRow {
    ControlRow::post_commit(
        Event::PostCommitCompleted,
        (node(of), "/etc/system.d/x"),
        (TxnSeq(version + 1), Some(Version(version))),
        None,
    )
}

#[test]
fn a_setting_is_there_after_opening_anew() {
    let pond = pond();
    let control = Control::open(pond.path(), true).unwrap();
    assert_eq!(control.role(), Role::Source);
    control.set("factory_mode:exec-log", "quiet").unwrap();
    control.set("factory_mode:exec-log", "loud").unwrap();
    drop(control);
    let control = Control::open(pond.path(), false).unwrap();
    assert_eq!(control.factory_mode("exec-log").as_deref(), Some("loud"));
    assert_eq!(control.factory_mode("other").as_deref(), Some("push"));
}

#[test]
fn a_replica_runs_only_the_factories_it_was_told_to_and_does_not_become_a_source() {
    let pond = tempfile::tempdir().unwrap();
    Control::create(pond.path(), Role::Replica).unwrap();
    let control = Control::open(pond.path(), true).unwrap();
    assert_eq!(control.factory_mode("exec-log"), None);
    assert_eq!(control.factory_mode("remote").as_deref(), Some("pull"));
    control.set("factory_mode:exec-log", "pull").unwrap();
    assert_eq!(control.factory_mode("exec-log").as_deref(), Some("pull"));
    assert!(matches!(control.set(ROLE_KEY, "push"), Err(StewardError::BadSetting { .. })));
    assert!(matches!(control.set(ROLE_KEY, "both"), Err(StewardError::BadSetting { .. })));
    assert_eq!(control.role(), Role::Replica);
    assert_eq!(super::role(pond.path()).unwrap(), Role::Replica);
}

#[test]
fn a_missing_table_is_told_apart() {
    let pond = tempfile::tempdir().unwrap();
    assert!(matches!(Control::open(pond.path(), true), Err(StewardError::ControlMissing { .. })));
}

#[test]
fn a_batch_holds_the_last_row_of_each_subject_and_every_failure() {
    let pond = pond();
    let control = Control::open(pond.path(), true).unwrap();
    let row = |event, txn| ControlRow::transaction(event, TxnSeq(txn), None, None);
    for event in [Event::Begin, Event::Failed, Event::Begin, Event::DataCommitted, Event::Completed] {
        control.record(row(event, 7));
    }
    control.record(row(Event::Begin, 8));
    control.record(completed(5, 3));
    control.record(completed(5, 4));
    control.flush().unwrap();
    drop(control);
    let control = Control::open(pond.path(), true).unwrap();
    assert_eq!(control.watermark(node(5)), Some(Version(4)));
    let table = control.table.lock();
    let rows = read(&control.path, &table.as_ref().unwrap().table).unwrap();
    let events: Vec<_> = rows.iter().map(|row| (row.event, row.txn_seq.0)).collect();
    assert_eq!(
        events,
        [
            (Event::Setting, 0),
            (Event::Failed, 7),
            (Event::Completed, 7),
            (Event::Begin, 8),
            (Event::PostCommitCompleted, 5)
        ]
    );
}

#[test]
fn compaction_keeps_settings_watermarks_and_a_week() {
    let old = |row: ControlRow| ControlRow { timestamp: 10, ..row };
    let recent = |row: ControlRow| ControlRow { timestamp: 1000, ..row };
    let transaction = ControlRow::transaction(Event::Completed, TxnSeq(1), Some(Version(1)), None);
    let rows = vec![
        old(ControlRow::setting("factory_mode:a", "1")),
        old(ControlRow::setting("factory_mode:a", "2")),
        old(transaction.clone()),
        old(completed(5, 3)),
        old(completed(5, 4)),
        recent(transaction.clone()),
    ];
    let kept = retain(rows.clone(), 500);
    assert_eq!(kept, [rows[1].clone(), rows[4].clone(), rows[5].clone()]);
}

#[test]
fn the_table_stays_small_and_keeps_what_counts() {
    let pond = pond();
    let control = Control::open(pond.path(), true).unwrap();
    for version in 0..2 * COMPACT_ABOVE as u64 {
        control.record(completed(5, version));
        control.flush().unwrap();
    }
    assert!(control.table.lock().as_ref().unwrap().table.files() <= COMPACT_ABOVE + 1);
    drop(control);
    let control = Control::open(pond.path(), false).unwrap();
    assert_eq!(control.watermark(node(5)), Some(Version(2 * COMPACT_ABOVE as u64 - 1)));
    assert_eq!(control.role(), Role::Source);
}

#[test]
fn a_version_that_memory_does_not_know_of_does_not_stop_the_table() {
    let pond = pond();
    let control = Control::open(pond.path(), true).unwrap();
    // As after a put that took place and could not be confirmed.
    let landed = |control: &Control, row| {
        let unseen = DeltaTable::open(&control.path).unwrap();
        unseen.append(&encode(&control.path, &[row]).unwrap()).unwrap();
    };
    landed(&control, ControlRow::setting("factory_mode:a", "1"));
    control.set("factory_mode:b", "2").unwrap();
    landed(&control, completed(5, 3));
    control.record(completed(5, 4));
    control.flush().unwrap();
    control.set("factory_mode:c", "3").unwrap();
    drop(control);
    let control = Control::open(pond.path(), false).unwrap();
    assert_eq!(control.watermark(node(5)), Some(Version(4)));
    for (key, value) in [("a", "1"), ("b", "2"), ("c", "3")] {
        assert_eq!(control.get(&format!("factory_mode:{key}")).as_deref(), Some(value));
    }
}

#[test]
fn nothing_depends_on_a_doubtful_version_once_something_else_is_written() {
    let pond = pond();
    let control = Control::open(pond.path(), true).unwrap();
    control.set("factory_mode:a", "1").unwrap();
    control.record(completed(5, 3));
    control.flush().unwrap();
    // As where the sync of its directory fails: it is there, and may be gone after power loss.
    let unseen = DeltaTable::open(&control.path).unwrap();
    let doubtful = unseen
        .append(&encode(&control.path, &[ControlRow::setting("factory_mode:b", "2")]).unwrap())
        .unwrap();
    control.table.lock().as_mut().unwrap().doubtful = true;
    control.set("factory_mode:c", "3").unwrap();
    control.set("factory_mode:d", "4").unwrap();
    assert_eq!(control.table.lock().as_ref().unwrap().table.files(), 3);
    drop(control);
    let entry = Layout::new(pond.path()).control().join("_delta_log").join(pond_oplog::entry_name(doubtful));
    std::fs::remove_file(entry).unwrap();
    let control = Control::open(pond.path(), false).unwrap();
    assert_eq!(control.watermark(node(5)), Some(Version(3)));
    for (key, value) in [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")] {
        assert_eq!(control.get(&format!("factory_mode:{key}")).as_deref(), Some(value), "{key}");
    }
}

#[test]
fn several_settings_are_set_in_one_step_and_the_timeline_only_so() {
    let pond = pond();
    let control = Control::open(pond.path(), true).unwrap();
    assert!(matches!(control.set(TIMELINE_KEY, "7"), Err(StewardError::BadSetting { .. })));
    let before = control.table.lock().as_ref().unwrap().table.files();
    control.set_all(&[(TIMELINE_KEY, "7"), (SUPERSEDED_KEY, "")]).unwrap();
    assert_eq!(control.table.lock().as_ref().unwrap().table.files(), before + 1);
    assert_eq!(control.get(TIMELINE_KEY).as_deref(), Some("7"));
    assert_eq!(Control::open(pond.path(), false).unwrap().get(TIMELINE_KEY).as_deref(), Some("7"));
}

#[test]
fn nothing_is_written_after_close() {
    let pond = pond();
    let control = Control::open(pond.path(), true).unwrap();
    control.close().unwrap();
    assert!(matches!(control.set("factory_mode:a", "b"), Err(StewardError::Closed)));
    control.record(completed(5, 1));
    assert!(matches!(control.flush(), Err(StewardError::Closed)));
}
