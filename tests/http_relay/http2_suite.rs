//! The cases of h2spec 2.6, each with the test that has the same in it: a case of a table by its name, a test by that of its
//! function. `tests/it/outside.rs` has what other tools say of the whole.

/// Where the tests are.
const TESTS: &[&str] = &[
    include_str!("http2.rs"),
    include_str!("http2_frame_rules.rs"),
    include_str!("http2_rules.rs"),
    include_str!("http2_states.rs"),
];

const ASKED: &str = "fn what_asks_for_an_answer_gets_it";
const BEGINS: &str = "fn a_connection_begins_as_it_must";
const ENDED: &str = "fn a_stream_that_has_ended_takes_nothing_more";
const TAKEN_BACK: &str = "fn a_client_that_takes_its_request_back_is_not_answered_and_its_upstream_is_let_go";
const WINDOWS: &str = "fn windows_are_kept_to_the_byte";

/// The sections of the suite, and for each of their cases in turn what has the same in it.
const SUITE: &[(&str, &[&str])] = &[
    ("generic/1", &["usual"]),
    (
        "generic/2",
        &[
            "priority",
            "room for a stream that has ended on our side",
            "priority of a stream that has ended on our side",
            TAKEN_BACK,
            ENDED,
        ],
    ),
    ("generic/3.1", &["largest frame", "data in pieces", "padded data"]),
    ("generic/3.2", &["usual", "padded headers", "headers with a priority"]),
    (
        "generic/3.3",
        &[
            "lowest priority, of a stream that depends on another",
            "priority of 256",
            "lowest priority, of a stream that depends on another",
            "exclusive priority",
            "priority of a later stream",
        ],
    ),
    ("generic/3.4", &[TAKEN_BACK]),
    ("generic/3.5", &[ASKED]),
    ("generic/3.7", &[ASKED]),
    ("generic/3.8", &[ASKED]),
    ("generic/3.9", &["room for the connection", "room for a stream that has ended on our side"]),
    ("generic/3.10", &["continuation", "headers and many continuations"]),
    ("generic/4", &["usual", "fn an_answer_ends_where_it_ends", "data in pieces", "trailers"]),
    (
        "generic/5",
        &[
            "remembered, known name",
            "remembered, known name",
            "remembered, known name, coded",
            "remembered, new name",
            "remembered, new name, coded",
            "not remembered, known name",
            "not remembered, known name, coded",
            "not remembered, new name",
            "not remembered, new name, coded",
            "never remembered, known name",
            "never remembered, known name, coded",
            "never remembered, new name",
            "never remembered, new name, coded",
            "a table of no size",
            "a table of two sizes",
        ],
    ),
    ("http2/3.5", &[BEGINS, BEGINS]),
    ("http2/4.1", &["unknown frame", "flags that mean nothing", "reserved bit"]),
    ("http2/4.2", &["largest frame", "frame that is too large", "headers that are too large for a frame"]),
    (
        "http2/4.3",
        &["header block of unfinished codes", "priority within a header block", "other headers within a header block"],
    ),
    (
        "http2/5.1",
        &[
            "data for no stream",
            "reset of no stream",
            "room for no stream",
            "continuation of nothing",
            "data behind the end",
            "headers behind the end",
            "rest of a head behind the end",
            ENDED,
            ENDED,
            ENDED,
            ENDED,
            ENDED,
            ENDED,
        ],
    ),
    ("http2/5.1.1", &["even stream", "stream that goes back"]),
    ("http2/5.1.2", &["fn no_more_requests_at_once_than_were_allowed"]),
    ("http2/5.3.1", &["headers that depend on themselves", "priority that depends on itself"]),
    ("http2/5.4.1", &["ping of a stream", "ping of a stream"]),
    ("http2/5.5", &["unknown frame", "unknown frame within a header block"]),
    ("http2/6.1", &["data on the connection", "data behind the end", "padding as long as the data"]),
    (
        "http2/6.2",
        &[
            "priority within a header block",
            "other headers within a header block",
            "headers on the connection",
            "padding as long as the headers",
        ],
    ),
    ("http2/6.3", &["priority on the connection", "priority of a wrong size"]),
    ("http2/6.4", &["reset of the connection", "reset of no stream", "reset of a wrong size"]),
    ("http2/6.5", &["acknowledgement with content", "settings of a stream", "settings of a wrong size"]),
    (
        "http2/6.5.2",
        &[
            "push that is neither on nor off",
            "window that is too large",
            "frame size that is too small",
            "frame size that is too large",
            "unknown setting",
        ],
    ),
    ("http2/6.5.3", &["two sizes of a window", ASKED]),
    ("http2/6.7", &[ASKED, ASKED, "ping of a stream", "ping of a wrong size"]),
    ("http2/6.8", &["goodbye of a stream"]),
    ("http2/6.9", &["no more room for the connection", "no more room for a stream", "room of a wrong size"]),
    ("http2/6.9.1", &[WINDOWS, "too much room for the connection", "too much room for a stream"]),
    ("http2/6.9.2", &[WINDOWS, WINDOWS, "window that is too large"]),
    (
        "http2/6.10",
        &[
            "headers and many continuations",
            "something within a header block",
            "continuation on the connection",
            "continuation behind the end",
            "continuation behind the last",
            "continuation behind data",
        ],
    ),
    ("http2/7", &[ASKED, ENDED]),
    ("http2/8.1", &["trailers that do not end it"]),
    ("http2/8.1.2", &["name with an upper letter"]),
    (
        "http2/8.1.2.1",
        &[
            "unknown pseudo-header field",
            "pseudo-header field of a response",
            // It passes without those fields, where the suite would have it refused.
            "fn trailers_hold_no_second_head",
            "pseudo-header field behind a field",
        ],
    ),
    ("http2/8.1.2.2", &["connection", "te other than trailers"]),
    (
        "http2/8.1.2.3",
        &["empty path", "no method", "no scheme", "no path, and a Host", "two methods", "two schemes", "two paths"],
    ),
    ("http2/8.1.2.6", &["too short", "too long, in pieces"]),
    ("http2/8.2", &["promise of a client"]),
    ("hpack/2.3.3", &["index that is not there", "name that is not there"]),
    ("hpack/4.2", &["size of the table at the end of a block"]),
    ("hpack/5.2", &["code with padding of eight ones", "code with padding of zeros", "code with its end within"]),
    ("hpack/6.1", &["index 0"]),
    ("hpack/6.3", &["table larger than allowed"]),
];

#[test]
fn each_case_of_the_suite_of_others_has_one_here() {
    let is_there = |name: &str| {
        let written = if name.starts_with("fn ") { format!("{name}()") } else { format!("\"{name}\",") };
        TESTS.iter().any(|text| text.contains(&written))
    };
    let all: Vec<_> = SUITE.iter().flat_map(|(section, cases)| cases.iter().map(move |name| (section, name))).collect();
    assert_eq!(all.len(), 147);
    let missing: Vec<_> = all.into_iter().filter(|(_, name)| !is_there(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
