//! The client side of the torture, and the judgement over what both ends saw.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Semaphore;

use crate::message::{Body, Framing, Inbox, ResponseHead};
use crate::random::Random;

use super::origin::{OriginLog, difference, fill, reset};
use super::plan::{Act, Plan, Wire, write_in_segments};
use super::{CONNECTION, Findings, Report, STUCK};

/// How the client side ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Reads all answers, then closes.
    Close,
    /// Announces the close in the last request.
    Announced,
    /// Shuts its sending side down after the last request, then reads all answers.
    HalfClose,
    /// Stops within the last request, with FIN or RST.
    CutUpload { reset: bool },
    /// Stops within the last answer, with FIN or RST.
    CutDownload { reset: bool },
}

/// What became of a request, as its client saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Outcome {
    /// Never sent, since its connection ended before.
    #[default]
    Unsent,
    /// The one complete answer of the origin.
    Answered,
    /// An answer of the gateway's own, with this status code.
    Refused(u16),
    /// The connection ended before or within the answer.
    Broken,
    /// Given up by this client itself.
    Aborted,
}

pub(super) struct ClientSide {
    pub(super) gateway: SocketAddr,
    pub(super) seed: u64,
    pub(super) requests: u64,
    pub(super) faults: bool,
    pub(super) next: Cell<u64>,
    pub(super) opened: Cell<u64>,
    pub(super) outcomes: RefCell<Vec<Outcome>>,
    pub(super) half_closed_lost: Cell<u64>,
    pub(super) overtaken: Cell<u64>,
    pub(super) stale: Cell<u64>,
    pub(super) findings: RefCell<Findings>,
}

impl ClientSide {
    pub(super) fn finding(&self, what: String) {
        self.findings.borrow_mut().add(format!("client: {what}"));
    }

    fn set(&self, number: u64, outcome: Outcome) {
        self.outcomes.borrow_mut()[number as usize] = outcome;
    }

    /// Runs one connection. Returns false when all numbers are used up.
    pub(super) async fn connection(&self) -> bool {
        let connection = self.opened.get();
        let mut random = Random::of(self.seed ^ CONNECTION, connection);
        let first = self.next.get();
        let count = (1 + random.below(40)).min(self.requests - first);
        if count == 0 {
            return false;
        }
        self.next.set(first + count);
        self.opened.set(connection + 1);
        let ending = match random.below(100) {
            _ if !self.faults => Ending::Close,
            0..10 => Ending::HalfClose,
            10..15 => Ending::CutUpload { reset: random.one_in(2) },
            15..20 => Ending::CutDownload { reset: random.one_in(2) },
            20..40 => Ending::Announced,
            _ => Ending::Close,
        };
        let stream = match TcpStream::connect(self.gateway).await {
            Ok(stream) => stream,
            Err(error) => {
                self.finding(format!("connection {connection}: cannot connect: {error}"));
                return true;
            }
        };
        // Fails only if the peer is gone already; then reading says so.
        let _ = stream.set_nodelay(true);
        let depth = if random.one_in(3) { 1 + random.below(8) as usize } else { 1 };
        Client { side: self, connection, numbers: first..first + count, ending, depth }.run(stream, random).await;
        true
    }

    /// Joins what the clients saw with what the origin saw.
    pub(super) fn join(&self, origin: &OriginLog) -> Report {
        let mut findings = self.findings.borrow().clone();
        let mut report = Report {
            seed: self.seed,
            requests: self.requests,
            connections: self.opened.get(),
            half_closed_lost: self.half_closed_lost.get(),
            overtaken: self.overtaken.get(),
            stale: self.stale.get(),
            silent_closes: origin.silent_closes,
            ..Report::default()
        };
        for (number, outcome) in self.outcomes.borrow().iter().enumerate() {
            let (arrivals, complete) = (origin.arrivals[number], origin.complete[number]);
            let plan = Plan::of(self.seed, number as u64, self.faults);
            match outcome {
                Outcome::Unsent => report.unsent += 1,
                Outcome::Answered => report.answered += 1,
                Outcome::Refused(status) => *report.refused.entry(*status).or_default() += 1,
                Outcome::Broken => report.broken += 1,
                Outcome::Aborted => report.aborted += 1,
            }
            if *outcome == Outcome::Answered && arrivals == 0 {
                findings.add(format!("request {number}: answered, but the origin never saw it"));
            }
            if *outcome == Outcome::Answered && complete == 0 && plan.act != Act::Early {
                findings.add(format!("request {number}: answered, but the origin never had all of it"));
            }
            if *outcome == Outcome::Unsent && arrivals > 0 {
                findings.add(format!("request {number}: the origin saw it, but it was never sent"));
            }
            if arrivals > 1 {
                report.retried += 1;
                // One retry, and only of what may be sent again (RFC 9110 §9.2.2).
                if arrivals > 2 || !plan.is_idempotent() {
                    findings.add(format!("request {number}: {} reached the origin {arrivals} times", plan.method));
                }
            }
        }
        if report.stale > report.silent_closes {
            findings.add(format!("{} unexplained 502, {} silent closes", report.stale, report.silent_closes));
        }
        findings.count += origin.findings.count;
        findings.words.extend(origin.findings.words.iter().cloned());
        report.finding_count = findings.count;
        report.findings = findings.words;
        report
    }
}

/// One client connection.
pub(super) struct Client<'a> {
    side: &'a ClientSide,
    connection: u64,
    numbers: std::ops::Range<u64>,
    ending: Ending,
    depth: usize,
}

/// How reading the answers of a connection ended.
pub(super) enum Answers {
    /// All that were due came.
    All,
    /// This number got none, or not all of it: only so many bytes, if any.
    Until(u64, usize),
    /// The plan was to stop here.
    Stopped,
}

impl Client<'_> {
    fn plan(&self, number: u64) -> Plan {
        Plan::of(self.side.seed, number, self.side.faults)
    }

    async fn run(self, stream: TcpStream, mut random: Random) {
        let (mut reading, mut writing) = stream.into_split();
        let window = Semaphore::new(self.depth);
        let sent = Cell::new(self.numbers.start);
        let cut = random.next();
        let answers = {
            let write = self.write(&mut writing, &window, &sent, cut, &mut random);
            let read = self.read(&mut reading, &window, cut);
            tokio::pin!(write, read);
            let mut writes = true;
            loop {
                tokio::select! {
                    stop = &mut write, if writes => {
                        writes = false;
                        if stop {
                            break Answers::Stopped;
                        }
                    }
                    answers = &mut read => break answers,
                }
            }
        };
        self.judge(&answers, sent.get());
        let with_reset = match self.ending {
            Ending::CutUpload { reset } | Ending::CutDownload { reset } => reset,
            Ending::Close | Ending::Announced | Ending::HalfClose => false,
        };
        if with_reset && matches!(answers, Answers::Stopped) {
            reset(&reading, writing);
        }
    }

    /// Writes the requests. Returns whether the connection is to end at once.
    async fn write(
        &self,
        writing: &mut OwnedWriteHalf,
        window: &Semaphore,
        sent: &Cell<u64>,
        cut: u64,
        random: &mut Random,
    ) -> bool {
        let last = self.numbers.end - 1;
        for number in self.numbers.clone() {
            match window.acquire().await {
                Ok(permit) => permit.forget(),
                Err(_) => return false,
            }
            let announced = number == last && self.ending == Ending::Announced;
            let mut wire = self.plan(number).request(self.side.seed, announced);
            if let (true, Ending::CutUpload { .. }) = (number == last, self.ending) {
                wire.truncate((cut % wire.len() as u64) as usize);
            }
            sent.set(number + 1);
            if write_in_segments(writing, &wire, random).await.is_err() {
                return false;
            }
        }
        match self.ending {
            Ending::HalfClose | Ending::CutUpload { reset: false } => {
                // Fails only if the gateway was first, which reading tells.
                let _ = writing.shutdown().await;
                false
            }
            Ending::CutUpload { reset: true } => true,
            Ending::Close | Ending::Announced | Ending::CutDownload { .. } => false,
        }
    }

    /// Reads and judges the answers in order.
    async fn read(&self, reading: &mut OwnedReadHalf, window: &Semaphore, cut: u64) -> Answers {
        let mut inbox = Inbox::default();
        let last = self.numbers.end - 1;
        for number in self.numbers.clone() {
            let plan = self.plan(number);
            let stops = number == last && matches!(self.ending, Ending::CutDownload { .. });
            // A little more than the body, so that heads, framing and the very end are all cut.
            let stop_at = stops.then(|| (cut % (plan.download_bytes as u64 + 400)) as usize);
            match self.answer(&plan, reading, &mut inbox, stop_at).await {
                Ok(true) => {}
                Ok(false) => return Answers::Stopped,
                Err(received) => return Answers::Until(number, received),
            }
            window.add_permits(1);
        }
        if !inbox.unread().is_empty() {
            self.side.finding(format!("connection {}: bytes after the last answer", self.connection));
        }
        Answers::All
    }

    /// Waits for bytes. Returns whether there were any.
    async fn fill(&self, number: u64, reading: &mut OwnedReadHalf, inbox: &mut Inbox) -> bool {
        match tokio::time::timeout(STUCK, fill(reading, inbox)).await {
            Ok(more) => more,
            Err(_) => {
                self.side.finding(format!("request {number}: nothing for {STUCK:?} on connection {}", self.connection));
                false
            }
        }
    }

    /// Reads one answer. True for a whole one, false when it is time to stop.
    ///
    /// # Errors
    /// The connection ended before, after so many bytes of the answer, or can no longer be understood.
    async fn answer(
        &self,
        plan: &Plan,
        reading: &mut OwnedReadHalf,
        inbox: &mut Inbox,
        stop_at: Option<usize>,
    ) -> Result<bool, usize> {
        let number = plan.number;
        let mut head = None;
        let mut body = Body::new(Framing::Empty);
        let mut received = inbox.unread().len();
        loop {
            if head.is_none() {
                match inbox.response_head() {
                    Ok(Some(interim)) if interim.status < 200 => continue,
                    Ok(Some(final_head)) => {
                        body = Body::new(final_head.framing(plan.method));
                        head = Some(final_head);
                    }
                    Ok(None) => {}
                    Err(why) => {
                        self.side.finding(format!("request {number}: invalid response: {why}"));
                        return Err(received);
                    }
                }
            }
            if let Some(head) = &head {
                match inbox.body(&mut body) {
                    Ok(true) => {
                        self.judge_answer(plan, head, &body);
                        return Ok(true);
                    }
                    Ok(false) => {}
                    Err(why) => {
                        self.side.finding(format!("request {number}: invalid response body: {why}"));
                        return Err(received);
                    }
                }
            }
            if stop_at.is_some_and(|stop| received >= stop) {
                return Ok(false);
            }
            let before = inbox.unread().len();
            if !self.fill(number, reading, inbox).await {
                // To a client of HTTP/1.1 the gateway frames all bodies, so this end is never a good one.
                if body.end() && head.as_ref().is_some_and(|h| h.framing(plan.method) == Framing::UntilClose) {
                    self.side.finding(format!("request {number}: a body that ends with the connection"));
                }
                return Err(received);
            }
            received += inbox.unread().len() - before;
        }
    }

    fn judge_answer(&self, plan: &Plan, head: &ResponseHead, body: &Body) {
        let number = plan.number;
        for fault in head.gateway_faults() {
            self.side.finding(format!("request {number}: {fault}"));
        }
        let Some(named) = head.fields.value("x-number") else {
            if head.status < 400 || head.fields.value("content-type").as_deref() != Some("application/problem+json") {
                self.side.finding(format!("request {number}: status {} from nowhere", head.status));
            }
            self.side.set(number, Outcome::Refused(head.status));
            let cut = number + 1 == self.numbers.end && matches!(self.ending, Ending::CutUpload { .. });
            match head.status {
                502 if plan.act.is_fault() => {}
                502 if plan.upload != Wire::None || !plan.is_idempotent() => {
                    self.side.stale.set(self.side.stale.get() + 1);
                }
                _ if cut => {}
                status => self.side.finding(format!("request {number}: refused with {status} for no reason")),
            }
            return;
        };
        self.side.set(number, Outcome::Answered);
        if named != number.to_string() {
            self.side.finding(format!("request {number}: got the answer to {named}"));
        } else if head.status != plan.status {
            self.side.finding(format!("request {number}: status {} instead of {}", head.status, plan.status));
        } else if body.data != plan.download(self.side.seed) {
            let difference = difference(&plan.download(self.side.seed), &body.data);
            self.side.finding(format!("request {number}: complete, but {difference}"));
        }
    }

    /// Says what became of the requests without an answer, and whether there is a good reason.
    fn judge(&self, answers: &Answers, sent: u64) {
        let (open_from, received) = match answers {
            Answers::All => return,
            Answers::Until(number, received) => (*number, *received),
            // Those before the last may have been answered or not: look at what is noted.
            Answers::Stopped => (self.numbers.start, 0),
        };
        let outcomes = |number: u64| self.side.outcomes.borrow()[number as usize];
        let mut excused = false;
        for number in self.numbers.clone() {
            let plan = self.plan(number);
            // After a fault the gateway may close, and after an early answer it may rather close than read on.
            excused |= plan.act.is_fault() || plan.act == Act::Early || matches!(outcomes(number), Outcome::Refused(_));
            if number < open_from || number >= sent || outcomes(number) != Outcome::Unsent {
                continue;
            }
            let outcome = match (answers, self.ending) {
                (Answers::Stopped, _) => Outcome::Aborted,
                (_, Ending::CutUpload { .. }) if number + 1 == self.numbers.end => Outcome::Aborted,
                _ => Outcome::Broken,
            };
            self.side.set(number, outcome);
            if outcome != Outcome::Broken || excused {
                continue;
            }
            // A reset for the fault of a later request takes what this client has not read yet with it.
            if (number + 1..sent).any(|later| self.plan(later).act.is_fault()) {
                self.side.overtaken.set(self.side.overtaken.get() + 1);
                continue;
            }
            // Who sends FIN may have left: a gateway waits for it only for so long. A cut upload is such a FIN too.
            if matches!(self.ending, Ending::HalfClose | Ending::CutUpload { .. }) {
                self.side.half_closed_lost.set(self.side.half_closed_lost.get() + 1);
                continue;
            }
            self.side.finding(format!(
                "request {number} lost: {plan:?}, connection {} ({:?}), answers until {open_from} and {received} bytes of \
                 that, {sent} sent",
                self.connection, self.ending
            ));
        }
    }
}
