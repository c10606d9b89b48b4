//! Counts what floods of HTTP/2 are made of.
//!
//! A frame of nine bytes can cost its receiver far more than its sender: each is legitimate alone, and only their
//! number is an attack (CVE-2019-9511 to 9518, CVE-2023-44487, VU#421644, CVE-2025-8671). So both directions of a
//! connection are walked over, frame header by frame header (RFC 9113 §4.1), without copying or keeping a payload. A
//! frame that moves nothing forward is paid for: out of what content has earned, and otherwise at a rate. What a frame
//! means, and whether it may come at this point, is left to whoever speaks the protocol.

/// Ticks of [`FrameMeter::received`] and [`FrameMeter::sent`] in a second.
pub const TICKS_PER_SECOND: u32 = 10;

/// For how many seconds of its rate a bucket holds tokens. Ten make the default of 20 resets a second a burst of 200,
/// which a browser that leaves a page with all of its 128 streams open stays below, and so do the 100 requests that
/// most clients send before they have read how many streams they may open.
const BURST_SECONDS: u64 = 10;

/// Streams that end as they should for each reset that they pay for. A client that hedges its requests, or a gateway
/// before us whose users lose patience, resets many streams a second and completes many more.
const ENDED_FOR_RESET: u64 = 5;

/// What a DATA frame with content earns its receiver in control frames. A client that acknowledges each frame alone
/// sends a WINDOW_UPDATE for the stream and one for the connection, and one that measures the bandwidth-delay product,
/// as gRPC does, a PING.
const EARNED_BY_FRAME: u64 = 3;

/// Bytes of content that earn their receiver one control frame more, since an application may read, and so release,
/// less than a frame at a time.
const BYTES_FOR_FRAME: u64 = 512;

/// Control frames that content can earn in advance: as many as come back for a window of 16 MiB, the largest that
/// clients use, if it is sent at once and acknowledged twice for each frame, with some room. A flood of so many is
/// handled in milliseconds.
const EARNED_MAX: u64 = 4096;

/// Bytes of payload that make a control frame count once more. SETTINGS of 16 KiB change 2,730 values.
const BYTES_OF_FRAME: u32 = 256;

/// CONTINUATION frames of a header block. Clients fill their frames, so that a block of 64 KiB has four of them.
const CONTINUATIONS_MAX: u32 = 16;

/// Bytes that begin what a client sends (RFC 9113 §3.4).
const PREFACE_BYTES: u32 = 24;

/// Bytes of a frame header.
const HEADER_BYTES: usize = 9;

/// What a connection may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Streams that may be reset a second, by either side, on average.
    pub resets_per_second: u32,
    /// Frames a second that move nothing forward, on average.
    pub control_frames_per_second: u32,
    /// Bytes of a header block as it is sent, so compressed.
    pub header_block_bytes: u32,
}

/// Which frames there were too many of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flood {
    /// RST_STREAM by the peer, or by us because of what the peer did.
    #[error("too many streams were reset")]
    Resets,
    /// PING
    #[error("too many PING frames")]
    Pings,
    /// SETTINGS
    #[error("too many SETTINGS frames")]
    Settings,
    /// PRIORITY and PRIORITY_UPDATE (RFC 9218)
    #[error("too many PRIORITY frames")]
    Priorities,
    /// WINDOW_UPDATE
    #[error("too many WINDOW_UPDATE frames")]
    WindowUpdates,
    /// DATA without content that does not end its stream
    #[error("too many DATA frames without content")]
    EmptyData,
    /// A header block in too many frames, or of too many bytes.
    #[error("a header block that does not end")]
    Continuations,
    /// GOAWAY, PUSH_PROMISE, and types that are not known, which must be passed over (RFC 9113 §5.5).
    #[error("too many other frames")]
    Others,
}

impl Flood {
    /// All of them.
    pub const ALL: [Flood; 8] = [
        Flood::Resets,
        Flood::Pings,
        Flood::Settings,
        Flood::Priorities,
        Flood::WindowUpdates,
        Flood::EmptyData,
        Flood::Continuations,
        Flood::Others,
    ];

    /// Its name in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Flood::Resets => "resets",
            Flood::Pings => "pings",
            Flood::Settings => "settings",
            Flood::Priorities => "priorities",
            Flood::WindowUpdates => "window-updates",
            Flood::EmptyData => "empty-data",
            Flood::Continuations => "continuations",
            Flood::Others => "others",
        }
    }
}

/// Which side of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The peer opens the streams.
    Server,
    /// We do.
    Client,
}

/// Watches one connection.
#[derive(Clone, Debug)]
pub struct FrameMeter {
    side: Side,
    received: Walker,
    sent: Walker,
    resets: Bucket,
    control: Bucket,
    block: Option<Block>,
    block_bytes_max: u32,
    flood: Option<Flood>,
}

impl FrameMeter {
    /// A meter for a connection that begins now. `now` counts ticks of a tenth of a second, here and below.
    pub fn new(side: Side, budget: Budget, now: u32) -> Self {
        let (received, sent) = match side {
            Side::Server => (PREFACE_BYTES, 0),
            Side::Client => (0, PREFACE_BYTES),
        };
        FrameMeter {
            side,
            received: Walker::behind(received),
            sent: Walker::behind(sent),
            resets: Bucket::new(budget.resets_per_second, u64::from(budget.resets_per_second) * BURST_SECONDS, now),
            control: Bucket::new(budget.control_frames_per_second, EARNED_MAX, now),
            block: None,
            block_bytes_max: budget.header_block_bytes,
            flood: None,
        }
    }

    /// Counts the next bytes that the peer sent; a client's begin with its preface.
    ///
    /// # Errors
    /// [`Flood`], and the same from then on: the connection is to be ended with ENHANCE_YOUR_CALM.
    pub fn received(&mut self, mut bytes: &[u8], now: u32) -> Result<(), Flood> {
        while self.flood.is_none()
            && let Some(frame) = self.received.next(&mut bytes)
        {
            self.flood = self.charge_received(frame, now).err();
        }
        self.verdict()
    }

    /// Counts the next bytes that we sent; a client's begin with its preface.
    ///
    /// # Errors
    /// As [`FrameMeter::received`].
    pub fn sent(&mut self, mut bytes: &[u8], now: u32) -> Result<(), Flood> {
        while self.flood.is_none()
            && let Some(frame) = self.sent.next(&mut bytes)
        {
            self.flood = self.charge_sent(frame, now).err();
        }
        self.verdict()
    }

    /// What was found.
    ///
    /// # Errors
    /// [`Flood`], if there is one.
    pub fn verdict(&self) -> Result<(), Flood> {
        self.flood.map_or(Ok(()), Err)
    }

    fn charge_received(&mut self, frame: Frame, now: u32) -> Result<(), Flood> {
        let flood = match frame.kind {
            Kind::Data { content } => {
                self.note_end(frame, Side::Client);
                if content > 0 || frame.ends_stream() {
                    return Ok(());
                }
                Flood::EmptyData
            }
            Kind::Headers => {
                self.note_end(frame, Side::Client);
                return self.extend_block(Block::default(), frame, 0);
            }
            Kind::Continuation => {
                let block = self.block.take().unwrap_or_default();
                return self.extend_block(block, frame, 1);
            }
            Kind::Reset { .. } => {
                return if self.resets.take(1, now) { Ok(()) } else { Err(Flood::Resets) };
            }
            Kind::Priority => Flood::Priorities,
            Kind::Settings => Flood::Settings,
            Kind::Ping => Flood::Pings,
            Kind::WindowUpdate => Flood::WindowUpdates,
            Kind::Other => Flood::Others,
        };
        let cost = u64::from(1 + frame.length / BYTES_OF_FRAME);
        if self.control.take(cost, now) { Ok(()) } else { Err(flood) }
    }

    fn charge_sent(&mut self, frame: Frame, now: u32) -> Result<(), Flood> {
        match frame.kind {
            Kind::Data { content } => {
                self.note_end(frame, Side::Server);
                if content > 0 {
                    self.control.earn(EARNED_BY_FRAME + u64::from(content) / BYTES_FOR_FRAME);
                }
            }
            Kind::Headers => {
                self.note_end(frame, Side::Server);
                self.control.earn(1);
            }
            // Streams that we reset as a client are ended for our own reasons.
            Kind::Reset { blames_peer: true } if self.side == Side::Server && !self.resets.take(1, now) => {
                return Err(Flood::Resets);
            }
            Kind::Reset { .. }
            | Kind::Continuation
            | Kind::Priority
            | Kind::Settings
            | Kind::Ping
            | Kind::WindowUpdate
            | Kind::Other => {}
        }
        Ok(())
    }

    /// A stream is served when the server ends it; `sent_by` says on which side that is.
    fn note_end(&mut self, frame: Frame, sent_by: Side) {
        if frame.ends_stream() && self.side == sent_by {
            self.resets.earn_part(ENDED_FOR_RESET);
        }
    }

    /// Holds a header block against its bounds while it lasts.
    fn extend_block(&mut self, mut block: Block, frame: Frame, continuations: u32) -> Result<(), Flood> {
        block.bytes = block.bytes.saturating_add(frame.length);
        block.continuations += continuations;
        if block.bytes > self.block_bytes_max || block.continuations > CONTINUATIONS_MAX {
            return Err(Flood::Continuations);
        }
        self.block = (frame.flags & END_HEADERS == 0).then_some(block);
        Ok(())
    }
}

/// A header block that has not ended.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    bytes: u32,
    continuations: u32,
}

/// Tokens in tenths: a tick adds as many of them as there are tokens to a second.
#[derive(Clone, Debug)]
struct Bucket {
    per_second: u64,
    tenths: u64,
    tenths_max: u64,
    /// What was earned by progress, which time does not add to.
    earned: u64,
    earned_max: u64,
    since: u32,
}

const TENTHS: u64 = TICKS_PER_SECOND as u64;

impl Bucket {
    fn new(per_second: u32, earned_max: u64, now: u32) -> Self {
        let tenths_max = u64::from(per_second) * BURST_SECONDS * TENTHS;
        let earned_max = earned_max * TENTHS;
        Bucket { per_second: per_second.into(), tenths: tenths_max, tenths_max, earned: 0, earned_max, since: now }
    }

    fn earn(&mut self, tokens: u64) {
        self.earned = (self.earned + tokens * TENTHS).min(self.earned_max);
    }

    /// Earns one token in so many times, a divisor of ten.
    fn earn_part(&mut self, times: u64) {
        self.earned = (self.earned + TENTHS / times).min(self.earned_max);
    }

    /// Takes tokens, what was earned first. `false`: there are not as many.
    fn take(&mut self, tokens: u64, now: u32) -> bool {
        let added = u64::from(now.saturating_sub(self.since)) * self.per_second;
        self.since = self.since.max(now);
        self.tenths = (self.tenths + added).min(self.tenths_max);
        let cost = tokens * TENTHS;
        let of_earned = cost.min(self.earned);
        if cost - of_earned > self.tenths {
            return false;
        }
        self.earned -= of_earned;
        self.tenths -= cost - of_earned;
        true
    }
}

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;

/// A frame as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    kind: Kind,
    flags: u8,
    /// Bytes of the payload.
    length: u32,
}

impl Frame {
    /// Of DATA and HEADERS only; the flag means something else elsewhere.
    fn ends_stream(self) -> bool {
        self.flags & END_STREAM != 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data {
        /// Bytes without the padding.
        content: u32,
    },
    Headers,
    Priority,
    Reset {
        /// Whether the code is one that answers a mistake of the peer, rather than saying that a stream is not needed
        /// any more or that we have failed.
        blames_peer: bool,
    },
    Settings,
    Ping,
    WindowUpdate,
    Continuation,
    Other,
}

const DATA: u8 = 0x0;
const RST_STREAM: u8 = 0x3;

/// Walks from frame to frame through bytes that come in any pieces.
#[derive(Clone, Debug)]
struct Walker {
    /// The frame header, and the first bytes of the payload where they matter.
    head: [u8; HEADER_BYTES + 4],
    filled: usize,
    /// Bytes until the next frame header.
    skip: u32,
}

impl Walker {
    /// Begins behind `skip` bytes.
    fn behind(skip: u32) -> Self {
        Walker { head: [0; HEADER_BYTES + 4], filled: 0, skip }
    }

    /// Takes bytes from the front until the next frame is known. `None`: more are needed.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        let skipped = bytes.len().min(self.skip as usize);
        *bytes = &bytes[skipped..];
        self.skip -= skipped as u32;
        self.fill(HEADER_BYTES, bytes)?;
        let length = u32::from_be_bytes([0, self.head[0], self.head[1], self.head[2]]);
        let (kind, flags) = (self.head[3], self.head[4]);
        let wanted = match kind {
            DATA if flags & PADDED != 0 => length.min(1),
            RST_STREAM => length.min(4),
            _ => 0,
        };
        self.fill(HEADER_BYTES + wanted as usize, bytes)?;
        self.filled = 0;
        self.skip = length - wanted;
        Some(Frame { kind: self.kind(kind, length, wanted), flags, length })
    }

    /// Takes bytes until there are `count` of the head.
    fn fill(&mut self, count: usize, bytes: &mut &[u8]) -> Option<()> {
        if self.filled < count {
            let taken = bytes.len().min(count - self.filled);
            self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            *bytes = &bytes[taken..];
            self.filled += taken;
        }
        (self.filled >= count).then_some(())
    }

    /// The kind of a frame, of whose payload `begun` bytes are at hand.
    fn kind(&self, kind: u8, length: u32, begun: u32) -> Kind {
        let [.., a, b, c, d] = self.head;
        match kind {
            DATA if begun == 0 => Kind::Data { content: length },
            DATA => Kind::Data { content: (length - 1).saturating_sub(a.into()) },
            0x1 => Kind::Headers,
            0x2 | 0x10 => Kind::Priority,
            // PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, ENHANCE_YOUR_CALM
            RST_STREAM => Kind::Reset { blames_peer: matches!([a, b, c, d], [0, 0, 0, 0x1 | 0x3 | 0x5..=0x7 | 0xb]) },
            0x4 => Kind::Settings,
            0x6 => Kind::Ping,
            0x8 => Kind::WindowUpdate,
            0x9 => Kind::Continuation,
            _ => Kind::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BUDGET: Budget = Budget { resets_per_second: 2, control_frames_per_second: 5, header_block_bytes: 1000 };

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn reset(code: u8) -> Vec<u8> {
        frame(0x3, 0, &[0, 0, 0, code])
    }

    fn server() -> FrameMeter {
        let mut meter = FrameMeter::new(Side::Server, BUDGET, 100);
        assert_eq!(meter.received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 100), Ok(()));
        meter
    }

    /// How many of these frames are let pass at once.
    fn passing(meter: &mut FrameMeter, frame: &[u8], now: u32) -> (usize, Option<Flood>) {
        for count in 0..10_000 {
            if let Err(flood) = meter.received(frame, now) {
                return (count, Some(flood));
            }
        }
        (10_000, None)
    }

    #[test]
    fn each_kind_has_its_bound_and_its_name() {
        let small = |kind| frame(kind, 0, &[0; 4]);
        let cases = [
            ("resets", reset(8), 20),
            ("pings", frame(0x6, 0, &[0; 8]), 50),
            ("pings", frame(0x6, 1, &[0; 8]), 50),
            ("settings", frame(0x4, 0, &[]), 50),
            ("settings", frame(0x4, 1, &[]), 50),
            ("settings", frame(0x4, 0, &[0; 6 * 200]), 10),
            ("priorities", frame(0x2, 0, &[0; 5]), 50),
            ("priorities", small(0x10), 50),
            ("window-updates", small(0x8), 50),
            ("empty-data", frame(0x0, 0, &[]), 50),
            ("empty-data", frame(0x0, PADDED, &[3, 0, 0, 0]), 50),
            ("empty-data", frame(0x0, PADDED, &[255, 0, 0, 0]), 50),
            ("empty-data", frame(0x0, PADDED, &[]), 50),
            ("continuations", small(0x9), 16),
            ("continuations", frame(0x9, 0, &[0; 300]), 3),
            ("continuations", frame(0x1, 0, &[0; 1001]), 0),
            ("others", small(0x5), 50),
            ("others", small(0x7), 50),
            ("others", small(0xbb), 50),
        ];
        for (label, frame, count) in cases {
            let (passed, flood) = passing(&mut server(), &frame, 100);
            assert_eq!((flood.map(Flood::label), passed), (Some(label), count));
        }
        for flood in Flood::ALL {
            assert_eq!(Flood::ALL.iter().filter(|other| other.label() == flood.label()).count(), 1);
        }
    }

    #[test]
    fn progress_is_free() {
        let content = [frame(0x0, 0, b"x"), frame(0x0, PADDED, &[1, 7, 0]), frame(0x0, END_STREAM, b"")];
        let heads = [frame(0x1, END_HEADERS, &[0; 900]), frame(0x1, END_HEADERS | END_STREAM, b"")];
        let block = [frame(0x1, 0, b"x"), frame(0x9, 0, &[0; 400]), frame(0x9, END_HEADERS, &[0; 400])].concat();
        for frame in content.iter().chain(&heads).chain([&block]) {
            assert_eq!(passing(&mut server(), frame, 100), (10_000, None));
        }
    }

    #[test]
    fn a_rate_is_an_average() {
        let mut meter = server();
        for second in 0..100 {
            for _ in 0..5 {
                assert_eq!(meter.received(&frame(0x6, 0, &[0; 8]), 100 + second * 10), Ok(()));
            }
        }
        // The burst is still there, and no more than that however long nothing comes.
        assert_eq!(passing(&mut meter, &frame(0x6, 0, &[0; 8]), 100_000), (50, Some(Flood::Pings)));
        let mut meter = server();
        for _ in 0..50 {
            assert_eq!(meter.received(&frame(0x6, 0, &[0; 8]), 100), Ok(()));
        }
        assert_eq!(meter.received(&frame(0x6, 0, &[0; 8]), 101), Err(Flood::Pings));
        assert_eq!(meter.verdict(), Err(Flood::Pings));
        assert_eq!(meter.received(b"", 10_000), Err(Flood::Pings), "once is for good");
        // A clock that is behind gives nothing.
        let mut meter = server();
        assert_eq!(passing(&mut meter, &reset(8), 0).0, 20);
    }

    /// A client that acknowledges each frame twice and pings for each, with the default of no time passing at all.
    #[test]
    fn content_earns_what_its_receiver_answers() {
        let mut meter = server();
        let answer = [frame(0x8, 0, &[0; 4]), frame(0x8, 0, &[0; 4]), frame(0x6, 0, &[0; 8])].concat();
        for _ in 0..10_000 {
            assert_eq!(meter.sent(&frame(0x0, 0, b"x"), 100), Ok(()));
            assert_eq!(meter.received(&answer, 100), Ok(()));
        }
        // One that reads half a kilobyte at a time.
        for _ in 0..100 {
            assert_eq!(meter.sent(&frame(0x0, 0, &[0; 16 * 1024]), 100), Ok(()));
            for _ in 0..32 {
                assert_eq!(meter.received(&frame(0x8, 0, &[0; 4]), 100), Ok(()));
            }
        }
        // What is earned is bounded.
        for _ in 0..10_000 {
            assert_eq!(meter.sent(&frame(0x0, 0, &[0; 16 * 1024]), 100), Ok(()));
        }
        let (passed, flood) = passing(&mut meter, &frame(0x8, 0, &[0; 4]), 100);
        assert_eq!((passed, flood), (EARNED_MAX as usize + 50, Some(Flood::WindowUpdates)));
    }

    /// What is received earns nothing: its sender has it at hand for free.
    #[test]
    fn an_attacker_earns_nothing_by_sending() {
        let mut meter = server();
        assert_eq!(passing(&mut meter, &frame(0x1, END_HEADERS | END_STREAM, b"x"), 100).1, None);
        assert_eq!(passing(&mut meter, &frame(0x0, END_STREAM, b"x"), 100).1, None);
        assert_eq!(passing(&mut meter.clone(), &reset(8), 100).0, 20);
        assert_eq!(passing(&mut meter, &frame(0x6, 0, &[0; 8]), 100).0, 50);
    }

    /// CVE-2025-8671: what a client makes us reset counts as if it had done so itself.
    #[test]
    fn resets_by_us_count_if_the_peer_is_to_blame() {
        for (code, blames) in
            [(0, false), (1, true), (2, false), (3, true), (4, false), (5, true), (6, true), (7, true)]
                .into_iter()
                .chain([(8, false), (9, false), (10, false), (11, true), (13, false)])
        {
            let mut meter = server();
            let flooded = (0..21).any(|_| meter.sent(&reset(code), 100).is_err());
            assert_eq!((flooded, meter.verdict().is_err()), (blames, blames), "{code}");
            let mut meter = FrameMeter::new(Side::Client, BUDGET, 100);
            assert_eq!(meter.sent(&[0; 24], 100), Ok(()));
            assert!((0..100).all(|_| meter.sent(&reset(code), 100).is_ok()), "{code}");
        }
    }

    #[test]
    fn streams_that_end_well_pay_for_resets() {
        for end in [frame(0x0, END_STREAM, b"x"), frame(0x1, END_STREAM | END_HEADERS, b"x")] {
            for side in [Side::Server, Side::Client] {
                let mut meter = FrameMeter::new(side, BUDGET, 100);
                assert_eq!(meter.received(&[0; 24][..if side == Side::Server { 24 } else { 0 }], 100), Ok(()));
                assert_eq!(meter.sent(&[0; 24][..if side == Side::Client { 24 } else { 0 }], 100), Ok(()));
                for _ in 0..500 {
                    for _ in 0..5 {
                        let ended =
                            if side == Side::Server { meter.sent(&end, 100) } else { meter.received(&end, 100) };
                        assert_eq!(ended, Ok(()));
                    }
                    assert_eq!(meter.received(&reset(8), 100), Ok(()), "{side:?}");
                }
            }
        }
    }

    proptest! {
        /// Whatever pieces the bytes come in, the same frames are found.
        #[test]
        fn pieces_do_not_matter(
            frames in proptest::collection::vec((0u8..12, any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..30),
            sizes in proptest::collection::vec(1usize..50, 1..20),
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(kind, flags, payload)| frame(*kind, *flags, payload)).collect();
            let walk = |sizes: &mut dyn Iterator<Item = usize>| {
                let (mut walker, mut found, mut at) = (Walker::behind(0), Vec::new(), 0);
                while at < bytes.len() {
                    let end = (at + sizes.next().unwrap_or(1)).min(bytes.len());
                    let mut piece = &bytes[at..end];
                    while let Some(frame) = walker.next(&mut piece) {
                        found.push(frame);
                    }
                    at = end;
                }
                found
            };
            let whole = walk(&mut std::iter::once(bytes.len()));
            prop_assert_eq!(whole.len(), frames.len());
            prop_assert_eq!(walk(&mut sizes.into_iter().cycle()), whole);
        }

        /// No bytes make it panic, and no more resets pass than the burst and the rate allow.
        #[test]
        fn a_bucket_never_gives_more_than_its_bound(steps in proptest::collection::vec((0u32..30, 0u64..5), 0..200)) {
            let (mut bucket, mut now, mut taken) = (Bucket::new(2, 0, 7), 7, 0);
            for (ticks, tokens) in steps {
                now += ticks;
                if bucket.take(tokens, now) {
                    taken += tokens;
                }
                prop_assert!(taken * 10 <= 2 * 10 * 10 + u64::from(now - 7) * 2);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..20)) {
            let mut meter = FrameMeter::new(Side::Server, BUDGET, u32::MAX);
            for (position, piece) in pieces.iter().enumerate() {
                let _ = if position % 2 == 0 { meter.received(piece, 0) } else { meter.sent(piece, u32::MAX) };
            }
        }
    }
}
