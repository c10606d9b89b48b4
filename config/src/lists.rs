//! Files with lists of networks, which a running gateway reads again by themselves when they change.

use std::io;
use std::path::Path;

use sluice_rules::prefixes::{ListError, Prefixes, parse_list};

use crate::error::Code;
use crate::files::read_bytes_up_to;

/// Bytes of a list: ten million lines of the longest networks of IPv4.
const LIST_BYTES_MAX: u64 = 192 << 20;

/// Why a file with a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ListFileError {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    /// What is in it is no list.
    #[error(transparent)]
    List(#[from] ListError),
}

impl ListFileError {
    /// Whether the file is not there, which it may be later.
    pub fn is_missing(&self) -> bool {
        matches!(self, ListFileError::Unreadable(error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// The code of its diagnostic.
    pub fn code(&self) -> Code {
        match self {
            ListFileError::Unreadable(_) => Code::Unreadable,
            ListFileError::List(_) => Code::InvalidValue,
        }
    }
}

/// Reads a list of networks.
///
/// # Errors
/// [`ListFileError`]; a list with one bad line is not used at all, since it may lack what it is there for.
pub fn load(path: &Path) -> Result<Prefixes, ListFileError> {
    Ok(parse_list(&read_bytes_up_to(path, LIST_BYTES_MAX)?)?)
}
