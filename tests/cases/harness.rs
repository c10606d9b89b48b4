//! Starts the real binary and talks to it over raw sockets. Nothing here waits without a bound.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sluice_load::message::{Body, Framing, Inbox, ResponseHead};
use sluice_load::origin::{Ended, Origin, Reply, Request};

/// How long anything is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Makes of each case two tests, one for each driver.
macro_rules! both_drivers {
    ($($(#[$meta:meta])* fn $name:ident($driver:ident: &str) $body:block)*) => {$(
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports, reason = "a case may need nothing of its module")]
            use super::*;

            fn case($driver: &str) $body

            #[test]
            fn io_uring() {
                case("io_uring");
            }

            #[test]
            fn epoll() {
                case("epoll");
            }
        }
    )*};
}
pub(crate) use both_drivers;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Waits until `holds`, by looking again and again. Returns whether it does in the end.
pub(crate) fn eventually(holds: impl FnMut() -> bool) -> bool {
    within(PATIENCE, holds)
}

/// Like [`eventually`], with a bound of one's own.
pub(crate) fn within(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !holds() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Where `cargo build` puts the binary: next to the `deps` directory of this one. `SLUICE_BINARY` names another.
pub(crate) fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("SLUICE_BINARY") {
        return path.into();
    }
    let here = std::env::current_exe().expect("the path of the test binary");
    let profile = here.parent().and_then(Path::parent).expect("target/<profile>/deps");
    let path = profile.join("sluice");
    assert!(path.exists(), "{} is missing: run `cargo build` first", path.display());
    path
}

/// A new directory, gone when dropped.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sluice-case-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).expect("a file in a temporary directory");
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // What is left of it is in the system's temporary directory anyway.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The lines of one output of a process, as they come.
#[derive(Clone, Default)]
struct Lines(Arc<(Mutex<Vec<String>>, Condvar)>);

impl Lines {
    fn follow(&self, from: impl Read + Send + 'static) -> JoinHandle<()> {
        let lines = self.clone();
        std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while from.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                lock(&lines.0.0).push(text);
                lines.0.1.notify_all();
                line.clear();
            }
        })
    }

    fn wait(&self, patience: Duration, found: impl Fn(&str) -> bool) -> Option<String> {
        let all = lock(&self.0.0);
        let (all, _) = (self.0.1)
            .wait_timeout_while(all, patience, |all| !all.iter().any(|l| found(l)))
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        all.iter().find(|l| found(l)).cloned()
    }

    fn all(&self) -> Vec<String> {
        lock(&self.0.0).clone()
    }
}

/// How to start the gateway.
pub(crate) struct Launch {
    driver: String,
    cores: u32,
    memory: String,
    toml: String,
    open_files: Option<u32>,
    without_io_uring: bool,
    clock: Option<PathBuf>,
    small_disk: Option<PathBuf>,
}

impl Launch {
    /// `toml` without its `[runtime]` table, which comes from here.
    pub(crate) fn new(driver: &str, toml: &str) -> Self {
        let (driver, toml) = (driver.to_owned(), toml.to_owned());
        Self {
            driver,
            cores: 1,
            memory: "256MiB".to_owned(),
            toml,
            open_files: None,
            without_io_uring: false,
            clock: None,
            small_disk: None,
        }
    }

    pub(crate) fn cores(mut self, cores: u32) -> Self {
        self.cores = cores;
        self
    }

    /// Bounds the message buffers of all cores.
    pub(crate) fn memory(mut self, size: &str) -> Self {
        self.memory = size.to_owned();
        self
    }

    /// Limits the descriptors of the process.
    pub(crate) fn open_files(mut self, count: u32) -> Self {
        self.open_files = Some(count);
        self
    }

    /// Has the kernel refuse io_uring, as container engines do.
    pub(crate) fn without_io_uring(mut self) -> Self {
        self.without_io_uring = true;
        self
    }

    /// Has the wall clock differ from the true time by what a file says, in libfaketime's form. Intervals are true.
    pub(crate) fn clock(mut self, file: &Path) -> Self {
        self.clock = Some(file.to_owned());
        self
    }

    /// Puts a file system of 256 KiB at a folder, for the gateway alone: see [`Gateway::sees`].
    pub(crate) fn small_disk(mut self, folder: &Path) -> Self {
        self.small_disk = Some(folder.to_owned());
        self
    }

    pub(crate) fn start(self) -> Gateway {
        let dir = TempDir::new();
        let Self { driver, cores, memory, toml, .. } = &self;
        let text = format!("[runtime]\ncores = {cores}\ndriver = \"{driver}\"\nmemory = \"{memory}\"\n\n{toml}");
        let file = dir.file("sluice.toml", &text);
        let mut command = match (self.open_files, &self.small_disk) {
            (None, None) => Command::new(binary()),
            (Some(count), _) => {
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(format!("ulimit -n {count}; exec \"$0\" \"$@\"")).arg(binary());
                shell
            }
            (None, Some(folder)) => {
                let mut unshare = Command::new("unshare");
                let mount = format!("mount -t tmpfs -o size=256k tmpfs {} && exec \"$0\" \"$@\"", folder.display());
                unshare.args(["--map-root-user", "--mount", "sh", "-c"]).arg(mount).arg(binary());
                unshare
            }
        };
        if let Some(file) = &self.clock {
            let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH);
            let library = Path::new(&library);
            assert!(library.exists(), "libfaketime is missing; install it with `apt-get install faketime`");
            command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", file);
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("FAKETIME_NO_CACHE", "1");
        }
        command.arg("run").arg(&file).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if self.without_io_uring {
            crate::seccomp::refuse_io_uring(&mut command);
        }
        Gateway::spawn(command, dir, text)
    }
}

/// A running gateway. Dropping it kills it, and fails the test if it panicked.
pub(crate) struct Gateway {
    child: Child,
    listeners: Vec<SocketAddr>,
    ready: String,
    config: String,
    stdout: Lines,
    stderr: Lines,
    followers: Vec<JoinHandle<()>>,
    dir: TempDir,
}

impl Gateway {
    /// Runs the gateway on one core with this configuration.
    pub(crate) fn start(driver: &str, toml: &str) -> Self {
        Launch::new(driver, toml).start()
    }

    /// Runs the demo.
    pub(crate) fn demo() -> Self {
        let mut command = Command::new(binary());
        command.args(["demo", "--listen", "127.0.0.1:0"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::spawn(command, TempDir::new(), String::new())
    }

    fn spawn(mut command: Command, dir: TempDir, config: String) -> Self {
        let mut child = command.spawn().expect("starting the gateway");
        let (stdout, stderr) = (Lines::default(), Lines::default());
        let followers = vec![
            stdout.follow(child.stdout.take().expect("a piped stdout")),
            stderr.follow(child.stderr.take().expect("a piped stderr")),
        ];
        let mut gateway =
            Self { child, listeners: Vec::new(), ready: String::new(), config, stdout, stderr, followers, dir };
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = gateway.stdout.wait(Duration::from_millis(50), |l| l.starts_with("ready: ")) {
                gateway.listeners = addresses(&line);
                gateway.ready = line;
                return gateway;
            }
            let ended = gateway.child.try_wait().expect("the state of the gateway").is_some();
            assert!(!ended && Instant::now() < deadline, "the gateway did not get ready");
        }
    }

    /// The address of the first listener.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listeners[0]
    }

    /// The addresses of all listeners, in the order of the file.
    pub(crate) fn listeners(&self) -> &[SocketAddr] {
        &self.listeners
    }

    /// The line it printed when it was ready.
    pub(crate) fn ready(&self) -> &str {
        &self.ready
    }

    /// The address of the admin endpoints.
    pub(crate) fn admin(&self) -> SocketAddr {
        let (_, rest) = self.ready.split_once("admin http://").expect("an admin address");
        rest.split(';').next().and_then(|address| address.parse().ok()).expect("an address")
    }

    /// Asks the process to stop.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends the process a signal.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill");
    }

    /// A file as the gateway sees it, which may have file systems of its own.
    pub(crate) fn sees(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.child.id()));
        root.join(path.strip_prefix("/").expect("an absolute path"))
    }

    /// The file that it was started with.
    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join("sluice.toml")
    }

    /// Puts another configuration in the place of its own at once, with the `[runtime]` table that it has.
    pub(crate) fn configure(&self, toml: &str) {
        let runtime = self.config.split_once("\n\n").expect("a [runtime] table").0;
        let new = self.dir.file("new", format!("{runtime}\n\n{toml}"));
        std::fs::rename(new, self.file()).expect("a file in a temporary directory");
    }

    /// Runs a command that asks it for something.
    pub(crate) fn command(&self, arguments: &[&str]) -> std::process::Output {
        let admin = self.admin().to_string();
        Command::new(binary()).args(arguments).args(["--admin", &admin]).output().expect("running the binary")
    }

    /// Has it read its configuration again; whether it serves by it, and what was said.
    pub(crate) fn reload(&self) -> (bool, String) {
        let output = self.command(&["reload"]);
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    /// What `/api/status` says, as text.
    pub(crate) fn status(&self) -> String {
        String::from_utf8_lossy(&self.command(&["status", "--format", "json"]).stdout).into_owned()
    }

    /// The exit code, once the process has ended by itself.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        let mut code = None;
        eventually(|| {
            code = self.child.try_wait().expect("the state of the gateway");
            code.is_some()
        });
        code.and_then(|status| status.code())
    }

    /// All lines printed so far, on stdout and stderr.
    pub(crate) fn output(&self) -> Vec<String> {
        let mut all = self.stdout.all();
        all.extend(self.stderr.all());
        all
    }

    /// How many descriptors the process has open.
    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("/proc of the gateway").count()
    }

    /// How many it has once their number stands still: a process may still be opening some when it says that it is
    /// ready.
    pub(crate) fn settled_open_files(&self) -> usize {
        let mut last = (self.open_files(), Instant::now());
        eventually(|| {
            let now = self.open_files();
            if now != last.0 {
                last = (now, Instant::now());
            }
            last.1.elapsed() > Duration::from_millis(300)
        });
        last.0
    }

    /// What those descriptors are; for sockets of TCP, local and remote port and state as the kernel has them.
    pub(crate) fn descriptors(&self) -> Vec<String> {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
        let links = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("/proc of the gateway");
        let named = links.flatten().filter_map(|link| std::fs::read_link(link.path()).ok()).map(|link| {
            let link = link.to_string_lossy().into_owned();
            let inode = link.trim_start_matches("socket:[").trim_end_matches(']').to_owned();
            let row = table.lines().find(|row| row.split_whitespace().nth(9) == Some(&inode));
            row.map_or(link, |row| row.split_whitespace().skip(1).take(4).collect::<Vec<_>>().join(" "))
        });
        named.collect()
    }

    /// Processor time used so far, in ticks of 10 ms.
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("/proc of the gateway");
        let after_name = stat.rsplit(')').next().expect("a process name in parentheses");
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number of ticks")).sum()
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("/proc of the gateway");
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("VmRSS");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a size in kB");
        kib * 1024
    }
}

/// The listeners of a line like `ready: http://127.0.0.1:1, http://127.0.0.1:2, admin http://127.0.0.1:3; ...`.
fn addresses(ready: &str) -> Vec<SocketAddr> {
    let list = ready.trim_start_matches("ready: ").split(';').next().unwrap_or_default();
    let listeners = list.split(", ").filter(|part| !part.starts_with("admin "));
    listeners
        .map(|part| {
            part.trim_start_matches("https://")
                .trim_start_matches("http://")
                .parse()
                .unwrap_or_else(|_| panic!("no address: {part:?}"))
        })
        .collect()
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Fails only if the process has ended on its own, which its output explains.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for follower in self.followers.drain(..) {
            let _ = follower.join();
        }
        let stderr = self.stderr.all().join("\n");
        if std::thread::panicking() {
            eprintln!("--- configuration\n{}\n--- stderr of the gateway\n{stderr}\n---", self.config);
        } else {
            assert!(!stderr.contains("panicked"), "the gateway panicked:\n{stderr}");
        }
    }
}

#[test]
fn the_ready_line_names_all_listeners() {
    let line = "ready: http://127.0.0.1:1, http://127.0.0.1:2, admin http://127.0.0.1:3; 1 core on epoll; buffers";
    assert_eq!(
        addresses(line),
        ["127.0.0.1:1".parse().expect("an address"), "127.0.0.1:2".parse().expect("an address")]
    );
}

/// What a [`Site`] adds to the smallest configuration.
#[derive(Default, Clone)]
pub(crate) struct Setup {
    /// Keys of `[[listener]]`.
    pub(crate) listener: String,
    /// Keys of `[upstream.origin]`.
    pub(crate) upstream: String,
    /// Keys of the catch-all route.
    pub(crate) route: String,
    /// Further tables.
    pub(crate) more: String,
    /// One core unless said otherwise.
    pub(crate) cores: Option<u32>,
}

impl Setup {
    pub(crate) fn listener(keys: &str) -> Self {
        Self { listener: keys.to_owned(), ..Self::default() }
    }

    pub(crate) fn upstream(keys: &str) -> Self {
        Self { upstream: keys.to_owned(), ..Self::default() }
    }

    pub(crate) fn route(keys: &str) -> Self {
        Self { route: keys.to_owned(), ..Self::default() }
    }

    pub(crate) fn more(tables: &str) -> Self {
        Self { more: tables.to_owned(), ..Self::default() }
    }

    pub(crate) fn toml(&self, origin: SocketAddr) -> String {
        let Self { listener, upstream, route, more, .. } = self;
        let mut text = String::new();
        write!(
            text,
            "[[listener]]\naddress = \"127.0.0.1:0\"\n{listener}\n\n\
             [upstream.origin]\nendpoints = [\"{origin}\"]\n{upstream}\n\n\
             [[route]]\npath = \"/*\"\nupstream = \"origin\"\n{route}\n\n{more}\n"
        )
        .expect("writing to a string");
        text
    }
}

/// A gateway in front of one origin. Dropping it fails the test if the origin was sent anything invalid.
pub(crate) struct Site {
    pub(crate) gateway: Gateway,
    pub(crate) origin: Origin,
}

impl Site {
    pub(crate) fn new(driver: &str, setup: &Setup, origin: Origin) -> Self {
        let launch = Launch::new(driver, &setup.toml(origin.address())).cores(setup.cores.unwrap_or(1));
        Self { gateway: launch.start(), origin }
    }

    /// A site whose origin answers by `handler`.
    pub(crate) fn http(driver: &str, handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::new(driver, &Setup::default(), Origin::http(handler))
    }

    /// A site whose origin answers each request with its target.
    pub(crate) fn echo(driver: &str, setup: &Setup) -> Self {
        Self::new(driver, setup, Origin::http(|request| Reply::ok(request.head.target.clone())))
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.gateway.address())
    }

    /// Sends one request on a connection of its own and takes the answer.
    pub(crate) fn ask(&self, request: impl AsRef<[u8]>) -> Response {
        let mut client = self.connect();
        client.send(request);
        client.response()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let violations = self.origin.violations();
        if std::thread::panicking() {
            eprintln!("violations seen by the origin: {violations:#?}");
        } else {
            assert!(violations.is_empty(), "sent to the origin: {violations:#?}");
        }
    }
}

/// A response as a client received it.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    /// The interim responses before it.
    pub(crate) interim: Vec<ResponseHead>,
    pub(crate) head: ResponseHead,
    pub(crate) body: Body,
}

impl Response {
    pub(crate) fn status(&self) -> u16 {
        self.head.status
    }

    pub(crate) fn field(&self, name: &str) -> Option<String> {
        self.head.fields.value(name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body.data).into_owned()
    }

    /// Whether this is an error of the gateway's own, in the form that all of them have.
    pub(crate) fn is_problem(&self) -> bool {
        self.field("content-type").as_deref() == Some("application/problem+json")
    }

    /// The `error` parameter of Proxy-Status (RFC 9209).
    pub(crate) fn proxy_error(&self) -> Option<String> {
        let status = self.field("proxy-status")?;
        let error = status.strip_prefix("sluice")?.split(';').find_map(|p| p.trim().strip_prefix("error="))?;
        Some(error.to_owned())
    }
}

/// Why there was no whole response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The connection ended before a byte of it.
    Nothing(Ended),
    /// The connection ended within it, after these bytes.
    Cut(Ended, Vec<u8>),
    /// What came is not a valid response.
    Invalid(String),
    /// Nothing more came for ten seconds, after these bytes.
    Silence(Vec<u8>),
}

/// A client that sends what it is told and reads strictly.
pub(crate) struct Client {
    stream: TcpStream,
    inbox: Inbox,
    since_last: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect_timeout(&address, PATIENCE).expect("a connection to the gateway"))
    }

    /// A client on a connection that was made already.
    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_read_timeout(Some(PATIENCE)).expect("a read time-out");
        stream.set_write_timeout(Some(PATIENCE)).expect("a write time-out");
        Self { stream, inbox: Inbox::default(), since_last: Vec::new() }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("sending to the gateway");
    }

    /// Sends where the gateway may have closed already.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends each byte in a segment of its own.
    pub(crate) fn send_singly(&mut self, bytes: impl AsRef<[u8]>) {
        bytes.as_ref().iter().for_each(|byte| self.send([*byte]));
    }

    /// Ends the sending direction.
    pub(crate) fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("a half-close");
    }

    /// Resets the connection.
    pub(crate) fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    }

    fn fill(&mut self) -> Result<(), Option<Ended>> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(Some(Ended::Finished)),
                Ok(n) => {
                    self.inbox.push(&buffer[..n]);
                    self.since_last.extend_from_slice(&buffer[..n]);
                    return Ok(());
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Err(None),
                Err(_) => return Err(Some(Ended::Reset)),
            }
        }
    }

    fn broken(&self, why: Option<Ended>) -> Broken {
        match why {
            None => Broken::Silence(self.since_last.clone()),
            Some(ended) if self.since_last.is_empty() => Broken::Nothing(ended),
            Some(ended) => Broken::Cut(ended, self.since_last.clone()),
        }
    }

    /// Waits for a response head, interim ones included.
    pub(crate) fn try_head(&mut self) -> Result<ResponseHead, Broken> {
        loop {
            match self.inbox.response_head() {
                Ok(Some(head)) => {
                    let faults = head.gateway_faults();
                    return if faults.is_empty() { Ok(head) } else { Err(Broken::Invalid(faults.join("; "))) };
                }
                Ok(None) => {}
                Err(why) => return Err(Broken::Invalid(why.0)),
            }
            self.fill().map_err(|why| self.broken(why))?;
        }
    }

    /// Waits for a response head, interim ones included.
    pub(crate) fn head(&mut self) -> ResponseHead {
        self.try_head().unwrap_or_else(|broken| panic!("no response head: {broken:?}"))
    }

    /// Waits for the whole response to a request with `method`.
    pub(crate) fn try_response(&mut self, method: &str) -> Result<Response, Broken> {
        self.since_last = self.inbox.unread().to_vec();
        let mut interim = Vec::new();
        let head = loop {
            let head = self.try_head()?;
            if head.status >= 200 || head.status == 101 {
                break head;
            }
            interim.push(head);
        };
        let mut body = Body::new(head.framing(method));
        loop {
            match self.inbox.body(&mut body) {
                Ok(true) => return Ok(Response { interim, head, body }),
                Ok(false) => {}
                Err(why) => return Err(Broken::Invalid(why.0)),
            }
            match self.fill() {
                Ok(()) => {}
                Err(Some(Ended::Finished)) if head.framing(method) == Framing::UntilClose => {
                    body.end();
                    return Ok(Response { interim, head, body });
                }
                Err(why) => return Err(self.broken(why)),
            }
        }
    }

    /// Waits for the whole response to a request with `method`.
    pub(crate) fn response_to(&mut self, method: &str) -> Response {
        self.try_response(method).unwrap_or_else(|broken| panic!("no response: {broken:?}"))
    }

    /// Waits for the whole response to a GET or the like.
    pub(crate) fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    /// Waits until at least `count` unread bytes are there, and takes them.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.inbox.unread().len() < count {
            self.fill().unwrap_or_else(|why| panic!("{count} bytes due: {why:?}, got {:?}", self.inbox.unread()));
        }
        let mut all = self.inbox.take();
        let rest = all.split_off(count);
        self.inbox.push(&rest);
        all
    }

    /// All bytes up to the end of the connection, and what end that was; none after ten silent seconds.
    pub(crate) fn rest(&mut self) -> (Vec<u8>, Option<Ended>) {
        loop {
            if let Err(why) = self.fill() {
                return (self.inbox.take(), why);
            }
        }
    }

    /// Waits for the end of the connection, before which nothing may come.
    pub(crate) fn eof(&mut self) {
        let (rest, ended) = self.rest();
        assert!(ended.is_some(), "the connection is still open");
        assert!(rest.is_empty(), "before the end came {:?}", String::from_utf8_lossy(&rest));
    }
}
