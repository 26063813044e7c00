//! Helpers of the tests.
pub(crate) mod apps;
pub(crate) mod bind;
pub(crate) mod dns_stub;
pub(crate) mod docker;
pub(crate) mod dormouse;
pub(crate) mod history;
pub(crate) mod line;
pub(crate) mod not_run;
pub(crate) mod oidc;
pub(crate) mod pebble;
pub(crate) mod rig;
pub(crate) mod scripted_engine;
pub(crate) mod shift;
pub(crate) mod streams;
pub(crate) mod tls;
pub(crate) mod wait;
pub(crate) mod webdriver;
