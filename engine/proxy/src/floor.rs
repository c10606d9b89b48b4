//! The floor that requests are measured against: bytes from one connection to another and back, one upstream
//! connection for each client, no HTTP, no policy, no deadlines. For `benches` only.

use std::net::SocketAddr;

use sluice_rules::snapshot::Driver;

use crate::StartError;
use crate::body::write_all;
use crate::rt::{self, Buffer, BufferPool, Listener, Mode, Stream};
use crate::transport::Transport;

/// Forwards for ever.
///
/// # Errors
/// If the address cannot be listened on, or no event loop can be started.
pub fn serve(listen: SocketAddr, to: SocketAddr) -> Result<(), StartError> {
    let mode = Mode::detect(Driver::Auto)?;
    let bound = rt::bind(listen, mode == Mode::Epoll);
    let socket =
        bound.map_err(|error| StartError::Bind { address: listen.to_string(), what: "floor".to_owned(), error })?;
    rt::run(mode, async move {
        let buffers = BufferPool::new(usize::MAX / 2);
        let Ok(listener) = Listener::new(socket) else { return };
        while let Ok((client, _)) = listener.accept().await {
            let Some(buffer) = buffers.take() else { return };
            rt::spawn(async move {
                // One that breaks concerns no other.
                let _ = forward(Transport::Plain(client), to, buffer).await;
            });
        }
    })?;
    Ok(())
}

/// A request there, a response back, and again: what fits into one buffer each.
async fn forward(client: Transport, to: SocketAddr, mut buffer: Buffer) -> std::io::Result<()> {
    let upstream = Transport::Plain(Stream::connect(to).await?);
    loop {
        for (from, into) in [(&client, &upstream), (&upstream, &client)] {
            let (count, returned) = from.read(buffer).await;
            if count? == 0 {
                return Ok(());
            }
            let (written, returned) = write_all(into, returned).await;
            written?;
            buffer = returned;
        }
    }
}
