//! Somebody who follows the events of a server.

use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::Value;

/// An event.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) name: String,
    pub(crate) id: Option<i64>,
    pub(crate) data: Value,
}

/// An open stream of events.
pub(crate) struct Follower {
    response: Response,
    unread: Vec<u8>,
    /// What he would come back with.
    pub(crate) last_id: Option<i64>,
    /// Signs of life that were no events.
    pub(crate) comments: usize,
}

impl Follower {
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.expect("the server answers");
        assert_eq!(response.status(), StatusCode::OK);
        let headers = response.headers();
        assert_eq!(headers["content-type"], "text/event-stream");
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(headers["x-accel-buffering"], "no");
        let mut follower = Self {
            response,
            unread: Vec::new(),
            last_id: None,
            comments: 0,
        };
        assert!(
            follower
                .block()
                .await
                .is_some_and(|block| block.starts_with(": ")),
            "it is open at once"
        );
        follower
    }

    /// The next event; `None` if the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Told> {
        loop {
            let block = self.block().await?;
            let field = |name: &str| {
                let lines = block.lines().filter_map(|line| line.strip_prefix(name));
                lines.map(str::trim_start).next_back().map(str::to_owned)
            };
            let id = field("id:").map(|id| id.parse().expect("a number"));
            let Some(name) = field("event:") else {
                self.comments += 1;
                continue;
            };
            let data = field("data:").expect("data");
            return Some(Told {
                name,
                id,
                data: serde_json::from_str(&data).unwrap_or_else(|error| panic!("{error}: {data}")),
            });
        }
    }

    /// The next event of that name.
    pub(crate) async fn next_of(&mut self, name: &str) -> Told {
        loop {
            let told = self
                .next()
                .await
                .unwrap_or_else(|| panic!("the stream ended before {name}"));
            if told.name == name {
                return told;
            }
        }
    }

    /// Reads on until so many signs of life came in all, which may be none of events.
    pub(crate) async fn comments(&mut self, count: usize) {
        while self.comments < count {
            let block = self.block().await.expect("the stream goes on");
            assert!(block.starts_with(':'), "{block}");
            self.comments += 1;
        }
    }

    /// Text up to an empty line.
    async fn block(&mut self) -> Option<String> {
        loop {
            let end = self.unread.windows(2).position(|pair| pair == b"\n\n");
            if let Some(end) = end {
                let block: Vec<u8> = self.unread.drain(..end + 2).collect();
                let block = String::from_utf8(block).expect("text");
                let id = block.lines().find_map(|line| line.strip_prefix("id: "));
                self.last_id = id.map(|id| id.parse().expect("a number")).or(self.last_id);
                return Some(block);
            }
            // An end in the middle is how a server that stops at once ends.
            let bytes = self.response.chunk().await.ok()??;
            self.unread.extend_from_slice(&bytes);
        }
    }
}
