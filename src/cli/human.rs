//! How things are written for people: sizes, ages, states, tables.

use anstyle::{AnsiColor, Style};
use bytesize::ByteSize;
use comfy_table::{Table, presets};

use crate::clock::{Millis, parse_rfc3339};

/// The word `error:`.
pub(super) const ERROR: Style = AnsiColor::Red.on_default().bold();
/// Names of things.
pub(super) const STRONG: Style = Style::new().bold();
/// What is there for completeness.
pub(super) const FAINT: Style = Style::new().dimmed();

/// What went well.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default();
const OPEN: Style = AnsiColor::Yellow.on_default();

/// "The terminal's own colour", which `anstyle` has no name for. As long as the colours above.
const PLAIN: &str = "\x1b[39m";

/// Wraps a text in a style.
pub(super) fn painted(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// The program as the person called it, so that lines which name it can be pasted.
pub(super) fn program() -> String {
    std::env::args_os().next().map_or_else(
        || "reelhook".to_owned(),
        |path| path.to_string_lossy().into_owned(),
    )
}

/// A state of a task or file, or a verdict, in its colour. All of them get control sequences of the same length.
pub(super) fn state(word: &str) -> String {
    match word {
        "succeeded" | "stored" | "accepted" => painted(GOOD, &clean(word)),
        "failed" | "rejected" | "conflict" => painted(BAD, &clean(word)),
        "pending" | "queued" | "held" | "downloading" | "partial" => painted(OPEN, &clean(word)),
        _ => plain(&clean(word)),
    }
}

/// A text in no colour, but with control sequences as long as those of [`state`].
fn plain(text: &str) -> String {
    format!("{PLAIN}{text}{}", GOOD.render_reset())
}

/// `1.5 MiB`.
pub(super) fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// `3 min ago` or `in 40 s`; a text that is no time stands for itself.
pub(super) fn age(now: Millis, at: &str) -> String {
    match parse_rfc3339(at) {
        Some(at) if at > now => format!("in {}", span(at - now)),
        Some(at) => format!("{} ago", span(now - at)),
        None => clean(at),
    }
}

/// The one or two digits that matter of a span of milliseconds.
fn span(millis: Millis) -> String {
    let seconds = millis / 1000;
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Text from outside on one line, with nothing in it that a terminal would obey or that turns the line around.
pub(super) fn clean(text: &str) -> String {
    let harmless = |c: char| match c {
        '\n' | '\r' | '\t' => ' ',
        c if is_obeyed(c) => '\u{fffd}',
        c => c,
    };
    text.chars().map(harmless).collect()
}

/// Like [`clean`], but lines stay lines.
pub(super) fn clean_lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n")
}

fn is_obeyed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

/// [`clean`], cut to a number of characters.
pub(super) fn brief(text: &str, length: usize) -> String {
    let clean = clean(text);
    if clean.chars().count() <= length {
        return clean;
    }
    let mut cut: String = clean.chars().take(length - 1).collect();
    cut.push('…');
    cut
}

/// `1 file`, `2 files`.
pub(super) fn counted(count: u64, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}

/// A card: lines, and labelled values below them.
#[derive(Default)]
pub(super) struct Card(String);

impl Card {
    /// A line as it is.
    pub(super) fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    /// A line that begins a part.
    pub(super) fn heading(&mut self, title: &str) {
        self.line("");
        self.line(title);
    }

    /// A labelled value; no line at all if there is nothing to say.
    pub(super) fn field(&mut self, label: &str, value: &str) {
        if !value.is_empty() {
            self.line(&format!("    {}{value}", painted(FAINT, &format!("{label:<12}"))));
        }
    }

    /// A labelled moment, relative and absolute.
    pub(super) fn moment(&mut self, label: &str, at: Option<&str>, now: Millis) {
        if let Some(at) = at {
            self.field(label, &format!("{} ({})", age(now, at), clean(at)));
        }
    }

    /// The whole card, without the last line end.
    pub(super) fn text(&self) -> &str {
        self.0.trim_end()
    }
}

/// Columns under their headers. A header that begins with `*` is that of a column of [`state`]s.
///
/// The table counts control sequences as if they took room. That does no harm where all cells of a column have
/// equally many, hence the equal lengths above.
pub(super) fn table(headers: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(headers.iter().map(|header| match header.strip_prefix('*') {
        Some(of_states) => plain(of_states),
        None => (*header).to_owned(),
    }));
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// The same on a line of so many characters, if there is such a bound: the last column gets what the others leave, and if that
/// is too little, columns are left out that can be spared.
pub(super) fn table_within(
    width: Option<usize>,
    (headers, spare): (&[&str], &[&str]),
    mut rows: Vec<Vec<String>>,
) -> String {
    let mut headers = headers.to_vec();
    let Some(width) = width else {
        return table(&headers, rows);
    };
    for name in spare {
        if let Some(column) = headers.iter().position(|header| header == name)
            && room(width, &headers, &rows) < LEAST_ROOM
        {
            headers.remove(column);
            for row in &mut rows {
                row.remove(column);
            }
        }
    }
    let room = room(width, &headers, &rows).max(LEAST_ROOM);
    for last in rows.iter_mut().filter_map(|row| row.last_mut()) {
        *last = brief(last, room);
    }
    table(&headers, rows)
}

/// What a column that is cut has to have left to be of use.
const LEAST_ROOM: usize = 24;

/// What all columns but the last leave of a line.
fn room(width: usize, headers: &[&str], rows: &[Vec<String>]) -> usize {
    let shown = |text: &str| anstream::adapter::strip_str(text).to_string().chars().count();
    let of_column = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| shown(cell));
        let header = headers[column].trim_start_matches('*').chars().count();
        cells.chain([header]).max().unwrap_or(0) + 2
    };
    let others: usize = (0..headers.len().saturating_sub(1)).map(of_column).sum();
    width.saturating_sub(others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_relative_in_both_directions() {
        let now = parse_rfc3339("2026-11-21T12:00:00Z").unwrap();
        assert_eq!(age(now, "2026-11-21T11:59:30Z"), "30 s ago");
        assert_eq!(age(now, "2026-11-21T11:57:00.500Z"), "2 min ago");
        assert_eq!(age(now, "2026-11-21T07:00:00Z"), "5 h ago");
        assert_eq!(age(now, "2026-12-05T12:00:00Z"), "in 14 d");
        assert_eq!(age(now, "soon"), "soon");
    }

    #[test]
    fn text_from_outside_cannot_steer_the_terminal() {
        assert_eq!(
            clean("a\x1b[2Jb\nc\u{202e}d\u{9b}e"),
            "a\u{fffd}[2Jb c\u{fffd}d\u{fffd}e"
        );
        assert_eq!(clean_lines("a\nb\x07"), "a\nb\u{fffd}");
        assert_eq!(brief("abcdef", 4), "abc…");
        assert!(!state("\x1b]0;title\x07").contains('\x07'));
    }

    #[test]
    fn a_table_fits_its_line_as_far_as_it_can() {
        let rows = || {
            vec![vec![
                "t1".to_owned(),
                "abcdef".to_owned(),
                state("stored"),
                "word ".repeat(20),
            ]]
        };
        let headers = ["ID", "SUM", "*STATE", "NOTE"];
        let shown = |width| {
            let shown = table_within(width, (&headers, &["SUM"]), rows());
            anstream::adapter::strip_str(&shown).to_string()
        };
        let longest = |text: &str| text.lines().map(|line| line.trim_end().chars().count()).max();
        assert!(longest(&shown(None)) > Some(80));
        let fits = shown(Some(60));
        assert!(
            longest(&fits) <= Some(60) && fits.contains("SUM") && fits.contains('…'),
            "{fits}"
        );
        let narrow = shown(Some(40));
        assert!(
            longest(&narrow) <= Some(40) && !narrow.contains("abcdef"),
            "{narrow}"
        );
        assert!(shown(Some(5)).contains("stored"), "what matters stays");
    }

    #[test]
    fn columns_of_states_are_aligned_once_the_colours_are_gone() {
        let rows = vec![
            vec!["a".to_owned(), state("stored"), "x".to_owned()],
            vec!["bbb".to_owned(), state("none"), "y".to_owned()],
            vec!["c".to_owned(), state("downloading"), "z".to_owned()],
        ];
        let shown = anstream::adapter::strip_str(&table(&["ID", "*STATE", "NOTE"], rows)).to_string();
        let lines: Vec<&str> = shown.lines().map(str::trim_end).collect();
        assert_eq!(lines[2].find("none"), lines[0].find("STATE"));
        let notes: Vec<_> = ["NOTE", "x", "y", "z"]
            .iter()
            .zip(&lines)
            .map(|(note, line)| line.find(note))
            .collect();
        assert!(notes.windows(2).all(|pair| pair[0] == pair[1]), "{shown}");
    }
}
