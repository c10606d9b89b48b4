//! Content on its way: taken out of one side's framing, put into the other's, in the same buffer.

use std::io;

use sluice_wire::h1::body::{
    CHUNK_HEAD_BYTES, CHUNK_TAIL, ChunkError, ChunkedDecoder, Framing, LAST_CHUNK, chunk_head,
};

use crate::http2::StreamReader;
use crate::rt::Buffer;
use crate::transport::Transport;

/// Takes the content of a message out of what a connection brings.
pub(crate) struct BodyReader {
    decoder: Decoder,
    ended: bool,
    /// Bytes behind the end of the message.
    surplus: Vec<u8>,
    received_bytes: u64,
}

enum Decoder {
    Length(u64),
    Chunked(ChunkedDecoder),
    UntilClose,
}

impl BodyReader {
    pub(crate) fn new(framing: Framing) -> Self {
        let (decoder, ended) = match framing {
            Framing::Empty => (Decoder::Length(0), true),
            Framing::Length(length) => (Decoder::Length(length), false),
            Framing::Chunked => (Decoder::Chunked(ChunkedDecoder::default()), false),
            Framing::UntilClose => (Decoder::UntilClose, false),
        };
        BodyReader { decoder, ended, surplus: Vec::new(), received_bytes: 0 }
    }

    /// Leaves in `buffer`, which holds what was just received, the content alone.
    fn decode(&mut self, buffer: &mut Buffer) -> Result<(), ChunkError> {
        let received = buffer.len();
        let consumed = match &mut self.decoder {
            Decoder::Length(left) => {
                let consumed = usize::try_from(*left).unwrap_or(usize::MAX).min(received);
                *left -= consumed as u64;
                self.ended = *left == 0;
                self.keep_surplus(&buffer.filled()[consumed..]);
                buffer.truncate(consumed);
                consumed
            }
            Decoder::UntilClose => received,
            Decoder::Chunked(decoder) => {
                let decoded = decoder.decode(buffer.filled_mut())?;
                self.ended = decoded.ended;
                self.keep_surplus(&buffer.filled()[decoded.consumed..]);
                let length = decoded.content.len();
                buffer.truncate(decoded.content.end);
                let skipped = decoded.content.start.min(buffer.len());
                buffer.consume(skipped);
                length
            }
        };
        self.received_bytes += consumed as u64;
        Ok(())
    }

    fn keep_surplus(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.surplus = bytes.to_vec();
        }
    }

    /// Reads and decodes more. Content may be empty although the message goes on.
    ///
    /// # Errors
    /// [`ReadError`]; the connection cannot be used further.
    async fn read(&mut self, stream: &Transport, mut buffer: Buffer) -> (Result<usize, ReadError>, Buffer) {
        buffer.clear();
        let (result, mut buffer) = stream.read(buffer).await;
        let result = match result {
            Ok(0) if matches!(self.decoder, Decoder::UntilClose) => {
                self.ended = true;
                Ok(0)
            }
            Ok(0) => Err(ReadError::Closed),
            Ok(count) => self.decode(&mut buffer).map(|()| count).map_err(ReadError::Chunk),
            Err(_) => Err(ReadError::Broken),
        };
        (result, buffer)
    }

    /// Whether all of the content was given out.
    fn ended(&self) -> bool {
        self.ended
    }

    /// Bytes of content so far, and those that the current chunk announces.
    fn known_bytes(&self) -> u64 {
        let announced = match &self.decoder {
            Decoder::Chunked(decoder) => decoder.announced(),
            Decoder::Length(_) | Decoder::UntilClose => 0,
        };
        self.received_bytes.saturating_add(announced)
    }

    /// The trailer section; empty if there was none.
    fn trailers(&self) -> &[u8] {
        match &self.decoder {
            Decoder::Chunked(decoder) => decoder.trailers(),
            Decoder::Length(_) | Decoder::UntilClose => &[],
        }
    }
}

/// Content of a message as it comes, whatever brings it.
pub(crate) enum Source {
    /// A connection of HTTP/1.1.
    Http1 {
        /// Where it comes from.
        transport: Transport,
        /// What takes it out of its framing.
        reader: BodyReader,
    },
    /// A stream of HTTP/2.
    Http2(StreamReader),
}

impl Source {
    /// Leaves in `buffer`, which holds what came behind the head, the content alone.
    pub(crate) fn decode(&mut self, buffer: &mut Buffer) -> Result<(), ChunkError> {
        match self {
            Source::Http1 { reader, .. } => reader.decode(buffer),
            Source::Http2(_) => Ok(()),
        }
    }

    /// Reads more, in place of what is in `buffer`. Content may be empty although the message goes on.
    ///
    /// # Errors
    /// [`ReadError`]; nothing more can be read.
    pub(crate) async fn read(&mut self, mut buffer: Buffer) -> (Result<usize, ReadError>, Buffer) {
        match self {
            Source::Http1 { transport, reader } => reader.read(transport, buffer).await,
            Source::Http2(stream) => {
                buffer.clear();
                stream.read(buffer).await
            }
        }
    }

    /// Waits, without a buffer, until a read would not block.
    pub(crate) async fn readable(&mut self) {
        match self {
            // A connection that cannot be waited for is told apart by the read.
            Source::Http1 { transport, .. } => drop(transport.readable().await),
            Source::Http2(stream) => stream.readable().await,
        }
    }

    /// Whether all of the content was given out.
    pub(crate) fn ended(&self) -> bool {
        match self {
            Source::Http1 { reader, .. } => reader.ended(),
            Source::Http2(stream) => stream.ended(),
        }
    }

    /// Whether the end is the end of the connection.
    pub(crate) fn until_close(&self) -> bool {
        matches!(self, Source::Http1 { reader: BodyReader { decoder: Decoder::UntilClose, .. }, .. })
    }

    /// Whether something came behind the end of the message.
    pub(crate) fn has_surplus(&self) -> bool {
        matches!(self, Source::Http1 { reader, .. } if !reader.surplus.is_empty())
    }

    /// What came behind the end of the message.
    pub(crate) fn take_surplus(&mut self) -> Vec<u8> {
        match self {
            Source::Http1 { reader, .. } => std::mem::take(&mut reader.surplus),
            Source::Http2(_) => Vec::new(),
        }
    }

    /// Bytes of content so far, and those that are announced and still to come, as far as that is known.
    pub(crate) fn known_bytes(&self) -> u64 {
        match self {
            Source::Http1 { reader, .. } => reader.known_bytes(),
            Source::Http2(stream) => stream.received_bytes(),
        }
    }

    /// The trailer section in the form of HTTP/1.1; empty if there was none.
    pub(crate) fn trailers(&self) -> &[u8] {
        match self {
            Source::Http1 { reader, .. } => reader.trailers(),
            Source::Http2(stream) => stream.trailers(),
        }
    }
}

/// Why content could not be read to its end.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The peer closed the connection, or it was shut down for a deadline.
    Closed,
    /// The connection broke.
    Broken,
    /// The chunks are not valid.
    Chunk(ChunkError),
}

/// How content is put on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// As it is: its length was announced, or it ends with the connection.
    Raw,
    /// As chunks.
    Chunked,
}

impl Frame {
    /// The one for content of a request whose length is known or not.
    pub(crate) fn of(framing: Framing) -> Frame {
        if framing == Framing::Chunked { Frame::Chunked } else { Frame::Raw }
    }

    /// Makes of the content in `buffer` what is sent. `last`: nothing follows, so the end is put behind it.
    pub(crate) fn apply(self, buffer: &mut Buffer, last: bool) {
        if self == Frame::Raw {
            return;
        }
        if !buffer.is_empty() {
            let mut space = [0; CHUNK_HEAD_BYTES];
            let length = chunk_head(buffer.len(), &mut space);
            // Room in front and behind is what HEADROOM and TAILROOM are for.
            let fits = buffer.prepend(&space[CHUNK_HEAD_BYTES - length..]) && buffer.append(CHUNK_TAIL);
            debug_assert!(fits);
        }
        if last {
            let fits = buffer.append(LAST_CHUNK);
            debug_assert!(fits);
        }
    }
}

/// Writes all of a buffer.
pub(crate) async fn write_all(stream: &Transport, mut buffer: Buffer) -> (io::Result<()>, Buffer) {
    while !buffer.is_empty() {
        let (result, returned) = stream.write(buffer).await;
        buffer = returned;
        if let Err(error) = result {
            return (Err(error), buffer);
        }
    }
    (Ok(()), buffer)
}
