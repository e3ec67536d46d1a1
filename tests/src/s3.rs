//! An S3 server that checks signatures and rights: moto, in a Python process of its own.
//!
//! A stand-in would show what we believe of the protocol; moto is other people's idea of it, with users, policies,
//! conditional writes, ranges and listings in pages. [`S3Server::proxied`] puts a [`Proxy`] in front of it.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Stdio};

use serde_json::Value;

use crate::proxy::Proxy;
use crate::tools::{python, script};

/// The bucket that is there.
pub const BUCKET: &str = "ponds";

/// The environment variables that configurations of [`S3Server::yaml`] name.
pub const KEY: &str = "POND_TEST_S3_KEY";
/// See [`KEY`].
pub const SECRET: &str = "POND_TEST_S3_SECRET";

/// A user of the server.
#[derive(Clone, Debug)]
pub struct User {
    /// Access key id.
    pub key: String,
    /// Its secret.
    pub secret: String,
}

impl User {
    /// What this user's programs have in their environment.
    pub fn environment(&self) -> [(&'static str, &str); 2] {
        [(KEY, &self.key), (SECRET, &self.secret)]
    }
}

/// A running server; it ends when dropped.
pub struct S3Server {
    child: Child,
    /// It runs until this is closed, also when the test is killed.
    stdin: Option<ChildStdin>,
    endpoint: String,
    /// May do everything.
    pub writer: User,
    /// May get and list.
    pub reader: User,
}

impl S3Server {
    /// With authentication.
    #[track_caller]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Takes every request for allowed: a proxy may then change what was signed.
    #[track_caller]
    pub fn without_authentication() -> Self {
        Self::start_with(&["--no-authentication"])
    }

    #[track_caller]
    fn start_with(arguments: &[&str]) -> Self {
        let mut command = python(&["moto.server", "boto3", "flask"]);
        command.arg(script("s3_server.py")).arg(BUCKET).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python can be run");
        let stdin = child.stdin.take();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        stdout.read_line(&mut line).expect("the server's pipe can be read");
        let facts: Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("the S3 server did not start, see above ({error}): {line}"));
        let user = |name: &str| User { key: text(&facts[name]["key"]), secret: text(&facts[name]["secret"]) };
        S3Server {
            child,
            stdin,
            endpoint: text(&facts["endpoint"]),
            writer: user("writer"),
            reader: user("reader"),
        }
    }

    /// Its address, `http://HOST:PORT`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// A proxy in front of it.
    pub fn proxied(&self) -> Proxy {
        Proxy::start(self.endpoint.trim_start_matches("http://"))
    }

    /// A remote's configuration that reaches the bucket at this endpoint (the server's own, or a proxy's). The user
    /// is named by the environment, so that source and replica share it.
    pub fn yaml(endpoint: &str) -> String {
        format!(
            "storage_type: s3\nbucket: {BUCKET}\nregion: us-east-1\nendpoint: {endpoint}\n\
             key: ${{env:{KEY}}}\nsecret: ${{env:{SECRET}}}\nallow_http: true\nsync_interval: 1\n"
        )
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // Fails only if it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("the server tells its facts as text").to_owned()
}
