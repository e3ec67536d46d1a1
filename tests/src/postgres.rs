//! A PostgreSQL server of a test's own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::command::{run_within, succeed};
use crate::pond::TestPond;
use crate::tools::tool;

/// A PostgreSQL server of the test's own.
pub struct Postgres<'a> {
    pond: &'a TestPond,
    data: PathBuf,
    socket: PathBuf,
}

impl<'a> Postgres<'a> {
    /// A server with its data in `data`, which is made, and its socket and log in `socket`. Nothing runs yet.
    pub fn new(pond: &'a TestPond, data: PathBuf, socket: PathBuf) -> Self {
        fs::create_dir(&data).expect("the directory is new");
        for directory in [&data, &socket] {
            succeed(Command::new("chown").arg("postgres:postgres").arg(directory));
        }
        Postgres { pond, data, socket }
    }

    /// A program of PostgreSQL, run as the user postgres.
    fn program(&self, name: &str) -> Command {
        let mut command = self.pond.marked("setpriv");
        command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups"]).arg(tool(name));
        command.env("PGHOST", &self.socket).env("PGDATABASE", "postgres").env("PGDATA", &self.data);
        command.current_dir("/");
        command
    }

    /// Runs one of its programs, which must succeed.
    pub fn run(&self, name: &str, arguments: &[&str]) -> String {
        let finished = run_within(self.program(name).args(arguments), Duration::from_secs(600));
        if !finished.status.success() {
            eprintln!("{}", fs::read_to_string(self.socket.join("log")).unwrap_or_default());
        }
        finished.success()
    }

    /// Starts the server.
    pub fn start(&self) {
        let options = format!("-c listen_addresses= -c unix_socket_directories={}", self.socket.display());
        let log = self.socket.join("log");
        self.run(
            "pg_ctl",
            &[
                "--wait",
                "--timeout=300",
                "--log",
                log.to_str().expect("paths here are UTF-8"),
                "--options",
                &options,
                "start",
            ],
        );
    }

    /// Stops it.
    pub fn stop(&self) {
        self.run("pg_ctl", &["--wait", "--timeout=300", "--mode=fast", "stop"]);
    }

    /// What the benchmark has done so far, from all its tables.
    pub fn figures(&self) -> String {
        let query = "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers), \
                     (SELECT sum(bbalance) FROM pgbench_branches), sum(delta), count(*), md5(string_agg(h::text, '' \
                     ORDER BY h::text)) FROM pgbench_history h";
        self.run("psql", &["-At", "-c", query])
    }

    /// Has it check tables and indexes.
    pub fn check(&self) {
        self.run("pg_amcheck", &["--install-missing", "--heapallindexed", "-d", "postgres"]);
    }
}
