//! Text that is not TOML: all its faults, and what is left without them.
//!
//! A parser that goes on after a fault finds others that are not there. So the text is cut into statements, each of
//! which is sound or not by itself: one fault is reported for each that is not, and it is blanked out, so that the
//! rest can still be read.

use std::ops::Range;

use toml::de::DeTable;

/// What the parser says of a key that occurs twice, which is no fault of syntax; a test notices when it says
/// something else.
pub(crate) const DUPLICATE: &str = "duplicate key";

/// Faults that are reported of one file.
const FAULTS_MAX: usize = 20;

/// Lines that look like statements of their own and may yet belong to a value that goes over several lines.
const JOINED_MAX: usize = 64;

/// What is wrong with the syntax of a text.
pub(crate) struct Faults {
    /// Where, and what the parser says of it, in the order of the text.
    pub(crate) faults: Vec<(Range<usize>, String)>,
    /// The text with spaces in place of the statements that are broken. Every place stays what it was.
    pub(crate) rest: String,
}

/// The faults of a text that has some.
pub(crate) fn faults(text: &str) -> Faults {
    let starts = statements(text);
    let piece = |from: usize, to: usize| starts[from]..starts.get(to).copied().unwrap_or(text.len());
    let mut found = Faults { faults: Vec::new(), rest: text.to_owned() };
    let mut at = 0;
    while at < starts.len() {
        let range = piece(at, at + 1);
        let Some((span, message)) = fault(&text[range.clone()]) else {
            at += 1;
            continue;
        };
        // A value that is not complete may go on in lines that look like statements.
        let is_open =
            span.end >= text[range.clone()].trim_end().len() && text[range.clone()].contains(['[', '{', '"', '\'']);
        let joined = |to: &usize| fault(&text[piece(at, *to)]).is_none();
        let last = (at + JOINED_MAX).min(starts.len());
        if let Some(to) = is_open.then(|| (at + 2..=last).find(joined)).flatten() {
            at = to;
            continue;
        }
        found.faults.push((range.start + span.start..range.start + span.end, message));
        if found.faults.len() == FAULTS_MAX {
            blank(&mut found.rest, range.start..text.len());
            break;
        }
        at += 1;
        // Without its header, what a table holds would seem to belong to the one before.
        if is_header(&text[range.clone()]) {
            while at < starts.len() && !is_header(&text[starts[at]..]) {
                at += 1;
            }
        }
        let end = starts.get(at).copied().unwrap_or(text.len());
        blank(&mut found.rest, range.start..end);
    }
    found
}

/// Where statements start, going by the looks of the lines. The first starts at 0.
fn statements(text: &str) -> Vec<usize> {
    let mut starts = vec![0];
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if at > 0 && (is_header(line) || is_assignment(line)) {
            starts.push(at);
        }
        at += line.len();
    }
    starts
}

fn is_header(line: &str) -> bool {
    let line = line.trim_start();
    let name = line.trim_start_matches('[');
    line.len() > name.len() && name.starts_with(|first: char| first.is_alphanumeric() || "_-\"' ".contains(first))
}

fn is_assignment(line: &str) -> bool {
    let Some((key, _)) = line.split_once('=') else { return false };
    let is_key = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.\"' \t".contains(&byte);
    !key.trim().is_empty() && key.bytes().all(is_key)
}

/// The first fault of a statement, unless it has none.
fn fault(piece: &str) -> Option<(Range<usize>, String)> {
    let (_, errors) = DeTable::parse_recoverable(piece);
    let others = errors.iter().filter(|error| error.message() != DUPLICATE);
    let (span, error) = others.map(|error| (span(error, piece), error)).min_by_key(|(span, _)| span.start)?;
    // What is missing at the end is missing behind the last thing that is there.
    let end = piece.trim_end().len();
    let span = if span.start > end { end..end } else { span };
    Some((span, error.message().to_owned()))
}

/// Where an error of the parser is.
pub(crate) fn span(error: &toml::de::Error, text: &str) -> Range<usize> {
    let span = error.span().unwrap_or(0..0);
    span.start.min(text.len())..span.end.min(text.len())
}

/// Whether a place is in a value that looks like text without its quotes.
pub(crate) fn is_unquoted(text: &str, at: usize) -> bool {
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[start..].lines().next().unwrap_or_default();
    let Some((key, value)) = line.split_once('=').filter(|_| is_assignment(line)) else { return false };
    let value = value.trim();
    at > start + key.len() && !value.is_empty() && !value.starts_with(['"', '\'', '[', '{', '=', '#'])
}

/// Where a key or header that occurs again at `at` stood first, going by the looks of the lines. `table` is where the
/// header above it starts.
pub(crate) fn first_of_two(text: &str, at: Range<usize>, table: usize) -> Option<Range<usize>> {
    let line_start = text[..at.start].rfind('\n').map_or(0, |newline| newline + 1);
    let is_header = line_start == table && text[table..].starts_with('[');
    let from = if is_header { 0 } else { table };
    let again = text[line_start..].lines().next()?;
    let mut start = from;
    for line in text[from..line_start].split_inclusive('\n') {
        let same = match (is_header, line.split_once('='), again.split_once('=')) {
            (true, ..) => line.trim() == again.trim(),
            (false, Some((key, _)), Some((same, _))) => key.trim() == same.trim(),
            (false, ..) => false,
        };
        if same {
            let key = start + line.find(&text[at.clone()])?;
            return Some(key..key + at.len());
        }
        start += line.len();
    }
    None
}

fn blank(text: &mut String, range: Range<usize>) {
    let blanks: String = text[range.clone()].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect();
    text.replace_range(range, &blanks);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each statement has one fault at most, a value over several lines is one statement, and the rest stays.
    #[test]
    fn each_statement_has_a_fault_of_its_own() {
        for (text, expected, rest) in [
            ("a = 1\nb = 'x\nc = 2\nd =\n", vec![12, 22], "a = 1\n      \nc = 2\n   \n"),
            ("a = [\n 'x'\n 'y',\n]\nb = 1\n", vec![12], "     \n    \n     \n \nb = 1\n"),
            ("a = [1,\n[t]\nb = 1\n", vec![7], "       \n[t]\nb = 1\n"),
            ("[[t\nb = 1\n[u]\nc = 1\n", vec![3], "   \n     \n[u]\nc = 1\n"),
            ("a = '''\nb = 1\n[c]\n'''\nd = x\n", vec![26], "a = '''\nb = 1\n[c]\n'''\n     \n"),
        ] {
            let found = faults(text);
            let starts: Vec<usize> = found.faults.iter().map(|(span, _)| span.start).collect();
            assert_eq!((starts, found.rest.as_str()), (expected, rest), "{text}");
        }
    }

    #[test]
    fn faults_are_bounded() {
        let found = faults(&"a = [\n".repeat(5000));
        assert_eq!(found.faults.len(), FAULTS_MAX);
        assert!(found.rest.trim().is_empty());
    }
}
