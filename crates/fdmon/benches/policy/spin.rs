//! The policies of the loop, compiled from their own files.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "the loop uses the rest of them")]

#[path = "../../src/spin/budget.rs"]
pub mod budget;
#[path = "../../src/spin/classic.rs"]
pub mod classic;
#[path = "../../src/spin/cost.rs"]
pub mod cost;
#[path = "../../src/spin/per_handler.rs"]
pub mod per_handler;
#[path = "../../src/spin/policy.rs"]
pub mod policy;
#[path = "../../src/spin/trial.rs"]
pub mod trial;
