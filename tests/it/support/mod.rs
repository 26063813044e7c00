//! Helpers of the tests.
pub(crate) mod rig;
pub(crate) mod wait;
