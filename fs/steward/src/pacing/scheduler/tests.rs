use super::*;

const MIB: u64 = 1 << 20;
const SECOND: Duration = Duration::from_secs(1);

fn uncut(bytes: u64) -> ContentInMemory {
    ContentInMemory { uncut: bytes, ..ContentInMemory::default() }
}

#[test]
fn a_commit_is_made_when_it_is_due_or_asked_for_and_an_idle_pond_makes_none() {
    let now = Instant::now();
    let idle = Commits {
        stopped: false,
        requested: false,
        retry_at: None,
        has_changes: false,
        interval: SECOND,
        due: now + SECOND,
    };
    assert_eq!(idle.next(now), CommitAction::WaitUntil(now + SECOND));
    assert_eq!(idle.next(now + SECOND), CommitAction::WaitUntil(now + 2 * SECOND));
    let changed = Commits { has_changes: true, ..idle };
    assert_eq!(changed.next(now), CommitAction::WaitUntil(now + SECOND));
    assert_eq!(changed.next(now + SECOND), CommitAction::Commit);
    assert_eq!(Commits { requested: true, ..idle }.next(now), CommitAction::Commit);
    assert_eq!(Commits { requested: true, stopped: true, ..idle }.next(now), CommitAction::End);
}

#[test]
fn a_commit_that_failed_rests_unless_somebody_waits_for_it() {
    let now = Instant::now();
    let failed = Commits {
        stopped: false,
        requested: false,
        retry_at: Some(now + 4 * SECOND),
        has_changes: true,
        interval: SECOND,
        due: now,
    };
    assert_eq!(failed.next(now), CommitAction::WaitUntil(now + SECOND));
    assert_eq!(failed.next(now + 4 * SECOND), CommitAction::Commit);
    assert_eq!(Commits { requested: true, ..failed }.next(now), CommitAction::Commit);
    let pauses: Vec<u64> = (1..8).map(|failures| pause_after(failures, SECOND).as_secs()).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
}

#[test]
fn what_is_at_risk_is_bounded_in_seconds_however_long_the_interval() {
    assert_eq!(patience(Duration::from_millis(10)), Duration::from_millis(30));
    assert_eq!(patience(SECOND), 3 * SECOND);
    assert_eq!(patience(60 * SECOND), 3 * SECOND);
    assert_eq!(patience(Duration::MAX), 3 * SECOND);
}

#[test]
fn merges_are_waited_for_but_not_for_long() {
    let now = Instant::now();
    let crowd = Crowd { stopped: false, requested: false, since: now, interval: SECOND };
    assert_eq!(crowd.next(now), CrowdAction::WaitUntil(now + LOOK_AGAIN));
    assert_eq!(crowd.next(now + 3 * SECOND), CrowdAction::Commit);
    let requested = Crowd { requested: true, ..crowd };
    assert_eq!(requested.next(now + MERGE_WAIT), CrowdAction::Commit);
    assert_eq!(Crowd { stopped: true, ..crowd }.next(now), CrowdAction::Commit);
}

#[test]
fn much_is_drained_and_while_one_drain_is_under_way_half_as_much() {
    let bounds = Bounds::new(256 * MIB);
    let drains = |bytes, draining| Drains {
        stopped: false,
        may_commit: true,
        is_failing: false,
        spill_failed: false,
        draining,
        content: uncut(bytes),
        fsyncs_come: false,
    };
    assert_eq!(drains(48 * MIB - 1, 0).next(&bounds, false), DrainAction::Wait);
    assert_eq!(drains(48 * MIB, 0).next(&bounds, false), DrainAction::Drain);
    assert_eq!(drains(24 * MIB, 1).next(&bounds, false), DrainAction::Drain);
    assert_eq!(drains(96 * MIB, DRAINERS).next(&bounds, false), DrainAction::Wait);
    let due = drains(48 * MIB, 0);
    assert_eq!(Drains { is_failing: true, ..due }.next(&bounds, false), DrainAction::Wait);
    assert_eq!(Drains { may_commit: false, ..due }.next(&bounds, false), DrainAction::Wait);
    assert_eq!(Drains { fsyncs_come: true, ..due }.next(&bounds, false), DrainAction::Wait);
    assert_eq!(Drains { fsyncs_come: true, ..drains(96 * MIB, 0) }.next(&bounds, false), DrainAction::Drain);
    assert_eq!(Drains { stopped: true, ..due }.next(&bounds, false), DrainAction::End);
}

#[test]
fn unlinked_files_are_spilled_before_anything_is_drained_and_a_failure_is_tried_again_once_each_time() {
    let bounds = Bounds::new(256 * MIB);
    let content = ContentInMemory { uncut: 48 * MIB, unspilled: 16 * MIB, ..ContentInMemory::default() };
    let both = Drains {
        stopped: false,
        may_commit: true,
        is_failing: false,
        spill_failed: false,
        draining: 0,
        content,
        fsyncs_come: false,
    };
    assert_eq!(both.next(&bounds, false), DrainAction::Spill);
    assert_eq!(both.next(&bounds, true), DrainAction::Drain);
    let only_spill = Drains { content: ContentInMemory { uncut: 0, ..content }, ..both };
    assert_eq!(only_spill.next(&bounds, true), DrainAction::Spill, "more has come");
    let failed = Drains { spill_failed: true, ..only_spill };
    assert_eq!(failed.next(&bounds, false), DrainAction::Spill);
    assert_eq!(failed.next(&bounds, true), DrainAction::Wait);
}

#[test]
fn what_nobody_waits_for_gives_way_for_a_while() {
    let (bounds, now) = (Bounds::new(256 * MIB), Instant::now());
    let yielding = Yielding {
        is_closing: false,
        requested: false,
        hurried_from: Some(now + SECOND),
        content: uncut(MIB),
        owed: Duration::from_millis(8),
    };
    assert_eq!(yielding.next(&bounds, now), YieldAction::Yield(NAP));
    let little = Yielding { owed: Duration::from_millis(3), ..yielding };
    assert_eq!(little.next(&bounds, now), YieldAction::Yield(Duration::from_millis(3)));
    assert_eq!(Yielding { owed: Duration::ZERO, ..yielding }.next(&bounds, now), YieldAction::GoOn);
    assert_eq!(yielding.next(&bounds, now + SECOND), YieldAction::GoOn);
    assert_eq!(Yielding { requested: true, ..yielding }.next(&bounds, now), YieldAction::GoOn);
    assert_eq!(Yielding { is_closing: true, ..yielding }.next(&bounds, now), YieldAction::GoOn);
    assert_eq!(Yielding { content: uncut(64 * MIB), ..yielding }.next(&bounds, now), YieldAction::GoOn);
    let drain = Yielding { hurried_from: None, ..yielding };
    assert_eq!(drain.next(&bounds, now + 100 * SECOND), YieldAction::Yield(NAP));
}

#[test]
fn an_fsync_is_a_frame_or_where_that_takes_as_long_a_commit() {
    let little = Unjournaled { content: 0, rows: 1, leaves_memory: false, may_commit: true };
    assert_eq!(little.durable_by(Effort::Little), Durable::ByFrame);
    for more in [
        Unjournaled { content: LITTLE + 1, ..little },
        Unjournaled { rows: FEW + 1, ..little },
        Unjournaled { leaves_memory: true, ..little },
    ] {
        assert_eq!(more.durable_by(Effort::Little), Durable::TooMuch);
    }
    let much = Unjournaled { content: LARGEST_FRAME + 1, ..little };
    assert_eq!(Unjournaled { content: LARGEST_FRAME, ..little }.durable_by(Effort::Any), Durable::ByFrame);
    assert_eq!(much.durable_by(Effort::Any), Durable::ByCommit);
    assert_eq!(Unjournaled { leaves_memory: true, ..little }.durable_by(Effort::Any), Durable::ByCommit);
    assert_eq!(Unjournaled { may_commit: false, ..much }.durable_by(Effort::Any), Durable::ByFrame);
    assert_eq!(much.durable_by(Effort::Frame), Durable::ByFrame);
}

#[test]
fn cleaning_comes_at_times_and_pruning_with_it_where_looking_did_not_take_long() {
    let now = Instant::now();
    let never = Cleaning {
        cleaned: None,
        looks_again: None,
        is_source: true,
        is_full: false,
        keep_replaced: Duration::from_secs(86_400),
    };
    assert_eq!(never.next(now), CleanAction::Prune);
    assert_eq!(Cleaning { is_source: false, ..never }.next(now), CleanAction::Clean);
    let again = looks_again(now, 60 * SECOND);
    let cleaned = Cleaning { cleaned: Some(now), looks_again: Some(again), ..never };
    assert_eq!(cleaned.next(now + SECOND), CleanAction::WaitUntil(now + CLEAN_PERIOD));
    assert_eq!(cleaned.next(now + CLEAN_PERIOD), CleanAction::Clean);
    assert_eq!(cleaned.next(again), CleanAction::Prune);
    assert_eq!(Cleaning { is_full: true, ..cleaned }.next(now + READS), CleanAction::Clean);
    assert_eq!(Cleaning { keep_replaced: SECOND, ..cleaned }.next(now + READS), CleanAction::Clean);
}

#[test]
fn old_versions_go_where_many_can_or_where_that_frees_more_than_it_writes() {
    assert!(Pruning { kept: 256, gone: 64 }.is_worth_it());
    assert!(!Pruning { kept: 10, gone: 63 }.is_worth_it());
    assert!(!Pruning { kept: 260, gone: 64 }.is_worth_it());
    assert!(Pruning::is_worth_writing(16 * MIB, 32 * MIB, false));
    assert!(!Pruning::is_worth_writing(16 * MIB - 1, 0, false));
    assert!(!Pruning::is_worth_writing(16 * MIB, 33 * MIB, false));
    assert!(Pruning::is_worth_writing(1, 2, true));
    assert_eq!(merge_time(RATE, MANY_FILES - 1), SECOND);
    assert_eq!(merge_time(RATE, MANY_FILES), Duration::ZERO);
}
