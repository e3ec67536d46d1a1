//! What the top README shows of a session is what somebody sees who types it.

use std::fs;
use std::process::Command;

use pond_tests::{TestPond, pond_binary, run, succeed};

/// A command as the README has it, and what it shows of the answer.
struct Step {
    command: String,
    answer: Vec<String>,
}

/// The blocks that are marked `console`, command by command.
fn steps(readme: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let blocks = readme.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next());
    for line in blocks.flat_map(str::lines) {
        let goes_on = steps.last().is_some_and(|step| step.command.matches('"').count() % 2 == 1);
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push(Step { command: command.to_owned(), answer: Vec::new() }),
            (None, Some(step)) if goes_on => step.command = format!("{}\n{line}", step.command),
            (None, Some(step)) => step.answer.push(line.to_owned()),
            (None, None) => panic!("a block begins with no command: {line}"),
        }
    }
    steps
}

/// Whether a line is as shown: the same words, but numbers, sizes, times and digests, which differ from run to run.
fn is_as_shown(shown: &str, said: &str) -> bool {
    let differs = |word: &str| word.bytes().any(|byte| byte.is_ascii_digit());
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let (shown, said) = (words(shown), words(said));
    let same = |(shown, said): (&String, &String)| shown == said || differs(shown) && differs(said);
    shown.len() == said.len() && shown.iter().zip(&said).all(same)
}

/// Whether an answer is as shown, where `…` stands for any lines.
fn are_as_shown(shown: &[String], said: &[&str]) -> bool {
    match (shown.split_first(), said.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "…" => {
            (0..=said.len()).any(|left_out| are_as_shown(rest, &said[left_out..]))
        }
        (Some((first, shown)), Some((line, said))) => is_as_shown(first, line) && are_as_shown(shown, said),
        _ => false,
    }
}

#[test]
fn the_sessions_of_the_readme_go_as_it_shows_them() {
    let place = TestPond::new();
    let root = place.host_directory("top");
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    // What the README takes for given: a repository in the home directory, and pond in the path.
    let home = root.join("root");
    for directory in ["root/project/sub", "mnt", "srv", "bin"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::write(home.join("project/sub/file"), "content").unwrap();
    for arguments in [
        &["init", "-q"][..],
        &["add", "."],
        &["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first"],
    ] {
        succeed(Command::new("git").arg("-C").arg(home.join("project")).args(arguments));
    }
    std::os::unix::fs::symlink(pond_binary(), root.join("bin/pond")).unwrap();
    let inside = |text: &str| {
        ["/mnt/", "/srv/", "/root/"]
            .iter()
            .fold(text.to_owned(), |text, from| text.replace(from, &format!("{}{from}", root.display())))
    };

    let steps = steps(&readme);
    assert!(steps.len() > 15, "the README has no sessions");
    let marker = "---- the next command ----";
    let mut script = "exec 2>&1; cd\n".to_owned();
    for step in &steps {
        script += &format!("{}\necho '{marker}'\n", inside(&step.command));
    }
    script += &inside("cd /; pond umount /mnt/replica; pond umount /mnt/pond");
    let mut shell = place.marked("bash");
    let path = format!("{}:{}", root.join("bin").display(), std::env::var("PATH").unwrap());
    shell
        .args(["-c", &script])
        .env("HOME", &home)
        .env("PATH", path)
        .env_remove("XDG_DATA_HOME")
        .env("TZ", "UTC");
    let finished = run(&mut shell);
    let said: Vec<&str> = finished.stdout.split(marker).map(str::trim).collect();
    for (step, said) in steps.iter().zip(said) {
        let shown: Vec<String> = step.answer.iter().map(|line| inside(line)).collect();
        let said: Vec<&str> = said.lines().collect();
        assert!(are_as_shown(&shown, &said), "$ {}\nshown: {shown:#?}\nsaid: {said:#?}", step.command);
    }
}
