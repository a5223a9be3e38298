//! What every request passes before its endpoint: trouble, the key, the rate.

use std::future::pending;

use super::{BodyCode, Html, IntoResponse, Next, Refusal, Request, Response, Simulator, State, StatusCode};
use crate::simulate::limits::Sort;
use crate::simulate::{Trouble, lock};

/// Endpoints whose requests cost something.
const SUBMISSIONS: [&str; 4] = [
    "/veo/generate",
    "/veo/extend",
    "/veo/get-4k-video",
    "/jobs/createTask",
];

/// Counts the request, and lets it pass or says why not.
pub(super) async fn pass(State(simulator): State<Simulator>, request: Request, next: Next) -> Response {
    let trouble = simulator.trouble();
    let endpoint = request.uri().path().to_owned();
    simulator.count_request(&endpoint);
    match trouble {
        Some(Trouble::Hang) => return simulator.hang().await,
        Some(Trouble::Slow(by)) => tokio::time::sleep(by).await,
        _ => {}
    }
    let response = match simulator.refusal(trouble, &request, &endpoint) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    };
    if let Some(BodyCode(code)) = response.extensions().get() {
        *simulator.book().answers.entry(*code).or_default() += 1;
    }
    if trouble == Some(Trouble::AnswersLost) {
        return simulator.hang().await;
    }
    response
}

impl Simulator {
    fn count_request(&self, endpoint: &str) {
        *self
            .book()
            .requests
            .entry(endpoint.trim_start_matches('/').to_owned())
            .or_default() += 1;
    }

    /// Until the simulator ends.
    async fn hang(&self) -> Response {
        tokio::select! {
            () = self.0.tasks.draining() => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            never = pending() => never,
        }
    }

    fn refusal(&self, trouble: Option<Trouble>, request: &Request, endpoint: &str) -> Option<Response> {
        let refuse = |code, msg| Some(Refusal::new(code, msg).into_response());
        match trouble {
            Some(Trouble::Gateway) => return Some(bad_gateway()),
            Some(Trouble::Maintenance) => {
                return refuse(455, "The service is under maintenance. Please try again later.");
            }
            Some(Trouble::Internal) => return refuse(500, "Internal Error, Please try again later."),
            Some(Trouble::KeyRevoked) => return Some(Refusal::no_access()),
            _ => {}
        }
        if !self.is_authorised(request) {
            return Some(Refusal::no_access());
        }
        let sort = if SUBMISSIONS.contains(&endpoint) {
            Sort::Submission
        } else {
            Sort::Query
        };
        let admitted = lock(&self.0.limits).admit(sort, self.0.clock.now());
        if trouble == Some(Trouble::TooManyRequests) || !admitted {
            // The page only says that the excess is refused and not queued.
            return refuse(429, "The request rate is too high. Please try again later.");
        }
        None
    }

    fn is_authorised(&self, request: &Request) -> bool {
        let presented = request.headers().get("authorization");
        let bearer = presented.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        bearer.is_some_and(|bearer| self.key().matches(bearer))
    }
}

/// What stands in front of an API says it in its own way.
fn bad_gateway() -> Response {
    let page = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad \
                Gateway</h1></center>\r\n</body>\r\n</html>\r\n";
    (StatusCode::BAD_GATEWAY, Html(page)).into_response()
}
