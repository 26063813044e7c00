//! Helpers of the tests.
pub(crate) mod docker;
pub(crate) mod dormouse;
pub(crate) mod rig;
pub(crate) mod scripted_engine;
pub(crate) mod wait;
