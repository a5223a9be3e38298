//! What every command works with: configuration, clock, and where its words go.

use std::io::{self, BufRead, IsTerminal as _, Write};
use std::path::PathBuf;

use crate::clock::Clock;
use crate::config::{Config, Environment, Error, Inputs, Overrides};

/// The surroundings of one command; a test puts its own in their place.
pub struct Session {
    /// The environment.
    pub environment: Environment,
    /// The time, for ages and signatures.
    pub clock: Clock,
    config_file: Option<PathBuf>,
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    /// Where a person answers; `None` if there is nobody to ask.
    answers: Option<Box<dyn BufRead + Send>>,
    /// Characters of a line where the result is shown to a person.
    width: Option<usize>,
}

/// Standard output does not take what we write.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
pub struct CannotWrite(#[source] io::Error);

impl CannotWrite {
    /// Whether nobody reads it any more.
    pub fn is_broken_pipe(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

impl Session {
    /// The surroundings of this process. Colours go to terminals only, and `NO_COLOR` is honoured.
    pub fn of_process(config_file: Option<PathBuf>) -> Self {
        Self {
            environment: Environment::of_process(),
            clock: Clock::system(),
            config_file,
            out: Box::new(anstream::stdout()),
            err: Box::new(anstream::stderr()),
            answers: match io::stdin() {
                stdin if stdin.is_terminal() => Some(Box::new(io::BufReader::new(stdin))),
                _ => None,
            },
            width: terminal_width(),
        }
    }

    /// Characters of a line, if the result goes to a terminal.
    pub(super) fn width(&self) -> Option<usize> {
        self.width
    }

    /// Loads the configuration, with what the command line says about it.
    pub fn config(&self, overrides: Overrides) -> Result<Config, Error> {
        Config::load(&Inputs {
            file: self.config_file.clone(),
            environment: self.environment.clone(),
            overrides,
            ..Inputs::default()
        })
    }

    /// Writes the result of a command, with a line end.
    pub fn print(&mut self, text: &str) -> Result<(), CannotWrite> {
        writeln!(self.out, "{text}").map_err(CannotWrite)
    }

    /// Writes something by the way to standard error, so that the result stays clean for programs.
    pub fn note(&mut self, text: &str) {
        // If even standard error is gone, nobody is left to tell.
        let _ = writeln!(self.err, "{text}");
    }

    /// Asks the person at the terminal a yes-or-no question, where silence means no; `None` if nobody is there.
    pub fn ask(&mut self, question: &str) -> io::Result<Option<bool>> {
        if self.answers.is_none() {
            return Ok(None);
        }
        self.note(&format!("{question} [y/N]"));
        let mut line = String::new();
        if let Some(answers) = &mut self.answers {
            answers.read_line(&mut line)?;
        }
        Ok(Some(matches!(line.trim(), "y" | "Y" | "yes")))
    }

    /// Makes sure that everything printed got out.
    pub fn flush(&mut self) -> Result<(), CannotWrite> {
        self.out.flush().map_err(CannotWrite)
    }
}

/// `None` if standard output is none, or does not say.
fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then(|| size.ws_col.into())
}

#[cfg(test)]
impl Session {
    /// Surroundings that see nothing of the process.
    pub(super) fn for_test(
        config_file: PathBuf,
        environment: Environment,
        streams: [Box<dyn Write + Send>; 2],
        answers: Option<&'static str>,
    ) -> Self {
        let [out, err] = streams;
        Self {
            environment,
            // 2026-11-21T09:30:00Z
            clock: Clock::manual(1_795_253_400_000),
            config_file: Some(config_file),
            out,
            err,
            answers: answers.map(|text| Box::new(text.as_bytes()) as Box<dyn BufRead + Send>),
            width: None,
        }
    }
}
