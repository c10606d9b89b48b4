//! What a numbered request and its answer are, by the seed and the number alone.

use std::io;

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;

use crate::origin::encode_chunks;
use crate::random::Random;

use super::{RESPONSE, WIRE};

/// What the origin does with a request, the first time it sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Reads all, answers, keeps the connection.
    Answer,
    /// Sends 103 before it answers.
    Interim,
    /// Answers at the head, then reads the rest.
    Early,
    /// Answers with `Connection: close`, and closes.
    CloseAnnounced,
    /// Answers, then closes without a word: the next request on the pooled connection meets a closed one.
    CloseSilently,
    /// Ends the connection before a byte of the response.
    FinishBefore,
    /// Resets the connection before a byte of the response.
    ResetBefore,
    /// Ends the connection within the response.
    FinishWithin,
    /// Resets the connection within the response.
    ResetWithin,
}

impl Act {
    pub(super) fn is_fault(self) -> bool {
        matches!(self, Self::FinishBefore | Self::ResetBefore | Self::FinishWithin | Self::ResetWithin)
    }
}

/// How a body goes over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    None,
    Length,
    Chunked,
    UntilClose,
}

/// All about one request, from its number.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) number: u64,
    pub(super) method: &'static str,
    pub(super) upload: Wire,
    pub(super) upload_bytes: usize,
    pub(super) expects: bool,
    pub(super) status: u16,
    pub(super) download: Wire,
    pub(super) download_bytes: usize,
    pub(super) act: Act,
}

impl Plan {
    pub(super) fn of(seed: u64, number: u64, faults: bool) -> Self {
        let mut random = Random::of(seed, number);
        let method = match random.below(100) {
            0..50 => "GET",
            50..53 => "HEAD",
            53..85 => "POST",
            85..95 => "PUT",
            _ => "DELETE",
        };
        let with_body = match method {
            "POST" | "PUT" => true,
            // A body on any method is framed the same way.
            _ => random.one_in(20),
        };
        let (upload, upload_bytes) = match with_body {
            false => (Wire::None, 0),
            true if random.one_in(2) => (Wire::Length, random.body_size()),
            true => (Wire::Chunked, random.body_size()),
        };
        let status = match random.below(100) {
            0..90 => 200,
            90..93 => 204,
            93..95 => 304,
            95..98 => 404,
            _ => 500,
        };
        let download = match random.below(20) {
            0..10 => Wire::Length,
            19 if faults => Wire::UntilClose,
            _ => Wire::Chunked,
        };
        let bodiless = method == "HEAD" || status == 204 || status == 304;
        let download_bytes = random.body_size();
        let download = if bodiless { Wire::None } else { download };
        let act = match random.below(1000) {
            _ if !faults => Act::Answer,
            0..20 => Act::Interim,
            20..40 => Act::Early,
            40..60 => Act::CloseAnnounced,
            60..70 => Act::CloseSilently,
            70..75 => Act::FinishBefore,
            75..80 => Act::ResetBefore,
            // The end of the connection is the end of such a body: only a reset can cut it.
            80..86 if download != Wire::UntilClose => Act::FinishWithin,
            80..92 => Act::ResetWithin,
            _ => Act::Answer,
        };
        Self {
            number,
            method,
            upload,
            upload_bytes,
            expects: upload_bytes > 0 && random.one_in(50),
            status,
            download,
            download_bytes: if download == Wire::None { 0 } else { download_bytes },
            act,
        }
    }

    pub(super) fn upload(&self, seed: u64) -> Vec<u8> {
        Random::of(seed, self.number).bytes(self.upload_bytes)
    }

    pub(super) fn download(&self, seed: u64) -> Vec<u8> {
        Random::of(seed ^ RESPONSE, self.number).bytes(self.download_bytes)
    }

    pub(super) fn is_idempotent(&self) -> bool {
        self.method != "POST"
    }

    pub(super) fn request(&self, seed: u64, last: bool) -> Vec<u8> {
        let mut random = Random::of(seed ^ WIRE, self.number);
        let mut wire = format!("{} /t/{} HTTP/1.1\r\nHost: torture.test\r\n", self.method, self.number);
        if self.expects {
            wire.push_str("Expect: 100-continue\r\n");
        }
        if last {
            wire.push_str("Connection: close\r\n");
        }
        let mut wire = wire.into_bytes();
        encode(&mut wire, self.upload, &self.upload(seed), &mut random);
        wire
    }

    pub(super) fn response(&self, seed: u64) -> Vec<u8> {
        let mut random = Random::of(seed ^ WIRE ^ RESPONSE, self.number);
        let mut wire = String::new();
        if self.act == Act::Interim {
            wire.push_str("HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n");
        }
        wire.push_str(&format!("HTTP/1.1 {} \r\nX-Number: {}\r\n", self.status, self.number));
        if self.act == Act::CloseAnnounced {
            wire.push_str("Connection: close\r\n");
        }
        let mut wire = wire.into_bytes();
        encode(&mut wire, self.download, &self.download(seed), &mut random);
        wire
    }
}

/// Ends a head with the fields of a framing, and appends the body.
pub(super) fn encode(wire: &mut Vec<u8>, how: Wire, body: &[u8], random: &mut Random) {
    match how {
        Wire::None => wire.extend_from_slice(b"\r\n"),
        Wire::Length => {
            wire.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            wire.extend_from_slice(body);
        }
        Wire::UntilClose => {
            wire.extend_from_slice(b"\r\n");
            wire.extend_from_slice(body);
        }
        Wire::Chunked => {
            wire.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            let size_max = match random.below(4) {
                0 if body.len() <= 1024 => 1,
                0 | 1 => 300,
                2 => 20_000,
                _ => u64::MAX,
            };
            let mut chunks = Vec::new();
            let mut rest = body;
            while !rest.is_empty() {
                let size = 1 + random.below(size_max.min(rest.len() as u64)) as usize;
                let (chunk, after) = rest.split_at(size);
                chunks.push(chunk.to_vec());
                rest = after;
            }
            let trailers = match random.one_in(4) {
                true => vec![("X-Trailer".to_owned(), "dropped or passed on".to_owned())],
                false => Vec::new(),
            };
            encode_chunks(wire, &chunks, &trailers);
        }
    }
}

/// Writes `wire` in random segments, each a write of its own.
pub(super) async fn write_in_segments(half: &mut OwnedWriteHalf, wire: &[u8], random: &mut Random) -> io::Result<()> {
    let mut rest = wire;
    // Most messages leave whole; the others are what makes parsers err.
    let singly = match random.below(8) {
        0 => random.below(64) as usize,
        1..4 => 0,
        _ => return half.write_all(rest).await,
    };
    while !rest.is_empty() {
        let size = match wire.len() - rest.len() < singly {
            true => 1,
            false => 1 + random.below(rest.len().max(256) as u64) as usize,
        };
        let (segment, after) = rest.split_at(size.min(rest.len()));
        half.write_all(segment).await?;
        rest = after;
        tokio::task::yield_now().await;
    }
    Ok(())
}
