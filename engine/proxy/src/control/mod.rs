//! The control thread: slow and rare work, on tokio, so that well-kept libraries serve it unchanged.

mod admin;
mod names;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::core::Shared;
use crate::observe::metrics::CoreMetrics;
use crate::rt::Mailbox;
use crate::{Message, StartError};

/// How long requests under way may take once the process was told to stop.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);

/// How long the gateway waits for the addresses of its upstreams before it says that it is ready.
const NAMES_TIME_MAX: Duration = Duration::from_secs(5);

/// Listens for admin requests.
pub(crate) fn bind_admin(address: SocketAddr) -> Result<TcpListener, StartError> {
    let bind = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bind().map_err(|error| StartError::Bind { address, what: "admin".to_owned(), error })
}

/// What the control thread works with.
pub(crate) struct Control {
    pub(crate) shared: Arc<Shared>,
    pub(crate) metrics: Vec<Arc<CoreMetrics>>,
    pub(crate) mailboxes: Vec<Mailbox<Message>>,
    pub(crate) admin: Option<TcpListener>,
    pub(crate) driver: String,
}

impl Control {
    /// Runs until the process is told to stop and has drained.
    pub(crate) fn run(&self, ready: impl FnOnce()) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            // Before anybody is told that we are ready, a signal must find who handles it.
            let stopped = self.until_stopped()?;
            if let Some(listener) = &self.admin {
                let listener = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
                tokio::spawn(admin::serve(
                    listener,
                    Arc::clone(&self.shared),
                    self.metrics.clone(),
                    self.driver.clone(),
                ));
            }
            let (asked, all_asked) = tokio::sync::oneshot::channel();
            tokio::spawn(names::resolve(Arc::clone(&self.shared), asked));
            tokio::select! {
                _ = all_asked => {}
                () = tokio::time::sleep(NAMES_TIME_MAX) => {}
            }
            ready();
            stopped.await;
            Ok(())
        })
    }

    /// TERM and INT drain; a second one ends at once.
    fn until_stopped(&self) -> io::Result<impl Future<Output = ()>> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        Ok(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            self.shared.draining.store(true, Ordering::Relaxed);
            for mailbox in &self.mailboxes {
                // A core that is a thousand messages behind is past draining.
                let _ = mailbox.send(Message::Drain);
            }
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = self.drained() => {}
                () = tokio::time::sleep(DRAIN_TIME_MAX) => {}
            }
        })
    }

    /// Waits until no client is connected.
    async fn drained(&self) {
        let mut check = tokio::time::interval(Duration::from_millis(20));
        while self.shared.connections.iter().any(|count| count.load(Ordering::Relaxed) > 0) {
            check.tick().await;
        }
    }
}
