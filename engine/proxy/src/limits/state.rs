//! What was used of quotas of the calendar, kept over a restart.
//!
//! The file begins with a line that names its form. Then come the secret that keys are made with, which makes the file as
//! confidential as a log, keys and accounts, and a checksum of all before it. It is written whole to another name and
//! moved into place, so that there is always one that is complete.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use sluice_rules::limit::{Moment, Secret, Word, is_lasting, is_spent};

use crate::core::Shared;

use super::Accounts;

const FORM: &[u8] = b"sluice quotas 1\n";
const CHECKSUM_BYTES: usize = 32;

/// How often the file is written; what a crash loses is no older than that.
const EVERY: Duration = Duration::from_secs(10);

/// What an earlier process has kept.
pub(crate) struct Kept {
    pub(super) secret: Secret,
    pub(super) quotas: Vec<(u64, Word)>,
}

/// Why a file says nothing.
#[derive(Debug, thiserror::Error)]
enum StateError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is torn, or something else")]
    Torn,
}

/// Seconds since 1970.
pub(super) fn unix() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}

/// Reads what was kept. A file that is not there, or torn, is one of nothing; the latter is warned of.
pub(crate) fn load(path: Option<&Path>) -> Kept {
    let read = path.map(|path| (path, fs::read(path).map_err(StateError::from).and_then(|bytes| decode(&bytes))));
    match read {
        Some((_, Ok(kept))) => return kept,
        Some((_, Err(StateError::Io(error)))) if error.kind() == io::ErrorKind::NotFound => {}
        Some((path, Err(error))) => {
            tracing::warn!(path = %path.display(), %error, "what was used of quotas is not known; they begin anew");
        }
        None => {}
    }
    let mut bytes = [0; 16];
    // Without randomness of the system's nothing here could be trusted, and TLS would not work either.
    if rand::fill(&mut bytes).is_err() {
        tracing::error!("the system gives no random numbers; keys of limits can be foreseen");
    }
    Kept { secret: secret(bytes), quotas: Vec::new() }
}

fn secret(bytes: [u8; 16]) -> Secret {
    let all = u128::from_le_bytes(bytes);
    Secret([all as u64, (all >> 64) as u64])
}

fn encode(secret: Secret, quotas: impl Iterator<Item = (u64, Word)>) -> Vec<u8> {
    let mut bytes = FORM.to_vec();
    let numbers = secret.0.into_iter().chain(quotas.flat_map(|(hash, word)| [hash, word]));
    numbers.for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
    let checksum = digest(&SHA256, &bytes);
    bytes.extend_from_slice(checksum.as_ref());
    bytes
}

fn decode(bytes: &[u8]) -> Result<Kept, StateError> {
    let (content, checksum) =
        bytes.split_at_checked(bytes.len().saturating_sub(CHECKSUM_BYTES)).ok_or(StateError::Torn)?;
    if digest(&SHA256, content).as_ref() != checksum {
        return Err(StateError::Torn);
    }
    let (secret_bytes, quotas) =
        content.strip_prefix(FORM).and_then(|rest| rest.split_first_chunk::<16>()).ok_or(StateError::Torn)?;
    let (entries, rest) = quotas.as_chunks::<16>();
    if !rest.is_empty() {
        return Err(StateError::Torn);
    }
    let entries = entries.iter().map(|entry| {
        let both = u128::from_le_bytes(*entry);
        (both as u64, (both >> 64) as u64)
    });
    let quotas = entries.filter(|(hash, word)| *hash != 0 && is_lasting(*word)).collect();
    Ok(Kept { secret: secret(*secret_bytes), quotas })
}

fn save(path: &Path, accounts: &Accounts) -> io::Result<()> {
    let moment = Moment { now: 0, unix: unix() };
    let lasting = |(owner, word): &(u64, Word)| *owner != 0 && is_lasting(*word) && !is_spent(*word, moment);
    let bytes = encode(accounts.secret, accounts.table.all().filter(lasting));
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(Path::new(&beside))?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    // So that the name is as durable as the content.
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Writes the file now and then, for as long as the process lives.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let mut has_failed = false;
    loop {
        tokio::time::sleep(EVERY).await;
        let there = Arc::clone(&shared);
        let saved = tokio::task::spawn_blocking(move || save_now(&there)).await;
        match saved.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(()) => has_failed = false,
            // Told of once, since it will be the same the next time.
            Err(error) if !std::mem::replace(&mut has_failed, true) => {
                tracing::error!(%error, "what was used of quotas cannot be written");
            }
            Err(_) => {}
        }
    }
}

/// Writes the file, if there is to be one.
///
/// # Errors
/// It cannot be written.
pub(crate) fn save_now(shared: &Shared) -> io::Result<()> {
    let snapshot = Arc::clone(&shared.published.current().snapshot);
    match (&snapshot.accounts.state, shared.accounts.get()) {
        (Some(path), Some(accounts)) => save(path, accounts),
        (None, _) | (_, None) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use sluice_rules::limit::{Calendar, FRESH, Meter, Period, Take};

    use super::*;

    /// Whatever is cut off or turned over, nothing of it is believed.
    #[test]
    fn a_torn_file_says_nothing() {
        let meter = Meter::Calendar(Calendar::new(10, Period::Day));
        let Take::Taken { word, .. } = meter.take(FRESH, Moment { now: 0, unix: unix() }, 3, 0) else {
            panic!("it is fresh")
        };
        let bytes = encode(Secret([1, 2]), [(7, word), (8, word)].into_iter());
        let kept = decode(&bytes).expect("it is whole");
        assert_eq!((kept.secret, kept.quotas), (Secret([1, 2]), vec![(7, word), (8, word)]));
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "{length} bytes");
        }
        for position in 0..bytes.len() {
            let mut turned = bytes.clone();
            turned[position] ^= 1;
            assert!(decode(&turned).is_err(), "byte {position}");
        }
    }
}
