//! A PostgreSQL server of a test's own, with its data in a pond.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::command::{Finished, run_within};
use crate::tools::tool;
use crate::{TestPond, processes, succeed};

/// The server, whether it runs or not.
pub struct Postgres<'a> {
    pond: &'a TestPond,
    data: PathBuf,
    socket: PathBuf,
}

impl<'a> Postgres<'a> {
    /// Makes its directories, in the pond and outside; with nothing in them yet.
    #[track_caller]
    pub fn new(pond: &'a TestPond) -> Self {
        Self::at(pond, pond.path("data"), pond.host_directory("socket"))
    }

    /// The same with its data in `data`, which is made, and its socket and log in `socket`.
    #[track_caller]
    pub fn at(pond: &'a TestPond, data: PathBuf, socket: PathBuf) -> Self {
        let postgres = Postgres { pond, data, socket };
        fs::create_dir(&postgres.data).unwrap_or_else(|error| panic!("{}: {error}", postgres.data.display()));
        for directory in [&postgres.data, &postgres.socket] {
            succeed(Command::new("chown").arg("postgres:postgres").arg(directory));
        }
        postgres
    }

    /// A program of PostgreSQL, run as the user postgres.
    pub fn program(&self, name: &str) -> Command {
        let mut command = self.pond.marked("setpriv");
        command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups"]).arg(tool(name));
        command.env("PGHOST", &self.socket).env("PGDATABASE", "postgres").env("PGDATA", &self.data);
        command.current_dir("/");
        command
    }

    /// Runs one of its programs, however it ends.
    #[track_caller]
    pub fn try_run(&self, name: &str, arguments: &[&str]) -> Finished {
        run_within(self.program(name).args(arguments), Duration::from_secs(600))
    }

    /// Runs one of its programs, which must succeed; its standard output.
    #[track_caller]
    pub fn run(&self, name: &str, arguments: &[&str]) -> String {
        let finished = self.try_run(name, arguments);
        if !finished.status.success() {
            eprintln!("{}", fs::read_to_string(self.socket.join("log")).unwrap_or_default());
        }
        finished.success()
    }

    /// Starts the server and waits until it serves, after its own recovery if need be.
    #[track_caller]
    pub fn start(&self) {
        let started = self.try_start();
        if !started.status.success() {
            eprintln!("{}", fs::read_to_string(self.socket.join("log")).unwrap_or_default());
        }
        started.success();
    }

    /// Starts the server, if it can be.
    #[track_caller]
    pub fn try_start(&self) -> Finished {
        self.remove_stale_lock();
        let options = format!("-c listen_addresses= -c unix_socket_directories={}", self.socket.display());
        let log = self.socket.join("log");
        let log = log.to_str().expect("a path of ours");
        self.try_run("pg_ctl", &["--wait", "--timeout=300", "--log", log, "--options", &options, "start"])
    }

    /// Removes the locks of a server that has ended, as one has to where nobody waits for the dead (in a container): their process
    /// ids stay taken, and PostgreSQL believes that it still runs.
    fn remove_stale_lock(&self) {
        for lock in [self.data.join("postmaster.pid"), self.socket.join(".s.PGSQL.5432.lock")] {
            let text = fs::read_to_string(&lock).unwrap_or_default();
            let holder = text.lines().next().and_then(|pid| pid.trim().parse().ok());
            // Where that fails, starting does, too.
            if holder.is_some_and(processes::has_ended)
                && let Err(error) = fs::remove_file(&lock)
            {
                eprintln!("{}: {error}", lock.display());
            }
        }
    }

    /// Kills whatever of the server is left, such as after its disk was gone.
    #[track_caller]
    pub fn kill(&self) {
        let is_server = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "postgres")
        };
        // The postmaster starts others until it is dead itself.
        loop {
            let servers: Vec<i32> = self.pond.processes().into_iter().filter(is_server).collect();
            match servers.is_empty() {
                true => return,
                false => servers.into_iter().for_each(processes::kill_and_wait),
            }
        }
    }

    /// Stops it in good order.
    #[track_caller]
    pub fn stop(&self) {
        self.run("pg_ctl", &["--wait", "--timeout=300", "--mode=fast", "stop"]);
    }

    /// What `pgbench` has done so far, from all its tables: the sums of accounts, tellers, branches and history, and the
    /// history's length and digest.
    #[track_caller]
    pub fn figures(&self) -> String {
        let query = "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers), \
                     (SELECT sum(bbalance) FROM pgbench_branches), sum(delta), count(*), md5(string_agg(h::text, '' \
                     ORDER BY h::text)) FROM pgbench_history h";
        self.run("psql", &["-At", "-c", query])
    }

    /// `pg_amcheck`, which must find nothing.
    #[track_caller]
    pub fn check(&self) {
        self.run("pg_amcheck", &["--install-missing", "--heapallindexed", "-d", "postgres"]);
    }
}
