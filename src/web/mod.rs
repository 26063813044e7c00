//! What a browser sees while a backend is not awake, and when something went wrong. Pure rendering: no I/O, no clock.
//!
//! Used by `proxy`. Nothing here knows a backend's name or address; a page shows the titles of routes, which are
//! public anyway, and every text that comes from outside is escaped.
//!
//! The waiting page is one response that stays open: its head is sent at once, [`WaitingPage::HEARTBEAT`] now and
//! then so that nobody on the way gives up on it, and its tail when the wake has ended. Then the page is asked for
//! again. A browser without scripts shows [`FRAME_PATH`] meanwhile and acts on the end of the response alone; one with
//! scripts acts on the tail, also listens to [`PROGRESS_PATH`], and survives a cut.

mod accept;
mod document;
mod error_page;
mod escape;
mod failure;
mod progress;
mod template;
mod waiting;
mod words;

pub use accept::weighted;
pub use document::{Headers, Theme, WholePage};
pub use error_page::{ErrorBody, error_body, likes_html, status_phrase};
pub use escape::escape;
pub use failure::{Failure, WhyFailed, failed_page};
pub use progress::{Phase, Progress, failed_event, progress_event, ready_event};
pub use template::{BadTemplate, check_template};
pub use waiting::{DependencyView, WaitingPage, WaitingView, framed_page, waiting_page};
pub use words::Language;

/// Where the page's own resources live. Served by Dormouse only while the backend is not awake.
pub const RESERVED_PREFIX: &str = "/.dormouse/";

/// The stream of server-sent events that the waiting page listens to. Its query `path=` holds the percent-encoded
/// path of the page, by which the route is found.
pub const PROGRESS_PATH: &str = "/.dormouse/progress";

/// The inner page that a browser without scripts shows, with the same query.
pub const FRAME_PATH: &str = "/.dormouse/page";
