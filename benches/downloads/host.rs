//! The host that the films lie on: it answers every request with the same film, as fast as the kernel moves pages.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use rustix::fs::{MemfdFlags, memfd_create, sendfile};

use crate::film::Film;

/// A host on a free port of this machine. It is there to the end of the process.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) addr: SocketAddr,
}

/// The film as it is sent: its beginning and its noise in a file that lies in memory.
struct Reel {
    film: Film,
    pages: File,
}

impl Host {
    pub(crate) fn of(film: &Film) -> anyhow::Result<Self> {
        let mut pages = File::from(memfd_create("film", MemfdFlags::CLOEXEC)?);
        pages.write_all(&film.head)?;
        pages.write_all(&film.block)?;
        let reel = Arc::new(Reel {
            film: film.clone(),
            pages,
        });
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let addr = listener.local_addr()?;
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let reel = Arc::clone(&reel);
                // Whoever goes away is done.
                thread::spawn(move || reel.show(stream).ok());
            }
        });
        Ok(Self { addr })
    }
}

impl Reel {
    /// Answers one request after the other.
    fn show(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut requests = BufReader::new(stream.try_clone()?);
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: {}\r\nETag: \"film\"\r\n\r\n",
            self.film.length
        );
        loop {
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                if requests.read_line(&mut line)? == 0 {
                    return Ok(());
                }
            }
            stream.write_all(answer.as_bytes())?;
            self.send(&stream)?;
        }
    }

    fn send(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut left = self.film.length;
        let noise = self.film.head.len() as u64;
        let end = noise + self.film.block.len() as u64;
        let mut at = 0;
        while left > 0 {
            let most = usize::try_from(left.min(end - at)).unwrap_or(usize::MAX);
            // Moves `at` along.
            left -= sendfile(stream, &self.pages, Some(&mut at), most)? as u64;
            if at == end {
                at = noise;
            }
        }
        Ok(())
    }
}
