//! The tables of the operator's side: admin, log, drain, reload.

use sluice_rules::snapshot::{AccessFormat, Level, LogFormat};

use super::{DAY, KIB, MIB};
use crate::error::{Code, Diagnostic};
use crate::read::{At, Context, FromToml, List, Node, Optional, Shape, choice, table};
use crate::values::{Address, FieldName, FilePath, Size, Text, Time};

table! {
    /// Health, metrics and control, on an address or a socket.
    pub struct Admin {
        /// The address where it listens. Whoever reaches it controls the gateway, so keep it on loopback.
        address: Optional<Address>,
        /// The Unix socket where it listens, relative to this file.
        socket: Optional<FilePath>,
        /// Whether the address may be one that other machines reach.
        allow_remote: At<bool> = false,
    }
    later ["tls", "auth"];
}

table! {
    /// What is logged, and where.
    pub struct Log {
        /// The least severe of the gateway's own messages that are written, to standard error.
        level: At<LevelName> = "info",
        /// How they are written: for people, or an object a line.
        format: At<LogFormatName> = "text",
        /// A line for each request.
        access: At<AccessLog> = super::no_keys(),
    }
    later ["error"];
}

choice! {
    /// How severe a message is.
    LevelName: Level {
        "error" = Level::Error, "warn" = Level::Warn, "info" = Level::Info, "debug" = Level::Debug,
        "trace" = Level::Trace,
    }
}

choice! {
    /// How the gateway's own messages are written.
    LogFormatName: LogFormat { "text" = LogFormat::Text, "json" = LogFormat::Json }
}

table! {
    /// A line for each request.
    pub struct AccessLog {
        /// Where lines go: nowhere (`"off"`), `"stdout"`, `"stderr"`, or a file, relative to this one.
        to: At<LogTarget> = "off",
        /// What a line is like: an object, or the combined format of nginx and Apache.
        format: At<AccessFormatName> = "json",
        /// Bytes of lines that each core holds while the writer is behind. What does not fit is dropped and counted.
        buffer: At<Size<{ 64 * KIB }, { 64 * MIB }>> = "1MiB",
        /// Fields whose values are never logged.
        mask: At<List<FieldName>> = ["authorization", "cookie", "set-cookie", "proxy-authorization"],
        /// Query parameters whose values are never logged, whatever their case.
        mask_query: At<List<Text>> = [
            "access_token", "token", "password", "secret", "api_key", "apikey", "key", "code", "sig", "signature",
        ],
        /// Fields of the request that are logged, in JSON only.
        request_fields: At<List<FieldName>> = ["user-agent", "referer"],
    }
    later ["fields", "sample"];
}

choice! {
    /// What a line of an access log is like.
    AccessFormatName: AccessFormat { "json" = AccessFormat::Json, "combined" = AccessFormat::Combined }
}

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file.
    File(FilePath),
}

impl LogTarget {
    const WORDS: &[&str] = &["off", "stdout", "stderr"];
}

impl FromToml for LogTarget {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        match context.text(node, "a string")? {
            "off" => Some(LogTarget::Off),
            "stdout" => Some(LogTarget::Stdout),
            "stderr" => Some(LogTarget::Stderr),
            // A bare word is a slip more often than it is a file.
            text if !text.contains(['/', '.']) => {
                let message = format!("{} is no place for log lines", context.written(node.place));
                let note = Diagnostic::error(Code::InvalidValue, node.place, message);
                let note = note.label("expected `off`, `stdout`, `stderr` or a path such as ./access.log");
                let known = Self::WORDS.iter().copied();
                context.push(if node.substituted { note } else { note.did_you_mean(text, known) });
                None
            }
            _ => FilePath::read(node, context).map(LogTarget::File),
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![Shape::OneOf(Self::WORDS), FilePath::shape()])
    }
}

table! {
    /// How the gateway ends.
    pub struct Drain {
        /// How long clients are still accepted after the gateway has said that it is not ready any more.
        grace: At<Time<0, DAY>> = "1s",
        /// From the beginning of the drain until whatever is left is cut, at least `grace`.
        deadline: At<Time<0, DAY>> = "30s",
    }
}

table! {
    /// When a changed configuration is applied. HUP and `sluice reload` apply it at any time.
    pub struct Reload {
        /// Whether it is applied as soon as one of its files has changed.
        watch: At<bool> = false,
    }
}
