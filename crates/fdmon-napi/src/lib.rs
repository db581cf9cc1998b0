//! The Node-API addon of fdmon: it validates, translates, calls and translates back, and decides nothing.
//!
//! Everything here runs on the JavaScript thread that owns the environment. What the addon keeps for an environment lies
//! in that environment's instance data, never in process statics, so that a worker may end at any moment.
#![deny(unsafe_code)]
