//! What is wrong with a configuration, for people and for programs.

use std::fmt::{self, Write};
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $Variant:ident = $text:literal,)+) => {
        /// What kind of fault it is. The texts are stable: programs may rely on them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[doc = $doc])+ $Variant,)+
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Code] = &[$(Code::$Variant),+];

            /// What it means and what to do about it, as the reference has it.
            pub fn explanation(self) -> String {
                match self {
                    $(Code::$Variant => crate::read::doc(&[$($doc),+]),)+
                }
            }

            /// The stable text.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Code::$Variant => $text,)+
                }
            }
        }
    };
}

codes! {
    /// A file that cannot be read.
    ///
    /// The file of the configuration, or one that a `${file:...}` refers to, is not there, may not be read, is no
    /// text, or is larger than 16 MiB. The message says what the system answered; check the path, which is relative
    /// to the file that names it, and the rights of the gateway's user.
    Unreadable = "unreadable",
    /// An `include` that matches nothing, is no pattern, or goes round in a circle.
    ///
    /// The file is not there, is included twice, or includes itself by way of others; a star may stand in the last
    /// part of the path only. A pattern with a star may match nothing.
    Include = "include",
    /// Text that is not TOML.
    ///
    /// What most often lacks is a quote, a bracket or a comma in this statement or at the end of the one before. Each
    /// statement is reported once, and of the rest of the file only what is wrong by itself.
    Syntax = "syntax",
    /// A key that has no meaning here.
    ///
    /// It is misspelt, or it belongs to another table: a key behind a `[table]` belongs to that table until the next
    /// header. Nothing is ever ignored silently.
    UnknownKey = "unknown-key",
    /// A key or value whose feature is not part of this version.
    ///
    /// The name is kept for a later version. Remove it, or wait.
    NotBuiltYet = "not-built-yet",
    /// A key that has to be there.
    ///
    /// The table makes no sense without it, and there is no default that would be safe.
    MissingKey = "missing-key",
    /// A value of another type than the key takes.
    ///
    /// A string stands in quotes, a number and `true` or `false` do not, an array stands in brackets.
    WrongType = "wrong-type",
    /// A number without the unit that it needs.
    ///
    /// Durations (`"10s"`), sizes (`"64KiB"`) and rates (`"500B/s"`, `"100/s"`) are strings with a unit, so that nobody has to
    /// know which one is meant.
    MissingUnit = "missing-unit",
    /// A value of the right type that means nothing.
    ///
    /// The label at the place says what was expected. Where a part of the value came from a `${...}`, what came is
    /// not shown.
    InvalidValue = "invalid-value",
    /// A value below the least or above the most that is allowed.
    ///
    /// Every bound of the gateway has bounds itself, which the label gives: below them nothing would work, above them
    /// a mistake would cost too much memory or time.
    OutOfRange = "out-of-range",
    /// An environment variable that is not set.
    ///
    /// Set it where the gateway is started, or write a default into the file: `${NAME:-default}`.
    MissingVariable = "missing-variable",
    /// Two things of one name, address or key.
    ///
    /// The report cites both places where it can, also where they are in two files. Files that are included add to
    /// arrays and to the names of `access`, `limit` and `upstream`; every other key stands in one file only.
    Duplicate = "duplicate",
    /// A name of something that does not exist.
    ///
    /// A route names an upstream, a limit, an access list or a listener, or a test a route, that stands in none of the files. A listener
    /// without a name is referred to by its address, a route without one as `route N`, counted from one.
    DanglingName = "dangling-name",
    /// A `{parameter}` that the path of the route does not have.
    ///
    /// A template may name the parameters of the route's own path, `{rest}` where that ends in `/*`, and `{path}`,
    /// `{query}` and `{host}`.
    UnknownParameter = "unknown-parameter",
    /// Keys that exclude each other, or none of several of which one is needed.
    ///
    /// Each is fine alone. A route does exactly one of `upstream`, `redirect` and `respond`; the report cites the
    /// other place.
    Conflict = "conflict",
    /// A route that no request can reach.
    ///
    /// Either no request has such a path, since paths are normalised before they are matched, or another route takes
    /// every request first; the report cites it. Of routes that match, the one with the more exact host wins, then
    /// exact paths before those with parameters before regular expressions before prefixes, then methods, fields and
    /// query parameters, then the order of the files.
    NeverMatches = "never-matches",
    /// Two routes that are equally exact, so that only their order decides between them.
    ///
    /// Some requests match both, and neither is a special case of the other. The first in the file wins, which may
    /// surprise whoever moves them. Give one of them a further condition.
    Tie = "tie",
    /// Addresses that overlap.
    ///
    /// A wildcard address such as `0.0.0.0:80` includes `127.0.0.1:80`. The kernel sends clients to the more exact
    /// one. The admin endpoints need an address of their own, which is an error otherwise.
    Clash = "clash",
    /// What looks like a password or a key, written out in the file.
    ///
    /// Files are copied, committed and shown. Write `"${NAME}"` to take it from the environment or
    /// `"${file:/run/secrets/name}"` to take it from a file: what comes from there is never printed. The report
    /// itself covers it with stars.
    PlainSecret = "plain-secret",
    /// A file or a socket that cannot be made where it should be.
    ///
    /// The folder is not there, the path is a folder itself, or the gateway's user may not write it. It is an error,
    /// so that a log is not lost silently.
    Unwritable = "unwritable",
    /// Something that nothing refers to.
    ///
    /// An upstream that no route sends to, a limit that no route names, a listener where no route applies, or keys of a log that is off. It is
    /// harmless, and often a name that was misspelt elsewhere.
    Unused = "unused",
    /// An admin address that other machines can reach, though nobody has said that they may.
    ///
    /// Whoever reaches it can reload and drain the gateway. Use loopback or a Unix socket. If a firewall keeps others
    /// away, write `allow-remote = true`.
    ExposedAdmin = "exposed-admin",
    /// A certificate or a private key that cannot be used.
    ///
    /// The file is there and does not hold what it should: PEM, with a certificate or one private key without a
    /// passphrase, whose certificate stands first in its chain. The message says which of it is not so.
    InvalidCertificate = "invalid-certificate",
    /// A private key that belongs to another certificate.
    ///
    /// No client would accept the pair. Most often one of the two files was renewed and the other was not, or the two
    /// are of different names.
    KeyMismatch = "key-mismatch",
    /// Keys of session tickets that cannot be used.
    ///
    /// The file has a key a line, 64 hexadecimal digits each, one to sixteen of them. Text behind a `#` is left out.
    InvalidTicketKeys = "invalid-ticket-keys",
    /// A certificate that has expired or is not valid yet.
    ///
    /// It is a warning, so that a gateway that starts again goes on with the others. Clients refuse it.
    Expired = "expired",
    /// A certificate that expires within two weeks.
    ///
    /// What renews it seems not to do so. The gateway takes a new one as soon as its files have changed.
    ExpiresSoon = "expires-soon",
    /// A certificate that many clients will refuse.
    ///
    /// It has no names, or what follows it in its chain did not sign it, so that clients cannot follow it to a root
    /// that they know.
    DoubtfulCertificate = "doubtful-certificate",
    /// A private key whose file everyone on the machine may read.
    ///
    /// Whoever reads it can be this server. `chmod 600` and give it to the gateway's user.
    ExposedKey = "exposed-key",
    /// An upstream whose certificate is not verified.
    ///
    /// Whoever is in between can be the upstream, and read and change everything. Name the certificates that may sign
    /// its own by `ca`, and by `server-name` the name in it, where it is not that of the endpoint.
    Unverified = "unverified",
}

impl Code {
    /// Whether it is about one key or value, whatever else stands in the files.
    pub(crate) fn is_local(self) -> bool {
        use Code::*;
        match self {
            Unreadable | Include | Syntax | UnknownKey | NotBuiltYet | WrongType | MissingUnit | InvalidValue
            | OutOfRange | MissingVariable | PlainSecret | Unwritable | InvalidCertificate | KeyMismatch
            | InvalidTicketKeys | Expired | ExpiresSoon | DoubtfulCertificate | ExposedKey | Unverified => true,
            MissingKey | Duplicate | DanglingName | UnknownParameter | Conflict | NeverMatches | Tie | Clash
            | Unused | ExposedAdmin => false,
        }
    }
}

/// Whether it stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is not applied.
    Error,
    /// The configuration is applied, though it may not mean what was meant.
    Warning,
}

/// A place in one of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Index of the file.
    pub(crate) file: u32,
    /// First byte.
    pub(crate) start: u32,
    /// Byte behind the last.
    pub(crate) end: u32,
}

impl Place {
    pub(crate) fn new(file: u32, span: Range<usize>) -> Self {
        Place { file, start: span.start as u32, end: span.end as u32 }
    }

    fn span(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// What kind of fault it is.
    pub code: Code,
    /// Whether it stands in the way.
    pub severity: Severity,
    /// Where it is. `None`: nowhere in particular, such as a file that cannot be read.
    pub place: Option<Place>,
    /// What is wrong, in a sentence without a stop.
    pub message: String,
    /// What to say at the place itself.
    pub label: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Other places that belong to it, and why.
    pub related: Vec<(Place, String)>,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(code: Code, place: Option<Place>, message: impl Into<String>) -> Self {
        let (severity, label, related) = (Severity::Error, String::new(), Vec::new());
        Diagnostic { code, severity, place, message: message.into(), label, help: None, related }
    }

    /// A warning at a place.
    pub fn warning(code: Code, place: Option<Place>, message: impl Into<String>) -> Self {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(code, place, message) }
    }

    /// With a text at the place itself.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// With what to do about it.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// With another place that belongs to it.
    pub fn related(mut self, place: Option<Place>, label: impl Into<String>) -> Self {
        self.related.extend(place.map(|place| (place, label.into())));
        self
    }

    /// With the name that was probably meant, if one is near.
    pub fn did_you_mean<'n>(self, written: &str, names: impl IntoIterator<Item = &'n str>) -> Self {
        let names: Vec<&str> = names.into_iter().collect();
        match nearest(written, names.iter().copied()).or_else(|| elsewhere(written, &names)) {
            Some(name) => self.help(format!("did you mean `{name}`?")),
            None => self,
        }
    }
}

/// The name that is nearest to what was written, if it is near enough to be what was meant: few letters differ, or
/// one is the beginning of the other, as `addr` is of `address`.
fn nearest<'n>(written: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let written = written.to_lowercase();
    let allowed = (written.chars().count() / 3).max(1);
    let distance = |name: &'n str| {
        let lower = name.to_lowercase();
        let begins =
            written.len().min(lower.len()) >= 3 && (written.starts_with(&lower) || lower.starts_with(&written));
        let distance = strsim::damerau_levenshtein(&written, &lower);
        (if begins { distance.min(allowed) } else { distance }, name)
    };
    let (distance, name) = names.into_iter().map(distance).min()?;
    (distance <= allowed).then_some(name)
}

/// Words of other gateways, and ours for the same.
const ELSEWHERE: [(&str, &str); 32] = [
    ("listen", "address"),
    ("bind", "address"),
    ("port", "address"),
    ("server", "endpoints"),
    ("servers", "endpoints"),
    ("targets", "endpoints"),
    ("hosts", "host"),
    ("server-name", "host"),
    ("location", "path"),
    ("prefix", "path"),
    ("proxy-pass", "upstream"),
    ("proxy_pass", "upstream"),
    ("backend", "upstream"),
    ("service", "upstream"),
    ("cluster", "upstream"),
    ("return", "respond"),
    ("ssl", "tls"),
    ("alpn", "protocols"),
    ("http2", "h2"),
    ("http/2", "h2"),
    ("grpc", "h2"),
    ("reject", "refuse"),
    ("cert", "chain"),
    ("certificate", "chain"),
    ("private-key", "key"),
    ("sni", "server-name"),
    ("insecure", "verify"),
    ("cache-key", "key"),
    ("default-ttl", "ttl"),
    ("grace", "stale-while-revalidate"),
    ("max-age", "ttl"),
    ("serve-stale", "stale-if-error"),
];

/// What another gateway's word is here, if that has a meaning in this place.
fn elsewhere<'n>(written: &str, names: &[&'n str]) -> Option<&'n str> {
    let (_, ours) = ELSEWHERE.iter().find(|(theirs, _)| *theirs == written)?;
    names.iter().copied().find(|name| name == ours)
}

/// The texts that were read.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<Source>,
    /// Files whose content was put in for a `${file:PATH}`.
    referred: Vec<String>,
}

/// A text that was read.
#[derive(Clone, Debug)]
struct Source {
    name: String,
    text: String,
    /// Where each line starts.
    lines: Vec<usize>,
}

impl Sources {
    /// Adds a file and gives its index.
    pub(crate) fn push(&mut self, name: String, text: String) -> u32 {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        self.files.push(Source { name, text, lines });
        self.files.len() as u32 - 1
    }

    /// Adds a file that a value refers to, read or not.
    pub(crate) fn refer(&mut self, name: String) {
        self.referred.push(name);
    }

    pub(crate) fn name(&self, file: u32) -> &str {
        &self.files[file as usize].name
    }

    pub(crate) fn text(&self, file: u32) -> &str {
        &self.files[file as usize].text
    }

    /// What stands at a place, as it was written: the only way in which a message quotes a value, since what was
    /// put in for a `${VARIABLE}` does not stand there.
    pub(crate) fn written(&self, place: Option<Place>) -> &str {
        let text = place.and_then(|place| self.text(place.file).get(place.span())).unwrap_or("the default");
        text.lines().next().unwrap_or_default()
    }

    /// Line and column of the first byte of a place, both counted from 1, columns in characters.
    pub(crate) fn position(&self, place: Place) -> (usize, usize) {
        let source = &self.files[place.file as usize];
        let start = place.start as usize;
        let line = source.lines.partition_point(|line| *line <= start);
        let before = source.text.get(source.lines[line - 1]..start).unwrap_or_default();
        (line, before.chars().count() + 1)
    }

    /// Puts stars over what stands at a place.
    fn hide(&mut self, place: Place) {
        let text = &mut self.files[place.file as usize].text;
        if let Some(secret) = text.get(place.span()) {
            let stars = secret.replace(|character: char| character != '\n', "*");
            let padded = format!("{stars:*<width$}", width = place.span().len());
            text.replace_range(place.span(), &padded);
        }
    }
}

/// Diagnostics that people are shown at a time.
const SHOWN_MAX: usize = 100;

/// All that is wrong with a configuration, in the order of the files.
#[derive(Clone, Debug)]
pub struct Report {
    sources: Sources,
    diagnostics: Vec<Diagnostic>,
}

impl Report {
    pub(crate) fn new(mut sources: Sources, mut diagnostics: Vec<Diagnostic>) -> Self {
        diagnostics.sort_by_key(|diagnostic| diagnostic.place);
        // A report goes to terminals and logs of builds, where a secret that stands in the file has no business.
        for secret in diagnostics.iter().filter(|diagnostic| diagnostic.code == Code::PlainSecret) {
            secret.place.into_iter().for_each(|place| sources.hide(place));
        }
        Report { sources, diagnostics }
    }

    /// What is wrong, in the order of the files.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// Whether anything stands in the way.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// All files that the configuration was read from, included ones and those that values refer to.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.sources.files.iter().map(|source| &source.name).chain(&self.sources.referred).map(String::as_str)
    }

    /// What stands at a place, as it was written.
    pub(crate) fn written(&self, place: Option<Place>) -> &str {
        self.sources.written(place)
    }

    /// The name of the file of a place.
    pub fn file(&self, place: Place) -> &str {
        self.sources.name(place.file)
    }

    /// Line and column of a place, both counted from 1, columns in characters.
    pub fn position(&self, place: Place) -> (usize, usize) {
        self.sources.position(place)
    }

    /// For people: every diagnostic, up to a hundred, with its source lines, with colours for a terminal or without.
    pub fn render(&self, colours: bool) -> String {
        let renderer = if colours { Renderer::styled() } else { Renderer::plain() };
        let one = |diagnostic| renderer.render(&[self.group(diagnostic)]);
        let shown = self.diagnostics.iter().take(SHOWN_MAX).map(one);
        let more = self.diagnostics.len().saturating_sub(SHOWN_MAX);
        let rest = (more > 0).then(|| format!("... and {more} more, which --format json shows"));
        shown.chain(rest).collect::<Vec<_>>().join("\n\n")
    }

    fn group<'r>(&'r self, diagnostic: &'r Diagnostic) -> Group<'r> {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(&diagnostic.message).id(diagnostic.code.as_str());
        let mut group = Group::with_title(title);
        if let Some(place) = diagnostic.place {
            group = group.element(self.snippet(place, diagnostic));
            for (other, label) in diagnostic.related.iter().filter(|(other, _)| other.file != place.file) {
                let annotation = AnnotationKind::Context.span(other.span()).label(label);
                group = group.element(self.source(*other).annotation(annotation));
            }
        }
        match &diagnostic.help {
            Some(help) => group.element(Level::HELP.message(help)),
            None => group,
        }
    }

    fn snippet<'r>(
        &'r self,
        place: Place,
        diagnostic: &'r Diagnostic,
    ) -> Snippet<'r, annotate_snippets::Annotation<'r>> {
        let primary = AnnotationKind::Primary.span(place.span()).label(&diagnostic.label);
        let nearby = diagnostic.related.iter().filter(|(other, _)| other.file == place.file);
        let nearby = nearby.map(|(other, label)| AnnotationKind::Context.span(other.span()).label(label));
        self.source(place).annotation(primary).annotations(nearby)
    }

    fn source(&self, place: Place) -> Snippet<'_, annotate_snippets::Annotation<'_>> {
        Snippet::source(self.sources.text(place.file)).path(self.sources.name(place.file))
    }

    /// For programs: an array of objects with `code`, `severity`, `message`, and where they are known `file`,
    /// `line`, `column`, `help` and `related`.
    pub fn to_json(&self) -> String {
        let objects: Vec<_> = self.diagnostics.iter().map(|diagnostic| self.object(diagnostic)).collect();
        format!("[{}]", objects.join(","))
    }

    fn object(&self, diagnostic: &Diagnostic) -> String {
        let severity = match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let mut members = vec![
            format!(r#""code":{}"#, json(diagnostic.code.as_str())),
            format!(r#""severity":{}"#, json(severity)),
            format!(r#""message":{}"#, json(&diagnostic.message)),
        ];
        members.extend(diagnostic.place.map(|place| self.place_members(place)));
        if !diagnostic.label.is_empty() {
            members.push(format!(r#""label":{}"#, json(&diagnostic.label)));
        }
        members.extend(diagnostic.help.as_ref().map(|help| format!(r#""help":{}"#, json(help))));
        if !diagnostic.related.is_empty() {
            let related = diagnostic.related.iter();
            let related =
                related.map(|(place, label)| format!(r#"{{{},"label":{}}}"#, self.place_members(*place), json(label)));
            members.push(format!(r#""related":[{}]"#, related.collect::<Vec<_>>().join(",")));
        }
        format!("{{{}}}", members.join(","))
    }

    fn place_members(&self, place: Place) -> String {
        let (line, column) = self.position(place);
        format!(r#""file":{},"line":{line},"column":{column}"#, json(self.file(place)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}

/// A JSON string (RFC 8259 §7).
fn json(text: &str) -> String {
    let mut out = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04x}", control as u32);
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
