//! What the operator's side runs on: admin endpoints, logs, draining, reloading.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where the admin endpoints listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admin {
    /// On an address.
    Address(SocketAddr),
    /// On a Unix socket.
    Socket(PathBuf),
}

/// What is logged, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least severe diagnostics of our own that are written, to standard error.
    pub level: Level,
    /// How they are written.
    pub format: LogFormat,
    /// A line for each request. `None`: there are none.
    pub access: Option<AccessLog>,
}

/// How severe a diagnostic of our own is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something does not work.
    Error,
    /// Something may not be as it was meant.
    Warn,
    /// What an operator did, and what came of it.
    Info,
    /// For whoever looks for a fault.
    Debug,
    /// Everything.
    Trace,
}

/// How diagnostics of our own are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// An object a line.
    Json,
}

/// A line for each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Where lines go.
    pub to: LogTarget,
    /// What a line is like.
    pub format: AccessFormat,
    /// Bytes of lines that each core holds while the writer is behind; what does not fit is dropped and counted.
    pub buffer_bytes: usize,
    /// Fields whose values are never logged, in lower case.
    pub mask: Vec<String>,
    /// Query parameters whose values are never logged, in lower case.
    pub mask_query: Vec<String>,
    /// Fields of the request that are logged, in lower case; JSON only.
    pub request_fields: Vec<String>,
}

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, which is made if it does not exist and appended to if it does.
    File(PathBuf),
}

/// What a line of an access log is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessFormat {
    /// An object a line.
    Json,
    /// The combined format of NCSA and its successors.
    Combined,
}

/// How the gateway ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How long connections are still accepted after the gateway has said that it is not ready any more.
    pub grace: Duration,
    /// From the beginning of the drain until whatever is left is cut; at least `grace`.
    pub deadline: Duration,
}

/// When a changed configuration is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload {
    /// As soon as one of its files has changed, and not only when asked to.
    pub watch: bool,
}
