//! What strace wrote of a node: its calls to the system, with when each began and ended.

use std::collections::HashMap;

/// One call to the system.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The lines on which it begins and ends: strace writes them in the order of events.
    pub(crate) begin: usize,
    pub(crate) end: usize,
    /// Name and arguments.
    pub(crate) text: String,
    /// What it returned; `None` if that was never seen.
    pub(crate) result: Option<i64>,
}

impl Call {
    fn new(begin: usize, end: usize, whole: &str) -> Self {
        let (text, result) = whole.rsplit_once(" = ").unwrap_or((whole, "?"));
        let number = result.split_whitespace().next().and_then(|result| result.parse().ok());
        Self { begin, end, text: text.to_owned(), result: number }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.text.split('(').next().unwrap_or_default()
    }

    /// What its descriptor stands for: a path, or `socket:[NUMBER]`.
    pub(crate) fn target(&self) -> &str {
        let inside = self.text.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
        inside.map_or("", |(target, _)| target)
    }

    /// Whether it writes.
    pub(crate) fn writes(&self) -> bool {
        ["write", "pwrite", "send"].iter().any(|verb| self.name().starts_with(verb))
    }

    /// Whether what was written to a file is on its disk once it succeeds.
    pub(crate) fn syncs(&self) -> bool {
        matches!(self.name(), "fsync" | "fdatasync")
    }
}

/// Reads what `strace -f -y -o FILE` wrote. Calls that were interrupted by others are put together.
pub(crate) fn parse(trace: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut open: HashMap<&str, (usize, String)> = HashMap::new();
    for (number, line) in trace.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(text) = rest.strip_suffix(" <unfinished ...>") {
            open.insert(thread, (number, text.to_owned()));
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some((begin, text)) = open.remove(thread) else { continue };
            let ending = resumed.split_once(" resumed>").map_or("", |(_, ending)| ending);
            calls.push(Call::new(begin, number, &(text + ending)));
        } else if !rest.starts_with("+++") && !rest.starts_with("---") {
            calls.push(Call::new(number, number, rest));
        }
    }
    calls.extend(open.into_values().map(|(begin, text)| Call {
        begin,
        end: usize::MAX,
        text,
        result: None,
    }));
    calls.sort_by_key(|call| call.begin);
    calls
}

/// What a trace shows of one acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Between the last write to the store and the acknowledgement the store was synced.
    Synced,
    /// It was not.
    NotSynced,
    /// Nothing was written to the store since the acknowledgement before.
    NotWritten,
    /// No acknowledgement was sent.
    NotSent,
}

/// Looks at the acknowledgements that hold these texts, in their order.
pub(crate) fn acknowledgements(calls: &[Call], store: &str, texts: &[String]) -> Vec<Shown> {
    let mut since = None;
    let mut shown = Vec::new();
    for text in texts {
        let sends = |call: &&Call| {
            call.writes() && call.target().starts_with("socket:") && call.text.contains(text)
        };
        let Some(sent) = calls.iter().find(sends).map(|call| call.begin) else {
            shown.push(Shown::NotSent);
            continue;
        };
        let on_store = || calls.iter().filter(|call| call.target() == store && call.begin < sent);
        let written =
            on_store().rfind(|call| call.writes() && since.is_none_or(|since| call.begin > since));
        let synced = |after: usize| {
            let whole =
                |call: &Call| call.begin > after && call.end < sent && call.result == Some(0);
            on_store().any(|call| call.syncs() && whole(call))
        };
        shown.push(match written {
            None => Shown::NotWritten,
            Some(written) if synced(written.end) => Shown::Synced,
            Some(_) => Shown::NotSynced,
        });
        since = Some(sent);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::{Shown, acknowledgements, parse};

    const STORE: &str = "/data/store/journal-0";

    fn shown(trace: &str) -> Shown {
        let texts = ["abc".to_owned()];
        acknowledgements(&parse(trace), STORE, &texts).first().copied().unwrap_or(Shown::NotSent)
    }

    const WRITE: &str = "11 pwrite64(9</data/store/journal-0>, \"x = 1 (>\"..., 64, 128) = 64\n";
    const SYNC: &str = "11 fdatasync(10</data/store/journal-0>) = 0\n";
    const SEND: &str =
        "12 sendto(30<socket:[77]>, \"HTTP/1.1 200 OK abc\", 19, MSG_NOSIGNAL, NULL, 0) = 19\n";

    #[test]
    fn what_is_synced_before_it_is_sent_is_told_from_what_is_not() {
        let other = "11 fdatasync(10</data/store/other>) = 0\n";
        let failed = "11 fdatasync(10</data/store/journal-0>) = -1 EIO (Input/output error)\n";
        let range = "11 sync_file_range(10</data/store/journal-0>, 0, 0, 7) = 0\n";
        for (trace, wanted) in [
            ([WRITE, SYNC, SEND].concat(), Shown::Synced),
            ([WRITE, SYNC, SYNC, SEND].concat(), Shown::Synced),
            ([WRITE, SEND, SYNC].concat(), Shown::NotSynced),
            ([SYNC, WRITE, SEND].concat(), Shown::NotSynced),
            ([WRITE, SYNC, WRITE, SEND].concat(), Shown::NotSynced),
            ([WRITE, other, SEND].concat(), Shown::NotSynced),
            ([WRITE, failed, SEND].concat(), Shown::NotSynced),
            ([WRITE, range, SEND].concat(), Shown::NotSynced),
            ([SYNC, SEND].concat(), Shown::NotWritten),
            ([WRITE, SYNC].concat(), Shown::NotSent),
        ] {
            assert_eq!(shown(&trace), wanted, "{trace}");
        }
    }

    #[test]
    fn a_call_counts_from_its_first_line_to_its_last() {
        let begin = "11 fdatasync(10</data/store/journal-0> <unfinished ...>\n";
        let end = "11 <... fdatasync resumed>) = 0\n";
        let writing = "13 pwrite64(9</data/store/journal-0>, \"x\", 1, 128 <unfinished ...>\n";
        let written = "13 <... pwrite64 resumed>) = 1\n";
        for (trace, wanted) in [
            ([WRITE, begin, end, SEND].concat(), Shown::Synced),
            ([WRITE, begin, SEND, end].concat(), Shown::NotSynced),
            ([begin, WRITE, end, SEND].concat(), Shown::NotSynced),
            ([writing, begin, written, end, SEND].concat(), Shown::NotSynced),
            ([writing, written, begin, end, SEND].concat(), Shown::Synced),
        ] {
            assert_eq!(shown(&trace), wanted, "{trace}");
        }
    }
}
