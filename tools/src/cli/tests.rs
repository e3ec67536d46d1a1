use super::*;
use crate::path::{GlobPath, When};
use clap::CommandFactory;
use pond_oplog::{At, Version};

fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once(&"pond").chain(args))
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_explains_itself() {
    for command in Cli::command().get_subcommands() {
        assert!(command.get_about().is_some(), "{}", command.get_name());
    }
}

#[test]
fn examples_are_not_broken_at_the_terminals_edge() {
    fn check(command: &clap::Command) {
        let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
        for line in help.lines().filter(|line| line.starts_with("  ")) {
            assert!(line.chars().count() <= 100, "{}: {line}", command.get_name());
        }
        command.get_subcommands().for_each(check);
    }
    check(&Cli::command());
}

#[test]
fn version_is_the_programs_alone_and_the_mounts_after_mount() {
    assert_eq!(parse(&["--version"]).unwrap_err().kind(), clap::error::ErrorKind::DisplayVersion);
    let Command::Mount(mount) = parse(&["mount", "/m", "--version", "7"]).unwrap().command else {
        unreachable!()
    };
    assert_eq!(mount.at.at(), Some(At::Version(Version(7))));
    assert!(parse(&["mount", "/m", "--version", "7", "--timestamp", "@1"]).is_err());
    assert!(parse(&["mount", "/m", "--version", "x"]).is_err());
}

#[test]
fn a_version_is_named_by_a_time_as_well_wherever_one_is_named() {
    for args in [
        ["mount", "/m", "--version", "-10m"],
        ["mount", "/m", "--version", "2026-11-20T18:30"],
        ["mount", "/m", "--version", "start"],
        ["mount", "/m", "--timestamp", "-10m"],
        ["init", "--from-backup=c", "--version", "-2w"],
        ["init", "--from-backup=c", "--timestamp", "2026-11-20"],
        ["show", "--json", "--", "-10m"],
    ] {
        assert!(parse(&args).is_ok(), "{args:?}");
    }
    let show = parse(&["show", "-10m", "--json"]).unwrap();
    assert!(show.global.json && matches!(show.command, Command::Show(_)));
    assert!(parse(&["mount", "/m", "--timestamp", "7"]).is_err());
    assert!(parse(&["mount", "/m", "--timestamp", "start"]).is_err());
}

#[test]
fn init_stops_somewhere_only_on_the_way_from_a_backup() {
    let Command::Init(init) = parse(&["init"]).unwrap().command else { unreachable!() };
    assert_eq!(init.from_backup, None);
    let given = ["init", "--from-backup", "c.yaml", "--version", "7"];
    let Command::Init(init) = parse(&given).unwrap().command else { unreachable!() };
    assert_eq!((init.from_backup, init.version), (Some("c.yaml".into()), Some(At::Version(Version(7)))));
    assert!(parse(&["init", "--version", "7"]).is_err());
    assert!(parse(&["init", "--tip"]).is_err());
    assert!(parse(&["init", "--from-backup", "c", "--tip", "--version", "7"]).is_err());
    assert!(parse(&["init", "--from-backup", "c", "--timestamp", "@1", "--version", "7"]).is_err());
}

#[test]
fn what_stands_still_does_not_follow() {
    assert!(parse(&["mount", "/m", "--follow"]).is_ok());
    assert!(parse(&["mount", "/m", "--follow", "--version", "7"]).is_err());
    assert!(parse(&["mount", "/m", "--follow", "--read-only"]).is_err());
}

#[test]
fn global_options_stand_before_and_after_the_command() {
    for args in [["--json", "status", "--pond", "/p"], ["--pond", "/p", "status", "--json"]] {
        let cli = parse(&args).unwrap();
        assert!(cli.global.json);
        assert_eq!(cli.global.pond.as_deref(), Some("/p".as_ref()));
    }
    assert!(parse(&["--pond", "", "status"]).is_err());
}

#[test]
fn list_shows_the_root_unless_told() {
    let Command::List(list) = parse(&["list"]).unwrap().command else { unreachable!() };
    assert_eq!(list.glob, GlobPath { pattern: b"/".to_vec(), when: When::Now });
    let Command::List(list) = parse(&["ls", "a/**@3"]).unwrap().command else { unreachable!() };
    assert_eq!(list.glob, GlobPath { pattern: b"a/**".to_vec(), when: When::At(At::Version(Version(3))) });
}

#[test]
fn copy_takes_its_last_path_as_the_destination() {
    let Command::Copy(copy) = parse(&["copy", "host:a", "b@2", "c"]).unwrap().command else { unreachable!() };
    assert_eq!(copy.sources.len(), 2);
    assert_eq!(copy.destination.to_string(), "/c");
    assert!(parse(&["copy", "host:a"]).is_err());
}

#[test]
fn run_hands_everything_after_the_path_to_the_factory() {
    let Command::Run(run) = parse(&["run", "/etc/system.d/x", "verify", "--deep"]).unwrap().command else {
        unreachable!()
    };
    assert_eq!(run.args, ["verify", "--deep"]);
}

#[test]
fn control_lists_gets_sets_or_triggers_but_one_at_a_time() {
    assert!(parse(&["control"]).is_ok());
    assert!(parse(&["control", "get", "a"]).is_ok());
    assert!(parse(&["control", "set", "a", "b"]).is_ok());
    assert!(parse(&["control", "--mode", "sync"]).is_ok());
    assert!(parse(&["control", "--mode", "sync", "list"]).is_err());
    assert!(parse(&["control", "--mode", "other"]).is_err());
}
