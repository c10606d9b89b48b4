//! Shows that a request allocates nothing once its connection is warm: counts what the core allocates while a client
//! and an origin exchange requests through a gateway that logs and counts them.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::{Gateway, Reading};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

/// Counts what this thread allocates from now on. Each core calls it.
pub(crate) fn count_here() {
    COUNTED.set(true);
}

// SAFETY: everything is left to the system's allocator, whose contract is the same.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTED.get() {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's promise is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is handed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Requests that are counted over.
const REQUESTS: u64 = 5_000;

/// What the core's beats and sweeps may allocate meanwhile.
const BESIDES: u64 = 100;

const REQUEST: &[u8] =
    b"POST /path?query HTTP/1.1\r\nHost: example.com\r\nUser-Agent: test\r\nConnection: keep-alive, x-gone\r\n\
    X-Gone: 1\r\nContent-Length: 5\r\n\r\nhello";
const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nworld";

/// What is asked for again and again: a response that is stored, and so given from the cache.
const CACHED: &[u8] = b"GET /path?query HTTP/1.1\r\nHost: example.com\r\nUser-Agent: test\r\n\r\n";
const FRESH: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nCache-Control: max-age=3600\r\nContent-Length: 5\r\n\r\nworld";

#[test]
fn a_request_allocates_nothing_once_warm() {
    for (driver, route, request, response) in
        [("auto", "", REQUEST, RESPONSE), ("epoll", "", REQUEST, RESPONSE), ("auto", "cache = { }", CACHED, FRESH)]
    {
        let allocations = allocations_per_run(driver, route, request, response);
        assert!(allocations < BESIDES, "{driver} {route}: {allocations} allocations in {REQUESTS} requests");
    }
}

fn allocations_per_run(driver: &str, route: &str, request: &'static [u8], response: &'static [u8]) -> u64 {
    let origin = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = origin.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for stream in origin.incoming().flatten() {
            std::thread::spawn(move || answer(stream, request, response));
        }
    });
    let log = std::env::temp_dir().join(format!("sluice-allocation-{}-{driver}.log", std::process::id()));
    let text = format!(
        "[runtime]\ncores = 1\ndriver = \"{driver}\"\n[log.access]\nto = {log:?}\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\n[upstream.origin]\nendpoints = [\"{address}\"]\n[[route]]\npath = \"/*\"\nupstream = \"origin\"\n{route}\n"
    );
    let loaded = sluice_config::load_str("test", &text).unwrap_or_else(|report| panic!("{report}"));
    let reading =
        Reading { snapshot: Some(loaded.snapshot), effective: None, report: String::new(), files: Vec::new() };
    let gateway = Gateway::start(reading, None).expect("it starts");
    let mut client = TcpStream::connect(gateway.listening[0].trim_start_matches("http://")).expect("it listens");
    client.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
    let mut buffer = [0; 4096];
    for _ in 0..REQUESTS / 10 {
        ask(&mut client, request, &mut buffer);
    }
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..REQUESTS {
        ask(&mut client, request, &mut buffer);
    }
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    let logged = std::fs::metadata(&log).expect("the log was opened").len();
    // It is in the system's temporary directory anyway.
    let _ = std::fs::remove_file(&log);
    assert!(logged > 0, "lines were written meanwhile");
    allocations
}

fn ask(client: &mut TcpStream, request: &[u8], buffer: &mut [u8]) {
    client.write_all(request).expect("the gateway reads");
    let mut length = 0;
    while !buffer[..length].ends_with(b"world") {
        let count = match client.read(&mut buffer[length..]) {
            // The kernel takes down the ring that was tried on this thread and interrupts a call for it.
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result.expect("the gateway answers"),
        };
        assert!(count > 0, "the gateway closed the connection");
        length += count;
    }
}

fn answer(mut stream: TcpStream, request: &[u8], response: &[u8]) {
    let end = &request[request.len() - 5..];
    let mut buffer = [0; 4096];
    let mut length = 0;
    while let Ok(count @ 1..) = stream.read(&mut buffer[length..]) {
        length += count;
        if buffer[..length].ends_with(if end == b"hello" { end } else { b"\r\n\r\n" }) {
            length = 0;
            if stream.write_all(response).is_err() {
                return;
            }
        }
    }
}
