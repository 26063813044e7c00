//! Helpers of the tests.
pub(crate) mod docker;
pub(crate) mod rig;
pub(crate) mod wait;
