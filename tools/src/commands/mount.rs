//! `pond mount` and `pond umount`.

use std::cell::RefCell;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use pond_mount::{MountOptions, Progress, Ready, Remounted, UnmountReport};
use pond_replicate::NoProgress;
use pond_steward::FactoryStatus;
use serde_json::json;

use crate::cli::MountArgs;
use crate::context::Context;
use crate::error::{During, Failure, Result};
use crate::output::{LogFormat, Notices, Output, count};
use crate::part::Part;
use crate::registry;
use crate::waiting::{Wait, in_background};

/// Makes the program act as `pond` whatever it is called: a daemon that was started by `mount.fuse.pond`
/// is run again under that name.
pub const AS_POND: &str = "--as-pond";

/// Mounts, in the background unless told otherwise, and says what was mounted and what to try.
pub fn mount(args: &MountArgs, context: &mut Context) -> Result {
    mount_and_tell(args, context, false)
}

/// Mounts for mount(8), whose helpers say nothing when all is well.
pub fn mount_quietly(args: &MountArgs, context: &mut Context) -> Result {
    mount_and_tell(args, context, true)
}

fn mount_and_tell(args: &MountArgs, context: &mut Context, quietly: bool) -> Result {
    let pond = context.pond.directory().to_path_buf();
    let failed = |error: &pond_mount::MountError| {
        Failure::because(format!("cannot mount the pond on {}", args.mountpoint.display()), error)
    };
    let options = mount_options(args).map_err(|error| bad_options(&error))?;
    if options.remount {
        match pond_mount::remount(&args.mountpoint, &options).map_err(|error| failed(&error))? {
            Remounted::Done => return Ok(()),
            Remounted::MountAnew => {}
        }
    }
    let Context { out, notices, .. } = context;
    // What could not be said is an error only once the mount is done with.
    let (out, told) = (RefCell::new(out), RefCell::new(Ok(())));
    let say = |what: &dyn Fn(&mut Output) -> Result| {
        let mut told = told.borrow_mut();
        if told.is_ok() {
            let out = &mut **out.borrow_mut();
            *told = what(out).and_then(|()| out.flush());
        }
    };
    let tell = |progress: &Progress| match progress {
        // For scripts it is among the facts about the mount.
        Progress::Made(pond) if !quietly => say(&|out| {
            if out.is_json() { Ok(()) } else { out.line(&format!("Made a pond in {}.", pond.display())) }
        }),
        Progress::Made(_) => {}
        Progress::Waiting(holder) => notices.warn(&format!("waiting until {holder} lets go of the pond")),
    };
    if !args.foreground {
        let ready = pond_mount::mount_daemon(&daemon_arguments(&pond, args, *notices), tell)
            .map_err(|error| failed(&error))?;
        match quietly {
            true => ready.notes.iter().for_each(|note| notices.warn(note)),
            false => say(&|out| announce(&ready, out, *notices)),
        }
        return told.into_inner();
    }
    let on_ready = |ready: &Ready| {
        // With a log, the command that started us says it.
        if ready.log.is_none() {
            say(&|out| announce(ready, out, *notices));
        }
    };
    pond_mount::mount_foreground(
        &pond,
        &args.mountpoint,
        &options,
        registry::all(Arc::new(NoProgress)),
        tell,
        on_ready,
    )
    .map_err(|error| failed(&error))?;
    told.into_inner()
}

/// Whether the options of a mount are valid.
pub fn check_options(args: &MountArgs) -> Result {
    mount_options(args).map(drop).map_err(|error| bad_options(&error))
}

fn bad_options(error: &pond_mount::MountError) -> Failure {
    Failure::usage("cannot understand the mount options", crate::error::chain(error))
}

fn mount_options(args: &MountArgs) -> Result<MountOptions, pond_mount::MountError> {
    let mut options = MountOptions { no_create: args.no_create, ..MountOptions::default() };
    for text in &args.options {
        options.apply(text)?;
    }
    options.read_only |= args.read_only;
    options.private |= args.private;
    options.follow |= args.follow;
    options.scratch = args.scratch;
    options.at = args.at.at();
    Ok(options)
}

/// What the daemon is run with: the same mount in the foreground.
fn daemon_arguments(pond: &Path, args: &MountArgs, notices: Notices) -> Vec<OsString> {
    // mount_daemon runs the program by the name of its file.
    let named_as_helper = std::env::current_exe().is_ok_and(|program| Part::of(&program) != Part::Pond);
    let mut arguments: Vec<OsString> = Vec::new();
    if named_as_helper {
        arguments.push(AS_POND.into());
    }
    arguments.extend(["--pond".into(), pond.into(), "mount".into()]);
    arguments.push("--foreground".into());
    let json = notices.format() == LogFormat::Json;
    let flags = [
        (args.read_only, "--read-only"),
        (args.private, "--private"),
        (args.follow, "--follow"),
        (args.scratch, "--scratch"),
        (args.no_create, "--no-create"),
        (json, "--log-format=json"),
        (notices.is_verbose(), "--verbose"),
    ];
    arguments.extend(flags.iter().filter(|(set, _)| *set).map(|(_, flag)| OsString::from(flag)));
    if let Some(at) = args.at.at() {
        arguments.push(format!("--version={at}").into());
    }
    for options in &args.options {
        // What was to be mounted again is mounted anew.
        let options: Vec<&str> = options.split(',').filter(|option| *option != "remount").collect();
        arguments.extend(["-o".into(), OsString::from(options.join(","))]);
    }
    arguments.extend(["--".into(), args.mountpoint.clone().into_os_string()]);
    arguments
}

/// Tells what was mounted, and what to try.
fn announce(ready: &Ready, out: &mut Output, notices: Notices) -> Result {
    for note in &ready.notes {
        notices.warn(note);
    }
    out.json(&json!(ready))?;
    let mountpoint = ready.mountpoint.display();
    let manner = if ready.read_only { ", read-only" } else { "" };
    let what = if ready.scratch { "a scratch of version" } else { "version" };
    out.line(&format!("Mounted {what} {} on {mountpoint}{manner}.", ready.version))?;
    out.line("")?;
    let mut facts = vec![(format!("ls {mountpoint}"), "use it like any directory")];
    if !ready.read_only && !ready.scratch {
        let pond = crate::context::command_for(&ready.pond);
        facts.extend([
            (format!("{pond} status"), "how it fares"),
            (format!("{pond} log"), "its versions: about one a second while something changes"),
        ]);
    }
    let end = match (ready.scratch, ready.read_only) {
        (true, _) => "unmount, and throw away what was changed there",
        (false, true) => "unmount",
        (false, false) => "commit everything and unmount",
    };
    facts.push((format!("pond umount {mountpoint}"), end));
    let width = facts.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
    for (command, what) in facts {
        out.line(&format!("  {command:width$}   {what}"))?;
    }
    out.line("")?;
    out.line(&format!("The pond itself lies in {}; leave that to pond.", ready.pond.display()))
}

/// Commits everything, unmounts and waits for the daemon's end.
pub fn umount(mountpoint: &Path, context: &mut Context) -> Result {
    let what = || format!("cannot unmount {}", mountpoint.display());
    let absolute = std::path::absolute(mountpoint).during(what)?;
    // Where we stand ourselves must not keep the mount busy.
    std::env::set_current_dir("/").during(what)?;
    let mut wait = Wait::new(None, context.notices);
    let goes_on = || {
        wait.goes_on(|| {
            "everything is being committed, and pushes get ten seconds for what they owe".to_owned()
        })
    };
    match in_background(move || pond_mount::unmount(&absolute), goes_on)? {
        Ok(report) => describe_unmount(&report.during(what)?, context),
        // It never gives up.
        Err(_) => Err(Failure::new(what(), "it took too long")),
    }
}

/// Tells what an unmount did.
pub fn describe_unmount(report: &UnmountReport, context: &mut Context) -> Result {
    context.out.json(report)?;
    context.out.line(&describe(report))?;
    report.owed.iter().try_for_each(|factory| context.out.line(&describe_owed(factory)))?;
    if !report.kept_by.is_empty() {
        let lines: String = report.kept_by.iter().map(|keeper| format!("\n  {keeper}")).collect();
        context.notices.warn(&format!(
            "these processes still have the pond mounted, in mount namespaces of their own, and its daemon ends when they do:{lines}"
        ));
    }
    Ok(())
}

/// What is left for the next mount.
fn describe_owed(factory: &FactoryStatus) -> String {
    let what = if factory.remote { "pushed" } else { "handled" };
    let versions = count(factory.behind, "version");
    format!("Still to be {what} by {}: {versions}; the next mount goes on.", factory.path)
}

fn describe(report: &UnmountReport) -> String {
    let mountpoint = report.mountpoint.display();
    match (report.was_dead, report.version) {
        (true, _) if report.scratch => {
            format!(
                "Took the dead scratch away from {mountpoint}: its daemon had died, and what was changed there is gone."
            )
        }
        (true, _) => format!(
            "Took the dead mount of {} away from {mountpoint}. Its daemon had died; the next mount recovers \
             what it had made durable.",
            report.pond.display()
        ),
        (false, _) if report.scratch => {
            format!("Unmounted {mountpoint}; what was changed there is gone.")
        }
        (false, Some(version)) if report.followed => {
            format!("Unmounted {mountpoint}; it showed version {version}.")
        }
        (false, Some(version)) => format!("Unmounted {mountpoint}; version {version} holds everything."),
        (false, None) => format!("Unmounted {mountpoint}."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;
    use pond_oplog::{At, Version};

    fn parsed(arguments: &[OsString]) -> (MountArgs, std::path::PathBuf) {
        let cli = Cli::try_parse_from(arguments).unwrap();
        let Command::Mount(args) = cli.command else { unreachable!() };
        (args, cli.global.pond.unwrap())
    }

    #[test]
    fn the_daemon_is_run_with_the_same_mount() {
        for line in [
            "pond --pond /p mount /m --version 7 --private",
            "pond --pond /p mount -o ro,nosuid -o commit=5 /m",
            "pond --pond /p mount --timestamp @1795199415.25 --read-only /m",
            "pond --pond /p mount --version -10m /m",
            "pond --pond /p mount --version start /m",
            "pond --pond /p mount --follow /m",
            "pond --pond /p mount --scratch --version 7 /m",
            "pond --pond /p mount --no-create /m",
            "pond --pond /p mount -- -m",
        ] {
            let given: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let (args, pond) = parsed(&given);
            let mut arguments: Vec<OsString> = vec!["pond".into()];
            arguments.extend(daemon_arguments(&pond, &args, Notices::new(LogFormat::Json, true)));
            let (again, same) = parsed(&arguments);
            assert_eq!((&again.mountpoint, same), (&args.mountpoint, pond));
            assert!(again.foreground);
            assert_eq!(mount_options(&again).unwrap(), mount_options(&args).unwrap());
        }
    }

    #[test]
    fn options_of_the_command_and_of_fstab_come_together() {
        let (args, _) = parsed(
            &"pond --pond /p mount /m -o nosuid --version 3"
                .split(' ')
                .map(OsString::from)
                .collect::<Vec<_>>(),
        );
        let options = mount_options(&args).unwrap();
        assert!(options.no_suid);
        assert_eq!(options.at, Some(At::Version(Version(3))));
    }
}
