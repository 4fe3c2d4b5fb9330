//! One test per row of the contract's table, by its words, and one per rule that holds for all of them.

mod accounts;
mod auth;
mod clicks;
mod contract;
mod conversions;
mod lists;
mod traffic;
mod world;
