//! `-o inode32`: everything as without it, but for the numbers.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::Path;

use crate::kernel_tests::harness::{TestMount, with_inode32};
use crate::kernel_tests::listing_tests::{entries, entries_from};
use crate::kernel_tests::{attribute_tests, content_tests, follow_tests, listing_tests, names_tests};

fn inode(path: &Path) -> u64 {
    path.symlink_metadata().unwrap().ino()
}

fn forget() {
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
}

#[test]
fn numbers_are_small_and_stay_and_are_not_used_again() {
    let mount = with_inode32(TestMount::new);
    let mut names: HashMap<u64, String> = HashMap::new();
    for n in 0..1_000 {
        let name = format!("{n}");
        let number = inode(&mount.write(&name, ""));
        assert!(number <= u64::from(u32::MAX));
        if let Some(other) = names.insert(number, name) {
            panic!("{n} has the number {number}, which {other} had");
        }
        if n % 2 == 0 {
            fs::remove_file(mount.path(&format!("{n}"))).unwrap();
        }
        if n % 100 == 0 {
            forget();
        }
    }
    fs::hard_link(mount.path("1"), mount.path("linked")).unwrap();
    names.retain(|_, name| mount.path(name).exists());
    for _ in 0..2 {
        for (number, name) in &names {
            assert_eq!(inode(&mount.path(name)), *number, "{name}");
        }
        assert_eq!(inode(&mount.path("linked")), inode(&mount.path("1")));
        for entry in fs::read_dir(&mount.root).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.ino(), inode(&entry.path()));
        }
        forget();
    }
}

#[test]
fn positions_are_small_and_a_listing_goes_on_from_each() {
    let mount = with_inode32(TestMount::new);
    for n in 0..500 {
        mount.write(&format!("{n:03}"), "");
    }
    let all = entries(&mount.root);
    assert_eq!(all.len(), 502);
    for (at, (position, ..)) in all.iter().enumerate() {
        assert!((1..1 << 31).contains(position), "{position}");
        if at % 50 == 0 || at > 495 {
            assert_eq!(entries_from(&mount.root, *position), all[at + 1..]);
        }
    }
    for n in (0..500).filter(|n| n % 3 != 0) {
        fs::remove_file(mount.path(&format!("{n:03}"))).unwrap();
    }
    let left = entries(&mount.root);
    assert_eq!(
        entries_from(&mount.root, all[250].0),
        left[left.partition_point(|entry| entry.0 <= all[250].0)..]
    );
}

#[test]
fn what_else_a_mount_does_is_the_same() {
    let tests: [fn(); 14] = [
        names_tests::files_and_directories_do_what_programs_expect,
        names_tests::an_unlinked_open_file_stays_whole_until_it_is_closed,
        listing_tests::a_directory_that_moved_lists_its_new_parent,
        content_tests::what_a_mapping_holds_is_no_hole,
        listing_tests::a_large_directory_is_listed_once_and_whole,
        listing_tests::renaming_what_is_listed_comes_to_an_end,
        names_tests::what_a_mount_says_about_itself_is_there_but_not_listed,
        names_tests::a_file_handle_holds_while_the_kernel_has_forgotten_the_inode,
        names_tests::a_name_that_was_missing_is_seen_once_it_is_made,
        names_tests::rename_flags_are_honoured,
        content_tests::ranges_are_copied,
        attribute_tests::permissions_are_enforced_for_everybody_else,
        content_tests::holes_are_holes,
        names_tests::every_kind_of_node_can_be_made,
    ];
    for test in tests {
        with_inode32(test);
    }
}

#[test]
fn what_a_mount_that_follows_does_is_the_same() {
    let tests: [fn(); 5] = [
        follow_tests::an_open_file_and_a_mapping_keep_their_bytes_while_a_new_open_sees_the_new_ones,
        follow_tests::names_come_move_and_go_at_once,
        follow_tests::attributes_and_all_names_of_a_hard_linked_file_follow,
        follow_tests::listings_show_the_inodes_that_names_lead_to,
        follow_tests::whoever_reads_lists_and_stats_while_versions_come_sees_whole_ones_and_never_older_ones,
    ];
    for test in tests {
        with_inode32(test);
    }
}
